/*
 * read.c - reads that need more than one piece, tables from the file, decompression or
 * decryption. Pieces that are stored as they are run side by side.
 */
#include "compress.h"
#include "crypto.h"
#include "internal.h"

/* One read on its way: the vectors, and a copy of them to cut pieces from. */
struct reading {
    struct qcow2 *i;
    struct disk_queue *q;
    const struct iovec *iov;
    unsigned count;
    struct iovec *piece;
    struct qcow2_fan fan;
};

/* Bytes of a layer; what lies past its end is zeroes. */
static int from_layer(struct reading *r, struct layer *l, uint64_t offset, uint64_t skip,
                      uint64_t length)
{
    uint64_t size = __atomic_load_n(&l->info.size, __ATOMIC_RELAXED);
    uint64_t there = size > offset ? QZ_MIN(size - offset, length) : 0;
    unsigned n;

    if (there < length)
        iov_fill(r->iov, r->count, skip + there, 0, length - there);
    if (!there)
        return 0;
    n = iov_slice(r->piece, r->iov, r->count, skip, there);
    return qcow2_fan_submit(&r->fan, l, r->q, DISK_READ, offset, r->piece, n);
}

static int encrypted(struct reading *r, const struct qcow2_run *run, uint64_t skip)
{
    uint8_t *flat = qcow2_lease(r->i, r->q, run->length);
    struct iovec v = {flat, run->length};
    struct reading inner = {r->i, r->q, &v, 1, r->piece, {0}};
    int rc;

    if (!flat)
        return -ENOMEM;
    rc = from_layer(&inner, r->i->data, run->host, 0, run->length);
    if (!rc)
        rc = qcow2_fan_wait(&inner.fan);
    if (!rc)
        rc = qcow2_decrypt(r->i->crypto, run->host, flat, run->length);
    if (!rc)
        iov_from_flat(r->iov, r->count, skip, flat, run->length);
    qcow2_lease_end(r->i, r->q, flat, run->length);
    return rc;
}

static int packed(struct reading *r, const struct qcow2_run *run, uint64_t guest, uint64_t skip)
{
    size_t begin = guest & (r->i->cluster_size - 1);
    const uint8_t *cluster;
    int rc = qcow2_unpack(r->i, r->q, run->host, begin + run->length, &cluster);

    if (!rc)
        iov_from_flat(r->iov, r->count, skip, cluster + begin, run->length);
    return rc;
}

static int one_run(struct reading *r, const struct qcow2_run *run, uint64_t guest, uint64_t skip)
{
    switch (run->kind) {
    case QCOW2_DATA:
        if (r->i->crypto)
            return encrypted(r, run, skip);
        return from_layer(r, r->i->data, run->host, skip, run->length);
    case QCOW2_PACKED:
        return packed(r, run, guest, skip);
    case QCOW2_HOLE:
        if (r->i->layer.backing)
            return from_layer(r, r->i->layer.backing, guest, skip, run->length);
        break;
    default:
        break;
    }
    iov_fill(r->iov, r->count, skip, 0, run->length);
    return 0;
}

int qcow2_read(struct qcow2 *i, struct disk_queue *q, uint64_t guest, const struct iovec *iov,
               unsigned count, uint64_t length)
{
    QZ_AUTO_FREE struct iovec *piece = malloc(QZ_MAX(count, 1u) * sizeof(*piece));
    struct reading r = {i, q, iov, count, piece, {0}};
    int rc = piece ? 0 : -ENOMEM, waited;

    for (uint64_t done = 0; !rc && done < length;) {
        struct qcow2_run run;

        rc = qcow2_map(i, q, guest + done, length - done, &run);
        if (!rc)
            rc = one_run(&r, &run, guest + done, done);
        done += run.length;
    }
    waited = qcow2_fan_wait(&r.fan);
    return rc ? rc : waited;
}

/*
 * log.c - the write-ahead log for metadata: a commit costs one flush instead of three.
 *
 * The log is a row of clusters in the image with two slots. A commit writes all changed pieces of
 * tables as one record into the slot of its number's parity, flushes, and only then writes the
 * pieces where they belong, in any order and without a flush. By the time a slot is used again,
 * the flush of the record between has made its pieces durable. Opening an image that was not
 * closed writes the pieces of the records that are whole once more, the older first.
 *
 * A record says "alone" when a flush lay between the pieces of the one before and it: then the one
 * before must not be written again, because a cluster that held a table then may hold guest bytes
 * now. Clusters in use for the second time always bring such a flush with them (commit.c).
 *
 * While there is a log an incompatible feature bit of our own keeps away programs that would not
 * know that the tables are not up to date. Closing takes bit, header extension and clusters away.
 *
 *   record: 0 magic, 8 number, 16 flags, 20 pieces, 24 bytes in all, 32 SHA-256 of all of it with
 *   these 32 bytes zero; from 64 on for each piece: 8 offset, 4 length, 4 zero; then the bytes.
 */
#include "image.h"
#include <openssl/evp.h>

enum { SLOT_BYTES = 1 << 20, HEAD = 64, PIECE = 16, SUM = 32, ALONE = 1, PIECE_MAX = 4096 };

static const uint64_t record_magic = 0x515a4c4f47524543ull; /* "QZLOGREC" */

static uint64_t slot_bytes(const struct qcow2 *i)
{
    return i->header.log_bytes / 2;
}

static void sum_of(const uint8_t *b, uint64_t n, uint8_t out[SUM])
{
    uint8_t zero[SUM] = {0};
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    bool ok = x && EVP_DigestInit_ex(x, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(x, b, 32) == 1 && EVP_DigestUpdate(x, zero, SUM) == 1 &&
              EVP_DigestUpdate(x, b + HEAD, n - HEAD) == 1 && EVP_DigestFinal_ex(x, out, NULL) == 1;

    EVP_MD_CTX_free(x);
    if (!ok)
        memset(out, 0, SUM); /* no record has this sum: it will not count */
}

/* ---- writing */

int qcow2_log_write(struct qcow2 *i, struct disk_queue *q, const struct qcow2_log_piece *pieces,
                    unsigned count, bool alone)
{
    uint64_t n = HEAD + (uint64_t)count * PIECE, at = n, padded;
    QZ_AUTO_FREE uint8_t *b = NULL;

    for (unsigned k = 0; k < count; k++)
        n += pieces[k].length;
    padded = QZ_ALIGN_UP(n, QZ_MAX(i->layer.below->info.alignment, 512u));
    if (padded > slot_bytes(i))
        return -E2BIG;
    b = qcow2_buffer(padded);
    if (!b)
        return -ENOMEM;
    memset(b, 0, HEAD);
    memset(b + n, 0, padded - n);
    i->log_number++;
    qz_store_be64(b, record_magic);
    qz_store_be64(b + 8, i->log_number);
    qz_store_be32(b + 16, alone ? ALONE : 0);
    qz_store_be32(b + 20, count);
    qz_store_be64(b + 24, n);
    for (unsigned k = 0; k < count; k++) {
        uint8_t *p = b + HEAD + (size_t)k * PIECE;

        qz_store_be64(p, pieces[k].offset);
        qz_store_be32(p + 8, pieces[k].length);
        qz_store_be32(p + 12, 0);
        memcpy(b + at, pieces[k].bytes, pieces[k].length);
        at += pieces[k].length;
    }
    sum_of(b, n, b + 32);
    return layer_write(i->layer.below, q,
                       i->header.log_offset + (i->log_number & 1) * slot_bytes(i), b, padded);
}

/* ---- reading it again */

/* A whole record in a slot, or NULL. */
static uint8_t *read_record(struct qcow2 *i, struct disk_queue *q, unsigned slot)
{
    uint8_t *b = qcow2_buffer(slot_bytes(i)), sum[SUM];
    uint64_t n;

    if (b &&
        !layer_read(i->layer.below, q, i->header.log_offset + slot * slot_bytes(i), b,
                    slot_bytes(i)) &&
        qz_load_be64(b) == record_magic && (qz_load_be64(b + 8) & 1) == slot) {
        n = qz_load_be64(b + 24);
        if (n >= HEAD && n <= slot_bytes(i) && qz_load_be32(b + 20) <= (n - HEAD) / PIECE) {
            sum_of(b, n, sum);
            if (!memcmp(sum, b + 32, SUM))
                return b;
        }
    }
    free(b);
    return NULL;
}

/* Never the header, never the log itself, never past the file: a record is foreign bytes too. */
static bool piece_fits(const struct qcow2 *i, uint64_t offset, uint32_t length)
{
    uint64_t log = i->header.log_offset;

    return length && length <= PIECE_MAX && offset % 512 == 0 && length % 512 == 0 &&
           offset >= i->cluster_size && offset <= i->layer.below->info.size &&
           length <= i->layer.below->info.size - offset &&
           (offset + length <= log || offset >= log + i->header.log_bytes);
}

static int write_again(struct qcow2 *i, struct disk_queue *q, const uint8_t *b,
                       struct qz_error *err)
{
    uint32_t count = qz_load_be32(b + 20);
    uint64_t n = qz_load_be64(b + 24), at = HEAD + (uint64_t)count * PIECE;
    int rc = 0;

    for (uint32_t k = 0; !rc && k < count; k++) {
        const uint8_t *p = b + HEAD + (size_t)k * PIECE;
        uint64_t offset = qz_load_be64(p);
        uint32_t length = qz_load_be32(p + 8);
        QZ_AUTO_FREE uint8_t *copy = NULL;

        if (!piece_fits(i, offset, length) || length > n - at)
            return qz_fail(err, -EINVAL,
                           "metadata log: piece %u of record %llu, %u bytes at 0x%llx, "
                           "has no place in the image",
                           k, (unsigned long long)qz_load_be64(b + 8), length,
                           (unsigned long long)offset);
        copy = qcow2_buffer(length);
        if (!copy)
            return qz_fail(err, -ENOMEM, "no memory for the metadata log");
        memcpy(copy, b + at, length);
        at += length;
        rc = layer_write(i->layer.below, q, offset, copy, length);
    }
    return rc ? qz_fail(err, rc, "cannot write from the metadata log: %s", strerror(-rc)) : 0;
}

int qcow2_log_replay(struct qcow2 *i, struct disk_queue *q, struct qz_error *err)
{
    uint8_t *record[2];
    unsigned newer;
    int rc = 0;

    if (i->header.log_bytes != 2ull * SLOT_BYTES && slot_bytes(i) % i->cluster_size)
        return qz_fail(err, -EINVAL, "metadata log: 0x%llx bytes are not two slots",
                       (unsigned long long)i->header.log_bytes);
    for (unsigned s = 0; s < 2; s++)
        record[s] = read_record(i, q, s);
    newer = !record[0] || (record[1] && qz_load_be64(record[1] + 8) > qz_load_be64(record[0] + 8));
    if (record[newer]) {
        const uint8_t *older = record[!newer];

        i->log_number = qz_load_be64(record[newer] + 8);
        if (older && qz_load_be64(older + 8) == i->log_number - 1 &&
            !(qz_load_be32(record[newer] + 16) & ALONE))
            rc = write_again(i, q, older, err);
        if (!rc)
            rc = write_again(i, q, record[newer], err);
    }
    free(record[0]);
    free(record[1]);
    if (!rc)
        rc = layer_flush(i->layer.below, q);
    return rc && err && !err->code ? qz_fail(err, rc, "metadata log: %s", strerror(-rc)) : rc;
}

/* ---- life */

int qcow2_log_begin(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t clusters = QZ_MAX((uint64_t)SLOT_BYTES, i->cluster_size) >> i->cluster_bits, first;
    uint64_t got, bytes = 2 * clusters << i->cluster_bits;
    QZ_AUTO_FREE uint8_t *zero = qcow2_buffer(4096);
    bool zeroed;
    int rc =
        zero ? qcow2_allocate(i, q, 2 * clusters, 2 * clusters, &first, &got, &zeroed) : -ENOMEM;

    if (rc)
        return rc;
    /* Whatever looks like a record there is none of ours. */
    memset(zero, 0, 4096);
    for (unsigned s = 0; !rc && s < 2; s++)
        rc = layer_write(i->layer.below, q, (first << i->cluster_bits) + s * (bytes / 2), zero,
                         QZ_MIN(4096ull, i->cluster_size));
    if (!rc)
        rc = qcow2_commit(i, q, true);
    if (rc)
        return rc;
    i->header.log_offset = first << i->cluster_bits;
    i->header.log_bytes = bytes;
    i->header.log_slot = true;
    i->header.incompatible |= QCOW2_INCOMPAT_LOG;
    qcow2_guard_add(i, i->header.log_offset, bytes);
    rc = qcow2_write_header(i, q);
    if (!rc) {
        i->log = true;
        return 0;
    }
    i->header.log_bytes = 0;
    i->header.incompatible &= ~QCOW2_INCOMPAT_LOG;
    return rc;
}

/* Which of two headers the medium has is not known: with the log's it would bring back old tables,
 * without it lose new ones. So it gets the one with the log again, or is changed no more. */
static void log_stays(struct qcow2 *i, struct disk_queue *q, uint64_t offset, uint64_t bytes)
{
    i->log = true;
    i->header.log_offset = offset;
    i->header.log_bytes = bytes;
    i->header.incompatible |= QCOW2_INCOMPAT_LOG;
    if (qcow2_write_header(i, q))
        qcow2_corrupt(i, "its header cannot be written");
}

int qcow2_log_end(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t offset = i->header.log_offset, bytes = i->header.log_bytes;
    int rc;

    if (!i->log)
        return 0;
    /* All pieces are where they belong and durable before nothing would bring them there again. */
    rc = qcow2_commit(i, q, true);
    if (!rc)
        rc = layer_flush(i->layer.below, q);
    if (rc)
        return rc;
    i->log = false;
    i->header.log_offset = i->header.log_bytes = 0;
    i->header.incompatible &= ~QCOW2_INCOMPAT_LOG;
    rc = qcow2_write_header(i, q);
    if (!rc)
        return qcow2_release(i, offset >> i->cluster_bits, bytes >> i->cluster_bits);
    log_stays(i, q, offset, bytes);
    return rc;
}

/*
 * packed.c - compressed clusters: read, and packed behind each other when written.
 */
#include "compress.h"
#include "image.h"

/* "Compressed Clusters Descriptor": where the bytes are and how many can be of use. */
static void place_of(const struct qcow2 *i, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned x = 62 - (i->cluster_bits - 8);
    uint64_t sectors = (entry >> x & ((1ull << (i->cluster_bits - 8)) - 1)) + 1;

    *offset = entry & ((1ull << x) - 1);
    *length = sectors * 512 - (*offset & 511);
}

int qcow2_unpack(struct qcow2 *i, struct disk_queue *q, uint64_t entry, size_t until,
                 const uint8_t **out)
{
    struct layer *file = i->layer.below;
    uint64_t size = __atomic_load_n(&file->info.size, __ATOMIC_RELAXED), at, length, start, end;
    uint64_t releases = atomic_load(&i->releases);
    uint8_t *in;
    int rc;

    *out = qcow2_unpacked_find(i, q, entry, until);
    if (*out)
        return 0;
    place_of(i, entry, &at, &length);
    if (at >= size)
        return qcow2_corrupt(i, "a compressed cluster is at 0x%llx, past the end of the file",
                             (unsigned long long)at);
    length = QZ_MIN(length, size - at);
    start = QZ_ALIGN_DOWN(at, file->info.alignment);
    end = QZ_MIN(QZ_ALIGN_UP(at + length, file->info.alignment), size);
    in = qcow2_lease(i, q, end - start);
    if (!in)
        return -ENOMEM;
    rc = layer_read(file, q, start, in, end - start);
    if (rc) {
        qcow2_lease_end(i, q, in, end - start);
        return rc;
    }
    rc = qcow2_unpacked_make(i, q, entry, releases, in + (at - start), length, until, out);
    qcow2_lease_end(i, q, in, end - start);
    if (rc == -EIO)
        qz_guest_warn("%s: the compressed cluster at 0x%llx cannot be decompressed", i->layer.label,
                      (unsigned long long)at);
    return rc;
}

/* ---- writing: compressed clusters stand byte behind byte, whatever clusters they touch */

struct qcow2_packer {
    struct task_mutex lock;
    uint64_t at, end;   /* free bytes of the file between them, in clusters that are counted */
    bool shared;        /* the cluster of `at` has a compressed cluster already */
    uint8_t tail[4096]; /* bytes before `at` in its block, to be written again with what follows */
};

static struct qcow2_packer *packer(struct qcow2 *i)
{
    if (!i->packer)
        i->packer = calloc(1, sizeof(*i->packer));
    return i->packer;
}

int qcow2_packer_end(struct qcow2 *i, struct disk_queue *q)
{
    struct qcow2_packer *p = i->packer;

    if (!p)
        return 0;
    task_mutex_lock(&p->lock);
    /* The rest of the cluster stays unused; a cluster that nobody used goes back. */
    if (p->at < p->end && !p->shared)
        qcow2_release(i, p->at >> i->cluster_bits, (p->end - p->at) >> i->cluster_bits);
    p->at = p->end = 0;
    task_mutex_unlock(&p->lock);
    return 0;
}

void qcow2_packer_free(struct qcow2 *i)
{
    free(i->packer);
}

/* A place for n bytes, its clusters counted once more; both locks are held. */
static int find_place(struct qcow2 *i, struct disk_queue *q, struct qcow2_packer *p, uint64_t n,
                      uint64_t *at)
{
    uint64_t first, got;
    bool zeroed;
    int rc = 0;

    if (p->at < p->end && p->shared) {
        /* One more user of the cluster; narrow refcounts may not count so far. */
        rc = qcow2_refcount_change(i, q, p->at >> i->cluster_bits, 1, 1);
        if (rc == -ERANGE)
            p->at = p->end = 0;
        else if (rc)
            return rc;
    }
    if (p->end - p->at < n) {
        rc = qcow2_allocate(i, q, 1, 1, &first, &got, &zeroed);
        if (rc)
            return rc;
        if (p->at == p->end || first << i->cluster_bits != p->end) {
            if (p->at < p->end)
                qcow2_release(i, p->at >> i->cluster_bits, 1);
            p->at = first << i->cluster_bits;
        }
        p->end = (first + 1) << i->cluster_bits;
    }
    *at = p->at;
    p->at += n;
    p->shared = (p->at & (i->cluster_size - 1)) != 0;
    return 0;
}

/* Writes whole blocks; what was in the first one before is written again. */
static int write_bytes(struct qcow2 *i, struct disk_queue *q, struct qcow2_packer *p, uint64_t at,
                       const uint8_t *bytes, uint64_t n)
{
    uint32_t a = i->layer.below->info.alignment;
    uint64_t start = QZ_ALIGN_DOWN(at, a), end = QZ_ALIGN_UP(at + n, a), last;
    QZ_AUTO_FREE uint8_t *b = qcow2_buffer(end - start);
    int rc;

    if (!b)
        return -ENOMEM;
    memcpy(b, p->tail, at - start);
    memcpy(b + (at - start), bytes, n);
    memset(b + (at - start) + n, 0, end - at - n);
    rc = layer_write(i->layer.below, q, start, b, end - start);
    last = QZ_ALIGN_DOWN(at + n, a);
    if (last >= start)
        memcpy(p->tail, b + (last - start), at + n - last);
    return rc;
}

static uint64_t descriptor(const struct qcow2 *i, uint64_t at, uint64_t n)
{
    unsigned x = 62 - (i->cluster_bits - 8);
    uint64_t sectors = ((at + n - 1) >> 9) - (at >> 9);

    return QCOW2_COMPRESSED | at | sectors << x;
}

/* -EAGAIN: somebody else was at the cluster. */
static int put_packed(struct qcow2 *i, struct disk_queue *q, uint64_t guest, const uint8_t *bytes,
                      uint64_t n)
{
    struct qcow2_packer *p = i->packer;
    struct qcow2_allocation claim = {.first = guest >> i->cluster_bits,
                                     .last = guest >> i->cluster_bits};
    struct qcow2_hold hold;
    uint64_t at = 0, entry, old;
    int rc;

    task_mutex_lock(&i->lock);
    if (!qcow2_claim_wait(i, claim.first, claim.first))
        return -EAGAIN;
    rc = qcow2_hold(i, q, guest, 1, &hold);
    if (rc) {
        task_mutex_unlock(&i->lock);
        return rc;
    }
    rc = find_place(i, q, p, n, &at);
    if (!rc)
        qcow2_claim(i, &claim);
    task_mutex_unlock(&i->lock);
    if (!rc) {
        rc = write_bytes(i, q, p, at, bytes, n);
        entry = descriptor(i, at, n);
        old = qz_load_be64(hold.entries);
        if (!rc)
            qcow2_set_entry(i, &hold, 0, entry, 0);
        qcow2_release_entry(i, rc ? entry : old);
        qcow2_unclaim(i, &claim);
    }
    qcow2_hold_end(i, &hold);
    return rc;
}

/* The compressed length; 0: it shall be written as it is. */
static int64_t deflate(struct qcow2 *i, struct disk_queue *q, const void *bytes, size_t length,
                       uint8_t *out)
{
    uint8_t *padded = NULL;
    int64_t n;

    if (i->crypto || i->data != i->layer.below)
        return 0;
    if (length < i->cluster_size) {
        padded = qcow2_lease(i, q, i->cluster_size);
        if (!padded)
            return -ENOMEM;
        memcpy(padded, bytes, length);
        memset(padded + length, 0, i->cluster_size - length);
    }
    n = qcow2_deflate(i->header.compression, (int)i->level, padded ? padded : bytes,
                      i->cluster_size, out);
    qcow2_lease_end(i, q, padded, i->cluster_size);
    return n;
}

static int write_one(struct qcow2 *i, struct disk_queue *q, uint64_t offset, const void *bytes,
                     size_t length)
{
    uint8_t *out = qcow2_lease(i, q, i->cluster_size);
    struct iovec v = {(void *)(uintptr_t)bytes, length};
    int64_t n = out && packer(i) ? deflate(i, q, bytes, length, out) : -ENOMEM;
    int rc = n < 0 ? (int)n : 0;

    if (n == 0)
        rc = qcow2_write(i, q, offset, &v, 1, length);
    if (n > 0) {
        task_mutex_lock(&i->packer->lock);
        do {
            rc = put_packed(i, q, offset, out, (uint64_t)n);
        } while (rc == -EAGAIN);
        task_mutex_unlock(&i->packer->lock);
    }
    qcow2_lease_end(i, q, out, i->cluster_size);
    if (!rc && qcow2_cache_crowded(i->cache))
        rc = qcow2_commit(i, q, false);
    return rc;
}

int qcow2_write_packed(struct layer *l, struct disk_queue *q, uint64_t offset, const void *bytes,
                       size_t length)
{
    struct qcow2 *i = qcow2_of(l);
    uint32_t phase;
    int rc = 0;

    if (l->info.readonly)
        return -EROFS;
    if (offset & (i->cluster_size - 1) || length > i->cluster_size || offset > l->info.size ||
        length > l->info.size - offset)
        return -EINVAL;
    phase = qcow2_begin(i, q);
    if (atomic_load(&i->untouched))
        rc = qcow2_touch(i, q);
    if (!rc)
        rc = atomic_load(&i->corrupt) ? -EIO : write_one(i, q, offset, bytes, length);
    qcow2_leave(i, q, phase);
    return rc;
}

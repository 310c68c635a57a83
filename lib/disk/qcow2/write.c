/*
 * write.c - writes into clusters that have to be allocated, copied or encrypted.
 *
 * A write is cut into pieces of one kind: clusters that are ours alone are written in place; a
 * cluster that has a place in the file but no bytes yet is filled there; everything else gets new
 * clusters, as many in a row as there are. What a piece does not cover of its clusters (or
 * subclusters) is filled from what the guest sees there, in the same write, unless it is known to
 * be zeroes in the file already.
 */
#include "crypto.h"
#include "image.h"

/* A piece that needs its L2 entries changed. */
struct piece {
    struct qcow2_hold hold;
    struct qcow2_allocation claim;
    uint64_t guest, length; /* what is written */
    uint64_t start, end;    /* with what is filled around it */
    uint64_t base;          /* guest offset of the first cluster */
    uint64_t host;          /* of the first cluster, in the data file */
    unsigned count;         /* clusters */
    bool fresh;             /* new clusters, not a place that the entry has */
    bool zeroed;            /* the clusters read as zeroes */
    bool whole;             /* subclusters: all of the cluster is filled */
    bool empty;             /* subclusters: none is */
};

static uint64_t entry_at(const struct qcow2 *i, const struct qcow2_hold *h, unsigned n)
{
    return qz_load_be64(h->entries + ((size_t)n << i->entry_bits));
}

static uint64_t bitmap_at(const struct qcow2 *i, const struct qcow2_hold *h, unsigned n)
{
    return i->subs > 1 ? qz_load_be64(h->entries + ((size_t)n << i->entry_bits) + 8) : 0;
}

/* The entry has a cluster that only it mentions. */
static bool has_place(const struct qcow2 *i, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED || !(entry & QCOW2_COPIED))
        return false;
    return (entry & QCOW2_OFFSET_MASK) || i->data != i->layer.below;
}

/* Bits of the subclusters that [from, to) of a cluster touches. */
static uint64_t sub_mask(const struct qcow2 *i, uint64_t from, uint64_t to)
{
    unsigned first = (unsigned)(from >> i->sub_bits), last = (unsigned)((to - 1) >> i->sub_bits);

    return ((2ull << last) - 1) & ~((1ull << first) - 1);
}

/* How far around the write the piece must be filled. */
static void borders(const struct qcow2 *i, struct piece *p)
{
    uint64_t first = entry_at(i, &p->hold, 0), last = entry_at(i, &p->hold, p->count - 1);
    uint64_t end = p->guest + p->length,
             clusters_end = p->base + ((uint64_t)p->count << i->cluster_bits);
    uint64_t size = 1ull << i->sub_bits;
    bool stored = false;

    if (i->subs > 1 && p->fresh)
        /* What another cluster holds for subclusters we do not write must come along. */
        stored = (first | last) & QCOW2_COMPRESSED ||
                 ((bitmap_at(i, &p->hold, 0) | bitmap_at(i, &p->hold, p->count - 1)) & UINT32_MAX);
    p->whole = i->subs == 1 || stored;
    if (p->whole) {
        p->start = p->base;
        p->end = clusters_end;
        return;
    }
    p->start = QZ_ALIGN_DOWN(p->guest, size);
    p->end = QZ_ALIGN_UP(end, size);
    if (p->fresh)
        return;
    /* In a subcluster that has its bytes already, only what the guest writes changes. */
    if (bitmap_at(i, &p->hold, 0) & sub_mask(i, p->start - p->base, p->start - p->base + 1))
        p->start = p->guest;
    if (bitmap_at(i, &p->hold, 0) & sub_mask(i, p->end - 1 - p->base, p->end - p->base))
        p->end = end;
}

/* Do all of these bytes read as zeroes, as far as the tables tell? */
static int reads_zero(struct qcow2 *i, struct disk_queue *q, uint64_t from, uint64_t to, bool *zero)
{
    *zero = true;
    while (*zero && from < to) {
        struct qcow2_run run;
        int rc = qcow2_map(i, q, from, to - from, &run);

        if (rc)
            return rc;
        *zero =
            run.kind == QCOW2_ZEROES ||
            (run.kind == QCOW2_HOLE && (!i->layer.backing || from >= i->layer.backing->info.size));
        from += run.length;
    }
    return 0;
}

/* The bytes of [from, to) as the guest sees them; *bytes NULL: nothing need be written. */
static int border_bytes(struct qcow2 *i, struct disk_queue *q, struct piece *p, uint64_t from,
                        uint64_t to, uint8_t **bytes)
{
    struct iovec v;
    bool zero;
    int rc;

    if (from == to)
        return 0;
    rc = reads_zero(i, q, from, to, &zero);
    if (rc || (zero && p->zeroed && !i->crypto))
        return rc;
    *bytes = qcow2_lease(i, q, to - from);
    if (!*bytes)
        return -ENOMEM;
    v = (struct iovec){*bytes, to - from};
    if (!zero)
        return qcow2_read(i, q, from, &v, 1, to - from);
    memset(*bytes, 0, to - from);
    return 0;
}

/* Encrypts a copy: the guest's memory stays as it is. */
static int write_encrypted(struct qcow2 *i, struct disk_queue *q, uint64_t host,
                           const struct iovec *iov, unsigned count, uint64_t length)
{
    uint8_t *flat = qcow2_lease(i, q, length);
    int rc;

    if (!flat)
        return -ENOMEM;
    iov_to_flat(flat, iov, count, 0, length);
    rc = qcow2_encrypt(i->crypto, host, flat, length);
    if (!rc)
        rc = layer_write(i->data, q, host, flat, length);
    qcow2_lease_end(i, q, flat, length);
    return rc;
}

/* A cluster that the file does not reach: the last one of an image need not be whole. */
static int reach(struct qcow2 *i, struct disk_queue *q, uint64_t host, uint64_t guest, uint64_t end)
{
    bool inside = i->data == i->layer.below;
    int rc;

    if (inside && host >> i->cluster_bits >> i->ref_bits >= i->reftable.count)
        return qcow2_corrupt(i, "guest offset 0x%llx is stored at 0x%llx, where no refcount is",
                             (unsigned long long)guest, (unsigned long long)host);
    /* Under lock, because a second one with an older idea of the size would cut the file. */
    task_mutex_lock(&i->lock);
    if (inside)
        rc = qcow2_grow_file(i, q, end);
    else
        rc = end > i->data->info.size ? layer_resize(i->data, q, end, NULL) : 0;
    task_mutex_unlock(&i->lock);
    return rc;
}

/* The filter says that a table may stand there. */
static int look_closely(struct qcow2 *i, uint64_t host, uint64_t guest, uint64_t length)
{
    const char *table;

    task_mutex_lock(&i->lock);
    table = qcow2_guard_table(i, host, length);
    task_mutex_unlock(&i->lock);
    return table ? qcow2_corrupt(i, "guest offset 0x%llx is stored at 0x%llx, over %s",
                                 (unsigned long long)guest, (unsigned long long)host, table)
                 : 0;
}

static int write_at(struct qcow2 *i, struct disk_queue *q, uint64_t host, uint64_t guest,
                    const struct iovec *iov, unsigned count, uint64_t length)
{
    int rc = qcow2_guard_maybe(i, host, length) ? look_closely(i, host, guest, length) : 0;

    if (!rc && host + length > __atomic_load_n(&i->data->info.size, __ATOMIC_RELAXED))
        rc = reach(i, q, host, guest, host + length);
    if (rc)
        return rc;
    return i->crypto ? write_encrypted(i, q, host, iov, count, length)
                     : layer_writev(i->data, q, host, iov, count);
}

/* The data of a piece between what surrounds it (NULL: nothing need be written there). */
static int write_between(struct qcow2 *i, struct disk_queue *q, const struct piece *p,
                         uint8_t *head, const struct iovec *iov, unsigned count, uint64_t skip,
                         uint8_t *tail)
{
    QZ_AUTO_FREE struct iovec *all = malloc((count + 2) * sizeof(*all));
    uint64_t end = p->guest + p->length, from = p->guest, to = end;
    unsigned n = 0;

    if (!all)
        return -ENOMEM;
    if (head) {
        all[n++] = (struct iovec){head, p->guest - p->start};
        from = p->start;
    }
    n += iov_slice(all + n, iov, count, skip, p->length);
    if (tail) {
        all[n++] = (struct iovec){tail, p->end - end};
        to = p->end;
    }
    return write_at(i, q, p->host + (from - p->base), from, all, n, to - from);
}

/* The data of a piece, and what surrounds it. */
static int fill(struct qcow2 *i, struct disk_queue *q, struct piece *p, const struct iovec *iov,
                unsigned count, uint64_t skip)
{
    uint64_t end = p->guest + p->length;
    uint8_t *head = NULL, *tail = NULL;
    int rc = border_bytes(i, q, p, p->start, p->guest, &head);

    if (!rc)
        rc = border_bytes(i, q, p, end, p->end, &tail);
    if (!rc)
        rc = write_between(i, q, p, head, iov, count, skip, tail);
    /* Bytes that were durable elsewhere, or zeroes over old bytes, must be on the medium before an
     * entry points here. Into a fresh place only the guest's own unflushed bytes went. */
    if (!rc && (head || tail || !p->zeroed))
        atomic_store(&i->copied, true);
    qcow2_lease_end(i, q, head, p->guest - p->start);
    qcow2_lease_end(i, q, tail, p->end - end);
    return rc;
}

/* The entries point at what was written; what they pointed at before goes back. */
static int publish(struct qcow2 *i, struct piece *p)
{
    int result = 0;

    for (unsigned n = 0; n < p->count; n++) {
        uint64_t old = entry_at(i, &p->hold, n), bitmap = bitmap_at(i, &p->hold, n);
        uint64_t base = p->base + ((uint64_t)n << i->cluster_bits), entry, mask;
        uint64_t from = QZ_MAX(p->start, base) - base;
        uint64_t to = QZ_MIN(p->end, base + i->cluster_size) - base;
        int rc = 0;

        entry = (p->host + ((uint64_t)n << i->cluster_bits)) | QCOW2_COPIED;
        if (i->subs > 1) {
            mask = p->empty ? 0 : p->whole ? UINT32_MAX : sub_mask(i, from, to);
            bitmap = (bitmap | mask) & ~(mask << 32);
        }
        qcow2_set_entry(i, &p->hold, n, entry, bitmap);
        if (p->fresh)
            rc = qcow2_release_entry(i, old);
        result = result ? result : rc;
    }
    return result;
}

/* How many clusters from the first are alike for a piece, and where they go; lock is held. */
static int place(struct qcow2 *i, struct disk_queue *q, struct piece *p)
{
    uint64_t first, got;
    int rc;

    p->fresh = !has_place(i, entry_at(i, &p->hold, 0));
    if (!p->fresh) {
        p->host = entry_at(i, &p->hold, 0) & QCOW2_OFFSET_MASK;
        p->count = 1;
        return 0;
    }
    p->count = 1;
    while (p->count < p->hold.count && !has_place(i, entry_at(i, &p->hold, p->count)))
        p->count++;
    if (i->data != i->layer.below) {
        p->host = p->base; /* in an external data file all stands where the guest sees it */
        return 0;
    }
    rc = qcow2_allocate(i, q, p->count, 1, &first, &got, &p->zeroed);
    if (rc)
        return rc;
    p->host = first << i->cluster_bits;
    p->count = (unsigned)got;
    return 0;
}

/* -EAGAIN: something else was first; look again. */
static int begin(struct qcow2 *i, struct disk_queue *q, struct piece *p)
{
    uint64_t last = (p->guest + p->length - 1) >> i->cluster_bits, alone, limit;
    struct qcow2_run run;
    int rc;

    p->base = QZ_ALIGN_DOWN(p->guest, i->cluster_size);
    task_mutex_lock(&i->lock);
    alone = qcow2_claim_wait(i, p->base >> i->cluster_bits, last);
    if (!alone)
        return -EAGAIN;
    limit = p->base + (alone << i->cluster_bits);
    p->length = QZ_MIN(p->length, limit - p->guest);
    rc = qcow2_release_settle(i, q);
    if (!rc)
        rc = qcow2_map(i, q, p->guest, p->length, &run);
    if (!rc && run.kind == QCOW2_DATA && run.copied)
        rc = -EAGAIN;
    if (!rc)
        rc = qcow2_hold(i, q, p->guest, p->length, &p->hold);
    if (!rc) {
        rc = place(i, q, p);
        if (rc)
            qcow2_hold_end(i, &p->hold);
    }
    if (!rc) {
        limit = p->base + ((uint64_t)p->count << i->cluster_bits);
        p->length = QZ_MIN(p->length, limit - p->guest);
        p->claim.first = p->base >> i->cluster_bits;
        p->claim.last = p->claim.first + p->count - 1;
        qcow2_claim(i, &p->claim);
        borders(i, p);
    }
    task_mutex_unlock(&i->lock);
    return rc;
}

static int write_piece(struct qcow2 *i, struct disk_queue *q, struct piece *p,
                       const struct iovec *iov, unsigned count, uint64_t skip)
{
    int rc = begin(i, q, p);

    if (rc)
        return rc;
    rc = fill(i, q, p, iov, count, skip);
    if (!rc)
        rc = publish(i, p);
    else if (p->fresh && i->data == i->layer.below)
        qcow2_release(i, p->host >> i->cluster_bits, p->count);
    qcow2_hold_end(i, &p->hold);
    qcow2_unclaim(i, &p->claim);
    return rc;
}

static int in_place(struct qcow2 *i, struct disk_queue *q, const struct qcow2_run *run,
                    uint64_t guest, const struct iovec *iov, unsigned count, uint64_t skip)
{
    QZ_AUTO_FREE struct iovec *v = malloc(QZ_MAX(count, 1u) * sizeof(*v));
    unsigned n;

    if (!v)
        return -ENOMEM;
    n = iov_slice(v, iov, count, skip, run->length);
    return write_at(i, q, run->host, guest, v, n, run->length);
}

int qcow2_write(struct qcow2 *i, struct disk_queue *q, uint64_t guest, const struct iovec *iov,
                unsigned count, uint64_t length)
{
    int rc = 0;

    for (uint64_t done = 0; !rc && done < length;) {
        struct piece p = {.guest = guest + done, .length = length - done};
        struct qcow2_run run;

        if (atomic_load(&i->corrupt))
            return -EIO;
        rc = qcow2_map(i, q, p.guest, p.length, &run);
        if (!rc && run.kind == QCOW2_DATA && run.copied) {
            rc = in_place(i, q, &run, p.guest, iov, count, done);
            done += run.length;
            continue;
        }
        if (!rc)
            rc = write_piece(i, q, &p, iov, count, done);
        if (!rc)
            done += p.length;
        else if (rc == -EAGAIN)
            rc = 0;
        if (!rc && qcow2_cache_crowded(i->cache))
            rc = qcow2_commit(i, q, false);
    }
    return rc;
}

/* Places for what the piece covers; new ones read as zeroes. */
static int reserve_piece(struct qcow2 *i, struct disk_queue *q, struct piece *p)
{
    uint64_t bytes;
    int rc = begin(i, q, p);

    if (rc)
        return rc;
    bytes = (uint64_t)p->count << i->cluster_bits;
    p->whole = true;
    p->empty = i->layer.backing || i->header.backing_name;
    if (p->fresh && !p->zeroed) {
        rc = i->data == i->layer.below ? layer_write_zeroes(i->data, q, p->host, bytes, 0) : 0;
        atomic_store(&i->copied, true);
    }
    if (!rc)
        rc = publish(i, p);
    qcow2_hold_end(i, &p->hold);
    qcow2_unclaim(i, &p->claim);
    return rc;
}

int qcow2_preallocate(struct qcow2 *i, struct disk_queue *q, uint64_t from, uint64_t to)
{
    int rc = 0;

    while (!rc && from < to) {
        struct piece p = {.guest = from, .length = to - from};
        struct qcow2_run run;

        rc = qcow2_map(i, q, from, to - from, &run);
        if (!rc && (run.kind == QCOW2_DATA || run.host)) {
            from += run.length;
            continue;
        }
        p.length = QZ_MIN(p.length, run.length);
        if (!rc)
            rc = reserve_piece(i, q, &p);
        if (!rc)
            from += p.length;
        else if (rc == -EAGAIN)
            rc = 0;
        if (!rc && qcow2_cache_crowded(i->cache))
            rc = qcow2_commit(i, q, false);
    }
    return rc;
}

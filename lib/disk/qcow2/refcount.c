/*
 * refcount.c - how often each cluster of the file is used; finding free ones.
 *
 * The refcount table is whole in memory, its blocks are slices in the cache. A cluster without a
 * block has refcount 0. A missing block is made in the first free cluster that it would describe
 * itself, as far as it is needed for that very cluster.
 */
#include "internal.h"

uint64_t qcow2_refcount_decode(const uint8_t *block, uint64_t index, unsigned order)
{
    switch (order) {
    case 6:
        return qz_load_be64(block + index * 8);
    case 5:
        return qz_load_be32(block + index * 4);
    case 4:
        return qz_load_be16(block + index * 2);
    case 3:
        return block[index];
    default: {
        unsigned bits = 1u << order, at = (unsigned)(index << order) & 7;

        return block[index << order >> 3] >> at & ((1u << bits) - 1);
    }
    }
}

void qcow2_refcount_encode(uint8_t *block, uint64_t index, unsigned order, uint64_t value)
{
    switch (order) {
    case 6:
        qz_store_be64(block + index * 8, value);
        break;
    case 5:
        qz_store_be32(block + index * 4, (uint32_t)value);
        break;
    case 4:
        qz_store_be16(block + index * 2, (uint16_t)value);
        break;
    case 3:
        block[index] = (uint8_t)value;
        break;
    default: {
        unsigned bits = 1u << order, at = (unsigned)(index << order) & 7;
        uint8_t mask = (uint8_t)(((1u << bits) - 1) << at), *b = &block[index << order >> 3];

        *b = (uint8_t)((*b & ~mask) | (value << at & mask));
    }
    }
}

static uint64_t most(const struct qcow2 *i)
{
    return i->header.refcount_order == 6 ? INT64_MAX
                                         : (1ull << (1u << i->header.refcount_order)) - 1;
}

/* The slice with the refcount of a cluster and the index in it; *s NULL: there is no block. */
static int slice_for(struct qcow2 *i, struct disk_queue *q, uint64_t cluster,
                     struct qcow2_slice **s, uint64_t *where, uint64_t *index)
{
    uint64_t n = cluster >> i->ref_bits, block, at;
    uint32_t unit = qcow2_cache_unit(i->cache);

    *s = NULL;
    *where = *index = 0;
    if (n >= i->reftable.count)
        return 0;
    block = qcow2_top_get(&i->reftable, (uint32_t)n);
    if (!block)
        return 0;
    if (block & (i->cluster_size - 1))
        return qcow2_corrupt(i, "refcount table entry %llu is not aligned: 0x%llx",
                             (unsigned long long)n, (unsigned long long)block);
    /* Bits first: with refcounts of one bit a byte has eight. */
    at = (cluster & ((1ull << i->ref_bits) - 1)) << i->header.refcount_order >> 3;
    *where = block + QZ_ALIGN_DOWN(at, unit);
    *index = cluster & (((uint64_t)unit << 3 >> i->header.refcount_order) - 1);
    return qcow2_cache_get(i->cache, q, *where, QCOW2_SLICE_REF, s);
}

int qcow2_refcount_get(struct qcow2 *i, struct disk_queue *q, uint64_t cluster, uint64_t *value)
{
    struct qcow2_slice *s;
    uint64_t where, index;
    int rc = slice_for(i, q, cluster, &s, &where, &index);

    *value = 0;
    if (rc || !s)
        return rc;
    *value = qcow2_refcount_decode(qcow2_slice_bytes(s), index, i->header.refcount_order);
    qcow2_cache_put(i->cache, s);
    return 0;
}

/* Writes one refcount into its slice. Refcounts narrower than a byte take their byte along. */
static void store(struct qcow2 *i, struct qcow2_slice *s, uint64_t where, uint64_t index,
                  uint64_t value)
{
    unsigned order = i->header.refcount_order;
    uint64_t at = index << order >> 3;
    uint32_t width = order < 3 ? 1 : 1u << (order - 3);
    uint8_t b[8];

    memcpy(b, qcow2_slice_bytes(s) + at, width);
    qcow2_refcount_encode(b, order < 3 ? index & ((8u >> order) - 1) : 0, order, value);
    qcow2_slice_write(i->cache, s, where + at, b, width);
}

static int change_one(struct qcow2 *i, struct qcow2_slice *s, uint64_t where, uint64_t index,
                      uint64_t cluster, int delta)
{
    uint64_t old = qcow2_refcount_decode(qcow2_slice_bytes(s), index, i->header.refcount_order);

    if (delta < 0 && !old)
        return qcow2_corrupt(i, "cluster 0x%llx is in use but its refcount is 0",
                             (unsigned long long)(cluster << i->cluster_bits));
    if (delta > 0 && old >= most(i))
        return -ERANGE;
    store(i, s, where, index, delta > 0 ? old + 1 : old - 1);
    if (delta < 0 && old == 1) {
        i->hint = QZ_MIN(i->hint, cluster);
        /* Whatever table was there is none now. */
        qcow2_cache_forget(i->cache, cluster << i->cluster_bits, i->cluster_size);
    }
    return 0;
}

int qcow2_refcount_change(struct qcow2 *i, struct disk_queue *q, uint64_t first, uint64_t count,
                          int delta)
{
    for (uint64_t done = 0; done < count;) {
        struct qcow2_slice *s;
        uint64_t where, index,
            per = (uint64_t)qcow2_cache_unit(i->cache) * 8 >> i->header.refcount_order;
        int rc = slice_for(i, q, first + done, &s, &where, &index);

        if (!rc && !s)
            rc = qcow2_corrupt(i, "cluster 0x%llx is in use but has no refcount block",
                               (unsigned long long)((first + done) << i->cluster_bits));
        if (rc)
            return rc;
        for (; !rc && index < per && done < count; index++, done++)
            rc = change_one(i, s, where, index, first + done, delta);
        qcow2_cache_put(i->cache, s);
        if (rc)
            return rc;
    }
    return 0;
}

int qcow2_grow_file(struct qcow2 *i, struct disk_queue *q, uint64_t end)
{
    struct layer *file = i->layer.below;
    uint64_t size = __atomic_load_n(&file->info.size, __ATOMIC_RELAXED), step, to;
    int rc;

    if (end <= size)
        return 0;
    /* In steps, so that it is rare; what is too much is cut off when the image is closed. */
    step = QZ_MAX(QZ_MIN(size / 8, 256ull << 20), 1ull << 20);
    to = QZ_ALIGN_UP(end + step, QZ_MAX(i->cluster_size, 65536ull));
    rc = layer_resize(file, q, to, NULL);
    if (rc)
        rc = layer_resize(file, q, end, NULL);
    return rc == -ENOTSUP ? -ENOSPC : rc;
}

/* ---- blocks that are missing */

/* Block n in a cluster `at`: a free one that another block describes, or the first of its own
 * range, so that it describes itself. */
static int make_block(struct qcow2 *i, struct disk_queue *q, uint64_t n, uint64_t at)
{
    uint64_t offset = at << i->cluster_bits;
    uint32_t unit = qcow2_cache_unit(i->cache);
    const char *table = qcow2_guard_table(i, offset, i->cluster_size);
    struct qcow2_slice *s;
    int rc;

    /* Where no block is, all refcounts are 0; a table there is not counted. */
    if (table)
        return qcow2_corrupt(i, "there is no refcount block for %s at 0x%llx", table,
                             (unsigned long long)offset);
    rc = qcow2_grow_file(i, q, offset + i->cluster_size);
    if (!rc && at >> i->ref_bits != n)
        rc = qcow2_refcount_change(i, q, at, 1, 1);
    for (uint64_t part = 0; !rc && part < i->cluster_size; part += unit) {
        rc = qcow2_cache_get_new(i->cache, offset + part, QCOW2_SLICE_REF, &s);
        if (rc)
            break;
        if (!part && at >> i->ref_bits == n)
            store(i, s, offset, 0, 1);
        qcow2_cache_put(i->cache, s);
    }
    if (rc) {
        qcow2_cache_forget(i->cache, offset, i->cluster_size);
        return rc;
    }
    atomic_store(&i->fresh, QZ_MAX(atomic_load(&i->fresh), at + 1));
    qcow2_guard_add(i, offset, i->cluster_size);
    qcow2_top_set(&i->reftable, (uint32_t)n, offset);
    return 0;
}

/* Replaces the refcount table with a larger one. It goes behind all that the old one reaches,
 * together with the blocks that describe it, and is used once all of it is on the medium. */
static int grow_table(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t per_cluster = i->cluster_size / 8, per_block = 1ull << i->ref_bits;
    uint64_t first = (uint64_t)i->reftable.count << i->ref_bits, blocks = 0, clusters, want;
    struct qcow2_top grown;
    uint64_t old_offset = i->reftable.offset, old_clusters = i->header.reftable_clusters;
    uint8_t *bytes;
    int rc;

    want = i->reftable.count + i->reftable.count / 2 + 1;
    do {
        clusters = QZ_ALIGN_UP(want + blocks, per_cluster) / per_cluster;
        blocks = (clusters + blocks + per_block - 1) / per_block;
    } while (blocks * per_block < clusters + blocks || clusters * per_cluster < want + blocks);
    if (clusters << i->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    rc = qcow2_top_init(&grown, (first + blocks) << i->cluster_bits,
                        (uint32_t)(clusters * per_cluster), (uint32_t)i->cluster_size);
    if (rc)
        return rc;
    bytes = qcow2_buffer((blocks + clusters) << i->cluster_bits);
    if (!bytes) {
        qcow2_top_clear(&grown);
        return -ENOMEM;
    }
    memset(bytes, 0, (blocks + clusters) << i->cluster_bits);
    for (uint64_t n = 0; n < i->reftable.count; n++)
        grown.entries[n] = qcow2_top_get(&i->reftable, (uint32_t)n);
    for (uint64_t n = 0; n < blocks; n++)
        grown.entries[i->reftable.count + n] = (first + n) << i->cluster_bits;
    for (uint64_t n = 0; n < blocks + clusters; n++)
        qcow2_refcount_encode(bytes, n, i->header.refcount_order, 1);
    for (uint64_t n = 0; n < grown.count; n++)
        qz_store_be64(bytes + (blocks << i->cluster_bits) + n * 8, grown.entries[n]);

    /* All that is dirty in the old table must be in place before it is copied out of use. */
    rc = qcow2_grow_file(i, q, (first + blocks + clusters) << i->cluster_bits);
    if (!rc)
        rc = layer_write(i->layer.below, q, first << i->cluster_bits, bytes,
                         (blocks + clusters) << i->cluster_bits);
    free(bytes);
    if (!rc)
        rc = qcow2_commit(i, q, true);
    if (rc) {
        qcow2_top_clear(&grown);
        return rc;
    }
    task_mutex_lock(&i->commit_lock); /* a commit of another queue may be reading the old one */
    qcow2_top_clear(&i->reftable);
    i->reftable = grown;
    qcow2_guard_add(i, first << i->cluster_bits, (blocks + clusters) << i->cluster_bits);
    pthread_mutex_init(&i->reftable.mutex, NULL);
    task_mutex_unlock(&i->commit_lock);
    i->header.reftable_offset = grown.offset;
    i->header.reftable_clusters = (uint32_t)clusters;
    atomic_store(&i->fresh, QZ_MAX(atomic_load(&i->fresh), first + blocks + clusters));
    rc = qcow2_write_header(i, q);
    if (rc)
        return rc;
    return qcow2_release(i, old_offset >> i->cluster_bits, old_clusters);
}

/* ---- allocation */

/* Looks for free clusters in a row in the slice of `at`; *count 0: `at` is used. *count is at most
 * want; -ENOENT when the range has no refcount block. */
static int free_run(struct qcow2 *i, struct disk_queue *q, uint64_t at, uint64_t want,
                    uint64_t *skip, uint64_t *count)
{
    uint64_t where, index,
        per = (uint64_t)qcow2_cache_unit(i->cache) * 8 >> i->header.refcount_order;
    struct qcow2_slice *s;
    const uint8_t *b;
    int rc = slice_for(i, q, at, &s, &where, &index);

    *skip = *count = 0;
    if (rc)
        return rc;
    if (!s)
        return -ENOENT;
    b = qcow2_slice_bytes(s);
    while (index < per && qcow2_refcount_decode(b, index, i->header.refcount_order)) {
        ++*skip;
        ++index;
    }
    while (index < per && *count < want &&
           !qcow2_refcount_decode(b, index, i->header.refcount_order)) {
        ++*count;
        ++index;
    }
    qcow2_cache_put(i->cache, s);
    return 0;
}

/* Finds at least `least` and up to `want` free clusters from *at on. */
static int find(struct qcow2 *i, struct disk_queue *q, uint64_t want, uint64_t least, uint64_t *at,
                uint64_t *count)
{
    uint64_t run = 0, from = *at;

    for (uint64_t next = from;;) {
        uint64_t skip, got, end = __atomic_load_n(&i->layer.below->info.size, __ATOMIC_RELAXED);
        int rc = free_run(i, q, next, want - run, &skip, &got);

        if (rc == -ENOENT) {
            uint64_t n = next >> i->ref_bits;

            if (n >= i->reftable.count) {
                rc = grow_table(i, q);
            } else if (run) {
                /* At the head of what was found, so that it goes on without a gap. */
                rc = make_block(i, q, n, from++);
                run--;
            } else {
                rc = make_block(i, q, n, n << i->ref_bits);
            }
            if (rc)
                return rc;
            continue;
        }
        if (rc)
            return rc;
        if (skip || !run) {
            from = next + skip;
            run = 0;
        }
        run += got;
        next += skip + got;
        if (run >= least) {
            *at = from;
            *count = run;
            return 0;
        }
        /* Refcounts may lie, but not make us search for ever. */
        if (skip && next > (end >> i->cluster_bits) + (2ull << i->ref_bits))
            return qcow2_corrupt(i,
                                 "refcounts say that clusters past the end of the file are used");
    }
}

int qcow2_allocate(struct qcow2 *i, struct disk_queue *q, uint64_t want, uint64_t least,
                   uint64_t *first, uint64_t *count, bool *zeroed)
{
    uint64_t at = i->hint, fresh;
    const char *table = NULL;
    int rc;

    if (atomic_load(&i->corrupt))
        return -EIO;
    rc = find(i, q, want, least, &at, count);
    if (!rc && qcow2_guard_maybe(i, at << i->cluster_bits, *count << i->cluster_bits))
        table = qcow2_guard_table(i, at << i->cluster_bits, *count << i->cluster_bits);
    if (table)
        return qcow2_corrupt(i, "%s at 0x%llx is not marked used", table,
                             (unsigned long long)(at << i->cluster_bits));
    if (!rc)
        rc = qcow2_grow_file(i, q, (at + *count) << i->cluster_bits);
    if (!rc)
        rc = qcow2_refcount_change(i, q, at, *count, 1);
    if (rc)
        return rc;
    fresh = atomic_load(&i->fresh);
    *zeroed = at >= fresh;
    if (at + *count > fresh)
        atomic_store(&i->fresh, at + *count);
    if (least == 1)
        i->hint = at + *count;
    *first = at;
    return 0;
}

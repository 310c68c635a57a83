/*
 * table.c - L2 tables that may be written: made, copied when a snapshot shares them, and
 * the entries of a piece of guest disk reserved for one writer.
 */
#include "internal.h"

/* The image is about to differ from its refcounts on the medium: lazy refcounts say so first. */
static int mark_dirty(struct qcow2 *i, struct disk_queue *q)
{
    int rc;

    if (i->dirty_bit || !(i->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS))
        return 0;
    i->header.incompatible |= QCOW2_INCOMPAT_DIRTY;
    rc = qcow2_write_header(i, q);
    if (rc) {
        i->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
        return rc;
    }
    i->dirty_bit = true;
    return 0;
}

/* Fills a new table's cluster in the cache: with the old table's entries or with nothing. */
static int fill_table(struct qcow2 *i, struct disk_queue *q, uint64_t to, uint64_t from,
                      bool zeroed)
{
    uint32_t unit = qcow2_cache_unit(i->cache);
    struct qcow2_slice *s, *old;
    int rc = 0;

    /* The file already reads as zeroes there: slices come into being when they are used. */
    if (zeroed && !from)
        return 0;
    for (uint64_t at = 0; !rc && at < i->cluster_size; at += unit) {
        rc = qcow2_cache_get_new(i->cache, to + at, QCOW2_SLICE_L2, &s);
        if (rc)
            break;
        if (from)
            rc = qcow2_cache_get(i->cache, q, from + at, QCOW2_SLICE_L2, &old);
        if (from && !rc) {
            qcow2_slice_write(i->cache, s, to + at, qcow2_slice_bytes(old), unit);
            qcow2_cache_put(i->cache, old);
        }
        qcow2_cache_put(i->cache, s);
    }
    if (rc)
        qcow2_cache_forget(i->cache, to, i->cluster_size);
    return rc;
}

int qcow2_table_for_write(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t *table)
{
    uint64_t old, first, count, index = guest >> (i->cluster_bits + i->l2_bits);
    bool copied, zeroed;
    int rc = atomic_load(&i->corrupt) ? -EIO : qcow2_map_table(i, guest, &old, &copied);

    if (rc)
        return rc;
    if (index >= i->l1.count)
        return -EINVAL;
    rc = mark_dirty(i, q);
    if (rc)
        return rc;
    *table = old;
    if (old && copied)
        return 0;
    rc = qcow2_allocate(i, q, 1, 1, &first, &count, &zeroed);
    if (rc)
        return rc;
    *table = first << i->cluster_bits;
    rc = fill_table(i, q, *table, old, zeroed);
    if (rc) {
        qcow2_release(i, first, 1);
        return rc;
    }
    qcow2_guard_add(i, *table, i->cluster_size);
    qcow2_top_set(&i->l1, (uint32_t)index, *table | QCOW2_COPIED);
    return old ? qcow2_release(i, old >> i->cluster_bits, 1) : 0;
}

int qcow2_hold(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
               struct qcow2_hold *h)
{
    uint64_t where, clusters, left;
    uint32_t unit = qcow2_cache_unit(i->cache);
    int rc = qcow2_table_for_write(i, q, guest, &h->table);

    if (rc)
        return rc;
    where = h->table + (qcow2_table_index(i, guest) << i->entry_bits);
    left = (unit - (where & (unit - 1))) >> i->entry_bits;
    clusters = ((guest + length - 1) >> i->cluster_bits) - (guest >> i->cluster_bits) + 1;
    rc = qcow2_cache_get(i->cache, q, where, QCOW2_SLICE_L2, &h->slice);
    if (rc)
        return rc;
    h->where = where;
    h->count = (unsigned)QZ_MIN(clusters, left);
    h->entries = qcow2_slice_bytes(h->slice) + (where & (unit - 1));
    return 0;
}

void qcow2_hold_end(struct qcow2 *i, struct qcow2_hold *h)
{
    qcow2_cache_put(i->cache, h->slice);
}

void qcow2_set_entry(struct qcow2 *i, struct qcow2_hold *h, unsigned n, uint64_t entry,
                     uint64_t bitmap)
{
    uint8_t b[16];

    qz_store_be64(b, entry);
    qz_store_be64(b + 8, bitmap);
    qcow2_slice_write(i->cache, h->slice, h->where + ((uint64_t)n << i->entry_bits), b,
                      1u << i->entry_bits);
}

int qcow2_release_entry(struct qcow2 *i, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED) {
        unsigned x = 62 - (i->cluster_bits - 8);
        uint64_t at = entry & ((1ull << x) - 1);
        uint64_t sectors = (entry >> x & ((1ull << (i->cluster_bits - 8)) - 1)) + 1;
        uint64_t first = at >> i->cluster_bits;
        uint64_t last = (QZ_ALIGN_DOWN(at, 512) + sectors * 512 - 1) >> i->cluster_bits;

        return qcow2_release(i, first, last - first + 1);
    }
    /* Clusters of an external data file are not counted. */
    if (i->data != i->layer.below || !(entry & QCOW2_OFFSET_MASK))
        return 0;
    return qcow2_release(i, (entry & QCOW2_OFFSET_MASK) >> i->cluster_bits, 1);
}

/* ---- clusters that somebody is filling */

static uint64_t claimed(struct qcow2 *i, uint64_t first, uint64_t last,
                        struct qcow2_allocation **by)
{
    uint64_t nearest = UINT64_MAX;

    for (struct qcow2_allocation *a = i->allocating; a; a = a->next)
        if (a->first <= last && a->last >= first && QZ_MAX(a->first, first) < nearest) {
            nearest = QZ_MAX(a->first, first);
            *by = a;
        }
    return nearest;
}

uint64_t qcow2_claim_wait(struct qcow2 *i, uint64_t first, uint64_t last)
{
    struct qcow2_allocation *by = NULL;
    uint64_t at;

    pthread_mutex_lock(&i->allocating_mutex);
    at = claimed(i, first, last, &by);
    if (by && at == first) {
        /* lock is held: give it away while waiting, or the one we wait for may never end. */
        task_mutex_unlock(&i->lock);
        qcow2_sleep(&by->waiting, &i->allocating_mutex);
        return 0;
    }
    pthread_mutex_unlock(&i->allocating_mutex);
    return QZ_MIN(at, last + 1) - first;
}

void qcow2_claim(struct qcow2 *i, struct qcow2_allocation *a)
{
    QZ_LOCKED(&i->allocating_mutex);
    a->waiting = NULL;
    a->next = i->allocating;
    i->allocating = a;
}

void qcow2_unclaim(struct qcow2 *i, struct qcow2_allocation *a)
{
    struct qcow2_allocation **p = &i->allocating;

    QZ_LOCKED(&i->allocating_mutex);
    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
    qcow2_wake_all(&a->waiting);
}

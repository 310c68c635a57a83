/*
 * zero.c - write zeroes and discard: both change entries instead of writing bytes.
 *
 * Whole units (clusters, or subclusters where entries have them) become zero; what is left at the
 * edges is written as zeroes, unless it reads so already. Discard only ever acts on whole clusters.
 */
#include "internal.h"

/* What an entry shall be. */
struct change {
    uint64_t entry, bitmap;
    bool release; /* what the old one mentions */
};

static bool behind_is_zero(const struct qcow2 *i, uint64_t guest)
{
    return !i->layer.backing ||
           guest >= __atomic_load_n(&i->layer.backing->info.size, __ATOMIC_RELAXED);
}

static bool own_place(const struct qcow2 *i, uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_COPIED) &&
           ((entry & QCOW2_OFFSET_MASK) || i->data != i->layer.below);
}

/* All of a cluster reads as zeroes; unmap: its place is given back. */
static struct change zero_cluster(const struct qcow2 *i, uint64_t old, uint64_t guest, bool unmap)
{
    struct change c = {.release = true};

    if (own_place(i, old) && !unmap && i->header.version >= 3) {
        c.release = false;
        c.entry = old & ~QCOW2_ZERO;
    }
    /* A hole reads as zeroes where there is nothing behind it; version 2 knows no other way. */
    if (!c.entry && behind_is_zero(i, guest))
        return c;
    if (i->subs > 1)
        c.bitmap = (uint64_t)UINT32_MAX << 32;
    else
        c.entry |= QCOW2_ZERO;
    return c;
}

/* Some subclusters of a cluster read as zeroes. */
static struct change zero_subs(const struct qcow2 *i, uint64_t old, uint64_t bitmap, uint64_t from,
                               uint64_t to)
{
    unsigned first = (unsigned)(from >> i->sub_bits), last = (unsigned)((to - 1) >> i->sub_bits);
    uint64_t mask = ((2ull << last) - 1) & ~((1ull << first) - 1);

    return (struct change){.entry = old, .bitmap = (bitmap | mask << 32) & ~mask};
}

static int apply(struct qcow2 *i, struct qcow2_hold *h, unsigned n, const struct change *c)
{
    const uint8_t *e = h->entries + ((size_t)n << i->entry_bits);
    uint64_t old = qz_load_be64(e), bitmap = i->subs > 1 ? qz_load_be64(e + 8) : 0;

    if (old == c->entry && bitmap == c->bitmap)
        return 0;
    qcow2_set_entry(i, h, n, c->entry, c->bitmap);
    return c->release ? qcow2_release_entry(i, old) : 0;
}

/* Changes the entries of [guest, guest + length), which is whole units inside one L2 slice at the
 * most; *done: how much of it. unmap < 0: a discard. */
static int change_some(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
                       int unmap, uint64_t *done)
{
    uint64_t first = guest >> i->cluster_bits, last = (guest + length - 1) >> i->cluster_bits;
    uint64_t table, alone, at = guest;
    struct qcow2_hold h;
    int rc;

    *done = 0;
    task_mutex_lock(&i->lock);
    alone = qcow2_claim_wait(i, first, last);
    if (!alone)
        return 0;
    length = QZ_MIN(length, ((first + alone) << i->cluster_bits) - guest);
    rc = qcow2_map_table(i, guest, &table, NULL);
    if (!rc && !table && behind_is_zero(i, guest)) {
        /* No table: a hole as far as it would reach. */
        uint64_t span = 1ull << (i->cluster_bits + i->l2_bits);

        *done = QZ_MIN(length, span - (guest & (span - 1)));
        task_mutex_unlock(&i->lock);
        return 0;
    }
    if (!rc)
        rc = qcow2_hold(i, q, guest, length, &h);
    if (rc) {
        task_mutex_unlock(&i->lock);
        return rc;
    }
    for (unsigned n = 0; !rc && n < h.count && at < guest + length; n++) {
        uint64_t base = QZ_ALIGN_DOWN(at, i->cluster_size), end = base + i->cluster_size;
        uint64_t to = QZ_MIN(end, guest + length), old;
        const uint8_t *e = h.entries + ((size_t)n << i->entry_bits);
        struct change c;

        old = qz_load_be64(e);
        /* The disk's last cluster counts as whole when all of the disk in it is meant. */
        if ((at == base && (to == end || to >= i->layer.info.size)) || i->subs == 1)
            c = zero_cluster(i, old, base, unmap != 0);
        else
            c = zero_subs(i, old, qz_load_be64(e + 8), at - base, to - base);
        rc = apply(i, &h, n, &c);
        at = to;
    }
    qcow2_hold_end(i, &h);
    task_mutex_unlock(&i->lock);
    *done = at - guest;
    return rc;
}

static int change_all(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
                      int unmap)
{
    int rc = 0;

    while (!rc && length) {
        uint64_t done;

        if (atomic_load(&i->corrupt))
            return -EIO;
        rc = change_some(i, q, guest, length, unmap, &done);
        guest += done;
        length -= done;
        if (!rc && qcow2_cache_crowded(i->cache))
            rc = qcow2_commit(i, q, false);
    }
    return rc;
}

/* Zeroes as bytes: for edges and where entries cannot say it. */
static int write_bytes(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length)
{
    enum { STEP = 1 << 20 };
    QZ_AUTO_FREE uint8_t *zero = qcow2_buffer(QZ_MIN(length, (uint64_t)STEP));
    int rc = zero ? 0 : -ENOMEM;

    if (zero)
        memset(zero, 0, QZ_MIN(length, (uint64_t)STEP));
    while (!rc && length) {
        uint64_t n = QZ_MIN(length, (uint64_t)STEP);
        struct iovec v = {zero, n};
        struct qcow2_run run;

        rc = qcow2_map(i, q, guest, n, &run);
        if (!rc &&
            (run.kind == QCOW2_ZEROES || (run.kind == QCOW2_HOLE && behind_is_zero(i, guest)))) {
            n = run.length; /* reads as zeroes already */
        } else if (!rc) {
            v.iov_len = n = QZ_MIN(n, run.length);
            rc = qcow2_write(i, q, guest, &v, 1, n);
        }
        guest += n;
        length -= n;
    }
    return rc;
}

/* The first byte of whole units in [from, to) and the end of the last one. */
static void whole_units(const struct qcow2 *i, uint64_t *from, uint64_t *to, uint64_t unit)
{
    *from = QZ_ALIGN_UP(*from, unit);
    if (*to < i->layer.info.size)
        *to = QZ_ALIGN_DOWN(*to, unit);
    if (*to < *from)
        *to = *from;
}

int qcow2_zero(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
               unsigned flags)
{
    uint64_t from = guest, to = guest + length;
    /* A raw external data file must say the same without our tables. */
    bool raw = i->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW;
    bool bytes = raw || (i->header.version < 3 && !behind_is_zero(i, guest));
    int rc = 0;

    if (bytes)
        return flags & REQUEST_NO_FALLBACK ? -ENOTSUP : write_bytes(i, q, guest, length);
    whole_units(i, &from, &to, 1ull << i->sub_bits);
    /* A compressed or shared cluster has no subclusters that could be zero one by one. */
    if (i->subs > 1) {
        struct qcow2_run run;
        uint64_t base = QZ_ALIGN_DOWN(from, i->cluster_size);
        uint64_t last = QZ_ALIGN_DOWN(to, i->cluster_size);

        if (from < to && from != base) {
            rc = qcow2_map(i, q, from, 1, &run);
            if (!rc && run.kind == QCOW2_PACKED)
                from = QZ_MIN(base + i->cluster_size, to);
        }
        if (!rc && from < to && to != last && to < i->layer.info.size) {
            rc = qcow2_map(i, q, last, 1, &run);
            if (!rc && run.kind == QCOW2_PACKED)
                to = QZ_MAX(last, from);
        }
    }
    if (!rc && (flags & REQUEST_NO_FALLBACK) && (from != guest || to != guest + length))
        return -ENOTSUP;
    if (!rc && from == to)
        return write_bytes(i, q, guest, length);
    if (!rc && from > guest)
        rc = write_bytes(i, q, guest, from - guest);
    if (!rc)
        rc = change_all(i, q, from, to - from, !!(flags & REQUEST_MAY_UNMAP));
    if (!rc && guest + length > to)
        rc = write_bytes(i, q, to, guest + length - to);
    return rc;
}

int qcow2_discard(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length)
{
    uint64_t from = guest, to = guest + length;

    if (i->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW)
        return 0;
    whole_units(i, &from, &to, i->cluster_size);
    /* Version 2 cannot hide the backing file's bytes: what is discarded stays. */
    if (from == to || (i->header.version < 3 && !behind_is_zero(i, from)))
        return 0;
    return change_all(i, q, from, to - from, 1);
}

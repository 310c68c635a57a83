/*
 * guard.c - guest bytes never go over the image's own tables, whatever its entries say.
 *
 * A hostile image may map a guest cluster onto its header, so that the guest could write itself
 * another backing file. Every place that is about to get guest bytes, or to be allocated, is
 * looked up in a filter of one bit for each hash of a table's cluster: a miss is certain and costs
 * a few cycles; a hit is looked at closely, with lock held, because tables move only then.
 */
#include "internal.h"

enum { FILTER_BITS = 16 };

static uint32_t slot_of(uint64_t cluster)
{
    return (uint32_t)(cluster * 0x9e3779b97f4a7c15ull >> (64 - FILTER_BITS));
}

static void add_one(struct qcow2 *i, uint64_t cluster)
{
    uint32_t s = slot_of(cluster);

    atomic_fetch_or_explicit(&i->guard[s / 64], 1ull << (s % 64), memory_order_relaxed);
}

void qcow2_guard_add(struct qcow2 *i, uint64_t offset, uint64_t length)
{
    uint64_t first = offset >> i->cluster_bits;
    uint64_t count = length ? ((offset + length - 1) >> i->cluster_bits) - first + 1 : 0;

    /* More than the filter has room for fills it. */
    for (uint64_t n = 0; n < count && n < 1 << 20; n++)
        add_one(i, first + n);
}

void qcow2_guard_load(struct qcow2 *i)
{
    qcow2_guard_add(i, 0, i->cluster_size);
    qcow2_guard_add(i, i->l1.offset, i->l1.count * 8ull);
    qcow2_guard_add(i, i->reftable.offset, i->reftable.count * 8ull);
    qcow2_guard_add(i, i->header.snapshots_offset, i->snapshots_bytes);
    qcow2_guard_add(i, i->header.crypto_offset, i->header.crypto_length);
    qcow2_guard_add(i, i->header.log_offset, i->header.log_bytes);
    if (i->header.bitmaps)
        qcow2_guard_add(i, i->header.bitmap_directory, i->header.bitmap_directory_size);
    for (unsigned n = 0; n < i->snapshot_count; n++)
        qcow2_guard_add(i, i->snapshots[n].l1_offset, i->snapshots[n].l1_entries * 8ull);
    for (uint32_t n = 0; n < i->l1.count; n++)
        if (qcow2_top_get(&i->l1, n) & QCOW2_OFFSET_MASK)
            add_one(i, (qcow2_top_get(&i->l1, n) & QCOW2_OFFSET_MASK) >> i->cluster_bits);
    for (uint32_t n = 0; n < i->reftable.count; n++)
        if (qcow2_top_get(&i->reftable, n))
            add_one(i, qcow2_top_get(&i->reftable, n) >> i->cluster_bits);
}

bool qcow2_guard_maybe(struct qcow2 *i, uint64_t host, uint64_t length)
{
    uint64_t first = host >> i->cluster_bits, last = (host + length - 1) >> i->cluster_bits;

    if (i->data != i->layer.below)
        return false;
    for (uint64_t c = first; c <= last; c++) {
        uint32_t s = slot_of(c);

        if (atomic_load_explicit(&i->guard[s / 64], memory_order_relaxed) >> (s % 64) & 1)
            return true;
    }
    return false;
}

static bool meets(uint64_t offset, uint64_t length, uint64_t from, uint64_t to)
{
    return length && offset < to && offset + length > from;
}

static bool names(const struct qcow2_top *t, uint64_t mask, uint64_t from, uint64_t to)
{
    for (uint32_t n = 0; n < t->count; n++) {
        uint64_t at = qcow2_top_get(t, n) & mask;

        if (at && at >= from && at < to)
            return true;
    }
    return false;
}

const char *qcow2_guard_table(struct qcow2 *i, uint64_t host, uint64_t length)
{
    uint64_t from = QZ_ALIGN_DOWN(host, i->cluster_size);
    uint64_t to = QZ_ALIGN_UP(host + length, i->cluster_size);

    if (i->data != i->layer.below)
        return NULL;
    if (!from)
        return "the header";
    if (meets(i->l1.offset, i->l1.count * 8ull, from, to))
        return "the L1 table";
    if (meets(i->reftable.offset, i->reftable.count * 8ull, from, to))
        return "the refcount table";
    if (meets(i->header.snapshots_offset, i->snapshots_bytes, from, to))
        return "the snapshot table";
    if (meets(i->header.crypto_offset, i->header.crypto_length, from, to))
        return "the encryption header";
    if (meets(i->header.log_offset, i->header.log_bytes, from, to))
        return "the metadata log";
    if (i->header.bitmaps &&
        meets(i->header.bitmap_directory, i->header.bitmap_directory_size, from, to))
        return "the bitmap directory";
    for (unsigned n = 0; n < i->snapshot_count; n++)
        if (meets(i->snapshots[n].l1_offset, i->snapshots[n].l1_entries * 8ull, from, to))
            return "a snapshot's L1 table";
    if (names(&i->reftable, ~0ull, from, to))
        return "a refcount block";
    if (names(&i->l1, QCOW2_OFFSET_MASK, from, to))
        return "an L2 table";
    return NULL;
}

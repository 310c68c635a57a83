/*
 * repair.c - the counts of a check against the refcounts, and mending what is wrong.
 *
 * Single refcounts are set right in place. When the refcount table or its blocks cannot be used
 * (not aligned, outside, twice, missing), all of them are written anew behind the end of the file,
 * and the header, last, points at them.
 */
#include "check.h"

static uint64_t most(const struct qcow2 *i)
{
    return i->header.refcount_order == 6 ? INT64_MAX
                                         : (1ull << (1u << i->header.refcount_order)) - 1;
}

int qcow2_count_bitmaps(struct qcow2_checking *k)
{
    enum { ENTRY = 24, TABLE_MAX = 1 << 22 };
    struct qcow2 *i = k->i;
    struct layer *file = i->layer.below;
    uint64_t length = i->header.bitmap_directory_size, at = 0;
    QZ_AUTO_FREE uint8_t *dir = qcow2_buffer(length);
    int rc = dir ? layer_read(file, k->q, i->header.bitmap_directory, dir, length) : -ENOMEM;

    qcow2_count(k, i->header.bitmap_directory, length, "the bitmap directory");
    for (uint32_t n = 0; !rc && n < i->header.bitmaps; n++) {
        uint64_t table, rest, entries;
        struct qcow2_top t;

        if (length - at < ENTRY) {
            qcow2_say(k, "the bitmap directory ends before bitmap %u", n);
            k->c->errors++;
            return 0;
        }
        table = qz_load_be64(dir + at);
        entries = qz_load_be32(dir + at + 8);
        rest = qz_load_be16(dir + at + 18) + qz_load_be32(dir + at + 20);
        at += QZ_MIN(QZ_ALIGN_UP(ENTRY + rest, 8ull), length - at);
        if (entries > TABLE_MAX || !qcow2_count(k, table, entries * 8, "a bitmap table"))
            continue;
        rc = qcow2_read_table(file, k->q, table, (uint32_t)entries, (uint32_t)i->cluster_size, &t,
                              "bitmap table", NULL);
        if (rc)
            return rc;
        for (uint32_t e = 0; e < t.count; e++)
            if (t.entries[e] & QCOW2_OFFSET_MASK)
                qcow2_count(k, t.entries[e] & QCOW2_OFFSET_MASK, i->cluster_size, "a bitmap");
        qcow2_top_clear(&t);
    }
    return rc;
}

/* Table and blocks themselves. After this, blocks that are named can be read. */
static void count_refcounts(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;

    for (uint32_t n = 0; n < i->reftable.count; n++) {
        uint64_t at = qcow2_top_get(&i->reftable, n);

        if (!at)
            continue;
        if (at & QCOW2_REF_RESERVED || at & (i->cluster_size - 1)) {
            qcow2_say(k, "refcount table entry %u is not aligned: 0x%llx", n,
                      (unsigned long long)at);
            k->c->errors++;
            k->bad_refcounts = true;
            continue;
        }
        if (at >= k->clusters << i->cluster_bits) {
            qcow2_say(k, "refcount block %u lies past the end of the file: 0x%llx", n,
                      (unsigned long long)at);
            k->c->errors++;
            k->bad_refcounts = true;
            continue;
        }
        if (!qcow2_count(k, at, i->cluster_size, "a refcount block")) {
            k->bad_refcounts = true;
            continue;
        }
        if (k->counts[at >> i->cluster_bits] > 1) {
            qcow2_say(k, "refcount block %u at 0x%llx is used by something else too", n,
                      (unsigned long long)at);
            k->c->errors++;
            k->bad_refcounts = true;
        }
    }
    if (!qcow2_count(k, i->reftable.offset, i->reftable.count * 8ull, "the refcount table") ||
        k->counts[i->reftable.offset >> i->cluster_bits] > 1) {
        k->c->errors += k->counts[i->reftable.offset >> i->cluster_bits] > 1;
        k->bad_refcounts = true;
    }
}

/* One cluster's refcount against its count. */
static void compare_one(struct qcow2_checking *k, uint64_t cluster, uint64_t refcount, bool block)
{
    uint64_t count = cluster < k->clusters ? k->counts[cluster] : 0;

    if (refcount == count)
        return;
    qcow2_say(k, "cluster 0x%llx: refcount %llu, used %llu times",
              (unsigned long long)(cluster << k->i->cluster_bits), (unsigned long long)refcount,
              (unsigned long long)count);
    if (refcount > count) {
        k->c->leaks++;
        return;
    }
    k->c->errors++;
    /* Without a block to write it to, or wider than a refcount is. */
    if (!block)
        k->bad_refcounts = true;
}

int qcow2_compare(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(i->cluster_size);
    uint64_t per = 1ull << i->ref_bits, last = (k->clusters + per - 1) >> i->ref_bits;
    int rc = bytes ? 0 : -ENOMEM;

    count_refcounts(k);
    if (k->bad_refcounts)
        return rc; /* they will be made anew, or cannot be compared */
    for (uint64_t n = 0; !rc && n < QZ_MAX(last, (uint64_t)i->reftable.count); n++) {
        uint64_t at = n < i->reftable.count ? qcow2_top_get(&i->reftable, (uint32_t)n) : 0;

        if (!at && n >= last)
            continue;
        if (at)
            rc = layer_read(i->layer.below, k->q, at, bytes, i->cluster_size);
        for (uint64_t c = 0; !rc && c < per; c++) {
            uint64_t value = at ? qcow2_refcount_decode(bytes, c, i->header.refcount_order) : 0;

            compare_one(k, (n << i->ref_bits) + c, value, at != 0);
        }
    }
    return rc;
}

/* ---- mending */

static int write_value(struct qcow2_checking *k, const struct qcow2_flaw *f)
{
    uint32_t a = QZ_MAX(k->i->layer.below->info.alignment, 512u);
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(a);
    uint64_t start = QZ_ALIGN_DOWN(f->where, a);
    int rc = bytes ? layer_read(k->i->layer.below, k->q, start, bytes, a) : -ENOMEM;

    if (rc)
        return rc;
    qz_store_be64(bytes + (f->where - start), f->value);
    return layer_write(k->i->layer.below, k->q, start, bytes, a);
}

static int fix_blocks(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(i->cluster_size);
    uint64_t per = 1ull << i->ref_bits;
    int rc = bytes ? 0 : -ENOMEM;

    for (uint32_t n = 0; !rc && n < i->reftable.count; n++) {
        uint64_t at = qcow2_top_get(&i->reftable, n);
        bool changed = false;

        if (!at)
            continue;
        rc = layer_read(i->layer.below, k->q, at, bytes, i->cluster_size);
        for (uint64_t c = 0; !rc && c < per; c++) {
            uint64_t cluster = ((uint64_t)n << i->ref_bits) + c;
            uint64_t count = cluster < k->clusters ? k->counts[cluster] : 0;

            if (count > most(i))
                return -ERANGE;
            if (qcow2_refcount_decode(bytes, c, i->header.refcount_order) == count)
                continue;
            qcow2_refcount_encode(bytes, c, i->header.refcount_order, count);
            changed = true;
        }
        if (!rc && changed)
            rc = layer_write(i->layer.below, k->q, at, bytes, i->cluster_size);
    }
    return rc;
}

/* How often a cluster is used, the refcounts' own old clusters and the new ones at [from, to)
 * considered. */
static uint64_t new_count(const struct qcow2_checking *k, uint64_t cluster, uint64_t from,
                          uint64_t to)
{
    if (cluster >= from && cluster < to)
        return 1;
    return cluster < k->clusters ? k->counts[cluster] : 0;
}

/* The counts without the old table and blocks. */
static void forget_old(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    uint64_t first = i->reftable.offset >> i->cluster_bits;

    for (uint32_t n = 0; n < i->reftable.count; n++) {
        uint64_t at = qcow2_top_get(&i->reftable, n), c = at >> i->cluster_bits;

        if (at && !(at & (i->cluster_size - 1)) && c < k->clusters && k->counts[c])
            k->counts[c]--;
    }
    for (uint64_t n = 0; n < i->header.reftable_clusters; n++)
        if (first + n < k->clusters && k->counts[first + n])
            k->counts[first + n]--;
}

static int write_new_blocks(struct qcow2_checking *k, struct qcow2_top *t, uint64_t from,
                            uint64_t blocks, uint64_t to)
{
    struct qcow2 *i = k->i;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(i->cluster_size);
    int rc = bytes ? 0 : -ENOMEM;

    for (uint64_t n = 0; !rc && n < blocks; n++) {
        memset(bytes, 0, i->cluster_size);
        for (uint64_t c = 0; c < 1ull << i->ref_bits; c++) {
            uint64_t count = new_count(k, (n << i->ref_bits) + c, from, to);

            if (count > most(i))
                return -ERANGE;
            qcow2_refcount_encode(bytes, c, i->header.refcount_order, count);
        }
        t->entries[n] = (from + n) << i->cluster_bits;
        rc = layer_write(i->layer.below, k->q, t->entries[n], bytes, i->cluster_size);
    }
    for (uint64_t n = 0; !rc && n << i->cluster_bits < t->count * 8ull; n++) {
        for (uint64_t e = 0; e < i->cluster_size / 8; e++)
            qz_store_be64(bytes + e * 8, t->entries[n * (i->cluster_size / 8) + e]);
        rc = layer_write(i->layer.below, k->q, t->offset + (n << i->cluster_bits), bytes,
                         i->cluster_size);
    }
    return rc;
}

static int rebuild(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    uint64_t per_table = i->cluster_size / 8, from = k->clusters, blocks = 1, tables = 1, to;
    struct qcow2_top t;
    int rc;

    forget_old(k);
    for (;;) {
        to = from + blocks + tables;
        if (blocks << i->ref_bits >= to && tables * per_table >= blocks)
            break;
        blocks = (to + (1ull << i->ref_bits) - 1) >> i->ref_bits;
        tables = (blocks + per_table - 1) / per_table;
    }
    if (tables << i->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    rc = qcow2_top_init(&t, (from + blocks) << i->cluster_bits, (uint32_t)(tables * per_table),
                        (uint32_t)i->cluster_size);
    if (!rc)
        rc = layer_resize(i->layer.below, k->q, to << i->cluster_bits, NULL);
    if (!rc)
        rc = write_new_blocks(k, &t, from, blocks, to);
    if (!rc)
        rc = layer_flush(i->layer.below, k->q);
    if (rc) {
        qcow2_top_clear(&t);
        return rc;
    }
    qcow2_top_clear(&i->reftable);
    i->reftable = t;
    pthread_mutex_init(&i->reftable.mutex, NULL);
    i->header.reftable_offset = t.offset;
    i->header.reftable_clusters = (uint32_t)tables;
    i->file_size = to << i->cluster_bits;
    atomic_store(&i->fresh, to);
    return qcow2_write_header(i, k->q);
}

/* The L1 table in memory follows what was written to it. */
static void follow_l1(struct qcow2_checking *k, const struct qcow2_flaw *f)
{
    struct qcow2 *i = k->i;

    if (f->where >= i->l1.offset && f->where < i->l1.offset + i->l1.count * 8ull)
        i->l1.entries[(f->where - i->l1.offset) / 8] = f->value;
}

int qcow2_mend(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    uint64_t errors = k->c->errors, fixed_by_counts;
    int rc = 0;

    if (!k->c->errors && !k->c->leaks && !i->dirty_bit &&
        !(i->header.incompatible & QCOW2_INCOMPAT_CORRUPT))
        return 0;
    i->untouched = false;
    for (unsigned n = 0; !rc && n < k->flaw_count; n++) {
        rc = write_value(k, &k->flaws[n]);
        follow_l1(k, &k->flaws[n]);
    }
    if (!rc && !k->bad_refcounts)
        rc = fix_blocks(k);
    /* The file grows for new refcounts; nothing may point there already. */
    else if (!rc && !k->outside)
        rc = rebuild(k);
    if (!rc)
        rc = layer_flush(i->layer.below, k->q);
    if (rc)
        return rc;
    /* What was read before is out of date. */
    qcow2_cache_drop_clean(i->cache);
    i->hint = 0;
    qcow2_guard_load(i);

    /* Look again: what is left is what could not be repaired. */
    struct format_check again = {0};
    struct qcow2_checking second = {.i = i, .q = k->q, .c = &again};

    rc = qcow2_check_walk(&second);
    if (rc)
        return rc;
    fixed_by_counts = errors > again.errors ? errors - again.errors : 0;
    k->c->errors_repaired = fixed_by_counts;
    k->c->leaks_repaired = k->c->leaks > again.leaks ? k->c->leaks - again.leaks : 0;
    if (again.errors)
        return 0;
    i->header.incompatible &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    i->dirty_bit = false;
    atomic_store(&i->corrupt, false);
    return qcow2_write_header(i, k->q);
}

/*
 * map.c - from guest offsets to what the L1 and L2 tables say.
 *
 * With extended L2 entries a cluster is mapped in 32 subclusters; without, the cluster counts as
 * one subcluster, so that one walk serves both ("Cluster mapping", "Extended L2 Entries").
 */
#include "internal.h"

/* What one subcluster is. host: where its cluster begins (or the entry, compressed). */
struct sub {
    enum qcow2_kind kind;
    bool copied;
    uint64_t host;
};

int qcow2_corrupt(struct qcow2 *i, const char *fmt, ...)
{
    static struct qz_ratelimit limit; /* who opens hostile images again and again fills no log */
    char text[300];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (!atomic_exchange(&i->corrupt, true) && qz_ratelimit_ok(&limit))
        qz_error_log("%s: %s; the image takes no more changes until it is repaired (queztl-disk "
                     "check --repair)",
                     i->layer.label, text);
    return -EIO;
}

static int bad_entry(struct qcow2 *i, uint64_t guest, const char *why, uint64_t value)
{
    return qcow2_corrupt(i, "L2 entry for guest offset 0x%llx %s: 0x%llx",
                         (unsigned long long)guest, why, (unsigned long long)value);
}

static int classify_whole(struct qcow2 *i, uint64_t entry, uint64_t guest, struct sub *s)
{
    s->host = entry & QCOW2_OFFSET_MASK;
    if (entry & QCOW2_L2_RESERVED)
        return bad_entry(i, guest, "has reserved bits", entry);
    if (entry & QCOW2_ZERO) {
        if (i->header.version < 3)
            return bad_entry(i, guest, "says zeroes in a version 2 image", entry);
        s->kind = QCOW2_ZEROES;
    } else {
        /* An external data file may have its first cluster at 0; COPIED tells it from a hole. */
        bool at_zero = i->data != i->layer.below && s->copied;

        s->kind = s->host || at_zero ? QCOW2_DATA : QCOW2_HOLE;
    }
    return 0;
}

static int classify_part(struct qcow2 *i, uint64_t entry, uint64_t bitmap, unsigned sub,
                         uint64_t guest, struct sub *s)
{
    bool allocated = bitmap >> sub & 1, zero = bitmap >> (32 + sub) & 1;

    s->host = entry & QCOW2_OFFSET_MASK;
    if (entry & (QCOW2_L2_RESERVED | QCOW2_ZERO))
        return bad_entry(i, guest, "has reserved bits", entry);
    if (allocated && zero)
        return bad_entry(i, guest, "has a subcluster both allocated and zero", bitmap);
    if (allocated && !s->host && !(i->data != i->layer.below && s->copied))
        return bad_entry(i, guest, "has allocated subclusters but no cluster", bitmap);
    s->kind = allocated ? QCOW2_DATA : zero ? QCOW2_ZEROES : QCOW2_HOLE;
    return 0;
}

static int classify(struct qcow2 *i, const uint8_t *entry, unsigned sub, uint64_t guest,
                    struct sub *s)
{
    uint64_t e = qz_load_be64(entry);
    int rc;

    s->copied = e & QCOW2_COPIED;
    if (e & QCOW2_COMPRESSED) {
        if (s->copied || (i->subs > 1 && qz_load_be64(entry + 8)))
            return bad_entry(i, guest, "is compressed and COPIED or in subclusters", e);
        if (i->data != i->layer.below)
            return bad_entry(i, guest, "is compressed beside an external data file", e);
        s->kind = QCOW2_PACKED;
        s->host = e;
        return 0;
    }
    rc = i->subs > 1 ? classify_part(i, e, qz_load_be64(entry + 8), sub, guest, s)
                     : classify_whole(i, e, guest, s);
    if (rc)
        return rc;
    if (s->host & (i->cluster_size - 1))
        return bad_entry(i, guest, "is not at a multiple of the cluster size", e);
    return 0;
}

int qcow2_map_entries(struct qcow2 *i, const uint8_t *entries, unsigned count, uint64_t guest,
                      uint64_t length, struct qcow2_run *run)
{
    uint64_t at = guest & (i->cluster_size - 1), sub_size = 1ull << i->sub_bits, got = 0;
    struct sub first = {0};

    for (unsigned c = 0; c < count && got < length; c++, at = 0)
        for (; at < i->cluster_size && got < length;) {
            struct sub s = {0};
            uint64_t end = QZ_ALIGN_DOWN(at, sub_size) + sub_size;
            int rc = classify(i, entries + ((size_t)c << i->entry_bits),
                              (unsigned)(at >> i->sub_bits), guest + got, &s);

            if (rc && got)
                goto out; /* what comes before is good; the error is for who asks there */
            if (rc)
                return rc;
            if (!got) {
                first = s;
                *run = (struct qcow2_run){.kind = s.kind, .copied = s.copied, .host = s.host};
                if (s.kind != QCOW2_PACKED && (s.host || s.kind == QCOW2_DATA))
                    run->host += at;
            } else {
                bool same_cluster = c == 0 || at != 0;
                bool contiguous =
                    s.kind == QCOW2_PACKED ? same_cluster && s.host == first.host
                    : s.host || s.kind == QCOW2_DATA
                        ? s.host + at == run->host + got && (first.host || run->kind == QCOW2_DATA)
                        : !first.host;

                if (s.kind != first.kind || s.copied != first.copied || !contiguous)
                    goto out;
            }
            got += QZ_MIN(end - at, length - got);
            at = end;
        }
out:
    run->length = got;
    return 0;
}

int qcow2_map_table(struct qcow2 *i, uint64_t guest, uint64_t *table, bool *copied)
{
    uint64_t index = guest >> (i->cluster_bits + i->l2_bits), entry;

    *table = 0;
    if (index >= i->l1.count)
        return 0;
    entry = qcow2_top_get(&i->l1, (uint32_t)index);
    *table = entry & QCOW2_OFFSET_MASK;
    if (copied)
        *copied = entry & QCOW2_COPIED;
    if ((entry & QCOW2_L1_RESERVED) || (*table & (i->cluster_size - 1)))
        return qcow2_corrupt(i, "L1 entry %llu has reserved bits or is not aligned: 0x%llx",
                             (unsigned long long)index, (unsigned long long)entry);
    return 0;
}

/* How many L2 entries from guest on lie in the same slice, and where the first is. */
static unsigned entries_in_slice(struct qcow2 *i, uint64_t table, uint64_t guest, uint64_t length,
                                 uint64_t *where)
{
    uint32_t unit = qcow2_cache_unit(i->cache);
    uint64_t last = guest + length - 1, clusters, left;

    *where = table + (qcow2_table_index(i, guest) << i->entry_bits);
    left = (unit - (*where & (unit - 1))) >> i->entry_bits;
    clusters = (last >> i->cluster_bits) - (guest >> i->cluster_bits) + 1;
    return (unsigned)QZ_MIN(clusters, left);
}

/* No L2 table: all that it would map is a hole. */
static void no_table(struct qcow2 *i, uint64_t guest, uint64_t length, struct qcow2_run *run)
{
    uint64_t span = 1ull << (i->cluster_bits + i->l2_bits);

    *run = (struct qcow2_run){.kind = QCOW2_HOLE,
                              .length = QZ_MIN(length, span - (guest & (span - 1)))};
}

/* Bytes of one cluster. */
static int peek_one(struct qcow2 *i, uint64_t guest, uint64_t length, struct qcow2_run *run)
{
    uint64_t table, host, entry;
    uint8_t bytes[8];
    int rc = qcow2_map_table(i, guest, &table, NULL);

    if (rc)
        return rc;
    if (!table) {
        no_table(i, guest, length, run);
        return 0;
    }
    if (!qcow2_cache_peek(i->cache, table + (qcow2_table_index(i, guest) << 3), bytes,
                          sizeof(bytes)))
        return -EAGAIN;
    entry = qz_load_be64(bytes);
    host = entry & QCOW2_OFFSET_MASK;
    /* What nearly all are: stored, only ours, nothing odd about it. */
    if ((entry & ~QCOW2_OFFSET_MASK) == QCOW2_COPIED && host && !(host & (i->cluster_size - 1))) {
        *run = (struct qcow2_run){.kind = QCOW2_DATA,
                                  .copied = true,
                                  .host = host + (guest & (i->cluster_size - 1)),
                                  .length = length};
        return 0;
    }
    return qcow2_map_entries(i, bytes, 1, guest, length, run);
}

int qcow2_map_peek(struct qcow2 *i, uint64_t guest, uint64_t length, struct qcow2_run *run)
{
    uint8_t entries[256];
    uint64_t table, where;
    unsigned n;
    int rc;

    if (i->subs == 1 && (guest & (i->cluster_size - 1)) + length <= i->cluster_size)
        return peek_one(i, guest, length, run);
    rc = qcow2_map_table(i, guest, &table, NULL);
    if (rc)
        return rc;
    if (!table) {
        no_table(i, guest, length, run);
        return 0;
    }
    n = entries_in_slice(i, table, guest, length, &where);
    n = QZ_MIN(n, (unsigned)sizeof(entries) >> i->entry_bits);
    if (!qcow2_cache_peek(i->cache, where, entries, n << i->entry_bits))
        return -EAGAIN;
    return qcow2_map_entries(i, entries, n, guest, length, run);
}

int qcow2_map(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
              struct qcow2_run *run)
{
    struct qcow2_slice *s;
    uint8_t entries[4096];
    uint64_t table, where;
    unsigned n;
    int rc = qcow2_map_table(i, guest, &table, NULL);

    if (rc)
        return rc;
    if (!table) {
        no_table(i, guest, length, run);
        return 0;
    }
    if (table >= __atomic_load_n(&i->layer.below->info.size, __ATOMIC_RELAXED))
        return qcow2_corrupt(i, "L2 table at 0x%llx lies past the end of the file",
                             (unsigned long long)table);
    n = entries_in_slice(i, table, guest, length, &where);
    rc = qcow2_cache_get(i->cache, q, where, QCOW2_SLICE_L2, &s);
    if (rc)
        return rc;
    qcow2_slice_read(i->cache, s, where, entries, n << i->entry_bits);
    qcow2_cache_put(i->cache, s);
    return qcow2_map_entries(i, entries, n, guest, length, run);
}

int qcow2_map_layer(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                    struct extent *e)
{
    static const enum extent_state states[QCOW2_KINDS] = {
        [QCOW2_HOLE] = EXTENT_UNALLOCATED,
        [QCOW2_ZEROES] = EXTENT_ZERO,
        [QCOW2_DATA] = EXTENT_DATA,
        [QCOW2_PACKED] = EXTENT_COMPRESSED,
    };
    struct qcow2 *i = qcow2_of(l);
    struct qcow2_run run;
    uint32_t phase;
    int rc;

    phase = qcow2_enter(i, q);
    rc = qcow2_map(i, q, offset, length, &run);
    qcow2_leave(i, q, phase);
    if (rc)
        return rc;
    *e = (struct extent){.length = run.length, .state = states[run.kind]};
    if (run.kind == QCOW2_DATA && !i->crypto) {
        e->has_offset = true;
        e->offset = run.host;
    }
    if (run.kind != QCOW2_HOLE || !l->backing || offset >= l->backing->info.size)
        return 0;
    rc = layer_map(l->backing, q, offset, run.length, e);
    e->depth++;
    return rc;
}

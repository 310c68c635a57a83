/*
 * check.c - does the image agree with itself?
 *
 * Everything that mentions clusters is walked and counted: header, tables, snapshots, bitmaps, the
 * encryption header. Then the counts are compared with the refcounts. The file is read past the
 * cache, with nothing else in flight. An L2 table is entered at most once for each L1 table, so
 * that tables that name each other cannot make it walk for ever.
 */
#include "check.h"
#include <sys/mman.h>

enum { COUNT_MAX = UINT16_MAX, FLAWS_MAX = 1 << 20 };

void qcow2_say(struct qcow2_checking *k, const char *fmt, ...)
{
    char text[300];
    va_list args;

    if (!k->c->say)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    k->c->say(k->c, text);
}

static bool count(struct qcow2_checking *k, uint64_t offset, uint64_t length, const char *what)
{
    uint64_t first = offset >> k->i->cluster_bits, last;

    if (!length)
        return true;
    last = (offset + length - 1) >> k->i->cluster_bits;
    if (last < first || last >= k->clusters) {
        qcow2_say(k, "%s at 0x%llx (0x%llx bytes) runs past the end of the file", what,
                  (unsigned long long)offset, (unsigned long long)length);
        k->c->errors++;
        return false;
    }
    for (uint64_t n = first; n <= last; n++)
        if (k->counts[n] < COUNT_MAX)
            k->counts[n]++;
    k->c->image_end = QZ_MAX(k->c->image_end, (last + 1) << k->i->cluster_bits);
    return true;
}

static void flaw(struct qcow2_checking *k, uint64_t where, uint64_t value)
{
    if (k->flaw_count == k->flaw_room) {
        unsigned room = k->flaw_room ? k->flaw_room * 2 : 256;
        struct qcow2_flaw *f =
            k->flaw_count < FLAWS_MAX ? realloc(k->flaws, room * sizeof(*f)) : NULL;

        if (!f) {
            k->outside = true; /* not all can be mended at once */
            return;
        }
        k->flaws = f;
        k->flaw_room = room;
    }
    k->flaws[k->flaw_count++] = (struct qcow2_flaw){where, value};
}

bool qcow2_count(struct qcow2_checking *k, uint64_t offset, uint64_t length, const char *what)
{
    bool there = count(k, offset, length, what);

    k->outside |= !there;
    return there;
}

bool qcow2_count_entry(struct qcow2_checking *k, uint64_t offset, uint64_t length, const char *what,
                       uint64_t where, uint64_t instead)
{
    if (count(k, offset, length, what))
        return true;
    /* Its bytes are not there; should the file grow, somebody else's would be. */
    flaw(k, where, instead);
    return false;
}

/* An entry that reads as zeroes, whatever is behind it, where the version can say so. */
static uint64_t zeroes(const struct qcow2_checking *k)
{
    return k->i->subs > 1 || k->i->header.version < 3 ? 0 : QCOW2_ZERO;
}

/* ---- L2 entries */

static void packed_entry(struct qcow2_checking *k, uint64_t entry, uint64_t where)
{
    unsigned x = 62 - (k->i->cluster_bits - 8);
    uint64_t at = entry & ((1ull << x) - 1);
    uint64_t sectors = (entry >> x & ((1ull << (k->i->cluster_bits - 8)) - 1)) + 1;

    if (entry & QCOW2_COPIED) {
        qcow2_say(k, "L2 entry at 0x%llx is compressed and COPIED: 0x%llx",
                  (unsigned long long)where, (unsigned long long)entry);
        k->c->errors++;
        flaw(k, where, entry & ~QCOW2_COPIED);
    }
    qcow2_count_entry(k, QZ_ALIGN_DOWN(at, 512), sectors * 512, "a compressed cluster", where,
                      zeroes(k));
    k->c->allocated += k->active;
    k->c->compressed += k->active;
}

static void check_bitmap(struct qcow2_checking *k, uint64_t entry, uint64_t bitmap, uint64_t where)
{
    uint64_t both = bitmap & (bitmap >> 32) & UINT32_MAX;

    if (both) {
        qcow2_say(k, "L2 entry at 0x%llx has subclusters both allocated and zero: 0x%llx",
                  (unsigned long long)where, (unsigned long long)bitmap);
        k->c->errors++;
        flaw(k, where + 8, bitmap & ~both); /* zero is what hides old bytes */
    }
    if ((bitmap & UINT32_MAX) && !(entry & QCOW2_OFFSET_MASK) && k->i->data == k->i->layer.below) {
        qcow2_say(k, "L2 entry at 0x%llx has allocated subclusters but no cluster: 0x%llx",
                  (unsigned long long)where, (unsigned long long)bitmap);
        k->c->errors++;
    }
}

static void plain_entry(struct qcow2_checking *k, uint64_t entry, uint64_t bitmap, uint64_t where)
{
    uint64_t reserved = QCOW2_L2_RESERVED, host = entry & QCOW2_OFFSET_MASK;
    bool external = k->i->data != k->i->layer.below;

    if (k->i->subs > 1 || k->i->header.version < 3)
        reserved |= QCOW2_ZERO;
    if (entry & reserved) {
        qcow2_say(k, "L2 entry at 0x%llx has reserved bits: 0x%llx", (unsigned long long)where,
                  (unsigned long long)entry);
        k->c->errors++;
        flaw(k, where, entry & ~reserved);
    }
    if (k->i->subs > 1)
        check_bitmap(k, entry, bitmap, where);
    if (!host)
        return;
    if (host & (k->i->cluster_size - 1)) {
        qcow2_say(k, "L2 entry at 0x%llx is not at a multiple of the cluster size: 0x%llx",
                  (unsigned long long)where, (unsigned long long)entry);
        k->c->errors++;
        return;
    }
    if (!external &&
        !qcow2_count_entry(k, host, k->i->cluster_size, "a data cluster", where, zeroes(k))) {
        if (k->i->subs > 1)
            flaw(k, where + 8, bitmap >> 32 << 32 | bitmap << 32);
        return;
    }
    if (k->active) {
        k->c->allocated++;
        k->c->fragmented += k->last_host && host != k->last_host + k->i->cluster_size;
        k->last_host = host;
    }
}

static int check_l2(struct qcow2_checking *k, uint64_t table, uint8_t *bytes)
{
    struct qcow2 *i = k->i;
    int rc = layer_read(i->layer.below, k->q, table, bytes, i->cluster_size);

    for (uint64_t at = 0; !rc && at < i->cluster_size; at += 1ull << i->entry_bits) {
        uint64_t entry = qz_load_be64(bytes + at);

        if (entry & QCOW2_COMPRESSED)
            packed_entry(k, entry, table + at);
        else
            plain_entry(k, entry, i->subs > 1 ? qz_load_be64(bytes + at + 8) : 0, table + at);
    }
    return rc;
}

/* A tree below an L1 table; the table's own clusters too. */
static int check_l1(struct qcow2_checking *k, const struct qcow2_top *l1, const char *what)
{
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(k->i->cluster_size);
    int rc = bytes ? 0 : -ENOMEM;

    k->tables++;
    k->last_host = 0;
    qcow2_count(k, l1->offset, l1->count * 8ull, what);
    for (uint32_t n = 0; !rc && n < l1->count; n++) {
        uint64_t entry = qcow2_top_get(l1, n), table = entry & QCOW2_OFFSET_MASK;

        if (k->c->progress && k->active && l1->count)
            k->c->progress(k->c, (double)n / l1->count);
        if (!table)
            continue;
        if (entry & QCOW2_L1_RESERVED || table & (k->i->cluster_size - 1)) {
            qcow2_say(k, "%s: entry %u has reserved bits or is not aligned: 0x%llx", what, n,
                      (unsigned long long)entry);
            k->c->errors++;
            continue;
        }
        if (!qcow2_count_entry(k, table, k->i->cluster_size, "an L2 table", l1->offset + n * 8ull,
                               0))
            continue;
        if (k->counts[table >> k->i->cluster_bits] > k->tables) {
            qcow2_say(k, "%s: entry %u names an L2 table that something else uses: 0x%llx", what, n,
                      (unsigned long long)entry);
            k->c->errors++;
            continue;
        }
        rc = check_l2(k, table, bytes);
    }
    return rc;
}

static int check_snapshots(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;

    k->active = false;
    for (unsigned n = 0; n < i->snapshot_count; n++) {
        const struct qcow2_snapshot *s = &i->snapshots[n];
        struct qcow2_top l1;
        int rc = qcow2_read_table(i->layer.below, k->q, s->l1_offset, s->l1_entries,
                                  (uint32_t)i->cluster_size, &l1, "snapshot's L1 table", NULL);

        if (rc)
            return rc;
        rc = check_l1(k, &l1, "a snapshot's L1 table");
        qcow2_top_clear(&l1);
        if (rc)
            return rc;
    }
    qcow2_count(k, i->header.snapshots_offset, i->snapshots_bytes, "the snapshot table");
    return 0;
}

/* ---- COPIED, for the active tables, once all is counted */

static int check_copied(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(i->cluster_size);
    int rc = bytes ? 0 : -ENOMEM;

    for (uint32_t n = 0; !rc && n < i->l1.count; n++) {
        uint64_t e = qcow2_top_get(&i->l1, n), table = e & QCOW2_OFFSET_MASK;
        uint64_t cluster = table >> i->cluster_bits;

        if (!table || table & (i->cluster_size - 1) || cluster >= k->clusters)
            continue;
        if (!(e & QCOW2_COPIED) != (k->counts[cluster] != 1)) {
            qcow2_say(k, "L1 entry %u: COPIED is wrong, the L2 table has %u users", n,
                      k->counts[cluster]);
            k->c->errors++;
            flaw(k, i->l1.offset + n * 8ull, e ^ QCOW2_COPIED);
        }
        if (k->counts[cluster] > k->tables)
            continue;
        rc = layer_read(i->layer.below, k->q, table, bytes, i->cluster_size);
        for (uint64_t at = 0; !rc && at < i->cluster_size; at += 1ull << i->entry_bits) {
            uint64_t entry = qz_load_be64(bytes + at), host = entry & QCOW2_OFFSET_MASK;

            cluster = host >> i->cluster_bits;
            if (entry & QCOW2_COMPRESSED || !host || host & (i->cluster_size - 1) ||
                i->data != i->layer.below || cluster >= k->clusters)
                continue;
            if (!(entry & QCOW2_COPIED) == (k->counts[cluster] != 1))
                continue;
            qcow2_say(k, "L2 entry at 0x%llx: COPIED is wrong, the cluster has %u users",
                      (unsigned long long)(table + at), k->counts[cluster]);
            k->c->errors++;
            flaw(k, table + at, entry ^ QCOW2_COPIED);
        }
    }
    return rc;
}

static int walk(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    int rc;

    k->c->clusters = (i->header.size + i->cluster_size - 1) >> i->cluster_bits;
    qcow2_count(k, 0, i->cluster_size, "the header");
    if (i->header.crypto_length)
        qcow2_count(k, i->header.crypto_offset, i->header.crypto_length, "the encryption header");
    if (i->header.log_bytes)
        qcow2_count(k, i->header.log_offset, i->header.log_bytes, "the metadata log");
    k->active = true;
    rc = check_l1(k, &i->l1, "the L1 table");
    if (!rc)
        rc = check_snapshots(k);
    if (!rc && i->header.bitmaps)
        rc = qcow2_count_bitmaps(k);
    return rc ? rc : check_copied(k);
}

int qcow2_check_walk(struct qcow2_checking *k)
{
    struct qcow2 *i = k->i;
    size_t bytes;
    int rc;

    k->clusters = (i->layer.below->info.size + i->cluster_size - 1) >> i->cluster_bits;
    if (k->clusters > (1ull << 36))
        return -EFBIG;
    /* Touched only where the image has something. */
    bytes = QZ_MAX(k->clusters, 1ull) * sizeof(*k->counts);
    k->counts = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (k->counts == MAP_FAILED)
        return -ENOMEM;
    rc = walk(k);
    if (!rc)
        rc = qcow2_compare(k);
    if (!rc && k->c->repair)
        rc = qcow2_mend(k);
    munmap(k->counts, bytes);
    free(k->flaws);
    return rc;
}

static int run(struct qcow2_checking *k, struct qz_error *err)
{
    int rc = qcow2_check_walk(k);

    return rc ? qz_fail(err, rc, "%s: the check could not go on: %s", k->i->layer.label,
                        strerror(-rc))
              : 0;
}

int qcow2_check(struct layer *l, struct disk_queue *q, struct format_check *c, struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);
    struct qcow2_checking k = {.i = i, .q = q, .c = c};
    int rc = 0;

    if (c->repair && l->info.readonly)
        return qz_fail(err, -EROFS, "%s: readonly, cannot be repaired", l->label);
    qcow2_gate_close(i, q);
    rc = qcow2_packer_end(i, q);
    task_mutex_lock(&i->lock);
    for (int turn = 0; !rc && !i->untouched && !atomic_load(&i->corrupt) && turn < 2; turn++) {
        rc = qcow2_commit(i, q, true);
        if (!rc)
            rc = qcow2_release_settle(i, q);
    }
    if (!rc && !i->untouched)
        rc = qcow2_commit(i, q, true);
    rc = rc ? qz_fail(err, rc, "%s: cannot be brought to rest: %s", l->label, strerror(-rc))
            : run(&k, err);
    task_mutex_unlock(&i->lock);
    qcow2_gate_open(i);
    return rc;
}

int qcow2_repair_refcounts(struct qcow2 *i, struct disk_queue *q, struct qz_error *err)
{
    struct format_check c = {.repair = true};
    int rc = qcow2_check(&i->layer, q, &c, err);

    if (rc)
        return rc;
    if (c.errors > c.errors_repaired)
        return qz_fail(err, -EUCLEAN,
                       "%s: was not closed, and %llu errors cannot be repaired: see queztl-disk "
                       "check",
                       i->layer.label, (unsigned long long)(c.errors - c.errors_repaired));
    return 0;
}

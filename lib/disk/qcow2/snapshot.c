/*
 * snapshot.c - internal snapshots: taken, gone back to, deleted.
 *
 * A snapshot is a copy of the L1 table; the trees below are shared, their refcounts say how often.
 * The gate is closed throughout. Refcounts go up before something is mentioned twice and down
 * after it is not any more, each time with what mentions it on the medium first.
 */
#include "image.h"
#include <time.h>

/* Called for each entry of each L2 table below an L1 table; and for each table (entry 0). */
typedef int visit_fn(struct qcow2 *i, struct disk_queue *q, uint64_t table, struct qcow2_slice *s,
                     uint64_t where, uint64_t entry);

static int visit_table(struct qcow2 *i, struct disk_queue *q, uint64_t table, visit_fn *visit)
{
    uint32_t unit = qcow2_cache_unit(i->cache), step = 1u << i->entry_bits;
    int rc = visit(i, q, table, NULL, 0, 0);

    for (uint64_t at = table; !rc && at < table + i->cluster_size; at += unit) {
        struct qcow2_slice *s;

        rc = qcow2_cache_get(i->cache, q, at, QCOW2_SLICE_L2, &s);
        if (rc)
            return rc;
        for (uint32_t k = 0; !rc && k < unit; k += step) {
            uint64_t entry = qz_load_be64(qcow2_slice_bytes(s) + k);

            if (entry & (QCOW2_OFFSET_MASK | QCOW2_COMPRESSED))
                rc = visit(i, q, table, s, at + k, entry);
        }
        qcow2_cache_put(i->cache, s);
    }
    return rc;
}

/* All tables that the entries name; *done: how many entries were gone through wholly. */
static int visit_tree(struct qcow2 *i, struct disk_queue *q, const struct qcow2_top *l1,
                      uint32_t count, visit_fn *visit, uint32_t *done)
{
    for (*done = 0; *done < count; ++*done) {
        uint64_t entry = qcow2_top_get(l1, *done), table = entry & QCOW2_OFFSET_MASK;
        int rc;

        if (!table)
            continue;
        if (table & (i->cluster_size - 1) || table >= i->layer.below->info.size)
            return qcow2_corrupt(i,
                                 "L1 entry %u is not aligned or past the end of the file: 0x%llx",
                                 *done, (unsigned long long)entry);
        rc = visit_table(i, q, table, visit);
        if (rc)
            return rc;
    }
    return 0;
}

static void entry_clusters(const struct qcow2 *i, uint64_t entry, uint64_t *first, uint64_t *count)
{
    unsigned x = 62 - (i->cluster_bits - 8);
    uint64_t at = entry & ((1ull << x) - 1), sectors;

    if (!(entry & QCOW2_COMPRESSED)) {
        *first = (entry & QCOW2_OFFSET_MASK) >> i->cluster_bits;
        *count = 1;
        return;
    }
    sectors = (entry >> x & ((1ull << (i->cluster_bits - 8)) - 1)) + 1;
    *first = at >> i->cluster_bits;
    *count = ((QZ_ALIGN_DOWN(at, 512) + sectors * 512 - 1) >> i->cluster_bits) - *first + 1;
}

/* ---- what is done to a tree */

static int share_entry(struct qcow2 *i, struct disk_queue *q, uint64_t table, struct qcow2_slice *s,
                       uint64_t where, uint64_t entry)
{
    uint64_t first, count;
    uint8_t b[8];
    int rc;

    if (!s)
        return qcow2_refcount_change(i, q, table >> i->cluster_bits, 1, 1);
    entry_clusters(i, entry, &first, &count);
    rc = qcow2_refcount_change(i, q, first, count, 1);
    if (rc || !(entry & QCOW2_COPIED))
        return rc;
    qz_store_be64(b, entry & ~QCOW2_COPIED);
    qcow2_slice_write(i->cache, s, where, b, sizeof(b));
    return 0;
}

static int unshare_entry(struct qcow2 *i, struct disk_queue *q, uint64_t table,
                         struct qcow2_slice *s, uint64_t where, uint64_t entry)
{
    return s ? qcow2_release_entry(i, entry) : qcow2_release(i, table >> i->cluster_bits, 1);
}

/* COPIED says that the refcount is 1; after refcounts went down it may have become true. */
static int mark_copied(struct qcow2 *i, struct disk_queue *q, uint64_t table, struct qcow2_slice *s,
                       uint64_t where, uint64_t entry)
{
    uint64_t value;
    uint8_t b[8];
    int rc;

    if (!s || entry & (QCOW2_COMPRESSED | QCOW2_COPIED))
        return 0;
    rc = qcow2_refcount_get(i, q, (entry & QCOW2_OFFSET_MASK) >> i->cluster_bits, &value);
    if (rc || value != 1)
        return rc;
    qz_store_be64(b, entry | QCOW2_COPIED);
    qcow2_slice_write(i->cache, s, where, b, sizeof(b));
    return 0;
}

static int mark_active(struct qcow2 *i, struct disk_queue *q)
{
    for (uint32_t n = 0; n < i->l1.count; n++) {
        uint64_t entry = qcow2_top_get(&i->l1, n), value;
        uint64_t table = entry & QCOW2_OFFSET_MASK;
        int rc;

        if (!table)
            continue;
        rc = qcow2_refcount_get(i, q, table >> i->cluster_bits, &value);
        if (rc)
            return rc;
        /* Entries of a table that is shared are themselves shared. */
        if (value != 1)
            continue;
        if (!(entry & QCOW2_COPIED))
            qcow2_top_set(&i->l1, n, entry | QCOW2_COPIED);
        rc = visit_table(i, q, table, mark_copied);
        if (!rc && qcow2_cache_crowded(i->cache))
            rc = qcow2_commit(i, q, false);
        if (rc)
            return rc;
    }
    return 0;
}

/* Everything that was released goes down now: nothing else is in flight. */
static int settle_all(struct qcow2 *i, struct disk_queue *q)
{
    int rc = qcow2_commit(i, q, true);

    for (int turn = 0; !rc && turn < 2; turn++)
        rc = qcow2_release_settle(i, q);
    return rc;
}

static int share_tree(struct qcow2 *i, struct disk_queue *q, const struct qcow2_top *l1,
                      uint32_t count)
{
    uint32_t done, ignored;
    int rc = visit_tree(i, q, l1, count, share_entry, &done);

    /* Whole tables go back; the one where it failed keeps some clusters marked used. */
    if (rc)
        visit_tree(i, q, l1, done, unshare_entry, &ignored);
    return rc;
}

/* ---- the calls; lock is held and the gate closed */

static int next_id(const struct qcow2 *i, char *out, size_t size)
{
    unsigned long most = 0;

    for (unsigned n = 0; n < i->snapshot_count; n++)
        most = QZ_MAX(most, strtoul(i->snapshots[n].id, NULL, 10));
    return snprintf(out, size, "%lu", most + 1);
}

static int find(struct qcow2 *i, const char *which, struct qz_error *err)
{
    for (unsigned n = 0; n < i->snapshot_count; n++)
        if (!strcmp(i->snapshots[n].name, which))
            return (int)n;
    for (unsigned n = 0; n < i->snapshot_count; n++)
        if (!strcmp(i->snapshots[n].id, which))
            return (int)n;
    return qz_fail(err, -ENOENT, "there is no snapshot %s", which);
}

static int new_entry(struct qcow2 *i, const char *name, struct qcow2_snapshot *s)
{
    struct timespec now;
    char id[24];

    clock_gettime(CLOCK_REALTIME, &now);
    next_id(i, id, sizeof(id));
    *s = (struct qcow2_snapshot){
        .l1_entries = i->l1.count,
        .seconds = (uint32_t)now.tv_sec,
        .nanoseconds = (uint32_t)now.tv_nsec,
        .disk_bytes = i->header.size,
        .icount = UINT64_MAX,
        .id = strdup(id),
        .name = strdup(name),
    };
    return s->id && s->name ? 0 : -ENOMEM;
}

static int write_l1_copy(struct qcow2 *i, struct disk_queue *q, struct qcow2_snapshot *s)
{
    uint64_t clusters = (s->l1_entries * 8ull + i->cluster_size - 1) >> i->cluster_bits, first, got;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(clusters << i->cluster_bits);
    bool zeroed;
    int rc = bytes ? 0 : -ENOMEM;

    if (!rc && clusters)
        rc = qcow2_allocate(i, q, clusters, clusters, &first, &got, &zeroed);
    if (rc || !clusters)
        return rc;
    s->l1_offset = first << i->cluster_bits;
    memset(bytes, 0, clusters << i->cluster_bits);
    for (uint32_t n = 0; n < s->l1_entries; n++)
        qz_store_be64(bytes + n * 8ull, qcow2_top_get(&i->l1, n) & ~QCOW2_COPIED);
    return layer_write(i->layer.below, q, s->l1_offset, bytes, clusters << i->cluster_bits);
}

static int create(struct qcow2 *i, struct disk_queue *q, const char *name)
{
    struct qcow2_snapshot *list = realloc(i->snapshots, (i->snapshot_count + 1) * sizeof(*list));
    struct qcow2_snapshot *s;
    int rc;

    if (!list)
        return -ENOMEM;
    i->snapshots = list;
    s = &list[i->snapshot_count];
    rc = new_entry(i, name, s);
    if (!rc)
        rc = write_l1_copy(i, q, s);
    if (!rc)
        rc = share_tree(i, q, &i->l1, i->l1.count);
    for (uint32_t n = 0; !rc && n < i->l1.count; n++)
        if (qcow2_top_get(&i->l1, n) & QCOW2_COPIED)
            qcow2_top_set(&i->l1, n, qcow2_top_get(&i->l1, n) & ~QCOW2_COPIED);
    if (!rc) {
        i->snapshot_count++;
        rc = qcow2_snapshots_store(i, q);
        if (rc)
            i->snapshot_count--;
    }
    if (rc) {
        free(s->id);
        free(s->name);
    }
    return rc;
}

static int load_l1(struct qcow2 *i, struct disk_queue *q, const struct qcow2_snapshot *s,
                   struct qcow2_top *l1, struct qz_error *err)
{
    return qcow2_read_table(i->layer.below, q, s->l1_offset, s->l1_entries,
                            (uint32_t)i->cluster_size, l1, "snapshot's L1 table", err);
}

static int delete (struct qcow2 *i, struct disk_queue *q, unsigned n, struct qz_error *err)
{
    struct qcow2_snapshot gone = i->snapshots[n];
    struct qcow2_top l1;
    uint64_t clusters = (gone.l1_entries * 8ull + i->cluster_size - 1) >> i->cluster_bits;
    uint32_t done;
    int rc = load_l1(i, q, &gone, &l1, err);

    if (rc)
        return rc;
    memmove(&i->snapshots[n], &i->snapshots[n + 1], (i->snapshot_count - n - 1) * sizeof(gone));
    i->snapshot_count--;
    rc = qcow2_snapshots_store(i, q);
    if (rc) {
        memmove(&i->snapshots[n + 1], &i->snapshots[n], (i->snapshot_count - n) * sizeof(gone));
        i->snapshots[n] = gone;
        i->snapshot_count++;
        qcow2_top_clear(&l1);
        return rc;
    }
    rc = visit_tree(i, q, &l1, l1.count, unshare_entry, &done);
    if (!rc && clusters)
        rc = qcow2_release(i, gone.l1_offset >> i->cluster_bits, clusters);
    qcow2_top_clear(&l1);
    free(gone.id);
    free(gone.name);
    free(gone.unknown);
    if (!rc)
        rc = settle_all(i, q);
    return rc ? rc : mark_active(i, q);
}

static int apply(struct qcow2 *i, struct disk_queue *q, unsigned n, struct qz_error *err)
{
    const struct qcow2_snapshot *s = &i->snapshots[n];
    uint64_t span = 1ull << (i->cluster_bits + i->l2_bits);
    uint64_t need = s->disk_bytes / span + !!(s->disk_bytes % span);
    struct qcow2_top l1, old = {0};
    uint32_t done;
    int rc;

    if (need > QCOW2_L1_BYTES_MAX / 8)
        return qz_fail(err, -EINVAL, "snapshot %s says a disk of 0x%llx bytes, too large", s->name,
                       (unsigned long long)s->disk_bytes);
    rc = load_l1(i, q, s, &l1, err);
    if (rc)
        return rc;
    rc = share_tree(i, q, &l1, l1.count);
    /* Other programs leave the bit as it was when the snapshot was taken. */
    for (uint32_t k = 0; k < l1.count; k++)
        l1.entries[k] &= ~QCOW2_COPIED;
    /* The old tree is remembered, the L1 table moves with the snapshot's entries. */
    if (!rc)
        rc = qcow2_top_init(&old, 0, i->l1.count, (uint32_t)i->cluster_size);
    for (uint32_t k = 0; !rc && k < i->l1.count; k++)
        old.entries[k] = qcow2_top_get(&i->l1, k);
    if (!rc)
        rc = qcow2_switch_l1(i, q, &l1, (uint32_t)QZ_MAX(need, (uint64_t)s->l1_entries));
    if (!rc) {
        i->header.size = i->layer.info.size = s->disk_bytes;
        rc = qcow2_write_header(i, q);
    }
    if (!rc)
        rc = visit_tree(i, q, &old, old.count, unshare_entry, &done);
    qcow2_top_clear(&old);
    qcow2_top_clear(&l1);
    if (!rc)
        rc = settle_all(i, q);
    return rc ? rc : mark_active(i, q);
}

/* ---- the seam */

enum action { CREATE, APPLY, DELETE };

static int act(struct layer *l, struct disk_queue *q, enum action what, const char *name,
               struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);
    int rc = 0, n = 0;

    if (l->info.readonly)
        return qz_fail(err, -EROFS, "%s: readonly", l->label);
    if (i->data != l->below)
        return qz_fail(err, -ENOTSUP, "%s: with an external data file there are no snapshots",
                       l->label);
    if (what == CREATE && (strlen(name) > 255 || i->snapshot_count >= QCOW2_SNAPSHOTS_MAX))
        return qz_fail(err, -EINVAL,
                       "%s: the name is longer than 255 bytes, or there are %d "
                       "snapshots already",
                       l->label, QCOW2_SNAPSHOTS_MAX);
    qcow2_gate_close(i, q);
    if (err)
        err->code = 0;
    if (atomic_load(&i->untouched))
        rc = qcow2_touch(i, q);
    if (!rc)
        rc = qcow2_packer_end(i, q);
    task_mutex_lock(&i->lock);
    if (!rc)
        rc = settle_all(i, q);
    if (!rc && what != CREATE)
        n = find(i, name, err);
    if (!rc && n < 0)
        rc = n;
    if (!rc)
        rc = what == CREATE  ? create(i, q, name)
             : what == APPLY ? apply(i, q, (unsigned)n, err)
                             : delete (i, q, (unsigned)n, err);
    if (!rc)
        rc = qcow2_commit(i, q, true);
    task_mutex_unlock(&i->lock);
    qcow2_gate_open(i);
    if (rc && err && err->code)
        return rc;
    if (rc == -ERANGE)
        return qz_fail(err, rc,
                       "%s: refcounts of %u bits cannot count one more snapshot; convert the image "
                       "to a larger refcount_bits",
                       l->label, 1u << i->header.refcount_order);
    return rc ? qz_fail(err, rc, "%s: snapshot %s: %s", l->label, name, strerror(-rc)) : 0;
}

int qcow2_snapshot_create(struct layer *l, struct disk_queue *q, const char *name,
                          struct qz_error *err)
{
    return act(l, q, CREATE, name, err);
}

int qcow2_snapshot_apply(struct layer *l, struct disk_queue *q, const char *which,
                         struct qz_error *err)
{
    return act(l, q, APPLY, which, err);
}

int qcow2_snapshot_delete(struct layer *l, struct disk_queue *q, const char *which,
                          struct qz_error *err)
{
    return act(l, q, DELETE, which, err);
}

int qcow2_snapshot_list(struct layer *l, struct disk_queue *q, struct format_snapshot **list,
                        unsigned *count, struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);

    *count = 0;
    *list = calloc(QZ_MAX(i->snapshot_count, 1u), sizeof(**list));
    if (!*list)
        return qz_fail(err, -ENOMEM, "no memory for the list of snapshots");
    for (unsigned n = 0; n < i->snapshot_count; n++) {
        const struct qcow2_snapshot *s = &i->snapshots[n];

        (*list)[n] = (struct format_snapshot){strdup(s->id), strdup(s->name), s->seconds,
                                              s->vm_state_bytes, s->disk_bytes};
        *count = n + 1;
    }
    return 0;
}

/*
 * snapshot_table.c - the list of internal snapshots, read and written ("Snapshots").
 */
#include "image.h"

enum { ENTRY = 40, EXTRA_KNOWN = 24, EXTRA_MAX = 1024, TEXT_MAX = 1024 };

static void clear_one(struct qcow2_snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->unknown);
}

void qcow2_snapshots_clear(struct qcow2 *i)
{
    for (unsigned n = 0; n < i->snapshot_count; n++)
        clear_one(&i->snapshots[n]);
    free(i->snapshots);
    i->snapshots = NULL;
    i->snapshot_count = 0;
}

static char *text(const uint8_t *bytes, size_t length)
{
    char *s = malloc(length + 1);

    if (s) {
        memcpy(s, bytes, length);
        s[length] = 0;
    }
    return s;
}

/* The variable part of an entry, which is wholly in memory. */
static int parse_rest(struct qcow2 *i, struct qcow2_snapshot *s, const uint8_t *b, uint32_t extra,
                      unsigned id_length, unsigned name_length)
{
    s->disk_bytes = extra >= 16 ? qz_load_be64(b + 8) : i->header.size;
    if (extra >= 8)
        s->vm_state_bytes = qz_load_be64(b);
    s->icount = extra >= 24 ? qz_load_be64(b + 16) : UINT64_MAX;
    if (extra > EXTRA_KNOWN) {
        s->unknown_length = extra - EXTRA_KNOWN;
        s->unknown = malloc(s->unknown_length);
        if (!s->unknown)
            return -ENOMEM;
        memcpy(s->unknown, b + EXTRA_KNOWN, s->unknown_length);
    }
    s->id = text(b + extra, id_length);
    s->name = text(b + extra + id_length, name_length);
    return s->id && s->name ? 0 : -ENOMEM;
}

/* One entry at *at of the table in memory. */
static int parse(struct qcow2 *i, struct qcow2_snapshot *s, const uint8_t *table, uint64_t length,
                 uint64_t *at, unsigned number, struct qz_error *err)
{
    uint64_t where = i->header.snapshots_offset + *at;
    const uint8_t *b = table + *at;
    unsigned id_length, name_length;
    uint32_t extra;
    int rc;

    *s = (struct qcow2_snapshot){0};
    if (length - *at < ENTRY)
        return qz_fail(err, -EINVAL, "snapshot %u at 0x%llx: the table ends inside it", number,
                       (unsigned long long)where);
    s->l1_offset = qz_load_be64(b);
    s->l1_entries = qz_load_be32(b + 8);
    id_length = qz_load_be16(b + 12);
    name_length = qz_load_be16(b + 14);
    s->seconds = qz_load_be32(b + 16);
    s->nanoseconds = qz_load_be32(b + 20);
    s->clock_ns = qz_load_be64(b + 24);
    s->vm_state_bytes = qz_load_be32(b + 32);
    extra = qz_load_be32(b + 36);
    if (extra > EXTRA_MAX || id_length > TEXT_MAX || name_length > TEXT_MAX)
        return qz_fail(err, -EINVAL,
                       "snapshot %u at 0x%llx: extra data, id or name of %u, %u, %u bytes is more "
                       "than %d",
                       number, (unsigned long long)where, extra, id_length, name_length, TEXT_MAX);
    if (length - *at - ENTRY < extra + id_length + name_length)
        return qz_fail(err, -EINVAL, "snapshot %u at 0x%llx: the table ends inside it", number,
                       (unsigned long long)where);
    if (s->l1_entries > QCOW2_L1_BYTES_MAX / 8 || (s->l1_offset & (i->cluster_size - 1)) ||
        s->l1_offset > i->layer.below->info.size ||
        s->l1_entries * 8ull > i->layer.below->info.size - s->l1_offset)
        return qz_fail(err, -EINVAL,
                       "snapshot %u at 0x%llx: its L1 table (%u entries at 0x%llx) is not aligned "
                       "or runs past the end of the file",
                       number, (unsigned long long)where, s->l1_entries,
                       (unsigned long long)s->l1_offset);
    rc = parse_rest(i, s, b + ENTRY, extra, id_length, name_length);
    if (rc) {
        clear_one(s);
        return qz_fail(err, rc, "no memory for snapshot %u", number);
    }
    *at = QZ_ALIGN_UP(*at + ENTRY + extra + id_length + name_length, 8);
    return 0;
}

int qcow2_snapshots_load(struct qcow2 *i, struct disk_queue *q, struct qz_error *err)
{
    struct layer *file = i->layer.below;
    uint64_t most = (uint64_t)i->header.snapshots * (ENTRY + EXTRA_MAX + 2 * TEXT_MAX + 8);
    uint64_t length = 0, at = 0;
    QZ_AUTO_FREE uint8_t *table = NULL;
    int rc;

    if (!i->header.snapshots)
        return 0;
    /* The table's length is not written anywhere: what it could be at most. */
    length = QZ_MIN(QZ_MIN(most, (uint64_t)QCOW2_SNAPSHOT_TABLE_MAX),
                    file->info.size - i->header.snapshots_offset);
    table = qcow2_buffer(length);
    i->snapshots = calloc(i->header.snapshots, sizeof(*i->snapshots));
    if (!table || !i->snapshots)
        return qz_fail(err, -ENOMEM, "no memory for %u snapshots", i->header.snapshots);
    rc = layer_read(file, q, i->header.snapshots_offset, table, length);
    if (rc)
        return qz_fail(err, rc, "cannot read the snapshot table at 0x%llx: %s",
                       (unsigned long long)i->header.snapshots_offset, strerror(-rc));
    for (unsigned n = 0; n < i->header.snapshots; n++) {
        if (at > length)
            return qz_fail(err, -EINVAL, "the snapshot table ends before snapshot %u", n);
        rc = parse(i, &i->snapshots[n], table, length, &at, n, err);
        if (rc)
            return rc;
        i->snapshot_count = n + 1;
    }
    i->snapshots_bytes = at;
    return 0;
}

static uint64_t entry_bytes(const struct qcow2_snapshot *s)
{
    return QZ_ALIGN_UP(ENTRY + EXTRA_KNOWN + s->unknown_length + strlen(s->id) + strlen(s->name),
                       8ull);
}

static void build(const struct qcow2_snapshot *s, uint8_t *b)
{
    uint32_t extra = EXTRA_KNOWN + s->unknown_length;

    qz_store_be64(b, s->l1_offset);
    qz_store_be32(b + 8, s->l1_entries);
    qz_store_be16(b + 12, (uint16_t)strlen(s->id));
    qz_store_be16(b + 14, (uint16_t)strlen(s->name));
    qz_store_be32(b + 16, s->seconds);
    qz_store_be32(b + 20, s->nanoseconds);
    qz_store_be64(b + 24, s->clock_ns);
    qz_store_be32(b + 32, s->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)s->vm_state_bytes);
    qz_store_be32(b + 36, extra);
    qz_store_be64(b + ENTRY, s->vm_state_bytes);
    qz_store_be64(b + ENTRY + 8, s->disk_bytes);
    qz_store_be64(b + ENTRY + 16, s->icount);
    if (s->unknown_length)
        memcpy(b + ENTRY + EXTRA_KNOWN, s->unknown, s->unknown_length);
    memcpy(b + ENTRY + extra, s->id, strlen(s->id));
    memcpy(b + ENTRY + extra + strlen(s->id), s->name, strlen(s->name));
}

int qcow2_snapshots_store(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t bytes = 0, clusters, first = 0, got, at = 0, old = i->header.snapshots_offset;
    uint64_t old_clusters = (i->snapshots_bytes + i->cluster_size - 1) >> i->cluster_bits;
    QZ_AUTO_FREE uint8_t *table = NULL;
    struct qcow2_header was = i->header;
    bool zeroed;
    int rc = 0;

    for (unsigned n = 0; n < i->snapshot_count; n++)
        bytes += entry_bytes(&i->snapshots[n]);
    if (bytes > QCOW2_SNAPSHOT_TABLE_MAX)
        return -ENOSPC;
    clusters = (bytes + i->cluster_size - 1) >> i->cluster_bits;
    if (clusters) {
        table = qcow2_buffer(clusters << i->cluster_bits);
        rc = table ? qcow2_allocate(i, q, clusters, clusters, &first, &got, &zeroed) : -ENOMEM;
        if (rc)
            return rc;
        memset(table, 0, clusters << i->cluster_bits);
        for (unsigned n = 0; n < i->snapshot_count; n++) {
            build(&i->snapshots[n], table + at);
            at += entry_bytes(&i->snapshots[n]);
        }
        rc = layer_write(i->layer.below, q, first << i->cluster_bits, table,
                         clusters << i->cluster_bits);
    }
    /* What the header is about to point at, and all refcounts, are on the medium first. */
    if (!rc)
        rc = qcow2_commit(i, q, true);
    if (!rc) {
        i->header.snapshots = i->snapshot_count;
        i->header.snapshots_offset = clusters ? first << i->cluster_bits : 0;
        rc = qcow2_write_header(i, q);
    }
    if (rc) {
        i->header.snapshots = was.snapshots;
        i->header.snapshots_offset = was.snapshots_offset;
        return rc;
    }
    i->snapshots_bytes = bytes;
    qcow2_guard_load(i);
    return old && old_clusters ? qcow2_release(i, old >> i->cluster_bits, old_clusters) : 0;
}

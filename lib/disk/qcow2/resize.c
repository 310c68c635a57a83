/*
 * resize.c - a disk that becomes larger or smaller.
 *
 * The gate is closed meanwhile. What the disk gains reads as zeroes, even where a backing file
 * is larger than the disk was; what it loses is given back.
 */
#include "image.h"

int qcow2_switch_l1(struct qcow2 *i, struct disk_queue *q, const struct qcow2_top *from,
                    uint32_t entries)
{
    uint64_t clusters = (entries * 8ull + i->cluster_size - 1) >> i->cluster_bits, first, got;
    uint64_t old = i->l1.offset >> i->cluster_bits;
    uint64_t old_count = (i->l1.count * 8ull + i->cluster_size - 1) >> i->cluster_bits;
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(clusters << i->cluster_bits);
    struct qcow2_top next;
    bool zeroed;
    int rc = bytes ? qcow2_allocate(i, q, QZ_MAX(clusters, 1ull), QZ_MAX(clusters, 1ull), &first,
                                    &got, &zeroed)
                   : -ENOMEM;

    if (rc)
        return rc;
    rc = qcow2_top_init(&next, first << i->cluster_bits, entries, (uint32_t)i->cluster_size);
    if (rc)
        return rc;
    memset(bytes, 0, clusters << i->cluster_bits);
    for (uint32_t n = 0; n < QZ_MIN(entries, from->count); n++) {
        next.entries[n] = qcow2_top_get(from, n);
        qz_store_be64(bytes + n * 8ull, next.entries[n]);
    }
    rc = clusters ? layer_write(i->layer.below, q, next.offset, bytes, clusters << i->cluster_bits)
                  : 0;
    if (!rc)
        rc = qcow2_commit(i, q, true);
    if (rc) {
        qcow2_top_clear(&next);
        return rc;
    }
    task_mutex_lock(&i->commit_lock); /* a commit of another queue may be at the old one */
    qcow2_top_clear(&i->l1);
    i->l1 = next;
    qcow2_guard_load(i);
    pthread_mutex_init(&i->l1.mutex, NULL);
    task_mutex_unlock(&i->commit_lock);
    i->header.l1_offset = next.offset;
    i->header.l1_entries = entries;
    return old && old_count ? qcow2_release(i, old, old_count) : 0;
}

static int grow(struct qcow2 *i, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    uint64_t span = 1ull << (i->cluster_bits + i->l2_bits), was = i->header.size;
    uint64_t entries = size / span + !!(size % span);
    struct layer *backing = i->layer.backing;
    int rc = 0;

    if (size > INT64_MAX || entries > QCOW2_L1_BYTES_MAX / 8)
        return qz_fail(err, -EFBIG, "clusters of %llu bytes cannot reach that size",
                       (unsigned long long)i->cluster_size);
    if (i->data != i->layer.below && i->data->info.size < size)
        rc = layer_resize(i->data, q, size, err);
    if (rc)
        return rc;
    task_mutex_lock(&i->lock);
    if (entries > i->l1.count)
        rc = qcow2_switch_l1(i, q, &i->l1, (uint32_t)entries);
    if (!rc) {
        i->header.size = i->layer.info.size = size;
        rc = 0;
    }
    task_mutex_unlock(&i->lock);
    if (!rc && backing && backing->info.size > was)
        rc = qcow2_zero(i, q, was, QZ_MIN(size, backing->info.size) - was, 0);
    return rc;
}

static int shrink(struct qcow2 *i, struct disk_queue *q, uint64_t size)
{
    uint64_t was = i->header.size, whole = QZ_ALIGN_UP(size, i->cluster_size);
    int rc = 0;

    /* The rest of the last cluster must be zeroes, should the disk grow again. */
    if (size < QZ_MIN(whole, was))
        rc = qcow2_zero(i, q, size, QZ_MIN(whole, was) - size, 0);
    if (!rc && whole < was)
        rc = qcow2_discard(i, q, whole, was - whole);
    if (!rc)
        i->header.size = i->layer.info.size = size;
    return rc;
}

int qcow2_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);
    uint64_t was = i->header.size;
    int rc;

    if (size % QZ_MAX(l->info.alignment, 512u))
        return qz_fail(err, -EINVAL, "%s: the size must be a multiple of %u bytes", l->label,
                       QZ_MAX(l->info.alignment, 512u));
    if (i->header.version < 3 && i->header.snapshots)
        return qz_fail(err, -ENOTSUP,
                       "%s: a version 2 image with snapshots keeps its size, because they do not "
                       "say theirs",
                       l->label);
    if (size < was && (i->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS) && i->header.bitmaps)
        return qz_fail(err, -ENOTSUP, "%s: an image with bitmaps cannot become smaller", l->label);
    qcow2_gate_close(i, q);
    rc = atomic_load(&i->untouched) ? qcow2_touch(i, q) : 0;
    if (!rc && size > was)
        rc = grow(i, q, size, err);
    else if (!rc && size < was)
        rc = shrink(i, q, size);
    if (!rc)
        rc = qcow2_commit(i, q, true);
    if (!rc)
        rc = qcow2_write_header(i, q);
    if (rc)
        i->header.size = i->layer.info.size = was;
    qcow2_gate_open(i);
    return rc ? qz_fail(err, rc, "%s: cannot become %llu bytes: %s", l->label,
                        (unsigned long long)size, strerror(-rc))
              : 0;
}

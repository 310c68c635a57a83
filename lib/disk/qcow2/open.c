/*
 * open.c - an image from its file.
 *
 * Nothing is written by opening. The first change (qcow2_touch) clears what programs that did not
 * know it would make stale, and only then.
 */
#include "crypto.h"
#include "image.h"
#include "internal.h"

enum { METADATA_MEMORY = 32 << 20 };

int qcow2_read_header(struct layer *file, struct disk_queue *q, struct qcow2_header *h,
                      struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(1 << QCOW2_CLUSTER_BITS_MAX);
    uint64_t length = QZ_MIN(file->info.size, 4096ull);
    int64_t extent;
    int rc;

    if (!bytes)
        return qz_fail(err, -ENOMEM, "no memory for the header");
    rc = length ? layer_read(file, q, 0, bytes, length) : 0;
    if (rc)
        return qz_fail(err, rc, "cannot read the header: %s", strerror(-rc));
    extent = qcow2_header_extent(bytes, length, err);
    if (extent < 0)
        return (int)extent;
    if ((uint64_t)extent > length) {
        length = QZ_MIN(file->info.size, (uint64_t)extent);
        rc = layer_read(file, q, 0, bytes, length);
        if (rc)
            return qz_fail(err, rc, "cannot read the header: %s", strerror(-rc));
    }
    return qcow2_header_parse(h, bytes, length, file->info.size, err);
}

int qcow2_read_table(struct layer *file, struct disk_queue *q, uint64_t offset, uint32_t count,
                     uint32_t cluster, struct qcow2_top *t, const char *what, struct qz_error *err)
{
    uint64_t length = QZ_ALIGN_UP(count * 8ull, file->info.alignment);
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(length);
    int rc = bytes ? qcow2_top_init(t, offset, count, cluster) : -ENOMEM;

    if (rc)
        return qz_fail(err, rc, "no memory for the %s (%u entries)", what, count);
    length = QZ_MIN(length, file->info.size - QZ_MIN(file->info.size, offset));
    memset(bytes, 0, count * 8ull);
    rc = length ? layer_read(file, q, offset, bytes, length) : 0;
    if (rc) {
        qcow2_top_clear(t);
        return qz_fail(err, rc, "cannot read the %s at 0x%llx: %s", what,
                       (unsigned long long)offset, strerror(-rc));
    }
    for (uint32_t n = 0; n < count; n++)
        t->entries[n] = qz_load_be64(bytes + n * 8ull);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Refcount blocks are written without another look, so they must be what they say before: aligned,
 * each somewhere else, and not on top of header, L1 or the table itself. */
static int check_blocks(struct qcow2 *i, struct qz_error *err)
{
    uint64_t table_end = i->reftable.offset + i->reftable.count * 8ull;
    uint64_t l1_end = i->l1.offset + i->l1.count * 8ull;
    QZ_AUTO_FREE uint64_t *sorted = malloc(QZ_MAX(i->reftable.count, 1u) * sizeof(*sorted));
    uint32_t n = 0;

    if (!sorted)
        return qz_fail(err, -ENOMEM, "no memory for the refcount table");
    for (uint32_t k = 0; k < i->reftable.count; k++) {
        uint64_t at = qcow2_top_get(&i->reftable, k), end = at + i->cluster_size;

        if (!at)
            continue;
        if (at & (i->cluster_size - 1) || at >= i->layer.below->info.size ||
            (at < table_end && end > i->reftable.offset) || (at < l1_end && end > i->l1.offset))
            return qz_fail(err, -EINVAL,
                           "refcount table entry %u (offset 0x%llx) is 0x%llx: not aligned, past "
                           "the end of the file, or on another table; see queztl-disk check",
                           k, (unsigned long long)(i->reftable.offset + k * 8ull),
                           (unsigned long long)at);
        sorted[n++] = at;
    }
    qsort(sorted, n, sizeof(*sorted), by_value);
    for (uint32_t k = 1; k < n; k++)
        if (sorted[k] == sorted[k - 1])
            return qz_fail(err, -EINVAL,
                           "the refcount table has the block at 0x%llx twice; see queztl-disk "
                           "check --repair",
                           (unsigned long long)sorted[k]);
    return 0;
}

static int check_alignment(const struct qcow2 *i, struct qz_error *err)
{
    uint32_t a = QZ_MAX(i->layer.below->info.alignment, i->data->info.alignment);

    if (a > 4096 || a > i->cluster_size)
        return qz_fail(err, -ENOTSUP,
                       "the file wants multiples of %u bytes, which clusters of %llu bytes cannot "
                       "keep: open it with cache=writeback",
                       a, (unsigned long long)i->cluster_size);
    return 0;
}

static int check_data_file(struct qcow2 *i, const struct format_open *o, struct qz_error *err)
{
    bool wants = i->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;

    if (wants && !o->data_file)
        return qz_fail(err, -EINVAL,
                       "the guest's data is in an external file%s%s: name it with data_file=",
                       i->header.data_name ? ", the header says " : "",
                       i->header.data_name ? i->header.data_name : "");
    if (!wants && o->data_file)
        return qz_fail(err, -EINVAL, "the image has no external data file, but one was named");
    i->data = wants ? o->data_file : i->layer.below;
    return 0;
}

static void geometry(struct qcow2 *i)
{
    const struct qcow2_header *h = &i->header;

    i->cluster_bits = h->cluster_bits;
    i->cluster_size = 1ull << h->cluster_bits;
    i->subs = qcow2_extended(h) ? QCOW2_SUBCLUSTERS : 1;
    i->sub_bits = qcow2_extended(h) ? h->cluster_bits - 5 : h->cluster_bits;
    i->entry_bits = qcow2_extended(h) ? 4 : 3;
    i->l2_bits = h->cluster_bits - i->entry_bits;
    i->ref_bits = h->cluster_bits + 3 - h->refcount_order;
}

static void fill_info(struct qcow2 *i, bool readonly)
{
    struct layer *file = i->layer.below;
    struct layer_info *info = &i->layer.info;

    *info = (struct layer_info){
        .size = i->header.size,
        .alignment = QZ_MAX(file->info.alignment, i->data->info.alignment),
        .memory_alignment = QZ_MAX(file->info.memory_alignment, i->data->info.memory_alignment),
        .preferred = (uint32_t)i->cluster_size,
        .readonly = readonly,
        .discard = true,
        .write_zeroes = true,
        .is_rotational = file->info.is_rotational,
        .encrypted = i->header.crypt != QCOW2_CRYPT_NONE,
    };
    if (i->header.crypt)
        info->alignment = QZ_MAX(info->alignment, 512u);
}

static int load(struct qcow2 *i, struct disk_queue *q, const struct format_open *o,
                struct qz_error *err)
{
    struct layer *file = i->layer.below;
    uint64_t budget = METADATA_MEMORY;
    bool readonly = o->readonly || file->info.readonly;
    uint32_t cluster;
    int rc = qcow2_read_header(file, q, &i->header, err);

    if (rc)
        return rc;
    geometry(i);
    cluster = (uint32_t)i->cluster_size;
    if (i->header.log_bytes && readonly)
        return qz_fail(err, -EROFS,
                       "the image was not closed and has a metadata log: open it once for writing");
    if (i->header.log_bytes) {
        rc = qcow2_log_replay(i, q, err);
        if (rc)
            return rc;
        i->log = true;
    }
    if ((i->header.incompatible & QCOW2_INCOMPAT_CORRUPT) && !readonly && !o->check)
        return qz_fail(err, -EUCLEAN,
                       "the image is marked corrupt: repair it (queztl-disk check --repair) or "
                       "open it readonly");
    rc = check_data_file(i, o, err);
    if (!rc)
        rc = check_alignment(i, err);
    if (!rc && o->options)
        rc = options_size(o->options, "metadata_memory", &budget, err);
    if (!rc && o->options)
        rc = options_number(o->options, "compression_level", 1, 9, &i->level, err);
    if (!rc && o->options)
        rc = options_switch(o->options, "metadata_log", &i->wants_log, err);
    if (!rc && i->wants_log && i->header.version < 3)
        rc = qz_fail(err, -ENOTSUP, "metadata_log needs compat=1.1");
    if (!rc)
        rc = qcow2_read_table(file, q, i->header.l1_offset, i->header.l1_entries, cluster, &i->l1,
                              "L1 table", err);
    if (!rc)
        rc = qcow2_read_table(file, q, i->header.reftable_offset,
                              i->header.reftable_clusters * (cluster / 8), cluster, &i->reftable,
                              "refcount table", err);
    if (!rc && !readonly && !o->check)
        rc = check_blocks(i, err);
    if (!rc)
        rc = qcow2_cache_new(&i->cache, file, QZ_MIN(cluster, 4096u), budget, err);
    if (!rc)
        rc = qcow2_snapshots_load(i, q, err);
    if (rc)
        return rc;
    qcow2_cache_set_budget(i->cache, budget);
    i->file_size = file->info.size;
    i->fresh = (file->info.size + i->cluster_size - 1) >> i->cluster_bits;
    fill_info(i, readonly);
    qcow2_guard_load(i);
    i->untouched = true;
    i->dirty_bit = i->header.incompatible & QCOW2_INCOMPAT_DIRTY;
    return i->header.crypt ? qcow2_crypto_open(i, q, o, err) : 0;
}

static void free_image(struct layer *l)
{
    struct qcow2 *i = qcow2_of(l);

    qcow2_snapshots_clear(i);
    qcow2_cache_free(i->cache);
    qcow2_top_clear(&i->l1);
    qcow2_top_clear(&i->reftable);
    qcow2_header_clear(&i->header);
    qcow2_release_clear(i);
    qcow2_lanes_free(i);
    qcow2_crypto_free(i->crypto);
    qcow2_packer_free(i);
    free(l->label);
    free(i);
}

static void set_memory(struct layer *l, uint64_t bytes)
{
    qcow2_cache_set_budget(qcow2_of(l)->cache, bytes);
}

static const struct layer_ops ops = {
    .name = "qcow2",
    .submit = qcow2_submit,
    .map = qcow2_map_layer,
    .resize = qcow2_resize,
    .set_memory = set_memory,
    .freeze = qcow2_freeze,
    .close = qcow2_close,
    .free = free_image,
};

int qcow2_open(struct layer **l, struct layer *file, struct disk_queue *q,
               const struct format_open *o, struct qz_error *err)
{
    struct qcow2 *i = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*i), (size_t)64));
    int rc;

    if (!i)
        return qz_fail(err, -ENOMEM, "no memory for the image");
    memset(i, 0, sizeof(*i));
    i->layer.ops = &ops;
    i->layer.below = file;
    i->layer.label = strdup(o->label ? o->label : file->label ? file->label : "qcow2");
    pthread_mutex_init(&i->allocating_mutex, NULL);
    pthread_mutex_init(&i->release_mutex, NULL);
    pthread_mutex_init(&i->gate_mutex, NULL);
    rc = i->layer.label ? load(i, q, o, err) : qz_fail(err, -ENOMEM, "no memory for the image");
    if (rc) {
        qz_error_prefix(err, "%s", i->layer.label ? i->layer.label : "qcow2");
        free_image(&i->layer);
        return rc;
    }
    if (i->dirty_bit && !i->layer.info.readonly && !o->check) {
        /* Lazy refcounts and a program that did not come to its end. */
        rc = qcow2_repair_refcounts(i, q, err);
        if (rc) {
            free_image(&i->layer);
            return rc;
        }
    }
    *l = &i->layer;
    return 0;
}

int qcow2_touch(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t keep = QCOW2_AUTOCLEAR_KNOWN;
    int rc = 0;

    task_mutex_lock(&i->lock);
    if (i->untouched) {
        if (i->header.bitmaps)
            rc = qcow2_bitmaps_invalidate(i, q);
        if (!rc && (i->header.autoclear & ~keep)) {
            i->header.autoclear &= keep;
            rc = qcow2_write_header(i, q);
        }
        if (!rc)
            i->untouched = false;
        if (!rc && i->wants_log && !i->log)
            rc = qcow2_log_begin(i, q);
    }
    task_mutex_unlock(&i->lock);
    return rc;
}

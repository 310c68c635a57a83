/* ops.c - qcow2 as one of the formats (../format.h). */
#include "image.h"

static bool probe(const void *head, size_t length)
{
    return length >= 8 && qz_load_be32(head) == QCOW2_MAGIC &&
           (qz_load_be32((const uint8_t *)head + 4) == 2 ||
            qz_load_be32((const uint8_t *)head + 4) == 3);
}

static char *copy(const char *s)
{
    return s ? strdup(s) : NULL;
}

static int names(struct layer *file, struct disk_queue *q, struct format_names *n,
                 struct qz_error *err)
{
    struct qcow2_header h;
    int rc = qcow2_read_header(file, q, &h, err);

    if (rc)
        return rc;
    *n = (struct format_names){copy(h.backing_name), copy(h.backing_format), NULL};
    /* An image may say that it has an external data file without naming it. */
    if (h.incompatible & QCOW2_INCOMPAT_DATA_FILE)
        n->data_file = strdup(h.data_name ? h.data_name : "");
    qcow2_header_clear(&h);
    return 0;
}

static bool is_empty(struct layer *l)
{
    struct qcow2 *i = qcow2_of(l);

    for (uint32_t n = 0; n < i->l1.count; n++)
        if (qcow2_top_get(&i->l1, n))
            return false;
    return !i->log && !i->snapshot_count && !i->header.bitmaps;
}

static void info(struct layer *l, struct format_info *f)
{
    const struct qcow2 *i = qcow2_of(l);
    const struct qcow2_header *h = &i->header;

    format_fact_text(f, "compat", "%s", h->version < 3 ? "0.10" : "1.1");
    format_fact_bytes(f, "cluster_size", i->cluster_size);
    format_fact_number(f, "refcount_bits", 1u << h->refcount_order);
    format_fact_text(f, "compression_type", "%s", h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    format_fact_flag(f, "lazy_refcounts", h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
    format_fact_flag(f, "extended_l2", qcow2_extended(h));
    format_fact_flag(f, "dirty", h->incompatible & QCOW2_INCOMPAT_DIRTY);
    format_fact_flag(f, "corrupt", h->incompatible & QCOW2_INCOMPAT_CORRUPT);
    format_fact_text(f, "encryption", "%s",
                     h->crypt == QCOW2_CRYPT_LUKS  ? "luks"
                     : h->crypt == QCOW2_CRYPT_AES ? "aes"
                                                   : "none");
    if (h->backing_name)
        format_fact_text(f, "backing_file", "%s", h->backing_name);
    if (h->backing_format)
        format_fact_text(f, "backing_format", "%s", h->backing_format);
    if (h->data_name)
        format_fact_text(f, "data_file", "%s", h->data_name);
    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        format_fact_flag(f, "data_file_raw", h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
    format_fact_number(f, "bitmaps", h->bitmaps);
    format_fact_number(f, "snapshots", i->snapshot_count);
    format_fact_bytes(f, "metadata_memory", qcow2_cache_budget(i->cache));
}

const struct format_ops qcow2_format = {
    .name = "qcow2",
    .probe = probe,
    .names = names,
    .open = qcow2_open,
    .create = qcow2_create,
    .is_empty = is_empty,
    .info = info,
    .check = qcow2_check,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .write_compressed = qcow2_write_packed,
};

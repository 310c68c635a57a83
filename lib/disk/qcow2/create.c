/*
 * create.c - new images.
 *
 * In the file, one behind the other: header, refcount table, L1 table, LUKS header, refcount
 * blocks. The header is written last, after a flush, so that half an image is none.
 */
#include "../luks/volume.h"
#include "image.h"

enum preallocation { OFF, METADATA, FALLOC, FULL };

struct plan {
    struct qcow2_header header;
    unsigned preallocation;
    uint64_t reftable, l1, crypto, blocks; /* clusters */
};

static int log2_of(uint64_t v)
{
    return v && !(v & (v - 1)) ? __builtin_ctzll(v) : -1;
}

static int take_numbers(struct plan *p, struct options *o, struct qz_error *err)
{
    struct qcow2_header *h = &p->header;
    uint64_t cluster = 65536, refcount_bits = 16;
    int rc = options_size(o, "cluster_size", &cluster, err);

    if (!rc)
        rc = options_number(o, "refcount_bits", 1, 64, &refcount_bits, err);
    if (rc)
        return rc;
    if (log2_of(cluster) < QCOW2_CLUSTER_BITS_MIN || log2_of(cluster) > QCOW2_CLUSTER_BITS_MAX)
        return qz_fail(err, -EINVAL, "cluster_size must be a power of two from 512 B to 2 MiB");
    if (log2_of(refcount_bits) < 0)
        return qz_fail(err, -EINVAL, "refcount_bits must be 1, 2, 4, 8, 16, 32 or 64");
    h->cluster_bits = (uint32_t)log2_of(cluster);
    h->refcount_order = (uint32_t)log2_of(refcount_bits);
    return 0;
}

static int take_words(struct plan *p, struct options *o, bool *lazy, bool *extended, bool *raw,
                      struct qz_error *err)
{
    static const char *const compat[] = {"0.10", "1.1", NULL};
    static const char *const compression[] = {"zlib", "zstd", NULL};
    static const char *const encryption[] = {"none", "luks", NULL};
    static const char *const preallocation[] = {"off", "metadata", "falloc", "full", NULL};
    unsigned version = 1, how = QCOW2_ZLIB, luks = 0;
    uint64_t level;
    int rc = options_word(o, "compat", compat, &version, err);

    if (!rc)
        rc = options_word(o, "compression_type", compression, &how, err);
    if (!rc)
        rc = options_word(o, "preallocation", preallocation, &p->preallocation, err);
    if (!rc)
        rc = options_switch(o, "lazy_refcounts", lazy, err);
    if (!rc)
        rc = options_switch(o, "extended_l2", extended, err);
    if (!rc)
        rc = options_switch(o, "data_file_raw", raw, err);
    if (!rc)
        rc = options_word(o, "encryption", encryption, &luks, err);
    if (!rc) /* for what follows: who makes an image and fills it gives both the same options */
        rc = options_number(o, "compression_level", 1, 9, &level, err);
    p->header.crypt = luks ? QCOW2_CRYPT_LUKS : QCOW2_CRYPT_NONE;
    p->header.version = version ? 3 : 2;
    p->header.compression = how;
    return rc;
}

/* What does not go together. */
static int check_plan(const struct plan *p, const struct format_create *c, bool raw,
                      struct qz_error *err)
{
    const struct qcow2_header *h = &p->header;

    if (h->version < 3 && (h->refcount_order != 4 || h->incompatible || h->compatible))
        return qz_fail(err, -EINVAL,
                       "compat=0.10 has no refcount_bits but 16, no lazy_refcounts, extended_l2, "
                       "data file or zstd");
    if (h->crypt && p->preallocation)
        return qz_fail(err, -EINVAL,
                       "an encrypted image cannot be preallocated: its zeroes are "
                       "not zeroes in the file");
    if (qcow2_extended(h) && h->cluster_bits < QCOW2_EXTENDED_BITS_MIN)
        return qz_fail(err, -EINVAL, "extended_l2 needs a cluster_size of at least 16 KiB");
    if (raw && !c->data_file_name)
        return qz_fail(err, -EINVAL, "data_file_raw needs a data file");
    if (raw && c->backing_file)
        return qz_fail(err, -EINVAL, "data_file_raw and a backing file contradict each other");
    if (c->backing_file && !c->backing_format)
        return qz_fail(err, -EINVAL, "the backing file's format must be said");
    if (c->backing_file && p->preallocation && !qcow2_extended(h))
        return qz_fail(err, -EINVAL,
                       "preallocation would hide the backing file; with extended_l2 it does not");
    if (c->size % 512)
        return qz_fail(err, -EINVAL, "the size must be a multiple of 512 bytes");
    return 0;
}

static int layout(struct plan *p, struct qz_error *err)
{
    struct qcow2_header *h = &p->header;
    uint64_t per_block = 1ull << (h->cluster_bits + 3 - h->refcount_order);
    uint64_t span = qcow2_l2_span(h), cluster = qcow2_cluster_size(h), l1, total;

    l1 = h->size / span + !!(h->size % span);
    if (l1 > QCOW2_L1_BYTES_MAX / 8)
        return qz_fail(
            err, -EFBIG, "clusters of %llu bytes reach only 0x%llx bytes: choose larger ones",
            (unsigned long long)cluster, (unsigned long long)(QCOW2_L1_BYTES_MAX / 8 * span));
    h->l1_entries = (uint32_t)l1;
    p->l1 = QZ_MAX(1ull, (l1 * 8 + cluster - 1) >> h->cluster_bits);
    p->crypto = h->crypt ? (luks_header_bytes(1) + cluster - 1) >> h->cluster_bits : 0;
    p->reftable = p->blocks = 1;
    for (;;) {
        total = 1 + p->reftable + p->l1 + p->crypto + p->blocks;
        if (p->blocks * per_block >= total && p->reftable * (cluster / 8) >= p->blocks)
            break;
        p->blocks = (total + per_block - 1) / per_block;
        p->reftable = QZ_MAX(1ull, (p->blocks * 8 + cluster - 1) >> h->cluster_bits);
    }
    h->reftable_offset = cluster;
    h->reftable_clusters = (uint32_t)p->reftable;
    h->l1_offset = (1 + p->reftable) << h->cluster_bits;
    if (h->crypt) {
        h->crypto_offset = (1 + p->reftable + p->l1) << h->cluster_bits;
        h->crypto_length = luks_header_bytes(1);
    }
    return 0;
}

static int make_plan(struct plan *p, const struct format_create *c, struct qz_error *err)
{
    struct qcow2_header *h = &p->header;
    bool lazy = false, extended = false, raw = false;
    int rc = take_numbers(p, c->options, err);

    if (!rc)
        rc = take_words(p, c->options, &lazy, &extended, &raw, err);
    if (rc)
        return rc;
    h->size = c->size;
    h->incompatible = (c->data_file_name ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                      (h->compression != QCOW2_ZLIB ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                      (extended ? QCOW2_INCOMPAT_EXTENDED_L2 : 0);
    /* A header of one sector is written whole: it needs no room, and may have none. */
    h->log_slot = h->version >= 3 && h->cluster_bits > QCOW2_CLUSTER_BITS_MIN;
    h->compatible = lazy ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    h->autoclear = raw ? QCOW2_AUTOCLEAR_DATA_RAW : 0;
    /* Borrowed: the plan's header is never cleared. */
    h->backing_name = (char *)(uintptr_t)c->backing_file;
    h->backing_format = (char *)(uintptr_t)(c->backing_file ? c->backing_format : NULL);
    h->data_name = (char *)(uintptr_t)c->data_file_name;
    rc = check_plan(p, c, raw, err);
    return rc ? rc : layout(p, err);
}

/* Everything but the header, cluster by cluster: L1 is zeroes and needs no writing in a new file.
 */
static int write_tables(struct plan *p, struct layer *file, struct disk_queue *q, uint8_t *cluster)
{
    const struct qcow2_header *h = &p->header;
    uint64_t size = qcow2_cluster_size(h), used = 1 + p->reftable + p->l1 + p->crypto + p->blocks;
    uint64_t first_block = 1 + p->reftable + p->l1 + p->crypto,
             per_block = size * 8 >> h->refcount_order;
    int rc = 0;

    for (uint64_t n = 0; !rc && n < p->reftable; n++) {
        memset(cluster, 0, size);
        for (uint64_t k = 0; k < size / 8 && n * (size / 8) + k < p->blocks; k++)
            qz_store_be64(cluster + k * 8, (first_block + n * (size / 8) + k) << h->cluster_bits);
        rc = layer_write(file, q, (1 + n) << h->cluster_bits, cluster, size);
    }
    memset(cluster, 0, size);
    for (uint64_t n = 0; !rc && n < p->l1; n++)
        rc = layer_write(file, q, (1 + p->reftable + n) << h->cluster_bits, cluster, size);
    for (uint64_t n = 0; !rc && n < p->blocks; n++) {
        memset(cluster, 0, size);
        for (uint64_t k = 0; k < per_block && n * per_block + k < used; k++)
            qcow2_refcount_encode(cluster, k, h->refcount_order, 1);
        rc = layer_write(file, q, (first_block + n) << h->cluster_bits, cluster, size);
    }
    return rc;
}

static int write_image(struct plan *p, struct layer *file, struct disk_queue *q,
                       const struct format_create *c, struct qz_error *err)
{
    uint64_t size = qcow2_cluster_size(&p->header);
    QZ_AUTO_FREE uint8_t *cluster = qcow2_buffer(size);
    int rc;

    if (!cluster)
        return qz_fail(err, -ENOMEM, "no memory for a cluster");
    /* Too long names are found before anything is written. */
    rc = qcow2_header_build(&p->header, cluster, err);
    if (rc)
        return rc;
    if (file->info.alignment > size)
        return qz_fail(err, -EINVAL, "the file wants multiples of %u bytes: choose larger clusters",
                       file->info.alignment);
    rc = layer_resize(file, q, (1 + p->reftable + p->l1 + p->crypto + p->blocks) * size, err);
    if (rc)
        return rc;
    if (p->crypto)
        rc = qcow2_crypto_create(file, q, p->header.crypto_offset, c->options, err);
    if (rc)
        return rc;
    rc = write_tables(p, file, q, cluster);
    if (!rc)
        rc = layer_flush(file, q);
    if (!rc)
        rc = qcow2_header_build(&p->header, cluster, err);
    if (!rc)
        rc = layer_write(file, q, 0, cluster, size);
    if (!rc)
        rc = layer_flush(file, q);
    return rc ? qz_fail(err, rc, "cannot write the new image: %s", strerror(-rc)) : 0;
}

/* Zeroes that take up their space in all of [from, from + length): reserved, or written. */
static int fill(struct layer *l, struct disk_queue *q, uint64_t from, uint64_t length, bool write)
{
    enum { STEP = 4 << 20 };
    QZ_AUTO_FREE uint8_t *zero = write ? qcow2_buffer(STEP) : NULL;
    int rc = 0;

    if (!write)
        return layer_write_zeroes(l, q, from, length, 0);
    if (!zero)
        return -ENOMEM;
    memset(zero, 0, STEP);
    for (; !rc && length;
         from += QZ_MIN(length, (uint64_t)STEP), length -= QZ_MIN(length, (uint64_t)STEP))
        rc = layer_write(l, q, from, zero, QZ_MIN(length, (uint64_t)STEP));
    return rc;
}

/* All places that the guest's bytes have. */
static int fill_places(struct qcow2 *i, struct disk_queue *q, bool write)
{
    int rc = 0;

    for (uint64_t at = 0; !rc && at < i->header.size;) {
        struct qcow2_run run;

        rc = qcow2_map(i, q, at, i->header.size - at, &run);
        if (!rc && run.host)
            rc = fill(i->data, q, run.host, run.length, write);
        at += run.length;
    }
    return rc;
}

static int preallocate(struct plan *p, struct layer *file, struct disk_queue *q,
                       const struct format_create *c, struct qz_error *err)
{
    struct format_open o = {.data_file = c->data_file};
    struct layer *l;
    int rc = qcow2_open(&l, file, q, &o, err), closed;

    if (rc)
        return rc;
    rc = qcow2_touch(qcow2_of(l), q);
    if (!rc)
        rc = qcow2_preallocate(qcow2_of(l), q, 0, p->header.size);
    if (!rc && p->preallocation > METADATA)
        rc = fill_places(qcow2_of(l), q, p->preallocation == FULL);
    closed = layer_close(l, q, err);
    l->ops->free(l);
    if (!rc)
        rc = closed;
    if (!rc)
        rc = layer_flush(file, q);
    return rc ? qz_fail(err, rc, "cannot preallocate: %s", strerror(-rc)) : 0;
}

int qcow2_create(struct layer *file, struct disk_queue *q, const struct format_create *c,
                 struct qz_error *err)
{
    struct plan p = {0};
    int rc = make_plan(&p, c, err);

    if (rc)
        return rc;
    if (c->data_file_name && !c->data_file)
        return qz_fail(err, -EINVAL, "the external data file must be there when it is named");
    if (c->data_file && c->data_file->info.size < c->size)
        rc = layer_resize(c->data_file, q, c->size, err);
    if (!rc)
        rc = write_image(&p, file, q, c, err);
    if (!rc && (p.preallocation || (p.header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW)))
        rc = preallocate(&p, file, q, c, err);
    return rc;
}

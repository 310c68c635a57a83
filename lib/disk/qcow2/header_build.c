/*
 * header_build.c - the first cluster of a qcow2 image, written.
 *
 * Order: header, extensions (known, then those we only keep), end, backing file name, as every
 * reader expects it: the name's offset bounds the extensions.
 *
 * A medium may lose its power between two sectors of the header. So what changes while an image is
 * in use, the fixed fields and the metadata log's extension, lies in the first one, and what comes
 * behind does not move for it: a header that we made has room for the log from the beginning.
 */
#include "header.h"

struct writer {
    uint8_t *bytes;
    uint64_t at, size;
};

static int put_extension(struct writer *w, uint32_t type, const void *bytes, size_t length)
{
    if (QZ_ALIGN_UP((uint64_t)length, 8) + 8 > w->size - w->at)
        return -ENOSPC;
    qz_store_be32(w->bytes + w->at, type);
    qz_store_be32(w->bytes + w->at + 4, (uint32_t)length);
    if (length)
        memcpy(w->bytes + w->at + 8, bytes, length);
    w->at += 8 + QZ_ALIGN_UP((uint64_t)length, 8);
    return 0;
}

static int put_text(struct writer *w, uint32_t type, const char *text)
{
    return text ? put_extension(w, type, text, strlen(text)) : 0;
}

/* "Feature name table": so that programs which know less can say what they miss. */
static int put_feature_names(struct writer *w)
{
    static const struct {
        uint8_t type, bit;
        char name[46];
    } names[] = {
        {0, 0, "dirty bit"},
        {0, 1, "corrupt bit"},
        {0, 2, "external data file"},
        {0, 3, "compression type"},
        {0, 4, "extended L2 entries"},
        {1, 0, "lazy refcounts"},
        {2, 0, "bitmaps"},
        {2, 1, "raw external data"},
        {0, 62, "Queztl metadata log: open it once with Queztl"},
    };

    _Static_assert(sizeof(names[0]) == 48, "an entry of the feature name table");
    return put_extension(w, QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
}

static int put_bitmaps(struct writer *w, const struct qcow2_header *h)
{
    uint8_t b[24] = {0};

    if (!h->bitmaps)
        return 0;
    qz_store_be32(b, h->bitmaps);
    qz_store_be64(b + 8, h->bitmap_directory_size);
    qz_store_be64(b + 16, h->bitmap_directory);
    return put_extension(w, QCOW2_EXT_BITMAPS, b, sizeof(b));
}

static int put_crypto(struct writer *w, const struct qcow2_header *h)
{
    uint8_t b[16];

    if (!h->crypto_length)
        return 0;
    qz_store_be64(b, h->crypto_offset);
    qz_store_be64(b + 8, h->crypto_length);
    return put_extension(w, QCOW2_EXT_CRYPTO, b, sizeof(b));
}

static int put_log(struct writer *w, const struct qcow2_header *h)
{
    uint8_t b[16];

    if (!h->log_bytes && !h->log_slot)
        return 0;
    qz_store_be64(b, h->log_offset);
    qz_store_be64(b + 8, h->log_bytes);
    return put_extension(w, QCOW2_EXT_LOG, b, sizeof(b));
}

static int put_extensions(struct writer *w, const struct qcow2_header *h)
{
    int rc = put_log(w, h);

    if (!rc)
        rc = put_text(w, QCOW2_EXT_BACKING_FORMAT, h->backing_format);
    if (!rc)
        rc = put_text(w, QCOW2_EXT_DATA_FILE, h->data_name);
    if (!rc)
        rc = put_crypto(w, h);
    /* Names are a courtesy: a cluster of 512 bytes has no room for them beside a long file name. */
    if (!rc && h->version >= 3 && h->cluster_bits > 11)
        rc = put_feature_names(w);
    if (!rc)
        rc = put_bitmaps(w, h);
    for (unsigned i = 0; !rc && i < h->unknown_count; i++)
        rc = put_extension(w, h->unknown[i].type, h->unknown[i].bytes, h->unknown[i].length);
    return rc ? rc : put_extension(w, QCOW2_EXT_END, NULL, 0);
}

static int put_backing_name(struct writer *w, const struct qcow2_header *h)
{
    size_t length = h->backing_name ? strlen(h->backing_name) : 0;

    if (!length)
        return 0;
    if (length > QCOW2_BACKING_NAME_MAX)
        return -ENAMETOOLONG;
    if (length > w->size - w->at)
        return -ENOSPC;
    qz_store_be64(w->bytes + 8, w->at);
    qz_store_be32(w->bytes + 16, (uint32_t)length);
    memcpy(w->bytes + w->at, h->backing_name, length);
    return 0;
}

static void put_fixed(uint8_t *b, const struct qcow2_header *h)
{
    qz_store_be32(b, QCOW2_MAGIC);
    qz_store_be32(b + 4, h->version);
    qz_store_be32(b + 20, h->cluster_bits);
    qz_store_be64(b + 24, h->size);
    qz_store_be32(b + 32, h->crypt);
    qz_store_be32(b + 36, h->l1_entries);
    qz_store_be64(b + 40, h->l1_offset);
    qz_store_be64(b + 48, h->reftable_offset);
    qz_store_be32(b + 56, h->reftable_clusters);
    qz_store_be32(b + 60, h->snapshots);
    qz_store_be64(b + 64, h->snapshots_offset);
    if (h->version < 3)
        return;
    qz_store_be64(b + 72, h->incompatible);
    qz_store_be64(b + 80, h->compatible);
    qz_store_be64(b + 88, h->autoclear);
    qz_store_be32(b + 96, h->refcount_order);
    qz_store_be32(b + 100, QCOW2_NEW_LENGTH);
    b[104] = (uint8_t)h->compression;
}

int qcow2_header_build(const struct qcow2_header *h, void *cluster, struct qz_error *err)
{
    struct writer w = {.bytes = cluster, .size = qcow2_cluster_size(h)};
    int rc;

    memset(cluster, 0, w.size);
    put_fixed(cluster, h);
    w.at = h->version < 3 ? QCOW2_V2_LENGTH : QCOW2_NEW_LENGTH;
    rc = put_extensions(&w, h);
    if (!rc)
        rc = put_backing_name(&w, h);
    if (rc == -ENAMETOOLONG)
        return qz_fail(err, rc, "the backing file name has %zu bytes, at most %d are possible",
                       strlen(h->backing_name), QCOW2_BACKING_NAME_MAX);
    if (rc)
        return qz_fail(err, rc,
                       "names and extensions do not fit into the header's cluster of %llu bytes: "
                       "shorten the file names or choose larger clusters",
                       (unsigned long long)w.size);
    return 0;
}

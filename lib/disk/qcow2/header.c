/*
 * header.c - parsing of the qcow2 header and its extensions; building is in
 * header_build.c.
 *
 * Fixed fields first (checked alone), then extensions, then what needs both: feature bits, names,
 * and where the tables lie in the file.
 */
#include "header.h"

struct reader {
    const uint8_t *bytes;
    size_t length;
    uint64_t file_size;
    struct qz_error *err;
};

int64_t qcow2_header_extent(const void *bytes, size_t length, struct qz_error *err)
{
    uint32_t bits;

    if (length < 24 || qz_load_be32(bytes) != QCOW2_MAGIC)
        return qz_fail(err, -EINVAL, "not a qcow2 image: the magic at offset 0 is missing");
    bits = qz_load_be32((const uint8_t *)bytes + 20);
    if (bits < QCOW2_CLUSTER_BITS_MIN || bits > QCOW2_CLUSTER_BITS_MAX)
        return qz_fail(err, -EINVAL, "cluster_bits at offset 20 is %u, must be %d to %d", bits,
                       QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
    return 1 << bits;
}

static char *copy_text(const uint8_t *bytes, size_t length)
{
    char *s = malloc(length + 1);

    if (s) {
        memcpy(s, bytes, length);
        s[length] = 0;
    }
    return s;
}

/* A name with a zero byte inside would be cut when it is used: another file than the one shown. */
static int read_name(struct reader *r, const char *what, uint64_t at, size_t length, char **out)
{
    if (memchr(r->bytes + at, 0, length))
        return qz_fail(r->err, -EINVAL, "%s at offset %llu contains a zero byte", what,
                       (unsigned long long)at);
    free(*out);
    *out = copy_text(r->bytes + at, length);
    return *out ? 0 : qz_fail(r->err, -ENOMEM, "no memory for the %s", what);
}

static int fixed_v3(struct qcow2_header *h, struct reader *r)
{
    const uint8_t *b = r->bytes;

    if (r->length < QCOW2_V3_LENGTH)
        return qz_fail(r->err, -EINVAL, "the file ends inside the version 3 header (%zu bytes)",
                       r->length);
    h->incompatible = qz_load_be64(b + 72);
    h->compatible = qz_load_be64(b + 80);
    h->autoclear = qz_load_be64(b + 88);
    h->refcount_order = qz_load_be32(b + 96);
    h->header_length = qz_load_be32(b + 100);
    if (h->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
        return qz_fail(r->err, -EINVAL, "refcount_order at offset 96 is %u, must be at most %d",
                       h->refcount_order, QCOW2_REFCOUNT_ORDER_MAX);
    if (h->header_length < QCOW2_V3_LENGTH || h->header_length % 8 || h->header_length > r->length)
        return qz_fail(r->err, -EINVAL,
                       "header_length at offset 100 is %u, must be a multiple of 8 from %d to %zu",
                       h->header_length, QCOW2_V3_LENGTH, r->length);
    if (h->header_length > QCOW2_V3_LENGTH)
        h->compression = b[104];
    if (h->compression > QCOW2_ZSTD)
        return qz_fail(r->err, -ENOTSUP, "compression_type at offset 104 is %u, which is unknown",
                       h->compression);
    if ((h->compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION))
        return qz_fail(r->err, -EINVAL,
                       "compression_type at offset 104 is %u but bit 3 of incompatible_features "
                       "(offset 72) says otherwise",
                       h->compression);
    return 0;
}

static int fixed_fields(struct qcow2_header *h, struct reader *r)
{
    const uint8_t *b = r->bytes;
    int64_t extent = qcow2_header_extent(b, r->length, r->err);

    if (extent < 0)
        return (int)extent;
    if (r->length < QCOW2_V2_LENGTH)
        return qz_fail(r->err, -EINVAL, "the file ends inside the header (%zu bytes)", r->length);
    r->length = QZ_MIN(r->length, (size_t)extent);
    h->version = qz_load_be32(b + 4);
    if (h->version != 2 && h->version != 3)
        return qz_fail(r->err, -ENOTSUP, "version at offset 4 is %u; 2 and 3 are known",
                       h->version);
    h->cluster_bits = qz_load_be32(b + 20);
    h->size = qz_load_be64(b + 24);
    h->crypt = qz_load_be32(b + 32);
    h->l1_entries = qz_load_be32(b + 36);
    h->l1_offset = qz_load_be64(b + 40);
    h->reftable_offset = qz_load_be64(b + 48);
    h->reftable_clusters = qz_load_be32(b + 56);
    h->snapshots = qz_load_be32(b + 60);
    h->snapshots_offset = qz_load_be64(b + 64);
    h->refcount_order = 4;
    h->header_length = QCOW2_V2_LENGTH;
    if (h->crypt > QCOW2_CRYPT_LUKS)
        return qz_fail(r->err, -ENOTSUP, "crypt_method at offset 32 is %u, which is unknown",
                       h->crypt);
    return h->version == 3 ? fixed_v3(h, r) : 0;
}

/* "Feature name table": what a bit that we do not know is called, into buf. */
static const char *feature_name(const uint8_t *table, uint32_t length, unsigned bit, char *buf,
                                size_t size)
{
    snprintf(buf, size, "bit %u", bit);
    for (uint32_t at = 0; table && at + 48 <= length; at += 48)
        if (table[at] == 0 && table[at + 1] == bit) {
            char name[47] = {0};

            memcpy(name, table + at + 2, 46);
            for (char *c = name; *c; c++)
                if (*c < ' ' || *c > '~')
                    *c = '?';
            snprintf(buf, size, "\"%s\" (bit %u)", name, bit);
        }
    return buf;
}

static int bitmaps_extension(struct qcow2_header *h, struct reader *r, uint64_t at, uint32_t length)
{
    const uint8_t *b = r->bytes + at;

    /* Without its autoclear bit the extension is stale and must be ignored. */
    if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    if (length != 24 || qz_load_be32(b + 4))
        return qz_fail(r->err, -EINVAL, "bitmaps extension at offset %llu is malformed",
                       (unsigned long long)at);
    h->bitmaps = qz_load_be32(b);
    h->bitmap_directory_size = qz_load_be64(b + 8);
    h->bitmap_directory = qz_load_be64(b + 16);
    if (!h->bitmaps || h->bitmaps > QCOW2_BITMAPS_MAX)
        return qz_fail(r->err, -EINVAL, "nb_bitmaps at offset %llu is %u, must be 1 to %d",
                       (unsigned long long)at, h->bitmaps, QCOW2_BITMAPS_MAX);
    if (h->bitmap_directory_size > QCOW2_SNAPSHOT_TABLE_MAX ||
        h->bitmap_directory_size < 24ull * h->bitmaps)
        return qz_fail(r->err, -EINVAL,
                       "bitmap_directory_size at offset %llu is %llu, impossible for %u bitmaps",
                       (unsigned long long)at + 8, (unsigned long long)h->bitmap_directory_size,
                       h->bitmaps);
    return 0;
}

static int crypto_extension(struct qcow2_header *h, struct reader *r, uint64_t at, uint32_t length)
{
    if (h->crypt != QCOW2_CRYPT_LUKS)
        return qz_fail(r->err, -EINVAL,
                       "encryption header extension at offset %llu, but crypt_method at offset 32 "
                       "is %u",
                       (unsigned long long)at, h->crypt);
    if (length < 16)
        return qz_fail(r->err, -EINVAL,
                       "encryption header extension at offset %llu has %u bytes, needs 16",
                       (unsigned long long)at, length);
    h->crypto_offset = qz_load_be64(r->bytes + at);
    h->crypto_length = qz_load_be64(r->bytes + at + 8);
    return 0;
}

static int log_extension(struct qcow2_header *h, struct reader *r, uint64_t at, uint32_t length)
{
    h->log_slot = true;
    /* Without its bit it is room, or a program that did not know it has been here. */
    if (!(h->incompatible & QCOW2_INCOMPAT_LOG))
        return 0;
    if (length != 16)
        return qz_fail(r->err, -EINVAL, "metadata log extension at offset %llu is malformed",
                       (unsigned long long)at);
    h->log_offset = qz_load_be64(r->bytes + at);
    h->log_bytes = qz_load_be64(r->bytes + at + 8);
    if (!h->log_bytes || h->log_bytes > 64 << 20 || h->log_bytes % (2 * qcow2_cluster_size(h)))
        return qz_fail(r->err, -EINVAL, "metadata log at offset %llu has 0x%llx bytes",
                       (unsigned long long)at, (unsigned long long)h->log_bytes);
    return 0;
}

static int keep_extension(struct qcow2_header *h, struct reader *r, uint32_t type, uint64_t at,
                          uint32_t length)
{
    struct qcow2_extension *e = realloc(h->unknown, (h->unknown_count + 1) * sizeof(*h->unknown));

    if (!e)
        return qz_fail(r->err, -ENOMEM, "no memory for header extensions");
    h->unknown = e;
    e += h->unknown_count;
    *e = (struct qcow2_extension){type, length, malloc(length ? length : 1)};
    if (!e->bytes)
        return qz_fail(r->err, -ENOMEM, "no memory for header extensions");
    memcpy(e->bytes, r->bytes + at, length);
    h->unknown_count++;
    return 0;
}

static int one_extension(struct qcow2_header *h, struct reader *r, uint32_t type, uint64_t at,
                         uint32_t length)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return read_name(r, "backing format", at, length, &h->backing_format);
    case QCOW2_EXT_DATA_FILE:
        return read_name(r, "external data file name", at, length, &h->data_name);
    case QCOW2_EXT_BITMAPS:
        return bitmaps_extension(h, r, at, length);
    case QCOW2_EXT_CRYPTO:
        return crypto_extension(h, r, at, length);
    case QCOW2_EXT_LOG:
        return log_extension(h, r, at, length);
    case QCOW2_EXT_FEATURE_NAMES:
        return 0;
    default:
        return keep_extension(h, r, type, at, length);
    }
}

/* Walks the extensions up to `end`. Each step is 8 bytes or more, so a cluster bounds the work. */
static int extensions(struct qcow2_header *h, struct reader *r, uint64_t end, const uint8_t **names,
                      uint32_t *names_length)
{
    uint64_t at = h->header_length;

    while (at + 8 <= end) {
        uint32_t type = qz_load_be32(r->bytes + at), length = qz_load_be32(r->bytes + at + 4);
        int rc;

        if (type == QCOW2_EXT_END)
            return 0;
        at += 8;
        if (length > end - at)
            return qz_fail(r->err, -EINVAL,
                           "header extension 0x%08x at offset %llu: its length %u runs past %llu",
                           type, (unsigned long long)at - 8, length, (unsigned long long)end);
        if (type == QCOW2_EXT_FEATURE_NAMES) {
            *names = r->bytes + at;
            *names_length = length;
        }
        rc = one_extension(h, r, type, at, length);
        if (rc)
            return rc;
        at += QZ_ALIGN_UP((uint64_t)length, 8);
    }
    return 0;
}

static int backing_name(struct qcow2_header *h, struct reader *r)
{
    uint64_t at = qz_load_be64(r->bytes + 8);
    uint32_t length = qz_load_be32(r->bytes + 16);

    if (!at)
        return 0;
    if (at < h->header_length || length > QCOW2_BACKING_NAME_MAX || !length || at > r->length ||
        length > r->length - at)
        return qz_fail(r->err, -EINVAL,
                       "backing_file_offset at offset 8 is %llu with backing_file_size (offset 16) "
                       "%u: must be 1 to %d bytes between the header and offset %zu",
                       (unsigned long long)at, length, QCOW2_BACKING_NAME_MAX, r->length);
    return read_name(r, "backing file name", at, length, &h->backing_name);
}

static int features(const struct qcow2_header *h, struct reader *r, const uint8_t *names,
                    uint32_t names_length)
{
    uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
    char text[80];

    if (unknown)
        return qz_fail(
            r->err, -ENOTSUP,
            "incompatible_features at offset 72 has %s, which this version does not know",
            feature_name(names, names_length, __builtin_ctzll(unknown), text, sizeof(text)));
    if (qcow2_extended(h) && h->cluster_bits < QCOW2_EXTENDED_BITS_MIN)
        return qz_fail(r->err, -EINVAL,
                       "cluster_bits at offset 20 is %u; extended L2 entries need at least %d",
                       h->cluster_bits, QCOW2_EXTENDED_BITS_MIN);
    if ((h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW) && !(h->incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return qz_fail(r->err, -EINVAL,
                       "autoclear_features at offset 88 says raw external data, but "
                       "incompatible_features (offset 72) has no external data file");
    return 0;
}

/* A table of `bytes` bytes at `at` must begin on a cluster after the first and lie in the file. */
static int table(struct reader *r, const struct qcow2_header *h, const char *what, unsigned field,
                 uint64_t at, uint64_t bytes, bool cluster_aligned)
{
    if (at % (cluster_aligned ? qcow2_cluster_size(h) : 8) || at < qcow2_cluster_size(h))
        return qz_fail(r->err, -EINVAL,
                       "%s (offset %u) is 0x%llx: must be %s past the header's cluster", what,
                       field, (unsigned long long)at,
                       cluster_aligned ? "a multiple of the cluster size" : "a multiple of 8");
    if (at > r->file_size || bytes > r->file_size - at)
        return qz_fail(r->err, -EINVAL,
                       "%s (offset %u): 0x%llx bytes at 0x%llx run past the end of the file (size "
                       "0x%llx)",
                       what, field, (unsigned long long)bytes, (unsigned long long)at,
                       (unsigned long long)r->file_size);
    return 0;
}

static int l1_size(const struct qcow2_header *h, struct reader *r)
{
    uint64_t span = qcow2_l2_span(h);
    uint64_t needed = h->size / span + !!(h->size % span);

    if (h->size > INT64_MAX)
        return qz_fail(r->err, -EFBIG, "size at offset 24 is 0x%llx, past what a disk can have",
                       (unsigned long long)h->size);
    if (needed > QCOW2_L1_BYTES_MAX / 8)
        return qz_fail(r->err, -EFBIG,
                       "size at offset 24 is 0x%llx: clusters of %llu bytes reach only 0x%llx",
                       (unsigned long long)h->size, (unsigned long long)qcow2_cluster_size(h),
                       (unsigned long long)(QCOW2_L1_BYTES_MAX / 8 * span));
    if (h->l1_entries > QCOW2_L1_BYTES_MAX / 8 || h->l1_entries < needed)
        return qz_fail(r->err, -EINVAL,
                       "l1_size at offset 36 is %u, must be %llu (for the disk's size) to %d",
                       h->l1_entries, (unsigned long long)needed, QCOW2_L1_BYTES_MAX / 8);
    return 0;
}

static int tables(const struct qcow2_header *h, struct reader *r)
{
    uint64_t reftable = (uint64_t)h->reftable_clusters << h->cluster_bits;
    int rc = l1_size(h, r);

    if (!rc && h->l1_entries)
        rc = table(r, h, "l1_table_offset", 40, h->l1_offset, h->l1_entries * 8ull, true);
    if (!rc && (!h->reftable_clusters || reftable > QCOW2_REFTABLE_BYTES_MAX))
        return qz_fail(r->err, -EINVAL,
                       "refcount_table_clusters at offset 56 is %u, must be 1 to %u",
                       h->reftable_clusters, QCOW2_REFTABLE_BYTES_MAX >> h->cluster_bits);
    if (!rc)
        rc = table(r, h, "refcount_table_offset", 48, h->reftable_offset, reftable, true);
    if (!rc && h->snapshots > QCOW2_SNAPSHOTS_MAX)
        return qz_fail(r->err, -EINVAL, "nb_snapshots at offset 60 is %u, must be at most %d",
                       h->snapshots, QCOW2_SNAPSHOTS_MAX);
    if (!rc && h->snapshots)
        rc = table(r, h, "snapshots_offset", 64, h->snapshots_offset, h->snapshots * 40ull, true);
    if (!rc && h->bitmaps)
        rc = table(r, h, "bitmap_directory_offset", 0, h->bitmap_directory,
                   h->bitmap_directory_size, true);
    if (!rc && h->crypto_length)
        rc = table(r, h, "encryption header", 0, h->crypto_offset, h->crypto_length, true);
    if (!rc && h->log_bytes)
        rc = table(r, h, "metadata log", 0, h->log_offset, h->log_bytes, true);
    return rc;
}

int qcow2_header_parse(struct qcow2_header *h, const void *bytes, size_t length, uint64_t file_size,
                       struct qz_error *err)
{
    struct reader r = {.bytes = bytes, .length = length, .file_size = file_size, .err = err};
    const uint8_t *names = NULL;
    uint32_t names_length = 0;
    uint64_t end;
    int rc;

    memset(h, 0, sizeof(*h));
    rc = fixed_fields(h, &r);
    if (!rc)
        rc = backing_name(h, &r);
    if (!rc) {
        /* The name usually follows the extensions and ends them. */
        end = h->backing_name ? qz_load_be64(r.bytes + 8) : r.length;
        rc = extensions(h, &r, end, &names, &names_length);
    }
    if (!rc)
        rc = features(h, &r, names, names_length);
    if (!rc && h->crypt == QCOW2_CRYPT_LUKS && !h->crypto_length)
        rc = qz_fail(err, -EINVAL,
                     "crypt_method at offset 32 is LUKS but no header extension says where the "
                     "LUKS header is");
    if (!rc && (h->incompatible & QCOW2_INCOMPAT_LOG) && !h->log_bytes)
        rc = qz_fail(err, -EINVAL,
                     "incompatible_features at offset 72 says there is a metadata log, but no "
                     "header extension says where");
    if (!rc)
        rc = tables(h, &r);
    if (rc)
        qcow2_header_clear(h);
    return rc;
}

void qcow2_header_clear(struct qcow2_header *h)
{
    free(h->backing_name);
    free(h->backing_format);
    free(h->data_name);
    for (unsigned i = 0; i < h->unknown_count; i++)
        free(h->unknown[i].bytes);
    free(h->unknown);
    memset(h, 0, sizeof(*h));
}

/*
 * header.h - the first cluster of a qcow2 image, read with suspicion and written back.
 */
#ifndef DISK_QCOW2_HEADER_H
#define DISK_QCOW2_HEADER_H

#include "layout.h"
#include <queztl/base.h>

/* A header extension that we do not know: kept and written back as it was. */
struct qcow2_extension {
    uint32_t type, length;
    uint8_t *bytes;
};

struct qcow2_header {
    uint32_t version, cluster_bits, header_length;
    uint64_t size; /* bytes the guest sees */
    enum qcow2_crypt crypt;
    enum qcow2_compression compression;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t refcount_order; /* a refcount has 1 << refcount_order bits */
    uint32_t snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    char *backing_name;   /* NULL: none */
    char *backing_format; /* NULL: not said */
    char *data_name;      /* of the external data file; NULL: not said */
    uint32_t bitmaps;     /* 0: no bitmaps extension */
    uint64_t bitmap_directory, bitmap_directory_size;
    uint64_t crypto_offset, crypto_length; /* length 0: no pointer to a LUKS header */
    uint64_t log_offset, log_bytes;        /* bytes 0: no metadata log */
    bool log_slot;                         /* the header has the log's extension, in use or not */
    struct qcow2_extension *unknown;
    unsigned unknown_count;
};

/*
 * How many bytes of the file qcow2_header_parse() wants to see (the cluster size), from the first
 * 24; a negative errno when this is no qcow2 image.
 */
int64_t qcow2_header_extent(const void *bytes, size_t length, struct qz_error *err);

/*
 * Reads the header from the first `length` bytes of a file of file_size bytes. Every field is
 * checked alone and against the file; messages name field and offset. *h is filled only on success
 * and then given back by qcow2_header_clear().
 */
int qcow2_header_parse(struct qcow2_header *h, const void *bytes, size_t length, uint64_t file_size,
                       struct qz_error *err);

/* Writes the header with its extensions and names into one cluster of zeroed bytes. -ENOSPC: names
 * and unknown extensions do not fit. */
int qcow2_header_build(const struct qcow2_header *h, void *cluster, struct qz_error *err);

void qcow2_header_clear(struct qcow2_header *h);

static inline uint64_t qcow2_cluster_size(const struct qcow2_header *h)
{
    return 1ull << h->cluster_bits;
}

static inline bool qcow2_extended(const struct qcow2_header *h)
{
    return h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
}

/* Bytes of an L2 entry. */
static inline unsigned qcow2_entry_size(const struct qcow2_header *h)
{
    return qcow2_extended(h) ? 16 : 8;
}

/* Guest bytes that one L2 table describes. */
static inline uint64_t qcow2_l2_span(const struct qcow2_header *h)
{
    return qcow2_cluster_size(h) / qcow2_entry_size(h) << h->cluster_bits;
}

#endif

/*
 * layout.h - the numbers of the qcow2 file format, versions 2 and 3.
 *
 * All integers in the file are big-endian. References are to the format description that QEMU
 * publishes (docs/interop/qcow2.txt), by its section names.
 */
#ifndef DISK_QCOW2_LAYOUT_H
#define DISK_QCOW2_LAYOUT_H

#include <stdint.h>

enum {
    QCOW2_MAGIC = 0x514649fb, /* "QFI\xfb" */
    QCOW2_V2_LENGTH = 72,     /* bytes of a version 2 header */
    QCOW2_V3_LENGTH = 104,    /* the least of a version 3 header */
    QCOW2_NEW_LENGTH = 112,   /* with the compression type, padded; what we write */
    QCOW2_BACKING_NAME_MAX = 1023,
    QCOW2_CLUSTER_BITS_MIN = 9,
    QCOW2_CLUSTER_BITS_MAX = 21,
    QCOW2_EXTENDED_BITS_MIN = 14, /* subclusters of at least 512 bytes */
    QCOW2_SUBCLUSTERS = 32,
    QCOW2_REFCOUNT_ORDER_MAX = 6,
    /* Not the format's limits but ours (and QEMU's), against headers made to exhaust memory. */
    QCOW2_L1_BYTES_MAX = 32 << 20,
    QCOW2_REFTABLE_BYTES_MAX = 8 << 20,
    QCOW2_SNAPSHOTS_MAX = 65536,
    QCOW2_SNAPSHOT_TABLE_MAX = 64 << 20,
    QCOW2_BITMAPS_MAX = 65535,
};

/* Header, "incompatible_features". */
#define QCOW2_INCOMPAT_DIRTY       (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT     (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE   (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (1ull << 4)
/* Ours: tables are not up to date without the metadata log (log.c). */
#define QCOW2_INCOMPAT_LOG   (1ull << 62)
#define QCOW2_INCOMPAT_KNOWN (0x1full | QCOW2_INCOMPAT_LOG)

/* Header, "compatible_features". */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (1ull << 0)

/* Header, "autoclear_features". */
#define QCOW2_AUTOCLEAR_BITMAPS  (1ull << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW (1ull << 1)
#define QCOW2_AUTOCLEAR_KNOWN    3ull

/* Header extensions. */
#define QCOW2_EXT_END            0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES  0x6803f857u
#define QCOW2_EXT_BITMAPS        0x23852875u
#define QCOW2_EXT_CRYPTO         0x0537be77u
#define QCOW2_EXT_DATA_FILE      0x44415441u
#define QCOW2_EXT_LOG            0x515a4c47u /* ours: offset and bytes of the metadata log */

enum qcow2_crypt { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };
enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* Cluster mapping: bits of L1 and L2 entries. */
#define QCOW2_OFFSET_MASK  0x00fffffffffffe00ull
#define QCOW2_COPIED       (1ull << 63)
#define QCOW2_COMPRESSED   (1ull << 62)
#define QCOW2_ZERO         (1ull << 0)
#define QCOW2_L1_RESERVED  0x7f000000000001ffull
#define QCOW2_L2_RESERVED  0x3f000000000001feull
#define QCOW2_REF_RESERVED 0x1ffull /* of a refcount table entry */

#endif

/*
 * cow_format.h - the cow format on disk: changes of a disk in a file of their own.
 *
 * A header of one page, a bitmap with one bit for each granule of 4 KiB (set: the granule is here;
 * little-endian, bit 0 of byte 0 first), then the granules, each at its place: a sparse file as
 * large as the disk. Numbers are little-endian.
 */
#ifndef DISK_COW_FORMAT_H
#define DISK_COW_FORMAT_H

#include <queztl/base.h>

enum {
    COW_PAGE = 4096,
    COW_GRANULE = 4096,
    COW_BITMAP = COW_PAGE,    /* offset of the bitmap */
    COW_DATA_ALIGN = 1 << 20, /* of the granules' offset */
    COW_NAME_MAX = 1024,
    COW_FORMAT_MAX = 32,
};
/* Bytes of a disk: its bitmap is in memory while it is open. */
#define COW_SIZE_MAX (16ull << 40)

struct cow_header {
    char magic[8]; /* COW_MAGIC */
    uint32_t version, granule;
    uint64_t size, bitmap_offset, data_offset;
    char backing_file[COW_NAME_MAX]; /* ends with a zero byte; empty: none */
    char backing_format[COW_FORMAT_MAX];
};
_Static_assert(sizeof(struct cow_header) <= COW_PAGE, "one page");

#define COW_MAGIC "QZCOW\r\n\x1a"
enum { COW_VERSION = 1 };

static inline uint64_t cow_bitmap_bytes(uint64_t size)
{
    uint64_t granules = (size + COW_GRANULE - 1) / COW_GRANULE;

    return QZ_ALIGN_UP((granules + 7) / 8, (uint64_t)COW_PAGE);
}

static inline uint64_t cow_data_offset(uint64_t size)
{
    return QZ_ALIGN_UP(COW_BITMAP + cow_bitmap_bytes(size), (uint64_t)COW_DATA_ALIGN);
}

#endif

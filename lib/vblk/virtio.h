/*
 * virtio.h - layouts and bits of VirtIO 1.3 that the driver uses. Everything here is little-endian
 * in memory; le16() and its sisters turn a value into that order and back.
 */
#ifndef VBLK_VIRTIO_H
#define VBLK_VIRTIO_H

#include <queztl/vblk.h>

static inline uint16_t le16(uint16_t v)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap16(v);
}
static inline uint32_t le32(uint32_t v)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap32(v);
}
static inline uint64_t le64(uint64_t v)
{
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap64(v);
}

/* §2.1 device status */
enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,
};

enum { VIRTIO_ID_BLOCK = 2 };

/* §2.7.5 split descriptor; §2.8.13 packed descriptor. Both are 16 bytes: address, length, and two
 * half words whose order differs. */
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { PACKED_AVAIL = 1 << 7, PACKED_USED = 1 << 15 };

struct vring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

/* §2.7.6: ring[size] is used_event */
struct vring_avail {
    uint16_t flags, idx;
    uint16_t ring[];
};

/* §2.7.8: the half word after ring[size] is avail_event */
struct vring_used_elem {
    uint32_t id, len;
};
struct vring_used {
    uint16_t flags, idx;
    struct vring_used_elem ring[];
};
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

/* §2.8.14 */
struct packed_event {
    uint16_t off_wrap, flags;
};
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

/* §5.2.4 */
struct virtio_blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    struct {
        uint16_t cylinders;
        uint8_t heads, sectors;
    } geometry;
    uint32_t blk_size;
    struct {
        uint8_t physical_block_exp, alignment_offset;
        uint16_t min_io_size;
        uint32_t opt_io_size;
    } topology;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
    uint32_t max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment;
    struct {
        uint32_t zone_sectors, max_open_zones, max_active_zones, max_append_sectors;
        uint32_t write_granularity;
        uint8_t model, unused2[3];
    } zoned;
} __attribute__((packed));

/* §5.2.6 */
struct virtio_blk_header {
    uint32_t type, ioprio;
    uint64_t sector;
};
struct virtio_blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};
enum { RANGE_UNMAP = 1 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2, BLK_S_ZONE_FIRST = 3, BLK_S_ZONE_LAST = 6 };
/* What the driver writes before it gives the byte to the device: no status of the specification. */
enum { BLK_S_UNWRITTEN = 0xff };

#endif

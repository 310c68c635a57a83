/*
 * virtio_blk_internal.h - the block device's parts: virtio_blk.c (the device), virtio_blk_request.c
 * (requests), virtio_blk_error.c (what becomes of those that fail).
 *
 * Queues are served on lanes, each a loop with a thread and a lock (virtio.h); queue q on lane q %
 * lanes. A queue, its slots and their requests are guarded by the lane's lock. `resetting` and the
 * configuration change with all locks held.
 */
#ifndef VMM_VIRTIO_BLK_INTERNAL_H
#define VMM_VIRTIO_BLK_INTERNAL_H

#include <linux/virtio_blk.h>

#include "devices/virtio/block_backend.h"
#include "devices/virtio/devices.h"

enum {
    QUEUES_MAX = 16,
    SEGMENTS_MAX = 126,
    HEADER = 16,
    SECTOR = 512,
    RANGES_MAX = 32,
    ID_BYTES = 20
};
/* Those that the kernel's headers do not know. */
enum { BLK_F_LIFETIME = 15, BLK_T_GET_LIFETIME = 10 };
enum { CHAIN_SEGMENTS = SEGMENTS_MAX + 2 };
/* One range of discard or write zeroes may cover this much; in sectors. */
#define RANGE_SECTORS_MAX 0x400000u

struct blk;

struct slot {
    struct blk *blk;
    unsigned queue;
    struct slot *next; /* free list, or those kept */
    struct block_request request;
    struct virtqueue_chain chain;
    struct iovec iov[CHAIN_SEGMENTS];
    struct iovec data[CHAIN_SEGMENTS]; /* the chain without header and status */
    bool flush_after; /* write-through: the write is done when it is on the medium */
    struct virtio_blk_discard_write_zeroes range[RANGES_MAX];
    unsigned ranges, next_range;
};

struct blk_queue {
    struct slot *slots, *free;
    struct slot *kept; /* failed, and wait for virtio_blk_retry(); they count as in flight */
    unsigned in_flight;
    bool resetting;
    struct virtio_blk_stats stats;
};

struct blk_lane {
    struct blk *blk;
    unsigned index;
    bool locked; /* the lane's thread is in here with the lock held: a completion, also of another
                    queue, may come from inside queue() or submit(). Only that thread looks. */
    struct qz_work retry, reset_ended;
    unsigned kept; /* how many, and what the last one met */
    char kept_text[200];
};

struct virtio_blk_config_space {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    struct {
        uint16_t cylinders;
        uint8_t heads, sectors;
    } geometry;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t wce, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
    uint32_t max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment;
};
_Static_assert(sizeof(struct virtio_blk_config_space) == 72, "VirtIO 1.3 §5.2.4");

struct blk {
    struct virtio_device d;
    struct block_backend *backend;
    const struct block_info *info;
    struct virtio_blk_config_space config;
    char serial[ID_BYTES];
    bool resetting;
    enum virtio_blk_on_error on_error;
    void (*stopped)(void *context, struct virtio_device *d);
    void *context;
    struct qz_loop *loops[BLOCK_LANES_MAX];
    unsigned lanes;
    struct blk_lane lane[BLOCK_LANES_MAX];
    struct blk_queue queue[QUEUES_MAX];
};

static inline struct blk *blk_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct blk, d);
}

static inline struct blk_lane *lane_of(struct blk *b, unsigned queue)
{
    return &b->lane[queue % b->lanes];
}

/* ---- virtio_blk_request.c */
void blk_release(struct slot *s);
void blk_notify(struct virtio_device *d, unsigned q);
/* All locks held: whether nothing is in flight any more. */
bool blk_drained(const struct blk *b);
/* Lane's lock held: a request that was kept goes to the backend again. */
void blk_again(struct slot *s);

/* ---- virtio_blk_error.c; lane's lock held */
enum blk_verdict { BLK_REPORT, BLK_KEEP, BLK_IGNORE };
/* A request ended with this error: what becomes of it. BLK_KEEP: it is on its queue's list. */
enum blk_verdict blk_judge(struct slot *s, int error);
/* A reset: what the queue keeps is forgotten. */
void blk_forget_kept(struct blk *b, unsigned queue);

#endif

/*
 * internal.h - the driver's own structures: a device, its queues, their slots.
 *
 * A *slot* is one request that the device may hold; its number is the descriptor index (split) or
 * buffer id (packed) by which the device names it. Each slot owns
 *   - a frame, one cache line of device memory: the request header and an indirect table for
 * header, data and status, of which only the data entry changes from one request to the next;
 *   - a byte in the array of statuses, dense so that a batch touches few lines;
 *   - an extent, for what a frame cannot hold: more segments, ranges, the tail of a zone append;
 *   - with zero_copy off, a bounce buffer.
 * What the driver needs to know about a slot stands in private memory (struct slot): the device can
 * scribble over all of its own memory without the driver following a wrong index or pointer.
 */
#ifndef VBLK_INTERNAL_H
#define VBLK_INTERNAL_H

#include "virtio.h"

enum { CACHE_LINE = 64, PAGE = 4096 };
enum { NO_SLOT = 0xffff };
/* header + data + tail of a zone append and status */
enum { CHAIN_EXTRA = 3 };

struct slot {
    struct vblk_request *request; /* NULL: the device does not have this slot */
    uint32_t writable; /* bytes that the device may write, for the check of used lengths */
    uint16_t descs;    /* ring descriptors that it occupies */
    uint16_t next;     /* free list; within a direct split chain: the next descriptor */
};

/* One piece of a chain, before it becomes a descriptor of either format. */
struct piece {
    uint64_t addr;
    uint32_t len;
    bool write;
};

struct frame {
    struct virtio_blk_header header;
    uint64_t table[3][2]; /* descriptors as two words, in the byte order of the device */
} __attribute__((aligned(CACHE_LINE)));

struct tail { /* of a zone append; §5.2.6 */
    uint64_t append_sector;
    uint8_t status, unused[7];
};

struct split_ring {
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    uint16_t avail_next; /* entries written */
    uint16_t published;  /* entries that the device may know of */
    uint16_t used_next;
};

struct packed_ring {
    struct packed_desc *desc;
    struct packed_event *driver, *device;
    uint16_t avail_next, used_next;
    uint16_t avail_flags; /* PACKED_AVAIL or PACKED_USED, by the wrap counter */
    bool used_wrap;
    uint16_t
        head; /* first descriptor of the batch: its flags are written last; NO_SLOT: none yet */
    uint16_t head_flags;
};

/* Requests that wait for room in the ring. */
struct waiting {
    struct vblk_request *head[VBLK_PRIO_COUNT], *last[VBLK_PRIO_COUNT];
    unsigned count, since_aged;
};

struct vblk_queue {
    /* What every request touches comes first. */
    bool packed, indirect, event_idx, in_order, order_platform, broken, running;
    bool notification_data, latency, batch, fast; /* fast: one piece of data needs no extent */
    uint16_t size, mask;                          /* of the ring; mask for split */
    uint16_t free_descs;
    uint16_t free_slot; /* head of the free list, NO_SLOT when empty */
    uint16_t oldest;    /* in-order: the slot that the device must use next */
    uint16_t in_flight;
    uint16_t index;
    uint16_t last_slot; /* what request_put took */
    struct slot *slots;
    struct frame *frames;
    uint8_t *statuses;
    uint64_t frames_addr, statuses_addr;
    union {
        struct split_ring split;
        struct packed_ring ring;
    };
    const struct vblk_platform *platform;
    struct vblk_device *dev;

    /* The rest. */
    struct waiting waiting;
    bool armed;
    unsigned batch_left; /* in order: slots of the current used entry still to be completed */
    uint32_t batch_len;  /* its length */
    /* What ended without the ring: the next poll hands it out. */
    struct vblk_request *finished, *finished_last;
    uint8_t *extents;
    uint64_t extents_addr;
    uint32_t extent_stride, extent_table; /* bytes; where the table begins */
    uint8_t *bounces;
    uint64_t bounces_addr;
    uint64_t *started_ns; /* by slot, with latency or deadlines */
    struct piece *pieces;
    void *dma;
    size_t dma_size;
    uint64_t dma_addr;
    struct vblk_ring_addresses addresses;
    struct vblk_stats stats;
} __attribute__((aligned(CACHE_LINE)));

struct vblk_device {
    struct vblk_transport *transport;
    const struct vblk_platform *platform;
    struct vblk_config config;
    struct vblk_info info;
    bool started;
    struct vblk_queue *queues;
};

static inline void note(const struct vblk_platform *p, enum vblk_log_level level, const char *text,
                        uint64_t a, uint64_t b)
{
    if (p->log)
        p->log(p->ctx, level, text, a, b);
}

/*
 * Memory shared with the device is read and written through these: once, whole, in order. Release
 * pairs with the device's acquire of an index or flag, acquire with its release. The platform's own
 * barriers replace the CPU's fences under VIRTIO_F_ORDER_PLATFORM (§6).
 */
static inline uint16_t shared_load16(const uint16_t *p)
{
    return le16(__atomic_load_n(p, __ATOMIC_RELAXED));
}
static inline void shared_store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, le16(v), __ATOMIC_RELAXED);
}

static inline void barrier_write(const struct vblk_queue *q)
{
    if (__builtin_expect(q->order_platform, 0))
        q->platform->barrier(q->platform->ctx, VBLK_BARRIER_WRITE);
    else
        __atomic_thread_fence(__ATOMIC_RELEASE);
}
static inline void barrier_read(const struct vblk_queue *q)
{
    if (__builtin_expect(q->order_platform, 0))
        q->platform->barrier(q->platform->ctx, VBLK_BARRIER_READ);
    else
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
}
static inline void barrier_full(const struct vblk_queue *q)
{
    if (__builtin_expect(q->order_platform, 0))
        q->platform->barrier(q->platform->ctx, VBLK_BARRIER_FULL);
    else
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif

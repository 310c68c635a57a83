/*
 * virtqueue.h - the one checked walker for split and packed rings (VirtIO 1.3 §2.7, §2.8).
 *
 * A device sees buffers, never rings. The walker reads each descriptor once, bounds chain length,
 * count and bytes, and on the first violation marks the queue broken and the device NEEDS_RESET;
 * the device just sees an empty queue from then on. All calls on one queue come from one thread at
 * a time (the device's loop, under the device's lock).
 */
#ifndef VMM_VIRTQUEUE_H
#define VMM_VIRTQUEUE_H

#include <sys/uio.h>

#include <queztl/state.h>

#include "machine/memory.h"

struct virtio_device;

enum { VIRTQUEUE_SIZE_MAX = 1024 };

/*
 * One request: device-readable buffers first, then device-writable ones, as host memory. The caller
 * gives iov and capacity; pop fills the rest. Adjacent guest buffers are not merged.
 */
struct virtqueue_chain {
    struct iovec *iov;
    unsigned capacity;  /* elements in iov: the most segments this device accepts */
    unsigned out_count; /* iov[0 .. out_count): read by the device */
    unsigned in_count;  /* iov[out_count .. out_count + in_count): written by the device */
    uint64_t out_bytes, in_bytes;
    uint16_t id;          /* split: head index; packed: buffer id */
    uint16_t descriptors; /* ring slots the chain took (packed) */
};

struct virtqueue {
    struct virtio_device *device;
    const struct guest_memory *memory;
    uint16_t index;
    /* Set by the transport before DRIVER_OK, frozen afterwards. */
    uint16_t size;
    bool enabled;
    gpa_t desc, driver, device_area; /* split: descriptor table, available ring, used ring */
    uint16_t msix_vector;

    bool packed, event_index, indirect, in_order;
    bool broken;

    /* Walker state; what a snapshot keeps. */
    uint16_t last_avail; /* split: free-running; packed: ring position */
    bool avail_wrap;
    uint16_t used_idx; /* split: free-running; packed: ring position */
    bool used_wrap;
    uint16_t signalled_used; /* used_idx when the driver was last considered for an interrupt */
    bool notify_enabled;
    uint32_t in_flight;       /* popped and not pushed */
    uint32_t slots_in_flight; /* packed: ring slots of what is in flight, never more than size */
    uint64_t *
        busy; /* bitmap of heads (split) or buffer ids (packed) in flight: none is accepted twice */
    struct mem_span desc_span, driver_span, device_span; /* resolved by virtqueue_start */
};

/* Checks addresses and size and resolves the rings; -EINVAL with a reason when the driver set
 * nonsense. */
int virtqueue_start(struct virtqueue *vq, uint64_t features, struct qz_error *err);
void virtqueue_stop(struct virtqueue *vq); /* forgets walker state; nothing may be in flight */

/*
 * Registers and walker, saved or loaded; nothing is in flight. Loaded with `running`, an enabled
 * queue's rings are resolved and the walk goes on where it stood.
 */
void virtqueue_state(struct virtqueue *vq, struct qz_state *s, bool running, uint64_t features);

/* 1: *chain filled; 0: nothing available (or broken). */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
/* Puts the last popped chain back, as if it was never popped (for instance no data to put in it
 * yet). */
void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *chain);
/* Returns a chain with `written` bytes filled; in any order unless in_order. Not yet seen by an
 * interrupt. */
void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain, uint32_t written);
/* Interrupts the driver if it wants to know about what was pushed since the last call. Once per
 * batch. */
void virtqueue_interrupt(struct virtqueue *vq);

/* For who keeps a number of all memory: the rings are written without a word about it. */
void virtqueue_rings_written(const struct virtqueue *vq);

/*
 * Notification suppression. A device that polls its queue dry: disable; pop until 0; then enable,
 * which returns true when buffers arrived in between (then disable and go on).
 */
void virtqueue_notify_disable(struct virtqueue *vq);
bool virtqueue_notify_enable(struct virtqueue *vq);

/* Marks the queue broken and the device NEEDS_RESET, with a rate-limited line for the log. */
void virtqueue_fail(struct virtqueue *vq, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Copies between a chain and flat memory. `offset` counts from the start of the out (or in) part.
 */
size_t virtqueue_read(const struct virtqueue_chain *c, uint64_t offset, void *buf, size_t len);
size_t virtqueue_write(const struct virtqueue_chain *c, uint64_t offset, const void *buf,
                       size_t len);

#endif

/*
 * ring.h - a virtqueue seen from the device (VirtIO 1.3 §2.7 split, §2.8 packed), over memory that
 * the driver can change at any time.
 *
 * Each descriptor is copied once, checked, and turned into vectors of host addresses. What breaks
 * the rules breaks the ring: it serves nothing more until it is set up again. Little-endian hosts
 * only: modern rings are little-endian (§2.4) and read in place.
 */
#ifndef DISK_VHOST_RING_H
#define DISK_VHOST_RING_H

#include <sys/uio.h>

#include "memory_map.h"

enum { RING_SIZE_MAX = 1024, RING_SEGMENTS_MAX = 256 };

struct ring_chain {
    uint16_t id;          /* head (split) or buffer id (packed): below the ring's size */
    uint16_t descriptors; /* of the ring, for packed */
    unsigned out_count, in_count;
    uint64_t out_bytes, in_bytes;
    struct iovec iov[RING_SEGMENTS_MAX]; /* what the device reads, then what it writes */
};

struct device_ring {
    /* Set before ring_start(). */
    const struct memory_map *memory;
    bool packed, event_idx, indirect;
    uint16_t size;
    void *desc, *driver, *device; /* split: descriptors, avail, used; packed: ring, events */

    uint16_t next_avail, next_used;
    bool avail_wrap, used_wrap; /* packed */
    bool broken;
    uint32_t used_since; /* descriptors used since then */
};

/* Bytes of the three areas. */
size_t ring_desc_bytes(const struct device_ring *v);
size_t ring_driver_bytes(const struct device_ring *v);
size_t ring_device_bytes(const struct device_ring *v);

/* base: as in VHOST_USER_SET_VRING_BASE: split: avail index; packed: avail (bits 0-15) and used
 * (16-31) index, bit 15 of each the wrap counter. */
void ring_start(struct device_ring *v, uint32_t base);
uint32_t ring_base(const struct device_ring *v);

/* 1: a chain; 0: none; -EPROTO: the ring is broken now. */
int ring_pop(struct device_ring *v, struct ring_chain *c);
/* Makes the chains of a split ring by their heads, again: for what was in flight. */
int ring_chain_again(struct device_ring *v, uint16_t head, struct ring_chain *c);
struct vring_packed_desc;
/* The same for a packed ring, by copies of its descriptors: the ring has them no more. */
int ring_chain_of(struct device_ring *v, const struct vring_packed_desc *d, unsigned count,
                  struct ring_chain *c);
/* The device is done with a chain; the driver sees it at once. */
void ring_push(struct device_ring *v, uint16_t id, uint16_t descriptors, uint32_t written);
/* Whether the driver wants to be told of what was pushed since the last call. */
bool ring_wants_call(struct device_ring *v);
/* Whether the driver shall tell of new chains. After switching it on, ring_pop() must be tried
 * once more. */
void ring_set_kicks(struct device_ring *v, bool on);

#endif

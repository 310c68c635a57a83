/*
 * test_fuzz.h - a driver that does anything at any time: what fuzz targets of virtio devices share.
 *
 * The machine and the device live as long as the process; every input begins with all of guest
 * memory zero and a device that was reset and negotiated anew, so an input alone decides what
 * happens. Nothing here waits.
 */
#ifndef VMM_VIRTIO_TEST_FUZZ_H
#define VMM_VIRTIO_TEST_FUZZ_H

#include "devices/virtio/test_driver.h"

struct vfuzz {
    const uint8_t *p, *end; /* the input */
    struct vtest *t;
    uint64_t features; /* what this input negotiates, with or without packed rings */
    bool packed;
    uint64_t memory_top; /* of the machine, before this input's rings */
};

/* The next bytes of the input as a little-endian number; missing ones are 0. */
uint64_t vfuzz_take(struct vfuzz *f, unsigned bytes);
/* Resets, negotiates what two bytes of the input choose of `features`, and starts all queues. */
void vfuzz_begin(struct vfuzz *f, struct vtest *t, uint64_t features, const uint8_t *data,
                 size_t size);
/*
 * One thing that any driver could do, right or wrong: a chain of any form, a byte in a ring, a
 * doorbell, a register of the transport or the device. Eight kinds, by `kind`.
 */
void vfuzz_step(struct vfuzz *f, uint8_t kind);
/*
 * Resets and negotiates plainly. Aborts when the reset does not end: the caller has let all that is
 * in flight end before. The caller then tries that the device still works.
 */
void vfuzz_end(struct vfuzz *f, uint64_t features);

#endif

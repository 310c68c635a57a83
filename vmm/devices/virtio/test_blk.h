/*
 * test_blk.h - what tests and the fuzz target of virtio-blk share: a disk in memory whose requests
 * end when the test says so, and a driver of the block device on top of test_driver.h.
 */
#ifndef VMM_VIRTIO_TEST_BLK_H
#define VMM_VIRTIO_TEST_BLK_H

#include <linux/virtio_blk.h>

#include "devices/virtio/block_backend.h"
#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"

enum { BLK_HEADER = 16, BLK_SECTOR = 512 };

/* A disk in memory. Requests are done inside submit(), or, while `hold`, by memory_disk_release().
 */
struct memory_disk {
    struct block_backend b;
    struct block_info info;
    uint8_t *data;
    bool hold;
    bool inside_queue; /* ends them inside queue(), as a backend without memory does */
    int result;        /* of every request: 0, or a negative errno */
    struct block_request *first, **end;
    unsigned waiting;
    unsigned done[BLOCK_OPS]; /* requests ended, by operation */
    bool freed;
};

void memory_disk_init(struct memory_disk *m, uint64_t capacity);
/* Ends what waits (all of it, or the first) with `result`. */
void memory_disk_release(struct memory_disk *m);
bool memory_disk_release_one(struct memory_disk *m);
void memory_disk_destroy(struct memory_disk *m); /* after the device */

struct blk_rig {
    struct vtest_machine *tm;
    struct virtio_device *d;
    struct virtio_pci *vp;
    struct vtest *t;
};

/* Machine, device and driver, up to DRIVER. backend: the device's afterwards; NULL options: 1
 * queue. */
int blk_rig_open(struct blk_rig *r, struct block_backend *backend,
                 const struct virtio_blk_options *options, struct qz_error *err);
void blk_rig_close(struct blk_rig *r);

/* One request in flight. Its address must not change until it is done. */
struct blk_io {
    uint8_t header[BLK_HEADER], status;
    struct iovec in[2];
    unsigned q;
    int token;
    uint32_t written;
};

/*
 * One request: `data` is written to the disk (OUT, DISCARD, WRITE_ZEROES) or read from it (all
 * others). Returns the status byte, or a negative errno.
 */
int blk_request(struct blk_rig *r, unsigned q, uint32_t type, uint64_t sector, void *data,
                size_t len);
/* The same in two steps, so that several may be in flight. Submitting kicks. */
int blk_submit(struct blk_rig *r, struct blk_io *io, unsigned q, uint32_t type, uint64_t sector,
               void *data, size_t len);
int blk_wait(struct blk_rig *r, struct blk_io *io);

#endif

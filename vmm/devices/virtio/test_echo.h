/*
 * test_echo.h - the smallest virtio device: what it reads it writes back. For tests of rings and
 * transport.
 */
#ifndef VMM_VIRTIO_TEST_ECHO_H
#define VMM_VIRTIO_TEST_ECHO_H

#include "devices/virtio/virtio.h"

enum { ECHO_ID = 60, ECHO_QUEUES = 2, ECHO_CONFIG = 10, ECHO_SEGMENTS = 64, ECHO_FEATURE = 3 };

struct echo {
    struct virtio_device d;
    bool hold;      /* keep chains instead of answering; a reset then waits for echo_release() */
    bool suppress;  /* use notification suppression around serving */
    bool interrupt; /* tell the driver (default) */
    unsigned held;
    struct virtqueue_chain chain[VIRTQUEUE_SIZE_MAX];
    unsigned chain_queue[VIRTQUEUE_SIZE_MAX];
    bool resetting;
    int queue_resetting; /* -1: none */
    unsigned notified, activated, resets, config_writes, freed;
    uint8_t config[ECHO_CONFIG];
};

/* The caller's; ops->free only counts. */
void echo_init(struct echo *e, struct machine *m, struct qz_loop *loop);
/* Answers everything held, and ends a reset that waited. Takes the device's lock. */
void echo_release(struct echo *e);

#endif

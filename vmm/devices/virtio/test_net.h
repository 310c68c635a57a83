/*
 * test_net.h - a network backend for tests of virtio-net: the test is the wire.
 */
#ifndef VMM_VIRTIO_TEST_NET_H
#define VMM_VIRTIO_TEST_NET_H

#include "devices/virtio/net_backend.h"

enum { FAKE_NET_FRAMES = 512 };

struct fake_frame {
    uint8_t *data; /* with its header */
    size_t len;
};

struct fake_net {
    struct net_backend b;
    struct net_client *client;
    struct qz_loop *loop;
    struct qz_work work;
    bool readable, writable; /* callbacks that the next round of the loop makes */
    bool started, paused;
    unsigned starts, stops, pauses, flushes, freed;
    uint64_t negotiated; /* as told by start() */

    struct fake_frame rx[FAKE_NET_FRAMES]; /* waiting for the guest */
    unsigned rx_head, rx_count;
    int rx_error; /* what the next receive() says, once; 0: nothing special */

    unsigned takes; /* frames that send() takes before it says "not now" */
    int refuses;    /* -errno: what it says instead of taking one */
    unsigned sent;
    struct fake_frame last; /* the last one taken; data is NET_BYTES_MAX long */
};

/* The caller's: ops->free only releases frames and counts. */
void fake_net_init(struct fake_net *f, uint64_t features);
/* A frame for the guest: header and `len` bytes after it. Told to the client by the loop. */
void fake_net_arrives(struct fake_net *f, const void *header, const void *frame, size_t len);
void fake_net_takes(struct fake_net *f, unsigned frames); /* from now on; writable() if any */

#endif

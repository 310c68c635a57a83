/*
 * test_net_guest.h - what the tests of virtio-net share: a machine with the device on a fake
 * network, and its driver.
 */
#ifndef VMM_VIRTIO_TEST_NET_GUEST_H
#define VMM_VIRTIO_TEST_NET_GUEST_H

#include <linux/virtio_net.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/net_features.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/test_net.h"

enum { RXQ = 0, TXQ = 1, CTRLQ = 2, POSTED_MAX = 512, MTU = 1500 };

struct posted { /* a receive buffer */
    int token;
    uint8_t *data;
    size_t size;
};

struct net_guest {
    struct vtest_machine *tm;
    struct fake_net fake;
    struct virtio_device *d;
    struct virtio_pci *vp;
    struct vtest *t;
    struct posted posted[POSTED_MAX]; /* the device takes them in the order they were posted */
    unsigned posted_head, posted_count;
};

/* A backend with every offload, and an MTU. given: struct virtio_net_options has it. */
struct net_guest *net_guest_new(const uint8_t mac[6], bool given);
void net_guest_free(struct net_guest *g);
int net_guest_setup(void **state); /* for cmocka: 52:54:00:01:02:03, not given */
int net_guest_teardown(void **state);

/* A new driver, from a reset; returns when the backend knows it. */
void net_guest_negotiate(struct net_guest *g, uint64_t features, bool packed);
/* Whatever is ready on the loop, until nothing is. */
void net_guest_settle(struct net_guest *g);
/* Makes one receive buffer of `size` bytes in `pieces` available, without a kick. */
void net_guest_post(struct net_guest *g, size_t size, unsigned pieces);
/* The next frame with its header into buf (at least NET_BYTES_MAX); returns its bytes. */
size_t net_guest_take(struct net_guest *g, uint8_t *buf, unsigned *buffers);
/* Sends header and `len` bytes in `pieces` descriptors; waits until the device is done with it. */
void net_guest_send(struct net_guest *g, const void *header, const void *frame, size_t len,
                    unsigned pieces);
/* A command; returns the device's answer. */
uint8_t net_guest_command(struct net_guest *g, uint8_t class, uint8_t command, const void *data,
                          size_t len);
bool net_guest_failed(struct net_guest *g); /* NEEDS_RESET */
struct virtio_net_stats net_guest_stats(struct net_guest *g);
void net_guest_pattern(uint8_t *buf, size_t len, unsigned seed);

#endif

/*
 * virtio_net.h - the parts of the network device: virtio_net.c is the device itself and its control
 * queue, virtio_net_rx.c and virtio_net_tx.c move frames.
 *
 * Everything here is called on the loop's thread with the device's lock held, while the backend is
 * started.
 */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include <linux/virtio_net.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/net_backend.h"
#include "devices/virtio/net_features.h"

enum {
    RXQ = 0,
    TXQ = 1,
    CTRLQ = 2,
    NET_QUEUES = 3,
    NET_CHAIN_MAX = 128,   /* buffers in one request: Linux uses up to 19 */
    RX_STAGE_CHAINS = 256, /* buffers merged into one frame */
    RX_STAGE_IOV = 768,    /* with hold, below the 1024 of readv() */
    ETHERNET_HEADER = 14,
};
_Static_assert(sizeof(struct virtio_net_hdr_v1) == NET_HEADER, "VirtIO 1.3 §5.1.6");

/* Receiving; virtio_net_rx.c. */
struct net_rx {
    bool starved; /* the guest has no buffers, the backend is paused */
    /* Buffers popped for the frame at hand; empty between frames. */
    unsigned staged, staged_iov;
    size_t staged_bytes;
    size_t expect; /* bytes of the last frame: so much is staged for the next */
    struct virtqueue_chain chain[RX_STAGE_CHAINS];
    struct iovec iov[RX_STAGE_IOV + 1];
    uint8_t *hold;   /* NET_BYTES_MAX */
    size_t hold_len; /* of the frame that waits in it; 0: none */
};

/* Sending; virtio_net_tx.c. */
struct net_tx {
    bool blocked; /* until the backend is writable */
    struct iovec iov[NET_CHAIN_MAX + 1];
};

struct net {
    struct virtio_device d;
    struct net_client client;
    struct net_backend *backend;
    struct qz_work again, sync;
    unsigned again_queues; /* bit q: queue q has more to do than one batch */
    bool started;          /* the backend was told of this driver */
    bool restart;          /* a reset happened that the backend was not told of */
    struct net_rx rx;
    struct net_tx tx;
    bool news;         /* the driver is to look at its configuration */
    bool mac_given;    /* mac is to be the address, whatever a state that is loaded says */
    uint8_t mac[6];    /* its own; the driver may set another one until a reset */
    uint8_t former[6]; /* virtio_net_get_former_mac() */
    struct virtio_net_config config;
    struct virtio_net_stats stats;
};

/* Serves queue q again, after the loop has served others. */
void net_again(struct net *n, unsigned q);

void net_rx_start(struct net *n); /* for a new driver */
void net_receive(struct net *n);  /* the backend may have frames */
void net_refilled(struct net *n); /* the driver has new receive buffers */

void net_transmit(struct net *n);

#endif

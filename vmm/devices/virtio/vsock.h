/*
 * vsock.h - the parts of the vsock device (VirtIO 1.3 §5.10) and what they share.
 *
 * virtio_vsock.c      the device: queues, packets in and out
 * vsock_connection.c  one stream between a port of the guest and a unix socket of the host
 * vsock_host.c        the host's unix sockets: PATH, where the host connects, and PATH_PORT, where
 * the guest does
 *
 * All of it runs on the device's loop with the device's lock held.
 */
#ifndef VMM_VSOCK_H
#define VMM_VSOCK_H

#include <linux/virtio_vsock.h>
#include <sys/un.h>

#include "devices/virtio/devices.h"

enum {
    VSOCK_CID_HOST = 2,
    VSOCK_BUFFER =
        64 << 10, /* bytes that a connection takes from the guest before the host reads them */
    VSOCK_CONNECTIONS_MAX = 1024, /* those in a handshake included */
    VSOCK_BUCKETS = 256,
    VSOCK_REPLIES_MAX = 64,
    VSOCK_FIRST_HOST_PORT = 1 << 30, /* of connections that the host opened */
};

enum vsock_state {
    VSOCK_HANDSHAKE, /* the host's program has not said which port yet; known to nobody else */
    VSOCK_REQUESTED, /* the guest was asked and has not answered */
    VSOCK_OPEN,
};

/* Packets that a connection owes the guest, besides data. */
enum {
    OWES_REQUEST = 1 << 0,
    OWES_RESPONSE = 1 << 1,
    OWES_CREDIT = 1 << 2,
    OWES_SHUTDOWN = 1 << 3, /* of our sending side */
    OWES_RESET = 1 << 4,    /* and then it is gone */
};

struct vsock;

struct vsock_connection {
    struct vsock *vsock;
    struct vsock_connection *hash_next, *next, **pprev; /* all connections */
    struct vsock_connection *ready_next;
    bool ready; /* in the list of those that have something for the guest */
    enum vsock_state state;
    uint32_t guest_port, host_port;
    struct qz_watch watch; /* .fd: the unix socket */
    unsigned owes;

    /* Guest to host: bytes taken and not written yet. */
    uint8_t *buffer; /* VSOCK_BUFFER, from the first byte on */
    uint32_t head, held;
    uint32_t forwarded, forwarded_told; /* bytes written to the socket; as of the last packet */
    bool guest_done;                    /* the guest sends no more */

    /* Host to guest. */
    uint32_t sent, peer_room, peer_forwarded;
    bool readable;  /* as far as we know */
    bool host_done; /* the host's program sends no more, or the guest takes no more */
};

struct vsock {
    struct virtio_device d;
    uint64_t cid;
    struct virtio_vsock_config config;

    struct qz_watch listener;
    struct sockaddr_un address; /* of the listener; removed at the end */
    bool bound;

    struct vsock_connection *all, *bucket[VSOCK_BUCKETS], *ready_head, **ready_tail;
    unsigned connections;
    uint32_t next_host_port;

    /* Resets for packets that belong to no connection. */
    struct virtio_vsock_hdr reply[VSOCK_REPLIES_MAX];
    unsigned reply_head, replies;
    struct qz_work pump, ending;
};

/* ---- virtio_vsock.c ---- */

/* The connection has something for the guest: it is asked for it when there is a buffer. */
void vsock_ready(struct vsock_connection *c);

/* ---- vsock_connection.c ---- */

/* Takes fd. NULL: too many, or no memory; fd is closed then. */
struct vsock_connection *vsock_connection_new(struct vsock *v, int fd, enum vsock_state state);
void vsock_connection_free(struct vsock_connection *c);
void vsock_connection_name(struct vsock_connection *c, uint32_t guest_port,
                           uint32_t host_port); /* makes it findable */
struct vsock_connection *vsock_connection_find(struct vsock *v, uint32_t guest_port,
                                               uint32_t host_port);
/* Which events of the socket it waits for now. */
void vsock_connection_watch(struct vsock_connection *c);
void vsock_connection_reset(struct vsock_connection *c); /* tells the guest and closes */

/* A packet of the guest's for it; payload: h->len bytes of the chain behind the header. */
void vsock_connection_packet(struct vsock_connection *c, const struct virtio_vsock_hdr *h,
                             const struct virtqueue_chain *chain);
/*
 * Fills a buffer of the guest's. Returns the bytes used, 0 when there was nothing to say after all.
 * *again: there may be more. *gone: the connection was freed.
 */
size_t vsock_connection_fill(struct vsock_connection *c, const struct virtqueue_chain *chain,
                             bool *again, bool *gone);

/* ---- vsock_host.c ---- */

int vsock_host_listen(struct vsock *v, const char *path, struct qz_error *err);
void vsock_host_close(struct vsock *v);
/* Connects to the unix socket of a port; -errno. */
int vsock_host_connect(struct vsock *v, uint32_t port);
/* The host's program said something during the handshake. */
void vsock_host_handshake(struct vsock_connection *c);
/* The guest accepted. */
void vsock_host_accepted(struct vsock_connection *c);

#endif

/*
 * net_backend.h - the seam under virtio-net: where frames go to and come from.
 *
 * A frame is a struct virtio_net_hdr_v1 (12 bytes) followed by an Ethernet frame, in both
 * directions. The header's num_buffers means nothing to a backend; its offload fields are used only
 * as far as start() was told that both sides agreed to them.
 *
 * Threads: attach() before the loop runs or on its thread, free() when it no longer runs, all else
 * on the loop's thread. The client's callbacks come on that thread too, and never from inside a
 * call into the backend (the client holds its lock there, and takes it in the callbacks).
 *
 * Backpressure, host to guest: readable() says that frames may be there; the client calls receive()
 * until that says 0, or stops early and comes back by itself. A client whose guest has no buffers
 * calls pause(true): the backend then keeps quiet, keeps a bounded number of frames, and lets its
 * own source wait or drop, as a wire would. pause(false) before the next receive().
 *
 * Backpressure, guest to host: send() returns 0 when the frame was not taken; the client keeps it
 * in its ring and sends nothing more until writable(). A frame that was taken may still be lost.
 */
#ifndef VMM_NET_BACKEND_H
#define VMM_NET_BACKEND_H

#include <netinet/in.h>
#include <queztl/loop.h>
#include <sys/uio.h>

enum {
    NET_HEADER = 12,       /* struct virtio_net_hdr_v1 */
    NET_FRAME_MAX = 65562, /* the largest frame without header: 64 KiB of IP with Ethernet, VLAN
                              tags and room to spare (VirtIO 1.3 §5.1.6.3.1: 65550 at least) */
    NET_BYTES_MAX = NET_HEADER + NET_FRAME_MAX,
};

struct net_backend;

/* Embedded in the device that uses the backend. */
struct net_client {
    void (*readable)(struct net_client *c);
    void (*writable)(struct net_client *c);
};

struct net_backend_ops {
    /* Once. Nothing is called back before start(). */
    int (*attach)(struct net_backend *b, struct qz_loop *loop, struct net_client *client,
                  struct qz_error *err);
    /*
     * A driver is there: frames flow. features: VirtIO feature bits as negotiated, for the
     * offloads. Not paused; frames from before are dropped. May be called again after stop().
     */
    void (*start)(struct net_backend *b, uint64_t features);
    void (*stop)(struct net_backend *b); /* no callbacks and no frames until start() */
    /*
     * One frame, `bytes` in all (NET_HEADER to NET_BYTES_MAX) in at most 1024 parts, which may
     * change under the reader. 1: taken. 0: not now. -errno: refused (malformed, link down):
     * dropped.
     */
    int (*send)(struct net_backend *b, const struct iovec *iov, unsigned count, size_t bytes);
    /* After a batch of sends. May be NULL. */
    void (*flush)(struct net_backend *b);
    /*
     * The next frame into iov, which adds up to NET_BYTES_MAX or more, in at most 1024 parts.
     * Returns its bytes (header included), 0 when there is none, -errno when it was lost.
     */
    ssize_t (*receive)(struct net_backend *b, const struct iovec *iov, unsigned count);
    void (*pause)(struct net_backend *b, bool paused);
    void (*free)(struct net_backend *b);
};

struct net_backend {
    const struct net_backend_ops *ops;
    uint64_t
        features; /* VirtIO network feature bits that it can honour: checksum and segmentation */
    const char *label; /* for messages: "tap tap0"; the backend's */
};

/*
 * A TAP device of the host, opened by name; it must exist (`ip tuntap add NAME mode tap user USER`)
 * and belong to this user, or the caller be privileged. No access to the network is needed later
 * but the descriptor that is open then.
 */
int net_tap_open(struct net_backend **b, const char *name, struct qz_error *err);

struct net_user_forward {
    bool udp;
    struct in_addr host; /* where to listen; 0: 127.0.0.1 only */
    uint16_t host_port, guest_port;
};

struct net_user_options {
    const struct net_user_forward *forward; /* copied */
    unsigned forwards;
    bool restricted;       /* nothing but the gateway's own services: no way out for the guest */
    bool no_host_loopback; /* 10.0.2.2 does not lead to the host's 127.0.0.1 */
    const char *hostname;  /* told by DHCP; NULL: none */
};

/*
 * A network of the guest's own by libslirp: 10.0.2.0/24, gateway 10.0.2.2, DNS 10.0.2.3, addresses
 * by DHCP from 10.0.2.15. It needs no privileges: what the guest connects to, this process connects
 * to.
 *
 * For a jail: the loop's thread makes IPv4 sockets, and libslirp looks at /etc/resolv.conf when the
 * guest asks 10.0.2.3 (that file must stay readable). Forwarded ports are bound here. SIGPIPE must
 * be ignored by the process.
 */
int net_user_open(struct net_backend **b, const struct net_user_options *options,
                  struct qz_error *err);

#endif

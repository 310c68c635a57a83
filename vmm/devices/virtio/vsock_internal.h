/*
 * vsock_internal.h - what the files of the vsock device share.
 *
 *     virtio_vsock.c      the device: its queues, and packets as bytes
 *     vsock_packet.c      what a packet of the guest does to a connection, and which one it gets
 * next vsock_connection.c  connections: the table, the host's socket of each, credit vsock_host.c
 * host sockets: PATH_P for the guest, PATH and "CONNECT P" for the host
 *
 * Everything here runs on the device's loop with the device's lock held.
 */
#ifndef VMM_VSOCK_INTERNAL_H
#define VMM_VSOCK_INTERNAL_H

#include <linux/virtio_vsock.h>
#include <sys/queue.h>
#include <sys/un.h>

#include "devices/virtio/devices.h"

enum {
    VSOCK_HOST_CID = 2,
    VSOCK_CONNECTIONS_MAX = 1024,
    VSOCK_STRAYS_MAX = 64, /* resets owed for packets without a connection */
    VSOCK_BUFFER =
        256 << 10, /* bytes kept for a host that does not take them: the guest's credit */
    VSOCK_DATA_MAX = 64 << 10, /* bytes in one packet to the guest */
    VSOCK_SEGMENTS = 128,
    VSOCK_BUCKETS = 256,
    VSOCK_HEADER = sizeof(struct virtio_vsock_hdr),
};
#define VSOCK_PATIENCE_NS 10000000000ll /* for an answer that must come */

/* Packets that a connection owes to the guest. */
enum vsock_owed {
    OWE_REQUEST = 1,
    OWE_RESPONSE = 2,
    OWE_RESET = 4,
    OWE_SHUTDOWN = 8,
    OWE_CREDIT_UPDATE = 16,
    OWE_CREDIT_REQUEST = 32,
};

enum vsock_state {
    VSOCK_HANDSHAKE,  /* a host program has connected to PATH and not said where to; the guest knows
                         nothing */
    VSOCK_CONNECTING, /* the guest was asked (OP_REQUEST) */
    VSOCK_ESTABLISHED,
    VSOCK_CLOSED, /* over for the guest, but for a reset it is owed; the host may still take what
                     was sent */
};

struct vsock;

struct vsock_connection {
    struct vsock *vsock;
    enum vsock_state state;
    uint32_t host_port, guest_port;
    LIST_ENTRY(vsock_connection) all;
    LIST_ENTRY(vsock_connection) bucket;
    TAILQ_ENTRY(vsock_connection) ready;
    bool hashed;      /* in a bucket: the port pair is taken */
    bool queued;      /* in the ready list: something may be sent to the guest */
    unsigned owed;    /* enum vsock_owed */
    int64_t deadline; /* qz_now_ns(); 0: none */

    char line[24]; /* of the handshake */
    unsigned line_len;

    int fd; /* the host's socket; -1: closed */
    struct qz_watch watch;
    bool readable; /* data or the end may be there to read; not watched for meanwhile */
    bool
        hung_up; /* epoll said so: nothing moves on the socket any more but what is there to read */
    bool host_done;          /* the host sends no more */
    bool host_deaf;          /* the host takes no more: what the guest sends is dropped */
    bool guest_done;         /* the guest sends no more (SHUTDOWN_SEND) */
    bool guest_deaf;         /* the guest takes no more (SHUTDOWN_RCV) */
    uint32_t shutdown_flags; /* told or to be told to the guest */

    /* To the guest (§5.10.6.3). */
    uint32_t guest_alloc, guest_fwd; /* the guest's word */
    uint32_t sent;
    bool credit_asked;
    /* From the guest: `received` - `forwarded` bytes lie in the ring `buffer`, never more than
     * VSOCK_BUFFER. */
    uint8_t *buffer; /* NULL until it is needed */
    uint32_t head, buffered;
    uint32_t forwarded, forwarded_told;
};

struct vsock_stray {
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct vsock {
    struct virtio_device d;
    struct virtio_vsock_config config;
    uint64_t known_cid; /* as which the driver speaks until it has looked again */
    char *path;
    bool bound; /* the socket file is ours */
    struct qz_watch listener;
    int listen_fd;
    struct qz_timer timer; /* armed while a deadline is set or the listener waits for descriptors */
    struct qz_work again, reset_work, disconnect_work;
    bool resetting;
    bool tell_reset;        /* an event for the guest: all connections are gone */
    int64_t held_until;     /* qz_now_ns(); until then no host program is let in, see there */
    unsigned event_buffers; /* that the guest had left when it was told; more: it has seen it */

    unsigned connections, connections_max;
    uint32_t next_port; /* for connections of the host */
    LIST_HEAD(, vsock_connection) all;
    LIST_HEAD(, vsock_connection) bucket[VSOCK_BUCKETS];
    TAILQ_HEAD(, vsock_connection) ready;
    struct vsock_stray stray[VSOCK_STRAYS_MAX];
    unsigned stray_head, stray_count;
};

/* One packet for or from the guest: the header in host order. */
struct vsock_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};

/* ---- virtio_vsock.c ---- */
bool vsock_held(const struct vsock *v);
/* Sends what there is to send while the guest has buffers, a round of it. */
void vsock_flush(struct vsock *v);
/* The part of `in` behind `skip` bytes, at most `limit` bytes of it; returns the number of
 * elements. */
unsigned vsock_slice(const struct iovec *in, unsigned count, size_t skip, size_t limit,
                     struct iovec *out);

/* ---- vsock_packet.c ---- */
/* data: the payload, as long as p->len says (which the caller has checked). */
void vsock_packet_from_guest(struct vsock *v, const struct vsock_packet *p,
                             const struct iovec *data, unsigned count);
/*
 * Makes the connection's next packet: *p, and payload in `data` (`room` bytes in `count` elements).
 * False: there is none after all.
 */
bool vsock_packet_to_guest(struct vsock_connection *c, struct vsock_packet *p,
                           const struct iovec *data, unsigned count, size_t room);

/* ---- vsock_connection.c ---- */
struct vsock_connection *vsock_connection_new(struct vsock *v,
                                              int fd);    /* takes fd; NULL: no memory, fd closed */
void vsock_connection_hash(struct vsock_connection *c);   /* its ports are known */
void vsock_connection_unhash(struct vsock_connection *c); /* the guest knows it no more */
struct vsock_connection *vsock_connection_find(struct vsock *v, uint32_t host_port,
                                               uint32_t guest_port);
void vsock_connection_free(struct vsock_connection *c);
/* Ends it at once, with a reset for the guest if it knows of it. Call vsock_connection_settle()
 * afterwards. */
void vsock_connection_kill(struct vsock_connection *c);
/* After any change: queues it for sending, watches what is to be watched, frees it when it is over.
 */
void vsock_connection_settle(struct vsock_connection *c);
bool vsock_connection_has_output(const struct vsock_connection *c);
void vsock_connection_set_deadline(struct vsock_connection *c);
uint32_t
vsock_connection_credit(const struct vsock_connection *c); /* bytes that the guest will take */

/* Gives the guest's bytes to the host, or keeps them. False: the guest sends more than its credit.
 */
bool vsock_host_write(struct vsock_connection *c, const struct iovec *data, unsigned count,
                      uint32_t len);
/* Reads from the host into `data`: bytes, 0 when there is nothing (or the end, which is noted). */
size_t vsock_host_read(struct vsock_connection *c, const struct iovec *data, unsigned count);
/* The guest sends no more: so is told the host, once it has everything. */
void vsock_host_finish(struct vsock_connection *c);
void vsock_timer_arm(struct vsock *v); /* vsock_sweep() in a second */
/* Ends what has waited too long. */
void vsock_sweep(struct vsock *v, int64_t now);

/* ---- vsock_host.c ---- */
int vsock_listen(struct vsock *v, const char *path, struct qz_error *err);
void vsock_unlisten(struct vsock *v);
void vsock_listener_resume(struct vsock *v);           /* after a connection has ended */
int vsock_connect(struct vsock *v, uint32_t port);     /* to PATH_port: a descriptor or -errno */
void vsock_handshake(struct vsock_connection *c);      /* the host has written something */
bool vsock_handshake_done(struct vsock_connection *c); /* the guest has accepted: tells the host */

#endif

/*
 * vsock_packet.c - what packets mean (VirtIO 1.3 §5.10.6): those of the guest, and the next one to
 * it.
 *
 * A connection is known by its pair of ports, for there is one host (context id 2) and one guest. A
 * packet that fits no connection is answered by a reset, but for a reset. What a guest may get
 * wrong inside a connection - data before it stands, data after its end, more than its credit -
 * ends that connection.
 */
#include <sys/socket.h>

#include "devices/virtio/vsock_internal.h"

QZ_SYSCALLS(io, "shutdown");

static void stray(struct vsock *v, const struct vsock_packet *p)
{
    if (p->op == VIRTIO_VSOCK_OP_RST)
        return;
    /* There is room: no packet is taken from the guest otherwise. */
    v->stray[(v->stray_head + v->stray_count++) % VSOCK_STRAYS_MAX] =
        (struct vsock_stray){p->dst_port, p->src_port, p->type};
}

static void take_credit(struct vsock_connection *c, const struct vsock_packet *p)
{
    c->guest_alloc = p->buf_alloc;
    c->guest_fwd = p->fwd_cnt;
    if (vsock_connection_credit(c))
        c->credit_asked = false;
}

/* The guest connects to a host port. */
static void request(struct vsock *v, const struct vsock_packet *p)
{
    struct vsock_connection *c = NULL;
    int fd = v->connections < v->connections_max ? vsock_connect(v, p->dst_port) : -EMFILE;

    if (fd >= 0)
        c = vsock_connection_new(v, fd);
    if (!c) {
        stray(v, p);
        return;
    }
    c->host_port = p->dst_port;
    c->guest_port = p->src_port;
    c->state = VSOCK_ESTABLISHED;
    c->owed = OWE_RESPONSE;
    take_credit(c, p);
    vsock_connection_hash(c);
    vsock_connection_settle(c);
}

/* The guest accepts a connection that a host program has asked for. */
static void response(struct vsock_connection *c)
{
    if (c->state != VSOCK_CONNECTING || c->owed & OWE_REQUEST) {
        vsock_connection_kill(c);
        return;
    }
    c->state = VSOCK_ESTABLISHED;
    c->deadline = 0;
    if (!vsock_handshake_done(c))
        vsock_connection_kill(c);
}

/* §5.10.6.5. A reset after an orderly end lets the host have what is still kept for it. */
static void reset(struct vsock_connection *c)
{
    bool orderly = c->guest_done && c->buffered;

    vsock_connection_unhash(c);
    c->owed = 0;
    c->deadline = 0;
    if (!orderly)
        vsock_connection_kill(c);
    c->state = VSOCK_CLOSED;
    c->owed = 0;
}

static void guest_shutdown(struct vsock_connection *c, uint32_t flags)
{
    if (c->state != VSOCK_ESTABLISHED) {
        vsock_connection_kill(c);
        return;
    }
    if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV && !c->guest_deaf) {
        c->guest_deaf = true;
        if (c->fd >= 0)
            shutdown(c->fd, SHUT_RD);
    }
    if (flags & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->guest_done)
        vsock_host_finish(c);
    if (!c->guest_deaf || !c->guest_done)
        return;
    if (!c->buffered) {
        vsock_connection_kill(c);
        return;
    }
    /* The guest may forget it now; the host still takes what is kept. */
    c->state = VSOCK_CLOSED;
    c->owed = OWE_RESET;
    c->deadline = 0;
}

static void deliver(struct vsock_connection *c, const struct vsock_packet *p,
                    const struct iovec *data, unsigned count)
{
    if (c->state != VSOCK_ESTABLISHED || c->guest_done || !vsock_host_write(c, data, count, p->len))
        vsock_connection_kill(c);
}

void vsock_packet_from_guest(struct vsock *v, const struct vsock_packet *p,
                             const struct iovec *data, unsigned count)
{
    struct vsock_connection *c;

    if (p->src_cid == v->config.guest_cid)
        v->known_cid = v->config.guest_cid;
    if (p->src_cid != v->known_cid || p->dst_cid != VSOCK_HOST_CID)
        return; /* nobody to answer for */
    c = p->type == VIRTIO_VSOCK_TYPE_STREAM ? vsock_connection_find(v, p->dst_port, p->src_port)
                                            : NULL;
    if (!c) {
        if (p->type == VIRTIO_VSOCK_TYPE_STREAM && p->op == VIRTIO_VSOCK_OP_REQUEST)
            request(v, p);
        else
            stray(v, p);
        return;
    }
    if (c->state == VSOCK_CLOSED && p->op != VIRTIO_VSOCK_OP_RST)
        return; /* its reset is on the way */
    take_credit(c, p);
    switch (p->op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
        response(c);
        break;
    case VIRTIO_VSOCK_OP_RST:
        reset(c);
        break;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        guest_shutdown(c, p->flags);
        break;
    case VIRTIO_VSOCK_OP_RW:
        deliver(c, p, data, count);
        break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        c->owed |= OWE_CREDIT_UPDATE;
        break;
    default: /* a second request included */
        vsock_connection_kill(c);
    }
    vsock_connection_settle(c);
}

/* ---- to the guest
 * ---------------------------------------------------------------------------------- */

static bool pay(struct vsock_connection *c, enum vsock_owed debt)
{
    bool owed = c->owed & debt;

    c->owed &= ~(unsigned)debt;
    return owed;
}

bool vsock_packet_to_guest(struct vsock_connection *c, struct vsock_packet *p,
                           const struct iovec *data, unsigned count, size_t room)
{
    *p = (struct vsock_packet){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = c->vsock->config.guest_cid,
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .buf_alloc = VSOCK_BUFFER,
    };
    if (pay(c, OWE_RESET)) {
        p->op = VIRTIO_VSOCK_OP_RST;
        vsock_connection_unhash(c);
    } else if (pay(c, OWE_REQUEST)) {
        p->op = VIRTIO_VSOCK_OP_REQUEST;
    } else if (pay(c, OWE_RESPONSE)) {
        p->op = VIRTIO_VSOCK_OP_RESPONSE;
    } else if (!c->owed || c->owed == OWE_CREDIT_UPDATE) { /* data tells credit too */
        struct iovec part[VSOCK_SEGMENTS];
        size_t most =
            QZ_MIN(QZ_MIN(room, (size_t)VSOCK_DATA_MAX), (size_t)vsock_connection_credit(c));

        if (most && c->readable)
            p->len = (uint32_t)vsock_host_read(c, part, vsock_slice(data, count, 0, most, part));
        if (p->len)
            p->op = VIRTIO_VSOCK_OP_RW;
        else if (c->owed & OWE_RESET) /* reading failed */
            return vsock_packet_to_guest(c, p, data, count, room);
        else if (c->owed & OWE_CREDIT_UPDATE)
            p->op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
        else
            return false;
    } else if (pay(c, OWE_CREDIT_REQUEST)) {
        p->op = VIRTIO_VSOCK_OP_CREDIT_REQUEST;
    } else {
        pay(c, OWE_SHUTDOWN);
        p->op = VIRTIO_VSOCK_OP_SHUTDOWN;
        p->flags = c->shutdown_flags;
    }
    p->fwd_cnt = c->forwarded;
    c->forwarded_told = c->forwarded;
    pay(c, OWE_CREDIT_UPDATE);
    return true;
}

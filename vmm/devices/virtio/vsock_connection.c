/*
 * vsock_connection.c - one stream between the guest and a unix socket (vsock.h).
 *
 * Guest to host: bytes come within the credit that we gave (VSOCK_BUFFER) and wait in the
 * connection's buffer until the socket takes them; what it took is credit again. Host to guest:
 * nothing waits here; the socket is read straight into the guest's buffers, as far as the guest's
 * credit goes, and left alone when there is none.
 */
#include <sys/socket.h>

#include "devices/virtio/vsock.h"

QZ_SYSCALLS(io, "sendmsg recvmsg shutdown close");

enum { FILL_MAX = 64 << 10, SEGMENTS = 64 };

/* ---- life
 * ---------------------------------------------------------------------------------------------------
 */

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
    return (guest_port * 31 + host_port) % VSOCK_BUCKETS;
}

struct vsock_connection *vsock_connection_new(struct vsock *v, int fd, enum vsock_state state)
{
    struct vsock_connection *c =
        v->connections < VSOCK_CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!c) {
        close(fd);
        return NULL;
    }
    c->vsock = v;
    c->watch.fd = fd;
    c->state = state;
    c->next = v->all;
    c->pprev = &v->all;
    if (v->all)
        v->all->pprev = &c->next;
    v->all = c;
    v->connections++;
    return c;
}

static void leave_ready_list(struct vsock_connection *c)
{
    struct vsock *v = c->vsock;
    struct vsock_connection **p = &v->ready_head;

    if (!c->ready)
        return;
    while (*p != c)
        p = &(*p)->ready_next;
    *p = c->ready_next;
    if (!*p)
        v->ready_tail = p;
    c->ready = false;
}

static void leave_bucket(struct vsock_connection *c)
{
    struct vsock_connection **p = &c->vsock->bucket[bucket_of(c->guest_port, c->host_port)];

    while (*p && *p != c)
        p = &(*p)->hash_next;
    if (*p)
        *p = c->hash_next;
}

void vsock_connection_free(struct vsock_connection *c)
{
    leave_ready_list(c);
    leave_bucket(c);
    *c->pprev = c->next;
    if (c->next)
        c->next->pprev = c->pprev;
    c->vsock->connections--;
    qz_loop_remove(&c->watch);
    close(c->watch.fd);
    free(c->buffer);
    free(c);
}

void vsock_connection_name(struct vsock_connection *c, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_connection **bucket = &c->vsock->bucket[bucket_of(guest_port, host_port)];

    c->guest_port = guest_port;
    c->host_port = host_port;
    c->hash_next = *bucket;
    *bucket = c;
}

struct vsock_connection *vsock_connection_find(struct vsock *v, uint32_t guest_port,
                                               uint32_t host_port)
{
    struct vsock_connection *c = v->bucket[bucket_of(guest_port, host_port)];

    while (c && (c->guest_port != guest_port || c->host_port != host_port))
        c = c->hash_next;
    return c;
}

void vsock_connection_reset(struct vsock_connection *c)
{
    c->owes = OWES_RESET;
    c->host_done = true;
    c->held = 0;
    vsock_connection_watch(c);
    vsock_ready(c);
}

/* ---- the socket
 * --------------------------------------------------------------------------------------------- */

static uint32_t guest_credit(const struct vsock_connection *c)
{
    const uint32_t in_flight = c->sent - c->peer_forwarded;

    return in_flight < c->peer_room ? c->peer_room - in_flight : 0;
}

static bool wants_to_read(const struct vsock_connection *c)
{
    return c->state == VSOCK_HANDSHAKE ||
           (c->state == VSOCK_OPEN && !c->host_done && !c->readable && guest_credit(c) > 0);
}

/* Both directions are over: the guest is told by a reset, which is how it knows that all arrived
 * (§5.10.6.5). */
static void end_when_done(struct vsock_connection *c)
{
    if (c->guest_done && c->host_done && c->held == 0 && !(c->owes & OWES_SHUTDOWN))
        vsock_connection_reset(c);
}

static void write_out(struct vsock_connection *c)
{
    while (c->held) {
        const size_t run = QZ_MIN(c->held, VSOCK_BUFFER - c->head);
        const ssize_t n = send(c->watch.fd, c->buffer + c->head, run, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return vsock_connection_reset(c);
        c->head = (c->head + (uint32_t)n) % VSOCK_BUFFER;
        c->held -= (uint32_t)n;
        c->forwarded += (uint32_t)n;
    }
    if (!c->held && c->guest_done)
        shutdown(c->watch.fd, SHUT_WR);
    if (c->forwarded - c->forwarded_told >= VSOCK_BUFFER / 2) {
        c->owes |= OWES_CREDIT;
        vsock_ready(c);
    }
    end_when_done(c);
}

static void on_socket(struct qz_watch *w, uint32_t events)
{
    struct vsock_connection *c = QZ_CONTAINER_OF(w, struct vsock_connection, watch);
    QZ_LOCKED(&c->vsock->d.lock);

    if (c->state == VSOCK_HANDSHAKE)
        return vsock_host_handshake(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        c->readable = true;
        vsock_ready(c);
    }
    if (events & (EPOLLOUT | EPOLLERR))
        write_out(c);
    vsock_connection_watch(c);
}

void vsock_connection_watch(struct vsock_connection *c)
{
    const uint32_t events = (wants_to_read(c) ? EPOLLIN : 0) | (c->held ? EPOLLOUT : 0);
    int r = 0;

    /* Without events a watch would still report hang-ups, over and over. */
    if (!events)
        qz_loop_remove(&c->watch);
    else if (!c->watch.loop)
        r = qz_loop_add(c->vsock->d.loop, &c->watch, c->watch.fd, events, on_socket);
    else if (c->watch.events != events)
        r = qz_loop_modify(&c->watch, events);
    if (r < 0)
        qz_guest_warn("vsock: cannot wait for a socket: %s", strerror(-r));
}

/* ---- from the guest
 * ----------------------------------------------------------------------------------------- */

static void take_data(struct vsock_connection *c, const struct virtqueue_chain *chain, uint32_t len)
{
    if (c->guest_done || len > VSOCK_BUFFER - c->held)
        return vsock_connection_reset(c); /* beyond its credit */
    if (!c->buffer && !(c->buffer = malloc(VSOCK_BUFFER)))
        return vsock_connection_reset(c);
    for (uint32_t done = 0; done < len;) {
        const uint32_t at = (c->head + c->held) % VSOCK_BUFFER;
        const uint32_t run = QZ_MIN(len - done, VSOCK_BUFFER - at);

        virtqueue_read(chain, sizeof(struct virtio_vsock_hdr) + done, c->buffer + at, run);
        c->held += run;
        done += run;
    }
    write_out(c);
}

static void take_shutdown(struct vsock_connection *c, uint32_t flags)
{
    if (flags & VIRTIO_VSOCK_SHUTDOWN_SEND)
        c->guest_done = true;
    if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        shutdown(c->watch.fd, SHUT_RD);
        c->host_done = true;
        c->owes &= ~(unsigned)OWES_SHUTDOWN;
    }
    write_out(c);
}

void vsock_connection_packet(struct vsock_connection *c, const struct virtio_vsock_hdr *h,
                             const struct virtqueue_chain *chain)
{
    if (c->owes & OWES_RESET)
        return; /* it is over; the guest learns it soon */
    c->peer_room = le32toh(h->buf_alloc);
    c->peer_forwarded = le32toh(h->fwd_cnt);
    switch (le16toh(h->op)) {
    case VIRTIO_VSOCK_OP_RESPONSE:
        if (c->state != VSOCK_REQUESTED)
            return vsock_connection_reset(c);
        vsock_host_accepted(c);
        break;
    case VIRTIO_VSOCK_OP_RST:
        return vsock_connection_free(c);
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        take_shutdown(c, le32toh(h->flags));
        break;
    case VIRTIO_VSOCK_OP_RW:
        if (c->state != VSOCK_OPEN)
            return vsock_connection_reset(c);
        take_data(c, chain, le32toh(h->len));
        break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        c->owes |= OWES_CREDIT;
        break;
    default: /* a second request included */
        return vsock_connection_reset(c);
    }
    if (c->owes || (c->readable && guest_credit(c)))
        vsock_ready(c);
    vsock_connection_watch(c);
}

/* ---- to the guest
 * ------------------------------------------------------------------------------------------- */

static size_t put_header(struct vsock_connection *c, const struct virtqueue_chain *chain,
                         uint16_t op, uint32_t len, uint32_t flags)
{
    const struct virtio_vsock_hdr h = {
        .src_cid = htole64(VSOCK_CID_HOST),
        .dst_cid = htole64(c->vsock->cid),
        .src_port = htole32(c->host_port),
        .dst_port = htole32(c->guest_port),
        .len = htole32(len),
        .type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
        .op = htole16(op),
        .flags = htole32(flags),
        .buf_alloc = htole32(VSOCK_BUFFER),
        .fwd_cnt = htole32(c->forwarded),
    };

    c->forwarded_told = c->forwarded;
    return virtqueue_write(chain, 0, &h, sizeof(h));
}

/* The writable part of a chain behind the header, at most `most` bytes. */
static unsigned payload_parts(const struct virtqueue_chain *chain, size_t most, struct iovec *part)
{
    size_t skip = sizeof(struct virtio_vsock_hdr);
    unsigned n = 0;

    for (unsigned i = chain->out_count; i < chain->out_count + chain->in_count && most; i++) {
        const size_t cut = QZ_MIN(skip, chain->iov[i].iov_len),
                     len = QZ_MIN(chain->iov[i].iov_len - cut, most);

        skip -= cut;
        if (!len)
            continue;
        part[n++] = (struct iovec){(uint8_t *)chain->iov[i].iov_base + cut, len};
        most -= len;
    }
    return n;
}

static size_t fill_data(struct vsock_connection *c, const struct virtqueue_chain *chain)
{
    const size_t most = QZ_MIN((size_t)FILL_MAX, (size_t)guest_credit(c));
    struct iovec part[SEGMENTS];
    struct msghdr message = {.msg_iov = part, .msg_iovlen = payload_parts(chain, most, part)};
    ssize_t n;

    n = recvmsg(c->watch.fd, &message, 0);
    if (n > 0) {
        c->sent += (uint32_t)n;
        return put_header(c, chain, VIRTIO_VSOCK_OP_RW, (uint32_t)n, 0) + (size_t)n;
    }
    c->readable = false;
    if (n < 0 && errno == EAGAIN)
        return 0;
    c->host_done = true;
    c->owes |= n == 0 ? OWES_SHUTDOWN : OWES_RESET;
    return 0;
}

static size_t fill_owed(struct vsock_connection *c, const struct virtqueue_chain *chain, bool *gone)
{
    static const struct {
        unsigned owes;
        uint16_t op;
        uint32_t flags;
    } packets[] = {
        {OWES_RESET, VIRTIO_VSOCK_OP_RST, 0},
        {OWES_REQUEST, VIRTIO_VSOCK_OP_REQUEST, 0},
        {OWES_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE, 0},
        {OWES_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0},
        {OWES_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND},
    };
    size_t n = 0;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(packets); i++) {
        if (!(c->owes & packets[i].owes))
            continue;
        c->owes &= ~packets[i].owes;
        n = put_header(c, chain, packets[i].op, 0, packets[i].flags);
        if (packets[i].op == VIRTIO_VSOCK_OP_RST) {
            vsock_connection_free(c);
            *gone = true;
        } else if (packets[i].op == VIRTIO_VSOCK_OP_SHUTDOWN) {
            end_when_done(c);
        }
        return n;
    }
    return 0;
}

/* The guest's credit alone decides when data that is there goes; each of its packets brings news of
 * it. */
static bool has_data(const struct vsock_connection *c)
{
    return c->state == VSOCK_OPEN && c->readable && !c->host_done && guest_credit(c) > 0;
}

size_t vsock_connection_fill(struct vsock_connection *c, const struct virtqueue_chain *chain,
                             bool *again, bool *gone)
{
    size_t n = 0;

    *gone = false;
    if (!c->owes && has_data(c))
        n = fill_data(c, chain);
    if (!n && c->owes)
        n = fill_owed(c, chain, gone);
    if (*gone)
        return n;
    *again = c->owes || has_data(c);
    vsock_connection_watch(c);
    return n;
}

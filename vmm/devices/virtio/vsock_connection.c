/*
 * vsock_connection.c - connections of the vsock device: the table, and the host's end of each.
 *
 * Theory of operation. Both directions are pulled by who receives. Towards the guest nothing is
 * kept here: the host's socket is read straight into the guest's buffer, as much as the guest's
 * credit allows, so a guest that does not read leaves the bytes with the host's kernel. From the
 * guest, bytes go straight to the host's socket, and what it does not take is kept in a ring of
 * VSOCK_BUFFER bytes, which is the credit that the guest was given; a guest that sends more has its
 * connection reset.
 *
 * The host's socket is watched for what can be acted on and nothing else: epoll reports a hang-up
 * always, so a socket that nothing can be done about leaves the loop until something can.
 */
#include <sys/socket.h>

#include "devices/virtio/vsock_internal.h"

QZ_SYSCALLS(io, "recvmsg sendmsg shutdown close epoll_ctl");

/* Told when this much was taken from the buffer: often enough that the guest never waits in vain
 * (§5.10.6.3). */
enum { CREDIT_STEP = VSOCK_BUFFER / 4 };

/* ---- table
 * ---------------------------------------------------------------------------------------- */

static unsigned bucket_of(uint32_t host_port, uint32_t guest_port)
{
    return ((host_port * 0x9e3779b1u) ^ (guest_port * 0x85ebca6bu)) >> 24;
}

struct vsock_connection *vsock_connection_find(struct vsock *v, uint32_t host_port,
                                               uint32_t guest_port)
{
    struct vsock_connection *c;

    for (c = LIST_FIRST(&v->bucket[bucket_of(host_port, guest_port)]); c; c = LIST_NEXT(c, bucket))
        if (c->host_port == host_port && c->guest_port == guest_port)
            return c;
    return NULL;
}

void vsock_connection_hash(struct vsock_connection *c)
{
    LIST_INSERT_HEAD(&c->vsock->bucket[bucket_of(c->host_port, c->guest_port)], c, bucket);
    c->hashed = true;
}

void vsock_connection_unhash(struct vsock_connection *c)
{
    if (c->hashed)
        LIST_REMOVE(c, bucket);
    c->hashed = false;
}

struct vsock_connection *vsock_connection_new(struct vsock *v, int fd)
{
    struct vsock_connection *c = calloc(1, sizeof(*c));

    if (!c) {
        close(fd);
        return NULL;
    }
    c->vsock = v;
    c->fd = fd;
    LIST_INSERT_HEAD(&v->all, c, all);
    v->connections++;
    return c;
}

static void close_host(struct vsock_connection *c)
{
    qz_loop_remove(&c->watch);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->buffer);
    c->buffer = NULL;
    c->forwarded += c->buffered;
    c->buffered = 0;
    c->host_done = c->host_deaf = true;
    c->readable = false;
}

static void dequeue(struct vsock_connection *c)
{
    if (c->queued)
        TAILQ_REMOVE(&c->vsock->ready, c, ready);
    c->queued = false;
}

void vsock_connection_free(struct vsock_connection *c)
{
    close_host(c);
    dequeue(c);
    vsock_connection_unhash(c);
    LIST_REMOVE(c, all);
    c->vsock->connections--;
    free(c);
}

void vsock_connection_kill(struct vsock_connection *c)
{
    /* A request that was not sent yet is a connection that the guest has not heard of. */
    bool unknown = c->state == VSOCK_HANDSHAKE || c->owed & OWE_REQUEST;

    close_host(c);
    c->deadline = 0;
    if (c->state != VSOCK_CLOSED)
        c->owed = unknown ? 0 : OWE_RESET;
    c->state = VSOCK_CLOSED;
}

/* ---- deadlines
 * ------------------------------------------------------------------------------------ */

static void on_timer(struct qz_timer *t)
{
    struct vsock *v = QZ_CONTAINER_OF(t, struct vsock, timer);
    QZ_LOCKED(&v->d.lock);

    if (v->d.active) {
        vsock_sweep(v, qz_now_ns());
        vsock_flush(v);
    }
}

void vsock_timer_arm(struct vsock *v)
{
    if (!v->timer.loop)
        qz_timer_arm(v->d.loop, &v->timer, qz_now_ns() + 1000000000ll, on_timer);
}

void vsock_connection_set_deadline(struct vsock_connection *c)
{
    c->deadline = qz_now_ns() + VSOCK_PATIENCE_NS;
    vsock_timer_arm(c->vsock);
}

void vsock_sweep(struct vsock *v, int64_t now)
{
    struct vsock_connection *c, *next;
    bool waiting = false;

    for (c = LIST_FIRST(&v->all); c; c = next) {
        next = LIST_NEXT(c, all);
        if (c->deadline && c->deadline <= now) {
            vsock_connection_kill(c);
            vsock_connection_settle(c);
        } else if (c->deadline) {
            waiting = true;
        }
    }
    vsock_listener_resume(v);
    if (waiting)
        vsock_timer_arm(v);
}

/* ---- credit
 * --------------------------------------------------------------------------------------- */

uint32_t vsock_connection_credit(const struct vsock_connection *c)
{
    uint32_t under_way = c->sent - c->guest_fwd;

    /* A guest that claims to have taken more than it was sent has no credit until it makes sense
     * again. */
    return under_way < c->guest_alloc ? c->guest_alloc - under_way : 0;
}

static void forwarded(struct vsock_connection *c, uint32_t n)
{
    c->forwarded += n;
    if (c->state == VSOCK_ESTABLISHED && c->forwarded - c->forwarded_told >= CREDIT_STEP)
        c->owed |= OWE_CREDIT_UPDATE;
}

static bool wants_data(const struct vsock_connection *c)
{
    return c->state == VSOCK_ESTABLISHED && c->readable && !c->host_done && !c->guest_deaf;
}

bool vsock_connection_has_output(const struct vsock_connection *c)
{
    return c->owed || (wants_data(c) && vsock_connection_credit(c));
}

/* ---- the host's socket
 * ---------------------------------------------------------------------------- */

/* The host will not take another byte; what it has not taken is lost, as with any broken
 * connection. */
static void host_is_deaf(struct vsock_connection *c)
{
    c->host_deaf = true;
    forwarded(c, c->buffered);
    c->buffered = 0;
    free(c->buffer);
    c->buffer = NULL;
    c->shutdown_flags |= VIRTIO_VSOCK_SHUTDOWN_RCV;
    if (c->state == VSOCK_ESTABLISHED)
        c->owed |= OWE_SHUTDOWN;
    else
        close_host(c);
}

static ssize_t send_some(struct vsock_connection *c, const struct iovec *data, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)data, .msg_iovlen = count};
    ssize_t n;

    do
        n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0)
        host_is_deaf(c);
    return n;
}

static void finish_if_drained(struct vsock_connection *c)
{
    if (c->buffered || c->fd < 0)
        return;
    if (c->state == VSOCK_CLOSED)
        close_host(c);
    else if (c->guest_done)
        shutdown(c->fd, SHUT_WR);
}

static void drain(struct vsock_connection *c)
{
    while (c->buffered) {
        uint32_t first = QZ_MIN(c->buffered, VSOCK_BUFFER - c->head);
        struct iovec part[2] = {{c->buffer + c->head, first}, {c->buffer, c->buffered - first}};
        ssize_t n = send_some(c, part, 2);

        if (n <= 0)
            break;
        c->head = (c->head + (uint32_t)n) % VSOCK_BUFFER;
        c->buffered -= (uint32_t)n;
        forwarded(c, (uint32_t)n);
    }
    finish_if_drained(c);
}

/* Puts what the host did not take into the ring; it fits, because credit was checked. */
static bool keep(struct vsock_connection *c, const struct iovec *data, unsigned count)
{
    if (!c->buffer && !(c->buffer = malloc(VSOCK_BUFFER)))
        return false;
    for (unsigned i = 0; i < count; i++)
        for (size_t done = 0; done < data[i].iov_len;) {
            uint32_t at = (c->head + c->buffered) % VSOCK_BUFFER;
            size_t n = QZ_MIN(data[i].iov_len - done, (size_t)(VSOCK_BUFFER - at));

            memcpy(c->buffer + at, (const uint8_t *)data[i].iov_base + done, n);
            c->buffered += (uint32_t)n;
            done += n;
        }
    return true;
}

bool vsock_host_write(struct vsock_connection *c, const struct iovec *data, unsigned count,
                      uint32_t len)
{
    struct iovec rest[VSOCK_SEGMENTS];
    ssize_t n = 0;

    if (len > VSOCK_BUFFER - c->buffered)
        return false;
    if (!c->host_deaf && !c->buffered && len)
        n = send_some(c, data, count);
    if (c->host_deaf) {
        forwarded(c, len);
        return true;
    }
    forwarded(c, (uint32_t)n);
    return n == len || keep(c, rest, vsock_slice(data, count, (size_t)n, len - (size_t)n, rest));
}

void vsock_host_finish(struct vsock_connection *c)
{
    c->guest_done = true;
    finish_if_drained(c);
}

/* The host sends no more, and with `closed` it does not read either. */
static void host_is_done(struct vsock_connection *c, bool closed)
{
    c->host_done = true;
    c->readable = false;
    c->shutdown_flags |= VIRTIO_VSOCK_SHUTDOWN_SEND;
    c->owed |= OWE_SHUTDOWN;
    if (!closed)
        return;
    c->shutdown_flags |= VIRTIO_VSOCK_SHUTDOWN_RCV;
    close_host(c);
    vsock_connection_set_deadline(c); /* the guest answers with a reset (§5.10.6.5) */
}

size_t vsock_host_read(struct vsock_connection *c, const struct iovec *data, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)data, .msg_iovlen = count};
    ssize_t n;

    do
        n = recvmsg(c->fd, &message, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->sent += (uint32_t)n;
        return (size_t)n;
    }
    if (n == 0)
        host_is_done(c, c->hung_up);
    else if (errno == EAGAIN)
        c->readable = false;
    else
        vsock_connection_kill(c);
    return 0;
}

/* Nothing more to read: what is left to learn is whether the host closes altogether, which epoll
 * always tells. */
static bool only_hangup(const struct vsock_connection *c)
{
    return c->state == VSOCK_ESTABLISHED && (c->host_done || c->guest_deaf) && c->fd >= 0;
}

static void on_socket(struct qz_watch *w, uint32_t events)
{
    struct vsock_connection *c = QZ_CONTAINER_OF(w, struct vsock_connection, watch);
    struct vsock *v = c->vsock;
    QZ_LOCKED(&v->d.lock);

    if (c->state == VSOCK_HANDSHAKE) {
        vsock_handshake(c);
    } else {
        c->hung_up |= (events & EPOLLHUP) != 0;
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && c->buffered)
            drain(c);
        if (w->events & EPOLLIN && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            c->readable = true;
        else if (c->hung_up && only_hangup(c))
            host_is_done(c, true);
    }
    vsock_connection_settle(c);
    vsock_flush(v);
}

/* What the socket is to be watched for; false: not at all. */
static bool interest(const struct vsock_connection *c, uint32_t *events)
{
    bool established = c->state == VSOCK_ESTABLISHED;

    *events = 0;
    if (c->fd < 0)
        return false;
    if (c->state == VSOCK_HANDSHAKE ||
        (established && !c->readable && !c->host_done && !c->guest_deaf))
        *events |= EPOLLIN;
    if (c->buffered)
        *events |= EPOLLOUT;
    /* After the end of its data, only whether the host closes its other half too, which is always
     * reported. */
    return *events || only_hangup(c);
}

static int watch(struct vsock_connection *c)
{
    uint32_t events;

    if (!interest(c, &events)) {
        qz_loop_remove(&c->watch);
        return 0;
    }
    return c->watch.loop ? qz_loop_modify(&c->watch, events)
                         : qz_loop_add(c->vsock->d.loop, &c->watch, c->fd, events, on_socket);
}

void vsock_connection_settle(struct vsock_connection *c)
{
    struct vsock *v = c->vsock;

    if (wants_data(c) && !vsock_connection_credit(c) && !c->credit_asked) {
        c->credit_asked = true;
        c->owed |= OWE_CREDIT_REQUEST;
    }
    if (watch(c) < 0)
        vsock_connection_kill(c);
    if (c->state == VSOCK_CLOSED && c->fd < 0 && !c->owed) {
        vsock_connection_free(c);
        vsock_listener_resume(v);
        return;
    }
    if (!vsock_connection_has_output(c)) {
        dequeue(c);
    } else if (!c->queued) {
        TAILQ_INSERT_TAIL(&v->ready, c, ready);
        c->queued = true;
    }
}

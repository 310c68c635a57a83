/* transmit.c - the transmission phase of an NBD connection (nbd.h). */
#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>

#include "job.h"

#define MAGIC_REQUEST 0x25609513u

enum { REQUEST_BYTES = 28, SEND_JOBS = 64 };

uint16_t nbd_flags(const struct nbd_server *s)
{
    const struct layer_info *i = &s->top->info;

    /* HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_DF (a reply is one chunk always),
     * CAN_MULTI_CONN, SEND_CACHE; a flush on one connection covers
     * what was acknowledged on any other, because there is one disk below. */
    return (uint16_t)(1 << 0 | (i->readonly ? 1 << 1 : 0) | 1 << 2 | 1 << 3 |
                      (i->is_rotational ? 1 << 4 : 0) | (i->discard ? 1 << 5 : 0) |
                      (i->write_zeroes ? 1 << 6 : 0) | 1 << 7 | 1 << 8 | 1 << 10 |
                      (i->write_zeroes ? 1 << 11 : 0));
}

static bool has_room(const struct transfer *t)
{
    return t->jobs < NBD_MAX_REQUESTS && t->bytes < NBD_MAX_BYTES;
}

/* Takes what is there of a write's bytes; runs it when they are whole. */
static void fill(struct transfer *t)
{
    struct job *j = t->filling;
    size_t n = QZ_MIN(t->end - t->start, (size_t)j->length - t->filled);

    if (n)
        memcpy(j->data + t->filled, t->rx + t->start, n);
    t->start += n;
    t->filled += n;
    if (t->filled == j->length) {
        t->filling = NULL;
        job_run(j);
    }
}

/* One request out of rx; false: there is none yet, or no room for it, or the end. */
static bool parse(struct transfer *t)
{
    const uint8_t *p = t->rx + t->start;
    struct job *j;

    if (t->filling) {
        fill(t);
        return !t->filling;
    }
    if (t->done || t->end - t->start < REQUEST_BYTES || !has_room(t))
        return false;
    if (qz_load_be32(p) != MAGIC_REQUEST || qz_load_be16(p + 6) == CMD_DISC || !(j = job_new(t))) {
        t->done = true;
        return false;
    }
    j->flags = qz_load_be16(p + 4);
    j->command = qz_load_be16(p + 6);
    j->cookie = qz_load_be64(p + 8);
    j->offset = qz_load_be64(p + 16);
    j->length = qz_load_be32(p + 24);
    t->bytes += job_weight(j);
    t->start += REQUEST_BYTES;
    j->result = job_check(j);
    if (j->command != CMD_WRITE) {
        job_run(j);
    } else if (j->length > NBD_MAX_REQUEST || job_make_data(j, j->length) < 0) {
        t->done = t->failed = true; /* its bytes cannot be taken, and so not passed over */
        job_free(j);
        return false;
    } else {
        t->filling = j;
        t->filled = 0;
        fill(t);
    }
    return true;
}

/* ---- the socket */

/* Whether anything came. */
static bool receive(struct transfer *t)
{
    void *to = t->rx + t->end;
    size_t room = RX_BYTES - t->end;
    ssize_t n;

    if (t->start == t->end) {
        t->start = t->end = 0;
        to = t->rx;
        room = RX_BYTES;
    } else if (room < REQUEST_BYTES) {
        memmove(t->rx, t->rx + t->start, t->end - t->start);
        t->end -= t->start;
        t->start = 0;
        to = t->rx + t->end;
        room = RX_BYTES - t->end;
    }
    if (t->filling && t->start == t->end) { /* past the buffer */
        to = t->filling->data + t->filled;
        room = t->filling->length - t->filled;
    }
    n = recv(t->c->fd, to, room, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        t->done = true;
        return false;
    }
    if (n < 0)
        return false;
    if (t->filling && t->start == t->end) {
        t->filled += (size_t)n;
        fill(t);
    } else {
        t->end += (size_t)n;
    }
    return true;
}

static unsigned gather(struct transfer *t, struct iovec *iov)
{
    size_t skip = t->sent;
    unsigned n = 0;

    for (struct job *j = t->out; j && n + 2 <= 2 * SEND_JOBS; j = j->next) {
        if (skip < j->head_bytes)
            iov[n++] = (struct iovec){j->head + skip, j->head_bytes - skip};
        skip -= QZ_MIN(skip, j->head_bytes);
        if (j->data_bytes)
            iov[n++] = (struct iovec){j->data + skip, j->data_bytes - skip};
        skip = 0;
    }
    return n;
}

static void take_sent(struct transfer *t, size_t n)
{
    t->sent += n;
    while (t->out && t->sent >= t->out->head_bytes + t->out->data_bytes) {
        struct job *j = t->out;

        t->sent -= j->head_bytes + j->data_bytes;
        t->out = j->next;
        if (!t->out)
            t->out_last = &t->out;
        job_free(j);
    }
}

/* Sends what is to be sent, as far as the socket takes it. */
static void send_replies(struct transfer *t)
{
    while (t->out) {
        struct iovec iov[2 * SEND_JOBS];
        struct msghdr h = {.msg_iov = iov};
        ssize_t n = -1;

        h.msg_iovlen = gather(t, iov);
        if (!t->failed)
            n = sendmsg(t->c->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            take_sent(t, (size_t)n);
        } else if (t->failed || (errno != EAGAIN && errno != EINTR)) {
            t->failed = t->done = true; /* nobody hears them */
            take_sent(t, t->out->head_bytes + t->out->data_bytes - t->sent);
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

/* ---- waiting */

static void on_watch(struct queue_io *io, int result)
{
    struct watch *w = QZ_CONTAINER_OF(io, struct watch, io);

    w->armed = false;
    w->fired = true;
}

static void arm(struct transfer *t, struct watch *w, int fd, unsigned events)
{
    if (w->armed)
        return;
    w->armed = true;
    w->io.done = on_watch;
    io_uring_prep_poll_add(queue_sqe(t->q, &w->io), fd, events);
}

static void disarm(struct transfer *t, struct watch *w)
{
    if (w->armed)
        io_uring_prep_cancel(queue_sqe(t->q, NULL), &w->io, 0);
    while (w->armed)
        queue_wait(t->q);
}

static bool wants_input(const struct transfer *t)
{
    return !t->done && (t->filling || has_room(t));
}

static void wait(struct transfer *t)
{
    arm(t, &t->stop, t->c->server->stop_fd, POLLIN);
    if (wants_input(t))
        arm(t, &t->in, t->c->fd, POLLIN);
    if (t->out)
        arm(t, &t->output, t->c->fd, POLLOUT);
    queue_wait(t->q);
    if (t->stop.fired)
        t->done = true;
}

static void loop(struct transfer *t)
{
    while (!t->done || t->jobs) {
        bool busy = false;

        while (parse(t))
            busy = true;
        layer_kick(t->top, t->q);
        queue_kick(t->q);
        send_replies(t);
        if (wants_input(t) && receive(t))
            busy = true;
        if (t->done && t->filling) { /* its bytes will not come */
            job_free(t->filling);
            t->filling = NULL;
        }
        if (queue_pending(t->q)) {
            queue_poll(t->q);
            busy = true;
        }
        if (!busy && (!t->done || t->jobs))
            wait(t);
    }
}

void nbd_transmit(struct nbd_connection *c)
{
    struct transfer t = {.c = c, .q = c->q, .top = c->server->top};

    t.out_last = &t.out;
    t.rx = malloc(RX_BYTES);
    if (!t.rx)
        return;
    loop(&t);
    disarm(&t, &t.in);
    disarm(&t, &t.output);
    disarm(&t, &t.stop);
    while (t.free) {
        struct job *j = t.free;

        t.free = j->next;
        free(j->data);
        free(j);
    }
    free(t.rx);
}

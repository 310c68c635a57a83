/* transmit.c - the transmission phase of an NBD connection (nbd.h). */
#include <assert.h>
#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>

#include "job.h"

#define MAGIC_REQUEST 0x25609513u

enum { REQUEST_BYTES = 28, SEND_JOBS = 64, STATE_HOLE = 1, STATE_ZERO = 2 };

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

/* ---- jobs */

static bool has_room(const struct transfer *t)
{
    return t->jobs < NBD_MAX_REQUESTS && t->bytes < NBD_MAX_BYTES;
}

static int make_data(struct job *j, size_t n)
{
    void *p;

    if (j->capacity >= n)
        return 0;
    free(j->data);
    j->data = NULL;
    j->capacity = 0;
    if (posix_memalign(&p, 4096, QZ_ALIGN_UP(n, (size_t)4096)))
        return -ENOMEM;
    j->data = p;
    j->capacity = QZ_ALIGN_UP(n, (size_t)4096);
    return 0;
}

static struct job *job_new(struct transfer *t)
{
    struct job *j = t->free;

    if (j)
        t->free = j->next;
    else if (!(j = calloc(1, sizeof(*j))))
        return NULL;
    j->t = t;
    j->result = 0;
    j->flush_after = false;
    j->data_bytes = 0;
    t->jobs++;
    return j;
}

/* What it counts of NBD_MAX_BYTES. */
static uint64_t weight(const struct job *j)
{
    return j->command == CMD_READ || j->command == CMD_WRITE ? j->length : 0;
}

static void job_free(struct job *j)
{
    struct transfer *t = j->t;

    t->jobs--;
    t->bytes -= weight(j);
    if (j->capacity > KEEP_BYTES) {
        free(j->data);
        j->data = NULL;
        j->capacity = 0;
    }
    j->next = t->free;
    t->free = j;
}

static void on_done(struct request *r, int result)
{
    struct job *j = QZ_CONTAINER_OF(r, struct job, r);

    if (result == 0 && j->flush_after) {
        j->flush_after = false;
        r->op = DISK_FLUSH;
        layer_submit(j->t->top, j->t->q, r);
        return;
    }
    j->data_bytes = j->command == CMD_READ ? j->length : 0;
    job_reply(j, result);
}

static void submit(struct job *j, enum disk_op op, unsigned flags)
{
    struct request *r = &j->r;

    *r = (struct request){.op = op, .flags = flags, .done = on_done};
    if (op != DISK_FLUSH) {
        r->offset = j->offset;
        r->length = j->length;
    }
    if (op == DISK_READ || op == DISK_WRITE) {
        j->iov = (struct iovec){j->data, j->length};
        r->iov = &j->iov;
        r->iov_count = 1;
    }
    layer_submit(j->t->top, j->t->q, r);
}

/* ---- block status */

static uint32_t extent_flags(const struct extent *e, bool zero)
{
    return (e->state == EXTENT_UNALLOCATED ? STATE_HOLE : 0) | (zero ? STATE_ZERO : 0);
}

static int fill_extents(struct job *j, struct disk_queue *q)
{
    struct chain *chain = &j->t->c->server->disk->chain;
    uint64_t at = j->offset, end = j->offset + j->length;
    unsigned n = 0, most = j->flags & CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
    uint32_t last = UINT32_MAX;

    while (at < end) {
        struct extent e;
        bool zero;
        int r = chain_map(chain, q, at, end - at, true, &e, &zero);
        uint32_t flags = r < 0 ? 0 : extent_flags(&e, zero);

        if (r < 0)
            return r;
        if (n && flags == last) {
            uint8_t *length = j->data + (n - 1) * 8;

            qz_store_be32(length, qz_load_be32(length) + (uint32_t)e.length);
        } else if (n == most) {
            break;
        } else {
            qz_store_be32(j->data + n * 8, (uint32_t)e.length);
            qz_store_be32(j->data + n * 8 + 4, flags);
            n++;
        }
        last = flags;
        at += e.length;
    }
    j->data_bytes = n * 8;
    return 0;
}

static void block_status_main(struct disk_queue *q, void *argument)
{
    struct job *j = argument;
    int r = make_data(j, NBD_MAX_EXTENTS * 8);

    if (r == 0)
        r = fill_extents(j, q);
    job_reply(j, r);
}

/* ---- requests */

static int check(const struct job *j)
{
    const struct layer *top = j->t->top;
    uint64_t size = __atomic_load_n(&top->info.size, __ATOMIC_RELAXED);
    bool writes =
        j->command == CMD_WRITE || j->command == CMD_TRIM || j->command == CMD_WRITE_ZEROES;

    if (j->command == CMD_FLUSH)
        return 0;
    if (j->command > CMD_BLOCK_STATUS ||
        (j->command == CMD_BLOCK_STATUS && (!j->t->c->allocation || !j->length)))
        return -EINVAL;
    if (writes && top->info.readonly)
        return -EPERM;
    if (j->offset > size || j->length > size - j->offset)
        return writes ? -ENOSPC : -EINVAL;
    return j->command == CMD_READ && j->length > NBD_MAX_REQUEST ? -EOVERFLOW : 0;
}

static void run(struct job *j)
{
    unsigned fua = j->flags & CMD_FLAG_FUA;

    if (j->result < 0 || (!j->length && j->command != CMD_FLUSH)) {
        job_reply(j, j->result);
        return;
    }
    switch (j->command) {
    case CMD_READ:
        if (make_data(j, j->length) < 0)
            job_reply(j, -ENOMEM);
        else
            submit(j, DISK_READ, 0);
        return;
    case CMD_WRITE:
        submit(j, DISK_WRITE, fua ? REQUEST_FUA : 0);
        return;
    case CMD_FLUSH:
        submit(j, DISK_FLUSH, 0);
        return;
    case CMD_TRIM:
        j->flush_after = fua;
        submit(j, DISK_DISCARD, 0);
        return;
    case CMD_WRITE_ZEROES:
        j->flush_after = fua;
        submit(j, DISK_WRITE_ZEROES,
               (j->flags & CMD_FLAG_NO_HOLE ? 0 : REQUEST_MAY_UNMAP) |
                   (j->flags & CMD_FLAG_FAST_ZERO ? REQUEST_NO_FALLBACK : 0));
        return;
    case CMD_BLOCK_STATUS:
        if (task_start(j->t->q, block_status_main, j) < 0)
            job_reply(j, -ENOMEM);
        return;
    }
    job_reply(j, 0); /* CMD_CACHE: advice */
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
        run(j);
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
    t->bytes += weight(j);
    t->start += REQUEST_BYTES;
    j->result = check(j);
    if (j->command != CMD_WRITE) {
        run(j);
    } else if (j->length > NBD_MAX_REQUEST || make_data(j, j->length) < 0) {
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

/* link.c - a connection to an NBD server: made, moved on, made again (client.h). */
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "client.h"

QZ_SYSCALLS(
    io, "socket connect getsockopt setsockopt sendto recvfrom shutdown close fcntl getpeername");
QZ_SYSCALLS(main, "sendto recvfrom shutdown");

enum { REPLIES_AT_ONCE = 64 };
#define SECOND_NS 1000000000ll
#define RETRY_NS  (SECOND_NS / 5)
#define LOST_WAIT_NS                                                                               \
    SECOND_NS /* for a server that has been given up: what one more try may take                   \
               */

/* ---- lists */

static void append(struct calls *l, struct call *c)
{
    c->next = NULL;
    if (l->first)
        l->last->next = c;
    else
        l->first = c;
    l->last = c;
}

static struct call *take_first(struct calls *l)
{
    struct call *c = l->first;

    if (c)
        l->first = c->next;
    return c;
}

/* All of b to the front of a. */
static void put_before(struct calls *a, struct calls *b)
{
    if (!b->first)
        return;
    b->last->next = a->first;
    if (!a->first)
        a->last = b->last;
    a->first = b->first;
    b->first = NULL;
}

/* ---- the end of calls; without the lock */

static void on_posted(struct queue_work *w)
{
    call_end(QZ_CONTAINER_OF(w, struct call, work));
}

static void end_all(struct calls done)
{
    struct call *c;

    while ((c = take_first(&done))) {
        if (queue_is_current(c->q)) {
            call_end(c);
        } else {
            c->work.run = on_posted;
            queue_post(c->q, &c->work);
        }
    }
}

/* ---- what follows with the lock held */

static void finish(struct link *k, struct call *c, int result)
{
    c->result = result;
    append(&k->ended, c);
}

static bool is_gone(const struct link *k)
{
    return nbd.aio_is_dead(k->h) || nbd.aio_is_closed(k->h);
}

static void drop(struct link *k)
{
    int fd = nbd.aio_get_fd(k->h);

    if (fd >= 0)
        shutdown(fd, SHUT_RDWR); /* whoever still watches it hears of it */
    nbd.close(k->h);
    k->h = NULL;
    for (struct call *c = k->issued.first; c; c = c->next)
        c->answered = false;
    put_before(&k->waiting, &k->issued);
    if (k->up && k->waiting.first)
        qz_warn("%s: the server is gone; it is looked for during %lld s", k->disk->l.label,
                (long long)(k->disk->reconnect_ns / SECOND_NS));
    k->next_try_ns = k->up ? 0 : qz_now_ns() + RETRY_NS;
    k->up = false;
}

static void give_up(struct link *k, int error)
{
    struct call *c;

    if (!k->lost)
        qz_error_log("%s: the server did not come back: requests fail until it does",
                     k->disk->l.label);
    k->lost = true;
    k->give_up_ns = 0;
    while ((c = take_first(&k->waiting)))
        finish(k, c, error);
}

/* A new connection begins; false: not now. */
static bool begin(struct link *k)
{
    struct nbd_disk *d = k->disk;
    int64_t now = qz_now_ns();

    if (!k->give_up_ns)
        k->give_up_ns = now + (k->lost ? LOST_WAIT_NS : d->reconnect_ns);
    if (now >= k->give_up_ns) {
        give_up(k, -EIO);
        return false;
    }
    if (now < k->next_try_ns)
        return false;
    k->h = nbd.create();
    if (k->h && nbd.set_export_name(k->h, d->export_name) == 0 &&
        nbd.aio_connect(k->h, (const struct sockaddr *)&d->address, d->address_length) == 0) {
        k->generation++;
        return true;
    }
    nbd.close(k->h);
    k->h = NULL;
    k->next_try_ns = now + RETRY_NS;
    return false;
}

void link_set_patience(struct link *k)
{
    unsigned ms = (unsigned)(k->disk->reconnect_ns / 1000000);

    /* A host that vanished without a word is noticed; a unix socket does not know this. */
    setsockopt(nbd.aio_get_fd(k->h), IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

/* The server answered: is it still the same disk? */
static bool greet(struct link *k)
{
    struct nbd_disk *d = k->disk;

    if (nbd.get_size(k->h) < (int64_t)d->l.info.size ||
        (nbd.is_read_only(k->h) > 0 && !d->l.info.readonly)) {
        qz_error_log("%s: the server came back with another disk", d->l.label);
        drop(k);
        give_up(k, -EIO);
        return false;
    }
    link_set_patience(k);
    if (k->lost || k->give_up_ns)
        qz_info("%s: connected to the server again", d->l.label);
    k->up = true;
    k->lost = false;
    k->give_up_ns = 0;
    return true;
}

/* Takes what libnbd is done with. What failed with its connection stays issued, for drop(). */
static void collect(struct link *k)
{
    struct calls issued = k->issued;
    bool gone = k->h && is_gone(k);
    struct call *c;

    k->issued.first = NULL;
    while ((c = take_first(&issued))) {
        if (!c->answered || (c->result < 0 && gone)) {
            append(&k->issued, c);
        } else if (c->result < 0 || call_advance(c)) {
            append(&k->ended, c);
        } else {
            c->answered = false;
            append(&k->waiting, c);
        }
    }
}

static void issue(struct link *k)
{
    struct call *c = take_first(&k->waiting);
    int r;

    append(&k->issued, c); /* libnbd may answer at once */
    r = call_issue(c, k->h);
    if (r == 0)
        return;
    if (r < 0 && is_gone(k)) /* drop() takes it back */
        return;
    c->answered = true;
    c->result = QZ_MIN(r, 0);
}

/* ---- watching */

static void on_ready(struct queue_io *io, int result);
static void on_timer(struct queue_io *io, int result);

static struct lane *lane_of(struct link *k, struct disk_queue *q)
{
    struct lane *n = &k->lane[queue_index(q)];

    if (n->queue != queue_id(q))
        *n = (struct lane){.queue = queue_id(q),
                           .q = q,
                           .link = k,
                           .in.lane = n,
                           .out.lane = n,
                           .retry.lane = n,
                           .patience.lane = n};
    return n;
}

static void watch(struct link *k, struct watch *w, short events)
{
    if (w->armed)
        return;
    w->armed = true;
    w->generation = k->generation;
    w->io.done = on_ready;
    io_uring_prep_poll_add(queue_sqe(w->lane->q, &w->io), nbd.aio_get_fd(k->h), (unsigned)events);
}

static void wake_at(struct alarm *a, int64_t when)
{
    if (a->armed)
        return;
    a->armed = true;
    queue_timer(a->lane->q, &a->timer, when, on_timer);
}

static void watch_all(struct link *k, struct disk_queue *q)
{
    struct lane *n = lane_of(k, q);

    if (k->h) {
        unsigned direction = nbd.aio_get_direction(k->h);

        if (direction & LIBNBD_AIO_DIRECTION_READ)
            watch(k, &n->in, POLLIN);
        if (direction & LIBNBD_AIO_DIRECTION_WRITE)
            watch(k, &n->out, POLLOUT);
    } else {
        wake_at(&n->retry, k->next_try_ns);
    }
    if (!k->up)
        wake_at(&n->patience, k->give_up_ns);
}

/* Brings everything as far as it goes now. */
static void pump(struct link *k, struct disk_queue *q)
{
    for (;;) {
        collect(k);
        if (k->h && is_gone(k))
            drop(k);
        if (!k->waiting.first && !k->issued.first)
            return;
        if (!k->h && !begin(k)) {
            if (!k->waiting.first)
                return; /* given up */
            break;
        }
        if (is_gone(k))
            continue;
        if (!k->up) {
            if (!nbd.aio_is_ready(k->h)) {
                if (qz_now_ns() < k->give_up_ns)
                    break;
                drop(k);
                give_up(k, -EIO);
                continue;
            }
            if (!greet(k))
                continue;
        }
        if (!k->waiting.first)
            break;
        issue(k);
    }
    watch_all(k, q);
}

static struct calls take_ended(struct link *k)
{
    struct calls done = k->ended;

    k->ended.first = NULL;
    return done;
}

/* Another thread may have read what this one was woken for. libnbd must not be sent after nothing:
 * it would wait for that reply before it sends another command. */
static bool has_input(const struct link *k)
{
    char byte;

    return recv(nbd.aio_get_fd(k->h), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

/* libnbd takes one reply at a time; as many as are there, but not without end, are taken at once.
 */
static void read_replies(struct link *k)
{
    for (unsigned n = 0; n < REPLIES_AT_ONCE && !is_gone(k) &&
                         nbd.aio_get_direction(k->h) & LIBNBD_AIO_DIRECTION_READ && has_input(k);
         n++)
        nbd.aio_notify_read(k->h);
}

static void on_ready(struct queue_io *io, int result)
{
    struct watch *w = QZ_CONTAINER_OF(io, struct watch, io);
    struct link *k = w->lane->link;
    struct disk_queue *q = w->lane->q;
    struct calls done;

    pthread_mutex_lock(&k->lock);
    w->armed = false;
    if (k->h && w->generation == k->generation && result >= 0) {
        if (w == &w->lane->in)
            read_replies(k);
        else if (nbd.aio_get_direction(k->h) & LIBNBD_AIO_DIRECTION_WRITE)
            nbd.aio_notify_write(k->h);
    }
    pump(k, q);
    done = take_ended(k);
    pthread_mutex_unlock(&k->lock);
    end_all(done);
}

static void on_timer(struct queue_io *io, int result)
{
    struct alarm *a =
        QZ_CONTAINER_OF(QZ_CONTAINER_OF(io, struct queue_timer, io), struct alarm, timer);
    struct link *k = a->lane->link;
    struct calls done;

    pthread_mutex_lock(&k->lock);
    a->armed = false;
    pump(k, a->lane->q);
    done = take_ended(k);
    pthread_mutex_unlock(&k->lock);
    end_all(done);
}

void link_submit(struct link *k, struct call *c)
{
    struct disk_queue *q = c->q; /* c may be another thread's business soon */
    struct calls done;

    pthread_mutex_lock(&k->lock);
    append(&k->waiting, c);
    pump(k, q);
    done = take_ended(k);
    pthread_mutex_unlock(&k->lock);
    end_all(done);
}

/* ---- life */

struct link *link_new(struct nbd_disk *d)
{
    struct link *k = calloc(1, sizeof(*k));

    if (!k)
        return NULL;
    pthread_mutex_init(&k->lock, NULL);
    k->disk = d;
    return k;
}

void link_free(struct link *k)
{
    if (!k)
        return;
    if (k->h)
        nbd.close(k->h);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

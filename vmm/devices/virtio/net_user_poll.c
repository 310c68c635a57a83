/*
 * net_user_poll.c - libslirp on the event loop (net_user_poll.h).
 *
 * Theory of operation. libslirp wants to be polled: it names the descriptors that it waits for
 * (slirp_pollfds_fill), then is told what happened to them (slirp_pollfds_poll). Each descriptor
 * that it registers has an entry in a table indexed by the descriptor, with a watch on the loop. An
 * event is noted in the entry, and one piece of posted work per round of the loop tells libslirp
 * everything at once, asks again what to wait for, brings the watches in line and sets the timer.
 */
#include "devices/virtio/net_user_poll.h"

enum { IDLE_MS = 1000 };       /* what libslirp answers when it needs no timer */
enum { STALE_NS = 500000000 }; /* its timers count in these */

struct user_fd {
    struct qz_watch watch;
    struct user_poll *poll;
    int wanted;   /* SLIRP_POLL_*, as of the last fill */
    int happened; /* since libslirp was told */
    bool listener;
};

/* A timer of libslirp's. */
struct user_timer {
    struct qz_timer timer;
    struct user_poll *poll;
    SlirpTimerCb fire;
    void *context;
};

/* ---- descriptors ---------------------------------------------------------------------------- */

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static struct user_fd *fd_entry(struct user_poll *p, int fd)
{
    if (fd < 0)
        return NULL;
    if (fd >= p->fds) {
        int n = QZ_MAX(fd + 1, QZ_MAX(p->fds * 2, 64));
        struct user_fd **table = realloc(p->fd, (size_t)n * sizeof(*table));

        if (!table)
            return NULL;
        memset(table + p->fds, 0, (size_t)(n - p->fds) * sizeof(*table));
        p->fd = table;
        p->fds = n;
    }
    if (!p->fd[fd]) {
        p->fd[fd] = calloc(1, sizeof(struct user_fd));
        if (!p->fd[fd])
            return NULL;
        p->fd[fd]->poll = p;
        p->known++;
    }
    return p->fd[fd];
}

static void fd_forget(struct user_poll *p, int fd)
{
    if (fd < 0 || fd >= p->fds || !p->fd[fd])
        return;
    qz_loop_remove(&p->fd[fd]->watch);
    free(p->fd[fd]);
    p->fd[fd] = NULL;
    p->known--;
}

static void on_fd_ready(struct qz_watch *w, uint32_t events)
{
    struct user_fd *f = QZ_CONTAINER_OF(w, struct user_fd, watch);

    f->happened |= from_epoll(events);
    user_poll_soon(f->poll);
}

/* Brings the watches in line with what is wanted. */
static void fds_sync(struct user_poll *p)
{
    for (int fd = 0; fd < p->fds; fd++) {
        struct user_fd *f = p->fd[fd];
        uint32_t events;
        int r = 0;

        if (!f)
            continue;
        events = to_epoll(f->wanted);
        /*
         * At the limit a connection waits in the listening socket's queue: one that could not be
         * accepted would be reported for ever. A watch of no events still reports hang-ups, for
         * ever too: it must go.
         */
        if (f->listener && p->known >= p->limit)
            events = 0;
        if (!events || p->deaf || !p->running)
            qz_loop_remove(&f->watch);
        else if (f->watch.loop)
            r = qz_loop_modify(&f->watch, events);
        else
            r = qz_loop_add(p->loop, &f->watch, fd, events, on_fd_ready);
        if (r < 0)
            qz_guest_warn("user network: cannot wait for a socket: %s", strerror(-r));
    }
}

/* ---- the round --------------------------------------------------------------------------------
 */

static int add_poll(int fd, int events, void *opaque)
{
    struct user_fd *f = fd_entry(opaque, fd);

    if (!f)
        return -1;
    f->wanted = events;
    return fd;
}

static int add_listener(int fd, int events, void *opaque)
{
    struct user_fd *f = fd_entry(opaque, fd);

    if (!f)
        return -1;
    f->listener = true;
    return fd;
}

void user_poll_listeners(struct user_poll *p)
{
    uint32_t timeout = UINT32_MAX;

    slirp_pollfds_fill(p->slirp, &timeout, add_listener, p);
}

static int get_events(int index, void *opaque)
{
    struct user_poll *p = opaque;

    return index >= 0 && index < p->fds && p->fd[index] ? p->fd[index]->happened : 0;
}

static int no_events(int index, void *opaque)
{
    return 0;
}

void user_poll_now(struct user_poll *p)
{
    if (qz_now_ns() - p->told_ns < STALE_NS)
        return;
    slirp_pollfds_poll(p->slirp, 0, no_events, p);
    p->told_ns = qz_now_ns();
}

static void tell(struct user_poll *p)
{
    p->told_ns = qz_now_ns();
    slirp_pollfds_poll(p->slirp, 0, get_events, p);
    for (int fd = 0; fd < p->fds; fd++)
        if (p->fd[fd])
            p->fd[fd]->happened = 0;
}

static void timer_fired(struct qz_timer *t)
{
    user_poll_soon(QZ_CONTAINER_OF(t, struct user_poll, timer));
}

static void ask(struct user_poll *p)
{
    uint32_t timeout = UINT32_MAX;

    for (int fd = 0; fd < p->fds; fd++)
        if (p->fd[fd])
            p->fd[fd]->wanted = 0;
    slirp_pollfds_fill(p->slirp, &timeout, add_poll, p);
    fds_sync(p);
    if (timeout < IDLE_MS)
        qz_timer_arm(p->loop, &p->timer, qz_now_ns() + (int64_t)timeout * 1000000, timer_fired);
    else
        qz_timer_cancel(&p->timer);
}

static void work_run(struct qz_work *w)
{
    struct user_poll *p = QZ_CONTAINER_OF(w, struct user_poll, work);

    if (!p->running)
        return;
    if (!p->deaf)
        tell(p);
    if (!p->deaf) /* not by what was told either */
        ask(p);
    p->round_done(p);
}

void user_poll_soon(struct user_poll *p)
{
    if (p->running)
        qz_loop_post(p->loop, &p->work, work_run);
}

void user_poll_set_deaf(struct user_poll *p, bool deaf)
{
    if (p->deaf == deaf)
        return;
    p->deaf = deaf;
    if (deaf)
        fds_sync(p);
    else
        user_poll_soon(p);
}

void user_poll_start(struct user_poll *p)
{
    p->running = true;
    p->deaf = false;
    user_poll_soon(p); /* listening sockets */
}

void user_poll_stop(struct user_poll *p)
{
    p->running = false;
    fds_sync(p);
    qz_timer_cancel(&p->timer);
}

void user_poll_free(struct user_poll *p)
{
    p->running = false;
    for (int fd = 0; fd < p->fds; fd++)
        fd_forget(p, fd);
    qz_timer_cancel(&p->timer);
    free(p->fd);
}

/* ---- libslirp's callbacks ---------------------------------------------------------------------
 */

static int64_t on_clock(void *opaque)
{
    return qz_now_ns();
}

static void user_timer_fired(struct qz_timer *t)
{
    struct user_timer *ut = QZ_CONTAINER_OF(t, struct user_timer, timer);
    struct user_poll *p = ut->poll;

    ut->fire(ut->context);
    user_poll_soon(p);
}

static void *on_timer_new(SlirpTimerCb fire, void *context, void *opaque)
{
    struct user_timer *t = calloc(1, sizeof(*t));

    if (t)
        *t = (struct user_timer){.poll = opaque, .fire = fire, .context = context};
    return t;
}

static void on_timer_free(void *timer, void *opaque)
{
    struct user_timer *t = timer;

    if (t)
        qz_timer_cancel(&t->timer);
    free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user_timer *t = timer;
    struct user_poll *p = opaque;

    if (t && p->loop)
        qz_timer_arm(p->loop, &t->timer, expire_ms * 1000000, user_timer_fired);
}

static void on_register(int fd, void *opaque)
{
    fd_entry(opaque, fd); /* counted from now on; watched when asked for */
}

static void on_unregister(int fd, void *opaque)
{
    fd_forget(opaque, fd);
}

static void on_notify(void *opaque)
{
    user_poll_soon(opaque);
}

void user_poll_callbacks(SlirpCb *cb)
{
    cb->clock_get_ns = on_clock;
    cb->timer_new = on_timer_new;
    cb->timer_free = on_timer_free;
    cb->timer_mod = on_timer_mod;
    cb->register_poll_fd = on_register;
    cb->unregister_poll_fd = on_unregister;
    cb->notify = on_notify;
}

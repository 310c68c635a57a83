/*
 * lane.c - a thread that serves one ring (vhost.h).
 *
 * It takes what is in the ring, and looks again for a short while before it asks to be kicked and
 * sleeps in io_uring; how long it looks adapts to how soon the next request came the last times.
 * The driver is told of answers early in a batch and at its end, so that it can work on them while
 * we work on the rest.
 */
#include <liburing.h>

#include "lane_internal.h"

enum {
    POLL_FIRST_NS = 4000,
    CALL_EVERY = 8, /* answers in a batch */
    BATCH = 128,    /* requests before completions are looked at */
};

/* ---- answers */

void lane_call_driver(struct lane *l)
{
    static const uint64_t one = 1;

    l->since_call = 0;
    /* A full counter (EAGAIN) has its wake-up pending already. */
    if (l->call_fd >= 0 && ring_wants_call(&l->ring) &&
        write(l->call_fd, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN)
        qz_debug("vhost-user: cannot signal the driver: %s", strerror(errno));
}

static void release(struct slot *s)
{
    struct lane *l = s->lane;

    l->busy[s->chain.id] = 0;
    s->next = l->free;
    l->free = s;
    l->in_flight--;
    if (!l->in_flight && l->draining) {
        struct lane_call *c = l->draining;

        l->draining = NULL;
        lane_call_done(c);
    }
}

void lane_finish(struct slot *s, uint8_t status, uint32_t written)
{
    struct lane *l = s->lane;
    uint16_t id = s->chain.id;

    *s->status = status;
    if (l->inflight)
        inflight_pushing(l, s);
    ring_push(&l->ring, id, s->chain.descriptors, written + 1);
    if (l->inflight)
        inflight_pushed(l, s);
    if (++l->since_call >= CALL_EVERY || !l->serving)
        lane_call_driver(l);
    release(s);
}

void lane_break(struct slot *s, const char *why)
{
    qz_guest_warn("vhost-user: the driver broke its ring: %s", why);
    s->lane->ring.broken = true;
    release(s);
}

/* ---- requests */

/* The chain in s is a request to be served. */
static void begin(struct lane *l, struct slot *s)
{
    l->free = s->next;
    l->busy[s->chain.id] = 1;
    l->in_flight++;
    if (l->inflight)
        inflight_taken(l, s);
    blk_take(s);
}

/* Whether there was a request. */
static bool take_one(struct lane *l)
{
    struct slot *s = l->free;

    if (!s) /* as many as the ring has entries: one was given twice */
        l->ring.broken = true;
    if (!s || ring_pop(&l->ring, &s->chain) != 1)
        return false;
    if (l->busy[s->chain.id]) {
        qz_guest_warn("vhost-user: the driver broke its ring: a buffer given twice");
        l->ring.broken = true;
        return false;
    }
    begin(l, s);
    return true;
}

static bool is_served(const struct lane *l)
{
    return l->running && l->enabled && !l->ring.broken;
}

static unsigned serve(struct lane *l)
{
    unsigned n = 0;

    if (!is_served(l))
        return 0;
    l->serving = true;
    while (n < BATCH && take_one(l))
        n++;
    l->serving = false;
    if (n) {
        layer_kick(l->v->top, l->q);
        queue_kick(l->q);
        lane_call_driver(l);
    }
    return n;
}

void lane_serve_left(struct lane *l)
{
    uint16_t heads[RING_SIZE_MAX];
    unsigned n = inflight_left(l, heads);

    for (unsigned i = 0; i < n && l->free; i++) {
        struct slot *s = l->free;

        if (inflight_chain(l, heads[i], s) != 1 || l->busy[s->chain.id])
            return;
        l->free = s->next;
        l->busy[s->chain.id] = 1;
        l->in_flight++;
        blk_take(s);
    }
}

/* ---- sleeping */

static void on_kick(struct queue_io *io, int result)
{
    QZ_CONTAINER_OF(io, struct lane, kick_io)->kick_armed = false;
}

static void arm_kick(struct lane *l)
{
    struct io_uring_sqe *sqe;

    if (l->kick_armed || !l->running || l->kick_fd < 0)
        return;
    l->kick_armed = true;
    l->kick_io.done = on_kick;
    sqe = queue_sqe(l->q, &l->kick_io);
    io_uring_prep_read(sqe, l->kick_fd, &l->kick_count, sizeof(l->kick_count), 0);
}

static void sleep_until_work(struct lane *l)
{
    int64_t start = qz_now_ns(), slept;

    arm_kick(l);
    queue_wait(l->q);
    slept = qz_now_ns() - start;
    if (slept < 2 * POLL_MAX_NS) /* waking up takes its part of it */
        l->poll_ns = QZ_MIN(QZ_MAX(2 * l->poll_ns, (int64_t)POLL_FIRST_NS), (int64_t)POLL_MAX_NS);
    else if (slept > 4 * POLL_MAX_NS)
        l->poll_ns /= 2;
}

/* Tells the processor that we are waiting for memory to change. */
static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Whether something came. */
static bool look_for_a_while(struct lane *l)
{
    int64_t end;

    if (!l->poll_ns || !is_served(l))
        return false;
    end = qz_now_ns() + l->poll_ns;
    do {
        if (queue_pending(l->q))
            queue_poll(l->q);
        if (serve(l))
            return true;
        relax();
    } while (qz_now_ns() < end && is_served(l));
    return false;
}

void *lane_main(void *argument)
{
    struct lane *l = argument;

    while (!l->quit) {
        if (serve(l)) {
            if (queue_pending(l->q))
                queue_poll(l->q);
            continue;
        }
        if (look_for_a_while(l))
            continue;
        if (is_served(l)) {
            ring_set_kicks(&l->ring, true);
            if (!serve(l))
                sleep_until_work(l);
            if (is_served(l))
                ring_set_kicks(&l->ring, false);
        } else {
            sleep_until_work(l);
        }
    }
    return NULL;
}

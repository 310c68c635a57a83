/*
 * lane.c - a thread that serves one ring (vhost.h).
 *
 * It takes what is in the ring, and looks again for a short while before it asks to be kicked and
 * sleeps in io_uring; how long it looks adapts to how soon the next request came the last times.
 * The driver is told of answers early in a batch and at its end, so that it can work on them while
 * we work on the rest.
 */
#include <assert.h>
#include <liburing.h>

#include "vhost.h"

enum {
    POLL_MAX_NS = 30000,
    POLL_FIRST_NS = 4000,
    CALL_EVERY = 8, /* answers in a batch */
    BATCH = 128,    /* requests before completions are looked at */
};

/* Something that the control thread wants done on the lane's thread, and waits for. */
struct lane_call {
    struct queue_work work;
    struct lane *lane;
    void (*fn)(struct lane_call *c); /* ends with lane_call_done(), then or later */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    int argument;
    int result;
};

static void lane_call_done(struct lane_call *c)
{
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
}

static void on_call(struct queue_work *w)
{
    struct lane_call *c = QZ_CONTAINER_OF(w, struct lane_call, work);

    c->fn(c);
}

static int lane_run(struct lane *l, void (*fn)(struct lane_call *c), int argument)
{
    struct lane_call c = {.work = {.run = on_call}, .lane = l, .fn = fn, .argument = argument};

    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.ended, NULL);
    queue_post(l->q, &c.work);
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.ended, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_mutex_destroy(&c.lock);
    pthread_cond_destroy(&c.ended);
    return c.result;
}

/* ---- answers */

static void call_driver(struct lane *l)
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
        call_driver(l);
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
        call_driver(l);
    }
    return n;
}

/* What a server that died before us has left. */
static void serve_left(struct lane *l)
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

static void *lane_main(void *argument)
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

/* ---- start and stop */

static void *area(struct lane *l, uint64_t user, size_t bytes, unsigned alignment)
{
    void *p = memory_map_user(&l->v->memory, user, bytes);

    return (uintptr_t)p % alignment ? NULL : p;
}

static int place_ring(struct lane *l)
{
    struct device_ring *r = &l->ring;

    r->memory = &l->v->memory;
    r->packed = l->v->features & QZ_BIT(34);    /* VIRTIO_F_RING_PACKED */
    r->event_idx = l->v->features & QZ_BIT(29); /* VIRTIO_RING_F_EVENT_IDX */
    r->indirect = l->v->features & QZ_BIT(28);  /* VIRTIO_RING_F_INDIRECT_DESC */
    r->size = l->size;
    if (!l->size || (!r->packed && l->size & (l->size - 1)))
        return -EINVAL;
    r->desc = area(l, l->desc_user, ring_desc_bytes(r), 16);
    r->driver = area(l, l->driver_user, ring_driver_bytes(r), r->packed ? 4 : 2);
    r->device = area(l, l->device_user, ring_device_bytes(r), 4);
    return r->desc && r->driver && r->device ? 0 : -EINVAL;
}

static void free_slots(struct lane *l)
{
    free(l->slots);
    free(l->busy);
    l->slots = l->free = NULL;
    l->busy = NULL;
}

static int make_slots(struct lane *l)
{
    free_slots(l);
    l->slots = calloc(l->size, sizeof(*l->slots));
    l->busy = calloc(l->size, 1);
    if (!l->slots || !l->busy)
        return -ENOMEM;
    for (unsigned i = l->size; i-- > 0;) {
        l->slots[i].lane = l;
        l->slots[i].next = l->free;
        l->free = &l->slots[i];
    }
    return 0;
}

static void start_main(struct lane_call *c)
{
    struct lane *l = c->lane;

    c->result = place_ring(l);
    if (c->result == 0)
        c->result = make_slots(l);
    if (c->result == 0) {
        ring_start(&l->ring, l->base);
        l->running = true;
        l->poll_ns = POLL_MAX_NS;
        if (l->inflight)
            serve_left(l);
        call_driver(l);
    }
    lane_call_done(c);
}

int lane_start(struct lane *l)
{
    int r = lane_run(l, start_main, 0);

    if (r < 0)
        qz_warn("vhost-user: queue %u: its ring (size %u) lies outside of the memory shown: %s",
                l->index, l->size, strerror(-r));
    return r;
}

static void cancel_kick(struct lane *l)
{
    struct io_uring_sqe *sqe;

    if (!l->kick_armed)
        return;
    sqe = queue_sqe(l->q, NULL);
    io_uring_prep_cancel(sqe, &l->kick_io, 0);
    queue_kick(l->q);
}

static void drain_main(struct lane_call *c)
{
    struct lane *l = c->lane;

    l->enabled = false; /* nothing is taken from here on */
    if (l->in_flight)
        l->draining = c; /* the last one ends it */
    else
        lane_call_done(c);
}

/* The kick's read may end only after its cancellation did. */
static void stop_main(struct lane_call *c)
{
    struct lane *l = c->lane;

    if (l->kick_armed) {
        cancel_kick(l);
        queue_post(l->q, &c->work);
        return;
    }
    l->running = false;
    call_driver(l);
    free_slots(l);
    lane_call_done(c);
}

uint32_t lane_stop(struct lane *l)
{
    if (l->running) { /* written by the lane while we waited for it, so ours to read */
        lane_run(l, drain_main, 0);
        lane_run(l, stop_main, 0);
        l->base = ring_base(&l->ring);
    }
    return l->base;
}

static void enable_main(struct lane_call *c)
{
    c->lane->enabled = c->argument;
    lane_call_done(c);
}

void lane_enable(struct lane *l, bool on)
{
    lane_run(l, enable_main, on);
}

static void call_fd_main(struct lane_call *c)
{
    if (c->lane->call_fd >= 0)
        close(c->lane->call_fd);
    c->lane->call_fd = c->argument;
    if (c->lane->running)
        call_driver(c->lane); /* what the old one did not hear */
    lane_call_done(c);
}

void lane_set_call(struct lane *l, int fd)
{
    lane_run(l, call_fd_main, fd);
}

int lane_init(struct lane *l, struct vhost *v, unsigned index, struct qz_error *err)
{
    int r;

    l->v = v;
    l->index = index;
    l->kick_fd = l->call_fd = l->err_fd = -1;
    r = queue_new(&l->q, 256, err);
    if (r < 0)
        return r;
    r = pthread_create(&l->thread, NULL, lane_main, l);
    if (r)
        return qz_fail(err, -r, "vhost-user: cannot start a thread: %s", strerror(r));
    l->has_thread = true;
    return 0;
}

static void quit_main(struct lane_call *c)
{
    c->lane->quit = true;
    lane_call_done(c);
}

void lane_end(struct lane *l)
{
    if (l->has_thread) {
        lane_stop(l);
        lane_run(l, quit_main, 0);
        pthread_join(l->thread, NULL);
    }
    queue_free(l->q);
    free_slots(l);
    for (unsigned i = 0; i < 3; i++) {
        int *fd = i == 0 ? &l->kick_fd : i == 1 ? &l->call_fd : &l->err_fd;

        if (*fd >= 0)
            close(*fd);
        *fd = -1;
    }
}

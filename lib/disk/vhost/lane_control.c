/* lane_control.c - starting and stopping a lane, from the control thread (vhost.h). */
#include <liburing.h>

#include "lane_internal.h"

void lane_call_done(struct lane_call *c)
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
            lane_serve_left(l);
        lane_call_driver(l);
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
    lane_call_driver(l);
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
        lane_call_driver(c->lane); /* what the old one did not hear */
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

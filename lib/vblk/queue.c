/*
 * queue.c - the I/O path: submit, poll, arm.
 */
#include "queue.h"
#include "stats.h"

static uint64_t now_of(const struct vblk_queue *q)
{
    return q->platform->now_ns(q->platform->ctx);
}

static void doorbell(struct vblk_queue *q)
{
    struct vblk_transport *t = q->dev->transport;

    q->stats.doorbells++;
    t->ops->notify(t, q->index, ring_notification(q));
}

static void publish(struct vblk_queue *q)
{
    if (ring_publish(q))
        doorbell(q);
}

void queue_break(struct vblk_queue *q, const char *why, uint64_t a, uint64_t b)
{
    if (!q->broken)
        note(q->platform, VBLK_LOG_ERROR, why, a, b);
    q->broken = true;
}

static void hand_out(struct vblk_queue *q, struct vblk_request *r)
{
    r->next = NULL;
    if (q->finished)
        q->finished_last->next = r;
    else
        q->finished = r;
    q->finished_last = r;
}

void queue_fail(struct vblk_queue *q, struct vblk_request *r, int status)
{
    r->status = status;
    q->stats.errors++;
    q->stats.timeouts += status == -VBLK_ETIMEDOUT;
    hand_out(q, r);
}

/* Into the ring, with what is kept beside it. The caller knows that there is room. */
static inline int put(struct vblk_queue *q, struct vblk_request *r, uint64_t now)
{
    int rc = request_put(q, r);

    if (rc == 0 && q->latency)
        q->started_ns[q->last_slot] = now;
    return rc;
}

void queue_dispatch(struct vblk_queue *q)
{
    enum vblk_scheduler by = q->dev->config.scheduler;
    uint64_t now = q->latency ? now_of(q) : 0;
    struct vblk_request *r;

    while ((r = waiting_peek(&q->waiting, by)) && ring_has_room(q, request_descs(q, r))) {
        int rc;

        waiting_pop(&q->waiting, by);
        rc = put(q, r, now);
        if (rc < 0)
            queue_fail(q, r, rc);
        else if (!q->batch)
            publish(q);
    }
    publish(q);
}

int qz_vblk_submit(struct vblk_queue *q, struct vblk_request *const *requests, unsigned n)
{
    uint64_t now = 0;
    unsigned i;

    if (__builtin_expect(!q->running || q->broken, 0))
        return q->broken ? -VBLK_EPROTO : -VBLK_ENODEV;
    if (q->latency)
        now = now_of(q);
    for (i = 0; i < n; i++) {
        struct vblk_request *r = requests[i];
        int rc = request_is_plain(q, r) ? 0 : request_check(q, r);

        if (rc == 0) {
            r->status = VBLK_PENDING;
            r->attempts = 0;
            if (q->waiting.count || !ring_has_room(q, request_descs(q, r)))
                waiting_push(&q->waiting, q->dev->config.scheduler, r);
            else
                rc = put(q, r, now);
        }
        if (__builtin_expect(rc < 0, 0)) {
            r->status = rc;
            break;
        }
        if (__builtin_expect(!q->batch, 0))
            publish(q);
    }
    publish(q);
    stats_submitted(q, i);
    return (int)i;
}

/* One slot that the device says it has used. 1 and the request, or -VBLK_EPROTO. */
static inline int complete(struct vblk_queue *q, unsigned slot, uint32_t len,
                           struct vblk_request **done, uint64_t *now)
{
    struct vblk_request *r = q->slots[slot].request;

    if (__builtin_expect(len > q->slots[slot].writable, 0)) {
        /* The ring has moved on, but the request stays in its slot for recovery. */
        queue_break(q, "vblk: the device claims more bytes than it was given (slot, length)", slot,
                    len);
        return -VBLK_EPROTO;
    }
    r->status = request_result(q, slot, r);
    if (q->latency) {
        if (!*now)
            *now = now_of(q);
        stats_latency(&q->stats, *now - q->started_ns[slot]);
    }
    stats_completed(q, r);
    slot_release(q, slot);
    q->in_flight--;
    *done = r;
    return 1;
}

static unsigned poll_split(struct vblk_queue *q, struct vblk_request **done, unsigned max,
                           uint64_t *now)
{
    int limit = split_used_limit(q), rc = 0;
    struct used u;
    unsigned n = 0;

    if (limit < 0) {
        queue_break(q, "vblk: the used index ran away (used so far, in flight)", q->split.used_next,
                    q->in_flight);
        return 0;
    }
    while (n < max && (rc = split_pop(q, (uint16_t)limit, &u)) > 0 &&
           (rc = complete(q, u.slot, u.len, &done[n], now)) > 0)
        n++;
    if (rc < 0)
        queue_break(q, "vblk: the device used a buffer that it does not have (place)",
                    q->split.used_next, 0);
    return n;
}

static unsigned poll_packed(struct vblk_queue *q, struct vblk_request **done, unsigned max,
                            uint64_t *now)
{
    unsigned n = 0, run = q->indirect ? packed_used_run(q, max) : 0;
    struct used u;
    int rc = 0;

    while (n < run && (rc = packed_take(q, &u)) > 0 &&
           (rc = complete(q, u.slot, u.len, &done[n], now)) > 0)
        n++;
    while (!q->indirect && n < max && (rc = packed_pop(q, &u)) > 0 &&
           (rc = complete(q, u.slot, u.len, &done[n], now)) > 0)
        n++;
    if (rc < 0)
        queue_break(q, "vblk: the device used a buffer that it does not have (place)",
                    q->ring.used_next, 0);
    return n;
}

static unsigned poll_in_order(struct vblk_queue *q, struct vblk_request **done, unsigned max,
                              uint64_t *now)
{
    unsigned n = 0;
    int rc = 0;

    while (n < max) {
        if (q->batch_left == 0) {
            struct used u;

            rc = ring_pop_in_order(q, &u, &q->batch_left);
            if (rc <= 0)
                break;
            q->batch_len = u.len;
        }
        /* The used entry speaks of the last; the others were written in full (§2.7.9). */
        unsigned slot = q->oldest, next = slot_after(q, slot);

        rc = complete(q, slot, q->batch_left == 1 ? q->batch_len : 0, &done[n], now);
        if (rc < 0)
            break;
        q->oldest = next;
        q->batch_left--;
        n++;
    }
    if (rc < 0)
        queue_break(q, "vblk: a buffer was used out of order (oldest)", q->oldest, 0);
    return n;
}

static unsigned poll_ring(struct vblk_queue *q, struct vblk_request **done, unsigned max,
                          uint64_t *now)
{
    if (q->in_order)
        return poll_in_order(q, done, max, now);
    return q->packed ? poll_packed(q, done, max, now) : poll_split(q, done, max, now);
}

void queue_harvest(struct vblk_queue *q)
{
    struct vblk_request *done[16];
    uint64_t now = 0;
    unsigned n;

    while (q->in_flight && !q->broken && (n = poll_ring(q, done, 16, &now)) != 0) {
        q->stats.requests += n;
        for (unsigned i = 0; i < n; i++)
            hand_out(q, done[i]);
    }
}

int qz_vblk_poll(struct vblk_queue *q, struct vblk_request **done, unsigned max)
{
    uint64_t now = 0;
    unsigned n = 0, before;

    for (; __builtin_expect(q->finished != NULL, 0) && n < max; n++) {
        done[n] = q->finished;
        q->finished = q->finished->next;
    }
    if (__builtin_expect(!q->running || q->broken, 0)) {
        if (n || max == 0)
            return (int)n;
        return q->broken ? -VBLK_EPROTO : q->in_flight ? -VBLK_ENODEV : 0;
    }
    before = n;
    n += poll_ring(q, done + n, max - n, &now);
    stats_polled(q, n - before);
    if (n > before && q->armed) {
        ring_disarm(q);
        q->armed = false;
    }
    if (__builtin_expect(q->waiting.count != 0, 0) && !q->broken)
        queue_dispatch(q);
    return n == 0 && q->broken ? -VBLK_EPROTO : (int)n;
}

/*
 * Half of what is in flight, up to the threshold: a shallow queue is not kept waiting, a deep one
 * gives few interrupts.
 */
static unsigned coalesce_after(const struct vblk_queue *q)
{
    unsigned after = q->in_flight / 2, most = q->dev->config.coalesce_threshold;

    if (after > most)
        after = most;
    return after ? after : 1;
}

bool qz_vblk_arm(struct vblk_queue *q, uint64_t *wait_ns)
{
    unsigned after = q->event_idx ? coalesce_after(q) : 1;

    if (wait_ns)
        *wait_ns = after > 1 ? q->dev->config.coalesce_time_us * UINT64_C(1000) : 0;
    if (q->finished || q->broken)
        return true;
    if (!q->running)
        return false;
    q->armed = true;
    return ring_arm(q, after);
}

unsigned qz_vblk_pending(const struct vblk_queue *q)
{
    unsigned n = q->in_flight + q->waiting.count;

    for (const struct vblk_request *r = q->finished; r; r = r->next)
        n++;
    return n;
}

unsigned qz_vblk_expire(struct vblk_queue *q)
{
    uint64_t now = now_of(q);
    struct vblk_request *r, *next;
    unsigned late = 0;

    for (r = waiting_take(&q->waiting, q->dev->config.scheduler, false, now); r; r = next) {
        next = r->next;
        queue_fail(q, r, -VBLK_ETIMEDOUT);
    }
    for (unsigned i = 0, seen = 0; i < q->size && seen < q->in_flight; i++) {
        r = q->slots[i].request;
        seen += r != NULL;
        late += r && r->deadline_ns && r->deadline_ns <= now;
    }
    return late;
}

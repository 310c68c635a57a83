/*
 * recover.c - a device or a queue that no longer answers, talks nonsense or asks for a reset.
 *
 * What the device had finished by then is kept as finished. Everything else that it held waits, in
 * private memory that the device cannot reach, until the rings stand again; then each request is
 * given to the device again or ended, by policy. A request is thus never lost and never ends twice.
 * When the device does not come back the requests go on waiting, for the next attempt or for
 * qz_vblk_stop(). A device that was only lost, and whose transport says that it can go on where it
 * was, needs none of that.
 */
#include "device.h"

bool qz_vblk_needs_recovery(struct vblk_device *dev)
{
    struct vblk_transport *t = dev->transport;

    if (!dev->started)
        return false;
    for (unsigned i = 0; i < dev->config.queue_count; i++)
        if (dev->queues[i].broken)
            return true;
    return t->ops->get_status(t) & STATUS_NEEDS_RESET;
}

/* Why a request that the device held does not get another try; 0: it does. */
static int verdict(const struct vblk_queue *q, const struct vblk_request *r, uint64_t now)
{
    if (r->deadline_ns && r->deadline_ns <= now)
        return -VBLK_ETIMEDOUT;
    if (q->dev->config.recovery == VBLK_RECOVER_FAIL)
        return -VBLK_EIO;
    /* An append that was done and not reported would be done twice. */
    if (r->attempts && (r->op == VBLK_OP_ZONE_APPEND || r->attempts >= ATTEMPTS_MAX))
        return -VBLK_EIO;
    return 0;
}

static void retry(struct vblk_queue *from, struct vblk_queue *to, struct vblk_request *list,
                  uint64_t now)
{
    struct vblk_request *next;

    for (struct vblk_request *r = list; r; r = next) {
        int rc = r->attempts ? verdict(from, r, now) : 0;

        next = r->next;
        if (rc == 0)
            rc = request_check(to, r); /* the device may have come back smaller */
        if (rc < 0) {
            queue_fail(from, r, rc);
            continue;
        }
        from->stats.resubmitted += r->attempts != 0;
        waiting_push(&to->waiting, to->dev->config.scheduler, r);
    }
}

/* What waited and what the device held, the latter first, in one list. */
static struct vblk_request *take_all(struct vblk_queue *q)
{
    struct vblk_request *list = queue_take_in_flight(q), **tail = &list;

    while (*tail)
        tail = &(*tail)->next;
    *tail = waiting_take(&q->waiting, q->dev->config.scheduler, true, 0);
    return list;
}

static void park(struct vblk_queue *q, struct vblk_request *list)
{
    struct vblk_request *next;

    for (struct vblk_request *r = list; r; r = next) {
        next = r->next;
        waiting_push(&q->waiting, q->dev->config.scheduler, r);
    }
}

/* What must not be done twice, or was in hand at too many losses, needs the reset's verdict. */
static bool resumable(const struct vblk_queue *q)
{
    if (q->broken)
        return false;
    for (unsigned i = 0; i < q->size; i++) {
        const struct vblk_request *r = q->slots[i].request;

        if (r && (r->op == VBLK_OP_ZONE_APPEND || r->attempts >= ATTEMPTS_MAX))
            return false;
    }
    return true;
}

static int queue_resume(struct vblk_queue *q)
{
    struct vblk_transport *t = q->dev->transport;
    int rc = t->ops->queue_resume(t, q->index, ring_used_position(q));

    for (unsigned i = 0; rc == 0 && i < q->size; i++)
        if (q->slots[i].request)
            q->slots[i].request->attempts++;
    return rc;
}

/* A device that comes back with its rings as they were. */
static int resume(struct vblk_device *dev)
{
    struct vblk_transport *t = dev->transport;
    bool writeback = dev->info.writeback;
    int rc;

    if (!t->ops->resume)
        return -VBLK_ENOTSUP;
    for (unsigned i = 0; i < dev->info.queues; i++)
        if (!resumable(&dev->queues[i]))
            return -VBLK_ENOTSUP;
    rc = t->ops->resume(t);
    if (rc == 0)
        rc = qz_vblk_reread_config(dev);
    /* Before the first request runs: what it acknowledges must be as durable as before. */
    if (rc >= 0 && dev->info.writeback != writeback)
        rc = qz_vblk_set_writeback(dev, writeback);
    for (unsigned i = 0; rc >= 0 && i < dev->info.queues; i++)
        rc = queue_resume(&dev->queues[i]);
    if (rc < 0)
        return rc;
    dev->info.resumes++;
    return 0;
}

int qz_vblk_recover(struct vblk_device *dev)
{
    unsigned n = dev->config.queue_count;
    uint64_t now = dev->platform->now_ns(dev->platform->ctx);
    int rc;

    if (!dev->started)
        return -VBLK_ENODEV;
    rc = resume(dev);
    if (rc == 0 || rc == -VBLK_ENODEV)
        return rc;
    rc = device_reset(dev);
    dev->info.resets++;
    for (unsigned i = 0; i < n; i++) {
        struct vblk_queue *q = &dev->queues[i];

        queue_harvest(q);
        park(q, take_all(q));
    }
    if (rc == 0)
        rc = device_bring_up(dev);
    if (rc < 0) {
        note(dev->platform, VBLK_LOG_ERROR, "vblk: the device did not come back (error, resets)",
             (uint64_t)-rc, dev->info.resets);
        for (unsigned i = 0; i < n; i++)
            dev->queues[i].broken = true;
        return rc;
    }
    for (unsigned i = 0; i < n; i++) {
        struct vblk_queue *q = &dev->queues[i];
        struct vblk_request *list = waiting_take(&q->waiting, dev->config.scheduler, true, 0);

        q->broken = false;
        retry(q, &dev->queues[i % dev->info.queues], list, now);
    }
    for (unsigned i = 0; i < dev->info.queues; i++)
        queue_dispatch(&dev->queues[i]);
    return 0;
}

int qz_vblk_queue_recover(struct vblk_queue *q)
{
    struct vblk_device *dev = q->dev;
    struct vblk_transport *t = dev->transport;
    unsigned depth = q->size;
    struct vblk_request *list;
    int rc;

    if (!dev->started || !q->running)
        return -VBLK_ENODEV;
    if (!(dev->info.features & VBLK_BIT(VBLK_F_RING_RESET)))
        return -VBLK_ENOTSUP;
    rc = t->ops->queue_reset(t, q->index);
    if (rc == -VBLK_ENOTSUP) /* it runs on, untouched */
        return rc;
    if (rc < 0) { /* the queue did not stop: only a reset of the device takes its memory away */
        queue_break(q, "vblk: the device does not reset the queue (queue, error)", q->index,
                    (uint64_t)-rc);
        return rc;
    }
    queue_harvest(q);
    list = take_all(q);
    rc = queue_build(q, depth);
    if (rc == 0)
        rc = t->ops->queue_enable(t, q->index, depth, &q->addresses, dev->config.interrupts);
    if (rc < 0) {
        park(q, list);
        queue_break(q, "vblk: the queue did not come back (queue, error)", q->index, (uint64_t)-rc);
        return rc;
    }
    retry(q, q, list, dev->platform->now_ns(dev->platform->ctx));
    queue_dispatch(q);
    return 0;
}

/*
 * submit.c - the way in: at once when the tables are in memory and the bytes lie together,
 * in a task otherwise.
 */
#include "image.h"

enum { PENDING_MAX = 4096 };

/* ---- the fast path: one request below stands for the guest's */

static void handed_on_done(struct request *r, int result)
{
    struct qcow2_io *io = QZ_CONTAINER_OF(r, struct qcow2_io, r);
    struct request *parent = io->parent;
    struct qcow2 *i = io->image;
    struct disk_queue *q = io->queue;

    qcow2_leave(i, q, io->phase);
    qcow2_io_put(io);
    parent->done(parent, result);
}

static bool hand_on(struct qcow2 *i, struct disk_queue *q, struct layer *to, struct request *r,
                    uint64_t offset, uint32_t phase)
{
    struct qcow2_io *io;

    if (offset + r->length > __atomic_load_n(&to->info.size, __ATOMIC_RELAXED))
        return false;
    io = qcow2_io_get(i, q);
    if (!io)
        return false;
    io->r = (struct request){.op = r->op,
                             .flags = r->flags,
                             .offset = offset,
                             .length = r->length,
                             .iov = r->iov,
                             .iov_count = r->iov_count,
                             .done = handed_on_done};
    io->parent = r;
    io->phase = phase;
    layer_submit(to, q, &io->r);
    return true;
}

static bool fast_read(struct qcow2 *i, struct disk_queue *q, struct request *r, uint32_t phase)
{
    struct qcow2_run run;

    if (qcow2_map_peek(i, r->offset, r->length, &run) || run.length < r->length)
        return false;
    if (run.kind == QCOW2_DATA)
        return !i->crypto && hand_on(i, q, i->data, r, run.host, phase);
    if (run.kind == QCOW2_PACKED)
        return false;
    if (run.kind == QCOW2_HOLE && i->layer.backing)
        return hand_on(i, q, i->layer.backing, r, r->offset, phase);
    iov_fill(r->iov, r->iov_count, 0, 0, r->length);
    qcow2_leave(i, q, phase);
    r->done(r, 0);
    return true;
}

static bool fast_write(struct qcow2 *i, struct disk_queue *q, struct request *r, uint32_t phase)
{
    struct qcow2_run run;

    if (i->crypto || i->layer.info.readonly || atomic_load(&i->corrupt) ||
        atomic_load(&i->untouched) || qcow2_map_peek(i, r->offset, r->length, &run) ||
        run.length < r->length || run.kind != QCOW2_DATA || !run.copied)
        return false;
    return hand_on(i, q, i->data, r, run.host, phase);
}

static bool fast_flush(struct qcow2 *i, struct disk_queue *q, struct request *r, uint32_t phase)
{
    struct qcow2_io *io;

    if (i->data != i->layer.below || qcow2_commit_needed(i) || qcow2_release_pending(i))
        return false;
    io = qcow2_io_get(i, q);
    if (!io)
        return false;
    io->r = (struct request){.op = DISK_FLUSH, .done = handed_on_done};
    io->parent = r;
    io->phase = phase;
    layer_submit(i->layer.below, q, &io->r);
    return true;
}

/* ---- in a task */

static int perform(struct qcow2 *i, struct disk_queue *q, struct request *r)
{
    switch (r->op) {
    case DISK_READ:
        return qcow2_read(i, q, r->offset, r->iov, r->iov_count, r->length);
    case DISK_WRITE:
        return qcow2_write(i, q, r->offset, r->iov, r->iov_count, r->length);
    case DISK_FLUSH:
        return qcow2_commit(i, q, true);
    case DISK_DISCARD:
        return qcow2_discard(i, q, r->offset, r->length);
    case DISK_WRITE_ZEROES:
        return qcow2_zero(i, q, r->offset, r->length, r->flags);
    default:
        return -ENOTSUP;
    }
}

/* Space may be there that only waits for the next flush to be free again. */
static int reclaim(struct qcow2 *i, struct disk_queue *q)
{
    int rc = qcow2_commit(i, q, true);

    if (rc)
        return rc;
    task_mutex_lock(&i->lock);
    rc = qcow2_release_settle(i, q);
    task_mutex_unlock(&i->lock);
    return rc;
}

static void in_task(struct disk_queue *q, void *argument)
{
    struct request *r = argument;
    struct qcow2 *i = (struct qcow2 *)(uintptr_t)r->scratch[0];
    bool changes = r->op == DISK_WRITE || r->op == DISK_DISCARD || r->op == DISK_WRITE_ZEROES;
    uint32_t phase = qcow2_begin(i, q);
    int rc = changes && i->layer.info.readonly ? -EROFS : 0;

    if (!rc && changes && atomic_load(&i->untouched))
        rc = qcow2_touch(i, q);
    if (!rc)
        rc = perform(i, q, r);

    if (rc == -ENOSPC && qcow2_release_pending(i)) {
        /* Outside, so that what this request itself keeps from being free is given back too. */
        qcow2_leave(i, q, phase);
        rc = reclaim(i, q);
        phase = qcow2_begin(i, q);
        if (!rc)
            rc = perform(i, q, r);
    }
    if (!rc && changes && ((r->flags & REQUEST_FUA) || qcow2_release_crowded(i, PENDING_MAX)))
        rc = qcow2_commit(i, q, true);
    qcow2_leave(i, q, phase);
    r->done(r, rc);
}

void qcow2_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct qcow2 *i = qcow2_of(l);
    bool done = false;
    uint32_t phase;

    if (i->header.crypt && !i->crypto) {
        /* Opened for a check, without the key. */
        r->done(r, -EACCES);
        return;
    }
    phase = qcow2_enter(i, q);
    if (!atomic_load(&i->closed)) {
        if (r->op == DISK_READ)
            done = fast_read(i, q, r, phase);
        else if (r->op == DISK_WRITE)
            done = fast_write(i, q, r, phase);
        else if (r->op == DISK_FLUSH)
            done = fast_flush(i, q, r, phase);
    }
    if (done)
        return;
    qcow2_leave(i, q, phase);
    r->scratch[0] = (uintptr_t)i;
    if (task_start(q, in_task, r))
        r->done(r, -ENOMEM);
}

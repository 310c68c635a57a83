/*
 * virtio_blk_error.c - what becomes of a request that the host failed: the guest is told, the
 * machine stops and it is tried again, or it counts as done (virtio_blk_internal.h).
 */
#include "devices/virtio/virtio_blk_internal.h"

/* Mistakes of a request itself, which no repair of the medium makes good: always told. */
static bool is_mistake(int error)
{
    return error == -EINVAL || error == -ENOTSUP || error == -EROFS;
}

static void describe(const struct slot *s, int error, char *text, size_t size)
{
    static const char *const names[BLOCK_OPS] = {"read",    "write",           "flush",
                                                 "discard", "write of zeroes", "secure erase"};
    const struct block_request *r = &s->request;

    if (r->op == BLOCK_FLUSH)
        snprintf(text, size, "flush: %s", strerror(-error));
    else
        snprintf(text, size, "%s of %llu bytes at %llu: %s", names[r->op],
                 (unsigned long long)r->length, (unsigned long long)r->offset, strerror(-error));
}

static void keep(struct slot *s, int error)
{
    struct blk *b = s->blk;
    struct blk_queue *q = &b->queue[s->queue];
    struct blk_lane *lane = lane_of(b, s->queue);
    struct slot **end = &q->kept;

    while (*end) /* in the order in which they failed */
        end = &(*end)->next;
    s->next = NULL;
    *end = s;
    q->stats.stops++;
    describe(s, error, lane->kept_text, sizeof(lane->kept_text));
    if (lane->kept++ == 0)
        qz_error_log("disk %s: %s: the machine pauses and the request is kept: %s, then resume the "
                     "machine and it is tried again",
                     b->d.label, lane->kept_text,
                     error == -ENOSPC || error == -EDQUOT ? "make room"
                                                          : "repair what the disk is on");
    b->stopped(b->context, &b->d);
}

enum blk_verdict blk_judge(struct slot *s, int error)
{
    static struct qz_ratelimit told;
    struct blk *b = s->blk;
    char text[200];

    if (b->on_error == VIRTIO_BLK_REPORT || is_mistake(error))
        return BLK_REPORT;
    if (b->on_error == VIRTIO_BLK_STOP) {
        keep(s, error);
        return BLK_KEEP;
    }
    if (s->request.op == BLOCK_READ) /* there are no bytes to pretend with */
        return BLK_REPORT;
    b->queue[s->queue].stats.ignored++;
    describe(s, error, text, sizeof(text));
    if (qz_ratelimit_ok(&told))
        qz_warn("disk %s: %s: ignored (on-error=ignore), the guest believes it done", b->d.label,
                text);
    return BLK_IGNORE;
}

void blk_forget_kept(struct blk *b, unsigned queue)
{
    struct blk_queue *q = &b->queue[queue];

    while (q->kept) {
        struct slot *s = q->kept;

        q->kept = s->next;
        q->in_flight--;
        lane_of(b, queue)->kept--;
        blk_release(s);
    }
}

static void retry(struct qz_work *w)
{
    struct blk_lane *lane = QZ_CONTAINER_OF(w, struct blk_lane, retry);
    struct blk *b = lane->blk;
    QZ_LOCKED(virtio_queue_lock(&b->d, lane->index));

    lane->locked = true;
    for (unsigned i = lane->index; i < b->d.queue_count; i += b->lanes) {
        struct slot *s = b->queue[i].kept, *next;

        b->queue[i].kept = NULL; /* what fails again is on a new list */
        for (; s; s = next) {
            next = s->next;
            lane->kept--;
            blk_again(s);
        }
    }
    b->backend->ops->submit(b->backend, lane->index);
    lane->locked = false;
}

void virtio_blk_retry(struct virtio_device *d)
{
    struct blk *b = blk_of(d);

    if (!virtio_blk_kept(d, NULL, 0))
        return;
    for (unsigned i = 0; i < b->lanes; i++)
        qz_loop_post(b->loops[i], &b->lane[i].retry, retry);
}

unsigned virtio_blk_kept(struct virtio_device *d, char *text, size_t size)
{
    struct blk *b = blk_of(d);
    unsigned kept = 0;

    for (unsigned i = 0; i < b->lanes; i++) {
        QZ_LOCKED(virtio_queue_lock(d, i));

        if (b->lane[i].kept && text)
            snprintf(text, size, "%s", b->lane[i].kept_text);
        kept += b->lane[i].kept;
    }
    return kept;
}

/*
 * conform.c - running a check, and what all checks use.
 */
#include "checks.h"

/* As long as a device on a busy host may take for an answer, and for none. */
#define WAIT_NS UINT64_C(5000000000)
enum { QUIET_NS = 20000000 };

bool conform_used(const struct vblk_queue *q)
{
    return q->packed ? packed_is_used(q) : shared_load16(&q->split.used->idx) != q->split.used_next;
}

bool conform_wait(struct conform *c, struct vblk_queue *q, unsigned slot)
{
    const struct vblk_platform *p = c->dev->platform;
    uint64_t until = p->now_ns(p->ctx) + WAIT_NS;
    struct vblk_request *r;
    struct used u;
    int rc = 0;

    if (ring_publish(q))
        c->dev->transport->ops->notify(c->dev->transport, q->index, ring_notification(q));
    while (rc == 0 && p->now_ns(p->ctx) < until) {
        int limit = q->packed ? 0 : split_used_limit(q);

        rc = limit < 0 ? limit : q->packed ? packed_pop(q, &u) : split_pop(q, (uint16_t)limit, &u);
    }
    if (rc != 1 || u.slot != slot)
        return false;
    r = q->slots[slot].request;
    request_result(q, slot, r);
    c->status = r->device_status;
    c->len = u.len;
    slot_release(q, slot);
    q->in_flight--;
    return true;
}

bool conform_raw(struct conform *c, struct vblk_request *r)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);

    return request_put(q, r) == 0 && conform_wait(c, q, q->last_slot);
}

bool conform_move(struct conform *c, uint32_t op, uint64_t sector, uint32_t len)
{
    return conform_raw(c, &(struct vblk_request){
                              .op = op, .count = 1, .sector = sector, .segment = {c->data, len}});
}

void conform_fill(struct conform *c, uint8_t with, unsigned len)
{
    __builtin_memset(c->data, with, len);
}

bool conform_holds(const struct conform *c, uint8_t what, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (c->data[i] != what)
            return false;
    return true;
}

bool conform_address(const struct conform *c, uint64_t *addr)
{
    const struct vblk_platform *p = c->dev->platform;

    if (p->dma_translate)
        return p->dma_translate(p->ctx, c->data, CONFORM_DATA, addr) == 0;
    *addr = (uintptr_t)c->data + p->dma_offset;
    return true;
}

void conform_quiet(struct conform *c)
{
    const struct vblk_platform *p = c->dev->platform;
    uint64_t until = p->now_ns(p->ctx) + QUIET_NS;

    while (p->now_ns(p->ctx) < until)
        if (p->relax)
            p->relax(p->ctx);
}

bool conform_restart(struct conform *c, uint64_t off)
{
    c->dev->config.features_off |= off;
    for (unsigned i = 0; i < c->dev->config.queue_count; i++)
        queue_take_in_flight(&c->dev->queues[i]);
    return qz_vblk_recover(c->dev) == 0;
}

enum conform_result conform_run(struct conform *c, const struct conform_demand *d)
{
    uint64_t off = c->dev->config.features_off;
    enum conform_result r;

    c->why = d->unchecked;
    if (!d->check)
        return CONFORM_UNCHECKED;
    r = d->check(c);
    c->dev->config.features_off = off;
    if (!conform_restart(c, 0))
        return fail(c, "the device did not come back from a reset afterwards");
    return r;
}

/*
 * ring.c - rings: layout, setting up, publishing, events, chains without indirection.
 */
#include "ring.h"

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

void ring_layout(bool packed, unsigned size, struct ring_layout *l)
{
    /* Parts written by different sides never share a cache line. */
    l->driver = (size_t)size * 16;
    if (packed) {
        l->driver = align_up(l->driver, CACHE_LINE);
        l->device = l->driver + CACHE_LINE;
        l->total = l->device + CACHE_LINE;
    } else {
        l->driver = align_up(l->driver, CACHE_LINE);
        l->device = align_up(l->driver + 6 + 2 * (size_t)size, CACHE_LINE);
        l->total = align_up(l->device + 6 + 8 * (size_t)size, CACHE_LINE);
    }
}

void ring_clear(struct vblk_queue *q)
{
    q->free_descs = q->size;
    q->in_flight = 0;
    q->oldest = 0;
    q->free_slot = 0;
    for (unsigned i = 0; i < q->size; i++)
        q->slots[i] = (struct slot){.next = i + 1u < q->size ? i + 1u : NO_SLOT};
    if (q->packed) {
        __builtin_memset(q->ring.desc, 0, (size_t)q->size * sizeof(struct packed_desc));
        q->ring.avail_next = q->ring.used_next = 0;
        q->ring.head = NO_SLOT;
        q->ring.avail_flags = PACKED_AVAIL; /* both wrap counters begin at 1 (§2.8.1) */
        q->ring.used_wrap = true;
        *q->ring.device = (struct packed_event){0};
    } else {
        q->split.avail_next = q->split.published = q->split.used_next = 0;
        shared_store16(&q->split.avail->idx, 0);
        shared_store16(&q->split.used->idx, 0);
        shared_store16(&q->split.used->flags, 0);
    }
    ring_disarm(q);
}

void ring_init(struct vblk_queue *q, void *memory, uint64_t addr)
{
    struct ring_layout l;
    uint8_t *base = memory;

    ring_layout(q->packed, q->size, &l);
    q->mask = q->size - 1;
    q->addresses = (struct vblk_ring_addresses){.desc = addr,
                                                .packed = q->packed,
                                                .driver = addr + l.driver,
                                                .device = addr + l.device,
                                                .desc_cpu = base,
                                                .driver_cpu = base + l.driver,
                                                .device_cpu = base + l.device};
    if (q->packed) {
        q->ring.desc = memory;
        q->ring.driver = (void *)(base + l.driver);
        q->ring.device = (void *)(base + l.device);
    } else {
        q->split.desc = memory;
        q->split.avail = (void *)(base + l.driver);
        q->split.used = (void *)(base + l.device);
    }
    ring_clear(q);
}

uint16_t ring_used_position(const struct vblk_queue *q)
{
    if (q->packed)
        return q->ring.used_next | (q->ring.used_wrap ? 0x8000 : 0);
    return shared_load16(&q->split.used->idx);
}

static void push_direct_split(struct vblk_queue *q, unsigned slot, const struct piece *pieces,
                              unsigned n)
{
    unsigned at = slot;

    for (unsigned i = 0; i < n; i++) {
        unsigned next = q->in_order ? (at + 1) & q->mask : q->slots[at].next;
        bool last = i + 1 == n;
        uint16_t flags = (last ? 0 : DESC_NEXT) | (pieces[i].write ? DESC_WRITE : 0);
        uint64_t word = desc_word_split(pieces[i].len, flags, last ? 0 : next);

        q->split.desc[at].addr = le64(pieces[i].addr);
        __builtin_memcpy(&q->split.desc[at].len, &word, sizeof(word));
        at = next;
    }
    /* slot_take took the first of the chain off the free list; the rest goes with it. In order, the
     * list is a position. */
    q->free_slot = at;
    split_avail(q, slot);
}

void ring_push_direct(struct vblk_queue *q, unsigned slot, const struct piece *pieces, unsigned n)
{
    if (q->packed)
        for (unsigned i = 0; i < n; i++)
            packed_put(q, pieces[i].addr, pieces[i].len, slot,
                       (i + 1 == n ? 0 : DESC_NEXT) | (pieces[i].write ? DESC_WRITE : 0));
    else
        push_direct_split(q, slot, pieces, n);
    q->slots[slot].descs = n;
}

/* Did the index pass the event's place between old and now (§2.7.7.1)? */
static bool passed_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool publish_split(struct vblk_queue *q)
{
    uint16_t old = q->split.published;

    if (q->split.avail_next == old)
        return false;
    barrier_write(q); /* entries before the index; pairs with the device's read of idx */
    shared_store16(&q->split.avail->idx, q->split.avail_next);
    q->split.published = q->split.avail_next;
    barrier_full(q); /* index before the device's wish; pairs with its wish before its index read */
    if (q->event_idx) {
        uint16_t event = shared_load16((uint16_t *)&q->split.used->ring[q->size]);

        return passed_event(event, q->split.avail_next, old);
    }
    return !(shared_load16(&q->split.used->flags) & USED_NO_NOTIFY);
}

static bool publish_packed(struct vblk_queue *q)
{
    struct packed_ring *r = &q->ring;
    uint16_t flags, off_wrap, event, old, now = r->avail_next;

    if (r->head == NO_SLOT)
        return false;
    barrier_write(q); /* all of the batch before the flags that show it */
    shared_store16(&r->desc[r->head].flags, r->head_flags);
    old = now > r->head ? r->head : r->head - q->size; /* now may be a place of the next lap */
    r->head = NO_SLOT;
    barrier_full(q); /* as above; pairs with the device's wish before its look at the ring */
    flags = shared_load16(&r->device->flags) & 3;
    if (flags != EVENT_DESC || !q->event_idx)
        return flags != EVENT_DISABLE;
    off_wrap = shared_load16(&r->device->off_wrap);
    event = off_wrap & 0x7fff;
    if ((off_wrap >> 15 != 0) != (r->avail_flags == PACKED_AVAIL))
        event -= q->size; /* a place of the lap before */
    return passed_event(event, now, old);
}

bool ring_publish(struct vblk_queue *q)
{
    return q->packed ? publish_packed(q) : publish_split(q);
}

uint32_t ring_notification(const struct vblk_queue *q)
{
    if (!q->notification_data)
        return q->index;
    if (q->packed)
        return q->index | (uint32_t)q->ring.avail_next << 16 |
               (uint32_t)(q->ring.avail_flags == PACKED_AVAIL) << 31;
    return q->index | (uint32_t)q->split.avail_next << 16;
}

int ring_pop_in_order(struct vblk_queue *q, struct used *u, unsigned *batch)
{
    unsigned slot = q->oldest, n = 1, descs;
    uint32_t id;

    if (q->packed) {
        const struct packed_desc *d = &q->ring.desc[q->ring.used_next];

        if (q->in_flight == 0 || !packed_is_used(q))
            return 0;
        barrier_read(q);
        id = le16(__atomic_load_n(&d->id, __ATOMIC_RELAXED));
        u->len = le32(__atomic_load_n(&d->len, __ATOMIC_RELAXED));
    } else {
        const struct vring_used_elem *e = &q->split.used->ring[q->split.used_next & q->mask];
        int limit = split_used_limit(q);

        if (limit < 0)
            return limit;
        if (limit == q->split.used_next)
            return 0;
        id = le32(__atomic_load_n(&e->id, __ATOMIC_RELAXED));
        u->len = le32(__atomic_load_n(&e->len, __ATOMIC_RELAXED));
    }
    if (id >= q->size || !q->slots[id].request)
        return -VBLK_EPROTO;
    descs = q->slots[slot].descs;
    while (slot != id) {
        slot = slot_after(q, slot);
        if (++n > q->in_flight)
            return -VBLK_EPROTO;
        descs += q->slots[slot].descs;
    }
    if (q->packed) {
        packed_used_advance(q, descs);
    } else {
        /* The device's index has to cover the whole batch. */
        if (n > (uint16_t)(shared_load16(&q->split.used->idx) - q->split.used_next))
            return -VBLK_EPROTO;
        q->split.used_next += n;
    }
    u->slot = id;
    *batch = n;
    return 1;
}

bool ring_arm(struct vblk_queue *q, unsigned after)
{
    if (q->packed) {
        unsigned per = q->in_flight ? (q->size - q->free_descs) / q->in_flight : 1;
        unsigned at = q->ring.used_next + (after - 1) * per;
        bool wrap = q->ring.used_wrap;

        if (at >= q->size) {
            at -= q->size;
            wrap = !wrap;
        }
        if (q->event_idx) {
            shared_store16(&q->ring.driver->off_wrap, at | (wrap ? 0x8000 : 0));
            barrier_write(q); /* the place before the flag that makes it count (§2.8.10) */
        }
        shared_store16(&q->ring.driver->flags, q->event_idx ? EVENT_DESC : EVENT_ENABLE);
        barrier_full(q); /* our wish before our look; pairs with the device's opposite order */
        return q->in_flight && packed_is_used(q);
    }
    if (q->event_idx)
        shared_store16(&q->split.avail->ring[q->size], q->split.used_next + after - 1);
    else
        shared_store16(&q->split.avail->flags, 0);
    barrier_full(q);
    return shared_load16(&q->split.used->idx) != q->split.used_next;
}

void ring_disarm(struct vblk_queue *q)
{
    if (q->packed)
        shared_store16(&q->ring.driver->flags, EVENT_DISABLE);
    else if (q->event_idx) /* a place just passed: the farthest away there is */
        shared_store16(&q->split.avail->ring[q->size], q->split.used_next - 1);
    else
        shared_store16(&q->split.avail->flags, AVAIL_NO_INTERRUPT);
}

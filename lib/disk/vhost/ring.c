/* ring.c - the device's side of virtqueues (ring.h). */
#include <linux/virtio_ring.h>

#include "ring.h"

/* The spec's names for what <linux/virtio_ring.h> has: vring_desc, vring_avail, vring_used,
 * vring_packed_desc, vring_packed_desc_event. */

static uint16_t load16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static uint16_t load16_acquire(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static void store16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED);
}

static void store16_release(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

size_t ring_desc_bytes(const struct device_ring *v)
{
    return (size_t)v->size * 16;
}

size_t ring_driver_bytes(const struct device_ring *v)
{
    return v->packed ? 4 : 6 + 2 * (size_t)v->size;
}

size_t ring_device_bytes(const struct device_ring *v)
{
    return v->packed ? 4 : 6 + 8 * (size_t)v->size;
}

static int broken(struct device_ring *v, const char *why)
{
    if (!v->broken)
        qz_guest_warn("vhost-user: the driver broke its ring: %s", why);
    v->broken = true;
    return -EPROTO;
}

/* ---- base */

void ring_start(struct device_ring *v, uint32_t base)
{
    v->broken = false;
    v->used_since = 0;
    if (v->packed) {
        v->next_avail = base & 0x7fff;
        v->avail_wrap = base >> 15 & 1;
        v->next_used = base >> 16 & 0x7fff;
        v->used_wrap = base >> 31;
        if (v->next_avail >= v->size || v->next_used >= v->size)
            broken(v, "its base lies behind its end");
    } else {
        v->next_avail = (uint16_t)base;
        v->next_used = load16(&((struct vring_used *)v->device)->idx);
    }
}

uint32_t ring_base(const struct device_ring *v)
{
    if (!v->packed)
        return v->next_avail;
    return v->next_avail | (uint32_t)v->avail_wrap << 15 | (uint32_t)v->next_used << 16 |
           (uint32_t)v->used_wrap << 31;
}

/* ---- chains */

static int add(struct device_ring *v, struct ring_chain *c, uint64_t gpa, uint32_t length,
               bool writable)
{
    if (!writable && c->in_count)
        return broken(v, "what the device reads comes after what it writes");
    while (length) {
        unsigned at = c->out_count + c->in_count;
        uint64_t n;
        void *p = memory_map_span(v->memory, gpa, length, &n);

        if (!p)
            return broken(v, "a buffer outside of its memory");
        if (at == RING_SEGMENTS_MAX)
            return broken(v, "a request in too many pieces");
        c->iov[at] = (struct iovec){p, n};
        if (writable) {
            c->in_count++;
            c->in_bytes += n;
        } else {
            c->out_count++;
            c->out_bytes += n;
        }
        gpa += n;
        length -= (uint32_t)n;
    }
    return 0;
}

static void chain_begin(struct ring_chain *c, uint16_t id)
{
    c->id = id;
    c->descriptors = 0;
    c->out_count = c->in_count = 0;
    c->out_bytes = c->in_bytes = 0;
}

/* A descriptor table in guest memory; *count: how many. */
static const void *indirect_table(struct device_ring *v, uint64_t gpa, uint32_t length,
                                  uint32_t *count)
{
    uint64_t n;
    const void *p = memory_map_span(v->memory, gpa, length, &n);

    *count = length / 16;
    if (!v->indirect || !length || length % 16 || !p || n < length) {
        broken(v, "an indirect table that is none");
        return NULL;
    }
    return p;
}

/* From desc[i] of a table of size on; the ring's own table may name one indirect table. */
static int walk_split(struct device_ring *v, struct ring_chain *c, const struct vring_desc *desc,
                      uint32_t size, uint16_t i, bool inner)
{
    for (uint32_t seen = 0;; seen++) {
        struct vring_desc d;
        int r;

        if (i >= size || seen >= size)
            return broken(v, "a chain that leaves its table or goes in a circle");
        memcpy(&d, (const void *)&desc[i], sizeof(d));
        if (d.flags & VRING_DESC_F_INDIRECT) {
            const void *table;
            uint32_t count;

            if (inner || d.flags & VRING_DESC_F_NEXT)
                return broken(v, "an indirect table inside of another or with a successor");
            table = indirect_table(v, d.addr, d.len, &count);
            return table ? walk_split(v, c, table, QZ_MIN(count, 0x10000u), 0, true) : -EPROTO;
        }
        r = add(v, c, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
        if (r < 0)
            return r;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return 0;
        i = d.next;
    }
}

int ring_chain_again(struct device_ring *v, uint16_t head, struct ring_chain *c)
{
    int r;

    chain_begin(c, head);
    r = walk_split(v, c, v->desc, v->size, head, false);
    return r < 0 ? r : 1;
}

static int pop_split(struct device_ring *v, struct ring_chain *c)
{
    const struct vring_avail *avail = v->driver;
    uint16_t ready = (uint16_t)(load16_acquire(&avail->idx) - v->next_avail); /* §2.7.13 */
    uint16_t head;

    if (!ready)
        return 0;
    if (ready > v->size)
        return broken(v, "more chains than it has entries");
    head = load16(&avail->ring[v->next_avail & (v->size - 1)]);
    if (head >= v->size)
        return broken(v, "a head behind its end");
    v->next_avail++;
    return ring_chain_again(v, head, c);
}

/* §2.8.1: available when the AVAIL bit is the wrap counter and the USED bit is not. */
static bool is_available(uint16_t flags, bool wrap)
{
    return !!(flags & 1 << VRING_PACKED_DESC_F_AVAIL) == wrap &&
           !!(flags & 1 << VRING_PACKED_DESC_F_USED) != wrap;
}

static int walk_packed_table(struct device_ring *v, struct ring_chain *c, uint64_t gpa,
                             uint32_t length)
{
    uint32_t count;
    const struct vring_packed_desc *table = indirect_table(v, gpa, length, &count);

    if (!table)
        return -EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        struct vring_packed_desc d;
        int r;

        memcpy(&d, &table[i], sizeof(d));
        r = add(v, c, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
        if (r < 0)
            return r;
    }
    return 0;
}

/* flags: those of d, which the driver may change meanwhile, as they were read once. */
static int add_packed(struct device_ring *v, struct ring_chain *c,
                      const struct vring_packed_desc *d, uint16_t flags)
{
    int r;

    if (!(flags & VRING_DESC_F_INDIRECT))
        r = add(v, c, d->addr, d->len, flags & VRING_DESC_F_WRITE);
    else if (flags & VRING_DESC_F_NEXT)
        r = broken(v, "an indirect table with a successor");
    else
        r = walk_packed_table(v, c, d->addr, d->len);
    if (r < 0)
        return r;
    return ++c->descriptors > v->size ? broken(v, "a chain longer than it") : 0;
}

int ring_chain_of(struct device_ring *v, const struct vring_packed_desc *d, unsigned count,
                  struct ring_chain *c)
{
    chain_begin(c, d[count - 1].id);
    if (c->id >= v->size)
        return broken(v, "a buffer id behind its end");
    for (unsigned i = 0; i < count; i++) {
        int r = add_packed(v, c, &d[i], d[i].flags);

        if (r < 0)
            return r;
    }
    return 1;
}

static int pop_packed(struct device_ring *v, struct ring_chain *c)
{
    const struct vring_packed_desc *ring = v->desc;
    uint16_t at = v->next_avail, flags = load16_acquire(&ring[at].flags);
    bool wrap = v->avail_wrap;

    if (!is_available(flags, wrap))
        return 0;
    chain_begin(c, 0);
    for (;;) {
        struct vring_packed_desc d;
        int r;

        memcpy(&d, &ring[at], sizeof(d));
        r = add_packed(v, c, &d, flags);
        if (r < 0)
            return r;
        if (++at == v->size) {
            at = 0;
            wrap = !wrap;
        }
        if (!(flags & VRING_DESC_F_NEXT)) {
            c->id = d.id; /* §2.8.6: the last one's */
            break;
        }
        flags = load16(&ring[at].flags); /* all of a chain is there with its first */
    }
    if (c->id >= v->size)
        return broken(v, "a buffer id behind its end");
    v->next_avail = at;
    v->avail_wrap = wrap;
    return 1;
}

int ring_pop(struct device_ring *v, struct ring_chain *c)
{
    if (v->broken)
        return -EPROTO;
    return v->packed ? pop_packed(v, c) : pop_split(v, c);
}

/* ---- used */

static void push_packed(struct device_ring *v, uint16_t id, uint16_t descriptors, uint32_t written)
{
    struct vring_packed_desc *d = (struct vring_packed_desc *)v->desc + v->next_used;
    uint16_t flags =
        (uint16_t)(v->used_wrap << VRING_PACKED_DESC_F_AVAIL |
                   v->used_wrap << VRING_PACKED_DESC_F_USED | (written ? VRING_DESC_F_WRITE : 0));

    d->id = id;
    d->len = written;
    store16_release(&d->flags, flags);
    v->next_used += descriptors;
    if (v->next_used >= v->size) {
        v->next_used -= v->size;
        v->used_wrap = !v->used_wrap;
    }
}

void ring_push(struct device_ring *v, uint16_t id, uint16_t descriptors, uint32_t written)
{
    if (v->packed) {
        push_packed(v, id, descriptors, written);
    } else {
        struct vring_used *used = v->device;

        used->ring[v->next_used & (v->size - 1)] = (struct vring_used_elem){id, written};
        v->next_used++;
        store16_release(&used->idx, v->next_used);
    }
    v->used_since += v->packed ? descriptors : 1;
}

/* §2.8.10, the same arithmetic as for split rings once old and new count on in one line. */
static bool packed_wants_call(struct device_ring *v)
{
    const struct vring_packed_desc_event *e = v->driver;
    uint16_t flags = load16(&e->flags) & 3, off_wrap = load16(&e->off_wrap),
             event = off_wrap & 0x7fff;

    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !v->event_idx)
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    if (v->used_since >= v->size)
        return true;
    if (off_wrap >> 15 != v->used_wrap)
        event -= v->size;
    return vring_need_event(event, v->next_used, (uint16_t)(v->next_used - v->used_since));
}

bool ring_wants_call(struct device_ring *v)
{
    bool wants;

    if (!v->used_since)
        return false;
    /* What was pushed is seen before we look whether the driver sleeps; pairs with the driver's
     * barrier between asking for a call and looking for used buffers. */
    __sync_synchronize();
    if (v->packed) {
        wants = packed_wants_call(v);
    } else {
        const struct vring_avail *avail = v->driver;

        wants = v->event_idx ? vring_need_event(load16(&avail->ring[v->size]), v->next_used,
                                                (uint16_t)(v->next_used - v->used_since))
                             : !(load16(&avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
    }
    v->used_since = 0;
    return wants;
}

void ring_set_kicks(struct device_ring *v, bool on)
{
    if (v->packed) {
        struct vring_packed_desc_event *e = v->device;

        if (on && v->event_idx)
            store16(&e->off_wrap, (uint16_t)(v->next_avail | v->avail_wrap << 15));
        store16_release(&e->flags, !on            ? VRING_PACKED_EVENT_FLAG_DISABLE
                                   : v->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
                                                  : VRING_PACKED_EVENT_FLAG_ENABLE);
    } else {
        struct vring_used *used = v->device;

        if (!v->event_idx)
            store16(&used->flags, on ? 0 : VRING_USED_F_NO_NOTIFY);
        else if (on)
            store16(&used->ring[v->size], v->next_avail); /* avail_event */
    }
    if (on)
        __sync_synchronize(); /* pairs with the driver's, before it looks here */
}

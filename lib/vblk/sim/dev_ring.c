/*
 * dev_ring.c - the device's side of a virtqueue; see the header.
 */
#include "dev_ring.h"

#include <queztl/base.h>

enum { F_NEXT = 1, F_WRITE = 2, F_INDIRECT = 4, F_AVAIL = 0x80, F_USED = 0x8000 };

static uint16_t load16(const uint8_t *p)
{
    uint16_t v = __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);

    return qz_load_le16(&v);
}

static void store16(uint8_t *p, uint16_t v)
{
    uint16_t le;

    qz_store_le16(&le, v);
    __atomic_store_n((uint16_t *)(void *)p, le, __ATOMIC_RELEASE);
}

static int violated(struct dev_ring *r, const char *what)
{
    r->violations++;
    r->violation = what;
    return -1;
}

void dev_ring_init(struct dev_ring *r)
{
    r->next_avail = r->next_used = r->signalled = 0;
    r->avail_wrap = r->used_wrap = r->signalled_wrap = true;
    r->in_device = r->used_unsignalled = 0;
}

static int add_piece(struct dev_ring *r, struct dev_chain *c, const uint8_t *d, uint16_t flags)
{
    uint64_t addr = qz_load_le64(d);
    uint32_t len = qz_load_le32(d + 8);
    struct dev_piece *p = &c->pieces[c->count];

    if (c->count == DEV_CHAIN_MAX || c->count == r->size)
        return violated(r, "a chain longer than the ring (2.7.5.3.1)");
    if (len == 0)
        return violated(r, "an empty descriptor (2.7.5)");
    *p = (struct dev_piece){r->translate(r->ctx, addr, len), len, flags & F_WRITE};
    if (!p->at)
        return violated(r, "an address that is not the driver's to give");
    if (c->count && p[-1].write && !p->write)
        return violated(r, "device-readable after device-writable (2.7.4.2)");
    c->count++;
    return 0;
}

static int add_table(struct dev_ring *r, struct dev_chain *c, const uint8_t *d)
{
    uint32_t len = qz_load_le32(d + 8);
    const uint8_t *table = r->translate(r->ctx, qz_load_le64(d), len);
    unsigned n = len / 16, at = 0;

    if (!r->indirect_ok)
        return violated(r, "INDIRECT without the feature (2.7.5.3.1)");
    if (!table || len == 0 || len % 16)
        return violated(r, "an impossible indirect table");
    for (unsigned seen = 0; seen < n; seen++) {
        const uint8_t *e = table + at * 16;
        uint16_t flags = qz_load_le16(e + (r->packed ? 14 : 12));

        if (flags & F_INDIRECT)
            return violated(r, "a table within a table (2.7.5.3.1)");
        if (add_piece(r, c, e, flags) < 0)
            return -1;
        if (r->packed) {
            at++;
        } else {
            if (!(flags & F_NEXT))
                return 0;
            at = qz_load_le16(e + 14);
            if (at >= n)
                return violated(r, "next past the table");
        }
    }
    return r->packed ? 0 : violated(r, "a loop in a table");
}

static int chain_split(struct dev_ring *r, uint16_t head, struct dev_chain *c)
{
    uint16_t at = head;

    for (unsigned n = 1;; n++) {
        const uint8_t *d = r->desc + 16 * (size_t)at;
        uint16_t flags;

        if (at >= r->size || n > r->size)
            return violated(r, "a descriptor outside of the ring, or a loop");
        flags = qz_load_le16(d + 12);
        if (flags & F_INDIRECT && flags & F_NEXT)
            return violated(r, "INDIRECT together with NEXT (2.7.5.3.1)");
        if ((flags & F_INDIRECT ? add_table(r, c, d) : add_piece(r, c, d, flags)) < 0)
            return -1;
        c->descs = n;
        if (!(flags & F_NEXT))
            break;
        if (r->in_order && qz_load_le16(d + 14) != (at + 1u) % r->size)
            return violated(r, "descriptors out of ring order (2.7.9)");
        at = qz_load_le16(d + 14);
    }
    c->id = head;
    return 1;
}

static int pop_split(struct dev_ring *r, struct dev_chain *c)
{
    uint16_t idx = load16(r->driver + 2), head;

    if (idx == r->next_avail)
        return 0;
    if ((uint16_t)(idx - r->next_avail) + r->in_device > r->size)
        return violated(r, "the available index ran away");
    head = load16(r->driver + 4 + 2 * (r->next_avail % r->size));
    r->next_avail++;
    return chain_split(r, head, c);
}

static bool packed_available(const struct dev_ring *r, uint16_t flags)
{
    bool avail = flags & F_AVAIL, used = flags & F_USED;

    return avail == r->avail_wrap && used != r->avail_wrap;
}

static int pop_packed(struct dev_ring *r, struct dev_chain *c)
{
    uint16_t flags = load16(r->desc + 16 * (size_t)r->next_avail + 14);

    if (!packed_available(r, flags))
        return 0;
    for (unsigned n = 1;; n++) {
        const uint8_t *d = r->desc + 16 * (size_t)r->next_avail;

        flags = load16(d + 14);
        if (n > r->size || !packed_available(r, flags))
            return violated(r, "a chain that is not all available (2.8.21)");
        if ((flags & F_INDIRECT ? add_table(r, c, d) : add_piece(r, c, d, flags)) < 0)
            return -1;
        c->descs = n;
        c->id = qz_load_le16(d + 12);
        if (++r->next_avail == r->size) {
            r->next_avail = 0;
            r->avail_wrap = !r->avail_wrap;
        }
        if (!(flags & F_NEXT))
            break;
        if (flags & F_INDIRECT)
            return violated(r, "INDIRECT together with NEXT (2.8.5)");
    }
    return 1;
}

static int popped(struct dev_ring *r, struct dev_chain *c, int rc)
{
    if (rc == 1) {
        c->order = r->orders++;
        r->in_device++;
    }
    return rc;
}

int dev_ring_pop(struct dev_ring *r, struct dev_chain *c)
{
    c->count = 0;
    return popped(r, c, r->packed ? pop_packed(r, c) : pop_split(r, c));
}

int dev_ring_again_split(struct dev_ring *r, uint16_t head, struct dev_chain *c)
{
    c->count = 0;
    r->next_avail++;
    return popped(r, c, chain_split(r, head, c));
}

int dev_ring_again_packed(struct dev_ring *r, uint8_t (*descs)[16], unsigned n, struct dev_chain *c)
{
    c->count = 0;
    c->descs = (uint16_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = qz_load_le16(descs[i] + 14);

        c->id = qz_load_le16(descs[i] + 12);
        if ((flags & F_INDIRECT ? add_table(r, c, descs[i]) : add_piece(r, c, descs[i], flags)) < 0)
            return -1;
        if (++r->next_avail == r->size) {
            r->next_avail = 0;
            r->avail_wrap = !r->avail_wrap;
        }
    }
    return popped(r, c, 1);
}

static void used_advance(struct dev_ring *r, unsigned descs)
{
    r->next_used += descs;
    if (r->packed && r->next_used >= r->size) {
        r->next_used -= r->size;
        r->used_wrap = !r->used_wrap;
    }
}

void dev_ring_forge(struct dev_ring *r, uint32_t id, uint32_t len)
{
    if (r->packed) {
        uint8_t *d = r->desc + 16 * (size_t)r->next_used;

        qz_store_le32(d + 8, len);
        qz_store_le16(d + 12, (uint16_t)id);
        store16(d + 14, r->used_wrap ? F_AVAIL | F_USED : 0);
    } else {
        uint8_t *e = r->device + 4 + 8 * (size_t)(r->next_used % r->size);

        qz_store_le32(e, id);
        qz_store_le32(e + 4, len);
    }
}

void dev_ring_push(struct dev_ring *r, const struct dev_chain *c, uint32_t len)
{
    dev_ring_forge(r, c->id, len);
    used_advance(r, r->packed ? c->descs : 1);
    r->in_device--;
    r->used_unsignalled++;
}

static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* Positions of a packed ring as one number over two laps, so that "between" has a meaning. */
static bool packed_passed(const struct dev_ring *r, uint16_t off_wrap)
{
    unsigned laps = 2 * r->size;
    unsigned at = (off_wrap & 0x7fff) + (off_wrap >> 15 ? 0 : r->size);
    unsigned now = r->next_used + (r->used_wrap ? 0 : r->size);
    unsigned old = r->signalled + (r->signalled_wrap ? 0 : r->size);

    return (at + laps - old) % laps < (now + laps - old) % laps;
}

bool dev_ring_flush(struct dev_ring *r)
{
    uint16_t old = r->signalled, flags;
    bool want;

    if (!r->used_unsignalled)
        return false;
    r->used_unsignalled = 0;
    if (!r->packed)
        store16(r->device + 2, r->next_used);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what was used before the driver's wish */
    if (!r->packed) {
        want = r->event_idx ? passed(load16(r->driver + 4 + 2 * (size_t)r->size), r->next_used, old)
                            : !(load16(r->driver) & 1);
    } else {
        flags = load16(r->driver + 2) & 3;
        want = flags == 2 ? packed_passed(r, load16(r->driver)) : flags == 0;
    }
    r->signalled = r->next_used;
    r->signalled_wrap = r->used_wrap;
    return want;
}

bool dev_ring_want_doorbell(struct dev_ring *r)
{
    if (r->packed) {
        if (r->event_idx)
            store16(r->device, r->next_avail | (r->avail_wrap ? 0x8000 : 0));
        store16(r->device + 2, r->event_idx ? 2 : 0);
    } else if (r->event_idx) {
        store16(r->device + 4 + 8 * (size_t)r->size, r->next_avail);
    } else {
        store16(r->device, 0);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our wish before our look */
    if (r->packed)
        return packed_available(r, load16(r->desc + 16 * (size_t)r->next_avail + 14));
    return load16(r->driver + 2) != r->next_avail;
}

void dev_ring_no_doorbell(struct dev_ring *r)
{
    if (r->packed)
        store16(r->device + 2, 1);
    else if (!r->event_idx)
        store16(r->device, 1);
}

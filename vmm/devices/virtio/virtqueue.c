/*
 * virtqueue.c - the checked walker for split (VirtIO 1.3 §2.7) and packed (§2.8) rings.
 *
 * Theory of operation. virtqueue_start() resolves the ring areas once, with their whole lengths, so
 * that any slot below `size` is inside them; from then on the only numbers that index memory are
 * ours, or the driver's after a check. A descriptor is 16 bytes that the driver may change under
 * us, so it is loaded once into a local and only the local is checked and used. Every loop counts:
 * a table with n entries is left after n steps, and a chain after `capacity` buffers.
 *
 * A head (split) or buffer id (packed) is marked in a bitmap from pop to push. A driver that makes
 * a chain available twice is caught there, which also bounds what can be in flight by the queue's
 * size.
 *
 * What the driver may get wrong ends in virtqueue_fail(): the queue is broken, the device
 * NEEDS_RESET, and every later pop says "nothing there".
 *
 * Notifications. After popping the ring dry, a device must be told of the next buffer. Only where
 * pop finds nothing is avail_event moved (split with EVENT_IDX), followed by a full barrier and a
 * second look: while buffers keep coming the driver need not kick, and no store is paid for each of
 * them.
 */
#include "devices/virtio/virtqueue.h"

#include <linux/virtio_ring.h>

#include "devices/virtio/virtio.h"

enum {
    DESC_SIZE = 16,
    AVAIL_FLAGS = 0,
    AVAIL_IDX = 2,
    AVAIL_RING = 4,
    USED_FLAGS = 0,
    USED_IDX = 2,
    USED_RING = 4,
    EVENT_FLAGS = 2,
    EVENT_SIZE = 4, /* struct pvirtq_event_suppress */
    PACKED_LEN = 8,
    PACKED_ID = 12,
    PACKED_FLAGS = 14, /* inside a packed descriptor */
    PACKED_AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL,
    PACKED_USED = 1 << VRING_PACKED_DESC_F_USED,
    PACKED_IDS = 65536,
    INDIRECT_MAX = 65536, /* entries in an indirect table that we are willing to look at */
};

/* Guest memory is little-endian; so is every host that this monitor runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ring accesses need byte swaps here");

static inline uint16_t load16(const struct mem_span *s, size_t offset)
{
    return __atomic_load_n((const uint16_t *)(const void *)(s->data + offset), __ATOMIC_RELAXED);
}

static inline uint16_t load16_acquire(const struct mem_span *s, size_t offset)
{
    return __atomic_load_n((const uint16_t *)(const void *)(s->data + offset), __ATOMIC_ACQUIRE);
}

static inline void store16(const struct mem_span *s, size_t offset, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)(s->data + offset), v, __ATOMIC_RELAXED);
}

static inline void store16_release(const struct mem_span *s, size_t offset, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)(s->data + offset), v, __ATOMIC_RELEASE);
}

static inline void store32(const struct mem_span *s, size_t offset, uint32_t v)
{
    __atomic_store_n((uint32_t *)(void *)(s->data + offset), v, __ATOMIC_RELAXED);
}

/* Both layouts start with address and length; the last four bytes differ. */
struct descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next_or_id; /* split: next; packed: buffer id */
};

/* The one copy of a descriptor. Tables may lie at any address (indirect ones), so no alignment is
 * assumed. */
static inline struct descriptor load_descriptor(const struct mem_span *table, unsigned i,
                                                bool packed)
{
    const uint8_t *p = table->data + (size_t)i * DESC_SIZE;
    struct descriptor d;
    uint16_t third, fourth;
    uint64_t words[2];

    /* Through volatile: the compiler may not read the guest's copy a second time later. */
    if (((uintptr_t)p & 7) == 0) {
        words[0] = __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
        words[1] = __atomic_load_n((const uint64_t *)(const void *)(p + 8), __ATOMIC_RELAXED);
    } else {
        for (unsigned k = 0; k < 2; k++) {
            uint64_t w = 0;

            for (unsigned b = 0; b < 8; b++)
                w |= (uint64_t) * (const volatile uint8_t *)(p + k * 8 + b) << b * 8;
            words[k] = w;
        }
    }
    third = (uint16_t)(words[1] >> 32);
    fourth = (uint16_t)(words[1] >> 48);
    d.addr = words[0];
    d.len = (uint32_t)words[1];
    d.flags = packed ? fourth : third;
    d.next_or_id = packed ? third : fourth;
    return d;
}

static inline bool busy_test(const struct virtqueue *vq, unsigned id)
{
    return vq->busy[id / 64] >> id % 64 & 1;
}

static inline void busy_set(struct virtqueue *vq, unsigned id)
{
    vq->busy[id / 64] |= QZ_BIT(id % 64);
}

static inline void busy_clear(struct virtqueue *vq, unsigned id)
{
    vq->busy[id / 64] &= ~QZ_BIT(id % 64);
}

void virtqueue_fail(struct virtqueue *vq, const char *fmt, ...)
{
    static struct qz_ratelimit rl;
    struct virtio_device *d = vq->device;
    char text[200];
    va_list ap;

    if (vq->broken)
        return;
    vq->broken = true;
    if (qz_ratelimit_ok(&rl)) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        qz_warn("%s: queue %u: %s; the device waits for a reset",
                d->label ? d->label : d->ops->name, vq->index, text);
    }
    virtio_fail(d);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static int resolve(const struct virtqueue *vq, const char *what, gpa_t a, uint64_t len,
                   unsigned align, struct mem_span *span, struct qz_error *err)
{
    if (a.v & (align - 1))
        return qz_fail(err, -EINVAL, "queue %u: %s at 0x%llx is not aligned to %u", vq->index, what,
                       (unsigned long long)a.v, align);
    if (mem_span(vq->memory, a, len, span) < 0)
        return qz_fail(err, -EINVAL, "queue %u: %s at 0x%llx (0x%llx bytes) is not in memory",
                       vq->index, what, (unsigned long long)a.v, (unsigned long long)len);
    return 0;
}

int virtqueue_start(struct virtqueue *vq, uint64_t features, struct qz_error *err)
{
    bool packed = features >> VIRTIO_F_RING_PACKED & 1;
    struct mem_span desc, driver, device;
    uint64_t *busy;
    int r;

    if (!vq->size || vq->size > VIRTQUEUE_SIZE_MAX || (!packed && (vq->size & (vq->size - 1))))
        return qz_fail(err, -EINVAL, "queue %u: %u is no valid size for a %s ring", vq->index,
                       vq->size, packed ? "packed" : "split");
    if (vq->in_flight)
        return qz_fail(err, -EINVAL, "queue %u: started with buffers in flight", vq->index);
    /* Sizes and alignments: §2.7, §2.8.10. The event fields are there whether or not they are used.
     */
    r = resolve(vq, packed ? "descriptor ring" : "descriptor table", vq->desc,
                (uint64_t)vq->size * DESC_SIZE, 16, &desc, err);
    if (!r)
        r = packed ? resolve(vq, "driver event area", vq->driver, EVENT_SIZE, 4, &driver, err)
                   : resolve(vq, "available ring", vq->driver, AVAIL_RING + 2ull * vq->size + 2, 2,
                             &driver, err);
    if (!r)
        r = packed ? resolve(vq, "device event area", vq->device_area, EVENT_SIZE, 4, &device, err)
                   : resolve(vq, "used ring", vq->device_area, USED_RING + 8ull * vq->size + 2, 4,
                             &device, err);
    if (r)
        return r;
    busy = calloc(packed ? PACKED_IDS / 64 : (vq->size + 63u) / 64, sizeof(*busy));
    if (!busy)
        return qz_fail(err, -ENOMEM, "queue %u: no memory", vq->index);
    virtqueue_stop(vq);
    vq->busy = busy;
    vq->packed = packed;
    vq->event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    vq->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
    vq->in_order = features >> VIRTIO_F_IN_ORDER & 1;
    vq->avail_wrap = vq->used_wrap = true;
    vq->notify_enabled = true;
    vq->driver_span = driver;
    vq->device_span = device;
    vq->desc_span = desc; /* non-NULL data: started */
    /* Ours to write, so do not rely on the driver having cleared it: please notify. */
    store16(&vq->device_span, packed ? EVENT_FLAGS : USED_FLAGS, 0);
    return 0;
}

void virtqueue_stop(struct virtqueue *vq)
{
    free(vq->busy);
    vq->busy = NULL;
    vq->desc_span = vq->driver_span = vq->device_span = (struct mem_span){0};
    vq->last_avail = vq->used_idx = vq->signalled_used = 0;
    vq->avail_wrap = vq->used_wrap = vq->notify_enabled = false;
    vq->packed = vq->event_index = vq->indirect = vq->in_order = false;
    vq->in_flight = vq->slots_in_flight = 0;
    vq->broken = false;
}

/* With nothing in flight, what was taken is what was given back: one position is both. */
static void walker_state(struct virtqueue *vq, struct qz_state *s, bool go_on)
{
    uint16_t position = vq->last_avail, signalled = vq->signalled_used;
    bool wrap = vq->avail_wrap, broken = vq->broken;
    const unsigned limit = vq->packed ? vq->size - 1u : UINT16_MAX;

    QZ_STATE_ANY(s, "position", position);
    QZ_STATE(s, "wrap", wrap, 1);
    QZ_STATE_ANY(s, "signalled", signalled);
    QZ_STATE(s, "broken", broken, 1);
    if (!qz_state_loading(s) || qz_state_failed(s) || !go_on)
        return;
    if (position > limit || signalled > limit) {
        qz_state_refuse(s, "position %u or %u in a ring of %u", position, signalled, vq->size);
        return;
    }
    vq->last_avail = vq->used_idx = position;
    vq->avail_wrap = vq->used_wrap = wrap;
    vq->signalled_used = signalled;
    vq->broken = broken;
}

void virtqueue_state(struct virtqueue *vq, struct qz_state *s, bool running, uint64_t features)
{
    struct qz_error err;
    bool go_on;

    if (vq->in_flight)
        qz_state_refuse(s, "%u requests in flight", vq->in_flight);
    QZ_STATE(s, "size", vq->size, vq->device->queue_size_max);
    QZ_STATE(s, "enabled", vq->enabled, 1);
    QZ_STATE_ANY(s, "desc", vq->desc.v);
    QZ_STATE_ANY(s, "driver", vq->driver.v);
    QZ_STATE_ANY(s, "device", vq->device_area.v);
    QZ_STATE_ANY(s, "msix_vector", vq->msix_vector);
    go_on = running && vq->enabled && !qz_state_failed(s);
    if (go_on && qz_state_loading(s) && virtqueue_start(vq, features, &err) < 0) {
        qz_state_refuse(s, "%s", err.text);
        return;
    }
    walker_state(vq, s, go_on);
}

static inline bool running(const struct virtqueue *vq)
{
    return vq->desc_span.data && !vq->broken;
}

/* ---- building a chain -------------------------------------------------------------------------
 */

/* Adds one buffer descriptor. Any refusal fails the queue and returns false. */
static bool add_buffer(struct virtqueue *vq, struct virtqueue_chain *c, const struct descriptor *d)
{
    unsigned n = c->out_count + c->in_count;
    bool write = d->flags & VRING_DESC_F_WRITE;
    struct mem_span span;

    if (n >= c->capacity) {
        virtqueue_fail(vq, "a request of more than %u buffers", c->capacity);
        return false;
    }
    if (!write && c->in_count) { /* §2.7.4.2, and packed alike */
        virtqueue_fail(vq, "a device-readable buffer after a device-writable one");
        return false;
    }
    if (!d->len) {
        virtqueue_fail(vq, "a buffer of no bytes");
        return false;
    }
    if (c->out_bytes + c->in_bytes + d->len >
        UINT32_MAX) { /* §2.7.5: at most 2^32 bytes; used length is 32 bits */
        virtqueue_fail(vq, "a request of 4 GiB or more");
        return false;
    }
    if (mem_span(vq->memory, gpa(d->addr), d->len, &span) < 0) {
        virtqueue_fail(vq, "buffer at 0x%llx (0x%x bytes) is not in memory",
                       (unsigned long long)d->addr, d->len);
        return false;
    }
    c->iov[n].iov_base = span.data;
    c->iov[n].iov_len = span.len;
    if (write) {
        c->in_count++;
        c->in_bytes += d->len;
    } else {
        c->out_count++;
        c->out_bytes += d->len;
    }
    return true;
}

/* The table of an indirect descriptor; returns its entries, or 0 after failing the queue. */
static unsigned open_indirect(struct virtqueue *vq, const struct descriptor *d,
                              struct mem_span *table)
{
    if (!vq->indirect)
        virtqueue_fail(vq, "an indirect descriptor, but that was not negotiated");
    else if (d->flags & VRING_DESC_F_NEXT) /* §2.7.5.3.1, §2.8.7 */
        virtqueue_fail(vq, "an indirect descriptor that also has a next one");
    else if (!d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > INDIRECT_MAX)
        virtqueue_fail(vq, "an indirect table of %u bytes", d->len);
    else if (mem_span(vq->memory, gpa(d->addr), d->len, table) < 0)
        virtqueue_fail(vq, "indirect table at 0x%llx (0x%x bytes) is not in memory",
                       (unsigned long long)d->addr, d->len);
    else
        return d->len / DESC_SIZE;
    return 0;
}

static bool split_walk(struct virtqueue *vq, struct virtqueue_chain *c, uint16_t head)
{
    struct mem_span table = vq->desc_span;
    unsigned entries = vq->size, seen = 0, i = head;
    bool inside = false;

    for (;;) {
        struct descriptor d = load_descriptor(&table, i, false);

        if (seen++ >= entries) { /* more steps than entries: some entry was met twice */
            virtqueue_fail(vq, "a loop of descriptors");
            return false;
        }
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (inside) {
                virtqueue_fail(vq, "an indirect table inside an indirect table");
                return false;
            }
            entries = open_indirect(vq, &d, &table);
            if (!entries)
                return false;
            inside = true;
            seen = i = 0;
            continue;
        }
        if (!add_buffer(vq, c, &d))
            return false;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return true;
        if (d.next_or_id >= entries) {
            virtqueue_fail(vq, "next descriptor %u of %u", d.next_or_id, entries);
            return false;
        }
        i = d.next_or_id;
    }
}

static inline bool split_available(struct virtqueue *vq, uint16_t *count)
{
    /* Acquire pairs with the driver's write barrier between filling the ring and avail->idx
     * (§2.7.13.3). */
    *count = (uint16_t)(load16_acquire(&vq->driver_span, AVAIL_IDX) - vq->last_avail);
    return *count != 0;
}

static int split_pop(struct virtqueue *vq, struct virtqueue_chain *c)
{
    uint16_t count, head;

    if (!split_available(vq, &count)) {
        if (!vq->event_index || !vq->notify_enabled)
            return 0;
        /*
         * Ask for a notification at the next buffer, then look again: the full barrier pairs with
         * the one between the driver's store to avail->idx and its load of avail_event
         * (§2.7.13.4.1). Either it sees our event index and kicks, or we see its buffer here.
         */
        store16(&vq->device_span, USED_RING + 8u * vq->size, vq->last_avail);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (!split_available(vq, &count))
            return 0;
    }
    if (count > vq->size) {
        virtqueue_fail(vq, "available index jumps by %u in a ring of %u", count, vq->size);
        return 0;
    }
    head = load16(&vq->driver_span, AVAIL_RING + 2u * (vq->last_avail & (vq->size - 1)));
    if (head >= vq->size) {
        virtqueue_fail(vq, "head descriptor %u of %u", head, vq->size);
        return 0;
    }
    if (busy_test(vq, head)) {
        virtqueue_fail(vq, "head descriptor %u is available again before it was used", head);
        return 0;
    }
    if (!split_walk(vq, c, head))
        return 0;
    c->id = head;
    c->descriptors = 1;
    busy_set(vq, head);
    vq->last_avail++;
    vq->in_flight++;
    return 1;
}

/* Flags of the next slot if its descriptor is available (§2.8.1), else -1. */
static inline int packed_head_flags(const struct virtqueue *vq)
{
    /* Acquire pairs with the driver's barrier before it writes the head's flags, the last of a
     * chain (§2.8.21.1). */
    uint16_t flags =
        load16_acquire(&vq->desc_span, (size_t)vq->last_avail * DESC_SIZE + PACKED_FLAGS);
    bool avail = flags & PACKED_AVAIL, used = flags & PACKED_USED;

    return avail == vq->avail_wrap && used != vq->avail_wrap ? flags : -1;
}

/* Asks for a notification at the descriptor in slot last_avail, then lets nothing pass (§2.8.10).
 */
static void packed_arm(struct virtqueue *vq)
{
    uint32_t off_wrap = vq->last_avail | (uint32_t)vq->avail_wrap << VRING_PACKED_EVENT_F_WRAP_CTR;

    /* One store, so that the driver never sees DESC with an old offset. */
    store32(&vq->device_span, 0, off_wrap | (uint32_t)VRING_PACKED_EVENT_FLAG_DESC << 16);
    /* Pairs with the driver's full barrier between the head's flags and its load of the event area.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static int packed_pop(struct virtqueue *vq, struct virtqueue_chain *c)
{
    int head_flags = packed_head_flags(vq);
    unsigned slot = vq->last_avail, slots = 0;
    struct descriptor d;

    if (head_flags < 0) {
        if (!vq->event_index || !vq->notify_enabled)
            return 0;
        packed_arm(vq); /* as in split_pop() */
        head_flags = packed_head_flags(vq);
        if (head_flags < 0)
            return 0;
    }
    for (;;) {
        if (slots >= vq->size - vq->slots_in_flight) {
            virtqueue_fail(vq, "more descriptors available than the ring of %u has", vq->size);
            return 0;
        }
        d = load_descriptor(&vq->desc_span, slot, true);
        if (!slots)
            d.flags = (uint16_t)head_flags; /* what was checked is what is used */
        slots++;
        if (d.flags & VRING_DESC_F_INDIRECT) {
            struct mem_span table;
            unsigned entries;

            if (slots > 1) {
                virtqueue_fail(vq, "an indirect descriptor inside a chain");
                return 0;
            }
            entries = open_indirect(vq, &d, &table);
            if (!entries)
                return 0;
            for (unsigned i = 0; i < entries;
                 i++) { /* in order; NEXT means nothing here (§2.8.7) */
                struct descriptor e = load_descriptor(&table, i, true);

                if (e.flags & VRING_DESC_F_INDIRECT) {
                    virtqueue_fail(vq, "an indirect table inside an indirect table");
                    return 0;
                }
                if (!add_buffer(vq, c, &e))
                    return 0;
            }
            break;
        }
        if (!add_buffer(vq, c, &d))
            return 0;
        if (!(d.flags & VRING_DESC_F_NEXT))
            break;
        if (++slot == vq->size)
            slot = 0;
    }
    /* The last descriptor of a chain carries its id (§2.8.6). */
    if (busy_test(vq, d.next_or_id)) {
        virtqueue_fail(vq, "buffer id %u is available again before it was used", d.next_or_id);
        return 0;
    }
    c->id = d.next_or_id;
    c->descriptors = (uint16_t)slots;
    busy_set(vq, c->id);
    vq->last_avail += slots;
    if (vq->last_avail >= vq->size) {
        vq->last_avail -= vq->size;
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->slots_in_flight += slots;
    vq->in_flight++;
    return 1;
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *c)
{
    if (!running(vq))
        return 0;
    c->out_count = c->in_count = 0;
    c->out_bytes = c->in_bytes = 0;
    return vq->packed ? packed_pop(vq, c) : split_pop(vq, c);
}

/* Takes a chain out of the books. False: it was not in flight (a mistake of the device, not of the
 * guest). */
static bool retire(struct virtqueue *vq, const struct virtqueue_chain *c)
{
    if (!vq->desc_span.data)
        return false;
    if ((!vq->packed && c->id >= vq->size) || !busy_test(vq, c->id) || !vq->in_flight ||
        (vq->packed && c->descriptors > vq->slots_in_flight)) {
        virtqueue_fail(vq, "returned buffer %u, which is not in flight", c->id);
        return false;
    }
    busy_clear(vq, c->id);
    vq->in_flight--;
    if (vq->packed)
        vq->slots_in_flight -= c->descriptors;
    return true;
}

void virtqueue_unpop(struct virtqueue *vq, const struct virtqueue_chain *c)
{
    if (!retire(vq, c))
        return;
    if (!vq->packed) {
        vq->last_avail--;
        return;
    }
    if (vq->last_avail < c->descriptors) {
        vq->last_avail += vq->size;
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->last_avail -= c->descriptors;
}

/* ---- returning chains -------------------------------------------------------------------------
 */

static void packed_push(struct virtqueue *vq, const struct virtqueue_chain *c, uint32_t written)
{
    size_t at = (size_t)vq->used_idx * DESC_SIZE;
    uint16_t flags = vq->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;

    if (written)
        flags |= VRING_DESC_F_WRITE; /* §2.8.3: the length means something */
    store32(&vq->desc_span, at + PACKED_LEN, written);
    store16(&vq->desc_span, at + PACKED_ID, c->id);
    /* Release: data, length and id before the flags that hand them over; pairs with the driver's
     * read barrier. */
    store16_release(&vq->desc_span, at + PACKED_FLAGS, flags);
    vq->used_idx += c->descriptors;
    if (vq->used_idx >= vq->size) {
        vq->used_idx -= vq->size;
        vq->used_wrap = !vq->used_wrap;
        vq->signalled_used -= vq->size; /* keeps used_idx - signalled_used the slots pushed since */
    }
}

static void tell_written(const struct virtqueue *vq, const struct virtqueue_chain *c,
                         uint32_t written)
{
    for (unsigned i = c->out_count; written > 0 && i < c->out_count + c->in_count; i++) {
        const size_t len = QZ_MIN(c->iov[i].iov_len, (size_t)written);

        machine_written(vq->device->machine, c->iov[i].iov_base, len);
        written -= (uint32_t)len;
    }
}

void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *c, uint32_t written)
{
    if (!retire(vq, c) || vq->broken)
        return;
    if (written > c->in_bytes)
        written = (uint32_t)c->in_bytes;
    tell_written(vq, c, written);
    if (vq->packed) {
        packed_push(vq, c, written);
        return;
    }
    size_t at = USED_RING + 8u * (vq->used_idx & (vq->size - 1));

    store32(&vq->device_span, at, c->id);
    store32(&vq->device_span, at + 4, written);
    vq->used_idx++;
    /* Release: data and element before the index; pairs with the driver's read barrier after
     * used->idx (§2.7.14). */
    store16_release(&vq->device_span, USED_IDX, vq->used_idx);
}

static bool split_wants_interrupt(const struct virtqueue *vq, uint16_t old)
{
    if (!vq->event_index)
        return !(load16(&vq->driver_span, AVAIL_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
    return vring_need_event(load16(&vq->driver_span, AVAIL_RING + 2u * vq->size), vq->used_idx,
                            old);
}

static bool packed_wants_interrupt(const struct virtqueue *vq, uint16_t old)
{
    /* One load, so that offset and flags belong together. */
    uint32_t event =
        __atomic_load_n((const uint32_t *)(const void *)vq->driver_span.data, __ATOMIC_RELAXED);
    uint16_t off_wrap = (uint16_t)event, flags = event >> 16 & 3, off = off_wrap & 0x7fff;

    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
        return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_index)
        return true;
    /* An offset of the round before this one lies behind us (§2.8.10). */
    if ((off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != vq->used_wrap)
        off -= vq->size;
    return vring_need_event(off, vq->used_idx, old);
}

void virtqueue_interrupt(struct virtqueue *vq)
{
    uint16_t old = vq->signalled_used;

    if (!running(vq) || vq->used_idx == old)
        return;
    vq->signalled_used = vq->used_idx;
    /*
     * Full barrier between handing over used buffers and reading what the driver wants to hear;
     * pairs with the driver's between setting its event index or flags and looking for used buffers
     * (§2.7.7, §2.8.10).
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (vq->packed ? packed_wants_interrupt(vq, old) : split_wants_interrupt(vq, old))
        vq->device->transport->queue_interrupt(vq->device, vq->msix_vector);
}

/* ---- notification suppression ------------------------------------------------------------------
 */

void virtqueue_rings_written(const struct virtqueue *vq)
{
    struct machine *m = vq->device->machine;

    if (!running(vq))
        return;
    machine_written(m, vq->device_span.data, vq->device_span.len);
    if (vq->packed)
        machine_written(m, vq->desc_span.data, vq->desc_span.len);
}

void virtqueue_notify_disable(struct virtqueue *vq)
{
    if (!running(vq) || !vq->notify_enabled)
        return;
    vq->notify_enabled = false;
    if (vq->packed)
        store16(&vq->device_span, EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_DISABLE);
    else if (!vq->event_index)
        store16(&vq->device_span, USED_FLAGS, VRING_USED_F_NO_NOTIFY);
    /* split with EVENT_IDX: avail_event stays behind, which is as good (§2.7.10). */
}

bool virtqueue_notify_enable(struct virtqueue *vq)
{
    uint16_t count;

    if (!running(vq))
        return false;
    vq->notify_enabled = true;
    if (!vq->packed) {
        if (vq->event_index)
            store16(&vq->device_span, USED_RING + 8u * vq->size, vq->last_avail);
        else
            store16(&vq->device_span, USED_FLAGS, 0);
    } else if (vq->event_index) {
        packed_arm(vq);
    } else {
        store16(&vq->device_span, EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_ENABLE);
    }
    /* Pairs with the driver's full barrier between making a buffer available and reading the above.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return vq->packed ? packed_head_flags(vq) >= 0 : split_available(vq, &count);
}

/* ---- bytes --------------------------------------------------------------------------------------
 */

static size_t copy(const struct iovec *iov, unsigned count, uint64_t offset, uint8_t *buf,
                   size_t len, bool to_guest)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < len; i++) {
        size_t n;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        n = QZ_MIN(iov[i].iov_len - (size_t)offset, len - done);
        if (to_guest)
            memcpy((uint8_t *)iov[i].iov_base + offset, buf + done, n);
        else
            memcpy(buf + done, (const uint8_t *)iov[i].iov_base + offset, n);
        offset = 0;
        done += n;
    }
    return done;
}

size_t virtqueue_read(const struct virtqueue_chain *c, uint64_t offset, void *buf, size_t len)
{
    return copy(c->iov, c->out_count, offset, buf, len, false);
}

size_t virtqueue_write(const struct virtqueue_chain *c, uint64_t offset, const void *buf,
                       size_t len)
{
    return copy(c->iov + c->out_count, c->in_count, offset, (uint8_t *)buf, len, true);
}

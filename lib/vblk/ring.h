/*
 * ring.h - the two ring formats, as the queue uses them (VirtIO 1.3 §2.7, §2.8).
 *
 * A batch is: slot_take, ring_push_* for each request, then ring_publish once, which says whether
 * the device wants a doorbell. Completions: ring_pop until it returns 0. The short paths are
 * inline; what runs once for a queue is in ring.c.
 */
#ifndef VBLK_RING_H
#define VBLK_RING_H

#include "internal.h"

/* Bytes that the three parts of a ring need, and where they begin in one block. */
struct ring_layout {
    size_t driver, device, total;
};
void ring_layout(bool packed, unsigned size, struct ring_layout *l);
/* Points the queue's ring at zeroed memory and makes every slot free. */
void ring_init(struct vblk_queue *q, void *memory, uint64_t addr);
/* Every slot free again, indices zero: after a reset of the device or queue. */
void ring_clear(struct vblk_queue *q);
/* The next used entry, as a transport's queue_resume wants it. Split: the device's own index, which
 * may be ahead of what was collected. */
uint16_t ring_used_position(const struct vblk_queue *q);
/* Gives the device what was pushed; true: ring its doorbell. */
bool ring_publish(struct vblk_queue *q);
/* What the doorbell's register takes with VIRTIO_F_NOTIFICATION_DATA (§2.9). */
uint32_t ring_notification(const struct vblk_queue *q);
/* Interrupt after `after` more completions (1: the next one). True: some are there already. */
bool ring_arm(struct vblk_queue *q, unsigned after);
void ring_disarm(struct vblk_queue *q);

/* A chain of pieces into the ring's own descriptors (direct) under a slot; the caller knows that
 * there is room. */
void ring_push_direct(struct vblk_queue *q, unsigned slot, const struct piece *pieces, unsigned n);

/* Device words of a descriptor in either format. */
static inline uint64_t desc_word_split(uint32_t len, uint16_t flags, uint16_t next)
{
    return le64(len | (uint64_t)flags << 32 | (uint64_t)next << 48);
}
static inline uint64_t desc_word_packed(uint32_t len, uint16_t id, uint16_t flags)
{
    return le64(len | (uint64_t)id << 32 | (uint64_t)flags << 48);
}

/* The slot for the next request of `descs` ring descriptors; the caller knows that there is room.
 */
static inline unsigned slot_take(struct vblk_queue *q, unsigned descs)
{
    unsigned slot;

    q->free_descs -= descs;
    if (q->in_order) /* descriptors are used in ring order (§2.7.9, §2.8.7) */
        return q->packed ? q->ring.avail_next : q->free_slot;
    slot = q->free_slot;
    q->free_slot = q->slots[slot].next;
    return slot;
}

static inline bool ring_has_room(const struct vblk_queue *q, unsigned descs)
{
    return q->free_descs >= descs;
}

static inline void split_avail(struct vblk_queue *q, unsigned slot)
{
    shared_store16(&q->split.avail->ring[q->split.avail_next++ & q->mask], slot);
}

/* Next position of a packed ring, flipping the wrap counter at its end (§2.8.1). */
static inline void packed_advance(struct vblk_queue *q)
{
    if (++q->ring.avail_next == q->size) {
        q->ring.avail_next = 0;
        q->ring.avail_flags ^= PACKED_AVAIL | PACKED_USED;
    }
}

/* One packed descriptor at the next position; the first of a batch keeps its flags back. */
static inline void packed_put(struct vblk_queue *q, uint64_t addr, uint32_t len, uint16_t id,
                              uint16_t flags)
{
    struct packed_desc *d = &q->ring.desc[q->ring.avail_next];

    flags |= q->ring.avail_flags;
    d->addr = le64(addr);
    if (q->ring.head == NO_SLOT) {
        q->ring.head = q->ring.avail_next;
        q->ring.head_flags = flags;
        d->len = le32(len);
        d->id = le16(id);
    } else {
        uint64_t word = desc_word_packed(len, id, flags);

        __builtin_memcpy(&d->len, &word, sizeof(word));
    }
    packed_advance(q);
}

/* One indirect table of n entries under a slot. */
static inline void ring_push_indirect(struct vblk_queue *q, unsigned slot, uint64_t table,
                                      unsigned n)
{
    if (q->packed) {
        packed_put(q, table, n * 16, slot, DESC_INDIRECT);
    } else {
        struct vring_desc *d = &q->split.desc[slot];
        uint64_t word = desc_word_split(n * 16, DESC_INDIRECT, 0);

        d->addr = le64(table);
        __builtin_memcpy(&d->len, &word, sizeof(word));
        if (q->in_order)
            q->free_slot = (slot + 1) & q->mask;
        split_avail(q, slot);
    }
    q->slots[slot].descs = 1;
}

static inline void slot_release(struct vblk_queue *q, unsigned slot)
{
    struct slot *s = &q->slots[slot];

    q->free_descs += s->descs;
    s->request = NULL;
    if (q->in_order)
        return;
    if (__builtin_expect(s->descs > 1 && !q->packed, 0)) {
        unsigned last = slot;

        for (unsigned i = 1; i < s->descs; i++)
            last = q->slots[last].next;
        q->slots[last].next = q->free_slot;
    } else {
        s->next = q->free_slot;
    }
    q->free_slot = slot;
}

/* A completion: the device's name for it and how much it says that it wrote. */
struct used {
    uint16_t slot;
    uint32_t len;
};

/*
 * The next completion: 1, 0 when there is none, -VBLK_EPROTO when the device wrote nonsense. A slot
 * that comes out is one that the device has.
 *
 * In order, one used entry may stand for several (§2.7.9, §2.8.7): *batch is how many slots are
 * done, beginning with the queue's oldest; u is about the last of them.
 */
int ring_pop_in_order(struct vblk_queue *q, struct used *u, unsigned *batch);

/* In order, the slot that follows another. */
static inline unsigned slot_after(const struct vblk_queue *q, unsigned slot)
{
    unsigned next = slot + q->slots[slot].descs;

    return next >= q->size ? next - q->size : next;
}

static inline int split_pop(struct vblk_queue *q, uint16_t limit, struct used *u)
{
    const struct vring_used_elem *e = &q->split.used->ring[q->split.used_next & q->mask];
    uint32_t id;

    if (q->split.used_next == limit)
        return 0;
    id = le32(__atomic_load_n(&e->id, __ATOMIC_RELAXED));
    u->len = le32(__atomic_load_n(&e->len, __ATOMIC_RELAXED));
    if (__builtin_expect(id >= q->size || !q->slots[id].request, 0))
        return -VBLK_EPROTO;
    u->slot = id;
    q->split.used_next++;
    return 1;
}

/* Is the descriptor at the next used position used (§2.8.1)? */
static inline bool packed_is_used(const struct vblk_queue *q)
{
    uint16_t flags = shared_load16(&q->ring.desc[q->ring.used_next].flags);
    bool avail = flags & PACKED_AVAIL, used = flags & PACKED_USED;

    return avail == used && used == q->ring.used_wrap;
}

static inline void packed_used_advance(struct vblk_queue *q, unsigned descs)
{
    unsigned next = q->ring.used_next + descs;

    if (__builtin_expect(next >= q->size, 0)) {
        next -= q->size;
        q->ring.used_wrap = !q->ring.used_wrap;
    }
    q->ring.used_next = next;
}

/* Length and id at the next used position, which is used and was read behind a barrier. */
static inline int packed_take(struct vblk_queue *q, struct used *u)
{
    const struct packed_desc *d = &q->ring.desc[q->ring.used_next];
    uint64_t word =
        le64(__atomic_load_n((const uint64_t *)(const void *)&d->len, __ATOMIC_RELAXED));
    uint16_t id = (uint16_t)(word >> 32);

    u->len = (uint32_t)word;
    if (__builtin_expect(id >= q->size || !q->slots[id].request, 0))
        return -VBLK_EPROTO;
    u->slot = id;
    /* With tables it is always one: then the next place does not wait for this slot's cache line.
     */
    if (q->indirect)
        packed_used_advance(q, 1);
    else
        packed_used_advance(q, q->slots[id].descs);
    return 1;
}

static inline int packed_pop(struct vblk_queue *q, struct used *u)
{
    /* With nothing in flight, no descriptor can be used, whatever its flags say. */
    if (q->in_flight == 0 || !packed_is_used(q))
        return 0;
    barrier_read(q); /* and the data; pairs with the device's write of the flags after everything */
    return packed_take(q, u);
}

/* With tables, where each request is one descriptor: how many in a row are used, max at most. One
 * barrier then counts for all of them. */
static inline unsigned packed_used_run(const struct vblk_queue *q, unsigned max)
{
    unsigned at = q->ring.used_next, most = q->in_flight < max ? q->in_flight : max, n;
    uint16_t want = q->ring.used_wrap ? PACKED_AVAIL | PACKED_USED : 0;

    for (n = 0; n < most; n++) {
        uint16_t flags = shared_load16(&q->ring.desc[at].flags);

        if ((flags & (PACKED_AVAIL | PACKED_USED)) != want)
            break;
        if (++at == q->size) {
            at = 0;
            want ^= PACKED_AVAIL | PACKED_USED;
        }
    }
    if (n)
        barrier_read(q);
    return n;
}

/* How far the split ring's used index goes; -VBLK_EPROTO when it ran away. */
static inline int split_used_limit(const struct vblk_queue *q)
{
    uint16_t idx = shared_load16(&q->split.used->idx);

    if (__builtin_expect((uint16_t)(idx - q->split.used_next) > q->in_flight, 0))
        return -VBLK_EPROTO;
    barrier_read(q); /* pairs with the device's write of idx after the entries */
    return idx;
}

#endif

/*
 * inflight_packed.c - which chains a packed ring has taken and not answered, in memory that
 * outlives this process (vhost-user, "Inflight I/O tracking", packed rings).
 *
 * A used descriptor overwrites the ring where the driver's descriptors were, so those of a taken
 * chain are copied to entries of the region, which form lists: one of free entries, and one of each
 * chain. A server that died in the middle of taking or answering is found out by the old_ fields,
 * which follow the others when a step is complete. The frontend shares this memory: what is read
 * from it is checked like a ring.
 */
#include <linux/virtio_ring.h>

#include "vhost.h"

struct entry {
    uint8_t inflight, padding; /* of a chain's first entry, like next, last, num, counter */
    uint16_t next, last, num;
    uint64_t counter;
    uint16_t id, flags;
    uint32_t len;
    uint64_t addr;
};

struct region {
    uint64_t features;
    uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
    uint8_t used_wrap, old_used_wrap, padding[7];
    struct entry entry[];
};
_Static_assert(sizeof(struct entry) == 32 && offsetof(struct region, entry) == 32,
               "vhost-user.rst");

size_t inflight_packed_region(unsigned size)
{
    return QZ_ALIGN_UP(sizeof(struct region) + size * sizeof(struct entry), (size_t)64);
}

/* A process that is killed has made its stores in the order of its code; this keeps the code's. */
static void step(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static uint16_t index_of(const struct lane *l, uint16_t i)
{
    return i < l->size ? i : 0;
}

/* ---- taking and answering */

void inflight_packed_taken(struct lane *l, struct slot *s)
{
    const struct vring_packed_desc *ring = l->ring.desc;
    struct region *r = l->inflight;
    uint16_t n = s->chain.descriptors, head = index_of(l, r->old_free_head), at;
    struct entry *first = &r->entry[head];

    s->entry = head;
    first->num = 0;
    first->counter = l->inflight_counter++;
    first->inflight = 1;
    step();
    at = (uint16_t)((l->ring.next_avail + l->size - n) % l->size);
    for (uint16_t i = 0; i < n; i++, at = (uint16_t)((at + 1) % l->size)) {
        uint16_t free_head = index_of(l, r->free_head);
        struct entry *e = &r->entry[free_head];

        if (i == n - 1)
            first->last = free_head;
        e->addr = ring[at].addr;
        e->len = ring[at].len;
        e->flags = ring[at].flags;
        e->id = s->chain.id;
        first->num++;
        step();
        r->free_head = e->next; /* l->size: none is left */
    }
    step();
    r->old_free_head = r->free_head;
}

/* Before the driver sees the answer. */
void inflight_packed_pushing(struct lane *l, struct slot *s)
{
    struct region *r = l->inflight;
    struct entry *first = &r->entry[s->entry];
    unsigned used = r->used_idx + s->chain.descriptors;

    r->entry[index_of(l, first->last)].next = r->free_head;
    step();
    r->free_head = s->entry;
    step();
    if (used >= l->size) {
        used -= l->size;
        r->used_wrap = !r->used_wrap;
    }
    r->used_idx = (uint16_t)used;
    step();
}

/* The driver sees it. */
void inflight_packed_pushed(struct lane *l, struct slot *s)
{
    struct region *r = l->inflight;

    step();
    r->entry[s->entry].inflight = 0;
    step();
    r->old_free_head = r->free_head;
    r->old_used_idx = r->used_idx;
    r->old_used_wrap = r->used_wrap;
}

/* ---- what a dead server left */

static void init(struct lane *l)
{
    struct region *r = l->inflight;

    memset(r, 0, inflight_packed_region(l->size));
    r->version = 1;
    r->desc_num = l->size;
    r->used_idx = r->old_used_idx = l->ring.next_used;
    r->used_wrap = r->old_used_wrap = l->ring.used_wrap;
    for (unsigned i = 0; i < l->size; i++)
        r->entry[i].next = (uint16_t)(i + 1);
}

/* Steps that were not complete become so, or were never. */
static void settle(struct lane *l)
{
    const struct vring_packed_desc *ring = l->ring.desc;
    struct region *r = l->inflight;
    uint16_t at = index_of(l, r->old_used_idx), n = 0;

    if (r->used_idx != r->old_used_idx || r->used_wrap != r->old_used_wrap) {
        uint16_t flags = __atomic_load_n(&ring[at].flags, __ATOMIC_ACQUIRE);
        bool avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1,
             used = flags >> VRING_PACKED_DESC_F_USED & 1;

        if (used == r->old_used_wrap && avail == used) { /* the driver has seen it (§2.8.1) */
            r->old_free_head = r->free_head;
            r->old_used_idx = r->used_idx;
            r->old_used_wrap = r->used_wrap;
        }
    }
    r->free_head = r->old_free_head;
    r->used_idx = r->old_used_idx;
    r->used_wrap = r->old_used_wrap;
    for (uint16_t e = r->free_head; e < l->size && n < l->size; e = r->entry[e].next, n++)
        r->entry[e].inflight = 0;
}

static void sort(uint16_t *heads, unsigned n, const struct region *r)
{
    for (unsigned i = 1; i < n; i++) {
        uint16_t head = heads[i];
        unsigned k = i;

        for (; k > 0 && r->entry[heads[k - 1]].counter > r->entry[head].counter; k--)
            heads[k] = heads[k - 1];
        heads[k] = head;
    }
}

unsigned inflight_packed_left(struct lane *l, uint16_t *heads)
{
    struct region *r = l->inflight;
    struct device_ring *v = &l->ring;
    unsigned n = 0, descriptors = 0;

    if (r->version != 1 || r->desc_num != l->size) { /* never used */
        init(l);
        return 0;
    }
    settle(l);
    l->inflight_counter = 0;
    for (unsigned i = 0; i < l->size; i++) {
        if (!r->entry[i].inflight)
            continue;
        heads[n++] = (uint16_t)i;
        descriptors += r->entry[i].num;
        l->inflight_counter = QZ_MAX(l->inflight_counter, r->entry[i].counter + 1);
    }
    if (r->used_idx >= l->size || descriptors > l->size) {
        qz_guest_warn("vhost-user: the memory of what was in flight makes no sense");
        v->broken = true;
        return 0;
    }
    sort(heads, n, r);
    v->next_used = r->used_idx;
    v->used_wrap = r->used_wrap & 1;
    v->next_avail = (uint16_t)((r->used_idx + descriptors) % l->size);
    v->avail_wrap = v->used_wrap ^ (r->used_idx + descriptors >= l->size);
    return n;
}

int inflight_packed_chain(struct lane *l, uint16_t head, struct slot *s)
{
    const struct region *r = l->inflight;
    uint16_t n = r->entry[head].num, e = head;
    QZ_AUTO_FREE struct vring_packed_desc *d = calloc(QZ_MAX(n, 1), sizeof(*d));

    if (!d || !n || n > l->size)
        return -EPROTO;
    for (uint16_t i = 0; i < n; i++, e = index_of(l, r->entry[e].next))
        d[i] = (struct vring_packed_desc){r->entry[e].addr, r->entry[e].len, r->entry[e].id,
                                          r->entry[e].flags};
    s->entry = head;
    return ring_chain_of(&l->ring, d, n, &s->chain);
}

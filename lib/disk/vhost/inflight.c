/*
 * inflight.c - which requests a ring has taken and not answered, in memory that outlives this
 * process (vhost-user, "Inflight I/O tracking", split rings).
 *
 * The frontend keeps the memory and gives it to the next server. A counter keeps the order of
 * taking. An answer is in two steps around the moment in which the driver sees it (used.idx moves):
 * a server that died between them is found out by comparing the two indexes.
 */
#include <linux/virtio_ring.h>

#include "vhost.h"

struct entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};

struct region {
    uint64_t features;
    uint16_t version, desc_num, last_batch_head, used_idx;
    struct entry entry[];
};
_Static_assert(sizeof(struct entry) == 16 && sizeof(struct region) == 16, "vhost-user.rst");

static size_t region_bytes(unsigned size, bool packed)
{
    return packed ? inflight_packed_region(size)
                  : QZ_ALIGN_UP(sizeof(struct region) + size * sizeof(struct entry), (size_t)64);
}

size_t inflight_bytes(unsigned queues, unsigned size, bool packed)
{
    return queues * region_bytes(size, packed);
}

void *inflight_of_lane(void *all, unsigned index, unsigned size, bool packed)
{
    return (uint8_t *)all + index * region_bytes(size, packed);
}

void inflight_taken(struct lane *l, struct slot *s)
{
    struct region *r = l->inflight;
    uint16_t head = s->chain.id;

    if (l->ring.packed) {
        inflight_packed_taken(l, s);
        return;
    }
    r->entry[head].counter = l->inflight_counter++;
    __atomic_store_n(&r->entry[head].inflight, 1, __ATOMIC_RELEASE);
}

void inflight_pushing(struct lane *l, struct slot *s)
{
    struct region *r = l->inflight;

    if (l->ring.packed)
        inflight_packed_pushing(l, s);
    else
        __atomic_store_n(&r->last_batch_head, s->chain.id, __ATOMIC_RELEASE);
}

void inflight_pushed(struct lane *l, struct slot *s)
{
    struct region *r = l->inflight;

    if (l->ring.packed) {
        inflight_packed_pushed(l, s);
        return;
    }
    __atomic_store_n(&r->entry[s->chain.id].inflight, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&r->used_idx, l->ring.next_used, __ATOMIC_RELEASE);
}

int inflight_chain(struct lane *l, uint16_t head, struct slot *s)
{
    return l->ring.packed ? inflight_packed_chain(l, head, s)
                          : ring_chain_again(&l->ring, head, &s->chain);
}

static void sort(uint16_t *heads, const uint64_t *counters, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        uint16_t head = heads[i];
        unsigned k = i;

        for (; k > 0 && counters[heads[k - 1]] > counters[head]; k--)
            heads[k] = heads[k - 1];
        heads[k] = head;
    }
}

unsigned inflight_left(struct lane *l, uint16_t *heads)
{
    struct region *r = l->inflight;
    uint64_t counters[RING_SIZE_MAX];
    unsigned n = 0;

    if (l->ring.packed)
        return inflight_packed_left(l, heads);
    if (r->version != 1 || r->desc_num != l->size) { /* never used */
        memset(r, 0, region_bytes(l->size, false));
        r->version = 1;
        r->desc_num = l->size;
        r->used_idx = l->ring.next_used;
        return 0;
    }
    if (r->used_idx != l->ring.next_used) { /* it died between the two steps */
        if (r->last_batch_head < l->size)
            r->entry[r->last_batch_head].inflight = 0;
        r->used_idx = l->ring.next_used;
    }
    l->inflight_counter = 0;
    for (unsigned i = 0; i < l->size; i++) {
        if (!r->entry[i].inflight)
            continue;
        heads[n++] = (uint16_t)i;
        counters[i] = r->entry[i].counter;
        l->inflight_counter = QZ_MAX(l->inflight_counter, counters[i] + 1);
    }
    sort(heads, counters, n);
    l->ring.next_avail = (uint16_t)(l->ring.next_used + n);
    return n;
}

/*
 * test_inflight.c - see the header.
 */
#include "test_inflight.h"

/* Only our own kind writes here, and it may be killed between any two stores: they must stay in
 * order, which on one machine's memory is the compiler's matter. */
#define STEP() __atomic_signal_fence(__ATOMIC_SEQ_CST)

struct split_entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};
struct split_region {
    uint64_t features;
    uint16_t version, size, last_batch_head, used_idx;
    struct split_entry entry[];
};

struct packed_entry {
    uint8_t inflight, padding;
    uint16_t next, last, num;
    uint64_t counter;
    uint16_t id, flags;
    uint32_t len;
    uint64_t addr;
};
struct packed_region {
    uint64_t features;
    uint16_t version, size, free_head, old_free_head, used_idx, old_used_idx;
    uint8_t used_wrap, old_used_wrap, padding[7];
    struct packed_entry entry[] __attribute__((aligned(8)));
};
_Static_assert(sizeof(struct split_entry) == 16 && sizeof(struct split_region) == 16, "split");
_Static_assert(sizeof(struct packed_entry) == 32 && sizeof(struct packed_region) == 32, "packed");

size_t test_inflight_bytes(unsigned size)
{
    return sizeof(struct packed_region) + size * sizeof(struct packed_entry);
}

/* ---- taking ---- */

static void taken_packed(struct test_inflight *f, const struct dev_ring *r,
                         const struct dev_chain *c, unsigned place)
{
    struct packed_region *g = (void *)f->region;
    struct packed_entry *head = &g->entry[g->old_free_head];

    f->entry[c->id] = g->old_free_head;
    head->num = 0;
    head->counter = f->counter++;
    STEP();
    head->inflight = 1;
    for (unsigned i = 0; i < c->descs; i++) {
        const uint8_t *d = r->desc + 16 * (size_t)((place + i) % r->size);
        struct packed_entry *e = &g->entry[g->free_head];

        if (i + 1u == c->descs)
            head->last = g->free_head;
        head->num++;
        e->addr = qz_load_le64(d);
        e->len = qz_load_le32(d + 8);
        e->id = qz_load_le16(d + 12);
        e->flags = qz_load_le16(d + 14);
        STEP();
        g->free_head = e->next;
    }
    STEP();
    g->old_free_head = g->free_head;
}

void test_inflight_taken(struct test_inflight *f, const struct dev_ring *r,
                         const struct dev_chain *c, unsigned place)
{
    struct split_region *g = (void *)f->region;

    if (!f->region)
        return;
    if (r->packed) {
        taken_packed(f, r, c, place);
        return;
    }
    g->entry[c->id].counter = f->counter++;
    STEP();
    g->entry[c->id].inflight = 1;
    STEP();
}

/* ---- answering ---- */

void test_inflight_pushing(struct test_inflight *f, const struct dev_ring *r,
                           const struct dev_chain *c)
{
    struct packed_region *p = (void *)f->region;
    struct split_region *g = (void *)f->region;
    struct packed_entry *e;

    if (!f->region)
        return;
    if (!r->packed) {
        g->entry[c->id].next = g->last_batch_head;
        STEP();
        g->last_batch_head = c->id;
        STEP();
        return;
    }
    e = &p->entry[f->entry[c->id]];
    p->entry[e->last].next = p->free_head;
    STEP();
    p->free_head = f->entry[c->id];
    STEP();
    if (r->next_used + e->num >= r->size)
        p->used_wrap = !r->used_wrap;
    STEP();
    p->used_idx = (uint16_t)((r->next_used + e->num) % r->size);
    STEP();
}

void test_inflight_pushed(struct test_inflight *f, const struct dev_ring *r,
                          const struct dev_chain *c)
{
    struct packed_region *p = (void *)f->region;
    struct split_region *g = (void *)f->region;

    if (!f->region)
        return;
    STEP();
    if (!r->packed) {
        g->entry[c->id].inflight = 0;
        STEP();
        g->used_idx = r->next_used;
        return;
    }
    p->entry[f->entry[c->id]].inflight = 0;
    STEP();
    p->old_free_head = p->free_head;
    p->old_used_wrap = p->used_wrap;
    STEP();
    p->old_used_idx = p->used_idx;
}

/* ---- after a restart ---- */

static void begin(struct test_inflight *f, const struct dev_ring *r)
{
    struct packed_region *p = (void *)f->region;
    struct split_region *g = (void *)f->region;

    memset(f->region, 0, test_inflight_bytes(f->size));
    p->size = (uint16_t)f->size; /* in the same place in both */
    if (r->packed) {
        for (unsigned i = 0; i < f->size; i++)
            p->entry[i].next = (uint16_t)(i + 1);
        p->used_idx = p->old_used_idx = r->next_used;
        p->used_wrap = p->old_used_wrap = r->used_wrap;
    } else {
        g->used_idx = r->next_used;
    }
    STEP();
    p->version = 1;
}

static void settle_split(struct test_inflight *f, const struct dev_ring *r)
{
    struct split_region *g = (void *)f->region;

    if (g->used_idx == r->next_used)
        return;
    g->entry[g->last_batch_head].inflight = 0;
    g->used_idx = r->next_used;
}

static void settle_packed(struct test_inflight *f, struct dev_ring *r)
{
    enum { AVAIL = 0x80, USED = 0x8000 };
    struct packed_region *p = (void *)f->region;

    if (p->used_idx != p->old_used_idx) {
        uint16_t flags = qz_load_le16(r->desc + 16 * (size_t)p->old_used_idx + 14);

        if ((flags & (AVAIL | USED)) == (p->old_used_wrap ? AVAIL | USED : 0)) { /* shown */
            p->old_free_head = p->free_head;
            p->old_used_idx = p->used_idx;
            p->old_used_wrap = p->used_wrap;
        }
    }
    p->free_head = p->old_free_head;
    p->used_idx = p->old_used_idx;
    p->used_wrap = p->old_used_wrap;
    for (unsigned i = p->free_head, n = 0; i < f->size && n < f->size; i = p->entry[i].next, n++)
        p->entry[i].inflight = 0;
    r->next_used = r->next_avail = r->signalled = p->used_idx;
    r->used_wrap = r->avail_wrap = r->signalled_wrap = p->used_wrap;
}

static uint64_t counter_of(const struct test_inflight *f, const struct dev_ring *r, unsigned i)
{
    const struct packed_region *p = (const void *)f->region;
    const struct split_region *g = (const void *)f->region;

    return r->packed ? p->entry[i].counter : g->entry[i].counter;
}

static bool in_flight(const struct test_inflight *f, const struct dev_ring *r, unsigned i)
{
    const struct packed_region *p = (const void *)f->region;
    const struct split_region *g = (const void *)f->region;

    return r->packed ? p->entry[i].inflight : g->entry[i].inflight;
}

static int again(struct test_inflight *f, struct dev_ring *r, unsigned entry, struct dev_chain *c)
{
    struct packed_region *p = (void *)f->region;
    uint8_t descs[VBLK_DEPTH_MAX][16];
    unsigned n = 0;

    if (!r->packed)
        return dev_ring_again_split(r, (uint16_t)entry, c);
    f->entry[p->entry[p->entry[entry].last].id] = (uint16_t)entry;
    for (unsigned i = entry; n < p->entry[entry].num && i < f->size; i = p->entry[i].next, n++) {
        const struct packed_entry *e = &p->entry[i];

        qz_store_le64(descs[n], e->addr);
        qz_store_le32(descs[n] + 8, e->len);
        qz_store_le16(descs[n] + 12, e->id);
        qz_store_le16(descs[n] + 14, e->flags);
    }
    return n == p->entry[entry].num ? dev_ring_again_packed(r, descs, n, c) : -1;
}

int test_inflight_left(struct test_inflight *f, struct dev_ring *r, struct dev_chain *chains,
                       unsigned max)
{
    const struct packed_region *p = (const void *)f->region;
    unsigned order[VBLK_DEPTH_MAX], n = 0;

    if (p->version != 1) {
        begin(f, r);
        return 0;
    }
    if (r->packed)
        settle_packed(f, r);
    else
        settle_split(f, r);
    for (unsigned i = 0; i < f->size; i++) {
        unsigned k = n;

        if (!in_flight(f, r, i))
            continue;
        for (; k && counter_of(f, r, order[k - 1]) > counter_of(f, r, i); k--)
            order[k] = order[k - 1];
        order[k] = i;
        n++;
    }
    if (n > max)
        return -1;
    for (unsigned i = 0; i < n; i++)
        if (again(f, r, order[i], &chains[i]) < 0)
            return -1;
    if (n)
        f->counter = counter_of(f, r, order[n - 1]) + 1;
    return (int)n;
}

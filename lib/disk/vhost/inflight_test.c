/*
 * inflight_test.c - a server of a packed ring that dies between any two of its steps: the next one
 * finds exactly the chains that were taken and not seen as used, in the order of their taking.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <linux/virtio_ring.h>

#include "vhost.h"

enum { SIZE = 16, MEMORY = 1 << 16, GPA = 0x100000, LIVES = 3000 };

struct rig {
    struct memory_map memory;
    uint8_t *bytes; /* GPA on; descriptors' buffers */
    struct vring_packed_desc *ring;
    struct vring_packed_desc_event events[2];
    void *region;
    struct lane l;
    /* The driver. */
    uint16_t next, last_used, room;
    bool wrap, used_wrap;
    uint16_t descriptors_of[SIZE]; /* by buffer id; 0: free */
    /* The truth: ids taken and not used, in order. */
    uint16_t taken[SIZE];
    unsigned taken_count;
    struct slot slot[SIZE];
    unsigned slots;
};

static unsigned random_below(unsigned n)
{
    static unsigned seed = 1;

    return (unsigned)rand_r(&seed) % n;
}

/* A server begins: what it knows is in the ring and the region. */
static unsigned be_born(struct rig *g, uint16_t *heads)
{
    g->l = (struct lane){.size = SIZE, .inflight = g->region};
    g->l.ring = (struct device_ring){.memory = &g->memory,
                                     .packed = true,
                                     .indirect = true,
                                     .size = SIZE,
                                     .desc = g->ring,
                                     .driver = &g->events[0],
                                     .device = &g->events[1]};
    ring_start(&g->l.ring, 0x80008000);
    g->slots = 0;
    return inflight_left(&g->l, heads);
}

static void set_up(struct rig *g)
{
    *g = (struct rig){.room = SIZE, .wrap = true, .used_wrap = true};
    g->bytes = calloc(1, MEMORY);
    g->ring = calloc(SIZE, sizeof(*g->ring));
    g->region = calloc(1, inflight_packed_region(SIZE));
    g->memory.count = 1;
    g->memory.region[0] = (struct map_region){.gpa = GPA, .size = MEMORY, .host = g->bytes};
}

static void tear_down(struct rig *g)
{
    free(g->bytes);
    free(g->ring);
    free(g->region);
}

/* The driver makes a chain of n descriptors available; buffers say whose they are. */
static void offer(struct rig *g, uint16_t n)
{
    uint16_t id = 0, first = g->next, first_flags = 0;

    while (g->descriptors_of[id])
        id++;
    g->descriptors_of[id] = n;
    g->room -= n;
    for (uint16_t i = 0; i < n; i++) {
        struct vring_packed_desc *d = &g->ring[g->next];
        uint16_t flags =
            (uint16_t)((i < n - 1 ? VRING_DESC_F_NEXT : 0) | g->wrap << VRING_PACKED_DESC_F_AVAIL |
                       !g->wrap << VRING_PACKED_DESC_F_USED);

        d->addr = GPA + id * 256u + i;
        d->len = 1u + i;
        d->id = id;
        if (i)
            d->flags = flags;
        else
            first_flags = flags;
        if (++g->next == SIZE) {
            g->next = 0;
            g->wrap = !g->wrap;
        }
    }
    g->ring[first].flags = first_flags;
}

/* What the driver sees used leaves the truth. */
static void reap(struct rig *g)
{
    for (;;) {
        const struct vring_packed_desc *d = &g->ring[g->last_used];
        bool avail = d->flags >> VRING_PACKED_DESC_F_AVAIL & 1,
             used = d->flags >> VRING_PACKED_DESC_F_USED & 1;
        uint16_t n = g->descriptors_of[d->id];
        unsigned k = 0;

        if (used != g->used_wrap || avail != used)
            return;
        assert_int_not_equal(n, 0);
        while (k < g->taken_count && g->taken[k] != d->id)
            k++;
        assert_true(k < g->taken_count);
        memmove(&g->taken[k], &g->taken[k + 1], (g->taken_count - k - 1) * sizeof(g->taken[0]));
        g->taken_count--;
        g->descriptors_of[d->id] = 0;
        g->room += n;
        g->last_used += n;
        if (g->last_used >= SIZE) {
            g->last_used -= SIZE;
            g->used_wrap = !g->used_wrap;
        }
    }
}

static void check_chain(struct rig *g, const struct ring_chain *c, uint16_t id)
{
    assert_int_equal(c->id, id);
    assert_int_equal(c->descriptors, g->descriptors_of[id]);
    assert_int_equal(c->out_count, c->descriptors);
    for (unsigned i = 0; i < c->out_count; i++) {
        assert_ptr_equal(c->iov[i].iov_base, g->bytes + id * 256u + i);
        assert_int_equal(c->iov[i].iov_len, 1 + i);
    }
}

static void take(struct rig *g)
{
    struct slot *s = &g->slot[g->slots];

    if (ring_pop(&g->l.ring, &s->chain) != 1)
        return;
    g->slots++;
    inflight_taken(&g->l, s);
    g->taken[g->taken_count++] = s->chain.id;
}

/* Answers one of those taken; dies after `steps` of three. */
static void answer(struct rig *g, unsigned steps)
{
    unsigned k = random_below(g->slots);
    struct slot s = g->slot[k];

    g->slot[k] = g->slot[--g->slots];
    if (steps-- == 0)
        return;
    inflight_pushing(&g->l, &s);
    if (steps-- == 0)
        return;
    ring_push(&g->l.ring, s.chain.id, s.chain.descriptors, 1);
    if (steps-- == 0)
        return;
    inflight_pushed(&g->l, &s);
}

static void test_lives(void **state)
{
    struct rig g;

    set_up(&g);
    for (unsigned life = 0; life < LIVES; life++) {
        uint16_t heads[RING_SIZE_MAX];
        unsigned n = be_born(&g, heads), work = random_below(30);

        reap(&g);
        assert_false(g.l.ring.broken);
        assert_int_equal(n, g.taken_count);
        for (unsigned i = 0; i < n; i++) {
            struct slot *s = &g.slot[g.slots++];

            assert_int_equal(inflight_chain(&g.l, heads[i], s), 1);
            check_chain(&g, &s->chain, g.taken[i]);
        }
        for (unsigned i = 0; i < work; i++) {
            uint16_t want = (uint16_t)(1 + random_below(4));

            if (g.room >= want && random_below(2))
                offer(&g, want);
            if (random_below(2))
                take(&g);
            if (g.slots && random_below(2)) {
                answer(&g, 3);
                if (random_below(2))
                    reap(&g);
            }
        }
        if (g.slots)
            answer(&g, random_below(4)); /* and here it dies */
        reap(&g);
    }
    tear_down(&g);
}

/* Whatever a frontend writes there: no access outside, no endless list. */
static void test_hostile_memory(void **state)
{
    struct rig g;

    set_up(&g);
    for (unsigned life = 0; life < LIVES; life++) {
        size_t bytes = inflight_packed_region(SIZE);
        uint16_t heads[RING_SIZE_MAX];
        unsigned n;

        for (size_t i = 0; i < bytes; i++)
            ((uint8_t *)g.region)[i] =
                (uint8_t)(random_below(3) ? random_below(SIZE + 2) : random_below(256));
        memcpy((uint8_t *)g.region + 8, &(uint16_t[]){1, SIZE}, 4);
        n = be_born(&g, heads);
        assert_true(n <= SIZE);
        for (unsigned i = 0; i < n && !g.l.ring.broken; i++)
            if (inflight_chain(&g.l, heads[i], &g.slot[g.slots]) == 1)
                g.slots++;
        if (g.slots && !g.l.ring.broken)
            answer(&g, 3);
    }
    tear_down(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives),
                                       cmocka_unit_test(test_hostile_memory)};

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("vhost-inflight", tests, NULL, NULL);
}

/*
 * load.c - see the header.
 */
#include "load.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { BLOCK = 4096, BLOCKS = 2048, DEPTH = 64 };
#define LIMIT_NS INT64_C(120000000000)

/* Every block of the area is written many times with its number and version, and read back. */
struct block {
    struct vblk_request q;
    uint64_t *data, version, number;
    bool reading;
};

struct load {
    struct vblk_device *dev;
    struct block blocks[DEPTH];
    uint64_t versions[BLOCKS], rng, done;
    bool busy[BLOCKS];
};

static unsigned next_block(struct load *l)
{
    unsigned at;

    do {
        l->rng = l->rng * 6364136223846793005u + 1442695040888963407u;
        at = (l->rng >> 33) % BLOCKS;
    } while (l->busy[at]);
    return at;
}

static void block_start(struct load *l, struct block *b, unsigned number)
{
    b->number = number;
    l->busy[number] = true;
    b->reading = l->rng >> 62 & 1;
    b->version = l->versions[number] + !b->reading;
    for (unsigned i = 0; i < BLOCK / 8; i++)
        b->data[i] = b->reading ? ~0ull : number << 20 ^ b->version << 40 ^ i;
    b->q = (struct vblk_request){.op = b->reading ? VBLK_OP_READ : VBLK_OP_WRITE,
                                 .count = 1,
                                 .sector = number * (BLOCK / 512),
                                 .segment = {b->data, BLOCK}};
}

static void block_end(struct load *l, struct block *b)
{
    assert_int_equal(b->q.status, 0);
    assert_true(l->busy[b->number]); /* ended once, not twice */
    l->busy[b->number] = false;
    if (b->reading && b->version)
        for (unsigned i = 0; i < BLOCK / 8; i++)
            assert_int_equal(b->data[i], b->number << 20 ^ b->version << 40 ^ i);
    l->versions[b->number] = b->version;
    l->done++;
}

struct load *load_new(struct vblk_user *user, struct vblk_device *dev, uint64_t seed)
{
    struct load *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    l->dev = dev;
    l->rng = seed;
    for (unsigned i = 0; i < DEPTH; i++) {
        l->blocks[i].data = qz_vblk_user_alloc(user, BLOCK, 512);
        assert_non_null(l->blocks[i].data);
    }
    return l;
}

static void start_blocks(struct load *l, struct vblk_request *const *idle, unsigned n,
                         unsigned queues)
{
    for (unsigned i = 0; i < n; i++) {
        struct block *b = QZ_CONTAINER_OF(idle[i], struct block, q);
        struct vblk_request *r = &b->q;

        block_start(l, b, next_block(l));
        assert_int_equal(qz_vblk_submit(qz_vblk_queue(l->dev, (b - l->blocks) % queues), &r, 1), 1);
    }
}

void load_run(struct load *l, uint64_t until, uint64_t every, void (*replace)(void *arg), void *arg)
{
    struct vblk_request *idle[DEPTH];
    unsigned n_idle = DEPTH;
    uint64_t next = every ? l->done + every : UINT64_MAX;
    int64_t limit = qz_now_ns() + LIMIT_NS;
    struct vblk_info info;

    qz_vblk_get_info(l->dev, &info);
    for (unsigned i = 0; i < DEPTH; i++)
        idle[i] = &l->blocks[i].q;
    while (l->done < until || n_idle < DEPTH) {
        if (l->done < until) {
            start_blocks(l, idle, n_idle, info.queues);
            n_idle = 0;
        }
        if (l->done >= next && l->done < until) {
            replace(arg);
            assert_true(qz_vblk_needs_recovery(l->dev));
            assert_int_equal(qz_vblk_recover(l->dev), 0);
            next += every;
        }
        for (unsigned k = 0; k < info.queues; k++) {
            int n = qz_vblk_poll(qz_vblk_queue(l->dev, k), idle + n_idle, DEPTH - n_idle);

            assert_true(n >= 0);
            for (int i = 0; i < n; i++)
                block_end(l, QZ_CONTAINER_OF(idle[n_idle + (unsigned)i], struct block, q));
            n_idle += (unsigned)n;
        }
        assert_true(qz_now_ns() < limit);
    }
}

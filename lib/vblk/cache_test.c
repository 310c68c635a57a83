/*
 * cache_test.c - read-ahead, write-back and merging: the data is right, in every order of
 * completion.
 */
#include "test_io.h"

#include <queztl/base.h>
#include <queztl/vblk_cache.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { BLOCKS = 1024, IOS = 24, AREA_SECTORS = 64, MAX_SECTORS = 40 };

struct cached {
    struct rig rig;
    struct vblk_cache *cache;
    void *memory;
};

static void open_cache(struct cached *k, uint64_t lines, uint64_t read_ahead, bool write_back)
{
    struct vblk_cache_config cc = {
        .bytes = lines * VBLK_CACHE_BLOCK, .read_ahead = read_ahead, .write_back = write_back};
    struct sim_options o = rig_options(rig_all_features() & ~VBLK_BIT(VBLK_F_ZONED));
    struct vblk_config c;
    size_t size = qz_vblk_cache_memory_size(&cc);

    qz_vblk_config_default(&c);
    o.seg_max = 32;
    rig_open(&k->rig, &o, &c, 0);
    assert_true(size > 0);
    k->memory = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul));
    assert_int_equal(
        qz_vblk_cache_create(k->memory, size, qz_vblk_queue(k->rig.dev, 0), &cc, &k->cache), 0);
}

static void close_cache(struct cached *k)
{
    qz_vblk_cache_destroy(k->cache);
    rig_close(&k->rig);
    free(k->memory);
}

static int do_one(struct cached *k, struct vblk_request *r)
{
    struct vblk_request *done;

    if (qz_vblk_cache_submit(k->cache, &r, 1) != 1)
        return r->status;
    for (unsigned i = 0; i < 100; i++) {
        if (qz_vblk_cache_poll(k->cache, &done, 1) == 1) {
            assert_ptr_equal(done, r);
            return r->status;
        }
        sim_run(k->rig.sim, 3);
    }
    return VBLK_PENDING;
}

static int move(struct cached *k, uint32_t op, uint64_t block, unsigned blocks, void *data)
{
    return do_one(k, &(struct vblk_request){.op = op,
                                            .count = 1,
                                            .sector = block * 8,
                                            .segment = {data, blocks * VBLK_CACHE_BLOCK}});
}

static int flush(struct cached *k)
{
    return do_one(k, &(struct vblk_request){.op = VBLK_OP_FLUSH});
}

static void sequential_reader(void **state)
{
    struct vblk_cache_stats s;
    struct cached k;
    uint8_t *data;

    open_cache(&k, 256, 128 << 10, false);
    data = sim_buffer(k.rig.sim, VBLK_CACHE_BLOCK);
    for (unsigned i = 0; i < BLOCKS; i++)
        memset(k.rig.sim->disk + i * 4096, (int)i, 4096);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(move(&k, VBLK_OP_READ, i, 1, data), 0);
        assert_int_equal(data[0], i & 0xff);
        assert_int_equal(data[4095], i & 0xff);
    }
    qz_vblk_cache_get_stats(k.cache, &s);
    assert_true(s.hits > BLOCKS * 9 / 10);
    assert_true(s.device_reads < BLOCKS / 8);
    close_cache(&k);
}

static void neighbours_merge(void **state)
{
    struct vblk_cache_stats s;
    struct cached k;
    uint8_t *data;

    open_cache(&k, 256, 0, true);
    data = sim_buffer(k.rig.sim, VBLK_CACHE_BLOCK);
    for (unsigned i = 0; i < 64; i++) { /* in a scattered order */
        memset(data, (int)(i * 29 % 64), VBLK_CACHE_BLOCK);
        assert_int_equal(move(&k, VBLK_OP_WRITE, i * 29 % 64, 1, data), 0);
    }
    assert_int_equal(k.rig.sim->q[0].served, 0);
    assert_int_equal(flush(&k), 0);
    qz_vblk_cache_get_stats(k.cache, &s);
    assert_int_equal(s.blocks_written, 64);
    assert_true(s.device_writes <= 3);
    assert_int_equal(s.dirty, 0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(k.rig.sim->disk[i * 4096 + 77], i);
    close_cache(&k);
}

/* What could not be written is told by the next FLUSH and kept for the one after. */
static void errors_are_told(void **state)
{
    struct cached k;
    uint8_t *data;

    open_cache(&k, 64, 0, true);
    data = sim_buffer(k.rig.sim, VBLK_CACHE_BLOCK);
    memset(data, 0x42, VBLK_CACHE_BLOCK);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(move(&k, VBLK_OP_WRITE, i * 2, 1, data), 0);
    k.rig.sim->fault = SIM_FAULT_IO;
    assert_int_equal(flush(&k), -VBLK_EIO);
    assert_int_equal(flush(&k), -VBLK_EIO);
    /* The budget is a bound: when nothing can be written, writers are told. */
    unsigned failed = 0;

    for (unsigned i = 0; i < 60; i++)
        failed += move(&k, VBLK_OP_WRITE, 100 + i, 1, data) < 0;
    assert_in_range(failed, 1, 59);
    assert_int_equal(move(&k, VBLK_OP_READ, 500, 1, data), -VBLK_EIO);
    k.rig.sim->fault = SIM_FAULT_NONE;
    flush(&k); /* may tell of the errors since the last one */
    assert_int_equal(flush(&k), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(k.rig.sim->disk[i * 2 * 4096 + 1], 0x42);
    assert_int_equal(move(&k, VBLK_OP_READ, 500, 1, data), 0);
    close_cache(&k);
}

/* Each of several workers has its own part of the disk, so that what it must see is known. */
struct io {
    struct vblk_request r;
    struct vblk_segment segments[3];
    struct vblk_range range;
    uint8_t *data, *expected, *flushed;
    bool busy, covered; /* covered: by the FLUSH that goes on */
};

static void io_start(struct cached *k, struct io *io, unsigned index)
{
    struct sim *s = k->rig.sim;
    unsigned aligned = sim_random(s) % 4, kind = sim_random(s) % 16;
    unsigned first = sim_random(s) % (AREA_SECTORS - MAX_SECTORS),
             n = 1 + sim_random(s) % MAX_SECTORS;

    if (aligned) {
        first &= ~7u;
        n = QZ_ALIGN_UP(n, 8u);
    }
    io->r = (struct vblk_request){.op = kind < 8    ? VBLK_OP_READ
                                        : kind < 14 ? VBLK_OP_WRITE
                                                    : VBLK_OP_WRITE_ZEROES,
                                  .sector = index * AREA_SECTORS + first,
                                  .count = 1};
    io->busy = true;
    if (io->r.op == VBLK_OP_WRITE_ZEROES) {
        io->range = (struct vblk_range){.sector = io->r.sector, .sectors = n};
        io->r.ranges = &io->range;
        memset(io->expected + first * 512, 0, n * 512);
        return;
    }
    for (unsigned i = 0; i < n * 512; i++)
        io->data[i] = io->r.op == VBLK_OP_WRITE ? (uint8_t)sim_random(s) : 0xee;
    if (io->r.op == VBLK_OP_WRITE)
        memcpy(io->expected + first * 512, io->data, n * 512);
    io->segments[0] = (struct vblk_segment){io->data, 100};
    io->segments[1] = (struct vblk_segment){io->data + 100, n * 512 - 101};
    io->segments[2] = (struct vblk_segment){io->data + n * 512 - 1, 1};
    io->r.count = kind & 1 ? 3 : 1;
    if (io->r.count == 3)
        io->r.segments = io->segments;
    else
        io->r.segment = (struct vblk_segment){io->data, n * 512};
}

static void io_end(const struct io *io, unsigned index)
{
    uint64_t at = (io->r.sector - index * AREA_SECTORS) * 512;
    uint64_t len = 0;

    assert_int_equal(io->r.status, 0);
    if (io->r.op != VBLK_OP_READ)
        return;
    for (unsigned i = 0; i < io->r.count; i++)
        len += io->r.count == 1 ? io->r.segment.len : io->segments[i].len;
    assert_memory_equal(io->data, io->expected + at, len);
}

static void random_run(uint64_t seed, unsigned lines, uint64_t read_ahead, bool write_back)
{
    struct io ios[IOS] = {0};
    struct vblk_request barrier, *done[IOS + 1], *p;
    bool flushing = false;
    unsigned ended = 0, idle = 0, flushes = 0;
    struct cached k;

    open_cache(&k, lines, read_ahead, write_back);
    k.rig.sim->rng = seed;
    for (unsigned i = 0; i < IOS; i++) {
        ios[i].data = sim_buffer(k.rig.sim, MAX_SECTORS * 512 + 4096);
        ios[i].expected = calloc(AREA_SECTORS, 512);
        ios[i].flushed = calloc(AREA_SECTORS, 512);
    }
    while (ended < 6000) {
        int n;

        for (unsigned i = 0; i < IOS && !flushing; i++) {
            if (ios[i].busy || sim_random(k.rig.sim) % 3 == 0)
                continue;
            io_start(&k, &ios[i], i);
            p = &ios[i].r;
            assert_int_equal(qz_vblk_cache_submit(k.cache, &p, 1), 1);
        }
        if (!flushing && sim_random(k.rig.sim) % 64 == 0) {
            /* What has ended now has to be on the disk when the flush ends; nothing new is begun.
             */
            flushing = true;
            barrier = (struct vblk_request){.op = VBLK_OP_FLUSH};
            p = &barrier;
            for (unsigned i = 0; i < IOS; i++)
                if ((ios[i].covered = !ios[i].busy))
                    memcpy(ios[i].flushed, ios[i].expected, AREA_SECTORS * 512);
            assert_int_equal(qz_vblk_cache_submit(k.cache, &p, 1), 1);
        }
        sim_run(k.rig.sim, 1 + sim_random(k.rig.sim) % 8);
        n = qz_vblk_cache_poll(k.cache, done, IOS + 1);
        assert_true(n >= 0);
        assert_true(idle++ < 10000);
        for (int i = 0; i < n; i++) {
            struct io *io = QZ_CONTAINER_OF(done[i], struct io, r);

            idle = 0;
            if (done[i] == &barrier) {
                assert_int_equal(barrier.status, 0);
                for (unsigned w = 0; w < IOS; w++)
                    if (ios[w].covered)
                        assert_memory_equal(ios[w].flushed,
                                            k.rig.sim->disk + w * AREA_SECTORS * 512,
                                            AREA_SECTORS * 512);
                flushing = false;
                flushes++;
                continue;
            }
            assert_true(io->busy);
            io->busy = false;
            io_end(io, (unsigned)(io - ios));
            ended++;
        }
    }
    assert_true(flushes > 5);
    for (unsigned i = 0; i < 2000 && qz_vblk_cache_poll(k.cache, done, IOS + 1) >= 0; i++)
        sim_run(k.rig.sim, 100);
    for (unsigned i = 0; i < IOS; i++) {
        free(ios[i].expected);
        free(ios[i].flushed);
    }
    close_cache(&k);
}

static void random_requests(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        random_run(seed, 64, 0, true);
        random_run(seed, 64, 64 << 10, true);
        random_run(seed, 400, 128 << 10, true);
        random_run(seed, 100, 64 << 10, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential_reader),
        cmocka_unit_test(neighbours_merge),
        cmocka_unit_test(errors_are_told),
        cmocka_unit_test(random_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

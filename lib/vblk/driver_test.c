/*
 * driver_test.c - the driver against the simulated device: every ring format, every command.
 */
#include "test_io.h"

#include <queztl/base.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

static struct vblk_config config(void)
{
    struct vblk_config c;

    qz_vblk_config_default(&c);
    c.queue_count = 2;
    c.queue_depth = 32;
    c.latency = true;
    return c;
}

/* Random I/O with every combination of what changes the shape of a ring. */
static void every_ring(void **state)
{
    static const unsigned bits[] = {VBLK_F_RING_PACKED,       VBLK_F_IN_ORDER,
                                    VBLK_F_INDIRECT_DESC,     VBLK_F_EVENT_IDX,
                                    VBLK_F_NOTIFICATION_DATA, VBLK_F_ORDER_PLATFORM};

    for (unsigned mask = 0; mask < 1u << QZ_ARRAY_LEN(bits); mask++) {
        for (unsigned way = 0; way < 4; way++) {
            struct vblk_config c = config();
            struct sim_options o = rig_options(rig_all_features());
            struct rig r;

            for (unsigned i = 0; i < QZ_ARRAY_LEN(bits); i++)
                if (mask >> i & 1)
                    o.features |= VBLK_BIT(bits[i]);
                else
                    o.features &= ~VBLK_BIT(bits[i]);
            o.seed = mask * 4 + way;
            o.batch_used = way & 1;
            o.translate = way & 1;
            c.zero_copy = way != 2;
            c.batch = way != 3;
            c.scheduler = way % 3;
            rig_open(&r, &o, &c, 0);
            rig_random_io(&r, 600, 48);
            rig_close(&r);
        }
    }
}

/* Sixteen-bit indices go round many times, at ring sizes from the least to the deepest. */
static void indices_wrap(void **state)
{
    for (unsigned depth = 4; depth <= 1024; depth *= 16) {
        for (unsigned packed = 0; packed < 2; packed++) {
            struct vblk_config c = config();
            struct sim_options o = rig_options(VBLK_BIT(VBLK_F_EVENT_IDX) |
                                               (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0));
            struct rig r;
            void *id;

            c.queue_count = 1;
            c.queue_depth = o.depth = depth;
            c.segments_max = 2;
            rig_open(&r, &o, &c, 0);
            id = sim_buffer(r.sim, VBLK_ID_BYTES);
            for (unsigned i = 0; i < 70000; i++) {
                struct vblk_request q = {
                    .op = VBLK_OP_GET_ID, .count = 1, .segment = {id, VBLK_ID_BYTES}};

                assert_int_equal(rig_do(&r, &q), 0);
            }
            rig_close(&r);
        }
    }
}

static void commands(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(rig_all_features());
    struct rig r;
    uint8_t *data;
    struct vblk_range ranges[2] = {{.sector = 1, .sectors = 1}, {.sector = 4, .sectors = 2}};
    struct vblk_request q;

    rig_open(&r, &o, &c, 0);
    data = sim_buffer(r.sim, 8192);
    q = (struct vblk_request){.op = VBLK_OP_GET_ID, .count = 1, .segment = {data, VBLK_ID_BYTES}};
    assert_int_equal(rig_do(&r, &q), 0);
    assert_memory_equal(data, "queztl-simulated-dsk", VBLK_ID_BYTES);
    q = (struct vblk_request){.op = VBLK_OP_GET_LIFETIME, .count = 1, .segment = {data, 8}};
    assert_int_equal(rig_do(&r, &q), 0);
    q = (struct vblk_request){.op = VBLK_OP_FLUSH};
    assert_int_equal(rig_do(&r, &q), 0);

    memset(r.sim->disk, 0xaa, 16 * 512);
    q = (struct vblk_request){.op = VBLK_OP_DISCARD, .count = 2, .ranges = ranges};
    assert_int_equal(rig_do(&r, &q), 0);
    assert_int_equal(r.sim->disk[0], 0xaa);
    assert_int_equal(r.sim->disk[512], 0);
    assert_int_equal(r.sim->disk[1024], 0xaa);
    assert_int_equal(r.sim->disk[5 * 512 + 511], 0);
    assert_int_equal(r.sim->disk[6 * 512], 0xaa);
    ranges[0] = (struct vblk_range){.sector = 7, .sectors = 1, .unmap = true};
    q = (struct vblk_request){.op = VBLK_OP_WRITE_ZEROES, .count = 1, .ranges = ranges};
    assert_int_equal(rig_do(&r, &q), 0);
    assert_int_equal(r.sim->disk[7 * 512], 0);
    ranges[0].unmap = false;
    q = (struct vblk_request){.op = VBLK_OP_SECURE_ERASE, .count = 1, .ranges = ranges};
    assert_int_equal(rig_do(&r, &q), 0);

    memset(data, 0x5c, 4096);
    q = (struct vblk_request){
        .op = VBLK_OP_ZONE_APPEND, .count = 1, .sector = 256, .segment = {data, 4096}};
    assert_int_equal(rig_do(&r, &q), 0);
    assert_int_equal(q.sector, 256);
    q.sector = 256;
    assert_int_equal(rig_do(&r, &q), 0);
    assert_int_equal(q.sector, 264);
    assert_int_equal(r.sim->disk[264 * 512], 0x5c);
    for (unsigned op = VBLK_OP_ZONE_OPEN; op <= VBLK_OP_ZONE_RESET_ALL; op += 2) {
        q = (struct vblk_request){.op = op, .sector = 256};
        assert_int_equal(rig_do(&r, &q), 0);
    }
    rig_close(&r);
}

/* What the device was not asked: each is refused before it reaches the ring. */
static void refused(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(rig_all_features());
    struct vblk_range range = {.sector = 1, .sectors = 1};
    struct rig r;
    uint8_t *data;

    o.block_size = 4096;
    rig_open(&r, &o, &c, 0);
    data = sim_buffer(r.sim, 8192);
    struct {
        struct vblk_request q;
        int rc;
    } cases[] = {
        {{.op = 3}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .count = 17, .segments = NULL}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .count = 1, .segment = {data, 512}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .count = 1, .segment = {data, 0}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .count = 1, .sector = 4, .segment = {data, 4096}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .count = 1, .sector = 8192, .segment = {data, 4096}}, -VBLK_ENOSPC},
        {{.op = VBLK_OP_READ, .count = 1, .sector = UINT64_MAX - 7, .segment = {data, 4096}},
         -VBLK_ENOSPC},
        {{.op = VBLK_OP_FLUSH, .count = 1, .segment = {data, 4096}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_READ, .priority = 9, .count = 1, .segment = {data, 4096}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_GET_ID, .count = 1, .segment = {data, 4096}}, -VBLK_EINVAL},
        {{.op = VBLK_OP_DISCARD, .count = 5, .ranges = &range}, -VBLK_EINVAL},
        {{.op = VBLK_OP_DISCARD, .count = 0, .ranges = &range}, -VBLK_EINVAL},
        {{.op = VBLK_OP_ZONE_OPEN, .sector = 8192}, -VBLK_ENOSPC},
    };
    for (unsigned i = 0; i < QZ_ARRAY_LEN(cases); i++)
        assert_int_equal(rig_do(&r, &cases[i].q), cases[i].rc);
    range.unmap = true;
    assert_int_equal(
        rig_do(&r, &(struct vblk_request){.op = VBLK_OP_DISCARD, .count = 1, .ranges = &range}),
        -VBLK_EINVAL);
    assert_int_equal(r.sim->q[0].served, 0);
    rig_close(&r);

    o.features = VBLK_BIT(VBLK_F_RO);
    rig_open(&r, &o, &c, 0);
    data = sim_buffer(r.sim, 8192);
    assert_int_equal(
        rig_do(&r,
               &(struct vblk_request){.op = VBLK_OP_WRITE, .count = 1, .segment = {data, 4096}}),
        -VBLK_EROFS);
    assert_int_equal(rig_do(&r, &(struct vblk_request){.op = VBLK_OP_FLUSH}), -VBLK_ENOTSUP);
    rig_close(&r);
}

static void one_doorbell_for_a_batch(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct vblk_config c = config();
        struct sim_options o =
            rig_options(rig_all_features() | (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0));
        struct vblk_request q[20], *batch[20], *done[20];
        struct rig r;
        uint8_t *data;

        rig_open(&r, &o, &c, 0);
        data = sim_buffer(r.sim, 20 * 512);
        for (unsigned i = 0; i < 20; i++) {
            q[i] = (struct vblk_request){
                .op = VBLK_OP_READ, .count = 1, .sector = i, .segment = {data + i * 512, 512}};
            batch[i] = &q[i];
        }
        assert_int_equal(qz_vblk_submit(qz_vblk_queue(r.dev, 0), batch, 20), 20);
        assert_int_equal(r.sim->q[0].doorbells, 1);
        /* §2.9: the queue and where the next request will be */
        assert_int_equal(r.sim->q[0].notify_data, 20u << 16 | (packed ? 1u << 31 : 0));
        assert_int_equal(sim_run(r.sim, 100), 20);
        assert_int_equal(qz_vblk_poll(qz_vblk_queue(r.dev, 0), done, 20), 20);
        rig_close(&r);
    }
}

static unsigned events[3];
static void on_event(void *arg, unsigned queue)
{
    events[queue == VBLK_CONFIG_CHANGED ? 2 : queue]++;
}

static void interrupts_coalesce(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct vblk_config c = config();
        struct sim_options o =
            rig_options(rig_all_features() | (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0));
        struct vblk_request q[20], *batch[20], *done[20];
        struct vblk_queue *queue;
        struct rig r;
        uint8_t *data;
        uint64_t wait = 0;

        memset(events, 0, sizeof(events));
        c.interrupts = true;
        c.event = on_event;
        rig_open(&r, &o, &c, 0);
        queue = qz_vblk_queue(r.dev, 0);
        data = sim_buffer(r.sim, 20 * 512);
        for (unsigned i = 0; i < 20; i++) {
            q[i] = (struct vblk_request){
                .op = VBLK_OP_READ, .count = 1, .sector = i, .segment = {data + i * 512, 512}};
            batch[i] = &q[i];
        }
        qz_vblk_submit(queue, batch, 20);
        sim_run(r.sim, 1);
        assert_int_equal(events[0], 0);         /* not armed: no interrupt */
        assert_true(qz_vblk_arm(queue, &wait)); /* one has finished already */
        assert_int_equal(qz_vblk_poll(queue, done, 20), 1);
        assert_false(qz_vblk_arm(queue, &wait)); /* 19 in flight: after 9 */
        assert_int_equal(wait, c.coalesce_time_us * 1000);
        for (unsigned i = 0; i < 8; i++)
            sim_run(r.sim, 1);
        assert_int_equal(events[0], 0);
        sim_run(r.sim, 1);
        assert_int_equal(events[0], 1);
        assert_int_equal(qz_vblk_poll(queue, done, 20), 9);
        sim_run(r.sim, 20);
        assert_int_equal(events[0], 1);
        assert_int_equal(qz_vblk_poll(queue, done, 20), 10);
        /* A single one is not kept waiting. */
        qz_vblk_submit(queue, batch, 1);
        assert_false(qz_vblk_arm(queue, &wait));
        assert_int_equal(wait, 0);
        sim_run(r.sim, 1);
        assert_int_equal(events[0], 2);
        assert_int_equal(events[1], 0);
        assert_int_equal(qz_vblk_poll(queue, done, 20), 1);
        rig_close(&r);
    }
}

static void resize_and_writeback(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(rig_all_features());
    struct vblk_info info;
    struct rig r;

    memset(events, 0, sizeof(events));
    c.interrupts = true;
    c.event = on_event;
    rig_open(&r, &o, &c, 0);
    assert_int_equal(qz_vblk_reread_config(r.dev), 0);
    sim_resize(r.sim, 10000);
    assert_int_equal(events[2], 1);
    assert_int_equal(qz_vblk_reread_config(r.dev), 1);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.sectors, 10000);
    assert_false(info.writeback);
    assert_int_equal(qz_vblk_set_writeback(r.dev, true), 0);
    qz_vblk_get_info(r.dev, &info);
    assert_true(info.writeback);
    assert_int_equal(r.sim->writeback, 1);
    r.sim->config_moves = true;
    assert_int_equal(qz_vblk_reread_config(r.dev), -VBLK_EPROTO);
    rig_close(&r);
}

static void starting(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(0);
    struct vblk_info info;
    struct rig r;

    c.queue_count = 8;
    o.features = VBLK_BIT(VBLK_F_MQ);
    rig_open(&r, &o, &c, 0);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.queues, 4);
    assert_int_equal(info.depth, 32);
    assert_int_equal(qz_vblk_start(r.dev), -VBLK_EBUSY);
    rig_close(&r);

    c.sectors_max = 100;
    rig_open(&r, &o, &c, -VBLK_EINVAL);
    rig_close(&r);
    c.sectors_max = 0;
    o.block_size = 513;
    o.features |= VBLK_BIT(VBLK_F_BLK_SIZE);
    rig_open(&r, &o, &c, -VBLK_EPROTO);
    r.sim->o.block_size = 512;
    r.sim->refuse_features = true;
    assert_int_equal(qz_vblk_start(r.dev), -VBLK_ENOTSUP);
    r.sim->refuse_features = false;
    r.sim->queues_usable = 3; /* degraded */
    assert_int_equal(qz_vblk_start(r.dev), 0);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.queues, 3);
    rig_random_io(&r, 300, 20);
    rig_close(&r);

    c.queue_depth = 3;
    assert_int_equal(qz_vblk_memory_size(&c), 0);
}

/* As many devices, queues and requests as there may be, all rings full at once. */
static void the_most(void **state)
{
    enum { DEVICES = VBLK_DEVICES_MAX, QUEUES = 16, DEPTH = VBLK_DEPTH_MAX };
    struct vblk_request *q = calloc(QUEUES * DEPTH, sizeof(*q)),
                        **batch = calloc(DEPTH, sizeof(*batch));
    struct rig *rigs = calloc(DEVICES, sizeof(*rigs));

    for (unsigned d = 0; d < DEVICES; d++) {
        struct sim_options o =
            rig_options(rig_all_features() | (d & 1 ? VBLK_BIT(VBLK_F_RING_PACKED) : 0));
        struct vblk_config c = config();

        o.queues = c.queue_count = QUEUES;
        o.depth = c.queue_depth = DEPTH;
        c.segments_max = c.ranges_max = 1;
        rig_open(&rigs[d], &o, &c, 0);
    }
    for (unsigned d = 0; d < DEVICES; d++) {
        unsigned ended = 0;

        for (unsigned k = 0; k < QUEUES; k++) {
            for (unsigned i = 0; i < DEPTH; i++) {
                batch[i] = &q[k * DEPTH + i];
                *batch[i] = (struct vblk_request){.op = VBLK_OP_FLUSH};
            }
            assert_int_equal(qz_vblk_submit(qz_vblk_queue(rigs[d].dev, k), batch, DEPTH), DEPTH);
            assert_int_equal(rigs[d].sim->q[k].doorbells, 1);
        }
        for (unsigned round = 0; round < 1000 && ended < QUEUES * DEPTH; round++) {
            sim_run(rigs[d].sim, 100);
            for (unsigned k = 0; k < QUEUES; k++)
                ended += (unsigned)qz_vblk_poll(qz_vblk_queue(rigs[d].dev, k), batch, DEPTH);
        }
        assert_int_equal(ended, QUEUES * DEPTH);
        for (unsigned i = 0; i < QUEUES * DEPTH; i++)
            assert_int_equal(q[i].status, 0);
    }
    for (unsigned d = 0; d < DEVICES; d++)
        rig_close(&rigs[d]);
    free(q);
    free(batch);
    free(rigs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ring),
        cmocka_unit_test(indices_wrap),
        cmocka_unit_test(commands),
        cmocka_unit_test(refused),
        cmocka_unit_test(one_doorbell_for_a_batch),
        cmocka_unit_test(interrupts_coalesce),
        cmocka_unit_test(resize_and_writeback),
        cmocka_unit_test(starting),
        cmocka_unit_test(the_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

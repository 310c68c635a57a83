/*
 * recover_test.c - devices that stall, lie, or ask for a reset; order and deadlines of what waits.
 */
#include "test_io.h"

#include <queztl/base.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N = 40 };

static struct vblk_config config(void)
{
    struct vblk_config c;

    qz_vblk_config_default(&c);
    c.queue_depth = 16;
    c.latency = true;
    return c;
}

static uint64_t features(unsigned packed, unsigned in_order)
{
    return rig_all_features() | (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0) |
           (in_order ? VBLK_BIT(VBLK_F_IN_ORDER) : 0);
}

struct load {
    struct vblk_request q[N];
    unsigned ended[N];
    uint8_t *data;
    unsigned done;
};

static void load_submit(struct rig *r, struct load *l, uint32_t op)
{
    struct vblk_request *batch[N];

    memset(l, 0, sizeof(*l));
    l->data = sim_buffer(r->sim, N * 512);
    for (unsigned i = 0; i < N; i++) {
        memset(l->data + i * 512, 'a' + (int)i, 512);
        l->q[i] = (struct vblk_request){
            .op = op, .count = 1, .sector = i, .segment = {l->data + i * 512, 512}};
        batch[i] = &l->q[i];
    }
    assert_int_equal(qz_vblk_submit(qz_vblk_queue(r->dev, 0), batch, N), N);
}

/* Runs until everything ended or nothing more comes; recovers when that is asked for. */
static unsigned load_run(struct rig *r, struct load *l, bool recover)
{
    struct vblk_queue *queue = qz_vblk_queue(r->dev, 0);
    struct vblk_request *done[N];
    unsigned recoveries = 0;

    for (unsigned round = 0; round < 20 && l->done < N; round++) {
        int n;

        sim_run(r->sim, 5);
        n = qz_vblk_poll(queue, done, N);
        for (int i = 0; i < n; i++) {
            l->ended[done[i] - l->q]++;
            l->done++;
        }
        if (recover && (n < 0 || qz_vblk_needs_recovery(r->dev))) {
            assert_int_equal(qz_vblk_recover(r->dev), 0);
            recoveries++;
        }
    }
    return recoveries;
}

static void load_check(const struct rig *r, const struct load *l)
{
    assert_int_equal(l->done, N);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(l->ended[i], 1);
        assert_int_equal(l->q[i].status, 0);
        assert_memory_equal(r->sim->disk + i * 512, l->data + i * 512, 512);
    }
}

/* Every lie breaks the queue, a reset heals it, and each request ends exactly once. */
static void lies(void **state)
{
    static const enum sim_fault faults[] = {SIM_FAULT_ID_HIGH, SIM_FAULT_ID_UNKNOWN,
                                            SIM_FAULT_LENGTH,  SIM_FAULT_RUNAWAY,
                                            SIM_FAULT_TWICE,   SIM_FAULT_NEEDS_RESET};

    for (unsigned f = 0; f < QZ_ARRAY_LEN(faults); f++) {
        for (unsigned way = 0; way < 4; way++) {
            struct vblk_config c = config();
            struct sim_options o = rig_options(features(way & 1, way >> 1));
            struct load l;
            struct rig r;

            if (faults[f] == SIM_FAULT_RUNAWAY && way & 1)
                continue; /* a packed ring has no index */
            rig_open(&r, &o, &c, 0);
            r.sim->fault = faults[f];
            r.sim->fault_after = 7;
            load_submit(&r, &l, VBLK_OP_WRITE);
            /* A known id reported early is a lie that only order, or its length, gives away. */
            if (load_run(&r, &l, true) == 0 && faults[f] != SIM_FAULT_ID_UNKNOWN)
                fail_msg("fault %u, ring %u: nothing was noticed", faults[f], way);
            if (faults[f] != SIM_FAULT_ID_UNKNOWN)
                load_check(&r, &l);
            rig_close(&r);
        }
    }
}

static void stall(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(0, 0));
    struct load l;
    struct rig r;

    rig_open(&r, &o, &c, 0);
    r.sim->fault = SIM_FAULT_STALL;
    r.sim->fault_after = 10;
    load_submit(&r, &l, VBLK_OP_WRITE);
    load_run(&r, &l, false);
    assert_int_equal(l.done, 10);
    assert_false(qz_vblk_needs_recovery(r.dev));
    assert_int_equal(qz_vblk_expire(qz_vblk_queue(r.dev, 0)), 0);
    assert_int_equal(qz_vblk_recover(r.dev), 0);
    load_run(&r, &l, false);
    load_check(&r, &l);
    rig_close(&r);
}

/* A device that does not come back keeps the requests waiting; when it does, they go on. */
static void slow_return(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(1, 0));
    struct load l;
    struct rig r;

    rig_open(&r, &o, &c, 0);
    load_submit(&r, &l, VBLK_OP_WRITE);
    r.sim->refuse_reset = true;
    assert_int_equal(qz_vblk_recover(r.dev), -VBLK_ETIMEDOUT);
    assert_int_equal(qz_vblk_recover(r.dev), -VBLK_ETIMEDOUT);
    assert_int_equal(qz_vblk_pending(qz_vblk_queue(r.dev, 0)), N);
    r.sim->refuse_reset = false;
    assert_int_equal(qz_vblk_recover(r.dev), 0);
    load_run(&r, &l, false);
    load_check(&r, &l);
    rig_close(&r);
}

static void failing_by_policy(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(0, 0));
    struct load l;
    struct rig r;
    unsigned failed = 0;

    c.recovery = VBLK_RECOVER_FAIL;
    rig_open(&r, &o, &c, 0);
    r.sim->fault = SIM_FAULT_NEEDS_RESET;
    r.sim->fault_after = 3;
    load_submit(&r, &l, VBLK_OP_WRITE);
    load_run(&r, &l, true);
    assert_int_equal(l.done, N);
    for (unsigned i = 0; i < N; i++)
        failed += l.q[i].status == -VBLK_EIO;
    /* Three were done and a ring of 16 was the device's; what waited in the driver went on. */
    assert_int_equal(failed, 16);
    rig_close(&r);
}

/* A zone append in the ring is not given again: it might be done twice. */
static void appends_fail(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(0, 0));
    struct vblk_request q, *p = &q;
    struct rig r;

    rig_open(&r, &o, &c, 0);
    q = (struct vblk_request){.op = VBLK_OP_ZONE_APPEND,
                              .count = 1,
                              .sector = 256,
                              .segment = {sim_buffer(r.sim, 512), 512}};
    qz_vblk_submit(qz_vblk_queue(r.dev, 0), &p, 1);
    assert_int_equal(qz_vblk_recover(r.dev), 0);
    assert_int_equal(qz_vblk_poll(qz_vblk_queue(r.dev, 0), &p, 1), 1);
    assert_int_equal(q.status, -VBLK_EIO);
    rig_close(&r);
}

static void one_queue(void **state)
{
    for (unsigned way = 0; way < 4; way++) {
        struct vblk_config c = config();
        struct sim_options o = rig_options(features(way & 1, way >> 1));
        struct load l;
        struct rig r;

        rig_open(&r, &o, &c, 0);
        r.sim->fault = SIM_FAULT_STALL;
        r.sim->fault_after = 7;
        load_submit(&r, &l, VBLK_OP_WRITE);
        load_run(&r, &l, false);
        assert_int_equal(qz_vblk_queue_recover(qz_vblk_queue(r.dev, 0)), 0);
        load_run(&r, &l, false);
        load_check(&r, &l);
        rig_close(&r);
    }
}

static void fewer_queues(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(0, 0));
    struct vblk_request q = {.op = VBLK_OP_FLUSH}, *p = &q;
    struct vblk_info info;
    struct rig r;

    c.queue_count = 4;
    rig_open(&r, &o, &c, 0);
    assert_int_equal(qz_vblk_submit(qz_vblk_queue(r.dev, 3), &p, 1), 1);
    r.sim->queues_usable = 2;
    assert_int_equal(qz_vblk_recover(r.dev), 0);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.queues, 2);
    assert_int_equal(qz_vblk_submit(qz_vblk_queue(r.dev, 3), &p, 1), -VBLK_ENODEV);
    sim_run(r.sim, 5);
    assert_int_equal(qz_vblk_poll(qz_vblk_queue(r.dev, 1), &p, 1), 1);
    assert_int_equal(q.status, 0);
    rig_close(&r);
}

static void device_errors(void **state)
{
    struct vblk_config c = config();
    struct sim_options o = rig_options(features(0, 0));
    struct vblk_request q = {.op = VBLK_OP_FLUSH};
    struct rig r;

    rig_open(&r, &o, &c, 0);
    r.sim->fault = SIM_FAULT_IO;
    assert_int_equal(rig_do(&r, &q), -VBLK_EIO);
    assert_int_equal(q.device_status, 1);
    r.sim->fault = SIM_FAULT_NO_STATUS;
    assert_int_equal(rig_do(&r, &q), -VBLK_EIO);
    assert_int_equal(q.device_status, 0xff);
    assert_false(qz_vblk_needs_recovery(r.dev));
    rig_close(&r);
}

/* The order in which waiting requests go: the ring holds four, the rest waits. */
static void schedulers(void **state)
{
    for (enum vblk_scheduler by = VBLK_SCHED_NONE; by <= VBLK_SCHED_DEADLINE; by++) {
        struct vblk_config c = config();
        struct sim_options o = rig_options(features(0, 1));
        struct vblk_request q[12], *batch[12], *done[12];
        struct rig r;
        unsigned n = 0;

        c.queue_depth = 4;
        c.segments_max = 1;
        c.scheduler = by;
        rig_open(&r, &o, &c, 0);
        for (unsigned i = 0; i < 12; i++) {
            q[i] = (struct vblk_request){
                .op = VBLK_OP_FLUSH, .priority = i % VBLK_PRIO_COUNT, .deadline_ns = 1000000 - i};
            batch[i] = &q[i];
        }
        assert_int_equal(qz_vblk_submit(qz_vblk_queue(r.dev, 0), batch, 12), 12);
        for (unsigned i = 0; i < 20 && n < 12; i++) {
            sim_run(r.sim, 1);
            n += (unsigned)qz_vblk_poll(qz_vblk_queue(r.dev, 0), done + n, 1);
        }
        assert_int_equal(n, 12);
        for (unsigned i = 4; i < 12; i++) {
            static const unsigned by_class[] = {6, 9, 4, 7, 10, 5, 8, 11};
            unsigned expect = by == VBLK_SCHED_NONE       ? i
                              : by == VBLK_SCHED_DEADLINE ? 15 - i
                                                          : by_class[i - 4];

            assert_ptr_equal(done[i], &q[expect]);
        }
        rig_close(&r);
    }
}

static void deadlines(void **state)
{
    for (enum vblk_scheduler by = VBLK_SCHED_NONE; by <= VBLK_SCHED_DEADLINE; by++) {
        struct vblk_config c = config();
        struct sim_options o = rig_options(features(0, 0));
        struct vblk_request q[12], *batch[12], *done[12];
        struct vblk_queue *queue;
        struct rig r;
        unsigned timeouts = 0;

        c.queue_depth = 4;
        c.segments_max = 1;
        c.scheduler = by;
        rig_open(&r, &o, &c, 0);
        queue = qz_vblk_queue(r.dev, 0);
        for (unsigned i = 0; i < 12; i++) {
            q[i] =
                (struct vblk_request){.op = VBLK_OP_FLUSH, .deadline_ns = i % 2 ? 100000 : 900000};
            batch[i] = &q[i];
        }
        assert_int_equal(qz_vblk_submit(queue, batch, 12), 12);
        assert_int_equal(qz_vblk_expire(queue), 0);
        r.sim->clock_ns = 200000;
        assert_int_equal(qz_vblk_expire(queue), 2); /* in the ring: the device's until a reset */
        assert_int_equal(qz_vblk_poll(queue, done, 12), 4);
        for (unsigned i = 0; i < 4; i++)
            timeouts += done[i]->status == -VBLK_ETIMEDOUT;
        assert_int_equal(timeouts, 4);
        assert_int_equal(qz_vblk_recover(r.dev), 0);
        assert_int_equal(qz_vblk_poll(queue, done, 12), 2);
        assert_int_equal(done[0]->status, -VBLK_ETIMEDOUT);
        assert_int_equal(qz_vblk_pending(queue), 6);
        sim_run(r.sim, 20);
        assert_int_equal(qz_vblk_poll(queue, done, 12), 4);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lies),         cmocka_unit_test(stall),
        cmocka_unit_test(slow_return),  cmocka_unit_test(failing_by_policy),
        cmocka_unit_test(appends_fail), cmocka_unit_test(one_queue),
        cmocka_unit_test(fewer_queues), cmocka_unit_test(device_errors),
        cmocka_unit_test(schedulers),   cmocka_unit_test(deadlines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

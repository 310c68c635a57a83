/*
 * user_test.c - the driver over vhost-user, against a server that nobody here wrote.
 */
#include "arena.h"
#include "load.h"
#include "qsd.h"

#include <poll.h>
#include <queztl/vblk_user.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { IMAGE = 64 << 20 };

struct rig {
    struct qsd qsd;
    struct vblk_user *user;
    struct vblk_device *dev;
    void *memory;
};

static bool rig_open(struct rig *r, uint64_t image, struct vblk_config *c)
{
    struct qz_error err = {0};
    size_t size = qz_vblk_memory_size(c);
    struct vblk_user_options o = {.memory = 32 << 20};

    if (qsd_start(&r->qsd, image, c->queue_count, &err) < 0) {
        print_message("skipped: %s\n", err.text);
        qsd_end(&r->qsd);
        return false;
    }
    o.path = r->qsd.socket;
    if (qz_vblk_user_open(&o, &r->user, &err) < 0)
        fail_msg("%s", err.text);
    r->memory = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul));
    assert_int_equal(qz_vblk_create(r->memory, size, qz_vblk_user_transport(r->user), c, &r->dev),
                     0);
    assert_int_equal(qz_vblk_start(r->dev), 0);
    return true;
}

static void rig_close(struct rig *r)
{
    qz_vblk_stop(r->dev);
    qz_vblk_user_close(r->user);
    free(r->memory);
    qsd_end(&r->qsd);
}

static int do_one(struct rig *r, struct vblk_request *q)
{
    struct vblk_queue *queue = qz_vblk_queue(r->dev, 0);
    int64_t until = qz_now_ns() + 10000000000;

    if (qz_vblk_submit(queue, &q, 1) != 1)
        return q->status;
    while (qz_now_ns() < until) {
        struct vblk_request *done;
        int n = qz_vblk_poll(queue, &done, 1);

        if (n != 0)
            return n < 0 ? n : done->status;
    }
    return -VBLK_ETIMEDOUT;
}

static void commands(void **state)
{
    struct vblk_config c;
    struct vblk_info info;
    struct vblk_range range = {.sector = 8, .sectors = 8};
    struct vblk_request q;
    struct rig r;
    uint8_t *data;

    qz_vblk_config_default(&c);
    if (!rig_open(&r, IMAGE, &c))
        skip();
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.sectors, IMAGE / 512);
    data = qz_vblk_user_alloc(r.user, 16384, 4096);
    memset(data, 0x77, 16384);
    q = (struct vblk_request){.op = VBLK_OP_WRITE, .count = 1, .segment = {data, 16384}};
    assert_int_equal(do_one(&r, &q), 0);
    q = (struct vblk_request){.op = VBLK_OP_WRITE_ZEROES, .count = 1, .ranges = &range};
    assert_int_equal(do_one(&r, &q), 0);
    q = (struct vblk_request){.op = VBLK_OP_DISCARD, .count = 1, .ranges = &range};
    assert_int_equal(do_one(&r, &q), 0);
    q = (struct vblk_request){.op = VBLK_OP_FLUSH};
    assert_int_equal(do_one(&r, &q), 0);
    q = (struct vblk_request){.op = VBLK_OP_READ, .count = 1, .segment = {data, 16384}};
    assert_int_equal(do_one(&r, &q), 0);
    for (unsigned i = 0; i < 16384; i++)
        assert_int_equal(data[i], i / 4096 == 1 ? 0 : 0x77);
    q = (struct vblk_request){.op = VBLK_OP_GET_ID, .count = 1, .segment = {data, VBLK_ID_BYTES}};
    assert_int_equal(do_one(&r, &q), 0);
    if (info.features & VBLK_BIT(VBLK_F_CONFIG_WCE)) {
        assert_int_equal(qz_vblk_set_writeback(r.dev, false), 0);
        assert_int_equal(qz_vblk_set_writeback(r.dev, true), 0);
    }
    rig_close(&r);
}

static void restart_qsd(void *arg)
{
    struct rig *r = arg;
    struct qz_error err;

    qsd_kill(&r->qsd);
    assert_int_equal(qsd_restart(&r->qsd, &err), 0);
}

static void data_survives(void **state)
{
    for (unsigned way = 0; way < 3; way++) {
        struct vblk_config c;
        struct load *l;
        struct rig r;

        qz_vblk_config_default(&c);
        c.queue_count = 1 + way;
        c.features_off = way == 1   ? VBLK_BIT(VBLK_F_INDIRECT_DESC)
                         : way == 2 ? VBLK_BIT(VBLK_F_EVENT_IDX)
                                    : 0;
        if (!rig_open(&r, IMAGE, &c))
            skip();
        l = load_new(r.user, r.dev, 1);
        load_run(l, 20000, 0, NULL, NULL);
        free(l);
        rig_close(&r);
    }
}

static void server_is_killed(void **state)
{
    struct load *l;
    const char *times = getenv("VBLK_KILLS");
    unsigned kills = times ? (unsigned)atoi(times) : 5;
    struct vblk_config c;
    struct rig r;

    qz_vblk_config_default(&c);
    c.queue_count = 2;
    if (!rig_open(&r, IMAGE, &c))
        skip();
    l = load_new(r.user, r.dev, 1);
    load_run(l, 500 * (kills + 1), 500, restart_qsd, &r);
    free(l);
    rig_close(&r);
}

static void interrupts_arrive(void **state)
{
    struct vblk_config c;
    struct vblk_request q = {.op = VBLK_OP_FLUSH}, *p = &q;
    struct vblk_queue *queue;
    struct pollfd fd = {.events = POLLIN};
    struct rig r;

    qz_vblk_config_default(&c);
    c.interrupts = true;
    if (!rig_open(&r, IMAGE, &c))
        skip();
    queue = qz_vblk_queue(r.dev, 0);
    fd.fd = qz_vblk_user_event_fd(r.user, 0);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t count;

        while (read(fd.fd, &count, sizeof(count)) > 0)
            continue;
        assert_int_equal(qz_vblk_submit(queue, &p, 1), 1);
        if (!qz_vblk_arm(queue, NULL))
            assert_int_equal(poll(&fd, 1, 10000), 1);
        assert_int_equal(qz_vblk_poll(queue, &p, 1), 1);
        assert_int_equal(q.status, 0);
    }
    rig_close(&r);
}

static void arena_merges(void **state)
{
    struct arena a;
    void *p[64];

    assert_int_equal(arena_open(&a, 1 << 20, false, NULL), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++) {
            p[i] = arena_alloc(&a, 1000 + 64 * i, 64u << i % 7);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t)p[i] % (64u << i % 7), 0);
        }
        for (unsigned i = 0; i < 64; i++)
            arena_free(&a, p[i * 37 % 64], 1000 + 64 * (i * 37 % 64));
        assert_int_equal(a.used, 0);
        assert_int_equal(a.count, 1);
    }
    assert_null(arena_alloc(&a, a.size + 1, 64));
    p[0] = arena_alloc(&a, a.size, 64);
    assert_non_null(p[0]);
    arena_free(&a, p[0], a.size);
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_merges),     cmocka_unit_test(commands),
        cmocka_unit_test(data_survives),    cmocka_unit_test(interrupts_arrive),
        cmocka_unit_test(server_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * restart_test.c - a server is killed under load, again and again, with both ring formats: no
 * request is lost, none ends twice, and the data is what was written.
 */
#include "load.h"
#include "test_server.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { SECTORS = 32768, EVERY = 300 };

struct rig {
    struct test_server server;
    pid_t pid;
    char dir[64], socket[96];
    struct vblk_user *user;
    struct vblk_device *dev;
    void *memory;
};

static void start_server(struct rig *r)
{
    r->pid = test_server_start(&r->server);
    assert_true(r->pid > 0);
}

static void end_server(struct rig *r)
{
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
}

static void replace(void *arg)
{
    end_server(arg);
    start_server(arg);
}

static void rig_open(struct rig *r, uint64_t features, unsigned queues, bool inflight)
{
    struct vblk_user_options o = {.memory = 32 << 20};
    struct qz_error err = {0};
    struct vblk_config c;

    *r = (struct rig){.dir = "/tmp/vblk-restart-XXXXXX"};
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->socket, sizeof(r->socket), "%s/s", r->dir);
    o.path = r->socket;
    r->server = (struct test_server){.socket = r->socket,
                                     .disk = memfd_create("disk", 0),
                                     .sectors = SECTORS,
                                     .features = features,
                                     .queues = queues,
                                     .inflight = inflight,
                                     .reorder = true};
    assert_int_equal(ftruncate(r->server.disk, SECTORS * 512), 0);
    start_server(r);
    if (qz_vblk_user_open(&o, &r->user, &err) < 0)
        fail_msg("%s", err.text);
    qz_vblk_config_default(&c);
    c.queue_count = queues;
    c.queue_depth = 32;
    r->memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    assert_int_equal(qz_vblk_create(r->memory, qz_vblk_memory_size(&c),
                                    qz_vblk_user_transport(r->user), &c, &r->dev),
                     0);
    assert_int_equal(qz_vblk_start(r->dev), 0);
}

static void rig_close(struct rig *r)
{
    qz_vblk_stop(r->dev);
    qz_vblk_user_close(r->user);
    free(r->memory);
    end_server(r);
    close(r->server.disk);
    unlink(r->socket);
    rmdir(r->dir);
}

/* With an in-flight buffer the rings outlive every server; without, each loss is a reset. */
static void killed(uint64_t features, unsigned kills, bool inflight)
{
    struct vblk_info info;
    struct load *l;
    struct rig r;

    rig_open(&r, features, 2, inflight);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(info.features & features, features);
    l = load_new(r.user, r.dev, 5);
    load_run(l, (uint64_t)EVERY * (kills + 1), EVERY, replace, &r);
    qz_vblk_get_info(r.dev, &info);
    assert_int_equal(inflight ? info.resumes : info.resets, kills);
    assert_int_equal(inflight ? info.resets : info.resumes, 0);
    free(l);
    rig_close(&r);
}

#define USUAL  (VBLK_BIT(VBLK_F_INDIRECT_DESC) | VBLK_BIT(VBLK_F_EVENT_IDX))
#define PACKED VBLK_BIT(VBLK_F_RING_PACKED)

static void split(void **state)
{
    killed(USUAL, 100, false);
}

static void packed(void **state)
{
    killed(PACKED | USUAL, 100, false);
}

static void plain(void **state)
{
    killed(0, 10, false);
    killed(PACKED, 10, false);
}

static void split_inflight(void **state)
{
    killed(USUAL, 100, true);
}

static void packed_inflight(void **state)
{
    killed(PACKED | USUAL, 100, true);
}

static void plain_inflight(void **state)
{
    killed(0, 100, true);
    killed(PACKED, 100, true);
}

/* The server's life is in the test's hands: while there is none, requests wait. */
static void away(void **state)
{
    struct vblk_request q = {.op = VBLK_OP_READ, .count = 1}, *p = &q;
    struct rig r;
    int n = 0;

    rig_open(&r, PACKED, 1, false);
    q.segment = (struct vblk_segment){qz_vblk_user_alloc(r.user, 4096, 512), 4096};
    kill(r.pid, SIGSTOP); /* so that the request is certainly still there */
    assert_int_equal(qz_vblk_submit(qz_vblk_queue(r.dev, 0), &p, 1), 1);
    replace(&r);
    assert_true(qz_vblk_needs_recovery(r.dev));
    assert_int_equal(qz_vblk_recover(r.dev), 0);
    for (int64_t until = qz_now_ns() + INT64_C(10000000000); n == 0 && qz_now_ns() < until;)
        n = qz_vblk_poll(qz_vblk_queue(r.dev, 0), &p, 1);
    assert_int_equal(n, 1);
    assert_int_equal(q.status, 0);
    assert_int_equal(q.attempts, 2);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split),
        cmocka_unit_test(packed),
        cmocka_unit_test(plain),
        cmocka_unit_test(split_inflight),
        cmocka_unit_test(packed_inflight),
        cmocka_unit_test(plain_inflight),
        cmocka_unit_test(away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

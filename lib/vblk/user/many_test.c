/*
 * many_test.c - as much as the driver promises: 32 devices with 16 queues of depth 1,024, every
 * ring full at once, each request with data of its own that is written and read back.
 *
 * Four children serve eight disks in memory each (a process has 256 disk queues at most); one
 * thread drives all 512 queues by polling.
 */
#include <queztl/disk.h>
#include <queztl/vblk_user.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { DEVICES = VBLK_DEVICES_MAX, QUEUES = 16, DEPTH = VBLK_DEPTH_MAX, SIZE = 512, SERVERS = 4 };
#define LIMIT_NS INT64_C(100000000000)

struct device {
    char path[64];
    struct vblk_user *user;
    struct vblk_device *dev;
    void *memory;
    uint8_t *data;
    struct vblk_request requests[QUEUES][DEPTH];
};

struct rig {
    char dir[32];
    pid_t pids[SERVERS];
    struct device devices[DEVICES];
};

static void serve(const struct rig *r, unsigned number, const int *listeners)
{
    const struct qz_disk_vhost_options o = {.queues = QUEUES};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = number; i < DEVICES; i += SERVERS) {
        struct qz_disk_server *server;
        struct qz_error err = {0};
        struct qz_disk *disk;

        if (qz_disk_open(&disk, "memory:8MiB", &err) < 0 ||
            qz_disk_serve_vhost_user(&server, disk, listeners[i], &o, &err) < 0) {
            fprintf(stderr, "server of %s: %s\n", r->devices[i].path, err.text);
            _exit(1);
        }
    }
    for (;;)
        pause();
}

static void start_servers(struct rig *r)
{
    int listeners[DEVICES];

    snprintf(r->dir, sizeof(r->dir), "/tmp/vblk-many-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    for (unsigned i = 0; i < DEVICES; i++) {
        struct sockaddr_un addr = {.sun_family = AF_UNIX};

        snprintf(r->devices[i].path, sizeof(r->devices[i].path), "%s/%u", r->dir, i);
        snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", r->devices[i].path);
        listeners[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listeners[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
        assert_int_equal(listen(listeners[i], 2), 0);
    }
    for (unsigned i = 0; i < SERVERS; i++) {
        r->pids[i] = fork();
        assert_true(r->pids[i] >= 0);
        if (r->pids[i] == 0)
            serve(r, i, listeners);
    }
    for (unsigned i = 0; i < DEVICES; i++)
        close(listeners[i]);
}

static void device_open(struct device *d)
{
    struct vblk_user_options o = {.path = d->path, .memory = 24 << 20};
    struct qz_error err = {0};
    struct vblk_info info;
    struct vblk_config c;

    if (qz_vblk_user_open(&o, &d->user, &err) < 0)
        fail_msg("%s", err.text);
    qz_vblk_config_default(&c);
    c.queue_count = QUEUES;
    c.queue_depth = DEPTH;
    c.segments_max = c.ranges_max = 1;
    d->memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    assert_int_equal(qz_vblk_create(d->memory, qz_vblk_memory_size(&c),
                                    qz_vblk_user_transport(d->user), &c, &d->dev),
                     0);
    assert_int_equal(qz_vblk_start(d->dev), 0);
    qz_vblk_get_info(d->dev, &info);
    assert_int_equal(info.queues, QUEUES);
    assert_int_equal(info.depth, DEPTH);
    d->data = qz_vblk_user_alloc(d->user, (size_t)QUEUES * DEPTH * SIZE, SIZE);
    assert_non_null(d->data);
}

static uint64_t mark(unsigned device, unsigned queue, unsigned i)
{
    return UINT64_C(0x51) << 56 ^ (uint64_t)device << 40 ^ (uint64_t)queue << 20 ^ i;
}

/* Every ring of the device gets all that it can hold. */
static void submit_all(struct rig *r, unsigned device, uint32_t op)
{
    struct device *d = &r->devices[device];

    for (unsigned q = 0; q < QUEUES; q++) {
        struct vblk_request *batch[DEPTH];
        struct vblk_queue_info info;

        for (unsigned i = 0; i < DEPTH; i++) {
            uint32_t number = q * DEPTH + i;
            uint64_t *at = (void *)(d->data + (size_t)number * SIZE);

            for (unsigned w = 0; w < SIZE / 8; w++)
                at[w] = op == VBLK_OP_WRITE ? mark(device, q, i) + w : 0;
            d->requests[q][i] = (struct vblk_request){
                .op = op, .count = 1, .sector = number, .segment = {at, SIZE}};
            batch[i] = &d->requests[q][i];
        }
        assert_int_equal(qz_vblk_submit(qz_vblk_queue(d->dev, q), batch, DEPTH), DEPTH);
        qz_vblk_get_queue_info(qz_vblk_queue(d->dev, q), &info);
        assert_int_equal(info.waiting, 0);
    }
}

static void check(const struct rig *r, unsigned device)
{
    const struct device *d = &r->devices[device];

    for (unsigned q = 0; q < QUEUES; q++)
        for (unsigned i = 0; i < DEPTH; i++) {
            const uint64_t *at = (const void *)(d->data + (size_t)(q * DEPTH + i) * SIZE);

            for (unsigned w = 0; w < SIZE / 8; w++)
                assert_int_equal(at[w], mark(device, q, i) + w);
        }
}

static void wait_all(struct rig *r)
{
    int64_t until = qz_now_ns() + LIMIT_NS;
    unsigned ended = 0;

    while (ended < DEVICES * QUEUES * DEPTH) {
        for (unsigned k = 0; k < DEVICES * QUEUES; k++) {
            struct vblk_request *done[DEPTH];
            int n =
                qz_vblk_poll(qz_vblk_queue(r->devices[k / QUEUES].dev, k % QUEUES), done, DEPTH);

            assert_true(n >= 0);
            for (int i = 0; i < n; i++)
                assert_int_equal(done[i]->status, 0);
            ended += (unsigned)n;
        }
        assert_true(qz_now_ns() < until);
    }
}

static void everything_at_once(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    int64_t began;

    assert_non_null(r);
    start_servers(r);
    for (unsigned i = 0; i < DEVICES; i++)
        device_open(&r->devices[i]);
    began = qz_now_ns();
    for (unsigned i = 0; i < DEVICES; i++)
        submit_all(r, i, VBLK_OP_WRITE);
    wait_all(r);
    for (unsigned i = 0; i < DEVICES; i++)
        submit_all(r, i, VBLK_OP_READ);
    wait_all(r);
    print_message("%u requests in %.2f s\n", 2 * DEVICES * QUEUES * DEPTH,
                  (double)(qz_now_ns() - began) / 1e9);
    for (unsigned i = 0; i < DEVICES; i++) {
        struct device *d = &r->devices[i];

        check(r, i);
        qz_vblk_stop(d->dev);
        qz_vblk_user_close(d->user);
        free(d->memory);
        unlink(d->path);
    }
    for (unsigned i = 0; i < SERVERS; i++) {
        kill(r->pids[i], SIGKILL);
        waitpid(r->pids[i], NULL, 0);
    }
    rmdir(r->dir);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_at_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

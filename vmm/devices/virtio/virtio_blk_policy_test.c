/*
 * virtio_blk_policy_test.c - what a failing disk does to its guest under each policy, disks that
 * grow, and queues on several threads.
 */
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "devices/virtio/test_blk.h"

enum { SECTORS = 4096, CAPACITY = SECTORS * BLK_SECTOR, QUEUES = 4, CAPACITY_AT = 0 };

struct fixture {
    struct blk_rig r;
    struct memory_disk m;
    unsigned stops; /* times the machine was asked to pause */
};

static void on_stopped(void *context, struct virtio_device *d)
{
    ((struct fixture *)context)->stops++;
}

static void open_disk(struct fixture *f, enum virtio_blk_on_error policy, bool packed)
{
    struct virtio_blk_options o = {.queues = QUEUES,
                                   .queue_size = 32,
                                   .on_error = policy,
                                   .stopped = on_stopped,
                                   .context = f};
    struct qz_error err;

    *f = (struct fixture){0};
    memory_disk_init(&f->m, CAPACITY);
    assert_int_equal(blk_rig_open(&f->r, &f->m.b, &o, &err), 0);
    assert_int_equal(vtest_negotiate(f->r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(40), packed), 0);
}

static void close_disk(struct fixture *f)
{
    blk_rig_close(&f->r);
    memory_disk_destroy(&f->m);
}

static struct virtio_blk_stats stats_of(struct fixture *f)
{
    struct virtio_blk_stats s;

    virtio_blk_get_stats(f->r.d, &s);
    return s;
}

static bool is_kept(void *context)
{
    struct fixture *f = context;

    return virtio_blk_kept(f->r.d, NULL, 0) == QUEUES;
}

static void submit_writes(struct fixture *f, struct blk_io io[QUEUES],
                          uint8_t data[QUEUES][BLK_SECTOR])
{
    for (unsigned q = 0; q < QUEUES; q++) {
        memset(data[q], 0x40 + (int)q, BLK_SECTOR);
        assert_int_equal(blk_submit(&f->r, &io[q], q, VIRTIO_BLK_T_OUT, q, data[q], BLK_SECTOR), 0);
    }
}

/* ---- policies */

static void test_report(void **state)
{
    struct fixture f;
    uint8_t data[BLK_SECTOR] = {1};

    open_disk(&f, VIRTIO_BLK_REPORT, true);
    f.m.result = -ENOSPC;
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(stats_of(&f).errors, 2);
    assert_int_equal(f.stops + stats_of(&f).stops + stats_of(&f).ignored, 0);
    close_disk(&f);
}

/* Kept on all queues, nothing answered; tried again twice, and then it is on the disk. */
static void test_stop(void **state)
{
    uint8_t data[QUEUES][BLK_SECTOR];
    struct blk_io io[QUEUES];
    struct fixture f;
    char text[200] = "";

    for (unsigned packed = 0; packed < 2; packed++) {
        open_disk(&f, VIRTIO_BLK_STOP, packed);
        f.m.result = -ENOSPC;
        submit_writes(&f, io, data);
        assert_int_equal(vtest_run_until(f.r.tm, is_kept, &f), 0);
        assert_int_equal(f.stops, QUEUES);
        assert_int_equal(virtio_blk_kept(f.r.d, text, sizeof(text)), QUEUES);
        assert_non_null(strstr(text, "write of 512 bytes at 1536: No space left"));
        for (unsigned q = 0; q < QUEUES; q++) {
            assert_int_equal(vtest_poll(f.r.t, q), 0);
            assert_int_equal(io[q].status, 0xff);
        }
        virtio_blk_retry(f.r.d); /* still no room */
        vtest_run(f.r.tm, 0);
        assert_int_equal(f.stops, 2 * QUEUES);
        assert_int_equal(virtio_blk_kept(f.r.d, NULL, 0), QUEUES);
        f.m.result = 0;
        virtio_blk_retry(f.r.d);
        for (unsigned q = 0; q < QUEUES; q++) {
            assert_int_equal(blk_wait(&f.r, &io[q]), VIRTIO_BLK_S_OK);
            assert_memory_equal(f.m.data + q * BLK_SECTOR, data[q], BLK_SECTOR);
        }
        assert_int_equal(virtio_blk_kept(f.r.d, NULL, 0), 0);
        assert_int_equal(stats_of(&f).errors, 0);
        assert_int_equal(stats_of(&f).stops, 2 * QUEUES);
        close_disk(&f);
    }
}

/* What no repair of the medium makes good is told at once. */
static void test_stop_mistake(void **state)
{
    struct fixture f;
    uint8_t data[BLK_SECTOR] = {1};

    open_disk(&f, VIRTIO_BLK_STOP, false);
    f.m.result = -EINVAL;
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(f.stops, 0);
    close_disk(&f);
}

/* A reset, of the device or a queue, forgets what is kept, and the driver begins anew. */
static void test_stop_reset(void **state)
{
    uint8_t data[QUEUES][BLK_SECTOR];
    struct blk_io io[QUEUES];
    struct fixture f;

    open_disk(&f, VIRTIO_BLK_STOP, false);
    f.m.result = -EIO;
    submit_writes(&f, io, data);
    assert_int_equal(vtest_run_until(f.r.tm, is_kept, &f), 0);
    vtest_common_write(f.r.t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    vtest_common_write(f.r.t, 58, 2, 1); /* queue_reset (§4.1.4.3) */
    assert_int_equal(vtest_common_read(f.r.t, 58, 2), 0);
    assert_int_equal(virtio_blk_kept(f.r.d, NULL, 0), QUEUES - 1);
    assert_int_equal(vtest_reset(f.r.t), 0);
    assert_int_equal(virtio_blk_kept(f.r.d, NULL, 0), 0);
    virtio_blk_retry(f.r.d);
    vtest_run(f.r.tm, 0);
    f.m.result = 0;
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH), true), 0);
    assert_int_equal(blk_request(&f.r, 1, VIRTIO_BLK_T_OUT, 9, data[0], BLK_SECTOR),
                     VIRTIO_BLK_S_OK);
    close_disk(&f);
}

static void test_ignore(void **state)
{
    struct fixture f;
    uint8_t data[BLK_SECTOR] = {1};

    open_disk(&f, VIRTIO_BLK_IGNORE, true);
    f.m.result = -EIO;
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_OK);
    assert_int_equal(blk_request(&f.r, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(stats_of(&f).ignored, 2);
    assert_int_equal(stats_of(&f).errors, 1);
    close_disk(&f);
}

/* ---- growing */

struct growth {
    struct fixture *f;
    uint64_t size;
    int result;
    bool done; /* atomic */
    struct qz_error err;
};

static void *grow_main(void *argument)
{
    struct growth *g = argument;

    g->result = virtio_blk_resize(g->f->r.d, g->size, &g->err);
    __atomic_store_n(&g->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static bool has_grown(void *context)
{
    return __atomic_load_n(&((struct growth *)context)->done, __ATOMIC_ACQUIRE);
}

static int grow(struct fixture *f, uint64_t size, struct growth *g)
{
    pthread_t thread;

    *g = (struct growth){.f = f, .size = size};
    assert_int_equal(pthread_create(&thread, NULL, grow_main, g), 0);
    assert_int_equal(vtest_run_until(f->r.tm, has_grown, g), 0);
    pthread_join(thread, NULL);
    return g->result;
}

static void test_resize(void **state)
{
    struct fixture f;
    struct growth g;
    uint8_t data[BLK_SECTOR], back[BLK_SECTOR];
    uint64_t sectors = 0;

    memset(data, 7, sizeof(data));
    open_disk(&f, VIRTIO_BLK_REPORT, true);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, SECTORS, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    f.r.tm->msi_count = 0;
    assert_int_equal(grow(&f, CAPACITY - BLK_SECTOR, &g), -EINVAL);
    assert_non_null(strstr(g.err.text, "only grows"));
    assert_int_equal(grow(&f, CAPACITY + 1, &g), -EINVAL);
    assert_int_equal(vtest_msi_count(f.r.tm, 0), 0);
    assert_int_equal(grow(&f, 2 * CAPACITY, &g), 0);
    assert_int_equal(vtest_msi_count(f.r.tm, 0), 1); /* the configuration's vector */
    vtest_device_read(f.r.t, CAPACITY_AT, &sectors, 4);
    assert_int_equal(sectors, 2 * SECTORS);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 2 * SECTORS - 1, data, sizeof(data)),
                     VIRTIO_BLK_S_OK);
    assert_int_equal(blk_request(&f.r, 3, VIRTIO_BLK_T_IN, 2 * SECTORS - 1, back, sizeof(back)),
                     VIRTIO_BLK_S_OK);
    assert_memory_equal(data, back, sizeof(data));
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 2 * SECTORS, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    close_disk(&f);
}

/* ---- several threads */

enum { LANES = 3 };

struct lanes {
    struct blk_rig r;
    struct qz_loop *loop[LANES];
    pthread_t thread[LANES];
    char path[40];
    int fd;
};

static void *loop_main(void *loop)
{
    qz_loop_run(loop);
    return NULL;
}

static bool open_lanes(struct lanes *l, const char *more)
{
    struct virtio_blk_options o = {
        .queues = QUEUES, .queue_size = 64, .loops = l->loop, .loop_count = LANES};
    struct block_backend *backend;
    struct qz_error err = {0};
    char options[120];

    strcpy(l->path, "/tmp/queztl-lanes-XXXXXX");
    l->fd = mkstemp(l->path);
    assert_true(l->fd >= 0);
    assert_int_equal(ftruncate(l->fd, CAPACITY), 0);
    snprintf(options, sizeof(options), "%s%s", l->path, more);
    if (block_disk_open(&backend, options, &err) < 0) {
        print_message("skipped: %s\n", err.text);
        assert_true(err.code == -EPERM || err.code == -ENOSYS); /* no io_uring here */
        unlink(l->path);
        close(l->fd);
        return false;
    }
    for (unsigned i = 0; i < LANES; i++)
        assert_int_equal(qz_loop_new(&l->loop[i], &err), 0);
    assert_int_equal(blk_rig_open(&l->r, backend, &o, &err), 0);
    for (unsigned i = 0; i < LANES; i++)
        assert_int_equal(pthread_create(&l->thread[i], NULL, loop_main, l->loop[i]), 0);
    return true;
}

static void close_lanes(struct lanes *l)
{
    assert_int_equal(vtest_reset(l->r.t), 0);
    for (unsigned i = 0; i < LANES; i++) {
        qz_loop_stop(l->loop[i], 0);
        pthread_join(l->thread[i], NULL);
    }
    blk_rig_close(&l->r);
    for (unsigned i = 0; i < LANES; i++)
        qz_loop_free(l->loop[i]);
    unlink(l->path);
    close(l->fd);
}

enum { EACH = 24 };

static void submit_round(struct lanes *l, struct blk_io (*io)[EACH], uint8_t *data, uint32_t type)
{
    for (unsigned n = 0; n < QUEUES * EACH; n++)
        assert_int_equal(blk_submit(&l->r, &io[n % QUEUES][n / QUEUES], n % QUEUES, type, n * 8,
                                    data + n * 4096, 4096),
                         0);
}

/* Every queue carries data, on every kind of ring; what is written is in the file. */
static void test_lanes(void **state)
{
    struct blk_io(*io)[EACH] = calloc(QUEUES, sizeof(*io));
    size_t bytes = QUEUES * EACH * 4096;
    uint8_t *data = malloc(bytes), *back = malloc(bytes);
    struct lanes l = {0};

    if (!open_lanes(&l, ""))
        skip();
    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(vtest_reset(l.r.t), 0);
        assert_int_equal(
            vtest_negotiate(l.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_MQ), packed),
            0);
        for (unsigned round = 0; round < 20; round++) {
            for (size_t i = 0; i < bytes; i++)
                data[i] = (uint8_t)(i * 13 + i / 4096 + round + packed * 101);
            for (unsigned write = 2; write-- > 0;) {
                submit_round(&l, io, write ? data : back,
                             write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
                for (unsigned n = 0; n < QUEUES * EACH; n++)
                    assert_int_equal(blk_wait(&l.r, &io[n % QUEUES][n / QUEUES]), VIRTIO_BLK_S_OK);
            }
            assert_memory_equal(data, back, bytes);
        }
        assert_int_equal(pread(l.fd, back, bytes, 0), (ssize_t)bytes);
        assert_memory_equal(data, back, bytes);
    }
    close_lanes(&l);
    free(data);
    free(back);
    free(io);
}

/* Resets of the device and of single queues while all threads are at work, whose requests are slow
 * or quick. */
static void test_lanes_reset(void **state)
{
    struct blk_io(*io)[EACH] = calloc(QUEUES, sizeof(*io));
    uint8_t *data = calloc(QUEUES * EACH, 4096);
    struct lanes l = {0};

    if (!open_lanes(&l, ",inject=write:delay=300us:every=3"))
        skip();
    for (unsigned round = 0; round < 60; round++) {
        unsigned q = round % QUEUES;

        assert_int_equal(vtest_reset(l.r.t), 0);
        assert_int_equal(vtest_negotiate(l.r.t, QZ_BIT(VIRTIO_BLK_F_MQ) | QZ_BIT(40), round & 1),
                         0);
        submit_round(&l, io, data, VIRTIO_BLK_T_OUT);
        if (round & 2) {
            vtest_common_write(l.r.t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
            vtest_common_write(l.r.t, 58, 2, 1); /* queue_reset */
        }
        if (round & 4)
            assert_int_equal(blk_wait(&l.r, &io[(q + 1) % QUEUES][0]), VIRTIO_BLK_S_OK);
    }
    close_lanes(&l);
    free(data);
    free(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),       cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_mistake), cmocka_unit_test(test_stop_reset),
        cmocka_unit_test(test_ignore),       cmocka_unit_test(test_resize),
        cmocka_unit_test(test_lanes),        cmocka_unit_test(test_lanes_reset),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("virtio-blk-policy", tests, NULL, NULL);
}

/* filter_test.c - injected errors, counted latencies, kept rates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter.h"
#include "memory.h"
#include "task.h"

struct fixture {
    struct disk_queue *q;
    struct layer *below, *l;
};

static void set_up(struct fixture *f)
{
    struct qz_error err;

    assert_int_equal(queue_new(&f->q, 16, &err), 0);
    assert_int_equal(null_open(&f->below, 1 << 20, &err), 0);
}

static void end(struct fixture *f)
{
    f->l->ops->free(f->l);
    f->below->ops->free(f->below);
    queue_free(f->q);
}

static void run(struct fixture *f, int (*fn)(struct disk_queue *q, void *argument))
{
    assert_int_equal(task_run(f->q, fn, f), 0);
}

/* ---- inject */

static int provoke(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    char b[512];
    int64_t start = qz_now_ns();

    assert_int_equal(layer_write(f->l, q, 0, b, 512), 0); /* after=1 */
    assert_int_equal(layer_write(f->l, q, 0, b, 512), -ENOSPC);
    assert_int_equal(layer_write(f->l, q, 0, b, 512), 0); /* every=2 */
    assert_int_equal(layer_write(f->l, q, 0, b, 512), -ENOSPC);
    assert_int_equal(layer_write(f->l, q, 0, b, 512), 0);
    assert_int_equal(layer_write(f->l, q, 0, b, 512), 0); /* count=2 */
    assert_int_equal(layer_read(f->l, q, 3584, b, 512), 0);
    assert_int_equal(layer_read(f->l, q, 4096, b, 512), -EIO);
    assert_int_equal(layer_flush(f->l, q), -ETIMEDOUT);
    assert_true(qz_now_ns() - start >= 3000000);
    return 0;
}

/* ---- requests that are done at once */

struct late {
    struct queue_work work;
    struct task *task;
    bool ran;
};

static void on_late(struct queue_work *w)
{
    struct late *l = QZ_CONTAINER_OF(w, struct late, work);

    l->ran = true;
    task_resume(l->task);
}

/* A request that was done before anybody waited leaves nothing behind that ends the next wait. */
static int waits_once(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    char b[512];

    for (unsigned i = 0; i < 3; i++) {
        struct late late = {.work = {.run = on_late}, .task = task_current()};

        assert_int_equal(layer_read(f->below, q, 0, b, sizeof(b)), 0);
        queue_post(q, &late.work);
        task_suspend();
        assert_true(late.ran);
    }
    return 0;
}

static void test_done_at_once(void **state)
{
    struct fixture f;
    struct qz_error err;

    set_up(&f);
    assert_int_equal(inject_open(&f.l, f.below, "read:error=EIO:count=1", &err), 0);
    run(&f, waits_once);
    end(&f);
}

static void test_inject(void **state)
{
    struct fixture f;
    struct qz_error err;

    set_up(&f);
    assert_int_equal(inject_open(&f.l, f.below,
                                 "write:error=ENOSPC:after=1:every=2:count=2;"
                                 "read:error=EIO:from=4096:to=8192;flush:delay=3ms:error=ETIMEDOUT",
                                 &err),
                     0);
    run(&f, provoke);
    end(&f);
}

static void test_bad_rules(void **state)
{
    static const char *const bad[] = {"",
                                      "write",
                                      "scribble:error=EIO",
                                      "write:error=EWHAT",
                                      "write:delay=5",
                                      "write:every=0:error=EIO",
                                      "any:error",
                                      "any:colour=red"};
    struct fixture f;
    struct qz_error err;

    set_up(&f);
    for (unsigned i = 1; i < QZ_ARRAY_LEN(bad); i++)
        assert_int_equal(inject_open(&f.l, f.below, bad[i], &err) < 0, true);
    assert_int_equal(inject_open(&f.l, f.below, "", &err), 0);
    end(&f);
}

/* ---- stats */

static int work(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    char b[4096];

    for (int i = 0; i < 100; i++)
        assert_int_equal(layer_read(f->l, q, 0, b, sizeof(b)), 0);
    assert_int_equal(layer_flush(f->l, q), 0);
    return 0;
}

static void test_stats(void **state)
{
    struct fixture f;
    struct qz_error err;
    struct stats_op s;

    set_up(&f);
    assert_int_equal(stats_open(&f.l, f.below, &err), 0);
    run(&f, work);
    stats_get(f.l, DISK_READ, &s);
    assert_int_equal(s.count, 100);
    assert_int_equal(s.bytes, 100 * 4096);
    assert_int_equal(s.errors, 0);
    assert_true(stats_percentile(&s, 0.5) <= stats_percentile(&s, 0.99));
    assert_true(stats_percentile(&s, 1) >= s.total_ns / 100);
    stats_get(f.l, DISK_FLUSH, &s);
    assert_int_equal(s.count, 1);
    end(&f);
}

static void test_buckets(void **state)
{
    unsigned last = 0;

    for (uint64_t ns = 0; ns < 1ull << 40; ns += 1 + ns / 100) {
        unsigned b = stats_bucket(ns);

        assert_true(b >= last && b < STATS_BUCKETS);
        assert_true(stats_bucket_ns(b) <= ns && ns < stats_bucket_ns(b + 1));
        last = b;
    }
}

/* ---- throttle: what is certain is the lower bound of the time */

static int sixty(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    int64_t start = qz_now_ns();
    char b[512];

    /* A tenth of a second's worth, 50, and a burst of 50 come at once; 20 more take 40 ms. */
    for (int i = 0; i < 121; i++)
        assert_int_equal(layer_write(f->l, q, 0, b, 512), 0);
    assert_true(qz_now_ns() - start >= 39000000);
    return 0;
}

static void test_throttle(void **state)
{
    struct throttle_limits limits = {.rate[THROTTLE_WRITE_OPS] = 500,
                                     .burst[THROTTLE_WRITE_OPS] = 50};
    struct fixture f;
    struct qz_error err;

    set_up(&f);
    assert_int_equal(throttle_open(&f.l, f.below, &limits, NULL, &err), 0);
    run(&f, sixty);
    end(&f);
}

static int two_disks(struct disk_queue *q, void *argument)
{
    struct layer **l = argument;
    int64_t start = qz_now_ns();
    char b[4096];

    /* 1 MiB/s, so 100 KiB at once; 150 KiB over both. */
    for (int i = 0; i < 38; i++)
        assert_int_equal(layer_read(l[i % 2], q, 0, b, 4096), 0);
    assert_true(qz_now_ns() - start >= 40000000);
    throttle_set(l[1], &(struct throttle_limits){0});
    start = qz_now_ns();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(layer_read(l[0], q, 0, b, 4096), 0);
    assert_true(qz_now_ns() - start < 3000000000); /* at the old rate: 4 s */
    return 0;
}

static void test_shared_group(void **state)
{
    struct throttle_limits limits = {.rate[THROTTLE_BYTES] = 1 << 20}, other = {0};
    struct layer *l[2];
    struct fixture f;
    struct qz_error err;

    set_up(&f);
    assert_int_equal(throttle_open(&l[0], f.below, &limits, "g", &err), 0);
    assert_int_equal(throttle_open(&l[1], f.below, &other, "g", &err), 0);
    assert_int_equal(task_run(f.q, two_disks, l), 0);
    l[1]->ops->free(l[1]);
    f.l = l[0];
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_done_at_once), cmocka_unit_test(test_inject),
        cmocka_unit_test(test_bad_rules),    cmocka_unit_test(test_stats),
        cmocka_unit_test(test_buckets),      cmocka_unit_test(test_throttle),
        cmocka_unit_test(test_shared_group),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

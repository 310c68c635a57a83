/* offload_test.c - work beside tasks: without helpers, with some, and with fewer than there is
 * work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <queztl/disk.h>

#include "offload.h"
#include "task.h"

enum { JOBS = 200, HELPERS = 3 };

struct sum {
    unsigned from, result;
    pthread_t by;
};

static void add_up(void *argument)
{
    struct sum *s = argument;

    s->by = pthread_self();
    s->result = 0;
    for (unsigned i = 0; i < 20000; i++)
        s->result = s->result * 31 + s->from + i;
}

struct fixture {
    struct sum sum[JOBS];
    unsigned begun, ended;
};

static void one(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    struct sum *s = &f->sum[f->begun];

    s->from = f->begun++;
    disk_offload(q, add_up, s);
    assert_true(queue_is_current(q));
    f->ended++;
}

static int all(struct disk_queue *q, void *argument)
{
    for (unsigned i = 0; i < JOBS; i++)
        assert_int_equal(task_start(q, one, argument), 0);
    return 0;
}

/* Runs them all on a queue of this thread's; how many were done elsewhere. */
static unsigned run_all(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct disk_queue *q;
    unsigned elsewhere = 0;

    assert_non_null(f);
    assert_int_equal(queue_new(&q, 16, NULL), 0);
    assert_int_equal(task_run(q, all, f), 0);
    while (f->ended < JOBS)
        assert_true(queue_wait(q) >= 0);
    queue_free(q);
    for (unsigned i = 0; i < JOBS; i++) {
        struct sum expected = {.from = i};

        add_up(&expected);
        assert_int_equal(f->sum[i].result, expected.result);
        elsewhere += !pthread_equal(f->sum[i].by, pthread_self());
    }
    free(f);
    return elsewhere;
}

static void test_without_helpers(void **state)
{
    assert_int_equal(run_all(), 0);
}

static void test_with_helpers(void **state)
{
    struct qz_error err = {0};
    unsigned elsewhere = 0;

    if (qz_disk_helpers(HELPERS, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(qz_disk_helpers(1, &err), 0); /* there are enough */
    for (unsigned round = 0; round < 100 && !elsewhere; round++)
        elsewhere += run_all(); /* once they have come to wait for work */
    assert_in_range(elsewhere, 1, JOBS);
}

static void test_too_many(void **state)
{
    struct qz_error err;

    assert_int_equal(qz_disk_helpers(17, &err), -ERANGE);
    assert_non_null(strstr(err.text, "17 helper threads, at most 16"));
}

static void *use(void *done)
{
    run_all();
    *(bool *)done = true;
    return NULL;
}

/* Several queues hand work to the same helpers. */
static void test_several_queues(void **state)
{
    pthread_t user[4];
    bool done[4] = {false};

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&user[i], NULL, use, &done[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(user[i], NULL);
        assert_true(done[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_helpers),
        cmocka_unit_test(test_with_helpers),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_several_queues),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* task_test.c - tasks, their locks, and what wakes a queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <liburing.h>

#include "queue.h"
#include "task.h"

struct fixture {
    struct disk_queue *q;
    char log[256];
    struct task *waiter;
    int n;
};

static void note(struct fixture *f, const char *what)
{
    strncat(f->log, what, sizeof(f->log) - strlen(f->log) - 1);
}

static void set_up(struct fixture *f)
{
    struct qz_error err = {0};

    memset(f, 0, sizeof(*f));
    if (queue_new(&f->q, 64, &err) < 0)
        fail_msg("%s", err.text);
    queue_poll(f->q);
}

static void waits(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    note(f, "a");
    f->waiter = task_current();
    task_suspend();
    note(f, "c");
}

static void test_suspend_and_resume(void **state)
{
    struct fixture f;

    set_up(&f);
    assert_int_equal(task_start(f.q, waits, &f), 0);
    note(&f, "b");
    task_resume(f.waiter);
    note(&f, "d");
    assert_string_equal(f.log, "abcd");
    assert_null(task_current());
    queue_free(f.q);
}

static void resumes_itself_first(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    task_resume(task_current());
    task_suspend();
    note(f, "x");
}

static void test_early_resume_is_kept(void **state)
{
    struct fixture f;

    set_up(&f);
    task_start(f.q, resumes_itself_first, &f);
    assert_string_equal(f.log, "x");
    queue_free(f.q);
}

static void inner(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    note(f, "2");
    f->waiter = task_current();
    task_suspend();
    note(f, "5");
}

static void outer(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    note(f, "1");
    task_start(q, inner, f);
    note(f, "3");
    task_resume(f->waiter); /* goes on when this one waits or ends */
    note(f, "4");
}

static void test_start_inside_a_task(void **state)
{
    struct fixture f;

    set_up(&f);
    task_start(f.q, outer, &f);
    assert_string_equal(f.log, "12345");
    queue_free(f.q);
}

static void deep(int n)
{
    volatile char bytes[1000];

    memset((char *)bytes, n, sizeof(bytes));
    if (n)
        deep(n - 1);
    assert_int_equal(bytes[999], (char)n);
}

static void use_stack(struct disk_queue *q, void *argument)
{
    volatile double x = 1.5;

    deep(60);
    ++*(int *)argument;
    assert_true(x * 2 == 3.0); /* an unaligned stack faults in vector code */
}

static void test_many_tasks(void **state)
{
    struct fixture f;

    set_up(&f);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(task_start(f.q, use_stack, &f.n), 0);
    assert_int_equal(f.n, 1000);
    queue_free(f.q);
}

/* ---- locks between queues on different threads */

enum { THREADS = 3, TASKS = 8, ROUNDS = 300 };

struct shared {
    struct task_mutex mutex;
    struct task_rwlock rwlock;
    unsigned count, readers, writers, overlaps;
};

struct thread {
    struct shared *s;
    struct disk_queue *q;
    unsigned left;
};

struct yield {
    struct queue_work work;
    struct task *t;
};

static void on_yield(struct queue_work *w)
{
    task_resume(QZ_CONTAINER_OF(w, struct yield, work)->t);
}

/* Lets other tasks of this queue run. */
static void yield(struct disk_queue *q)
{
    struct yield y = {.work = {.run = on_yield}, .t = task_current()};

    queue_post(q, &y.work);
    task_suspend();
}

static void locker(struct disk_queue *q, void *argument)
{
    struct thread *t = argument;
    struct shared *s = t->s;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned seen;

        task_mutex_lock(&s->mutex);
        seen = s->count;
        if (i % 8 == 0)
            yield(q);
        s->count = seen + 1;
        task_mutex_unlock(&s->mutex);

        if (i % 4 == 0) {
            task_rwlock_exclusive(&s->rwlock);
            s->writers++;
            yield(q);
            if (s->writers != 1 || __atomic_load_n(&s->readers, __ATOMIC_RELAXED))
                s->overlaps++;
            s->writers--;
        } else {
            task_rwlock_shared(&s->rwlock);
            __atomic_fetch_add(&s->readers, 1, __ATOMIC_RELAXED);
            if (s->writers)
                s->overlaps++;
            yield(q);
            __atomic_fetch_sub(&s->readers, 1, __ATOMIC_RELAXED);
        }
        task_rwlock_release(&s->rwlock);
    }
    t->left--;
}

static void *thread_main(void *argument)
{
    struct thread *t = argument;

    queue_poll(t->q);
    t->left = TASKS;
    for (unsigned i = 0; i < TASKS; i++)
        task_start(t->q, locker, t);
    while (t->left)
        queue_wait(t->q);
    return NULL;
}

static void test_locks_between_threads(void **state)
{
    struct shared s = {0};
    struct thread t[THREADS];
    pthread_t id[THREADS];
    struct qz_error err;

    for (unsigned i = 0; i < THREADS; i++) {
        t[i].s = &s;
        assert_int_equal(queue_new(&t[i].q, 8, &err), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&id[i], NULL, thread_main, &t[i]);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(id[i], NULL);
    for (unsigned i = 0; i < THREADS; i++)
        queue_free(t[i].q);
    assert_int_equal(s.count, THREADS * TASKS * ROUNDS);
    assert_int_equal(s.overlaps, 0);
}

/* ---- timers */

struct sleep {
    struct queue_timer timer;
    struct task *t;
    int result;
};

static void on_time(struct queue_io *io, int result)
{
    struct sleep *s = QZ_CONTAINER_OF(io, struct sleep, timer.io);

    s->result = result;
    task_resume(s->t);
}

static int sleeps(struct disk_queue *q, void *argument)
{
    struct sleep s = {.t = task_current()};
    int64_t until = qz_now_ns() + 2000000;

    queue_timer(q, &s.timer, until, on_time);
    task_suspend();
    assert_int_equal(s.result, -ETIME);
    assert_true(qz_now_ns() >= until);
    return 7;
}

static void test_timer(void **state)
{
    struct fixture f;

    set_up(&f);
    assert_int_equal(task_run(f.q, sleeps, NULL), 7);
    queue_free(f.q);
}

static void count_nop(struct queue_io *io, int result)
{
    static int seen;

    seen++;
}

static void test_more_entries_than_the_ring(void **state)
{
    struct fixture f;
    struct queue_io io = {count_nop};
    int served = 0;

    set_up(&f);
    for (int i = 0; i < 1000; i++) {
        struct io_uring_sqe *sqe = queue_sqe(f.q, &io);

        io_uring_prep_nop(sqe);
    }
    while (served < 1000)
        served += queue_wait(f.q);
    queue_free(f.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suspend_and_resume),
        cmocka_unit_test(test_early_resume_is_kept),
        cmocka_unit_test(test_start_inside_a_task),
        cmocka_unit_test(test_many_tasks),
        cmocka_unit_test(test_locks_between_threads),
        cmocka_unit_test(test_timer),
        cmocka_unit_test(test_more_entries_than_the_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* clock_test.c - the real clock: order, cancelling, pauses. Nothing is timed; waits end with an
 * event. */
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "machine/clock.h"

enum { MANY = 200, WAIT_SECONDS = 30 };

struct fixture {
    struct vm_clock *clock;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned fired;
    bool out_of_order, early;
    int64_t last;
};

struct probe {
    struct vm_timer timer;
    struct fixture *f;
    int64_t wanted;
    unsigned fired, again;
};

static void on_fire(struct vm_timer *t)
{
    struct probe *p = QZ_CONTAINER_OF(t, struct probe, timer);
    struct fixture *f = p->f;
    QZ_LOCKED(&f->lock);

    f->early |= vm_clock_now(f->clock) < p->wanted;
    f->out_of_order |= p->wanted < f->last;
    f->last = p->wanted;
    f->fired++;
    p->fired++;
    if (p->again) {
        p->again--;
        vm_timer_arm(t, p->wanted += 1000);
    }
    pthread_cond_signal(&f->changed);
}

static void *body(void *clock)
{
    vm_clock_thread(clock);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(vm_clock_new(&f->clock, NULL), 0);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    assert_int_equal(pthread_create(&f->thread, NULL, body, f->clock), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vm_clock_stop(f->clock);
    pthread_join(f->thread, NULL);
    vm_clock_free(f->clock);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
    return 0;
}

static void wait_for(struct fixture *f, unsigned count)
{
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_SECONDS;
    QZ_LOCKED(&f->lock);

    while (f->fired < count)
        assert_int_equal(pthread_cond_timedwait(&f->changed, &f->lock, &end), 0);
}

static void arm(struct fixture *f, struct probe *p, int64_t deadline)
{
    p->f = f;
    p->wanted = deadline;
    if (!p->timer.clock)
        vm_timer_init(&p->timer, f->clock, on_fire);
    vm_timer_arm(&p->timer, deadline);
}

static void timers_fire_in_order(void **state)
{
    static struct probe p[MANY];
    struct fixture *f = *state;
    unsigned left = MANY;

    memset(p, 0, sizeof(p));
    /* Armed while time stands still, so that the heap holds all of them before the first is due. */
    for (int i = 0; i < MANY; i++)
        arm(f, &p[i], 1 + i * 37 % MANY * 1000);
    for (int i = 0; i < MANY; i += 3)
        arm(f, &p[i], 1 + (MANY + i) * 1000ll); /* moved */
    for (int i = 1; i < MANY; i += 3, left--)
        vm_timer_cancel(&p[i].timer);
    vm_clock_resume(f->clock);
    wait_for(f, left);
    assert_false(f->out_of_order);
    assert_false(f->early);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(p[i].fired, i % 3 == 1 ? 0 : 1);
}

static void a_timer_may_arm_itself(void **state)
{
    struct fixture *f = *state;
    struct probe p = {.again = 50}, forever = {0};

    vm_clock_resume(f->clock);
    arm(f, &forever, INT64_MAX); /* sleeps beyond all time without wrapping into the past */
    arm(f, &p, INT64_MIN / 2);   /* long over: fires at once */
    wait_for(f, 51);
    assert_int_equal(p.fired, 51);
    assert_int_equal(forever.fired, 0);
}

static void time_stands_still_while_paused(void **state)
{
    struct fixture *f = *state;
    struct probe due = {0}, witness = {0};
    int64_t at;

    assert_int_equal(vm_clock_now(f->clock), 0);
    arm(f, &due, 0);
    vm_clock_resume(f->clock);
    wait_for(f, 1); /* only now */
    vm_clock_pause(f->clock);
    at = vm_clock_now(f->clock);
    assert_true(at > 0);
    arm(f, &witness, at);
    assert_int_equal(vm_clock_now(f->clock), at);
    vm_clock_pause(f->clock);
    assert_int_equal(vm_clock_now(f->clock), at);
    assert_int_equal(witness.fired, 0);
    vm_clock_resume(f->clock);
    wait_for(f, 2);
    assert_true(vm_clock_now(f->clock) >= at);
}

static void *reader(void *arg)
{
    struct vm_clock *c = arg;
    int64_t last = 0;

    for (int i = 0; i < 200000; i++) {
        int64_t now = vm_clock_now(c);

        if (now < last)
            return c;
        last = now;
    }
    return NULL;
}

static void time_never_runs_backwards(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    void *failed;

    vm_clock_resume(f->clock);
    assert_int_equal(pthread_create(&thread, NULL, reader, f->clock), 0);
    for (int i = 0; i < 2000; i++) {
        vm_clock_pause(f->clock);
        vm_clock_resume(f->clock);
    }
    pthread_join(thread, &failed);
    assert_null(failed);
}

/* A number that somebody moves; timers fire on his thread, what they arm anew as well. */
static void virtual_time(void **state)
{
    struct fixture *f = *state;
    struct probe first = {.again = 2}, second = {0};
    int64_t sec;
    int32_t nsec;

    vm_clock_make_virtual(f->clock);
    vm_clock_resume(f->clock);
    arm(f, &second, 1500);
    arm(f, &first, 1000);
    assert_int_equal(vm_clock_next(f->clock), 1000);
    vm_clock_fire(f->clock);
    assert_int_equal(f->fired, 0);
    vm_clock_set(f->clock, 1000);
    vm_clock_fire(f->clock);
    assert_int_equal(f->fired, 1);
    assert_int_equal(vm_clock_next(f->clock), 1500);
    vm_clock_set(f->clock, 2000000000);
    vm_clock_pause(f->clock);
    assert_int_equal(vm_clock_now(f->clock), 2000000000);
    vm_clock_fire(f->clock);
    assert_int_equal(first.fired, 3);
    assert_int_equal(second.fired, 1);
    assert_false(f->out_of_order || f->early);
    assert_int_equal(vm_clock_next(f->clock), INT64_MAX);
    vm_clock_wall(f->clock, &sec, &nsec);
    assert_int_equal(sec, DETERMINISTIC_EPOCH + 2);
    assert_int_equal(nsec, 0);
    assert_int_equal(vm_clock_tsc(f->clock), 2000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timers_fire_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_may_arm_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(time_stands_still_while_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(time_never_runs_backwards, setup, teardown),
        cmocka_unit_test_setup_teardown(virtual_time, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

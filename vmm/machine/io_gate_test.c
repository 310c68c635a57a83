/* io_gate_test.c - doorbells are heard at their virtual time, and waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "machine/io_gate.h"

enum { RINGS_MAX = 8 };

static struct {
    struct vm_clock *clock;
    struct io_gate *gate;
    struct qz_loop *loop;
    pthread_t thread;
    struct device {
        struct qz_watch watch;
        struct qz_timer host; /* what the host takes for a request */
        int again;            /* times that it rings itself */
        unsigned heard, done;
        bool slow;
    } device[2];
    unsigned order[RINGS_MAX], rings;
} t;

static void *run_loop(void *arg)
{
    qz_loop_run(t.loop);
    return NULL;
}

static void host_done(struct qz_timer *timer)
{
    struct device *d = QZ_CONTAINER_OF(timer, struct device, host);

    d->done++;
    io_gate_end(t.gate);
}

static void heard(struct qz_watch *w, uint32_t events)
{
    struct device *d = QZ_CONTAINER_OF(w, struct device, watch);
    uint64_t count;

    assert_int_equal(read(w->fd, &count, sizeof(count)), sizeof(count));
    assert_in_range(t.rings, 0, RINGS_MAX - 1);
    t.order[t.rings++] = (unsigned)(d - t.device);
    d->heard++;
    if (d->slow) {
        io_gate_begin(t.gate);
        qz_timer_arm(t.loop, &d->host, qz_now_ns() + 20000000, host_done);
    }
    if (d->again > 0 && d->again--)
        io_gate_ring(t.gate, t.loop, w->fd); /* from its own loop: at once */
}

static int setup(void **state)
{
    struct qz_error err;

    memset(&t, 0, sizeof(t));
    assert_int_equal(vm_clock_new(&t.clock, &err), 0);
    vm_clock_make_virtual(t.clock);
    assert_int_equal(io_gate_new(&t.gate, t.clock, &err), 0);
    assert_int_equal(qz_loop_new(&t.loop, &err), 0);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(t.device); i++)
        assert_int_equal(qz_loop_add(t.loop, &t.device[i].watch,
                                     eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), EPOLLIN, heard),
                         0);
    return pthread_create(&t.thread, NULL, run_loop, NULL);
}

static int teardown(void **state)
{
    qz_loop_stop(t.loop, 0);
    pthread_join(t.thread, NULL);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(t.device); i++)
        close(t.device[i].watch.fd);
    qz_loop_free(t.loop);
    io_gate_free(t.gate);
    vm_clock_free(t.clock);
    return 0;
}

static void advance_to(int64_t now)
{
    vm_clock_set(t.clock, now);
    vm_clock_fire(t.clock);
}

static void test_heard_at_its_time(void **state)
{
    vm_clock_set(t.clock, 1000);
    io_gate_ring(t.gate, t.loop, t.device[1].watch.fd);
    io_gate_ring(t.gate, t.loop, t.device[0].watch.fd);
    io_gate_ring(t.gate, t.loop, t.device[1].watch.fd);
    assert_int_equal(vm_clock_next(t.clock), 1000 + IO_GATE_LATENCY_NS);
    advance_to(1000 + IO_GATE_LATENCY_NS - 1);
    io_gate_settle(t.gate, t.loop);
    assert_int_equal(t.rings, 0);
    advance_to(1000 + IO_GATE_LATENCY_NS);
    assert_int_equal(t.rings, 2);
    assert_int_equal(t.order[0], 1);
    assert_int_equal(t.order[1], 0);
    assert_int_equal(vm_clock_next(t.clock), INT64_MAX);
}

static void test_waits_for_the_host(void **state)
{
    t.device[0].slow = true;
    io_gate_ring(t.gate, t.loop, t.device[0].watch.fd);
    advance_to(IO_GATE_LATENCY_NS);
    assert_int_equal(t.device[0].done, 1);
}

static void test_waits_for_more_work(void **state)
{
    t.device[1].again = 5;
    io_gate_ring(t.gate, t.loop, t.device[1].watch.fd);
    advance_to(IO_GATE_LATENCY_NS);
    assert_int_equal(t.device[1].heard, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_heard_at_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_the_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_more_work, setup, teardown),
    };

    return cmocka_run_group_tests_name("io_gate", tests, NULL, NULL);
}

/*
 * virtio_balloon_test.c - the balloon against an in-process guest driver.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/virtio_balloon.h>
#include <sys/mman.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"

enum { INFLATE, DEFLATE, STATS, REPORTING, PAGE = 4096 };

struct fixture {
    struct vtest_machine *tm;
    struct virtio_device *d;
    struct virtio_pci *transport;
    struct vtest *t;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err = {0};

    f->tm = vtest_machine_new(0);
    assert_int_equal(virtio_balloon_new(&f->d, &f->tm->m, f->tm->m.main_loop, &err), 0);
    assert_int_equal(virtio_pci_new(&f->transport, f->d, &err), 0);
    f->t = vtest_open(f->tm, VIRTIO_ID_BALLOON);
    assert_non_null(f->t);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vtest_close(f->t);
    virtio_pci_free(f->transport);
    vtest_machine_free(f->tm);
    free(f);
    return 0;
}

static void begin(struct fixture *f, bool packed)
{
    assert_int_equal(vtest_negotiate(f->t, ~0ull, packed), 0);
}

static bool resident(struct fixture *f, gpa_t a)
{
    unsigned char there = 0;

    assert_int_equal(mincore(vtest_mem(f->tm, a, PAGE), PAGE, &there), 0);
    return there & 1;
}

static gpa_t dirty_pages(struct fixture *f, unsigned pages)
{
    gpa_t a = vtest_alloc(f->tm, (uint64_t)pages * PAGE, PAGE);

    memset(vtest_mem(f->tm, a, (uint64_t)pages * PAGE), 0x5a, (size_t)pages * PAGE);
    return a;
}

static void send_pages(struct fixture *f, unsigned q, const uint32_t *pfn, unsigned count)
{
    struct iovec out = {(void *)pfn, count * sizeof(*pfn)};

    assert_int_equal(vtest_request(f->t, q, &out, 1, NULL, 0, NULL), 0);
}

static void inflate(struct fixture *f, bool packed)
{
    gpa_t a;
    uint32_t pfn[6];

    begin(f, packed);
    a = dirty_pages(f, 5);
    /* Two neighbours, one alone, one twice, one far outside. */
    pfn[0] = (uint32_t)(a.v / PAGE);
    pfn[1] = pfn[0] + 1;
    pfn[2] = pfn[0] + 3;
    pfn[3] = pfn[0] + 3;
    pfn[4] = UINT32_MAX;
    pfn[5] = 0x7fffffff;
    send_pages(f, INFLATE, pfn, QZ_ARRAY_LEN(pfn));
    for (unsigned i = 0; i < 5; i++) {
        const bool gone = i == 0 || i == 1 || i == 3;

        assert_int_equal(resident(f, gpa_add(a, i * PAGE)), !gone);
        assert_int_equal(*(uint8_t *)vtest_mem(f->tm, gpa_add(a, i * PAGE), 1), gone ? 0 : 0x5a);
    }
    send_pages(f, DEFLATE, pfn, 4);
}

static void test_inflate_split(void **state)
{
    inflate(*state, false);
}
static void test_inflate_packed(void **state)
{
    inflate(*state, true);
}

static void test_target_and_actual(void **state)
{
    struct fixture *f = *state;
    struct balloon_stats s;
    uint64_t target, actual, reported;
    uint32_t pages;

    assert_int_equal(virtio_balloon_set_target(f->d, 4 << 20), 0); /* before there is a driver */
    begin(f, false);
    vtest_device_read(f->t, offsetof(struct virtio_balloon_config, num_pages), &pages, 4);
    assert_int_equal(pages, 1024);
    pages = 1000;
    vtest_device_write(f->t, offsetof(struct virtio_balloon_config, actual), &pages, 4);
    virtio_balloon_info(f->d, &target, &actual, &reported, &s);
    assert_int_equal(target, 4 << 20);
    assert_int_equal(actual, 1000 * PAGE);
    assert_int_equal(s.age_ns, -1);

    assert_int_equal(virtio_balloon_set_target(f->d, 8 << 20), 0);
    assert_int_equal(vtest_msi_count(f->tm, 0), 1); /* the driver hears of it */
    assert_int_equal(virtio_balloon_set_target(f->d, VTEST_RAM + PAGE), -ERANGE);
    pages = 7;
    vtest_device_write(f->t, offsetof(struct virtio_balloon_config, num_pages), &pages,
                       4); /* not the driver's */
    vtest_device_read(f->t, offsetof(struct virtio_balloon_config, num_pages), &pages, 4);
    assert_int_equal(pages, 2048);
}

static void test_statistics(void **state)
{
    struct virtio_balloon_stat told[] = {{VIRTIO_BALLOON_S_MEMFREE, 1000},
                                         {VIRTIO_BALLOON_S_MEMTOT, 2000},
                                         {VIRTIO_BALLOON_S_NR + 50, 7}};
    struct iovec out = {told, sizeof(told)};
    struct fixture *f = *state;
    struct balloon_stats s;
    uint64_t target, actual, reported;
    int token;

    begin(f, true);
    token = vtest_submit(f->t, STATS, &out, 1, NULL, 0);
    vtest_kick(f->t, STATS);
    vtest_run(f->tm, 50);
    virtio_balloon_info(f->d, &target, &actual, &reported, &s);
    assert_int_equal(s.free_memory, 1000);
    assert_int_equal(s.total_memory, 2000);
    assert_int_equal(s.swap_in, ~0ull); /* not told */
    assert_true(s.age_ns >= 0);
    /* The buffer comes back when somebody looks at figures that are older than a second. */
    for (int64_t end = qz_now_ns() + 10000000000; f->t->q[STATS].in_flight && qz_now_ns() < end;) {
        virtio_balloon_info(f->d, &target, &actual, &reported, &s);
        vtest_run(f->tm, 50);
        vtest_poll(f->t, STATS);
        if (f->t->q[STATS].slot[token].done)
            break;
    }
    assert_int_equal(vtest_wait(f->t, STATS, token, NULL), 0);
}

static void test_reporting(void **state)
{
    struct fixture *f = *state;
    struct balloon_stats s;
    uint64_t target, actual, reported;
    static uint8_t report[64 * PAGE];
    struct iovec in = {report, sizeof(report)};

    begin(f, false);
    assert_int_equal(vtest_request(f->t, REPORTING, NULL, 0, &in, 1, NULL), 0);
    virtio_balloon_info(f->d, &target, &actual, &reported, &s);
    assert_int_equal(reported, sizeof(report));
}

/* Without statistics the reporting queue comes one earlier. */
static void test_reporting_without_statistics(void **state)
{
    struct fixture *f = *state;
    struct balloon_stats s;
    uint64_t target, actual, reported;
    static uint8_t report[2 * PAGE];
    struct iovec in = {report, sizeof(report)};

    assert_int_equal(vtest_negotiate(f->t, QZ_BIT(VIRTIO_BALLOON_F_REPORTING), false), 0);
    assert_int_equal(vtest_request(f->t, STATS, NULL, 0, &in, 1, NULL), 0);
    virtio_balloon_info(f->d, &target, &actual, &reported, &s);
    assert_int_equal(reported, sizeof(report));
}

static void test_odd_request(void **state)
{
    struct fixture *f = *state;
    struct iovec out = {"abc", 3};

    begin(f, false);
    assert_true(vtest_submit(f->t, INFLATE, &out, 1, NULL, 0) >= 0);
    vtest_kick(f->t, INFLATE);
    vtest_run(f->tm, 100);
    assert_true(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_reset_forgets(void **state)
{
    struct fixture *f = *state;
    struct balloon_stats s;
    uint64_t target, actual, reported;
    uint32_t pages = 5;

    assert_int_equal(virtio_balloon_set_target(f->d, 1 << 20), 0);
    begin(f, false);
    vtest_device_write(f->t, offsetof(struct virtio_balloon_config, actual), &pages, 4);
    assert_int_equal(vtest_reset(f->t), 0);
    virtio_balloon_info(f->d, &target, &actual, &reported, &s);
    assert_int_equal(actual, 0);
    assert_int_equal(target, 1 << 20); /* the next driver inflates to it */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_inflate_split), T(test_inflate_packed), T(test_target_and_actual),
        T(test_statistics),    T(test_reporting),      T(test_reporting_without_statistics),
        T(test_odd_request),   T(test_reset_forgets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

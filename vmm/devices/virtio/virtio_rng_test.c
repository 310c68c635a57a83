/* virtio_rng_test.c - the entropy device fills what it is given, a bounded amount at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"

enum { RING = 64, LARGE = 64 << 10, ROUND_MAX = 512 << 10 };

struct fixture {
    struct vtest_machine *tm;
    struct virtio_pci *vp;
    struct vtest *t;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtio_device *d;
    struct qz_error err;

    f->tm = vtest_machine_new(0);
    assert_int_equal(virtio_rng_new(&d, &f->tm->m, f->tm->m.main_loop, &err), 0);
    assert_int_equal(virtio_pci_new(&f->vp, d, &err), 0);
    f->t = vtest_open(f->tm, VIRTIO_ID_RNG);
    assert_non_null(f->t);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vtest_close(f->t);
    virtio_pci_free(f->vp);
    vtest_machine_free(f->tm);
    free(f);
    return 0;
}

/* Random enough to tell from bytes that nobody wrote: no 16 of them are the same. */
static void assert_random(const uint8_t *p, size_t n)
{
    for (size_t i = 0, run = 1; i + 1 < n; i++) {
        run = p[i] == p[i + 1] ? run + 1 : 1;
        assert_true(run < 16);
    }
}

static void test_fills(void **state)
{
    struct fixture *f = *state;
    static uint8_t a[4096], b[4096];
    struct iovec pieces[4];
    uint32_t written;

    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(vtest_reset(f->t), 0);
        assert_int_equal(vtest_negotiate(f->t, 0, packed), 0);
        for (unsigned n = 1; n <= sizeof(a); n = n * 2 + 1) {
            assert_int_equal(vtest_request(f->t, 0, NULL, 0, &(struct iovec){a, n}, 1, &written),
                             0);
            assert_int_equal(written, n);
            assert_random(a, n);
        }
        pieces[0] = (struct iovec){b, 1};
        pieces[1] = (struct iovec){b + 1, 1000};
        pieces[2] = (struct iovec){b + 1001, 95};
        pieces[3] = (struct iovec){b + 1096, 3000};
        assert_int_equal(vtest_request(f->t, 0, NULL, 0, pieces, 4, &written), 0);
        assert_int_equal(written, sizeof(b));
        assert_random(b, sizeof(b));
        assert_memory_not_equal(a, b, 2048);
    }
}

/* More than a request may have is answered in part; the driver asks again (§5.4.6.1). */
static void test_large_request(void **state)
{
    struct fixture *f = *state;
    uint8_t *buf = malloc(4 * LARGE);
    uint32_t written;

    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    assert_int_equal(vtest_request(f->t, 0, NULL, 0, &(struct iovec){buf, 4 * LARGE}, 1, &written),
                     0);
    assert_in_range(written, 1, LARGE);
    assert_random(buf, written);
    assert_int_equal(buf[4 * LARGE - 1], 0xdb); /* as the driver left it */
    free(buf);
}

/* A whole ring of large requests takes several rounds, and nothing is forgotten between them. */
static void test_rounds(void **state)
{
    struct fixture *f = *state;
    uint8_t *buf = malloc(RING * LARGE);
    unsigned first, rounds = 0, done;

    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(vtest_reset(f->t), 0);
        assert_int_equal(vtest_negotiate(f->t, 0, packed), 0);
        assert_int_equal(f->t->q[0].size, RING);
        for (unsigned i = 0; i < RING; i++)
            assert_true(
                vtest_submit(f->t, 0, NULL, 0, &(struct iovec){buf + i * LARGE, LARGE}, 1) >= 0);
        vtest_kick(f->t, 0);
        vtest_run(f->tm, 0);
        first = done = (unsigned)vtest_poll(f->t, 0);
        assert_in_range(first, 1, ROUND_MAX / LARGE);
        for (rounds = 1; done < RING && rounds < 1000; rounds++) {
            vtest_run(f->tm, 0);
            done += (unsigned)vtest_poll(f->t, 0);
        }
        assert_int_equal(done, RING);
        for (unsigned i = 0; i < RING; i++)
            assert_true(vtest_wait_any(f->t, 0, NULL) >= 0);
        assert_random(buf, (size_t)RING * LARGE);
    }
    free(buf);
}

/* A reset between two rounds ends the matter. */
static void test_reset_between_rounds(void **state)
{
    struct fixture *f = *state;
    uint8_t *buf = malloc(LARGE), one;
    uint32_t written;

    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    for (unsigned i = 0; i < RING; i++)
        assert_true(vtest_submit(f->t, 0, NULL, 0, &(struct iovec){buf, LARGE}, 1) >= 0);
    vtest_kick(f->t, 0);
    vtest_run(f->tm, 0);
    assert_int_equal(vtest_reset(f->t), 0);
    for (unsigned i = 0; i < 4; i++)
        vtest_run(f->tm, 0);
    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    vtest_run(f->tm, 0);
    assert_int_equal(vtest_poll(f->t, 0), 0);
    assert_int_equal(vtest_request(f->t, 0, NULL, 0, &(struct iovec){&one, 1}, 1, &written), 0);
    assert_int_equal(written, 1);
    free(buf);
}

static void test_nothing_to_fill(void **state)
{
    struct fixture *f = *state;
    uint8_t byte;
    uint32_t written = 9;

    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    assert_int_equal(vtest_request(f->t, 0, &(struct iovec){"seed", 4}, 1, NULL, 0, &written), 0);
    assert_int_equal(written, 0);
    assert_int_equal(vtest_request(f->t, 0, &(struct iovec){"seed", 4}, 1,
                                   &(struct iovec){&byte, 1}, 1, &written),
                     0);
    assert_int_equal(written, 1);
    assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_fills),           CASE(test_large_request),
        CASE(test_rounds),          CASE(test_reset_between_rounds),
        CASE(test_nothing_to_fill),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("virtio-rng", tests, NULL, NULL);
}

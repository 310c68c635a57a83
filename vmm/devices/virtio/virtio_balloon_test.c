/*
 * virtio_balloon_test.c - the balloon, seen by a driver: pages really leave the memory's file, read
 * as zeros afterwards, and nothing that a driver names does harm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/virtio_balloon.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"
#include "test_state.h"

enum { PAGE = 4096, MIB = 1 << 20 };
enum { INFLATE_Q, DEFLATE_Q, STATS_Q };
#define STATS     QZ_BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define REPORTING QZ_BIT(VIRTIO_BALLOON_F_REPORTING)
#define POISON    QZ_BIT(VIRTIO_BALLOON_F_PAGE_POISON)

struct fixture {
    struct vtest_machine *tm;
    struct virtio_device *d;
    struct virtio_pci *vp;
    struct vtest *t;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err;

    f->tm = vtest_machine_new(0);
    assert_int_equal(virtio_balloon_new(&f->d, &f->tm->m, f->tm->m.main_loop, &err), 0);
    assert_int_equal(virtio_pci_new(&f->vp, f->d, &err), 0);
    f->t = vtest_open(f->tm, VIRTIO_ID_BALLOON);
    assert_non_null(f->t);
    qz_log_set_level(QZ_LOG_ERROR);
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

static void start(struct fixture *f, uint64_t features, bool packed)
{
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(vtest_negotiate(f->t, features, packed), 0);
}

/* Whether the host holds memory for the page at this address (below the hole: address is offset).
 */
static bool populated(struct fixture *f, uint64_t at)
{
    return lseek(f->tm->m.memory.fd, (off_t)at, SEEK_HOLE) != (off_t)at;
}

static bool page_is(struct fixture *f, uint64_t at, uint8_t value)
{
    const uint8_t *p = vtest_mem(f->tm, gpa(at), PAGE);

    for (unsigned i = 0; i < PAGE; i++)
        if (p[i] != value)
            return false;
    return true;
}

static void give(struct fixture *f, unsigned q, uint32_t *pfn, unsigned count)
{
    struct iovec out = {pfn, count * sizeof(*pfn)};
    uint32_t written = 1;

    assert_int_equal(vtest_request(f->t, q, &out, 1, NULL, 0, &written), 0);
    assert_int_equal(written, 0);
}

static void inflate(struct fixture *f, bool packed)
{
    enum { FIRST = 2 * MIB, COUNT = 16 };
    uint32_t up[] = {514, 515, 516}, down[] = {520, 519, 518}, odd[] = {525, 523, 523, 525, 523};

    start(f, 0, packed);
    memset(vtest_mem(f->tm, gpa(FIRST), COUNT * PAGE), 0xaa, COUNT * PAGE);
    give(f, INFLATE_Q, up, 3);
    give(f, INFLATE_Q, down, 3);
    give(f, INFLATE_Q, odd, 5);
    for (unsigned i = 0; i < COUNT; i++) {
        uint64_t at = FIRST + i * PAGE;
        bool gone = (i >= 2 && i <= 4) || (i >= 6 && i <= 8) || i == 11 || i == 13;

        assert_int_equal(populated(f, at), !gone);
        assert_true(page_is(f, at, gone ? 0 : 0xaa));
    }
    give(f, DEFLATE_Q, up, 3);
    memset(vtest_mem(f->tm, gpa(514 * PAGE), PAGE), 0xbb, PAGE); /* back in use */
    assert_true(page_is(f, 514 * PAGE, 0xbb));
}

static void test_inflate(void **state)
{
    inflate(*state, false);
    inflate(*state, true);
}

/* More pages than a round takes, none beside another, in several buffers: it is continued to its
 * end. */
static void test_inflate_in_rounds(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 1500, FIRST = 4 * MIB / PAGE };
    uint32_t pfn[COUNT];
    struct iovec out[3] = {
        {pfn, 1002}, {(uint8_t *)pfn + 1002, 999}, {(uint8_t *)pfn + 2001, sizeof(pfn) - 2001}};
    uint8_t *memory = vtest_mem(f->tm, gpa(FIRST * PAGE), COUNT * 2 * PAGE);
    uint32_t written;

    for (unsigned packed = 0; packed < 2; packed++) {
        start(f, 0, packed);
        memset(memory, 0xcc, COUNT * 2 * PAGE);
        for (unsigned i = 0; i < COUNT; i++)
            pfn[i] = FIRST + 2 * i;
        assert_int_equal(vtest_request(f->t, INFLATE_Q, out, 3, NULL, 0, &written), 0);
        for (unsigned i = 0; i < COUNT; i++) {
            assert_false(populated(f, (uint64_t)pfn[i] * PAGE));
            assert_true(page_is(f, ((uint64_t)pfn[i] + 1) * PAGE, 0xcc));
        }
    }
}

/* Pages that are none, a list that ends inside a number, a list of nothing: answered, nothing
 * breaks. */
static void test_inflate_nonsense(void **state)
{
    struct fixture *f = *state;
    uint32_t pfn[] = {UINT32_MAX, 0, UINT32_MAX, 0xfffff, 64 * MIB / PAGE, 0x80000000};
    struct iovec odd = {pfn, 7}, in = {pfn, 4};

    for (unsigned packed = 0; packed < 2; packed++) {
        start(f, STATS | REPORTING, packed);
        for (unsigned q = 0; q < 2; q++) {
            give(f, q, pfn, QZ_ARRAY_LEN(pfn));
            assert_int_equal(vtest_request(f->t, q, &odd, 1, NULL, 0, NULL), 0);
            assert_int_equal(vtest_request(f->t, q, NULL, 0, &in, 1, NULL), 0);
        }
        /* The rings themselves: only the guest loses by that. */
        pfn[0] = (uint32_t)(f->t->q[DEFLATE_Q].desc.v / PAGE);
        give(f, INFLATE_Q, pfn, 1);
        assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    }
}

static bool target_seen(void *context)
{
    struct fixture *f = context;
    uint32_t pages;

    vtest_device_read(f->t, 0, &pages, 4);
    return pages == 16 * MIB / PAGE;
}

static void test_target(void **state)
{
    struct fixture *f = *state;
    uint64_t target, actual, reported;
    uint32_t pages = 16 * MIB / PAGE;
    struct balloon_stats stats;
    unsigned before;

    start(f, 0, false);
    before = vtest_msi_count(f->tm, 0);
    assert_int_equal(virtio_balloon_set_target(f->d, 65 * MIB), -ERANGE);
    assert_int_equal(virtio_balloon_set_target(f->d, 16 * MIB + 100), 0);
    assert_int_equal(vtest_run_until(f->tm, target_seen, f), 0);
    assert_int_equal(vtest_msi_count(f->tm, 0), before + 1);
    vtest_device_write(f->t, 4, &pages, 4);
    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    assert_int_equal(target, 16 * MIB);
    assert_int_equal(actual, 16 * MIB);
    pages = UINT32_MAX; /* a driver that boasts */
    vtest_device_write(f->t, 4, &pages, 4);
    vtest_device_write(f->t, 0, &pages, 4); /* not the driver's to write */
    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    assert_int_equal(actual, 64 * MIB);
    assert_true(target_seen(f));
    /* A reset empties the balloon; what the host wants is remembered. */
    start(f, 0, true);
    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    assert_int_equal(actual, 0);
    assert_true(target_seen(f));
}

static int tell(struct fixture *f, uint16_t tag, uint64_t value, uint16_t tag2, uint64_t value2)
{
    uint8_t entry[20];
    struct iovec out = {entry, sizeof(entry)};
    int token;

    qz_store_le16(entry, tag);
    qz_store_le64(entry + 2, value);
    qz_store_le16(entry + 10, tag2);
    qz_store_le64(entry + 12, value2);
    token = vtest_submit(f->t, STATS_Q, &out, 1, NULL, 0);
    vtest_kick(f->t, STATS_Q);
    return token;
}

static struct balloon_stats ask(struct fixture *f)
{
    uint64_t target, actual, reported;
    struct balloon_stats stats;

    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    return stats;
}

struct expectation {
    struct fixture *f;
    uint64_t swap_in;
};

static bool swap_in_is(void *context)
{
    struct expectation *e = context;

    return ask(e->f).swap_in == e->swap_in;
}

static void statistics(struct fixture *f, bool packed)
{
    struct balloon_stats stats;
    int token;

    start(f, STATS, packed);
    stats = ask(f);
    assert_int_equal(stats.age_ns, -1);
    assert_true(stats.swap_in == UINT64_MAX && stats.disk_caches == UINT64_MAX);
    token = tell(f, VIRTIO_BALLOON_S_SWAP_IN, 5, VIRTIO_BALLOON_S_CACHES, 1ull << 40);
    assert_int_equal(vtest_run_until(f->tm, swap_in_is, &(struct expectation){f, 5}), 0);
    stats = ask(f);
    assert_true(stats.age_ns >= 0 && stats.at_ns > 0);
    assert_int_equal(stats.actual, 0);
    assert_int_equal(stats.disk_caches, 1ull << 40);
    assert_true(stats.swap_out == UINT64_MAX);
    /* What is unknown is ignored; a second buffer sends the first one back. */
    tell(f, VIRTIO_BALLOON_S_SWAP_IN, 6, 999, 7);
    assert_int_equal(vtest_wait(f->t, STATS_Q, token, NULL), 0);
    assert_int_equal(vtest_run_until(f->tm, swap_in_is, &(struct expectation){f, 6}), 0);
    assert_true(ask(f).disk_caches == UINT64_MAX);
}

/* The device asks by giving the buffer back, as soon as somebody wants to know. */
static void test_statistics_asked(void **state)
{
    struct fixture *f = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        int token;

        if (packed) { /* a fresh device: nobody has asked it yet */
            teardown(state);
            setup(state);
            f = *state;
        }
        start(f, STATS, packed);
        token = tell(f, VIRTIO_BALLOON_S_SWAP_IN, 1, VIRTIO_BALLOON_S_SWAP_OUT, 2);
        vtest_run(f->tm, 1000);
        ask(f);
        assert_int_equal(vtest_wait(f->t, STATS_Q, token, NULL), 0);
        tell(f, VIRTIO_BALLOON_S_SWAP_IN, 3, VIRTIO_BALLOON_S_SWAP_OUT, 4);
        assert_int_equal(vtest_run_until(f->tm, swap_in_is, &(struct expectation){f, 3}), 0);
    }
}

/* Who wants it more often has it more often, also when the timer was set before. */
static void test_statistics_asked_often(void **state)
{
    struct fixture *f = *state;
    uint32_t pages = 16;
    int token;

    start(f, STATS, false);
    ask(f);
    vtest_run(f->tm, 10);
    virtio_balloon_ask_every(f->d, 1000000);
    vtest_device_write(f->t, 4, &pages, 4);
    for (uint64_t i = 1; i < 5; i++) {
        token = tell(f, VIRTIO_BALLOON_S_SWAP_IN, i, VIRTIO_BALLOON_S_SWAP_OUT, 2);
        assert_int_equal(vtest_run_until(f->tm, swap_in_is, &(struct expectation){f, i}), 0);
        assert_int_equal(vtest_wait(f->t, STATS_Q, token, NULL), 0);
        assert_int_equal(ask(f).actual, 16 * PAGE);
    }
}

static void test_statistics(void **state)
{
    statistics(*state, false);
    statistics(*state, true);
}

/* Shows 5 MiB and a bit; whole pages come back as zeros, unless `kept`. */
static void report(struct fixture *f, unsigned q, bool kept)
{
    enum { SIZE = 5 * MIB + 100 };
    uint8_t *back = malloc(SIZE);
    struct iovec in = {back, SIZE};
    int token = vtest_submit(f->t, q, NULL, 0, &in, 1);
    uint64_t at, first, end, target, actual, before, after;
    struct balloon_stats stats;

    assert_true(token >= 0);
    virtio_balloon_info(f->d, &target, &actual, &before, &stats);
    at = f->t->q[q].slot[token].in_buffer.v;
    first = QZ_ALIGN_UP(at, (uint64_t)PAGE);
    end = QZ_ALIGN_DOWN(at + SIZE, (uint64_t)PAGE);
    assert_true(populated(f, first));
    vtest_kick(f->t, q);
    assert_int_equal(vtest_wait(f->t, q, token, NULL), 0);
    for (uint64_t i = at; i < at + SIZE; i++)
        if (back[i - at] != (i >= first && i < end && !kept ? 0 : 0xdb))
            fail_msg("byte %llu of the range is 0x%x", (unsigned long long)(i - at), back[i - at]);
    virtio_balloon_info(f->d, &target, &actual, &after, &stats);
    assert_int_equal(after - before, kept ? 0 : SIZE);
    free(back);
}

static void test_reporting(void **state)
{
    struct fixture *f = *state;
    uint32_t poison = 0xaaaaaaaa;

    for (unsigned packed = 0; packed < 2; packed++) {
        start(f, STATS | REPORTING, packed);
        report(f, 3, false); /* Linux */
        report(f, 4, false); /* the specification */
        start(f, REPORTING, packed);
        report(f, 2, false); /* Linux without statistics */
        start(f, REPORTING | POISON, packed);
        report(f, 2, false); /* pages that are zeroed when free may be */
        vtest_device_write(f->t, 12, &poison, 4);
        report(f, 2, true);
    }
}

/* A reset while a request is half done and another waits; then everything works again. */
static void test_reset(void **state)
{
    struct fixture *f = *state;
    static uint32_t pfn[16384];
    struct iovec out = {pfn, sizeof(pfn)};

    for (unsigned packed = 0; packed < 2; packed++) {
        start(f, STATS | REPORTING, packed);
        for (unsigned i = 0; i < QZ_ARRAY_LEN(pfn); i++)
            pfn[i] = (2 * i) % (16 * MIB / PAGE) + 2 * MIB / PAGE;
        assert_true(vtest_submit(f->t, INFLATE_Q, &out, 1, NULL, 0) >= 0);
        assert_true(vtest_submit(f->t, INFLATE_Q, &out, 1, NULL, 0) >= 0);
        tell(f, 0, 1, 1, 2);
        vtest_kick(f->t, INFLATE_Q);
        vtest_run(f->tm, 1000);
        assert_int_equal(vtest_poll(f->t, INFLATE_Q), 0); /* it takes more than one round */
        inflate(f, packed);
    }
}

static void test_state(void **state)
{
    struct fixture *f = *state;
    uint64_t target, actual, reported;
    struct balloon_stats stats;
    uint32_t pages = 512;
    uint8_t tag[10] = {4}; /* free memory: 0 */

    assert_int_equal(vtest_negotiate(f->t, QZ_BIT(VIRTIO_BALLOON_F_STATS_VQ), false), 0);
    vtest_device_write(f->t, 4, &pages, 4);
    assert_int_equal(virtio_balloon_set_target(f->d, MIB), 0);
    vtest_submit(f->t, 2, &(struct iovec){tag, sizeof(tag)}, 1, NULL, 0);
    vtest_kick(f->t, 2);
    vtest_run(f->tm, 100); /* the device holds the buffer now */
    VTEST_STATE_KEPT(f->tm, f->vp);
    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    assert_int_equal(target, MIB);
    assert_int_equal(actual, 512 * PAGE);
    vtest_run(f->tm, 100); /* it looks at the buffer again */
    virtio_balloon_info(f->d, &target, &actual, &reported, &stats);
    assert_int_equal(stats.free_memory, 0);
    assert_true(stats.age_ns >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_inflate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inflate_in_rounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inflate_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics_asked_often, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reporting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio-balloon", tests, NULL, NULL);
}

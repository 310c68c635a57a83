/* memory_test.c - guest-physical memory: sizes, the hole, wrapping ranges, giving pages back. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "machine/memory.h"

static void sizes_are_checked(void **state)
{
    static const uint64_t bad[] = {
        0, 4096, GUEST_RAM_MIN + 1, GUEST_RAM_MIN - 4096, GUEST_RAM_MAX + 4096, ~0ull, 1ull << 63};
    struct guest_memory m;

    for (size_t i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        struct qz_error err = {0};

        assert_int_equal(guest_memory_new(&m, bad[i], &err), -EINVAL);
        assert_true(strlen(err.text) > 0);
    }
}

static uint64_t allocated(const struct guest_memory *m)
{
    struct stat st;

    assert_int_equal(fstat(m->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void the_largest_machine_costs_what_it_touches(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;
    struct mem_span s;
    uint64_t last = HIGH_RAM + GUEST_RAM_MAX - LOW_RAM_MAX - 1;
    uint8_t v = 0xa5, back = 0;

    if (guest_memory_new(&m, GUEST_RAM_MAX, &err) < 0) {
        print_message("skipped: %s\n", err.text); /* an address space limit of this host */
        skip();
    }
    assert_int_equal(m.low_size, LOW_RAM_MAX);
    assert_int_equal(mem_write(&m, gpa(last), &v, 1), 0);
    assert_int_equal(mem_read(&m, gpa(last), &back, 1), 0);
    assert_int_equal(back, v);
    assert_true(allocated(&m) <= 1 << 20);
    assert_int_equal(mem_span(&m, gpa(last), 2, &s), -EFAULT);
    assert_int_equal(mem_span(&m, gpa(HIGH_RAM), m.high_size, &s), 0);
    assert_int_equal(s.len, m.high_size);
    guest_memory_free(&m);
}

static void ranges_end_at_the_hole(void **state)
{
    struct guest_memory m;
    struct mem_span s;
    uint64_t size = LOW_RAM_MAX + (16 << 20), high_end = HIGH_RAM + (16 << 20);
    const struct {
        uint64_t address, len;
        int code;
    } cases[] = {
        {0, 1, 0},
        {0, 0, -EFAULT},
        {0, LOW_RAM_MAX, 0},
        {0, LOW_RAM_MAX + 1, -EFAULT},
        {LOW_RAM_MAX - 1, 1, 0},
        {LOW_RAM_MAX - 1, 2, -EFAULT},
        {LOW_RAM_MAX, 1, -EFAULT},
        {HIGH_RAM - 1, 1, -EFAULT},
        {HIGH_RAM - 1, 2, -EFAULT},
        {HIGH_RAM, 16 << 20, 0},
        {HIGH_RAM, 0, -EFAULT},
        {HIGH_RAM, (16 << 20) + 1, -EFAULT},
        {high_end - 1, 1, 0},
        {high_end, 1, -EFAULT},
        {1, ~0ull, -EFAULT},
        {4096, ~0ull - 4095, -EFAULT},
        {HIGH_RAM, ~0ull, -EFAULT},
        {HIGH_RAM + 1, ~0ull - HIGH_RAM, -EFAULT},
        {~0ull, 1, -EFAULT},
        {~0ull, ~0ull, -EFAULT},
        {1ull << 63, 1ull << 63, -EFAULT},
    };

    assert_int_equal(guest_memory_new(&m, size, NULL), 0);
    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        s = (struct mem_span){0};
        if (mem_span(&m, gpa(cases[i].address), cases[i].len, &s) != cases[i].code)
            fail_msg("case %zu", i);
        assert_int_equal(s.len, cases[i].code ? 0 : cases[i].len);
    }
    assert_int_equal(mem_span(&m, gpa(HIGH_RAM), 1, &s), 0);
    assert_ptr_equal(s.data, m.high);
    guest_memory_free(&m);
}

static void a_small_machine_has_no_high_memory(void **state)
{
    struct guest_memory m;
    struct mem_span s;

    assert_int_equal(guest_memory_new(&m, GUEST_RAM_MIN, NULL), 0);
    assert_null(m.high);
    assert_int_equal(mem_span(&m, gpa(HIGH_RAM), 1, &s), -EFAULT);
    assert_int_equal(mem_span(&m, gpa(GUEST_RAM_MIN - 4), 4, &s), 0);
    guest_memory_free(&m);
}

static void discarded_pages_read_zero_and_are_given_back(void **state)
{
    struct guest_memory m;
    uint64_t at = HIGH_RAM + 8192, before;
    uint8_t page[3 * 4096];

    assert_int_equal(guest_memory_new(&m, LOW_RAM_MAX + (4 << 20), NULL), 0);
    memset(page, 0x77, sizeof(page));
    assert_int_equal(mem_write(&m, gpa(at), page, sizeof(page)), 0);
    assert_int_equal(mem_write(&m, gpa(8192), page, sizeof(page)), 0);
    before = allocated(&m);
    /* Rounded inward: of these three pages only the middle one is whole. */
    assert_int_equal(mem_discard(&m, gpa(at + 1), sizeof(page) - 2), 0);
    assert_int_equal(before - allocated(&m), 4096);
    assert_int_equal(mem_read(&m, gpa(at), page, sizeof(page)), 0);
    assert_int_equal(page[4095], 0x77);
    assert_int_equal(page[4096], 0);
    assert_int_equal(page[8191], 0);
    assert_int_equal(page[8192], 0x77);
    assert_int_equal(mem_read(&m, gpa(8192), page, sizeof(page)), 0);
    assert_int_equal(page[4096], 0x77);
    assert_int_equal(mem_discard(&m, gpa(at + 1), 4094), 0); /* no whole page: nothing to do */
    assert_int_equal(mem_discard(&m, gpa(LOW_RAM_MAX), 4096), -EFAULT);
    assert_int_equal(mem_discard(&m, gpa(HIGH_RAM), ~0ull), -EFAULT);
    guest_memory_free(&m);
}

static void the_file_cannot_change_its_size(void **state)
{
    struct guest_memory m;

    assert_int_equal(guest_memory_new(&m, GUEST_RAM_MIN, NULL), 0);
    assert_int_equal(ftruncate(m.fd, 4096), -1);
    assert_int_equal(ftruncate(m.fd, GUEST_RAM_MIN * 2), -1);
    assert_true(fcntl(m.fd, F_GETFD) & FD_CLOEXEC);
    guest_memory_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(the_largest_machine_costs_what_it_touches),
        cmocka_unit_test(ranges_end_at_the_hole),
        cmocka_unit_test(a_small_machine_has_no_high_memory),
        cmocka_unit_test(discarded_pages_read_zero_and_are_given_back),
        cmocka_unit_test(the_file_cannot_change_its_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

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

/* ---- frozen memory ---- */

static void fill(struct guest_memory *m, uint64_t at, const char *text)
{
    assert_int_equal(mem_write(m, gpa(at), text, strlen(text) + 1), 0);
}

static void expect(struct guest_memory *m, uint64_t at, const char *text)
{
    char found[64];

    assert_int_equal(mem_read(m, gpa(at), found, strlen(text) + 1), 0);
    assert_string_equal(found, text);
}

static void a_base_is_not_written(void **state)
{
    const uint64_t size = LOW_RAM_MAX + (16 << 20), high = HIGH_RAM + (3 << 20);
    struct qz_error err = {0};
    struct guest_memory m, clone;
    struct mem_span before, after;
    char text[8];

    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    fill(&m, 0x5000, "first");
    fill(&m, high, "above");
    assert_int_equal(mem_span(&m, gpa(high), 1, &before), 0);
    assert_int_equal(guest_memory_freeze(&m, &err), 0);
    assert_int_equal(mem_span(&m, gpa(high), 1, &after), 0);
    assert_ptr_equal(before.data, after.data);
    expect(&m, 0x5000, "first");
    fill(&m, 0x5000, "after");
    fill(&m, high, "later");
    assert_int_equal(pread(m.fd, text, 6, 0x5000), 6);
    assert_string_equal(text, "first");

    /* Another machine over the same base sees none of it, nor does this one see what that writes.
     */
    assert_int_equal(guest_memory_over(&clone, dup(m.fd), size, &err), 0);
    expect(&clone, 0x5000, "first");
    expect(&clone, high, "above");
    fill(&clone, 0x5000, "clone");
    expect(&m, 0x5000, "after");

    assert_true(write(m.fd, "x", 1) < 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0), MAP_FAILED);
    assert_true(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0);

    assert_int_equal(guest_memory_revert(&m, m.fd), 0);
    expect(&m, 0x5000, "first");
    expect(&m, high, "above");
    expect(&clone, 0x5000, "clone");
    guest_memory_free(&clone);
    guest_memory_free(&m);
}

/* What was written, given back and left alone is all in the next base; the old one stays. */
static void frozen_again(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m, old;

    assert_int_equal(guest_memory_new(&m, 64 << 20, &err), 0);
    fill(&m, 0x1000, "kept");
    fill(&m, 5 << 20, "given back");
    fill(&m, 9 << 20, "old");
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(guest_memory_freeze(&m, &err), 0);
        if (round == 0)
            assert_int_equal(guest_memory_over(&old, dup(m.fd), 64 << 20, &err), 0);
        fill(&m, 9 << 20, "new");
        fill(&m, (20 + round) << 20, "more");
        assert_int_equal(mem_discard(&m, gpa(5 << 20), 4096), 0);
        expect(&m, 5 << 20, "");
    }
    assert_int_equal(guest_memory_freeze(&m, &err), 0);
    assert_int_equal(guest_memory_revert(&m, m.fd), 0);
    expect(&m, 0x1000, "kept");
    expect(&m, 5 << 20, "");
    expect(&m, 9 << 20, "new");
    expect(&m, 20 << 20, "more");
    expect(&m, 22 << 20, "more");
    assert_true(allocated(&m) <= 8 * 4096);
    expect(&old, 5 << 20, "given back");
    expect(&old, 9 << 20, "old");
    expect(&old, 20 << 20, "");
    guest_memory_free(&old);
    guest_memory_free(&m);
}

static void cleared_memory_is_zero(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    assert_int_equal(guest_memory_new(&m, 8 << 20, &err), 0);
    for (unsigned round = 0; round < 2; round++) {
        fill(&m, 0x3000, "text");
        assert_int_equal(guest_memory_clear(&m), 0);
        assert_int_equal(allocated(&m), 0);
        expect(&m, 0x3000, "");
        fill(&m, 0x3000, "text");
        assert_int_equal(guest_memory_freeze(&m, &err), 0);
        fill(&m, 0x4000, "text");
    }
    assert_int_equal(guest_memory_clear(&m), 0);
    assert_false(m.frozen);
    expect(&m, 0x3000, "");
    expect(&m, 0x4000, "");
    guest_memory_free(&m);
}

/* Only a file that keeps its size and that nobody can write is a base. */
static void strange_bases_are_refused(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;
    int fd = memfd_create("strange", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_int_equal(ftruncate(fd, 8 << 20), 0);
    assert_int_equal(guest_memory_over(&m, dup(fd), 8 << 20, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no frozen memory"));
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x10), 0);
    assert_int_equal(guest_memory_over(&m, dup(fd), 4 << 20, &err), -EINVAL);
    assert_non_null(strstr(err.text, "another size"));
    assert_int_equal(guest_memory_over(&m, fd, 8 << 20, &err), 0);
    guest_memory_free(&m);
    assert_int_equal(guest_memory_over(&m, open("/dev/null", O_RDWR), 8 << 20, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_base_is_not_written),
        cmocka_unit_test(frozen_again),
        cmocka_unit_test(cleared_memory_is_zero),
        cmocka_unit_test(strange_bases_are_refused),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(the_largest_machine_costs_what_it_touches),
        cmocka_unit_test(ranges_end_at_the_hole),
        cmocka_unit_test(a_small_machine_has_no_high_memory),
        cmocka_unit_test(discarded_pages_read_zero_and_are_given_back),
        cmocka_unit_test(the_file_cannot_change_its_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

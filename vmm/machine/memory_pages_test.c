/*
 * memory_pages_test.c - memory on merged, transparent and reserved huge pages: the same bytes as on
 * any other through all that is done with memory, on this host's own KSM and huge pages, which are
 * switched on for it where that is allowed, and put back.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "machine/memory.h"
#include "machine/memory_layers.h"

#define MIB (1ull << 20)

enum { PAGE = 4096, SIZE_MIB = 32 };

#define KSM  "/sys/kernel/mm/ksm/"
#define HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define THP  "/sys/kernel/mm/transparent_hugepage/"

/* ---- the host's switches */

static struct {
    const char *path;
    char before[128];
} changed[16];
static unsigned changes;

static bool read_line(const char *path, char *line, size_t size)
{
    QZ_AUTO_FILE FILE *f = fopen(path, "re");

    return f && fgets(line, (int)size, f);
}

static bool write_line(const char *path, const char *line)
{
    QZ_AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);
}

/* Until the test ends. False: that is not allowed here. */
static bool change(const char *path, const char *value)
{
    char line[128], *chosen;

    if (changes == QZ_ARRAY_LEN(changed) || !read_line(path, line, sizeof(line)))
        return false;
    chosen = strchr(line, '[');
    if (chosen)
        chosen[1 + strcspn(chosen + 1, "]")] = '\0';
    changed[changes].path = path;
    snprintf(changed[changes].before, sizeof(changed[0].before), "%s", chosen ? chosen + 1 : line);
    if (!write_line(path, value))
        return false;
    changes++;
    return true;
}

static int put_back(void **state)
{
    while (changes) {
        changes--;
        if (!write_line(changed[changes].path, changed[changes].before))
            fprintf(stderr, "%s is not as it was: %s", changed[changes].path,
                    changed[changes].before);
    }
    return 0;
}

static long long number_in(const char *path, const char *name)
{
    QZ_AUTO_FILE FILE *f = fopen(path, "re");
    char line[128];
    long long v;

    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, name, strlen(name)) && sscanf(line + strlen(name), "%lld", &v) == 1)
            return v;
    return -1;
}

/* ---- what every memory does */

static void fill(struct guest_memory *m, uint64_t at, int byte)
{
    struct mem_span s = {0};

    assert_int_equal(mem_span(m, gpa(at), PAGE, &s), 0);
    memset(s.data, byte, PAGE);
}

static void expect(struct guest_memory *m, uint64_t at, int byte)
{
    struct mem_span s = {0};

    assert_int_equal(mem_span(m, gpa(at), PAGE, &s), 0);
    for (unsigned i = 0; i < PAGE; i += 64)
        assert_int_equal(s.data[i], byte);
}

static void discards_and_clears(struct guest_memory *m)
{
    fill(m, 0, 1);
    fill(m, 4 * MIB, 2);
    fill(m, 4 * MIB + PAGE, 3);
    fill(m, 5 * MIB, 4);
    assert_int_equal(mem_discard(m, gpa(4 * MIB + 1), 2 * PAGE), 0); /* one whole page */
    expect(m, 4 * MIB, 2);
    expect(m, 4 * MIB + PAGE, 0);
    expect(m, 5 * MIB, 4);
    fill(m, 4 * MIB + PAGE, 5);
    expect(m, 4 * MIB + PAGE, 5);
    assert_int_equal(guest_memory_clear(m), 0);
    for (uint64_t at = 0; at < m->size; at += PAGE)
        expect(m, at, 0);
    fill(m, 4 * MIB, 6);
    expect(m, 4 * MIB, 6);
}

static void freezes_and_goes_back(struct guest_memory *m)
{
    struct qz_error err = {0};
    struct memory_layers *first;

    fill(m, MIB, 1);
    assert_int_equal(guest_memory_freeze(m, NULL, &err), 0);
    first = layers_hold(m->layers);
    fill(m, MIB, 2);
    fill(m, 2 * MIB, 3);
    assert_int_equal(mem_discard(m, gpa(4 * MIB), PAGE), 0);
    assert_int_equal(guest_memory_freeze(m, NULL, &err), 0);
    expect(m, MIB, 2);
    expect(m, 4 * MIB, 0);
    fill(m, 4 * MIB, 9);
    assert_int_equal(guest_memory_revert(m, first), 0);
    expect(m, MIB, 1);
    expect(m, 2 * MIB, 0);
    expect(m, 4 * MIB, 6);
    while (guest_memory_tidy(m))
        ;
    layers_drop(first);
}

/* ---- pages that are merged */

static void begin_merging(struct guest_memory *m)
{
    const struct memory_options merge = {.merge = true};
    struct qz_error err = {0};

    if (access(KSM "run", F_OK) < 0)
        skip();
    qz_log_set_level(QZ_LOG_ERROR);
    assert_int_equal(guest_memory_new_as(m, SIZE_MIB * MIB, &merge, &err), 0);
}

static void memory_that_may_be_merged_is_as_any_other(void **state)
{
    struct guest_memory m;

    begin_merging(&m);
    discards_and_clears(&m);
    freezes_and_goes_back(&m);
    discards_and_clears(&m);
    guest_memory_free(&m);
}

/* A reset or a machine without a written byte has something to hand out, too. */
static void nothing_can_be_frozen(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    begin_merging(&m);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    assert_true(m.layers->count > 0);
    expect(&m, 0, 0);
    guest_memory_free(&m);
}

/* False: it is not allowed here, or this kernel (before 6.6) does not tell enough. */
static bool merge_quickly(const char *figure)
{
    return number_in("/proc/self/ksm_stat", figure) >= 0 && change(KSM "run", "1") &&
           change(KSM "sleep_millisecs", "5") && change(KSM "pages_to_scan", "20000");
}

/* Until the kernel has merged so many pages of this process. */
static bool wait_merged(const char *name, long long pages)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (number_in("/proc/self/ksm_stat", name) >= pages)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

static void equal_pages_are_kept_once(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    begin_merging(&m);
    if (!merge_quickly("ksm_merging_pages")) {
        guest_memory_free(&m);
        skip();
    }
    for (uint64_t at = 0; at < 8 * MIB; at += PAGE)
        fill(&m, at, 77);
    assert_true(wait_merged("ksm_merging_pages", 1000));
    fill(&m, 3 * MIB, 78); /* and written they are one's own again */
    expect(&m, 3 * MIB, 78);
    expect(&m, 3 * MIB + PAGE, 77);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    expect(&m, 3 * MIB, 78);
    for (uint64_t at = 0; at < 8 * MIB; at += PAGE)
        fill(&m, at, 79);
    assert_true(wait_merged("ksm_merging_pages", 1000)); /* after a remap, too */
    guest_memory_free(&m);
}

/* The zero page that KSM puts in place of zeroes is no sign that nothing was written. */
static void zeroes_that_were_merged_are_frozen(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    begin_merging(&m);
    if (!merge_quickly("ksm_zero_pages") || !change(KSM "use_zero_pages", "1")) {
        guest_memory_free(&m);
        skip();
    }
    for (uint64_t at = 0; at < 4 * MIB; at += PAGE)
        fill(&m, at, 5);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    for (uint64_t at = 0; at < 4 * MIB; at += PAGE)
        fill(&m, at, 0);
    assert_true(wait_merged("ksm_zero_pages", 1000));
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    for (size_t i = 0; i * m.layers->chunk < 4 * MIB; i++)
        assert_int_equal(m.layers->table[i], LAYER_ZERO);
    expect(&m, 2 * MIB, 0);
    guest_memory_free(&m);
}

/* ---- transparent huge pages */

static void transparent_pages(void **state)
{
    const struct memory_options options = {.pages = MEMORY_PAGES_TRANSPARENT};
    struct qz_error err = {0};
    struct guest_memory m;

    if (!change(THP "shmem_enabled", "never"))
        skip();
    assert_int_equal(guest_memory_new_as(&m, SIZE_MIB * MIB, &options, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "shmem_enabled"));
    if (!change(THP "shmem_enabled", "advise"))
        skip();
    assert_int_equal(guest_memory_new_as(&m, SIZE_MIB * MIB, &options, &err), 0);
    discards_and_clears(&m);
    fill(&m, 20 * MIB, 1);
    assert_true(number_in("/proc/self/smaps_rollup", "ShmemPmdMapped:") >= 2048);
    assert_int_equal(guest_memory_clear(&m), 0);
    fill(&m, 4 * MIB, 6);
    freezes_and_goes_back(&m);
    guest_memory_free(&m);
}

/* ---- reserved pages */

static void reserved_pages(void **state)
{
    const struct memory_options options = {.pages = MEMORY_PAGES_2MIB};
    struct qz_error err = {0};
    struct guest_memory m;
    char want[32];
    long long all;

    all = number_in(HUGE "nr_hugepages", "");
    snprintf(want, sizeof(want), "%lld", all + SIZE_MIB / 2);
    if (all < 0 || !change(HUGE "nr_hugepages", want) ||
        number_in(HUGE "nr_hugepages", "") < all + SIZE_MIB / 2)
        skip();
    assert_int_equal(guest_memory_new_as(&m, SIZE_MIB * MIB, &options, &err), 0);
    /* All are this machine's before it touches one. */
    assert_true(number_in(HUGE "resv_hugepages", "") >= SIZE_MIB / 2);
    discards_and_clears(&m);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), -ENOTSUP);
    expect(&m, 4 * MIB, 6);
    guest_memory_free(&m);
    assert_int_equal(guest_memory_new_as(&m, (SIZE_MIB + 1) * MIB, &options, &err), -EINVAL);
}

static void too_few_reserved_pages_are_told(void **state)
{
    const struct memory_options options = {.pages = MEMORY_PAGES_2MIB};
    struct qz_error err = {0};
    struct guest_memory m;

    if (access(HUGE "nr_hugepages", F_OK) < 0)
        skip();
    assert_int_equal(guest_memory_new_as(&m, GUEST_RAM_MAX, &options, &err), -ENOMEM);
    assert_non_null(strstr(err.text, "needs 262144 pages"));
    assert_non_null(strstr(err.text, "nr_hugepages"));
}

static void a_snapshot_has_no_reserved_pages(void **state)
{
    const struct memory_options options = {.pages = MEMORY_PAGES_2MIB};
    struct qz_error err = {0};
    struct guest_memory m;
    int base = ram_file_new(SIZE_MIB * MIB);

    if (access(HUGE "nr_hugepages", F_OK) < 0)
        skip();
    assert_int_equal(ram_file_seal(base), 0);
    assert_int_equal(guest_memory_over_as(&m, base, SIZE_MIB * MIB, &options, &err), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_may_be_merged_is_as_any_other),
        cmocka_unit_test(nothing_can_be_frozen),
        cmocka_unit_test_teardown(equal_pages_are_kept_once, put_back),
        cmocka_unit_test_teardown(zeroes_that_were_merged_are_frozen, put_back),
        cmocka_unit_test_teardown(transparent_pages, put_back),
        cmocka_unit_test_teardown(reserved_pages, put_back),
        cmocka_unit_test(too_few_reserved_pages_are_told),
        cmocka_unit_test(a_snapshot_has_no_reserved_pages),
    };

    return cmocka_run_group_tests_name("memory-pages", tests, NULL, NULL);
}

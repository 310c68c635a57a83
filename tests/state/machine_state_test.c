/*
 * machine_state_test.c - times and periods at their limits in the state of a whole machine: it
 * refuses them, or it runs and comes to a stand again; it never waits for ever, nor does its clock
 * do nothing but fire timers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "spoil.h"
#include "whole.h"

#define RUN_NS INT64_C(3000000)
#define TICKS  (INT64_MAX / 4 / 500) /* of the PIT: as many as it takes */

static struct whole *machine;

static int start(void **unused)
{
    machine = whole_new("jit,interpret", 2);
    return 0;
}

static int end(void **unused)
{
    whole_free(machine);
    return 0;
}

struct number {
    const char *section, *name;
    unsigned n;
    uint64_t value;
};

/* The state with these numbers; the caller's to free. */
static void *changed(const struct number *numbers, unsigned count, size_t *len)
{
    struct state_file file = *whole_state(machine);
    void *bytes = NULL;

    for (unsigned i = 0; i < count; i++) {
        void *more = state_with_number(&file, numbers[i].section, numbers[i].name, numbers[i].n,
                                       numbers[i].value, len);

        if (!more)
            fail_msg("%s has no %s", numbers[i].section, numbers[i].name);
        assert_int_equal(state_file_parse(more, *len, &file, NULL), 0);
        free(bytes);
        bytes = more;
    }
    return bytes;
}

static int try(const struct number *numbers, unsigned count, struct qz_error *err)
{
    size_t len;
    QZ_AUTO_FREE void *bytes = changed(numbers, count, &len);

    return whole_load(machine, bytes, len, err);
}

/* It takes them, runs, and comes to a stand. */
static void runs(const struct number *numbers, unsigned count)
{
    struct qz_error err = {0};

    if (try(numbers, count, &err) < 0)
        fail_msg("%s", err.text);
    whole_read_registers(machine);
    whole_run(machine, RUN_NS);
}
#define RUNS(...)                                                                                  \
    runs((struct number[]){__VA_ARGS__}, QZ_ARRAY_LEN(((struct number[]){__VA_ARGS__})))

static void refused(const char *text, const struct number *numbers, unsigned count)
{
    struct qz_error err = {0};

    assert_true(try(numbers, count, &err) < 0);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" is not in \"%s\"", text, err.text);
}
#define REFUSED(text, ...)                                                                         \
    refused(text, (struct number[]){__VA_ARGS__}, QZ_ARRAY_LEN(((struct number[]){__VA_ARGS__})))

/* ---- the machine's time ---- */

static void test_clock(void **unused)
{
    struct qz_error err = {0};

    RUNS({"clock", "now", 0, 0});
    REFUSED("out of range", {"clock", "now", 0, INT64_MAX / 4 + 1});
    REFUSED("out of range", {"clock", "now", 0, (uint64_t)-1});
    /* As old as a machine may be: it runs, and has no state any more that another one would take.
     */
    RUNS({"clock", "now", 0, INT64_MAX / 4});
    assert_int_equal(whole_save(machine, &err), -EINVAL);
    assert_non_null(strstr(err.text, "out of range"));
}

/* ---- devices that count ---- */

static void test_timers_of_any_time(void **unused)
{
    static const int64_t times[] = {INT64_MIN, -1, 0, 1, INT64_MAX / 4, INT64_MAX};

    for (unsigned n = 0; n < 5; n++) /* PIT, HPET, RTC */
        for (unsigned i = 0; i < QZ_ARRAY_LEN(times); i++)
            RUNS({"platform", "armed", n, 1}, {"platform", "deadline", n, (uint64_t)times[i]});
}

static void test_pit(void **unused)
{
    static const int64_t starts[] = {-TICKS, -1, 0, 1, TICKS};
    static const uint64_t counts[] = {1, 2, 65536};

    REFUSED("a count of 0", {"platform", "loaded", 0, 1}, {"platform", "count", 0, 0});
    REFUSED("its gate is always high", {"platform", "gate", 0, 0});
    for (uint64_t mode = 0; mode < 6; mode++)
        for (unsigned i = 0; i < QZ_ARRAY_LEN(starts); i++)
            for (unsigned k = 0; k < QZ_ARRAY_LEN(counts); k++)
                RUNS({"platform", "mode", 0, mode}, {"platform", "loaded", 0, 1},
                     {"platform", "count", 0, counts[k]}, {"platform", "next", 0, 1},
                     {"platform", "next_waits", 0, i % 2}, {"platform", "switch_low", 0, k % 2},
                     {"platform", "switch_at", 0, (uint64_t)starts[i]},
                     {"platform", "start", 0, (uint64_t)starts[i]}, {"platform", "armed", 0, 1},
                     {"platform", "deadline", 0, 0}, {"platform", "edge_at", 0, 0});
}

/* The first comparator's pin is one that it can have. */
static void test_hpet(void **unused)
{
    static const uint64_t periods[] = {0, 1, 0xffffffff, UINT64_MAX};
    static const uint64_t kinds[] = {0x0c, 0x0e, 0x10c, 0x10e}; /* enabled, periodic; 32 bits */

    for (unsigned i = 0; i < QZ_ARRAY_LEN(periods); i++)
        for (unsigned k = 0; k < QZ_ARRAY_LEN(kinds); k++) {
            const uint64_t mask = kinds[k] & 0x100 ? 0xffffffff : UINT64_MAX;
            const struct number numbers[] = {{"platform", "config", 0, 1},
                                             {"platform", "config", 1, kinds[k]},
                                             {"platform", "period", 0, periods[i] & mask},
                                             {"platform", "compare", 0, periods[3 - i] & mask},
                                             {"platform", "due", 0, 0},
                                             {"platform", "armed", 1, 1},
                                             {"platform", "deadline", 1, 0}};
            struct qz_error err;

            if (try(numbers, QZ_ARRAY_LEN(numbers), &err) < 0)
                fail_msg("%s", err.text);
            whole_run(machine, RUN_NS);
        }
}

static void test_rtc(void **unused)
{
    static const int64_t seconds[] = {-(1ll << 40), 0, 1ll << 40};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(seconds); i++)
        for (unsigned k = 0; k < QZ_ARRAY_LEN(seconds); k++)
            RUNS({"platform", "offset", 0, (uint64_t)seconds[i]},
                 {"platform", "last_second", 0, (uint64_t)seconds[k]},
                 {"platform", "next_tick", 0, k ? INT64_MAX / 4 : 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock), cmocka_unit_test(test_timers_of_any_time),
        cmocka_unit_test(test_pit),   cmocka_unit_test(test_hpet),
        cmocka_unit_test(test_rtc),
    };

    return cmocka_run_group_tests(tests, start, end);
}

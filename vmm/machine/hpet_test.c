/* hpet_test.c - the HPET: counter, one-shot and periodic comparators, level status, legacy
 * replacement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "machine/hpet.h"
#include "machine/test_machine.h"
#include "test_state.h"

enum {
    CAPABILITY = 0x00,
    CONFIG = 0x10,
    STATUS = 0x20,
    COUNTER = 0xf0,
    T0 = 0x100,
    T1 = 0x120,
    T2 = 0x140,
    COMPARE = 8
};
enum {
    LEVEL = 1 << 1,
    ENABLE = 1 << 2,
    PERIODIC = 1 << 3,
    SET = 1 << 6,
    MODE32 = 1 << 8,
    PIN20 = 20 << 9,
    PIN21 = 21 << 9
};
enum { US = 1000, MS = 1000000 };

static struct test_machine *t;
static struct pit *pit;
static struct hpet *hpet;

static int setup(void **state)
{
    t = test_machine_new(1, false);
    assert_int_equal(pit_new(&pit, &t->m, NULL), 0);
    assert_int_equal(hpet_new(&hpet, &t->m, pit, NULL), 0);
    test_clock_advance(t->m.clock, 777777);
    return 0;
}
static int teardown(void **state)
{
    hpet_free(hpet);
    pit_free(pit);
    test_machine_free(t);
    return 0;
}

static uint64_t get(unsigned reg)
{
    return test_load(t, HPET_BASE + reg, 8);
}
static void set(unsigned reg, uint64_t v)
{
    test_store(t, HPET_BASE + reg, 8, v);
}
static void set32(unsigned reg, uint32_t v)
{
    test_store(t, HPET_BASE + reg, 4, v);
}
static unsigned messages_in(int64_t ns)
{
    unsigned before = t->messages;

    test_clock_advance(t->m.clock, ns);
    return t->messages - before;
}

static void registers(void **state)
{
    assert_int_equal(get(CAPABILITY), 10000000ull << 32 | HPET_BLOCK_ID);
    assert_int_equal(test_load(t, HPET_BASE + 4, 4), 10000000);
    set(CAPABILITY, 0);
    set(CONFIG, ~0ull);
    assert_int_equal(get(CONFIG), 3);
    set(CONFIG, 0);
    assert_int_equal(get(T0), 0x00f00000ull << 32 | 0x30);
    assert_int_equal(get(T0 + COMPARE), ~0ull);
    set(T1, 22 << 9);
    assert_int_equal(get(T1) & 31 << 9, 22 << 9);
    set(T1, 5 << 9); /* not one of its pins: the choice is not taken */
    assert_int_equal(get(T1) & 31 << 9, 22 << 9);
    assert_int_equal(get(T2 + 0x10), 0); /* no FSB delivery */
    assert_int_equal(get(0x160), 0);
    assert_int_equal(get(0x3f8), 0);
    set(T0 + COMPARE, 0x1122334455667788ull);
    assert_int_equal(test_load(t, HPET_BASE + T0 + COMPARE + 4, 4), 0x11223344);
    set(T0, MODE32);
    assert_int_equal(get(T0 + COMPARE), 0x55667788);
}

static void the_counter_counts_while_enabled(void **state)
{
    test_clock_advance(t->m.clock, MS);
    assert_int_equal(get(COUNTER), 0);
    set(CONFIG, 1);
    test_clock_advance(t->m.clock, MS);
    assert_int_equal(get(COUNTER), MS / 10);
    set(CONFIG, 0);
    test_clock_advance(t->m.clock, MS);
    assert_int_equal(get(COUNTER), MS / 10);
    set32(COUNTER + 4, 5);
    set(CONFIG, 1);
    test_clock_advance(t->m.clock, MS);
    assert_int_equal(get(COUNTER), 5ull << 32 | 2 * MS / 10);
    assert_int_equal(test_load(t, HPET_BASE + COUNTER + 4, 4), 5);
    set(COUNTER, ~0ull); /* runs over the end */
    test_clock_advance(t->m.clock, 20);
    assert_int_equal(get(COUNTER), 1);
    set(COUNTER, 1ull << 63);
    assert_int_equal(get(COUNTER), 1ull << 63);
}

static void one_shot(void **state)
{
    test_ioapic_route(t, 20, 0x51);
    set(T0, ENABLE | PIN20);
    set(T0 + COMPARE, 1000);
    assert_int_equal(messages_in(MS), 0); /* the counter stands */
    set(CONFIG, 1);
    test_clock_fire_early(t->m.clock);
    assert_int_equal(t->messages, 0);
    assert_int_equal(messages_in(1000 * 10 - 1), 0);
    assert_int_equal(messages_in(1), 1);
    assert_int_equal(messages_in(1000000ll * MS), 0);
    assert_int_equal(get(STATUS), 0);    /* edge: no status */
    set(T0 + COMPARE, get(COUNTER) - 1); /* just missed: not before the counter comes round */
    assert_int_equal(messages_in(1000000ll * MS), 0);
    set(T0 + COMPARE, get(COUNTER) + 500);
    set(T0, PIN20); /* disabled in time */
    assert_int_equal(messages_in(MS), 0);
}

static void comparators_of_32_bits_come_round(void **state)
{
    test_ioapic_route(t, 20, 0x51);
    set(CONFIG, 1);
    set(T0, ENABLE | PIN20 | MODE32);
    set32(T0 + COMPARE, 100);
    assert_int_equal(messages_in(MS), 1);
    assert_int_equal(messages_in(42ll * 1000 * MS), 0);
    assert_int_equal(messages_in(1000ll * MS), 1);
}

/* As Linux starts its tick. */
static void periodic(void **state)
{
    test_ioapic_route(t, 20, 0x51);
    set(CONFIG, 1);
    set32(T0, ENABLE | PERIODIC | SET | MODE32 | PIN20);
    set32(T0 + COMPARE, (uint32_t)get(COUNTER) + 100000);
    assert_int_equal(get(T0) & SET, 0);
    set32(T0 + COMPARE, 100000); /* 1 ms */
    assert_int_equal(messages_in(MS - 1), 0);
    assert_int_equal(messages_in(1), 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(messages_in(MS), 1);
    assert_int_equal(get(T0 + COMPARE), get(COUNTER) + 100000);
    assert_int_equal(test_clock_stall(t->m.clock, 10 * MS + 5), 1);
    assert_int_equal(messages_in(MS - 6), 0); /* the beat stays */
    assert_int_equal(messages_in(1), 1);
    set32(T0 + COMPARE, 1); /* 10 ns asked for */
    assert_in_range(messages_in(10 * MS), 1, 501);
    set(CONFIG, 0);
    assert_int_equal(messages_in(10 * MS), 0);
    assert_int_equal(test_clock_armed(t->m.clock), 0);
}

static void level_interrupts_hold_their_status(void **state)
{
    test_ioapic_route(t, 21, 0x52 | 1 << 15);
    set(CONFIG, 1);
    set(T1, LEVEL | PIN21); /* without ENABLE only the status comes up */
    set(T1 + COMPARE, get(COUNTER) + 10);
    assert_int_equal(messages_in(US), 0);
    assert_int_equal(get(STATUS), 2);
    set(T1, LEVEL | ENABLE | PIN21);
    assert_int_equal(t->messages, 1);
    irq_eoi(t->m.irq, 0x52);
    assert_int_equal(t->messages, 2); /* still up */
    set(STATUS, 1);
    assert_int_equal(get(STATUS), 2);
    set(STATUS, 2);
    assert_int_equal(get(STATUS), 0);
    irq_eoi(t->m.irq, 0x52);
    assert_int_equal(t->messages, 2);
}

static void legacy_replacement(void **state)
{
    test_ioapic_route(t, 2, 0x40);
    test_ioapic_route(t, 8, 0x48);
    test_out(t, 0x43, 0x34);
    test_out(t, 0x40, 11932 & 0xff);
    test_out(t, 0x40, 11932 >> 8);
    assert_in_range(messages_in(100 * MS), 9, 11);
    set(CONFIG, 3);
    assert_int_equal(messages_in(100 * MS), 0); /* the PIT is silent now */
    set(T0, ENABLE);
    set(T0 + COMPARE, get(COUNTER) + 100);
    set(T1, ENABLE);
    set(T1 + COMPARE, get(COUNTER) + 200);
    assert_int_equal(messages_in(2 * US), 2);
    assert_int_equal(t->message[(t->messages - 2) % TEST_MESSAGES].data, 0x40);
    assert_int_equal(t->message[(t->messages - 1) % TEST_MESSAGES].data, 0x48);
    hpet_reset(hpet);
    assert_in_range(messages_in(100 * MS), 9, 11);
    assert_int_equal(get(CONFIG), 0);
    /* Without legacy replacement a comparator with no pin chosen drives nothing. */
    pit_reset(pit);
    set(CONFIG, 1);
    set(T0, ENABLE);
    set(T0 + COMPARE, get(COUNTER) + 100);
    assert_int_equal(messages_in(MS), 0);
}

static void its_state_is_kept(void **state)
{
    set(T0, ENABLE | PERIODIC | SET);
    set(T0 + COMPARE, 1000);
    set(T0 + COMPARE, 1000);
    set(T1, LEVEL | ENABLE | PIN21);
    set(T1 + COMPARE, 500);
    set(CONFIG, 1);
    messages_in(10 * US); /* the level interrupt is up now */
    assert_int_equal(get(STATUS), 2);
    TEST_STATE_KEPT(hpet, hpet_state, hpet_reset);
    assert_int_equal(get(STATUS), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers),          TEST(the_counter_counts_while_enabled),
        TEST(one_shot),           TEST(comparators_of_32_bits_come_round),
        TEST(periodic),           TEST(level_interrupts_hold_their_status),
        TEST(legacy_replacement), TEST(its_state_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* pit_test.c - the 8254 in all its modes, read-back, BCD, port 0x61 and IRQ 0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "machine/pit.h"
#include "machine/test_machine.h"
#include "test_state.h"

enum { TIMER_PIN = 2, VECTOR = 0x30 };
enum { BOTH = 0x30, OUT2 = 1 << 5 };

static struct test_machine *t;
static struct pit *pit;
static int64_t origin; /* machine time of the last load */

static int setup(void **state)
{
    t = test_machine_new(1, false);
    assert_int_equal(pit_new(&pit, &t->m, NULL), 0);
    test_clock_advance(t->m.clock, 12345678); /* not at a round moment */
    return 0;
}
static int teardown(void **state)
{
    pit_free(pit);
    test_machine_free(t);
    return 0;
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
    test_out(t, 0x43, (uint8_t)(channel << 6 | BOTH | mode << 1));
    test_out(t, 0x40 + channel, (uint8_t)count);
    test_out(t, 0x40 + channel, count >> 8);
    origin = vm_clock_now(t->m.clock) * 1193182 / 1000000000;
}

/* Goes to the given tick behind the last load. */
static void to_tick(int64_t tick)
{
    int64_t ns = ((origin + tick) * 1000000000 + 1193181) / 1193182;

    assert_true(ns >= vm_clock_now(t->m.clock));
    test_clock_advance(t->m.clock, ns - vm_clock_now(t->m.clock));
}

static uint16_t count(unsigned channel)
{
    test_out(t, 0x43, (uint8_t)(channel << 6));
    uint16_t low = test_in(t, 0x40 + channel);

    return low | test_in(t, 0x40 + channel) << 8;
}

static bool out2(void)
{
    return test_in(t, 0x61) & OUT2;
}

static void gate2(bool high)
{
    test_out(t, 0x61, high);
    if (high)
        origin = vm_clock_now(t->m.clock) * 1193182 / 1000000000;
}

static void terminal_count(void **state)
{
    gate2(true);
    test_out(t, 0x43, 0xb0);
    assert_false(out2());
    program(2, 0, 1000);
    to_tick(400);
    assert_int_equal(count(2), 600);
    assert_false(out2());
    test_out(t, 0x61, 0); /* the gate holds the count ... */
    to_tick(5000);
    assert_int_equal(count(2), 600);
    test_out(t, 0x61, 1); /* ... and lets it go on */
    to_tick(5599);
    assert_false(out2());
    to_tick(5600);
    assert_true(out2());
    to_tick(5601);
    assert_int_equal(count(2), 0xffff); /* runs on */
    assert_true(out2());
    program(2, 0, 10); /* a new count lowers the output */
    assert_false(out2());
    to_tick(10);
    assert_true(out2());
    test_out(t, 0x42, 50); /* the first byte of the next one stops */
    to_tick(100);
    assert_false(out2());
}

static void triggered_one_shot(void **state)
{
    gate2(false);
    program(2, 1, 300);
    to_tick(1000);
    assert_true(out2()); /* no trigger yet */
    gate2(true);
    assert_false(out2());
    to_tick(100);
    assert_int_equal(count(2), 200);
    gate2(false); /* the gate's level does not matter ... */
    to_tick(200);
    assert_int_equal(count(2), 100);
    gate2(true); /* ... only that it rises: again from the start */
    to_tick(299);
    assert_false(out2());
    to_tick(300);
    assert_true(out2());
}

static void rate_generator(void **state)
{
    gate2(true);
    program(2, 2, 100);
    to_tick(98);
    assert_true(out2());
    assert_int_equal(count(2), 2);
    to_tick(99);
    assert_false(out2());
    to_tick(100);
    assert_true(out2());
    assert_int_equal(count(2), 100);
    to_tick(130);
    test_out(t, 0x42, 40); /* from the next cycle on */
    test_out(t, 0x42, 0);
    assert_int_equal(count(2), 70);
    to_tick(199);
    assert_false(out2());
    to_tick(210);
    assert_int_equal(count(2), 30);
    to_tick(239);
    assert_false(out2());
    gate2(false); /* forces the output up and stops */
    assert_true(out2());
    to_tick(1000);
    gate2(true);
    to_tick(39);
    assert_false(out2());
}

static void square_wave(void **state)
{
    gate2(true);
    program(2, 3, 101); /* odd: the high half has one tick more */
    to_tick(50);
    assert_true(out2());
    to_tick(51);
    assert_false(out2());
    to_tick(100);
    assert_false(out2());
    to_tick(101);
    assert_true(out2());
    program(2, 7, 100); /* bit 2 of the mode does not count */
    to_tick(10);
    assert_int_equal(count(2), 80);
    test_out(t, 0x42, 20); /* takes over with the low half */
    test_out(t, 0x42, 0);
    to_tick(49);
    assert_true(out2());
    to_tick(50);
    assert_false(out2());
    to_tick(59);
    assert_false(out2());
    to_tick(60);
    assert_true(out2());
    to_tick(70);
    assert_false(out2());
}

static void strobes(void **state)
{
    gate2(true);
    program(2, 4, 20);
    to_tick(19);
    assert_true(out2());
    to_tick(20);
    assert_false(out2());
    to_tick(21);
    assert_true(out2());
    gate2(false);
    program(2, 5, 20);
    to_tick(20);
    assert_true(out2()); /* needs its trigger */
    gate2(true);
    to_tick(20);
    assert_false(out2());
    to_tick(21);
    assert_true(out2());
}

static void decimal_counting(void **state)
{
    gate2(true);
    test_out(t, 0x43, 0xb0 | 1);
    test_out(t, 0x42, 0x34);
    test_out(t, 0x42, 0x12);
    origin = vm_clock_now(t->m.clock) * 1193182 / 1000000000;
    to_tick(34);
    assert_int_equal(count(2), 0x1200);
    to_tick(1235);
    assert_int_equal(count(2), 0x9999);
    program(2, 0, 0); /* binary zero: 65536 */
    to_tick(1);
    assert_int_equal(count(2), 0xffff);
    test_out(t, 0x43, 0xb4 | 1);
    test_out(t, 0x42, 0xff); /* digits that are none do no harm */
    test_out(t, 0x42, 0xff);
    test_clock_advance(t->m.clock, 1000000000);
    count(2);
}

static void latches_and_read_back(void **state)
{
    gate2(true);
    program(2, 2, 1000);
    to_tick(100);
    test_out(t, 0x43, 0x80); /* latch */
    to_tick(200);
    test_out(t, 0x43, 0x80); /* a second one changes nothing */
    assert_int_equal(test_in(t, 0x42), 900 & 0xff);
    to_tick(300);
    assert_int_equal(test_in(t, 0x42), 900 >> 8);
    test_out(t, 0x43, 0xc8); /* read-back: count and status of channel 2 */
    to_tick(400);
    assert_int_equal(test_in(t, 0x42), 0x80 | 0x30 | 2 << 1);
    assert_int_equal(test_in(t, 0x42), 700 & 0xff);
    assert_int_equal(test_in(t, 0x42), 700 >> 8);
    test_out(t, 0x43, 0xb0);
    test_out(t, 0x43, 0xe8); /* status only: no count yet */
    assert_int_equal(test_in(t, 0x42), 0x40 | 0x30);
    test_out(t, 0x43, 0x90); /* low byte only */
    test_out(t, 0x42, 77);
    assert_int_equal(test_in(t, 0x42), 77);
    assert_int_equal(test_in(t, 0x42), 77);
    test_out(t, 0x43, 0xa0); /* high byte only */
    test_out(t, 0x42, 3);
    assert_int_equal(test_in(t, 0x42), 3);
    assert_int_equal(test_in(t, 0x43), 0xff);
}

static void port_61_keeps_its_bits(void **state)
{
    bool refresh = test_in(t, 0x61) & 0x10;

    test_out(t, 0x61, 0xff);
    assert_int_equal(test_in(t, 0x61) & 0xcf, 0x0f);
    test_clock_advance(t->m.clock, 15085);
    assert_int_not_equal(!!(test_in(t, 0x61) & 0x10), refresh);
}

/* ---- IRQ 0 ---------------------------------------------------------------------------------- */

static unsigned ticks_in(int64_t ns)
{
    unsigned before = t->messages;

    test_clock_advance(t->m.clock, ns);
    return t->messages - before;
}

static void periodic_interrupts(void **state)
{
    unsigned before;

    test_ioapic_route(t, TIMER_PIN, VECTOR);
    program(0, 2, 11932); /* 100 Hz, to 9 parts in a million */
    before = t->messages;
    test_clock_fire_early(t->m.clock);
    assert_int_equal(t->messages, before);
    assert_int_equal(ticks_in(1000500000), 100);
    program(0, 3, 11932);
    assert_int_equal(ticks_in(1000500000), 100);
    assert_true(t->messages - before >= 200);
    /* A stalled host loses ticks, but not the beat. */
    assert_int_equal(test_clock_stall(t->m.clock, 500000000), 1);
    assert_int_equal(ticks_in(100000000), 10);
    program(0, 3, 2); /* 600 kHz asked for */
    assert_in_range(ticks_in(10000000), 1, 501);
    program(0, 0, 0);
    assert_int_equal(ticks_in(54000000), 0);
    assert_int_equal(ticks_in(1000000000), 1); /* terminal count: once */
    program(0, 4, 1193);
    assert_int_equal(ticks_in(1000000000), 1);
    program(0, 1, 100); /* no trigger ever comes */
    assert_int_equal(ticks_in(1000000000), 0);
    assert_int_equal(test_clock_armed(t->m.clock), 0);
}

static void hpet_can_take_irq_0_away(void **state)
{
    test_ioapic_route(t, TIMER_PIN, VECTOR);
    program(0, 2, 11932);
    pit_set_irq_enabled(pit, false);
    assert_int_equal(ticks_in(1000000000), 0);
    pit_set_irq_enabled(pit, true);
    ticks_in(1);
    assert_int_equal(ticks_in(1000000000), 100);
    pit_reset(pit);
    assert_int_equal(ticks_in(1000000000), 0);
}

static void the_pic_sees_each_tick(void **state)
{
    test_pic_setup(t);
    program(0, 2, 11932);
    while (irq_pending(t->m.irq, 0)) {
        irq_acknowledge(t->m.irq, 0);
        test_out(t, 0x20, 0x20);
    }
    for (int i = 0; i < 5; i++) {
        test_clock_advance(t->m.clock, 10001000);
        assert_int_equal(irq_acknowledge(t->m.irq, 0), 0x30);
        test_out(t, 0x20, 0x20);
        assert_false(irq_pending(t->m.irq, 0));
    }
}

static void its_state_is_kept(void **state)
{
    program(0, 2, 11932);
    program(1, 1, 500);
    program(2, 3, 1000);
    test_out(t, 0x61, 3);
    test_clock_advance(t->m.clock, 4000000);
    test_out(t, 0x43, 2 << 6);                   /* latched, not read */
    test_out(t, 0x43, (uint8_t)(BOTH | 2 << 1)); /* and half a count */
    test_out(t, 0x40, 7);
    TEST_STATE_KEPT(pit, pit_state, pit_reset);
}

/* A tick that was under way comes when it would have come. */
static void ticks_go_on_after_loading(void **state)
{
    struct qz_state *saved = qz_state_save(), *loaded;
    const void *bytes;
    size_t len;

    test_ioapic_route(t, TIMER_PIN, VECTOR);
    program(0, 2, 11932);
    test_clock_advance(t->m.clock, 9000000);
    pit_state(pit, saved);
    pit_reset(pit);
    assert_int_equal(ticks_in(100000), 0);
    test_clock_advance(t->m.clock, -100000);
    bytes = qz_state_bytes(saved, &len);
    loaded = qz_state_load(bytes, len);
    pit_state(pit, loaded);
    assert_int_equal(qz_state_finish(loaded, NULL), 0);
    assert_int_equal(ticks_in(990000), 0);
    assert_int_equal(ticks_in(20000), 1);
    qz_state_free(loaded);
    qz_state_free(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(terminal_count),
        TEST(triggered_one_shot),
        TEST(rate_generator),
        TEST(square_wave),
        TEST(strobes),
        TEST(decimal_counting),
        TEST(latches_and_read_back),
        TEST(port_61_keeps_its_bits),
        TEST(periodic_interrupts),
        TEST(hpet_can_take_irq_0_away),
        TEST(its_state_is_kept),
        TEST(ticks_go_on_after_loading),
        TEST(the_pic_sees_each_tick),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

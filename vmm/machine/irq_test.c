/* irq_test.c - lines, PIC pair and I/O APIC with the accelerator's local APICs (split mode). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "machine/test_machine.h"
#include "test_state.h"

enum { VECTOR = 0x30, SECOND = 0x38 };
#define LEVEL      (1ull << 15)
#define REMOTE_IRR (1ull << 14)
#define MASKED     (1ull << 16)
#define LOGICAL    (1ull << 11)

struct fixture {
    struct test_machine *t;
    struct irq_line line[IOAPIC_PINS];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->t = test_machine_new(2, false);
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        irq_line_init(&f->line[i], f->t->m.irq, i);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    test_machine_free(f->t);
    free(f);
    return 0;
}

/* ---- PIC ------------------------------------------------------------------------------------ */

static int take(struct fixture *f)
{
    return irq_pending(f->t->m.irq, 0) ? irq_acknowledge(f->t->m.irq, 0) : -1;
}

static void eoi(struct fixture *f)
{
    test_out(f->t, 0x20, 0x20);
}

static void pic_serves_by_priority(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    assert_int_equal(take(f), -1);
    irq_line_set(&f->line[4], true);
    irq_line_set(&f->line[1], true);
    assert_true(f->t->wakes[0] >= 1);
    assert_false(irq_pending(f->t->m.irq, 1)); /* wired to CPU 0 only */
    assert_int_equal(take(f), VECTOR + 1);
    assert_int_equal(take(f), -1); /* 4 waits behind 1 */
    irq_line_set(&f->line[0], true);
    assert_int_equal(take(f), VECTOR + 0); /* 0 goes before 1 */
    eoi(f);
    assert_int_equal(take(f), -1);
    eoi(f);
    assert_int_equal(take(f), VECTOR + 4);
    eoi(f);
    assert_int_equal(take(f), -1); /* edges: high lines alone do not interrupt again */
    irq_line_set(&f->line[4], false);
    irq_line_set(&f->line[4], true);
    assert_int_equal(take(f), VECTOR + 4);
}

static void pic_remembers_a_pulse(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_pulse(&f->line[5]);
    assert_int_equal(take(f), VECTOR + 5);
    eoi(f);
    assert_int_equal(take(f), -1);
}

static void pic_masks_and_reads_back(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    test_out(f->t, 0x21, 0xfb);
    assert_int_equal(test_in(f->t, 0x21), 0xfb);
    irq_line_set(&f->line[6], true);
    assert_int_equal(take(f), -1);
    test_out(f->t, 0x20, 0x0a);
    assert_int_equal(test_in(f->t, 0x20), 1 << 6); /* IRR */
    test_out(f->t, 0x21, 0x00);
    assert_int_equal(take(f), VECTOR + 6);
    assert_int_equal(test_in(f->t, 0x20), 0);
    test_out(f->t, 0x20, 0x0b);
    assert_int_equal(test_in(f->t, 0x20), 1 << 6); /* ISR */
    test_out(f->t, 0x20, 0x60 | 6);                /* specific EOI */
    assert_int_equal(test_in(f->t, 0x20), 0);
}

static void pic_cascades(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_set(&f->line[12], true);
    irq_line_set(&f->line[3], true);
    assert_int_equal(take(f), SECOND + 4); /* input 2 ranks before 3 */
    irq_line_set(&f->line[8], true);
    assert_int_equal(take(f), -1); /* without special fully nested mode the first chip waits */
    test_out(f->t, 0xa0, 0x60 | 4);
    test_out(f->t, 0x20, 0x60 | 2);
    assert_int_equal(take(f), SECOND + 0);
    test_out(f->t, 0xa0, 0x20);
    test_out(f->t, 0x20, 0x20);
    assert_int_equal(take(f), VECTOR + 3);
}

static void special_fully_nested_mode_lets_the_second_chip_nest(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    test_out(f->t, 0x20, 0x11);
    test_out(f->t, 0x21, VECTOR);
    test_out(f->t, 0x21, 4);
    test_out(f->t, 0x21, 0x11);
    irq_line_set(&f->line[12], true);
    assert_int_equal(take(f), SECOND + 4);
    irq_line_set(&f->line[8], true);
    assert_int_equal(take(f), SECOND + 0);
}

static void automatic_eoi_loses_nothing_behind_the_cascade(void **state)
{
    struct fixture *f = *state;
    static const uint8_t icw[] = {0x11, SECOND, 2, 0x03};

    test_pic_setup(f->t);
    for (int i = 0; i < 4; i++)
        test_out(f->t, i ? 0xa1 : 0xa0, icw[i]);
    irq_line_set(&f->line[9], true);
    irq_line_set(&f->line[10], true);
    assert_int_equal(take(f), SECOND + 1);
    test_out(f->t, 0x20, 0x20); /* EOI for the first chip only */
    assert_int_equal(take(f), SECOND + 2);
}

static void level_inputs_ask_again_until_they_fall(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_set(&f->line[11], true);
    irq_line_set(&f->line[5], true);
    bus_write(f->t->m.pio, 0x4d0, &(uint16_t){0xffff}, 2);
    assert_int_equal(test_in(f->t, 0x4d0), 0xf8);
    assert_int_equal(test_in(f->t, 0x4d1), 0xde);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(take(f), SECOND + 3);
        test_out(f->t, 0xa0, 0x20);
        eoi(f);
    }
    irq_line_set(&f->line[11], false);
    assert_int_equal(take(f), VECTOR + 5);
    eoi(f);
    irq_line_set(&f->line[5], false);
    assert_int_equal(take(f), -1);
    assert_int_equal(irq_acknowledge(f->t->m.irq, 0), -1); /* it went away */
}

static void priorities_rotate(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_set(&f->line[3], true);
    irq_line_set(&f->line[4], true);
    assert_int_equal(take(f), VECTOR + 3);
    test_out(f->t, 0x20, 0xa0); /* rotate on non-specific EOI: 3 is last now, 4 first */
    irq_line_set(&f->line[3], false);
    irq_line_set(&f->line[3], true);
    irq_line_set(&f->line[1], true);
    assert_int_equal(take(f), VECTOR + 4);
    eoi(f);
    assert_int_equal(take(f), VECTOR + 1);
    eoi(f);
    assert_int_equal(take(f), VECTOR + 3);
    eoi(f);
    test_out(f->t, 0x20, 0xc7); /* 7 last: as after power-up */
    irq_line_set(&f->line[1], false);
    irq_line_set(&f->line[1], true);
    irq_line_pulse(&f->line[7]);
    assert_int_equal(take(f), VECTOR + 1);
}

static void special_mask_mode_opens_lower_priorities(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_set(&f->line[1], true);
    assert_int_equal(take(f), VECTOR + 1);
    irq_line_set(&f->line[6], true);
    assert_int_equal(take(f), -1);
    test_out(f->t, 0x21, 1 << 1);
    assert_int_equal(take(f), -1);
    test_out(f->t, 0x20, 0x68);
    assert_int_equal(take(f), VECTOR + 6);
    test_out(f->t, 0x20, 0x48);
}

static void polling_takes_an_interrupt(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    test_out(f->t, 0x20, 0x0c);
    assert_int_equal(test_in(f->t, 0x20), 0);
    irq_line_set(&f->line[3], true);
    test_out(f->t, 0x20, 0x0c);
    assert_int_equal(test_in(f->t, 0x20), 0x83);
    assert_int_equal(take(f), -1);
    test_out(f->t, 0x20, 0x0b);
    assert_int_equal(test_in(f->t, 0x20), 1 << 3);
}

static void initialising_forgets_requests(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    irq_line_set(&f->line[3], true);
    test_pic_setup(f->t);
    assert_int_equal(take(f), -1); /* a new edge is needed */
    assert_int_equal(test_in(f->t, 0x21), 0);
}

/* ---- I/O APIC ------------------------------------------------------------------------------- */

static void ioapic_registers(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(test_ioapic_read(f->t, 1), 0x170020);
    test_ioapic_write(f->t, 0, 0xffffffff);
    assert_int_equal(test_ioapic_read(f->t, 0), 0x0f000000);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(test_ioapic_read(f->t, 0x10 + 2 * pin), MASKED);
        test_ioapic_write(f->t, 0x10 + 2 * pin, 0xffffffff);
        assert_int_equal(test_ioapic_read(f->t, 0x10 + 2 * pin),
                         0x1afff); /* status and remote IRR are read-only */
        test_ioapic_write(f->t, 0x11 + 2 * pin, 0xffffffff);
        assert_int_equal(test_ioapic_read(f->t, 0x11 + 2 * pin), 0xfffe0000);
    }
    test_ioapic_write(f->t, 0x40, 0x12345678); /* behind the last pin */
    assert_int_equal(test_ioapic_read(f->t, 0x40), 0);
    assert_int_equal(test_load(f->t, IOAPIC_BASE + 0x20, 4), 0);
    irq_fabric_reset(f->t->m.irq);
    assert_int_equal(test_ioapic_read(f->t, 0x10), MASKED);
    assert_int_equal(test_ioapic_read(f->t, 0), 0);
}

static void ioapic_sends_edges_once(void **state)
{
    struct fixture *f = *state;

    test_ioapic_route(f->t, 5, 0x51 | 3ull << 56);
    irq_line_set(&f->line[5], true);
    assert_int_equal(f->t->messages, 1);
    assert_int_equal(f->t->message[0].address, LAPIC_BASE | 3 << 12);
    assert_int_equal(f->t->message[0].data, 0x51);
    irq_line_set(&f->line[5], true);
    irq_eoi(f->t->m.irq, 0x51);
    assert_int_equal(f->t->messages, 1);
    irq_line_set(&f->line[5], false);
    irq_line_set(&f->line[5], true);
    assert_int_equal(f->t->messages, 2);
    test_ioapic_route(f->t, 5, 0x51 | MASKED);
    irq_line_pulse(&f->line[5]);
    assert_int_equal(f->t->messages, 2);
}

static void destinations_reach_15_bits(void **state)
{
    struct fixture *f = *state;
    uint64_t entry = 0x61 | 1ull << 8 | LOGICAL | 0x7full << 49 | 0xabull << 56;

    test_ioapic_route(f->t, 7, entry);
    irq_line_pulse(&f->line[7]);
    assert_int_equal(f->t->message[0].address, LAPIC_BASE | 0xab << 12 | 0x7f << 5 | 1 << 2);
    assert_int_equal(f->t->message[0].data, 0x61 | 1 << 8);
    assert_int_equal(f->t->route[7].address, f->t->message[0].address);
    assert_int_equal(f->t->route[7].data, f->t->message[0].data);
    assert_false(f->t->route[7].masked);
}

static void level_waits_for_eoi_and_fires_again(void **state)
{
    struct fixture *f = *state;
    struct irq_line sharing;

    irq_line_init(&sharing, f->t->m.irq, 20);
    test_ioapic_route(f->t, 20, 0x71 | LEVEL);
    irq_line_set(&f->line[20], true);
    assert_int_equal(f->t->messages, 1);
    assert_int_equal(f->t->message[0].data, 0x71 | 1 << 15 | 1 << 14);
    assert_int_equal(test_ioapic_read(f->t, 0x10 + 40) & REMOTE_IRR, REMOTE_IRR);
    irq_line_set(&sharing, true); /* wired OR */
    irq_line_set(&f->line[20], false);
    irq_line_set(&f->line[20], true);
    assert_int_equal(f->t->messages, 1);
    irq_eoi(f->t->m.irq, 0x72); /* another vector */
    assert_int_equal(f->t->messages, 1);
    irq_eoi(f->t->m.irq, 0x71);
    assert_int_equal(f->t->messages, 2);
    irq_line_set(&f->line[20], false);
    irq_eoi(f->t->m.irq, 0x71);
    assert_int_equal(f->t->messages, 3); /* the other source still holds it */
    irq_line_set(&sharing, false);
    test_store(f->t, IOAPIC_BASE + 0x40, 4, 0x71); /* the EOI register does the same */
    assert_int_equal(f->t->messages, 3);
    assert_int_equal(test_ioapic_read(f->t, 0x10 + 40) & REMOTE_IRR, 0);
}

static void unmasking_a_high_level_pin_fires(void **state)
{
    struct fixture *f = *state;

    irq_line_set(&f->line[21], true);
    test_ioapic_route(f->t, 21, 0x72 | LEVEL | MASKED);
    assert_int_equal(f->t->messages, 0);
    test_ioapic_route(f->t, 21, 0x72 | LEVEL);
    assert_int_equal(f->t->messages, 1);
    /* To edge and back clears remote IRR, as kernels without an EOI register do it. */
    test_ioapic_write(f->t, 0x10 + 42, 0x72 | MASKED);
    assert_int_equal(test_ioapic_read(f->t, 0x10 + 42), 0x72 | MASKED);
    test_ioapic_route(f->t, 21, 0x72 | LEVEL);
    assert_int_equal(f->t->messages, 2);
}

static void level_nmi_does_not_wait_for_an_eoi(void **state)
{
    struct fixture *f = *state;

    test_ioapic_route(f->t, 22, LEVEL | 4 << 8);
    irq_line_pulse(&f->line[22]);
    irq_line_pulse(&f->line[22]);
    assert_int_equal(f->t->messages, 2);
    assert_int_equal(f->t->message[1].data, 4 << 8);
}

static void the_timer_arrives_at_pin_2(void **state)
{
    struct fixture *f = *state;

    test_pic_setup(f->t);
    test_ioapic_route(f->t, 0, 0x40);
    test_ioapic_route(f->t, 2, 0x42);
    irq_line_set(&f->line[0], true);
    assert_int_equal(f->t->messages, 1);
    assert_int_equal(f->t->message[0].data, 0x42);
    assert_int_equal(take(f), VECTOR);
    irq_line_set(&f->line[2], true); /* shares the pin: no new edge */
    assert_int_equal(f->t->messages, 1);
    irq_line_set(&f->line[0], false);
    irq_line_set(&f->line[2], false);
    irq_line_set(&f->line[2], true);
    assert_int_equal(f->t->messages, 2);
    assert_int_equal(take(f), -1); /* the cascade input is not brought out */
}

static void every_change_of_a_route_is_told(void **state)
{
    struct fixture *f = *state;
    unsigned before = f->t->route[9].count;

    test_ioapic_write(f->t, 0x10 + 18, 0x33 | LEVEL);
    assert_int_equal(f->t->route[9].count, before + 1);
    assert_int_equal(f->t->route[9].data, 0x33 | 1 << 15 | 1 << 14);
    assert_false(f->t->route[9].masked);
    test_ioapic_write(f->t, 0x11 + 18, 2u << 24);
    assert_int_equal(f->t->route[9].address, LAPIC_BASE | 2 << 12);
    irq_fabric_reset(f->t->m.irq);
    assert_true(f->t->route[9].masked);
}

static void messages_go_where_they_should(void **state)
{
    struct fixture *f = *state;

    msi_send(f->t->m.irq, LAPIC_BASE | 1 << 12, 0x55);
    assert_int_equal(f->t->messages, 1);
    msi_send(f->t->m.irq, 0x1000, 0x55);
    msi_send(f->t->m.irq, LAPIC_BASE + 0x100000, 0x55);
    msi_send(f->t->m.irq, LAPIC_BASE | 1ull << 32, 0x55);
    assert_int_equal(f->t->messages, 1);
}

static void split_mode_has_no_local_apics(void **state)
{
    struct fixture *f = *state;
    uint64_t v;
    bool fault;

    assert_false(irq_lapic_rdmsr(f->t->m.irq, 0, 0x1b, &v, &fault));
    assert_false(irq_lapic_wrmsr(f->t->m.irq, 0, 0x80b, 0, &fault));
    assert_false(irq_lapic_mmio(f->t->m.irq, 0, LAPIC_BASE, &v, 4, false));
    irq_lapic_set_tpr(f->t->m.irq, 0, 3);
    assert_int_equal(irq_lapic_get_tpr(f->t->m.irq, 0), 0);
}

static void the_controllers_state_is_kept(void **state)
{
    struct fixture *f = *state;
    struct test_machine *t = f->t;

    test_pic_setup(t);
    test_ioapic_route(t, 9, 0x59 | 1 << 15);
    test_ioapic_route(t, 20, 0x60);
    irq_line_set(&f->line[9], true);
    TEST_STATE_KEPT(t->m.irq, irq_fabric_state, irq_fabric_reset);
    assert_int_equal(irq_acknowledge(t->m.irq, 0), 0x39);
}

/* Loading sends nothing and tells the accelerator every route; a level that no line has is refused.
 */
static void loading_the_controllers(void **state)
{
    struct fixture *f = *state;
    struct test_machine *t = f->t;
    struct qz_state *saved = qz_state_save(), *loaded;
    struct qz_error err = {0};
    const void *bytes;
    unsigned told, sent;
    size_t len;

    test_ioapic_route(t, 9, 0x59 | 1 << 15);
    irq_line_set(&f->line[9], true);
    irq_fabric_state(t->m.irq, saved);
    bytes = qz_state_bytes(saved, &len);
    told = t->route[9].count;
    sent = t->messages;
    loaded = qz_state_load(bytes, len);
    irq_fabric_state(t->m.irq, loaded);
    assert_int_equal(qz_state_finish(loaded, &err), 0);
    assert_int_equal(t->route[9].count, told + 1);
    assert_int_equal(t->messages, sent);
    qz_state_free(loaded);
    irq_line_set(&f->line[9], false);
    loaded = qz_state_load(bytes, len);
    irq_fabric_state(t->m.irq, loaded);
    assert_int_equal(qz_state_finish(loaded, &err), -EINVAL);
    assert_non_null(strstr(err.text, "interrupts: the level of I/O APIC pin 9 is no line's"));
    qz_state_free(loaded);
    qz_state_free(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pic_serves_by_priority),
        TEST(pic_remembers_a_pulse),
        TEST(pic_masks_and_reads_back),
        TEST(pic_cascades),
        TEST(special_fully_nested_mode_lets_the_second_chip_nest),
        TEST(automatic_eoi_loses_nothing_behind_the_cascade),
        TEST(level_inputs_ask_again_until_they_fall),
        TEST(priorities_rotate),
        TEST(special_mask_mode_opens_lower_priorities),
        TEST(polling_takes_an_interrupt),
        TEST(initialising_forgets_requests),
        TEST(ioapic_registers),
        TEST(ioapic_sends_edges_once),
        TEST(destinations_reach_15_bits),
        TEST(level_waits_for_eoi_and_fires_again),
        TEST(unmasking_a_high_level_pin_fires),
        TEST(level_nmi_does_not_wait_for_an_eoi),
        TEST(the_timer_arrives_at_pin_2),
        TEST(every_change_of_a_route_is_told),
        TEST(messages_go_where_they_should),
        TEST(split_mode_has_no_local_apics),
        TEST(the_controllers_state_is_kept),
        TEST(loading_the_controllers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

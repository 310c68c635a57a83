/* lapic_test.c - our own local APICs: priorities, IPIs, logical destinations, x2APIC, timer,
 * errors, LINT0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <x86intrin.h>

#include <cmocka.h>

#include "machine/lapic.h"
#include "machine/test_machine.h"

/* Offsets in the page. */
enum {
    R_ID = 0x20,
    R_VERSION = 0x30,
    R_TPR = 0x80,
    R_APR = 0x90,
    R_PPR = 0xa0,
    R_EOI = 0xb0,
    R_LDR = 0xd0,
    R_DFR = 0xe0,
    R_SVR = 0xf0,
    R_ISR = 0x100,
    R_TMR = 0x180,
    R_IRR = 0x200,
    R_ESR = 0x280,
    R_ICR = 0x300,
    R_ICR_HIGH = 0x310,
    R_TIMER = 0x320,
    R_LINT0 = 0x350,
    R_ERROR = 0x370,
    R_INITIAL = 0x380,
    R_CURRENT = 0x390,
    R_DIVIDE = 0x3e0,
};
enum { MASKED = 1 << 16, PERIODIC = 1 << 17, TSC_DEADLINE = 2 << 17, LOGICAL = 1 << 11 };
enum { SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18 };
enum { LOWEST = 1 << 8, SMI = 2 << 8, NMI = 4 << 8, INIT = 5 << 8, SIPI = 6 << 8, EXTINT = 7 << 8 };
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0, X2 = 0x800, BASE_X2APIC = 0xc00, BASE_XAPIC = 0x800 };
enum { MS = 1000000 };

static struct test_machine *t;

static int setup_cpus(unsigned cpus)
{
    t = test_machine_new(cpus, true);
    return 0;
}
static int setup(void **state)
{
    return setup_cpus(4);
}
static int setup_many(void **state)
{
    return setup_cpus(256);
}
static int teardown(void **state)
{
    test_machine_free(t);
    return 0;
}

static uint32_t get(unsigned cpu, unsigned reg)
{
    uint32_t v = 0;

    assert_true(irq_lapic_mmio(t->m.irq, cpu, LAPIC_BASE + reg, &v, 4, false));
    return v;
}
static void set(unsigned cpu, unsigned reg, uint32_t v)
{
    assert_true(irq_lapic_mmio(t->m.irq, cpu, LAPIC_BASE + reg, &v, 4, true));
}
static void enable(unsigned cpu)
{
    set(cpu, R_SVR, 0x1ff);
}
static void ipi(unsigned cpu, uint32_t destination, uint32_t low)
{
    set(cpu, R_ICR_HIGH, destination << 24);
    set(cpu, R_ICR, low);
}
static int take(unsigned cpu)
{
    return irq_pending(t->m.irq, cpu) ? irq_acknowledge(t->m.irq, cpu) : -1;
}
static void eoi(unsigned cpu)
{
    set(cpu, R_EOI, 0);
}
static void send(unsigned cpu, uint8_t vector)
{
    msi_send(t->m.irq, LAPIC_BASE | cpu << 12, vector);
}

static bool wrmsr(unsigned cpu, uint32_t index, uint64_t v)
{
    bool fault = false;

    assert_true(irq_lapic_wrmsr(t->m.irq, cpu, index, v, &fault));
    return !fault;
}
static bool rdmsr(unsigned cpu, uint32_t index, uint64_t *v)
{
    bool fault = false;

    assert_true(irq_lapic_rdmsr(t->m.irq, cpu, index, v, &fault));
    return !fault;
}
static uint64_t msr(unsigned cpu, uint32_t index)
{
    uint64_t v;

    assert_true(rdmsr(cpu, index, &v));
    return v;
}
static void to_x2apic(unsigned cpu)
{
    assert_true(wrmsr(cpu, MSR_BASE, LAPIC_BASE | BASE_X2APIC));
}

/* ---- registers ------------------------------------------------------------------------------ */

static void power_up_values(void **state)
{
    assert_int_equal(get(3, R_ID), 3 << 24);
    assert_int_equal(get(0, R_VERSION), 0x50014);
    assert_int_equal(get(0, R_SVR), 0xff);
    assert_int_equal(get(0, R_DFR), 0xffffffff);
    assert_int_equal(get(0, R_LDR), 0);
    for (unsigned reg = R_TIMER; reg <= R_ERROR; reg += 16)
        assert_int_equal(get(0, reg), MASKED);
    assert_int_equal(msr(0, MSR_BASE), LAPIC_BASE | BASE_XAPIC | 1 << 8);
    assert_int_equal(msr(1, MSR_BASE), LAPIC_BASE | BASE_XAPIC);
    set(1, R_ID, 0x77000000);
    assert_int_equal(get(1, R_ID), 1 << 24);
    set(0, R_TIMER, 0);
    assert_int_equal(get(0, R_TIMER), MASKED); /* software-disabled: masks cannot be opened */
}

static void odd_accesses_do_no_harm(void **state)
{
    uint8_t b[8];

    enable(2);
    memset(b, 0xee, sizeof(b));
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_ID, b, 8, false));
    assert_int_equal(qz_load_le64(b), 2 << 24);
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_ID + 3, b, 1, false));
    assert_int_equal(b[0], 2);
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_ID + 14, b, 8, false));
    assert_int_equal(qz_load_le64(b), 0);
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + 0xffc, b, 8, false));
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_TPR + 4, b, 4, true));
    assert_true(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_TPR, b, 1, true));
    assert_int_equal(get(2, R_TPR), 0);
    assert_false(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + 0x1000, b, 4, false));
    /* Another place for the page. */
    assert_true(wrmsr(2, MSR_BASE, 0xfed40000 | BASE_XAPIC));
    assert_false(irq_lapic_mmio(t->m.irq, 2, LAPIC_BASE + R_ID, b, 4, false));
    assert_true(irq_lapic_mmio(t->m.irq, 2, 0xfed40000 + R_ID, b, 4, false));
    assert_int_equal(qz_load_le32(b), 2 << 24);
    assert_int_equal(test_load(t, LAPIC_BASE, 4), 0xffffffff); /* nobody's page on the bus */
}

static void priorities_decide(void **state)
{
    enable(1);
    send(1, 0x41);
    assert_int_equal(t->wakes[1], 1);
    send(1, 0x41); /* the same request: no second waking */
    assert_int_equal(t->wakes[1], 1);
    send(1, 0x45);
    assert_int_equal(get(1, R_IRR + 0x20), 1 << 1 | 1 << 5);
    assert_int_equal(take(1), 0x45);
    assert_int_equal(get(1, R_ISR + 0x20), 1 << 5);
    assert_int_equal(get(1, R_PPR), 0x40);
    assert_int_equal(take(1), -1); /* same class */
    send(1, 0x52);
    assert_int_equal(take(1), 0x52);
    eoi(1);
    assert_int_equal(take(1), -1);
    eoi(1);
    assert_int_equal(take(1), 0x41);
    eoi(1);
    assert_int_equal(take(1), -1);
    eoi(1); /* nothing in service */
    assert_int_equal(get(1, R_PPR), 0);
}

static void task_priority_holds_back(void **state)
{
    enable(0);
    set(0, R_TPR, 0x5a);
    assert_int_equal(irq_lapic_get_tpr(t->m.irq, 0), 5);
    irq_lapic_set_tpr(t->m.irq, 0, 5);
    assert_int_equal(get(0, R_TPR), 0x5a); /* CR8 says the same: the lower half stays */
    assert_int_equal(get(0, R_PPR), 0x5a);
    assert_int_equal(get(0, R_APR), 0x5a);
    send(0, 0x5f);
    assert_int_equal(take(0), -1);
    assert_int_equal(get(0, R_APR), 0x5a);
    irq_lapic_set_tpr(t->m.irq, 0, 4);
    assert_int_equal(get(0, R_TPR), 0x40);
    assert_int_equal(take(0), 0x5f);
}

static void a_disabled_apic_takes_no_interrupts(void **state)
{
    send(1, 0x40);
    assert_int_equal(take(1), -1);
    enable(1);
    set(1, R_TIMER, 0x50);
    send(1, 0x40);
    set(1, R_SVR, 0xff);
    assert_int_equal(get(1, R_TIMER), 0x50 | MASKED);
    send(1, 0x60);
    assert_int_equal(take(1), 0x40); /* what was accepted before is still handled */
    eoi(1);
    assert_int_equal(take(1), -1);
    msi_send(t->m.irq, LAPIC_BASE | 1 << 12, NMI);
    assert_int_equal(t->nmis[1], 1);
}

/* ---- IPIs ----------------------------------------------------------------------------------- */

static void ipis_reach_whom_they_name(void **state)
{
    for (unsigned i = 0; i < 4; i++)
        enable(i);
    ipi(0, 2, 0x61);
    assert_int_equal(take(2), 0x61);
    assert_int_equal(take(1), -1);
    ipi(0, 9, 0x61); /* nobody */
    ipi(1, 0, 0x62 | SELF);
    assert_int_equal(take(1), 0x62);
    assert_int_equal(t->wakes[1], 0); /* it is awake: it sent the thing */
    ipi(1, 0, 0x73 | OTHERS);
    assert_int_equal(take(1), -1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), i == 1 ? -1 : 0x73);
    ipi(3, 0, 0x84 | ALL);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), 0x84);
    ipi(3, 0xff, 0x95);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), 0x95);
    assert_int_equal(get(3, R_ICR), 0x95); /* delivery status: idle */
}

static void init_and_start_up(void **state)
{
    enable(1);
    set(1, R_LDR, 0x55000000);
    set(1, R_INITIAL, 1000);
    send(1, 0x41);
    ipi(0, 1, INIT | 1 << 15 | 1 << 14);
    assert_int_equal(t->inits[1], 1);
    assert_int_equal(get(1, R_SVR), 0xff); /* INIT resets the APIC ... */
    assert_int_equal(get(1, R_LDR), 0);
    assert_int_equal(get(1, R_INITIAL), 0);
    assert_int_equal(take(1), -1);
    assert_int_equal(test_clock_armed(t->m.clock), 0);
    assert_int_equal(get(1, R_ID), 1 << 24); /* ... but not its ID */
    ipi(0, 1, INIT | 1 << 15);               /* de-assert */
    assert_int_equal(t->inits[1], 1);
    ipi(0, 1, SIPI | 0x9a);
    assert_int_equal(t->sipis[1], 1);
    assert_int_equal(t->sipi_vector[1], 0x9a);
    ipi(0, 0, INIT | OTHERS);
    ipi(0, 0, SIPI | OTHERS | 7);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(t->inits[i], i == 0 ? 0 : i == 1 ? 2 : 1);
        assert_int_equal(t->sipis[i], i == 0 ? 0 : i == 1 ? 2 : 1);
    }
    ipi(0, 0, INIT | ALL); /* not allowed */
    assert_int_equal(t->inits[0], 0);
    ipi(0, 2, NMI);
    assert_int_equal(t->nmis[2], 1);
    ipi(0, 2, SMI);
}

static void logical_destinations(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        enable(i);
        set(i, R_LDR, 1u << (24 + i));
    }
    ipi(0, 0x0a, 0x61 | LOGICAL); /* flat: CPUs 1 and 3 */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), i & 1 ? 0x61 : -1);
    for (unsigned i = 0; i < 4; i++) {
        set(i, R_DFR, 0x0fffffff); /* cluster: 0 and 1 in cluster 2, 2 and 3 in cluster 5 */
        set(i, R_LDR, (i < 2 ? 0x20u : 0x50u) << 24 | 1u << (24 + (i & 1)));
    }
    ipi(0, 0x53, 0x72 | LOGICAL);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), i < 2 ? -1 : 0x72);
    ipi(0, 0xff, 0x83 | LOGICAL);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take(i), 0x83);
}

static void lowest_priority_takes_turns(void **state)
{
    unsigned got[4] = {0};

    for (unsigned i = 0; i < 4; i++) {
        enable(i);
        set(i, R_LDR, 1u << (24 + i));
    }
    set(3, R_TPR, 0x20);
    for (unsigned i = 0; i < 12; i++) {
        msi_send(t->m.irq, LAPIC_BASE | 0xf << 12 | 1 << 2, LOWEST | 0x99);
        for (unsigned k = 0; k < 4; k++)
            if (take(k) == 0x99) {
                got[k]++;
                eoi(k);
            }
    }
    assert_int_equal(got[0] + got[1] + got[2], 12);
    assert_int_equal(got[3], 0); /* busier than the others */
    assert_true(got[0] && got[1] && got[2]);
}

static void all_256_cpus_are_reached(void **state)
{
    for (unsigned i = 0; i < 256; i++) {
        enable(i);
        to_x2apic(i);
    }
    assert_true(wrmsr(7, X2 + 0x30, (uint64_t)0xffffffff << 32 | 0x41));
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(take(i), 0x41);
    assert_true(wrmsr(7, X2 + 0x30, OTHERS | 0x52));
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(take(i), i == 7 ? -1 : 0x52);
    send(255, 0x63); /* 0xff names CPU 255 here and is no broadcast */
    assert_int_equal(take(255), 0x63);
    assert_int_equal(take(254), -1);
    assert_true(wrmsr(0, X2 + 0x30, 255ull << 32 | 0x74));
    assert_int_equal(take(255), 0x74);
    assert_true(wrmsr(0, X2 + 0x30, 256ull << 32 | 0x85));
    msi_send(t->m.irq, LAPIC_BASE | 1 << 5 | 1 << 12, 0x85); /* destination 257 */
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(take(i), -1);
    /* Logical: cluster 15, members 1 and 4. */
    assert_true(wrmsr(0, X2 + 0x30, (uint64_t)(15 << 16 | 0x12) << 32 | LOGICAL | 0x96));
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(take(i), i == 241 || i == 244 ? 0x96 : -1);
}

/* ---- x2APIC --------------------------------------------------------------------------------- */

static void modes_change_as_allowed(void **state)
{
    uint64_t base = LAPIC_BASE | 1 << 8, v;

    assert_false(rdmsr(0, X2 + 2, &v)); /* not in xAPIC mode */
    assert_false(wrmsr(0, X2 + 8, 0));
    assert_false(wrmsr(0, MSR_BASE, base | 1 << 10)); /* EXTD without EN */
    assert_false(wrmsr(0, MSR_BASE, base | BASE_XAPIC | 1 << 9));
    assert_false(wrmsr(0, MSR_BASE, base | BASE_XAPIC | 1ull << 52));
    assert_true(wrmsr(0, MSR_BASE, base | BASE_X2APIC));
    assert_int_equal(msr(0, X2 + 2), 0);
    assert_false(irq_lapic_mmio(t->m.irq, 0, LAPIC_BASE, &v, 4, false));
    assert_false(wrmsr(0, MSR_BASE, base | BASE_XAPIC)); /* no way back ... */
    assert_true(wrmsr(0, X2 + 0xf, 0x1ff));
    assert_true(wrmsr(0, MSR_BASE, base)); /* ... but through off */
    assert_false(wrmsr(0, MSR_BASE, base | BASE_X2APIC));
    assert_true(wrmsr(0, MSR_BASE, base | BASE_XAPIC));
    assert_int_equal(get(0, R_SVR), 0xff);
    assert_int_equal(msr(0, MSR_BASE), base | BASE_XAPIC);
    assert_true(wrmsr(1, MSR_BASE, base | BASE_XAPIC)); /* who boots is not the guest's choice */
    assert_int_equal(msr(1, MSR_BASE), LAPIC_BASE | BASE_XAPIC);
    bool fault;
    assert_false(irq_lapic_rdmsr(t->m.irq, 0, 0x840, &v, &fault));
    assert_false(irq_lapic_wrmsr(t->m.irq, 0, 0x10, 0, &fault));
}

static void x2apic_registers(void **state)
{
    static const uint8_t read_only[] = {0x02, 0x03, 0x0a, 0x0d, 0x10, 0x18, 0x20, 0x39};
    static const uint8_t missing[] = {0x00, 0x01, 0x04, 0x09, 0x0c, 0x0e, 0x2f, 0x31, 0x3a, 0x3d};
    uint64_t v;

    to_x2apic(3);
    for (size_t i = 0; i < sizeof(read_only); i++) {
        assert_true(rdmsr(3, X2 + read_only[i], &v));
        assert_false(wrmsr(3, X2 + read_only[i], v));
    }
    for (size_t i = 0; i < sizeof(missing); i++) {
        assert_false(rdmsr(3, X2 + missing[i], &v));
        assert_false(wrmsr(3, X2 + missing[i], 0));
    }
    assert_int_equal(msr(3, X2 + 2), 3);
    assert_int_equal(msr(3, X2 + 0xd), 1 << 3);
    assert_false(rdmsr(3, X2 + 0x0b, &v)); /* write-only */
    assert_false(rdmsr(3, X2 + 0x3f, &v));
    /* Reserved bits fault and change nothing. */
    assert_false(wrmsr(3, X2 + 0x08, 0x100));
    assert_false(wrmsr(3, X2 + 0x0b, 1));
    assert_false(wrmsr(3, X2 + 0x28, 1));
    assert_false(wrmsr(3, X2 + 0x0f, 1 << 13));
    assert_false(wrmsr(3, X2 + 0x32, 1 << 19));
    assert_false(wrmsr(3, X2 + 0x38, 1ull << 32));
    assert_false(wrmsr(3, X2 + 0x3e, 4));
    assert_false(wrmsr(3, X2 + 0x3f, 0x100));
    assert_false(wrmsr(3, X2 + 0x30, 1 << 13));
    assert_int_equal(msr(3, X2 + 0x30), 0);
    assert_true(wrmsr(3, X2 + 0x0f, 0x1ff));
    assert_true(wrmsr(3, X2 + 0x3f, 0x77)); /* self IPI */
    assert_int_equal(take(3), 0x77);
    assert_true(wrmsr(3, X2 + 0x0b, 0));
    assert_int_equal(msr(3, X2 + 0x13), 0);
    assert_true(wrmsr(3, X2 + 0x30, 2ull << 32 | 0x55));
    assert_int_equal(msr(3, X2 + 0x30), 2ull << 32 | 0x55);
}

static void init_keeps_x2apic_mode(void **state)
{
    to_x2apic(1);
    ipi(0, 1, INIT);
    assert_int_equal(msr(1, X2 + 2), 1);
    assert_int_equal(msr(1, X2 + 0xf), 0xff);
}

/* ---- level interrupts through the I/O APIC -------------------------------------------------- */

static void level_interrupts_end_with_eoi(void **state)
{
    struct irq_line line;

    irq_line_init(&line, t->m.irq, 17);
    enable(1);
    test_ioapic_route(t, 17, 0x81 | 1 << 15 | 1ull << 56);
    irq_line_set(&line, true);
    assert_int_equal(get(1, R_TMR + 0x40), 1 << 1);
    assert_int_equal(take(1), 0x81);
    assert_int_equal(take(1), -1);
    eoi(1); /* still high: again */
    assert_int_equal(take(1), 0x81);
    irq_line_set(&line, false);
    eoi(1);
    assert_int_equal(take(1), -1);
    assert_int_equal(test_ioapic_read(t, 0x10 + 34) & 1 << 14, 0);
    send(1, 0x81); /* the same vector by an edge */
    assert_int_equal(get(1, R_TMR + 0x40), 0);
}

/* ---- LINT0 ---------------------------------------------------------------------------------- */

static void lint0_in_virtual_wire_mode(void **state)
{
    struct irq_line line;

    irq_line_init(&line, t->m.irq, 4);
    test_pic_setup(t);
    irq_line_set(&line, true);
    assert_int_equal(take(0), -1); /* LINT0 is masked after power-up */
    enable(0);
    set(0, R_LINT0, EXTINT);
    assert_true(irq_pending(t->m.irq, 0));
    assert_false(irq_pending(t->m.irq, 1));
    send(0, 0x91);
    assert_int_equal(take(0), 0x91); /* its own first */
    assert_int_equal(take(0), 0x34);
    test_out(t, 0x20, 0x20);
    assert_int_equal(take(0), -1);
    /* With the APIC off the PIC speaks to the CPU directly. */
    assert_true(wrmsr(0, MSR_BASE, LAPIC_BASE));
    irq_line_set(&line, false);
    irq_line_set(&line, true);
    assert_int_equal(take(0), 0x34);
}

static void lint0_as_fixed_interrupt_or_nmi(void **state)
{
    struct irq_line line;

    irq_line_init(&line, t->m.irq, 4);
    test_pic_setup(t);
    enable(0);
    set(0, R_LINT0, 0x66);
    irq_line_pulse(&line);
    assert_int_equal(take(0), 0x66);
    eoi(0);
    assert_int_equal(take(0), -1); /* the PIC's output is still high, but there was no new edge */
    set(0, R_LINT0, 0x66 | 1 << 15);
    assert_int_equal(get(0, R_LINT0), 0x66 | 1 << 15 | 1 << 14);
    assert_int_equal(take(0), 0x66);
    eoi(0);
    assert_int_equal(take(0), 0x66); /* level: until the output falls */
    test_out(t, 0x21, 0xff);
    eoi(0);
    assert_int_equal(take(0), -1);
    set(0, R_LINT0, NMI);
    test_out(t, 0x21, 0);
    assert_int_equal(t->nmis[0], 1);
}

/* ---- errors --------------------------------------------------------------------------------- */

static void errors_are_latched_and_told(void **state)
{
    enable(0);
    enable(1);
    set(0, R_ERROR, 0xfe);
    ipi(0, 1, 5); /* vectors below 16 are illegal */
    assert_int_equal(take(1), -1);
    assert_int_equal(take(0), 0xfe);
    eoi(0);
    assert_int_equal(get(0, R_ESR), 0);
    set(0, R_ESR, 0);
    assert_int_equal(get(0, R_ESR), 1 << 5);
    set(0, R_ESR, 0);
    assert_int_equal(get(0, R_ESR), 0);
    send(0, 3);
    assert_int_equal(take(0), 0xfe);
    eoi(0);
    get(0, 0x40); /* no such register */
    set(0, R_ESR, 0);
    assert_int_equal(get(0, R_ESR), 1 << 6 | 1 << 7);
    set(0, R_ERROR, 3); /* an error entry that is an error itself */
    send(0, 4);
    assert_int_equal(take(0), 0xfe);
    set(0, R_ESR, 0);
    assert_int_equal(get(0, R_ESR), 1 << 6);
}

/* ---- timer ---------------------------------------------------------------------------------- */

static void one_shot(void **state)
{
    enable(1);
    set(1, R_TIMER, 0x31);
    set(1, R_DIVIDE, 0x3); /* by 16 */
    set(1, R_INITIAL, 100000);
    test_clock_advance(t->m.clock, MS);
    test_clock_fire_early(t->m.clock);
    assert_int_equal(get(1, R_CURRENT), 100000 - MS / 16);
    assert_int_equal(take(1), -1);
    assert_int_equal(test_clock_advance(t->m.clock, MS), 1);
    assert_int_equal(t->wakes[1], 1);
    assert_int_equal(take(1), 0x31);
    eoi(1);
    assert_int_equal(get(1, R_CURRENT), 0);
    assert_int_equal(test_clock_advance(t->m.clock, 1000ll * MS), 0);
    set(1, R_INITIAL, 5000);
    set(1, R_INITIAL, 0);
    assert_int_equal(test_clock_armed(t->m.clock), 0);
    set(1, R_INITIAL, 0xffffffff);
    set(1, R_DIVIDE, 0xa); /* by 128: the longest there is */
    assert_int_equal(get(1, R_CURRENT), 0xffffffff);
    assert_int_equal(test_clock_advance(t->m.clock, 0xffffffffll * 128 - 1), 0);
    assert_int_equal(test_clock_advance(t->m.clock, 1), 1);
}

static void periodic(void **state)
{
    enable(0);
    set(0, R_TIMER, 0x40 | PERIODIC);
    set(0, R_DIVIDE, 0xb); /* by 1 */
    set(0, R_INITIAL, MS);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(test_clock_advance(t->m.clock, MS), 1);
        assert_int_equal(take(0), 0x40);
        eoi(0);
    }
    test_clock_advance(t->m.clock, MS / 4);
    assert_int_equal(get(0, R_CURRENT), MS - MS / 4);
    assert_int_equal(test_clock_stall(t->m.clock, 10 * MS),
                     1); /* what was missed is not made up for */
    assert_int_equal(test_clock_advance(t->m.clock, MS / 4 * 3), 1);
    set(0, R_TIMER, 0x40 | PERIODIC | MASKED);
    take(0);
    eoi(0);
    test_clock_advance(t->m.clock, 3 * MS);
    assert_int_equal(take(0), -1);
    /* A period of one nanosecond does not run the monitor's clock hot. */
    set(0, R_INITIAL, 1);
    assert_in_range(test_clock_advance(t->m.clock, 10 * MS), 1, 1000);
}

static void tsc_deadline(void **state)
{
    enable(0);
    irq_lapic_set_tsc(t->m.irq, 1000000, 1ull << 40);
    assert_true(wrmsr(0, MSR_DEADLINE, 1));
    assert_int_equal(msr(0, MSR_DEADLINE), 0); /* ignored in another mode */
    set(0, R_TIMER, 0x50 | TSC_DEADLINE);
    set(0, R_INITIAL, 1000); /* and the other way round */
    assert_int_equal(test_clock_armed(t->m.clock), 0);
    assert_true(wrmsr(0, MSR_DEADLINE, ~0ull));
    assert_int_equal(msr(0, MSR_DEADLINE), ~0ull);
    assert_int_equal(test_clock_armed(t->m.clock), 1);
    assert_int_equal(test_clock_advance(t->m.clock, 3600ll * 1000 * MS), 0);
    assert_true(wrmsr(0, MSR_DEADLINE, __rdtsc())); /* far behind the guest's own TSC */
    test_clock_advance(t->m.clock, 1);
    assert_int_equal(take(0), 0x50);
    assert_int_equal(msr(0, MSR_DEADLINE), 0);
    /* Early by the clock, but the TSC is not there yet: it waits on. */
    assert_true(wrmsr(0, MSR_DEADLINE, (1ull << 40) + __rdtsc() + (1ull << 39)));
    test_clock_advance(t->m.clock, 1ll << 39);
    eoi(0);
    assert_int_equal(take(0), -1);
    assert_true(msr(0, MSR_DEADLINE) != 0);
    irq_lapic_set_tsc(t->m.irq, 1000000, 1ull << 41); /* the TSC jumps past it */
    test_clock_advance(t->m.clock, MS);
    assert_int_equal(take(0), 0x50);
    assert_true(wrmsr(0, MSR_DEADLINE, ~0ull));
    assert_true(wrmsr(0, MSR_DEADLINE, 0));
    assert_int_equal(test_clock_armed(t->m.clock), 0);
    assert_true(wrmsr(0, MSR_DEADLINE, ~0ull));
    set(0, R_TIMER, 0x50); /* leaving the mode disarms */
    assert_int_equal(test_clock_armed(t->m.clock), 0);
}

/* ---- state ---------------------------------------------------------------------------------- */

static void state_moves_to_another_machine(void **state)
{
    struct lapic_registers r;
    struct test_machine *other = test_machine_new(4, true);
    uint64_t base;

    enable(2);
    set(2, R_TPR, 0x20);
    set(2, R_TIMER, 0x40 | PERIODIC);
    set(2, R_DIVIDE, 0xb);
    set(2, R_INITIAL, 4 * MS);
    send(2, 0x61);
    assert_int_equal(take(2), 0x61);
    send(2, 0x33);
    test_clock_advance(t->m.clock, MS);
    lapic_get(irq_fabric_lapics(t->m.irq), 2, &r, &base);
    assert_int_equal(lapic_put(irq_fabric_lapics(other->m.irq), 2, &r, 0x400), -EINVAL);
    assert_int_equal(lapic_put(irq_fabric_lapics(other->m.irq), 2, &r, base), 0);
    test_machine_free(t);
    t = other;
    assert_int_equal(take(2), -1);
    eoi(2);
    assert_int_equal(take(2), 0x33);
    assert_int_equal(get(2, R_CURRENT), 3 * MS);
    assert_int_equal(test_clock_advance(t->m.clock, 3 * MS - 1), 0);
    assert_int_equal(test_clock_advance(t->m.clock, 1), 1);
    assert_int_equal(test_clock_advance(t->m.clock, 4 * MS), 1);
    memset(&r, 0xff, sizeof(r)); /* nonsense does no harm */
    assert_int_equal(lapic_put(irq_fabric_lapics(t->m.irq), 1, &r, base), 0);
    assert_int_equal(get(1, R_SVR), 0x3ff);
    test_clock_advance(t->m.clock, MS);
}

static void a_machine_reset_resets_all(void **state)
{
    enable(1);
    send(1, 0x44);
    to_x2apic(1);
    irq_fabric_reset(t->m.irq);
    assert_int_equal(take(1), -1);
    assert_int_equal(msr(1, MSR_BASE), LAPIC_BASE | BASE_XAPIC);
    assert_int_equal(get(1, R_SVR), 0xff);
}

/* ---- threads -------------------------------------------------------------------------------- */

enum { ROUNDS = 3000 };

static void *other_cpu(void *arg)
{
    unsigned cpu = (unsigned)(uintptr_t)arg;

    for (int i = 0; i < ROUNDS; i++) {
        ipi(cpu, 0, 0x50 | OTHERS);
        ipi(cpu, (cpu + 1) % 4, 0x60);
        if (take(cpu) > 0)
            eoi(cpu);
    }
    return NULL;
}

static void cpus_may_all_send_at_once(void **state)
{
    pthread_t thread[4];

    for (unsigned i = 0; i < 4; i++)
        enable(i);
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, other_cpu, (void *)i), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < 4; i++) {
        while (take(i) >= 0)
            eoi(i);
        assert_true(__atomic_load_n(&t->wakes[i], __ATOMIC_RELAXED) > 0);
        assert_int_equal(get(i, R_PPR), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(power_up_values),
        TEST(odd_accesses_do_no_harm),
        TEST(priorities_decide),
        TEST(task_priority_holds_back),
        TEST(a_disabled_apic_takes_no_interrupts),
        TEST(ipis_reach_whom_they_name),
        TEST(init_and_start_up),
        TEST(logical_destinations),
        TEST(lowest_priority_takes_turns),
        cmocka_unit_test_setup_teardown(all_256_cpus_are_reached, setup_many, teardown),
        TEST(modes_change_as_allowed),
        TEST(x2apic_registers),
        TEST(init_keeps_x2apic_mode),
        TEST(level_interrupts_end_with_eoi),
        TEST(lint0_in_virtual_wire_mode),
        TEST(lint0_as_fixed_interrupt_or_nmi),
        TEST(errors_are_latched_and_told),
        TEST(one_shot),
        TEST(periodic),
        TEST(tsc_deadline),
        TEST(state_moves_to_another_machine),
        TEST(a_machine_reset_resets_all),
        TEST(cpus_may_all_send_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

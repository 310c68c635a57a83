/* apic.c - priorities of the local APIC, IPIs of a CPU to itself, NMI (SDM vol 3 §10.8, §6.7.1; APM
 * vol 2 §8.2.3, chapter 16). */
#include "cpu.h"
#include "tests64.h"

enum { LOW = 0x50, HIGH = 0x90 };

CODE(apic_window, "sti; nop; nop; cli; ret");

static bool in_service(unsigned vector)
{
    return apic_read(APIC_ISR + vector / 32) >> vector % 32 & 1;
}

/* ---- priorities of the local APIC
 * ------------------------------------------------------------------ */

static void cr8_masks(void)
{
    struct trap t;

    write_cr8(LOW >> 4); /* the same class is masked, too */
    apic_make_pending(LOW);
    check("TPR", LOW & 0xf0, apic_read(APIC_TPR));
    t = probe(apic_window, 0, 0);
    check_no_trap(&t);
    write_cr8((LOW >> 4) - 1);
    t = probe(apic_window, 0, 0);
    check_interrupt_at(&t, LOW, apic_window, 2);
    write_cr8(0);
    apic_write(APIC_TPR, 0x30);
    check("CR8 follows the TPR", 3, read_cr8());
    apic_write(APIC_TPR, 0);
}

static void highest_first(void)
{
    struct trap t;

    apic_make_pending(LOW);
    apic_make_pending(HIGH);
    t = probe(apic_window, 0, 0);
    check("first", HIGH, t.vector);
    check_true("in service", in_service(HIGH));
    check("PPR", HIGH & 0xf0, apic_read(APIC_PPR) & 0xf0);
    t = probe(apic_window, 0, 0); /* the lower one waits for the EOI */
    check_no_trap(&t);
    check_true("the lower is still pending", apic_is_pending(LOW));
    apic_eoi();
    t = probe(apic_window, 0, 0);
    check("second", LOW, t.vector);
    apic_make_pending(HIGH); /* a higher one interrupts the service of a lower */
    t = probe(apic_window, 0, 0);
    check("nested", HIGH, t.vector);
    apic_eoi();
    check_true("the lower is in service again", in_service(LOW));
    apic_eoi();
    check_true("nothing is in service", !in_service(LOW) && !in_service(HIGH));
}

static void icr_self(void)
{
    struct trap t;

    interrupts_off();
    apic_write(APIC_ICR, 1 << 18 | IPI_ASSERT | LOW);
    t = probe(apic_window, 0, 0);
    check_interrupt_at(&t, LOW, apic_window, 2);
    apic_ipi(apic_id(cpu_number()), IPI_FIXED | IPI_ASSERT | HIGH);
    t = probe(apic_window, 0, 0);
    check_interrupt_at(&t, HIGH, apic_window, 2);
}

/* ---- NMI (§6.7.1)
 * ---------------------------------------------------------------------------------- */

static volatile unsigned nmi_count, nmi_depth, nmi_nested, nmi_inner;

static void nmi_self(void)
{
    apic_ipi(apic_id(cpu_number()), IPI_NMI | IPI_ASSERT);
}

static bool nmi_waits(unsigned count)
{
    const uint64_t start = rdtsc();

    while (nmi_count < count && rdtsc() - start < 20000000000ull)
        asm volatile("pause");
    return nmi_count >= count;
}

static bool on_nmi(struct trap *t)
{
    nmi_nested += nmi_depth != 0;
    nmi_depth = 1;
    if (nmi_count++ == 0) {
        nmi_self(); /* waits until this one has ended */
        for (unsigned i = 0; i < 1000; i++)
            asm volatile("pause");
        nmi_inner = nmi_count;
    }
    nmi_depth = 0;
    return true;
}

static void nmi_clear(void)
{
    nmi_count = nmi_depth = nmi_nested = nmi_inner = 0;
}

static void nmi_blocks(void)
{
    nmi_clear();
    interrupts_off(); /* IF does not hold it back */
    trap_handle(VECTOR_NMI, on_nmi);
    nmi_self();
    check_true("both came", nmi_waits(2));
    check("the second came while the first ran", 1, nmi_inner);
    check("nested", 0, nmi_nested);
    check("count", 2, nmi_count);
}

static bool on_breakpoint(struct trap *t)
{
    return true;
}

static bool on_nmi_with_iret(struct trap *t)
{
    if (nmi_count++ == 0) {
        struct gate g = gate_usual(VECTOR_NMI);

        g.ist = 0; /* the second comes on this one's stack */
        gate_set(VECTOR_NMI, g);
        nmi_self();
        for (unsigned i = 0; i < 1000; i++)
            asm volatile("pause");
        nmi_inner = nmi_count;
        asm volatile("int3"); /* its IRET ends the blocking */
        nmi_nested = nmi_waits(2);
    }
    return true;
}

static void nmi_and_iret_of_exception(void)
{
    nmi_clear();
    trap_handle(VECTOR_NMI, on_nmi_with_iret);
    trap_handle(VECTOR_BP, on_breakpoint);
    nmi_self();
    check_true("the first came", nmi_waits(1));
    check("none before the IRET", 1, nmi_inner);
    check_true("one after it", nmi_nested);
}

/* The other CPU sends until it is told that one came. */
static void nmi_sender(void *argument)
{
    const volatile uint32_t *stop = argument;
    const uint64_t start = rdtsc();

    while (!*stop && rdtsc() - start < 60000000000ull) {
        apic_ipi(apic_id(0), IPI_NMI | IPI_ASSERT);
        for (unsigned i = 0; i < 1000 && !*stop; i++)
            asm volatile("pause");
    }
}

static bool on_nmi_only(struct trap *t)
{
    nmi_count++;
    return true;
}

static void nmi_wakes_hlt(void)
{
    static volatile uint32_t stop;
    struct trap t;

    CODE(hlt_without_if, "hlt; mov $7, %eax; ret");
    if (cpus_started() < 2) {
        skip("needs two CPUs");
        return;
    }
    nmi_clear();
    trap_handle(VECTOR_NMI, on_nmi_only);
    stop = 0;
    cpu_call(1, nmi_sender, (void *)&stop);
    t = probe(hlt_without_if, 0, 0);
    stop = 1;
    cpu_wait(1);
    check_no_trap(&t);
    check("behind HLT", 7, t.rax);
    check_true("an NMI came", nmi_count > 0);
}

static const struct test tests[] = {
    {"APIC: CR8 masks", cr8_masks},
    {"APIC: the highest first", highest_first},
    {"APIC: IPI to itself", icr_self},
    {"NMI: blocked until IRET", nmi_blocks},
    {"NMI: an exception's IRET ends the blocking", nmi_and_iret_of_exception},
    {"NMI: wakes HLT", nmi_wakes_hlt},
};

void apic_tests(void)
{
    TESTS(tests);
}

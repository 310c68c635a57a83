/*
 * interrupt.c - when interrupts come, in which order, on which stack; NMI; the local APIC's part
 * (SDM vol 3 chapter 6, §6.7, §6.8, §10.8; APM vol 2 chapter 8).
 *
 * A probe that runs into an interrupt ends with it: RIP says where it came.
 */
#include "cpu.h"
#include "tests64.h"

enum { LOW = 0x50, HIGH = 0x90 };

static bool irr(unsigned vector)
{
    return apic_read(APIC_IRR + vector / 32) >> vector % 32 & 1;
}

static bool in_service(unsigned vector)
{
    return apic_read(APIC_ISR + vector / 32) >> vector % 32 & 1;
}

/* An interrupt waits for IF. */
static void make_pending(unsigned vector)
{
    interrupts_off();
    apic_write(APIC_SELF_IPI, vector);
    for (unsigned i = 0; i < 1000 && !irr(vector); i++)
        ;
    check_true("the interrupt is pending", irr(vector));
}

static void expect_at(const struct trap *t, unsigned vector, const char *place, uint64_t offset)
{
    check("vector", vector, t->vector);
    check("rip, from the start of the code", offset, t->rip - (uint64_t)place);
    if (t->vector == vector)
        apic_eoi();
}

/* ---- windows
 * ------------------------------------------------------------------------------------- */

CODE(window_sti, "sti; nop; nop; cli; ret");
CODE(window_sti_cli, "sti; cli; mov $7, %eax; ret");
CODE(window_popf, "pushfq; orl $0x200, (%rsp); popfq; nop; cli; ret");
CODE(window_iret, "mov %rsp, %rdx; mov %ss, %eax; push %rax; push %rdx; pushfq; orl $0x200, (%rsp);"
                  "push $8; lea 1f(%rip), %rcx; push %rcx; iretq; 1: nop; cli; ret");
CODE(window_sti_hlt, "sti; hlt; cli; mov $7, %eax; ret");

static void after_sti(void)
{
    struct trap t;

    make_pending(LOW);
    t = probe(window_sti, 0, 0);
    expect_at(&t, LOW, window_sti, 2); /* behind the instruction that follows STI */
}

static void sti_cli(void)
{
    struct trap t;

    make_pending(LOW);
    for (unsigned i = 0; i < 100; i++) {
        t = probe(window_sti_cli, 0, 0);
        check_no_trap(&t);
    }
    check_true("still pending", irr(LOW));
    t = probe(window_sti, 0, 0);
    expect_at(&t, LOW, window_sti, 2);
}

static void after_popf(void)
{
    struct trap t;

    make_pending(LOW);
    t = probe(window_popf, 0, 0);
    expect_at(&t, LOW, window_popf, 9); /* at once: POPF has no shadow */
}

static void after_iret(void)
{
    struct trap t;

    make_pending(LOW);
    t = probe(window_iret, 0, 0);
    check("vector", LOW, t.vector);
    check("the code at rip: NOP, CLI", 0xfa90, *(uint16_t *)t.rip);
    apic_eoi();
}

static void hlt_wakes(void)
{
    struct trap t;

    make_pending(LOW);
    t = probe(window_sti_hlt, 0, 0);
    expect_at(&t, LOW, window_sti_hlt,
              2); /* STI's shadow covers HLT: it is done when the interrupt comes */
}

/* ---- gates, stacks
 * ------------------------------------------------------------------------------- */

static uint64_t flags_in_handler;

static bool keep_flags(struct trap *t)
{
    flags_in_handler = read_flags();
    return true;
}

static void gate_types(void)
{
    struct gate g = gate_usual(VECTOR_BP);
    struct trap t;

    CODE(gate_int3, "sti; int3; cli; ret");
    trap_handle(VECTOR_BP, keep_flags);
    t = probe(gate_int3, 0, 0);
    check_no_trap(&t);
    check("IF behind an interrupt gate", 0, flags_in_handler & FLAG_IF);
    g.type = GATE_TRAP;
    gate_set(VECTOR_BP, g);
    t = probe(gate_int3, 0, 0);
    check("IF behind a trap gate", FLAG_IF, flags_in_handler & FLAG_IF);
}

CODE(gate_nop_int, "nop; int $0x70; ret");

static void stack_alignment(void)
{
    struct gate g = gate_usual(0x70);
    struct trap t;

    CODE(odd_stack, "lea -3(%rsp), %rsp; int $0x70; lea 3(%rsp), %rsp; ret");
    g.ist = 0;
    gate_set(0x70, g);
    t = probe(odd_stack, 0, 0);
    check("vector", 0x70, t.vector);
    check("the frame's end is at a multiple of 16", (t.rsp & ~15ull), t.frame + 48);
    check("ss", SEL_DATA, t.ss);
    check("cs", SEL_CODE, t.cs);
    check("rip behind INT", (uint64_t)odd_stack + 7, t.rip);
}

static void ist_stacks(void)
{
    for (unsigned ist = 0; ist <= 3; ist++) {
        struct gate g = gate_usual(0x70);
        struct trap t;

        g.ist = (uint8_t)ist;
        gate_set(0x70, g);
        t = probe(gate_nop_int, 0, 0);
        check("vector", 0x70, t.vector);
        check("the frame's end", ist ? ist_top(ist) : t.rsp & ~15ull, t.frame + 48);
        check("the interrupted stack segment", SEL_DATA, t.ss);
    }
    cpu_tss()->ist[3] = ist_top(2) - 0x108 - 5; /* stack 4, not aligned */
    {
        struct gate g = gate_usual(0x70);
        struct trap t;

        g.ist = 4;
        gate_set(0x70, g);
        t = probe(gate_nop_int, 0, 0);
        check("aligned down", ist_top(2) - 0x110, t.frame + 48);
    }
}

static void from_ring_3(void)
{
    struct gate g = gate_usual(0x70);
    struct trap t;
    struct probe p;

    CODE(user_int, "int $0x70");
    g.ist = 0;
    g.dpl = 3;
    gate_set(0x70, g);
    p = probe_user_setup(user_int, 0, 0);
    p.rsp -= 3;
    t = probe_run(&p);
    check("vector", 0x70, t.vector);
    check("the frame's end: RSP0", cpu_tss()->rsp[0], t.frame + 48);
    check("ss", SEL_USER_DATA, t.ss);
    check("rsp", p.rsp, t.rsp);
    check("cs", SEL_USER, t.cs);
    g.ist = 1;
    gate_set(0x70, g);
    t = probe_run(&p);
    check("the frame's end: stack 1", ist_top(1), t.frame + 48);
}

static void interrupt_of_ring_3(void)
{
    struct probe p;
    struct trap t;

    CODE(user_spin, "1: pause; jmp 1b");
    make_pending(LOW);
    p = probe_user_setup(user_spin, 0, 0);
    p.rflags |= FLAG_IF;
    t = probe_run(&p);
    check("vector", LOW, t.vector);
    check("cs", SEL_USER, t.cs);
    check("rip: before the first instruction", user_address(user_spin), t.rip);
    apic_eoi();
}

/* ---- gates that refuse (§6.13, figure 6-7: the error code)
 * ---------------------------------------- */

enum { CODE_IDT = 2, CODE_EXT = 1 };

static void refused_by_gate(void)
{
    struct gate g = gate_usual(0x70);
    struct trap t;
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idt;

    CODE(user_int_70, "int $0x70");
    CODE(int_70, "int $0x70; ret");
    if (skip_on_tcg("QEMU's TCG tells 16 times the vector"))
        return;
    t = probe_user(user_int_70, 0, 0); /* DPL 0 */
    check_trap_at(&t, VECTOR_GP, 0x70 * 8 + CODE_IDT, user_int_70);
    g.absent = true;
    gate_set(0x70, g);
    t = probe(int_70, 0, 0);
    check_trap_at(&t, VECTOR_NP, 0x70 * 8 + CODE_IDT, int_70);
    t = probe_user(user_int_70, 0, 0); /* the privilege counts first */
    check_trap(&t, VECTOR_GP, 0x70 * 8 + CODE_IDT);
    g = gate_usual(0x70);
    g.type = 5; /* a task gate: none in 64-bit mode */
    gate_set(0x70, g);
    t = probe(int_70, 0, 0);
    check_trap(&t, VECTOR_GP, 0x70 * 8 + CODE_IDT);
    g = gate_usual(0x70);
    g.selector = SEL_DATA;
    gate_set(0x70, g);
    t = probe(int_70, 0, 0);
    check_trap(&t, VECTOR_GP, SEL_DATA);
    g.selector = 0;
    gate_set(0x70, g);
    t = probe(int_70, 0, 0);
    check_trap(&t, VECTOR_GP, 0);
    g.selector = SEL_CODE32; /* not 64-bit code */
    gate_set(0x70, g);
    t = probe(int_70, 0, 0);
    check_trap(&t, VECTOR_GP, SEL_CODE32);
    asm volatile("sidt %0" : "=m"(idt));
    idt.limit = 0x70 * 16 + 14; /* one byte short */
    asm volatile("lidt %0" : : "m"(idt));
    t = probe(int_70, 0, 0);
    check_trap(&t, VECTOR_GP, 0x70 * 8 + CODE_IDT);
}

/* ---- exceptions in exceptions (§6.15, table 6-5)
 * --------------------------------------------------- */

CODE(raise_ud, "ud2");
CODE(raise_gp, "mov $0x1000, %eax; mov %eax, %ss");
CODE(raise_de, "xor %ecx, %ecx; xor %edx, %edx; mov $1, %eax; div %ecx");
CODE(raise_pf, "mov (%rdi), %al");

static void gate_absent(unsigned vector)
{
    struct gate g = gate_usual(vector);

    g.absent = true;
    gate_set(vector, g);
}

/* A gate whose stack is not mapped. */
static void gate_without_stack(unsigned vector)
{
    struct gate g = gate_usual(vector);

    cpu_tss()->ist[5] = TEST_BASE + 0x1000;
    g.ist = 6;
    gate_set(vector, g);
}

static void benign_then_contributory(void)
{
    struct trap t;

    if (skip_on_tcg("QEMU's TCG tells 16 times the vector, without EXT"))
        return;
    gate_absent(VECTOR_UD);
    t = probe(raise_ud, 0, 0);
    check_trap_at(&t, VECTOR_NP, VECTOR_UD * 8 + CODE_IDT + CODE_EXT, raise_ud);
}

static void contributory_twice(void)
{
    struct trap t;

    gate_absent(VECTOR_GP);
    t = probe(raise_gp, 0, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("the frame's end: stack 3", ist_top(3), t.frame + 48);
    gate_absent(VECTOR_DE);
    t = probe(raise_de, 0, 0);
    check_trap(&t, VECTOR_DF, 0);
}

static void page_fault_twice(void)
{
    struct trap t;

    gate_without_stack(VECTOR_PF);
    t = probe(raise_pf, TEST_BASE + 0x5000, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("cr2: of the second", TEST_BASE + 0xff8, t.cr2);
}

static void page_fault_then_contributory(void)
{
    struct trap t;

    gate_absent(VECTOR_PF);
    t = probe(raise_pf, TEST_BASE + 0x5000, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("cr2", TEST_BASE + 0x5000, t.cr2);
}

static void contributory_then_page_fault(void)
{
    struct trap t;

    gate_without_stack(VECTOR_DE);
    t = probe(raise_de, 0, 0);
    check_page_fault(&t, PF_WRITE, TEST_BASE + 0xff8);
    check("rip", (uint64_t)raise_de + 9, t.rip);
}

static void stack_not_canonical(void)
{
    struct gate g = gate_usual(VECTOR_UD);
    struct trap t;

    if (skip_on_tcg("QEMU's TCG leaves EXT out"))
        return;
    cpu_tss()->ist[5] = 1ull << 62;
    g.ist = 6;
    gate_set(VECTOR_UD, g);
    t = probe(raise_ud, 0, 0);
    check_trap_at(&t, VECTOR_SS, CODE_EXT, raise_ud);
}

/* ---- priorities of the local APIC
 * ------------------------------------------------------------------ */

static void cr8_masks(void)
{
    struct trap t;

    write_cr8(LOW >> 4); /* the same class is masked, too */
    make_pending(LOW);
    check("TPR", LOW & 0xf0, apic_read(APIC_TPR));
    t = probe(window_sti, 0, 0);
    check_no_trap(&t);
    write_cr8((LOW >> 4) - 1);
    t = probe(window_sti, 0, 0);
    expect_at(&t, LOW, window_sti, 2);
    write_cr8(0);
    apic_write(APIC_TPR, 0x30);
    check("CR8 follows the TPR", 3, read_cr8());
    apic_write(APIC_TPR, 0);
}

static void highest_first(void)
{
    struct trap t;

    make_pending(LOW);
    make_pending(HIGH);
    t = probe(window_sti, 0, 0);
    check("first", HIGH, t.vector);
    check_true("in service", in_service(HIGH));
    check("PPR", HIGH & 0xf0, apic_read(APIC_PPR) & 0xf0);
    t = probe(window_sti, 0, 0); /* the lower one waits for the EOI */
    check_no_trap(&t);
    check_true("the lower is still pending", irr(LOW));
    apic_eoi();
    t = probe(window_sti, 0, 0);
    check("second", LOW, t.vector);
    make_pending(HIGH); /* a higher one interrupts the service of a lower */
    t = probe(window_sti, 0, 0);
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
    t = probe(window_sti, 0, 0);
    expect_at(&t, LOW, window_sti, 2);
    apic_ipi(apic_id(cpu_number()), IPI_FIXED | IPI_ASSERT | HIGH);
    t = probe(window_sti, 0, 0);
    expect_at(&t, HIGH, window_sti, 2);
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
    {"interrupt: behind the instruction after STI", after_sti},
    {"interrupt: none between STI and CLI", sti_cli},
    {"interrupt: right behind POPF", after_popf},
    {"interrupt: right behind IRET", after_iret},
    {"interrupt: STI and HLT", hlt_wakes},
    {"interrupt: trap and interrupt gates", gate_types},
    {"interrupt: the stack is aligned", stack_alignment},
    {"interrupt: interrupt stack table", ist_stacks},
    {"interrupt: from ring 3 by INT", from_ring_3},
    {"interrupt: ring 3 is interrupted", interrupt_of_ring_3},
    {"interrupt: gates that refuse", refused_by_gate},
    {"double fault: benign, then #NP", benign_then_contributory},
    {"double fault: contributory twice", contributory_twice},
    {"double fault: page fault twice", page_fault_twice},
    {"double fault: page fault, then #NP", page_fault_then_contributory},
    {"double fault: #DE, then page fault", contributory_then_page_fault},
    {"double fault: stack not canonical", stack_not_canonical},
    {"APIC: CR8 masks", cr8_masks},
    {"APIC: the highest first", highest_first},
    {"APIC: IPI to itself", icr_self},
    {"NMI: blocked until IRET", nmi_blocks},
    {"NMI: an exception's IRET ends the blocking", nmi_and_iret_of_exception},
    {"NMI: wakes HLT", nmi_wakes_hlt},
};

void interrupt_tests(void)
{
    TESTS(tests);
}

/*
 * interrupt.c - where interrupts come, through which gates, on which stacks (SDM vol 3 chapter 6,
 * §6.8; APM vol 2 chapter 8).
 *
 * A probe that runs into an interrupt ends with it: RIP says where it came.
 */
#include "cpu.h"
#include "tests64.h"

enum { LOW = 0x50 };

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

    apic_make_pending(LOW);
    t = probe(window_sti, 0, 0);
    check_interrupt_at(&t, LOW, window_sti, 2); /* behind the instruction that follows STI */
}

static void sti_cli(void)
{
    struct trap t;

    apic_make_pending(LOW);
    for (unsigned i = 0; i < 100; i++) {
        t = probe(window_sti_cli, 0, 0);
        check_no_trap(&t);
    }
    check_true("still pending", apic_is_pending(LOW));
    t = probe(window_sti, 0, 0);
    check_interrupt_at(&t, LOW, window_sti, 2);
}

static void after_popf(void)
{
    struct trap t;

    apic_make_pending(LOW);
    t = probe(window_popf, 0, 0);
    check_interrupt_at(&t, LOW, window_popf, 9); /* at once: POPF has no shadow */
}

static void after_iret(void)
{
    struct trap t;

    apic_make_pending(LOW);
    t = probe(window_iret, 0, 0);
    check("vector", LOW, t.vector);
    check("the code at rip: NOP, CLI", 0xfa90, *(uint16_t *)t.rip);
    apic_eoi();
}

static void hlt_wakes(void)
{
    struct trap t;

    apic_make_pending(LOW);
    t = probe(window_sti_hlt, 0, 0);
    check_interrupt_at(&t, LOW, window_sti_hlt,
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
    check("IF behind an interrupt gate", 0, flags_in_handler & RFLAGS_IF);
    g.type = GATE_TRAP;
    gate_set(VECTOR_BP, g);
    t = probe(gate_int3, 0, 0);
    check("IF behind a trap gate", RFLAGS_IF, flags_in_handler & RFLAGS_IF);
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
    apic_make_pending(LOW);
    p = probe_user_setup(user_spin, 0, 0);
    p.rflags |= RFLAGS_IF;
    t = probe_run(&p);
    check("vector", LOW, t.vector);
    check("cs", SEL_USER, t.cs);
    check("rip: before the first instruction", user_address(user_spin), t.rip);
    apic_eoi();
}

/* ---- gates that refuse (§6.13, figure 6-7: the error code)
 * ---------------------------------------- */

enum { CODE_IDT = 2 };

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
};

void interrupt_tests(void)
{
    TESTS(tests);
}

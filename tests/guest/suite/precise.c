/*
 * precise.c - a fault leaves everything as it was before the instruction: registers, flags, stack
 * pointer, counts of string instructions (SDM vol 3 §6.5, §6.6; vol 2 of each instruction). An
 * engine that keeps guest state elsewhere while it runs must bring it back at every instruction
 * that can fault.
 */
#include "cpu.h"
#include "tests64.h"

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va =
    TEST_BASE + 0x6789012000; /* one page is mapped, its neighbours are not */

static uint64_t page;

static void map_one(void)
{
    page = page_new();
    page_map(va, page, OPEN);
}

/* ---- registers and flags
 * ----------------------------------------------------------------------------- */

#define FILL_REGISTERS                                                                             \
    "mov %rdi, %rax; mov $0xb1, %ebx; mov $0xc1, %ecx; mov $0xd1, %edx; mov $0x51, %esi; mov "     \
    "$0xf1, %edi; mov $0xe1, %ebp;"                                                                \
    "mov $0x81, %r8d; mov $0x91, %r9d; mov $0x101, %r10d; mov $0x111, %r11d; mov $0x121, %r12d; "  \
    "mov $0x131, %r13d;"                                                                           \
    "mov $0x141, %r14d; mov $0x151, %r15d;"                                                        \
    "inc %rbx; inc %rcx; inc %rdx; inc %rsi; inc %rdi; inc %rbp; inc %r8; inc %r9; inc %r10; inc " \
    "%r11; inc %r12; inc %r13; inc %r14;"                                                          \
    "inc %r15;"

static void check_registers(const struct trap *t)
{
    check("rbx", 0xb2, t->rbx);
    check("rcx", 0xc2, t->rcx);
    check("rdx", 0xd2, t->rdx);
    check("rsi", 0x52, t->rsi);
    check("rdi", 0xf2, t->rdi);
    check("rbp", 0xe2, t->rbp);
    check("r8", 0x82, t->r8);
    check("r9", 0x92, t->r9);
    check("r10", 0x102, t->r10);
    check("r11", 0x112, t->r11);
    check("r12", 0x122, t->r12);
    check("r13", 0x132, t->r13);
    check("r14", 0x142, t->r14);
    check("r15", 0x152, t->r15);
}

static void registers(void)
{
    CODE(regs_load, FILL_REGISTERS "mov (%rax), %rbx");
    CODE(regs_store, FILL_REGISTERS "mov %rbx, (%rax)");
    CODE(regs_add, FILL_REGISTERS "add (%rax), %r10");
    CODE(regs_rmw, FILL_REGISTERS "xadd %r11, (%rax)");
    CODE(regs_locked, FILL_REGISTERS "lock xadd %r15, (%rax)");
    CODE(regs_sse, FILL_REGISTERS "movups (%rax), %xmm0");
    CODE(regs_x87, FILL_REGISTERS "fldl (%rax)");
    CODE(regs_ud, FILL_REGISTERS "ud2");
    CODE(regs_index, FILL_REGISTERS "mov (%rax,%r10,8), %r12");
    static const char *const all[] = {regs_load, regs_store, regs_add, regs_rmw,  regs_locked,
                                      regs_sse,  regs_x87,   regs_ud,  regs_index};

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct trap t = probe(all[i], va, 0);

        check_true("a fault", t.vector == VECTOR_PF || t.vector == VECTOR_UD);
        check("rax", va, t.rax);
        check_registers(&t);
    }
}

/* What the arithmetic before it left, is pushed. */
static void flags(void)
{
    enum { ARITHMETIC = 0x8d5 };
    struct trap t;

    CODE(flags_add, "mov $0x7fffffff, %eax; add $1, %eax; mov (%rdi), %rcx");
    CODE(flags_sub, "mov $1, %eax; sub $2, %eax; mov (%rdi), %rcx");
    CODE(flags_cmp, "cmp %eax, %eax; movzbl (%rdi), %ecx");
    CODE(flags_stc, "xor %eax, %eax; stc; mov %rax, (%rdi)");
    CODE(flags_inc, "stc; mov $-1, %eax; inc %eax; push (%rdi)");
    CODE(flags_adc, "cmp %eax, %eax; stc; adc (%rdi), %rax");
    t = probe(flags_add, va, 0);
    check("ADD: SF OF AF PF", 0x894, t.rflags & ARITHMETIC);
    t = probe(flags_sub, va, 0);
    check("SUB: CF SF AF PF", 0x95, t.rflags & ARITHMETIC);
    t = probe(flags_cmp, va, 0);
    check("CMP: ZF PF", 0x44, t.rflags & ARITHMETIC);
    t = probe(flags_stc, va, 0);
    check("STC: CF ZF PF", 0x45, t.rflags & (ARITHMETIC & ~0x10u)); /* AF is undefined after XOR */
    t = probe(flags_inc, va, 0);
    check("INC: CF stays; ZF AF PF", 0x55, t.rflags & ARITHMETIC);
    t = probe(flags_adc, va, 0);
    check("ADC that faults: CF ZF PF", 0x45, t.rflags & ARITHMETIC);
}

/* ---- stack instructions
 * --------------------------------------------------------------------------------- */

/* RSP starts at RDI; it must be what `rsp` says when the fault comes. */
static void check_stack(const char *what, const char *code, uint64_t rsp, uint64_t rip_offset,
                        uint64_t address)
{
    const struct trap t = probe(code, rsp, va + 8);

    check(what, VECTOR_PF, t.vector);
    check(what, rsp, t.rsp);
    check(what, address, t.cr2);
    check(what, (uint64_t)code + rip_offset, t.rip);
}

static void stack(void)
{
    CODE(stack_push, "mov %rdi, %rsp; push %rax");
    CODE(stack_push_memory, "mov %rdi, %rsp; push (%rsi)");
    CODE(stack_pop, "mov %rdi, %rsp; pop %rax");
    CODE(stack_pop_memory, "mov %rdi, %rsp; pop 0x1000(%rsi)");
    CODE(stack_call, "mov %rdi, %rsp; call stack_call");
    CODE(stack_call_indirect, "mov %rdi, %rsp; lea stack_call(%rip), %rax; call *%rax");
    CODE(stack_ret, "mov %rdi, %rsp; ret");
    CODE(stack_leave, "mov %rsp, %rbp; mov %rdi, %rsp; mov %rdi, %rbp; leave");
    CODE(stack_enter, "mov %rdi, %rsp; mov $5, %ebp; enter $16, $0");
    CODE(stack_pushf, "mov %rdi, %rsp; pushfq");
    CODE(stack_popf, "mov %rdi, %rsp; popfq");
    map_one();
    check_stack("PUSH", stack_push, va, 3, va - 8);
    check_stack("PUSH of memory", stack_push_memory, va, 3, va - 8);
    check_stack("POP", stack_pop, va + 4096, 3, va + 4096);
    check_stack("POP to memory: RSP comes back", stack_pop_memory, va, 3, va + 0x1008);
    check_stack("CALL", stack_call, va, 3, va - 8);
    check_stack("indirect CALL", stack_call_indirect, va, 10, va - 8);
    check_stack("RET", stack_ret, va + 4096, 3, va + 4096);
    check_stack("LEAVE", stack_leave, va + 4096, 9, va + 4096);
    check_stack("ENTER", stack_enter, va, 8, va - 8);
    check_stack("PUSHF", stack_pushf, va, 3, va - 8);
    check_stack("POPF", stack_popf, va + 4096, 3, va + 4096);
}

/* ---- string instructions
 * ---------------------------------------------------------------------------------- */

struct string_case {
    const char *name, *code;
    uint64_t rdi, rsi, rdi_after, rsi_after, rcx_after, address;
};

static void strings(void)
{
    CODE(rep_movsb_1000, "mov $1000, %ecx; rep movsb");
    CODE(rep_movsq_100, "mov $100, %ecx; rep movsq");
    CODE(rep_stosb_1000, "mov $1000, %ecx; xor %eax, %eax; rep stosb");
    CODE(rep_lodsd_100, "mov $100, %ecx; rep lodsl");
    CODE(rep_movsb_down, "mov $1000, %ecx; std; rep movsb");
    CODE(rep_scasb, "mov $1000, %ecx; mov $1, %eax; repne scasb");
    CODE(rep_cmpsb, "mov $1000, %ecx; repe cmpsb");
    const uint64_t end = va + 4096;
    const struct string_case cases[] = {
        {"REP MOVSB, destination", rep_movsb_1000, end - 300, va, end, va + 300, 700, end},
        {"REP MOVSB, source", rep_movsb_1000, va, end - 300, va + 300, end, 700, end},
        {"REP MOVSQ, over the border", rep_movsq_100, end - 84, va, end - 4, va + 80, 90, end},
        {"REP STOSB", rep_stosb_1000, end - 1, 0, end, 0, 999, end},
        {"REP LODSD", rep_lodsd_100, 0, end - 40, 0, end, 90, end},
        {"REP MOVSB downwards", rep_movsb_down, va + 99, va + 999, va - 1, va + 899, 900, va - 1},
        {"REPNE SCASB", rep_scasb, end - 10, 0, end, 0, 990, end},
        {"REPE CMPSB", rep_cmpsb, end - 20, va, end, va + 20, 980, end},
    };

    map_one();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct string_case *c = &cases[i];
        const struct trap t = probe(c->code, c->rdi, c->rsi);

        check(c->name, VECTOR_PF, t.vector);
        check(c->name, c->address, t.cr2);
        check(c->name, c->rcx_after, t.rcx);
        check(c->name, c->rdi_after, t.rdi);
        check(c->name, c->rsi_after, t.rsi);
    }
}

/* What was copied before the fault is there; nothing behind. */
static void string_memory(void)
{
    struct trap t;

    CODE(rep_stosq_64, "mov $64, %ecx; mov $0x5a, %eax; rep stosq");
    map_one();
    t = probe(rep_stosq_64, va + 4096 - 80, 0);
    check("rcx", 54, t.rcx);
    check("the word before", 0, *(volatile uint64_t *)(page + 4096 - 88));
    check("the first word", 0x5a, *(volatile uint64_t *)(page + 4096 - 80));
    check("the last word", 0x5a, *(volatile uint64_t *)(page + 4096 - 8));
}

/* ---- several operands
 * --------------------------------------------------------------------------------------- */

static void operands(void)
{
    struct trap t;

    CODE(xchg_fault, "mov $7, %eax; xchg %rax, (%rdi)");
    CODE(cmpxchg_fault, "mov $7, %eax; lock cmpxchg %rcx, (%rdi)");
    CODE(div_fault, "mov $100, %eax; xor %edx, %edx; divq (%rdi)");
    CODE(movs_fault, "movsq");
    CODE(cmov_fault,
         "cmp %eax, %eax; mov $7, %eax; cmovne (%rdi), %rax"); /* reads whatever the condition */
    CODE(bt_fault, "mov $0x8000, %eax; bt %rax, (%rdi)");      /* a bit 4 KiB further */
    map_one();
    t = probe(xchg_fault, va - 8, 0);
    if (!option("tcg")) /* QEMU's TCG reads before it writes where it has one CPU */
        check_page_fault(&t, PF_WRITE, va - 8);
    check("rax", 7, t.rax);
    t = probe(cmov_fault, va - 8, 0);
    check_page_fault(&t, 0, va - 8);
    t = probe(div_fault, va - 8, 0);
    check_page_fault(&t, 0, va - 8);
    check("rax", 100, t.rax);
    t = probe(bt_fault, va, 0);
    check_page_fault(&t, 0, va + 4096);
    t = probe(movs_fault, va + 4096, va);
    check("rsi", va, t.rsi);
    check("rdi", va + 4096, t.rdi);
    t = probe(cmpxchg_fault, va + 4096, 0);
    check("rax", 7, t.rax);
    check("vector", VECTOR_PF, t.vector);
}

static void divide_errors(void)
{
    struct trap t;

    CODE(div_zero, "xor %ecx, %ecx; mov $5, %eax; xor %edx, %edx; div %ecx");
    CODE(div_overflow, "mov $1, %ecx; mov $5, %eax; mov $1, %edx; div %ecx");
    CODE(idiv_overflow, "mov $-1, %rcx; mov $1, %eax; shl $63, %rax; cqo; idiv %rcx");
    CODE(div_byte, "mov $0x500, %eax; mov $5, %cl; div %cl");
    t = probe(div_zero, 0, 0);
    check_trap(&t, VECTOR_DE, 0);
    check("rip", (uint64_t)div_zero + 9, t.rip);
    check("rax", 5, t.rax);
    t = probe(div_overflow, 0, 0);
    check_trap(&t, VECTOR_DE, 0);
    check("rdx", 1, t.rdx);
    t = probe(idiv_overflow, 0, 0);
    check_trap(&t, VECTOR_DE, 0);
    check("rax", 1ull << 63, t.rax);
    t = probe(div_byte, 0, 0);
    check_trap(&t, VECTOR_DE, 0);
    check("rax", 0x500, t.rax);
}

/* ---- going on after a handler
 * --------------------------------------------------------------------------------- */

static unsigned faults;

static bool on_fault(struct trap *t)
{
    faults++;
    page_map(t->cr2 & ~4095ull, page_new(), OPEN);
    return true;
}

/* Pages come when they are touched, as an operating system does it. */
static void demand(void)
{
    struct trap t;

    CODE(touch, "mov %rdi, %rax; mov $64, %ecx; xor %edx, %edx; 1: add (%rax), %rdx; mov %rcx, "
                "(%rax); add (%rax), %rdx; add $4096, %rax;"
                "dec %ecx; jnz 1b; mov %rdx, %rax; ret");
    CODE(fill, "mov $100000, %ecx; mov $0x11, %eax; mov %rdi, %rdx; rep stosb; xor %eax, %eax; mov "
               "$100000, %ecx;"
               "1: movzbl (%rdx), %esi; add %rsi, %rax; inc %rdx; dec %ecx; jnz 1b; ret");
    faults = 0;
    trap_handle(VECTOR_PF, on_fault);
    t = probe(touch, va, 0);
    check_no_trap(&t);
    check("the sum", 64 * 65 / 2, t.rax);
    check("faults", 64, faults);
    faults = 0;
    t = probe(fill, va + 0x1000000, 0);
    check_no_trap(&t);
    check("the bytes", 0x11 * 100000, t.rax);
    check("faults of the string", 25, faults);
}

static const struct test tests[] = {
    {"precise: registers at a fault", registers},
    {"precise: flags at a fault", flags},
    {"precise: stack instructions", stack},
    {"precise: string instructions", strings},
    {"precise: what a string instruction wrote", string_memory},
    {"precise: operands", operands},
    {"precise: #DE", divide_errors},
    {"precise: pages on demand", demand},
};

void precise_tests(void)
{
    TESTS(tests);
}

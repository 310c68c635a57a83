/*
 * mode32.c - virtual-8086 mode and real mode (SDM vol 3 chapter 20; APM vol 2 chapter 10, §14), and
 * ports by the bitmap.
 *
 * 16-bit code is copied to LOW_CODE. Real mode is entered and left by real32.S; what happens there
 * is written down at LOW_DATA.
 */
#include "cpu32.h"
#include "tests32.h"

enum { V86_SEG = LOW_CODE >> 4, STACK_SEG = (LOW_STACK - 0x1000) >> 4 };

#define CODE16(name, text)                                                                         \
    extern const char name[], name##_end[];                                                        \
    asm(".pushsection .text.probe, \"ax\"\n.code16\n" #name ":\n" text "\n" #name                  \
        "_end:\n.code32\n.popsection")

/* ---- virtual-8086 mode
 * --------------------------------------------------------------------------------- */

static struct probe v86(const char *code, const char *end)
{
    memcpy((void *)LOW_CODE, code, (size_t)(end - code));
    return (struct probe){
        .code = 0,
        .cs = V86_SEG,
        .eflags = RFLAGS_FIXED | RFLAGS_VM | RFLAGS_IOPL,
        .esp = 0x1000,
        .ss = STACK_SEG,
        .es = LOW_DATA >> 4,
        .ds = LOW_DATA >> 4,
        .fs = 0x1234,
        .gs = 0x5678,
    };
}

static void v86_runs(void)
{
    struct probe p;
    struct trap t;

    CODE16(v86_code, "mov $0x4321, %ax; mov %ax, 4; mov %cs, %bx; mov $0xf000, %cx; mov %cx, %es; "
                     "mov %ss, %dx; int $0x80");
    p = v86(v86_code, v86_code_end);
    *(volatile uint16_t *)(LOW_DATA + 4) = 0;
    t = probe_run(&p);
    check_left(&t);
    check("a store by DS", 0x4321, *(volatile uint16_t *)(LOW_DATA + 4));
    check("cs", V86_SEG, t.ebx & 0xffff);
    check("ss", STACK_SEG, t.edx & 0xffff);
    check("VM as pushed", RFLAGS_VM, t.eflags & RFLAGS_VM);
    check("cs as pushed", V86_SEG, t.cs & 0xffff);
    check("es as pushed", 0xf000, t.v86_es & 0xffff);
    check("ds as pushed", LOW_DATA >> 4, t.v86_ds & 0xffff);
    check("fs as pushed", 0x1234, t.v86_fs & 0xffff);
    check("gs as pushed", 0x5678, t.v86_gs & 0xffff);
    check("ds in the handler", 0, t.ds & 0xffff);
    check("gs in the handler", 0, t.gs & 0xffff);
    check("the frame's end: ESP0", main_tss.esp0, t.frame + 4 + 9 * 4);
}

/* IOPL below 3: CLI, STI, PUSHF, POPF, INT n and IRET are the monitor's (§20.2.7). */
static void v86_sensitive(void)
{
    CODE16(v86_cli, "cli");
    CODE16(v86_sti, "sti");
    CODE16(v86_pushf, "pushf");
    CODE16(v86_popf, "popf");
    CODE16(v86_int, "int $0x80");
    CODE16(v86_iret, "iret");
    CODE16(v86_hlt, "hlt");
    CODE16(v86_mov_cr, "mov %cr0, %eax");
    static const char *const all[][2] = {
        {v86_cli, v86_cli_end},   {v86_sti, v86_sti_end},       {v86_pushf, v86_pushf_end},
        {v86_popf, v86_popf_end}, {v86_int, v86_int_end},       {v86_iret, v86_iret_end},
        {v86_hlt, v86_hlt_end},   {v86_mov_cr, v86_mov_cr_end},
    };

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct probe p = v86(all[i][0], all[i][1]);
        struct trap t;

        p.eflags &= ~(uint32_t)RFLAGS_IOPL;
        t = probe_run(&p);
        check_trap(&t, VECTOR_GP, 0);
        check("eip", 0, t.eip);
    }
}

static void v86_not_sensitive(void)
{
    struct probe p;
    struct trap t;

    CODE16(v86_int3, "int3");
    CODE16(v86_sldt, "sldt %ax");
    CODE16(v86_lar, "lar %ax, %ax");
    CODE16(v86_popf_if, "pushw $0x7202; popf; pushf; pop %ax; int $0x80");
    p = v86(v86_int3, v86_int3_end);
    p.eflags &= ~(uint32_t)RFLAGS_IOPL;
    t = probe_run(&p);
    check("INT3 goes to its gate", VECTOR_BP, t.vector);
    check("eip", 1, t.eip);
    p = v86(v86_sldt, v86_sldt_end);
    t = probe_run(&p);
    check("SLDT", VECTOR_UD, t.vector);
    p = v86(v86_lar, v86_lar_end);
    t = probe_run(&p);
    check("LAR", VECTOR_UD, t.vector);
    p = v86(v86_popf_if, v86_popf_if_end);
    t = probe_run(&p);
    check_left(&t);
    check("POPF changes IF but not IOPL", 0x7202, t.eax & 0xffff);
}

static void v86_limits(void)
{
    struct probe p;
    struct trap t;

    CODE16(v86_word_at_end, "mov 0xffff, %ax; int $0x80");
    CODE16(v86_word_before, "mov 0xfffe, %ax; int $0x80");
    CODE16(v86_stack_end, "mov $0xffff, %bp; mov (%bp), %ax");
    p = v86(v86_word_before, v86_word_before_end);
    t = probe_run(&p);
    check_left(&t);
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    p = v86(v86_word_at_end, v86_word_at_end_end);
    t = probe_run(&p);
    check_trap(&t, VECTOR_GP, 0);
    p = v86(v86_stack_end, v86_stack_end_end);
    t = probe_run(&p);
    check_trap(&t, VECTOR_SS, 0);
}

/* Ports go by the bitmap, whatever IOPL says (vol 1 §19.5.1). */
static void v86_ports(void)
{
    struct probe p;
    struct trap t;

    CODE16(v86_in, "in $0x80, %al; int $0x80");
    p = v86(v86_in, v86_in_end);
    t = probe_run(&p);
    check_trap(&t, VECTOR_GP, 0);
    memset(main_tss.io, 0xff, sizeof(main_tss.io));
    main_tss.io[0x80 / 8] = 0xfe;
    main_tss.io_map = TSS_SIZE;
    gdt_set(SEL_TSS, descriptor((uint32_t)&main_tss, sizeof(main_tss) - 1, DESC_P | DESC_TSS));
    asm volatile("ltr %0" : : "r"((uint16_t)SEL_TSS));
    t = probe_run(&p);
    check_left(&t);
}

/* A handler of another ring than 0 is refused: #GP with its selector. */
static void v86_to_outer_handler(void)
{
    struct probe p;
    struct trap t;

    CODE16(v86_int_71, "int $0x71");
    gate_set(0x71, 0x1000, SEL_USER & ~3, GATE_INTERRUPT, 3);
    p = v86(v86_int_71, v86_int_71_end);
    t = probe_run(&p);
    check("vector", VECTOR_GP, t.vector);
}

/* ---- real mode (real32.S)
 * -------------------------------------------------------------------------------- */

/* What is written down there: registers when the test returned, or the interrupt that ended it. */
struct real_notes {
    uint16_t vector, ip, cs, flags;
    uint16_t ax, bx, cx, dx;
};
void real_run(uint32_t test);
extern const char real_low[], real_low_end[];

enum { REAL_TEST = LOW_CODE + 0x800, NO_VECTOR = 0xffff };
enum { SEL_CODE16 = SEL_FREE, SEL_DATA16 = SEL_FREE + 8, SEL_BIG = SEL_FREE + 16 };

static struct real_notes real(const char *code, const char *end)
{
    memcpy((void *)LOW_CODE, real_low, (size_t)(real_low_end - real_low));
    memcpy((void *)REAL_TEST, code, (size_t)(end - code));
    gdt_set(SEL_CODE16, descriptor(0, 0xffff, DESC_P | DESC_CODE));
    gdt_set(SEL_DATA16, descriptor(0, 0xffff, DESC_P | DESC_DATA));
    gdt_set(SEL_BIG, descriptor(0, 0xfffff, DESC_P | DESC_DATA | DESC_32 | DESC_4K));
    real_run(REAL_TEST);
    return *(const volatile struct real_notes *)LOW_DATA;
}

static void real_segments(void)
{
    struct real_notes n;

    CODE16(real_es,
           "mov $0x2345, %ax; mov %ax, %es; mov %es:0x10, %bx; mov %cs, %cx; smsw %dx; ret");
    *(volatile uint16_t *)0x23460 = 0xcafe;
    n = real(real_es, real_es_end);
    check("no interrupt", NO_VECTOR, n.vector);
    check("es:0x10", 0xcafe, n.bx);
    check("cs", 0, n.cx);
    check("MSW.PE", 0, n.dx & 1);
}

static void real_above_1m(void)
{
    struct real_notes n;

    CODE16(real_ffff, "mov $0xffff, %ax; mov %ax, %es; mov %es:0x10, %bx; ret");
    n = real(real_ffff, real_ffff_end);
    check("no interrupt", NO_VECTOR, n.vector);
    check("0xffff:0x10 is 1 MiB", *(volatile uint16_t *)0x100000, n.bx); /* A20 is on */
}

static void real_interrupts(void)
{
    struct real_notes n;

    CODE16(real_int, "sti; stc; int $0x40; ret");
    CODE16(real_div, "cli; xor %cx, %cx; div %cx; ret");
    CODE16(real_ud, "ud2");
    CODE16(real_iret,
           "pushf; mov %sp, %bp; orw $0x8d5, (%bp); push %cs; call 1f; mov $7, %ax; ret; 1: iret");
    n = real(real_int, real_int_end);
    check("vector", 0x40, n.vector);
    check("ip behind INT", REAL_TEST + 4, n.ip);
    check("cs", 0, n.cs);
    check("flags as pushed", RFLAGS_IF | RFLAGS_CF | RFLAGS_FIXED,
          n.flags & (RFLAGS_IF | RFLAGS_CF | RFLAGS_FIXED));
    n = real(real_div, real_div_end);
    check("#DE", VECTOR_DE, n.vector);
    check("ip at DIV", REAL_TEST + 3, n.ip);
    n = real(real_ud, real_ud_end);
    check("#UD", VECTOR_UD, n.vector);
    n = real(real_iret, real_iret_end);
    check("no interrupt", NO_VECTOR, n.vector);
    check("IRET came back", 7, n.ax);
}

/* Only protected mode has these. */
static void real_undefined(void)
{
    CODE16(real_sldt, "sldt %ax; ret");
    CODE16(real_ltr, "ltr %ax; ret");
    CODE16(real_lar, "lar %ax, %ax; ret");
    CODE16(real_verr, "verr %ax; ret");
    CODE16(real_arpl, "arpl %ax, %ax; ret");
    static const char *const all[][2] = {
        {real_sldt, real_sldt_end}, {real_ltr, real_ltr_end},   {real_lar, real_lar_end},
        {real_verr, real_verr_end}, {real_arpl, real_arpl_end},
    };

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const struct real_notes n = real(all[i][0], all[i][1]);

        check("vector", VECTOR_UD, n.vector);
        check("ip", REAL_TEST, n.ip);
    }
}

static void real_limits(void)
{
    struct real_notes n;

    CODE16(real_word_end, "mov 0xffff, %ax; ret");
    CODE16(real_far_offset, "mov $0x10000, %ebx; mov (%ebx), %al; ret");
    CODE16(real_stack_end, "mov $0xffff, %bp; mov (%bp), %ax; ret");
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    n = real(real_word_end, real_word_end_end);
    check("a word at 0xffff", VECTOR_GP, n.vector);
    n = real(real_far_offset, real_far_offset_end);
    check("an offset of 32 bits", VECTOR_GP, n.vector);
    check("ip", REAL_TEST + 6, n.ip);
    n = real(real_stack_end, real_stack_end_end);
    check("a word at ss:0xffff", VECTOR_SS, n.vector);
}

/* Limits that protected mode loaded stay (known as big real mode). */
static void real_big(void)
{
    struct real_notes n;

    CODE16(real_fs, "mov $0x200000, %ebx; movw $0x4711, %fs:(%ebx); mov %fs:(%ebx), %ax; ret");
    *(volatile uint16_t *)0x200000 = 0;
    gdt_set(SEL_BIG, descriptor(0, 0xfffff, DESC_P | DESC_DATA | DESC_32 | DESC_4K));
    asm volatile("mov %0, %%fs" : : "r"(SEL_BIG));
    n = real(real_fs, real_fs_end);
    check("no interrupt", NO_VECTOR, n.vector);
    check("read back", 0x4711, n.ax);
    check("in memory", 0x4711, *(volatile uint16_t *)0x200000);
}

static void real_stack_wraps(void)
{
    struct real_notes n;

    CODE16(real_wrap, "mov %sp, %cx; xor %sp, %sp; mov $0x1357, %ax; push %ax; mov %sp, %bx; mov "
                      "%cx, %sp; mov 0xfffe, %dx; ret");
    n = real(real_wrap, real_wrap_end);
    check("no interrupt", NO_VECTOR, n.vector);
    check("sp", 0xfffe, n.bx);
    check("at 0xfffe", 0x1357, n.dx);
}

static const struct test tests[] = {
    {"virtual-8086: runs and leaves", v86_runs},
    {"virtual-8086: what IOPL guards", v86_sensitive},
    {"virtual-8086: what it does not", v86_not_sensitive},
    {"virtual-8086: limits", v86_limits},
    {"virtual-8086: ports", v86_ports},
    {"virtual-8086: a handler outside ring 0", v86_to_outer_handler},
    {"real mode: segments", real_segments},
    {"real mode: above 1 MiB", real_above_1m},
    {"real mode: interrupts", real_interrupts},
    {"real mode: undefined instructions", real_undefined},
    {"real mode: limits", real_limits},
    {"real mode: big segments", real_big},
    {"real mode: the stack wraps", real_stack_wraps},
};

void mode32_tests(void)
{
    TESTS(tests);
}

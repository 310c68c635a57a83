/*
 * segment32.c - segmentation in protected mode: limits, types, privilege, call gates, the LDT, far
 * transfers, SYSENTER (SDM vol 3 chapter 5; vol 2 of each instruction).
 */
#include "cpu32.h"
#include "tests32.h"

enum { FLAT = DESC_P | DESC_32 | DESC_4K, BYTES = DESC_P | DESC_32, FS_SEL = SEL_FREE };
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };

static uint8_t data[256] __attribute__((aligned(256)));

/* ---- limits
 * ---------------------------------------------------------------------------------------- */

CODE(fs_load_1, "mov %esi, %fs; 1: movb %fs:(%edi), %al; ret");
CODE(fs_load_4, "mov %esi, %fs; 1: movl %fs:(%edi), %eax; ret");
CODE(fs_store_1, "mov %esi, %fs; 1: movb $1, %fs:(%edi); ret");
enum { BEHIND_LOAD = 2 };

static void check_limit(const char *code, uint32_t offset, unsigned vector)
{
    const struct trap t = probe(code, offset, FS_SEL);

    check("vector", vector, t.vector);
    if (vector != NO_TRAP) {
        check("error code", 0, t.error);
        check("eip", (uint32_t)code + BEHIND_LOAD, t.eip);
    }
}

static void limits(void)
{
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    gdt_set(FS_SEL, descriptor((uint32_t)data, 15, BYTES | DESC_DATA));
    check_limit(fs_load_1, 15, NO_TRAP);
    check_limit(fs_load_1, 16, VECTOR_GP);
    check_limit(fs_load_4, 12, NO_TRAP);
    check_limit(fs_load_4, 13, VECTOR_GP);
    check_limit(fs_load_4, 0xffffffff, VECTOR_GP);
    check_limit(fs_store_1, 16, VECTOR_GP);
    gdt_set(FS_SEL, descriptor(0, 0xff, FLAT | DESC_DATA)); /* 1 MiB in pages */
    check_limit(fs_load_4, 0xffffc, NO_TRAP);
    check_limit(fs_load_4, 0xffffd, VECTOR_GP);
}

static void expand_down(void)
{
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    gdt_set(FS_SEL, descriptor((uint32_t)data - 0x1000, 0xfff,
                               BYTES | DESC_EXPAND_DOWN)); /* from 0x1000 to 4 GiB */
    check_limit(fs_load_1, 0x1000, NO_TRAP);
    check_limit(fs_load_1, 0xfff, VECTOR_GP);
    check_limit(fs_load_4, 0, VECTOR_GP);
    gdt_set(FS_SEL,
            descriptor((uint32_t)data - 0x1000, 0xfff, DESC_P | DESC_EXPAND_DOWN)); /* to 64 KiB */
    check_limit(fs_load_1, 0x1000, NO_TRAP);
    check_limit(fs_load_1, 0x10000, VECTOR_GP);
    check_limit(fs_load_4, 0xfffd, VECTOR_GP);
}

static void types(void)
{
    struct trap t;

    if (skip_on_tcg("QEMU's TCG checks no types on accesses"))
        return;
    gdt_set(FS_SEL, descriptor(0, 0xfffff, FLAT | DESC_READ_ONLY));
    t = probe(fs_store_1, (uint32_t)data, FS_SEL);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(fs_load_1, (uint32_t)data, FS_SEL);
    check_no_trap(&t);
    gdt_set(FS_SEL, descriptor(0, 0xfffff, FLAT | DESC_CODE)); /* readable code */
    t = probe(fs_load_1, (uint32_t)data, FS_SEL);
    check_no_trap(&t);
    t = probe(fs_store_1, (uint32_t)data, FS_SEL);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(fs_load_1, (uint32_t)data, 0); /* a null selector loads, its use faults */
    check_trap(&t, VECTOR_GP, 0);
    check("eip", (uint32_t)fs_load_1 + BEHIND_LOAD, t.eip);
}

static void base(void)
{
    struct trap t;

    gdt_set(FS_SEL, descriptor((uint32_t)data, 0xfffff, FLAT | DESC_DATA));
    data[5] = 0x77;
    t = probe(fs_load_1, 5, FS_SEL);
    check_no_trap(&t);
    check("with a base", 0x77, t.eax & 0xff);
    gdt_set(FS_SEL, descriptor((uint32_t)data + 0x1000, 0xfffff, FLAT | DESC_DATA));
    t = probe(fs_load_1, 5 - 0x1000, FS_SEL); /* linear addresses wrap at 4 GiB */
    check_no_trap(&t);
    check("wrapped", 0x77, t.eax & 0xff);
}

/* SS: its limit is #SS, from ring 3, so that the fault has a stack. */
static void stack_limit(void)
{
    struct probe p;
    struct trap t;

    CODE(user_push, "push %eax; int $0x80");
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    gdt_set(FS_SEL, descriptor((uint32_t)data, 63, BYTES | DESC_DATA | DESC_DPL3));
    p = probe_user_setup(user_push, 0, 0);
    p.ss = FS_SEL | 3;
    p.esp = 64;
    t = probe_run(&p);
    check_left(&t);
    check("esp", 60, t.esp);
    p.esp = 0;
    t = probe_run(&p);
    check_trap_at(&t, VECTOR_SS, 0, user_push);
    check("esp as it was", 0, t.esp);
    p.esp = 66;
    t = probe_run(&p);
    check_trap(&t, VECTOR_SS, 0);
}

static void stack_of_16_bits(void)
{
    struct probe p;
    struct trap t;

    CODE(user_push_16, "push %eax; int $0x80");
    gdt_set(FS_SEL, descriptor((uint32_t)data - 0xff00, 0xffff, DESC_P | DESC_DATA | DESC_DPL3));
    p = probe_user_setup(user_push_16, 0, 0);
    p.ss = FS_SEL | 3;
    p.esp = 0x1230000 + 0xff80; /* only SP counts */
    t = probe_run(&p);
    check_left(&t);
    check("sp", 0xff7c, t.esp & 0xffff); /* IRET leaves the upper half as ring 0 had it */
}

static void code_limit(void)
{
    struct probe p;
    struct trap t;

    CODE(limit_code, "nop; nop; jmp 1f; 1: nop; int $0x80");
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    gdt_set(FS_SEL, descriptor((uint32_t)limit_code, 4, BYTES | DESC_CODE | DESC_DPL3));
    p = probe_user_setup(limit_code, 0, 0);
    p.cs = FS_SEL | 3;
    p.code = 0;
    t = probe_run(&p); /* runs to the limit */
    check_trap(&t, VECTOR_GP, 0);
    check("eip: INT would lie behind the limit", 5, t.eip);
    p.code = 5;
    t = probe_run(&p); /* IRET to behind the limit faults itself */
    check_trap(&t, VECTOR_GP, 0);
    check("cs", SEL_CODE, t.cs);
}

/* ---- loads
 * ----------------------------------------------------------------------------------------- */

CODE(load_fs, "mov %edi, %fs; ret");
CODE(load_ss, "mov %edi, %ss; ret");
CODE(user_load_fs, "mov %edi, %fs; int $0x80");
CODE(load_lfs, "lfs (%edi), %eax; ret");

static void loads(void)
{
    struct trap t;

    t = probe(load_fs, 0xfff8, 0);
    check_trap_at(&t, VECTOR_GP, 0xfff8, load_fs);
    t = probe(load_ss, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, load_ss);
    t = probe(load_ss, SEL_CODE, 0);
    check_trap(&t, VECTOR_GP, SEL_CODE);
    t = probe(load_ss, SEL_DATA | 3, 0); /* RPL */
    check_trap(&t, VECTOR_GP, SEL_DATA);
    t = probe_user(user_load_fs, SEL_DATA, 0);
    check_trap_at(&t, VECTOR_GP, SEL_DATA, user_load_fs);
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, FLAT | DESC_CONFORMING));
    t = probe_user(user_load_fs, SEL_FREE, 0); /* conforming code of any ring may be read */
    check_left(&t);
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, (FLAT & ~DESC_P) | DESC_DATA));
    t = probe(load_fs, SEL_FREE, 0);
    check_trap(&t, VECTOR_NP, SEL_FREE);
    t = probe(load_ss, SEL_FREE, 0);
    check_trap(&t, VECTOR_SS, SEL_FREE);
}

static uint64_t ldt[4] __attribute__((aligned(8)));

static void ldt_use(void)
{
    struct trap t;

    gdt_set(SEL_FREE, descriptor((uint32_t)ldt, sizeof(ldt) - 1, DESC_P | DESC_LDT));
    ldt[1] = descriptor((uint32_t)data, 0xfffff, FLAT | DESC_DATA);
    t = probe(load_fs, 8 | 4, 0);
    check_trap(&t, VECTOR_GP, 8 | 4); /* no LDT yet */
    asm volatile("lldt %w0" : : "r"(SEL_FREE));
    data[0] = 0x42;
    t = probe(fs_load_1, 0, 8 | 4);
    check_no_trap(&t);
    check("through the LDT", 0x42, t.eax & 0xff);
    t = probe(load_fs, 0x20 | 4, 0);
    check_trap(&t, VECTOR_GP, 0x20 | 4);
}

static void inspection(void)
{
    uint32_t limit = 0, rights = 0;
    bool ok;

    gdt_set(SEL_FREE, descriptor(0, 0x12345, FLAT | DESC_DATA));
    asm volatile("lsl %2, %1" : "=@ccz"(ok), "+r"(limit) : "r"((uint32_t)SEL_FREE));
    check_true("LSL", ok);
    check("LSL: in bytes", 0x12345fff, limit);
    asm volatile("lar %2, %1" : "=@ccz"(ok), "+r"(rights) : "r"((uint32_t)SEL_FREE));
    check_true("LAR", ok);
    check("LAR", (FLAT | DESC_DATA) << 8, rights & 0xf0ff00);
    asm volatile("lsl %2, %1" : "=@ccz"(ok), "+r"(limit) : "r"(0xfff8));
    check_true("LSL beyond the GDT", !ok);
    asm volatile("verw %w1" : "=@ccz"(ok) : "r"(SEL_CODE));
    check_true("VERW of code", !ok);
    asm volatile("verr %w1" : "=@ccz"(ok) : "r"(SEL_CODE));
    check_true("VERR of code", ok);
}

/* ---- far transfers and call gates (§5.8)
 * ------------------------------------------------------------ */

static struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) target;

CODE(far_call, "lcall *(%edi); ret");
CODE(far_jump, "ljmp *(%edi)");
CODE(user_far_call, "lcall *(%edi); int $0x80");
CODE(far_return, "mov %cs, %eax; lret");
CODE(gate_code, "mov %cs, %eax; mov %esp, %ebx; mov 8(%esp), %ecx; lret $8");
CODE(user_gate_call, "pushl $0x1111; pushl $0x2222; lcall *(%edi); int $0x80");

static struct trap far(const char *code, uint16_t selector, const char *to)
{
    target.offset = (uint32_t)to;
    target.selector = selector;
    return probe(code, (uint32_t)&target, 0);
}

static struct trap user_far(const char *code, uint16_t selector, const char *to)
{
    target.offset = (uint32_t)to;
    target.selector = selector;
    return probe_user(code, (uint32_t)&target, 0);
}

static void far_transfers(void)
{
    struct trap t = far(far_call, SEL_CODE, far_return);

    check_no_trap(&t);
    check("cs", SEL_CODE, t.eax);
    t = far(far_call, 0, far_return);
    check_trap_at(&t, VECTOR_GP, 0, far_call);
    t = far(far_jump, SEL_DATA, far_return);
    check_trap_at(&t, VECTOR_GP, SEL_DATA, far_jump);
    t = far(far_call, SEL_USER & ~3, far_return); /* not to an outer ring */
    check_trap(&t, VECTOR_GP, SEL_USER & ~3);
    t = user_far(user_far_call, SEL_CODE, far_return); /* nor to an inner one */
    check_trap(&t, VECTOR_GP, SEL_CODE);
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, FLAT | DESC_CONFORMING));
    t = user_far(user_far_call, SEL_FREE, far_return); /* conforming code keeps the ring */
    check_left(&t);
    check("cs", SEL_FREE | 3, t.eax);
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, (FLAT & ~DESC_P) | DESC_CODE));
    t = far(far_call, SEL_FREE, far_return);
    check_trap(&t, VECTOR_NP, SEL_FREE);
    t = far(far_call, 0x40 * 8, far_return);
    check_trap(&t, VECTOR_GP, 0x40 * 8);
}

static void call_gates(void)
{
    struct trap t;

    gdt_set(SEL_FREE,
            call_gate(SEL_CODE, (uint32_t)gate_code, 2, DESC_P | DESC_CALL_GATE | DESC_DPL3));
    t = user_far(user_gate_call, SEL_FREE | 3, NULL);
    check_left(&t);
    check("cs in the gate's code", SEL_CODE, t.eax);
    check("esp there: two parameters and four words", main_tss.esp0 - 24, t.ebx);
    check("the last parameter", 0x2222, t.ecx);
    check("cs again", SEL_USER, t.cs);
    check("RET took the parameters off both stacks", probe_user_setup(NULL, 0, 0).esp, t.esp);
    gdt_set(SEL_FREE, call_gate(SEL_CODE, (uint32_t)gate_code, 0, DESC_P | DESC_CALL_GATE));
    t = user_far(user_far_call, SEL_FREE, NULL); /* the gate's DPL */
    check_trap_at(&t, VECTOR_GP, SEL_FREE, user_far_call);
    gdt_set(SEL_FREE, call_gate(SEL_CODE, (uint32_t)gate_code, 0, DESC_CALL_GATE | DESC_DPL3));
    t = user_far(user_far_call, SEL_FREE, NULL);
    check_trap(&t, VECTOR_NP, SEL_FREE);
    gdt_set(SEL_FREE,
            call_gate(SEL_DATA, (uint32_t)gate_code, 0, DESC_P | DESC_CALL_GATE | DESC_DPL3));
    t = user_far(user_far_call, SEL_FREE, NULL);
    check_trap(&t, VECTOR_GP, SEL_DATA);
}

static void return_to_outer_ring(void)
{
    struct trap t;

    CODE(user_end, "int $0x80");
    CODE(outer_return, "push %esi; push %edi; pushl $0x1b; pushl $user_end; lret");
    CODE(inner_return, "pushl $0x08; pushl $user_end; lret");
    const struct probe p = probe_user_setup(user_end, 0, 0);

    t = probe(outer_return, p.esp, SEL_USER_DATA);
    check_left(&t);
    check("esp", p.esp, t.esp);
    check("ss", SEL_USER_DATA, t.ss);
    t = probe(outer_return, p.esp, SEL_DATA);
    check_trap(&t, VECTOR_GP, SEL_DATA);
    t = probe_user(inner_return, 0, 0);
    check_trap(&t, VECTOR_GP, SEL_CODE);
}

/* Data segments that the outer ring may not use become null (§5.8.6, RET and IRET). */
static void segments_cleared(void)
{
    struct probe p;
    struct trap t;

    CODE(user_show, "mov %fs, %eax; mov %gs, %ebx; int $0x80");
    p = probe_user_setup(user_show, 0, 0);
    asm volatile("mov %0, %%fs; mov %1, %%gs" : : "r"(SEL_DATA), "r"(SEL_USER_DATA));
    t = probe_run(&p);
    check_left(&t);
    check("fs", 0, t.eax);
    check("gs", SEL_USER_DATA, t.ebx);
}

/* ---- SYSENTER (vol 2B)
 * -------------------------------------------------------------------------------- */

CODE(user_sysenter, "sysenter");
CODE(sysenter_entry, "mov %cs, %eax; mov %ss, %ebx; mov %esp, %ecx; int $0x81");
CODE(sysenter_back, "mov $user_leave, %edx; mov %esi, %ecx; sysexit");
CODE(user_leave, "mov %cs, %eax; mov %ss, %ebx; int $0x80");

static void sysenter(void)
{
    struct probe p = probe_user_setup(user_sysenter, 0, 0);
    struct trap t;

    wrmsr(MSR_SYSENTER_CS, 0);
    t = probe_run(&p);
    check_trap_at(&t, VECTOR_GP, 0, user_sysenter);
    wrmsr(MSR_SYSENTER_CS, SEL_CODE);
    wrmsr(MSR_SYSENTER_ESP, main_tss.esp0 - 512);
    wrmsr(MSR_SYSENTER_EIP, (uint32_t)sysenter_entry);
    p.eflags |= RFLAGS_IF | RFLAGS_CF;
    t = probe_run(&p);
    check("vector", 0x81, t.vector);
    check("cs", SEL_CODE, t.eax);
    check("ss", SEL_CODE + 8, t.ebx);
    check("esp", main_tss.esp0 - 512, t.ecx);
    check("eflags: IF is clear", RFLAGS_FIXED | RFLAGS_CF, t.eflags);
    wrmsr(MSR_SYSENTER_EIP, (uint32_t)sysenter_back);
    p.b = p.esp - 128;
    t = probe_run(&p);
    check_left(&t);
    check("cs: +16", (SEL_CODE + 16) | 3, t.eax);
    check("ss: +24", (SEL_CODE + 24) | 3, t.ebx);
    check("esp", p.b, t.esp);
}

/* ---- exceptions that 64-bit mode has not
 * ----------------------------------------------------------------- */

static void bound_and_into(void)
{
    static const int32_t range[2] = {-5, 10};
    struct trap t;

    CODE(bound_code, "mov %esi, %eax; bound %eax, (%edi); ret");
    CODE(into_code, "mov $0x7fffffff, %eax; inc %eax; into; ret");
    CODE(no_into_code, "xor %eax, %eax; into; ret");
    t = probe(bound_code, (uint32_t)range, 10);
    check_no_trap(&t);
    t = probe(bound_code, (uint32_t)range, 11);
    check_trap(&t, VECTOR_BR, 0);
    check("eip: a fault", (uint32_t)bound_code + 2, t.eip);
    t = probe(bound_code, (uint32_t)range, (uint32_t)-6);
    check_trap(&t, VECTOR_BR, 0);
    t = probe(into_code, 0, 0);
    check_trap(&t, VECTOR_OF, 0);
    check("eip: a trap", (uint32_t)into_code + 7, t.eip);
    t = probe(no_into_code, 0, 0);
    check_no_trap(&t);
}

static const struct test tests[] = {
    {"segment: limits", limits},
    {"segment: expand-down", expand_down},
    {"segment: types", types},
    {"segment: bases", base},
    {"segment: stack limit", stack_limit},
    {"segment: 16-bit stack", stack_of_16_bits},
    {"segment: code limit", code_limit},
    {"segment: loads that are refused", loads},
    {"segment: LDT", ldt_use},
    {"segment: LSL, LAR, VERR, VERW", inspection},
    {"far: jumps and calls", far_transfers},
    {"far: call gates with parameters", call_gates},
    {"far: RET to an outer ring", return_to_outer_ring},
    {"far: segments of the inner ring are cleared", segments_cleared},
    {"SYSENTER: and SYSEXIT", sysenter},
    {"exception: BOUND and INTO", bound_and_into},
};

void segment32_tests(void)
{
    TESTS(tests);
}

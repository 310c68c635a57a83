/*
 * privilege.c - the ways between rings in 64-bit mode: SYSCALL, SYSENTER, IRET, far calls,
 * segments, I/O permission; what ring 3 may not (SDM vol 3 chapters 5 and 6, §5.8, vol 2 of each
 * instruction; APM vol 2 §4.7, §6.1).
 */
#include "cpu.h"
#include "tests64.h"

#define MSR_STAR      0xc0000081u
#define MSR_LSTAR     0xc0000082u
#define MSR_CSTAR     0xc0000083u
#define MSR_FMASK     0xc0000084u
#define NOT_CANONICAL 0x0000800000000000ull
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };

/* ---- SYSCALL and SYSRET
 * ---------------------------------------------------------------------------- */

CODE(user_syscall, "mov $0x55, %eax; syscall; int $0x80");
/* Ends the probe with what SYSCALL left: RSP is still ring 3's, exceptions have a stack of their
 * own. */
CODE(syscall_entry, "int $0x81");

static void syscall_set_up(uint64_t entry)
{
    wrmsr(MSR_STAR, (uint64_t)(SEL_USER32) << 48 | (uint64_t)SEL_CODE << 32);
    wrmsr(MSR_LSTAR, entry);
    wrmsr(MSR_FMASK, RFLAGS_IF | RFLAGS_DF | RFLAGS_TF | RFLAGS_AC);
}

static void gate_on_own_stack(unsigned vector, unsigned ist)
{
    struct gate g = gate_usual(vector);

    g.ist = (uint8_t)ist;
    gate_set(vector, g);
}

static void syscall_enters(void)
{
    struct probe p = probe_user_setup(user_syscall, 0, 0);
    struct trap t;

    syscall_set_up((uint64_t)syscall_entry);
    gate_on_own_stack(0x81, 1);
    p.rflags |= RFLAGS_DF | RFLAGS_CF | RFLAGS_AC | RFLAGS_ID;
    t = probe_run(&p);
    check("vector", 0x81, t.vector);
    check("rip", (uint64_t)syscall_entry + 2, t.rip);
    check("cs", SEL_CODE, t.cs);
    check("ss", SEL_CODE + 8, t.ss);
    check("rcx: behind SYSCALL", user_address(user_syscall) + 7, t.rcx);
    check("r11: RFLAGS", p.rflags, t.r11);
    if (!option("tcg")) /* QEMU's TCG clears the arithmetic flags */
        check("rflags: masked", (p.rflags & ~(uint64_t)(RFLAGS_DF | RFLAGS_AC)),
              t.rflags & ~(uint64_t)RFLAGS_RF);
    check("rsp: ring 3's", p.rsp, t.rsp);
    check("rax", 0x55, t.rax);
}

CODE(syscall_returns, "mov %rcx, %rdi; mov $0x1234, %eax; sysretq");

static void sysret_returns(void)
{
    struct probe p = probe_user_setup(user_syscall, 0, 0);
    struct trap t;

    syscall_set_up((uint64_t)syscall_returns);
    p.rflags |= RFLAGS_DF;
    t = probe_run(&p);
    check_left(&t);
    check("rax", 0x1234, t.rax);
    check("cs", SEL_USER, t.cs);
    check("ss", SEL_USER_DATA, t.ss);
    check("rflags come back", p.rflags, t.rflags);
    check("rip", user_address(user_syscall) + 9, t.rip);
}

CODE(sysret_with_flags, "mov %rdi, %r11; mov %rsi, %rcx; sysretq");
CODE(end_in_ring_3, "int $0x80");

/* R11 becomes RFLAGS without RF and VM, with the fixed bits. */
static void sysret_flags(void)
{
    struct trap t;

    syscall_set_up(0);
    t = probe(sysret_with_flags, ~(uint64_t)(RFLAGS_TF | RFLAGS_NT), user_address(end_in_ring_3));
    check_left(&t);
    /* SDM vol 2B SYSRET: 3C7FD7H; VIF and VIP are nobody's business here. QEMU's TCG takes VM and
     * RF, too. */
    if (option("tcg"))
        return;
    check("rflags", 0x3c7fd7 & ~(RFLAGS_TF | RFLAGS_NT | 0x180000), t.rflags & ~0x180000ull);
    check("VM and RF", 0, t.rflags & (RFLAGS_RF | RFLAGS_VM));
}

/* Intel's refuses in ring 0 (#GP, SDM vol 2B SYSRET); AMD's goes to ring 3 and faults there on the
 * fetch. */
static void sysret_not_canonical(void)
{
    struct trap t;

    syscall_set_up(0);
    t = probe(sysret_with_flags, RFLAGS_FIXED, NOT_CANONICAL);
    check_trap(&t, VECTOR_GP, 0);
    if (!is_amd())
        check("cs", SEL_CODE, t.cs);
    else if (!option("tcg"))
        check("cs", SEL_USER, t.cs);
}

static void syscall_off(void)
{
    struct trap t;

    CODE(sysret_alone, "sysretq");
    CODE(user_sysret, "sysretq");
    syscall_set_up((uint64_t)syscall_entry);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_SCE);
    t = probe_user(user_syscall, 0, 0);
    check("vector", VECTOR_UD, t.vector);
    check("rip", user_address(user_syscall) + 5, t.rip);
    t = probe(sysret_alone, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, sysret_alone);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    t = probe_user(user_sysret, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_sysret);
}

static void syscall_msrs(void)
{
    struct trap t;

    CODE(write_msr, "mov %edi, %ecx; mov %esi, %eax; shr $32, %rsi; mov %esi, %edx; 1: wrmsr; ret");
    if (skip_on_tcg("QEMU's TCG takes any address"))
        return;
    t = probe(write_msr, MSR_LSTAR, NOT_CANONICAL);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(write_msr, MSR_CSTAR, NOT_CANONICAL);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(write_msr, MSR_LSTAR, 0xffff800000000000);
    check_no_trap(&t);
    check("LSTAR", 0xffff800000000000, rdmsr(MSR_LSTAR));
}

/* ---- SYSENTER and SYSEXIT: in 64-bit mode Intel's only (APM vol 3 SYSENTER: #UD)
 * -------------------- */

CODE(user_sysenter, "mov %rsp, %rcx; sysenter; int $0x80");
CODE(sysenter_entry, "int $0x81");
CODE(sysexit_code, "mov %rdi, %rdx; mov %rsi, %rcx; 1: sysexitq");

static void sysenter_set_up(void)
{
    wrmsr(MSR_SYSENTER_CS, SEL_CODE);
    wrmsr(MSR_SYSENTER_ESP, ist_top(3) - 256);
    wrmsr(MSR_SYSENTER_EIP, (uint64_t)sysenter_entry);
}

static void sysenter_enters(void)
{
    struct probe p = probe_user_setup(user_sysenter, 0, 0);
    struct trap t;

    sysenter_set_up();
    gate_on_own_stack(0x81, 1);
    p.rflags |= RFLAGS_IF | RFLAGS_CF;
    t = probe_run(&p);
    if (is_amd()) {
        if (!option("tcg"))
            check("vector", VECTOR_UD, t.vector);
        return;
    }
    check("vector", 0x81, t.vector);
    check("rip", (uint64_t)sysenter_entry + 2, t.rip);
    check("rsp", ist_top(3) - 256, t.rsp);
    check("cs", SEL_CODE, t.cs);
    check("ss", SEL_CODE + 8, t.ss);
    check("rflags: IF and VM are clear", RFLAGS_FIXED | RFLAGS_CF, t.rflags);
}

static void sysenter_refused(void)
{
    struct trap t;

    if (is_amd()) {
        skip("not in 64-bit mode on AMD's processors");
        return;
    }
    sysenter_set_up();
    wrmsr(MSR_SYSENTER_CS, 0);
    t = probe_user(user_sysenter, 0, 0);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(sysexit_code, user_address(end_in_ring_3), user_address(ist_top)); /* no CS */
    check_trap(&t, VECTOR_GP, 0);
    wrmsr(MSR_SYSENTER_CS, SEL_CODE);
    t = probe(sysexit_code, NOT_CANONICAL, 0);
    check_trap(&t, VECTOR_GP, 0);
    check("cs", SEL_CODE, t.cs);
}

/* SYSEXIT takes CS at +16 (32 bits) or +32 (64): here the GDT has them at +0x28 and +0x30 of 0x03.
 */
static void sysexit_returns(void)
{
    struct probe p = probe_user_setup(end_in_ring_3, 0, 0);
    struct trap t;

    if (is_amd()) {
        skip("not in 64-bit mode on AMD's processors");
        return;
    }
    gdt_set(SEL_FREE + 0x20, gdt_get(SEL_USER & ~7u));
    gdt_set(SEL_FREE + 0x28, gdt_get(SEL_USER_DATA & ~7u));
    wrmsr(MSR_SYSENTER_CS, SEL_FREE);
    t = probe(sysexit_code, p.code, p.rsp);
    check_left(&t);
    check("cs", (SEL_FREE + 0x20) | 3, t.cs);
    check("ss", (SEL_FREE + 0x28) | 3, t.ss);
    check("rsp", p.rsp, t.rsp);
}

/* ---- IRET
 * ------------------------------------------------------------------------------------------ */

static struct iret_frame {
    uint64_t rip, cs, rflags, rsp, ss;
} frame;

/* Only the probe's own stack is left: traps have theirs. */
CODE(do_iret, "mov %rdi, %rsp; iretq");

static struct iret_frame frame_to_ring_3(void)
{
    const struct probe p = probe_user_setup(end_in_ring_3, 0, 0);

    return (struct iret_frame){p.code, p.cs, p.rflags, p.rsp, p.ss};
}

static struct trap iret(void)
{
    return probe(do_iret, (uint64_t)&frame, 0);
}

static void iret_same_ring(void)
{
    struct trap t;

    CODE(iret_target, "int $0x81");
    gate_on_own_stack(0x81, 1);
    frame = (struct iret_frame){(uint64_t)iret_target, SEL_CODE,
                                RFLAGS_FIXED | RFLAGS_CF | RFLAGS_DF, 0x123450, SEL_DATA};
    t = iret();
    check("vector", 0x81, t.vector);
    check("rsp is taken in the same ring, too", 0x123450, t.rsp);
    check("rflags", frame.rflags, t.rflags);
    frame.ss = 0; /* a null SS is fine in ring 0 of 64-bit mode */
    t = iret();
    check("vector with a null SS", 0x81, t.vector);
    check("ss", 0, t.ss);
}

static void iret_flags_in_ring_3(void)
{
    struct trap t;

    CODE(user_popf, "pushq $0x3202; popfq; pushfq; pop %rax; int $0x80");
    frame = frame_to_ring_3();
    frame.rflags = RFLAGS_FIXED | RFLAGS_IOPL | RFLAGS_IF | RFLAGS_AC | RFLAGS_ID | RFLAGS_NT;
    t = iret();
    check_left(&t);
    check("rflags: ring 0 sets all", frame.rflags, t.rflags);
    frame = frame_to_ring_3();
    frame.rip = user_address(user_popf);
    t = iret();
    check_left(&t);
    check("POPF in ring 3 changes neither IF nor IOPL", RFLAGS_FIXED, t.rax);
    frame.rflags |= RFLAGS_IOPL;
    t = iret();
    check("with IOPL 3 it changes IF", RFLAGS_FIXED | RFLAGS_IOPL | RFLAGS_IF, t.rax);
}

/* In ring 3 IRET cannot raise IOPL or IF either, nor leave the ring. */
static void iret_of_ring_3(void)
{
    static struct iret_frame inner;
    struct trap t;

    CODE(user_iret, "mov %rdi, %rsp; iretq");
    inner = frame_to_ring_3();
    inner.rflags = RFLAGS_FIXED | RFLAGS_IOPL | RFLAGS_IF | RFLAGS_CF;
    t = probe_user(user_iret, user_address(&inner), 0);
    check_left(&t);
    check("rflags", RFLAGS_FIXED | RFLAGS_CF, t.rflags);
    inner.cs = SEL_CODE;
    t = probe_user(user_iret, user_address(&inner), 0);
    check_trap(&t, VECTOR_GP, SEL_CODE);
}

static void iret_refused(void)
{
    struct trap t;

    frame = frame_to_ring_3();
    frame.cs = 0;
    t = iret();
    check_trap(&t, VECTOR_GP, 0);
    check("rip", (uint64_t)do_iret + 3, t.rip);
    frame = frame_to_ring_3();
    frame.cs = SEL_USER_DATA;
    t = iret();
    check_trap(&t, VECTOR_GP, SEL_USER_DATA & ~3);
    frame = frame_to_ring_3();
    frame.cs = SEL_USER & ~3; /* RPL 0, DPL 3 */
    t = iret();
    check_trap(&t, VECTOR_GP, SEL_USER & ~3);
    frame = frame_to_ring_3();
    frame.cs = 0xfff3; /* beyond the GDT */
    t = iret();
    check_trap(&t, VECTOR_GP, 0xfff0);
    frame = frame_to_ring_3();
    frame.ss = 0; /* ring 3 needs one */
    t = iret();
    check_trap(&t, VECTOR_GP, 0);
    frame.ss = SEL_USER | 0; /* code */
    t = iret();
    check_trap(&t, VECTOR_GP, SEL_USER & ~3);
    frame.ss = SEL_DATA; /* RPL 0 */
    t = iret();
    check_trap(&t, VECTOR_GP, SEL_DATA);
    frame = frame_to_ring_3();
    gdt_set(SEL_FREE, gdt_get(SEL_USER & ~7u) & ~(1ull << 47));
    frame.cs = SEL_FREE | 3;
    t = iret();
    check_trap(&t, VECTOR_NP, SEL_FREE);
    gdt_set(SEL_FREE, gdt_get(SEL_USER_DATA & ~7u) & ~(1ull << 47));
    frame = frame_to_ring_3();
    frame.ss = SEL_FREE | 3;
    t = iret();
    check_trap(&t, option("tcg") ? VECTOR_NP : VECTOR_SS,
               SEL_FREE); /* QEMU's TCG takes the other vector */
}

static void iret_with_nt(void)
{
    struct trap t;

    CODE(iret_nt, "pushfq; orl $0x4000, (%rsp); popfq; 1: iretq");
    t = probe(iret_nt, 0, 0); /* a return to another task: none in 64-bit mode */
    check_trap(&t, VECTOR_GP, 0);
}

static void iret_not_canonical(void)
{
    struct trap t;

    frame = frame_to_ring_3();
    frame.rip = NOT_CANONICAL;
    t = iret();
    check_trap(&t, VECTOR_GP, 0);
    if (!option("tcg")) /* QEMU's TCG goes there first */
        check("rip", (uint64_t)do_iret + 3, t.rip);
}

static void iret_to_32_bits(void)
{
    struct trap t;
    const uint64_t page = page_new(), root = page_new_root();
    static const uint8_t text[] = {0x40, 0xcd, 0x80}; /* inc %eax, which 64-bit mode has not */

    memcpy((void *)page, text, sizeof(text));
    ((uint64_t *)root)[0] = 0;
    for (unsigned i = 0; i < 512; i++)
        *page_entry_in(root, (uint64_t)i << 21, 2) =
            (uint64_t)i << 21 | PTE_P | PTE_W | PTE_U | PTE_PS;
    write_cr3(root);
    frame = frame_to_ring_3();
    frame.rip = page;
    frame.cs = SEL_USER32;
    frame.rsp -= USER_BASE;
    t = iret();
    check_left(&t);
    check("cs", SEL_USER32, t.cs);
    check("rsp", frame.rsp, t.rsp);
}

static const struct test tests[] = {
    {"SYSCALL: enters ring 0", syscall_enters},
    {"SYSRET: returns to ring 3", sysret_returns},
    {"SYSRET: flags", sysret_flags},
    {"SYSRET: not canonical", sysret_not_canonical},
    {"SYSCALL: EFER.SCE is clear", syscall_off},
    {"SYSCALL: its MSRs take canonical addresses", syscall_msrs},
    {"SYSENTER: enters ring 0", sysenter_enters},
    {"SYSENTER: refused", sysenter_refused},
    {"SYSEXIT: returns to ring 3", sysexit_returns},
    {"IRET: to the same ring", iret_same_ring},
    {"IRET: flags", iret_flags_in_ring_3},
    {"IRET: of ring 3", iret_of_ring_3},
    {"IRET: what it refuses", iret_refused},
    {"IRET: with NT", iret_with_nt},
    {"IRET: not canonical", iret_not_canonical},
    {"IRET: to 32-bit code", iret_to_32_bits},
};

void privilege_tests(void)
{
    TESTS(tests);
}

/*
 * fpu.c - x87, MMX, SSE and XSAVE as an operating system meets them: #NM, #MF, #XM, #UD, and what
 * is refused (SDM vol 3 chapter 13, §2.5, vol 1 chapter 13; APM vol 2 chapter 11).
 */
#include "cpu.h"
#include "tests64.h"

CODE(x87_fld1, "fld1; fstp %st(0); ret");
CODE(x87_wait, "fwait; ret");
CODE(mmx_code, "paddd %mm0, %mm0; emms; ret");
CODE(sse_code, "addps %xmm0, %xmm0; ret");
CODE(sse2_code, "paddd %xmm0, %xmm0; ret");
CODE(fxsave_code, "fxsave (%rdi); ret");
CODE(fxrstor_code, "fxrstor (%rdi); ret");
CODE(ldmxcsr_code, "ldmxcsr (%rdi); ret");

static uint8_t area[1024] __attribute__((aligned(64)));

static void expect(const char *what, const char *code, unsigned vector)
{
    const struct trap t = probe(code, (uint64_t)area, 0);

    check(what, vector, t.vector);
    if (vector != NO_TRAP)
        check(what, (uint64_t)code, t.rip);
}

static void task_switched(void)
{
    write_cr0(read_cr0() | CR0_TS);
    expect("x87", x87_fld1, VECTOR_NM);
    expect("MMX", mmx_code, VECTOR_NM);
    expect("SSE", sse_code, VECTOR_NM);
    expect("FXSAVE", fxsave_code, VECTOR_NM);
    expect("FWAIT with MP", x87_wait, VECTOR_NM);
    write_cr0(read_cr0() & ~(uint64_t)CR0_MP);
    expect("FWAIT without MP", x87_wait, NO_TRAP);
    expect("x87 without MP", x87_fld1, VECTOR_NM);
    asm volatile("clts");
    expect("x87 after CLTS", x87_fld1, NO_TRAP);
    expect("SSE after CLTS", sse_code, NO_TRAP);
}

static void emulated(void)
{
    write_cr0((read_cr0() | CR0_EM) & ~(uint64_t)CR0_MP);
    expect("x87", x87_fld1, VECTOR_NM);
    expect("MMX", mmx_code, VECTOR_UD);
    expect("SSE", sse_code, VECTOR_UD);
    expect("FWAIT", x87_wait, NO_TRAP);
    write_cr0(read_cr0() | CR0_TS);
    if (!option("tcg")) /* QEMU's TCG has it the other way round */
        expect("SSE: #UD before #NM", sse_code, VECTOR_UD);
}

static void without_osfxsr(void)
{
    write_cr4(read_cr4() & ~(uint64_t)CR4_OSFXSR);
    expect("SSE", sse_code, VECTOR_UD);
    expect("SSE2", sse2_code, VECTOR_UD);
    expect("LDMXCSR", ldmxcsr_code, VECTOR_UD);
    expect("MMX", mmx_code, NO_TRAP);
    expect("FXSAVE", fxsave_code, NO_TRAP);
}

/* ---- x87 exceptions: they wait for the next instruction that waits
 * ------------------------------------- */

static void x87_error(void)
{
    static const uint16_t zero_divide_unmasked = 0x37b;
    struct trap t;

    CODE(x87_divide, "fninit; fldcw (%rdi); fld1; fldz; fdivrp; fnstsw %ax; nop; 1: fld1; ret");
    CODE(x87_nowait, "fninit; fldcw (%rdi); fld1; fldz; fdivrp; fnstcw -8(%rsp); fnclex; fninit; "
                     "mov $7, %eax; ret");
    CODE(x87_fwait, "fninit; fldcw (%rdi); fld1; fldz; fdivrp; 1: fwait; ret");
    if (skip_on_tcg("QEMU's TCG raises no #MF"))
        return;
    t = probe(x87_divide, (uint64_t)&zero_divide_unmasked, 0);
    check_trap(&t, VECTOR_MF, 0);
    check("rip: at the next that waits", (uint64_t)x87_divide + 2 + 2 + 2 + 2 + 2 + 2 + 1, t.rip);
    check("the status word has ZE and ES", 0x84, t.rax & 0x84);
    asm volatile("fnclex");
    t = probe(x87_nowait, (uint64_t)&zero_divide_unmasked, 0);
    check_no_trap(&t);
    check("rax", 7, t.rax);
    t = probe(x87_fwait, (uint64_t)&zero_divide_unmasked, 0);
    check_trap(&t, VECTOR_MF, 0);
    check("rip: at FWAIT", (uint64_t)x87_fwait + 10, t.rip);
    asm volatile("fninit");
}

/* MMX instructions look, too. */
static void x87_error_met_by_mmx(void)
{
    static const uint16_t invalid_unmasked = 0x37e;
    struct trap t;

    CODE(x87_then_mmx, "fninit; fldcw (%rdi); fldz; fldz; fdivrp; 1: paddd %mm0, %mm0; ret");
    if (skip_on_tcg("QEMU's TCG does not look there"))
        return;
    t = probe(x87_then_mmx, (uint64_t)&invalid_unmasked, 0);
    check_trap(&t, VECTOR_MF, 0);
    check("rip: at PADDD", (uint64_t)x87_then_mmx + 10, t.rip);
    asm volatile("fninit");
}

/* ---- SSE exceptions
 * -------------------------------------------------------------------------------------- */

static void sse_error(void)
{
    static const uint32_t zero_divide_unmasked = 0x1d80, all_masked = 0x1f80;
    struct trap t;

    CODE(sse_divide, "ldmxcsr (%rdi); pxor %xmm1, %xmm1; mov $0x3f800000, %eax; movd %eax, %xmm0;"
                     "1: divss %xmm1, %xmm0; movd %xmm0, %eax; ret");
    if (skip_on_tcg("QEMU's TCG raises no #XM"))
        return;
    t = probe(sse_divide, (uint64_t)&all_masked, 0);
    check_no_trap(&t);
    check("infinity", 0x7f800000, t.rax);
    t = probe(sse_divide, (uint64_t)&zero_divide_unmasked, 0);
    check_trap(&t, VECTOR_XM, 0);
    check("rip: at DIVSS", (uint64_t)sse_divide + 16, t.rip);
    {
        uint32_t mxcsr = 0, xmm0;

        asm volatile("stmxcsr %0; movd %%xmm0, %1" : "=m"(mxcsr), "=r"(xmm0));
        check("MXCSR.ZE", 4, mxcsr & 0x3f);
        check("the destination is as it was", 0x3f800000, xmm0);
    }
    write_cr4(read_cr4() & ~(uint64_t)CR4_OSXMMEXCPT);
    t = probe(sse_divide, (uint64_t)&zero_divide_unmasked, 0);
    check_trap(&t, VECTOR_UD, 0);
    asm volatile("ldmxcsr %0" : : "m"(all_masked));
}

static void refused(void)
{
    struct trap t;

    CODE(movaps_code, "movaps (%rdi), %xmm0; ret");
    CODE(paddd_code, "paddd (%rdi), %xmm0; ret");
    CODE(movups_code, "movups (%rdi), %xmm0; ret");
    t = probe(movaps_code, (uint64_t)area + 8, 0);
    check_trap_at(&t, VECTOR_GP, 0, movaps_code);
    t = probe(paddd_code, (uint64_t)area + 8, 0);
    check_trap_at(&t, VECTOR_GP, 0, paddd_code);
    t = probe(movups_code, (uint64_t)area + 8, 0);
    check_no_trap(&t);
    t = probe(fxsave_code, (uint64_t)area + 8, 0);
    check_trap_at(&t, VECTOR_GP, 0, fxsave_code);
    memset(area, 0, sizeof(area));
    t = probe(fxsave_code, (uint64_t)area, 0);
    check_no_trap(&t);
    *(uint32_t *)(area + 24) = 0x10000; /* MXCSR: reserved */
    if (option("tcg")) /* QEMU's TCG takes any MXCSR, and checks no alignment of SSE operands */
        return;
    t = probe(fxrstor_code, (uint64_t)area, 0);
    check_trap_at(&t, VECTOR_GP, 0, fxrstor_code);
    *(uint32_t *)area = 0x10000;
    t = probe(ldmxcsr_code, (uint64_t)area, 0);
    check_trap_at(&t, VECTOR_GP, 0, ldmxcsr_code);
}

/* ---- XSAVE (vol 1 chapter 13)
 * --------------------------------------------------------------------------- */

CODE(xsetbv_code, "mov %edi, %ecx; mov %esi, %eax; xor %edx, %edx; 1: xsetbv; ret");
CODE(xgetbv_code, "mov %edi, %ecx; xgetbv; ret");
CODE(xsave_code, "mov $7, %eax; xor %edx, %edx; 1: xsave (%rdi); ret");
CODE(xrstor_code, "mov $7, %eax; xor %edx, %edx; 1: xrstor (%rdi); ret");
enum { XSAVE_AT = 7, HEADER = 512 };

static bool xsave_on(void)
{
    if (!has_feature(1, 2, 26)) {
        skip("XSAVE is not offered");
        return false;
    }
    write_cr4(read_cr4() | CR4_OSXSAVE);
    return true;
}

static void xsave_rules(void)
{
    struct trap t;

    if (!has_feature(1, 2, 26)) {
        skip("XSAVE is not offered");
        return;
    }
    check("CPUID.OSXSAVE follows CR4", 0, has_feature(1, 2, 27));
    t = probe(xgetbv_code, 0, 0);
    check("XGETBV without OSXSAVE", VECTOR_UD, t.vector);
    t = probe(xsave_code, (uint64_t)area, 0);
    check("XSAVE without OSXSAVE", VECTOR_UD, t.vector);
    xsave_on();
    check("CPUID.OSXSAVE", 1, has_feature(1, 2, 27));
    t = probe(xgetbv_code, 0, 0);
    check_no_trap(&t);
    t = probe(xgetbv_code, 2, 0);
    check("XCR2", VECTOR_GP, t.vector);
    t = probe(xsetbv_code, 0, 0);
    check("XCR0 without x87", VECTOR_GP, t.vector);
    t = probe(xsetbv_code, 0, 5);
    check("XCR0: AVX without SSE", VECTOR_GP, t.vector);
    t = probe(xsetbv_code, 0, 3);
    check_no_trap(&t);
    t = probe(xsave_code, (uint64_t)area + 16, 0);
    check("XSAVE unaligned", VECTOR_GP, t.vector);
    memset(area, 0, sizeof(area));
    t = probe(xsave_code, (uint64_t)area, 0);
    check_no_trap(&t);
    area[HEADER + 8] = 1; /* XCOMP_BV: must be 0 for the standard form */
    t = probe(xrstor_code, (uint64_t)area, 0);
    if (!option("tcg"))
        check("XRSTOR: header", VECTOR_GP, t.vector);
}

static void avx_needs_xcr0(void)
{
    struct trap t;

    CODE(avx_code, "vaddps %xmm0, %xmm0, %xmm0; vzeroupper; ret");
    if (!has_feature(1, 2, 28)) {
        skip("AVX is not offered");
        return;
    }
    t = probe(avx_code, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, avx_code); /* CR4.OSXSAVE is clear */
    xsave_on();
    t = probe(xsetbv_code, 0, 3);
    t = probe(avx_code, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, avx_code); /* XCR0.AVX is clear */
    t = probe(xsetbv_code, 0, 7);
    check_no_trap(&t);
    if (option("tcg")) /* QEMU's TCG under a hypervisor forgets XCR0 */
        return;
    t = probe(avx_code, 0, 0);
    check_no_trap(&t);
}

static const struct test tests[] = {
    {"FPU: CR0.TS", task_switched},
    {"FPU: CR0.EM", emulated},
    {"FPU: CR4.OSFXSR", without_osfxsr},
    {"FPU: x87 error", x87_error},
    {"FPU: x87 error met by MMX", x87_error_met_by_mmx},
    {"FPU: SSE error", sse_error},
    {"FPU: what is refused", refused},
    {"FPU: XSAVE", xsave_rules},
    {"FPU: AVX and XCR0", avx_needs_xcr0},
};

void fpu_tests(void)
{
    TESTS(tests);
}

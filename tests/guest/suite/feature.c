/*
 * feature.c - the CPU is the one that CPUID tells of: instructions outside the model raise #UD,
 * control registers and MSRs refuse what is not there (SDM vol 2, vol 3 §2.5, §10.12, vol 4; APM
 * vol 2 §3.1).
 */
#include "cpu.h"
#include "tests64.h"

/* ---- instructions
 * ----------------------------------------------------------------------------------- */

enum { EAX, EBX, ECX, EDX };

CODE(i_avx, "vaddps %xmm0, %xmm1, %xmm2; ret");
CODE(i_avx2, "vpaddd %ymm0, %ymm1, %ymm2; ret");
CODE(i_avx512, "vpaddd %zmm0, %zmm1, %zmm2; ret");
CODE(i_fma, "vfmadd132ps %xmm0, %xmm1, %xmm2; ret");
CODE(i_f16c, "vcvtph2ps %xmm0, %xmm1; ret");
CODE(i_rdrand, "rdrand %eax; ret");
CODE(i_rdseed, "rdseed %eax; ret");
CODE(i_movbe, "movbe -8(%rsp), %eax; ret");
CODE(i_popcnt, "popcnt %ecx, %eax; ret");
CODE(i_andn, "andn %ecx, %edx, %eax; ret");
CODE(i_bzhi, "bzhi %ecx, %edx, %eax; ret");
CODE(i_adcx, "adcx %ecx, %eax; ret");
CODE(i_sha, "sha1nexte %xmm0, %xmm1; ret");
CODE(i_pclmul, "pclmulqdq $0, %xmm0, %xmm1; ret");
CODE(i_aes, "aesenc %xmm0, %xmm1; ret");
CODE(i_crc32, "crc32 %ecx, %eax; ret");
CODE(i_ssse3, "pshufb %xmm0, %xmm1; ret");
CODE(i_sse41, "pmulld %xmm0, %xmm1; ret");
CODE(i_sse3, "addsubps %xmm0, %xmm1; ret");
CODE(i_rdtscp, "rdtscp; ret");
CODE(i_rdpid, "rdpid %rax; ret");
CODE(i_clflushopt, "clflushopt -64(%rsp); ret");
CODE(i_clwb, "clwb -64(%rsp); ret");
CODE(i_rtm, "xbegin 1f; xend; 1: ret");
CODE(i_monitor, "lea -64(%rsp), %rax; xor %ecx, %ecx; xor %edx, %edx; monitor; ret");
CODE(i_stac, "stac; clac; ret");
CODE(i_xsave, "xor %eax, %eax; xor %edx, %edx; 1: xgetbv; ret");
CODE(i_invpcid, "invpcid -32(%rsp), %rcx; ret");
CODE(i_vmxon, "vmxon -8(%rsp); ret");
CODE(i_vmrun, "vmrun; ret");
CODE(i_sse4a, "extrq %xmm0, %xmm1; ret");
CODE(i_3dnow, "pfadd %mm0, %mm1; ret");
CODE(i_xop, ".byte 0x8f, 0xe9, 0x78, 0xe1, 0xc1; ret"); /* vphaddwd %xmm1, %xmm0 */
CODE(i_gfni, "gf2p8mulb %xmm0, %xmm1; ret");
CODE(i_movdiri, "movdiri %eax, -8(%rsp); ret");
CODE(i_serialize, "serialize; ret");
CODE(i_rdpru, ".byte 0x0f, 0x01, 0xfd; ret");
CODE(i_clzero, "lea -64(%rsp), %rax; clzero; ret");
CODE(i_monitorx, "lea -64(%rsp), %rax; xor %ecx, %ecx; xor %edx, %edx; monitorx; ret");
CODE(i_rdpkru, "xor %ecx, %ecx; rdpkru; ret");
CODE(i_wrss, "wrssd %eax, -8(%rsp); ret");

static const struct instruction {
    const char *name, *code;
    uint32_t leaf;
    uint8_t reg, bit, runs; /* runs: where it is offered, needs nothing but that */
} instructions[] = {
    {"AVX", i_avx, 1, ECX, 28, 0},
    {"AVX2", i_avx2, 7, EBX, 5, 0},
    {"AVX512F", i_avx512, 7, EBX, 16, 0},
    {"FMA", i_fma, 1, ECX, 12, 0},
    {"F16C", i_f16c, 1, ECX, 29, 0},
    {"RDRAND", i_rdrand, 1, ECX, 30, 1},
    {"RDSEED", i_rdseed, 7, EBX, 18, 1},
    {"MOVBE", i_movbe, 1, ECX, 22, 1},
    {"POPCNT", i_popcnt, 1, ECX, 23, 1},
    {"ANDN", i_andn, 7, EBX, 3, 1},
    {"BZHI", i_bzhi, 7, EBX, 8, 1},
    {"ADCX", i_adcx, 7, EBX, 19, 1},
    {"SHA1NEXTE", i_sha, 7, EBX, 29, 1},
    {"PCLMULQDQ", i_pclmul, 1, ECX, 1, 1},
    {"AESENC", i_aes, 1, ECX, 25, 1},
    {"CRC32", i_crc32, 1, ECX, 20, 1},
    {"PSHUFB", i_ssse3, 1, ECX, 9, 1},
    {"PMULLD", i_sse41, 1, ECX, 19, 1},
    {"ADDSUBPS", i_sse3, 1, ECX, 0, 1},
    {"RDTSCP", i_rdtscp, 0x80000001, EDX, 27, 1},
    {"RDPID", i_rdpid, 7, ECX, 22, 1},
    {"CLFLUSHOPT", i_clflushopt, 7, EBX, 23, 1},
    {"CLWB", i_clwb, 7, EBX, 24, 1},
    {"XBEGIN", i_rtm, 7, EBX, 11, 0},
    {"MONITOR", i_monitor, 1, ECX, 3, 0},
    {"STAC", i_stac, 7, EBX, 20, 1},
    {"XGETBV", i_xsave, 1, ECX, 26, 0},
    {"INVPCID", i_invpcid, 7, EBX, 10, 0},
    {"VMXON", i_vmxon, 1, ECX, 5, 0},
    {"VMRUN", i_vmrun, 0x80000001, ECX, 2, 0},
    {"EXTRQ", i_sse4a, 0x80000001, ECX, 6, 0},
    {"PFADD", i_3dnow, 0x80000001, EDX, 31, 0},
    {"VPHADDWD", i_xop, 0x80000001, ECX, 11, 0},
    {"GF2P8MULB", i_gfni, 7, ECX, 8, 0},
    {"MOVDIRI", i_movdiri, 7, ECX, 27, 0},
    {"SERIALIZE", i_serialize, 7, EDX, 14, 0},
    {"RDPRU", i_rdpru, 0x80000008, EBX, 4, 0},
    {"CLZERO", i_clzero, 0x80000008, EBX, 0, 0},
    {"MONITORX", i_monitorx, 0x80000001, ECX, 29, 0},
    {"RDPKRU", i_rdpkru, 7, ECX, 3, 0},
    {"WRSSD", i_wrss, 7, ECX, 7, 0},
};

static void outside_the_model(void)
{
    if (!option("software")) {
        skip("a hypervisor on hardware cannot take instructions away");
        return;
    }
    for (unsigned i = 0; i < sizeof(instructions) / sizeof(instructions[0]); i++) {
        const struct instruction *in = &instructions[i];

        if (!has_feature(in->leaf, in->reg, in->bit)) {
            const struct trap t = probe(in->code, 0, 0);

            check(in->name, VECTOR_UD, t.vector);
        }
    }
}

static void inside_the_model(void)
{
    for (unsigned i = 0; i < sizeof(instructions) / sizeof(instructions[0]); i++) {
        const struct instruction *in = &instructions[i];

        if (in->runs && has_feature(in->leaf, in->reg, in->bit)) {
            const struct trap t = probe(in->code, 0, 0);

            check(in->name, NO_TRAP, t.vector);
        }
    }
}

static void check_undefined(const char *code)
{
    const struct trap t = probe(code, 0, 0);

    check_trap_at(&t, VECTOR_UD, 0, code);
}

static void undefined(void)
{
    struct trap t;

    CODE(i_ud2, "ud2");
    CODE(i_ud1, "ud1 %ecx, %eax");
    CODE(i_push_es, ".byte 0x06");
    CODE(i_aaa, ".byte 0x37");
    CODE(i_pusha, ".byte 0x60");
    CODE(i_into, ".byte 0xce");
    CODE(i_far_call, ".byte 0x9a, 0, 0, 0, 0, 8, 0");
    CODE(i_salc, ".byte 0xd6");
    CODE(i_grp5_7, ".byte 0xff, 0xf8");
    CODE(i_too_long,
         ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90,0x90; "
         "ret");
    static const char *const none[] = {i_ud2,   i_ud1,      i_push_es, i_aaa,
                                       i_pusha, i_far_call, i_grp5_7};

    for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        check_undefined(none[i]);
    t = probe(i_too_long, 0, 0); /* 15 bytes: the 14 prefixes and NOP are fine */
    check_no_trap(&t);
    if (option("tcg")) /* QEMU 10's TCG takes the two below a hypervisor */
        return;
    check_undefined(i_into);
    check_undefined(i_salc);
}

static void too_long(void)
{
    struct trap t;

    CODE(i_16_bytes,
         ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90; "
         "ret");
    t = probe(i_16_bytes, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, i_16_bytes);
}

/* ---- control registers
 * ------------------------------------------------------------------------------- */

CODE(set_cr0, "mov %rdi, %cr0; ret");
CODE(set_cr3, "mov %rdi, %cr3; ret");
CODE(set_cr4, "mov %rdi, %cr4; ret");
CODE(set_cr8, "mov %rdi, %cr8; ret");
CODE(get_cr1, ".byte 0x0f, 0x20, 0xc8; ret");
CODE(get_cr5, ".byte 0x0f, 0x20, 0xe8; ret");

static void refuses(const char *what, const char *code, uint64_t value)
{
    const struct trap t = probe(code, value, 0);

    check(what, VECTOR_GP, t.vector);
    check(what, 0, t.error);
    check(what, (uint64_t)code, t.rip);
}

static void control_registers(void)
{
    const uint64_t cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
    struct trap t;

    refuses("CR0: PG without PE", set_cr0, cr0 & ~(uint64_t)CR0_PE);
    refuses("CR0: NW without CD", set_cr0, cr0 | CR0_NW);
    refuses("CR4: PAE clear", set_cr4, cr4 & ~(uint64_t)CR4_PAE);
    refuses("CR4: reserved", set_cr4, cr4 | 1ull << 15);
    if (!option("tcg")) { /* QEMU's TCG drops the bits */
        refuses("CR0: upper half", set_cr0, cr0 | 1ull << 32);
        refuses("CR4: upper half", set_cr4, cr4 | 1ull << 40);
        refuses("CR8", set_cr8, 16);
        if ((cpuid(0x80000008, 0).eax & 0xff) < 52)
            refuses("CR3", set_cr3, cr3 | 1ull << 51);
    }
    check("CR0 as it was", cr0, read_cr0());
    check("CR4 as it was", cr4, read_cr4());
    t = probe(get_cr1, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, get_cr1);
    t = probe(get_cr5, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, get_cr5);
}

static void control_features(void)
{
    static const struct {
        uint64_t bit;
        uint32_t leaf;
        uint8_t reg, feature;
    } bits[] = {
        {CR4_SMEP, 7, EBX, 7},     {CR4_SMAP, 7, EBX, 20}, {CR4_PCIDE, 1, ECX, 17},
        {CR4_FSGSBASE, 7, EBX, 0}, {CR4_UMIP, 7, ECX, 2},  {CR4_OSXSAVE, 1, ECX, 26},
    };

    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        const struct trap t = probe(set_cr4, read_cr4() | bits[i].bit, 0);

        check("CR4 takes what CPUID offers",
              has_feature(bits[i].leaf, bits[i].reg, bits[i].feature) ? NO_TRAP : VECTOR_GP,
              t.vector);
        write_cr4(read_cr4() & ~bits[i].bit);
    }
}

static void machine_status_word(void)
{
    uint64_t msw;

    write_cr0(read_cr0() | CR0_TS);
    asm volatile("smsw %0" : "=r"(msw));
    check("SMSW", read_cr0() & 0xffff, msw & 0xffff);
    asm volatile("clts");
    check("CLTS", 0, read_cr0() & CR0_TS);
    asm volatile("lmsw %w0" : : "r"((uint32_t)(CR0_TS | CR0_MP))); /* cannot clear PE */
    check("LMSW", CR0_PE | CR0_MP | CR0_TS, read_cr0() & (CR0_PE | CR0_MP | CR0_TS));
    asm volatile("clts");
}

static void et_is_fixed(void)
{
    write_cr0(read_cr0() & ~0x10ull);
    check("CR0.ET", 0x10, read_cr0() & 0x10);
}

static void fsgsbase(void)
{
    struct trap t;

    CODE(wr_fs, "wrfsbase %rdi; rdfsbase %rax; ret");
    if (!has_feature(7, EBX, 0)) {
        if (option("software")) {
            t = probe(wr_fs, 5, 0);
            check_trap_at(&t, VECTOR_UD, 0, wr_fs);
        }
        skip("FSGSBASE is not offered");
        return;
    }
    t = probe(wr_fs, 5, 0);
    check_trap_at(&t, VECTOR_UD, 0, wr_fs); /* CR4.FSGSBASE is clear */
    write_cr4(read_cr4() | CR4_FSGSBASE);
    t = probe(wr_fs, 0x123456789a, 0);
    check_no_trap(&t);
    check("FS base", 0x123456789a, t.rax);
    if (option("tcg")) /* QEMU's TCG takes any */
        return;
    t = probe(wr_fs, 1ull << 62, 0);
    check_trap_at(&t, VECTOR_GP, 0, wr_fs);
}

/* ---- MSRs
 * ---------------------------------------------------------------------------------------------- */

CODE(msr_read, "mov %edi, %ecx; rdmsr; ret");
CODE(msr_write, "mov %rsi, %rdx; mov %esi, %eax; shr $32, %rdx; mov %edi, %ecx; wrmsr; ret");
enum { MSR_READ_AT = 2, MSR_WRITE_AT = 11 };
enum { MSR_APIC_BASE = 0x1b, MSR_PAT = 0x277, MSR_MTRR_DEF = 0x2ff };

static void check_read_refused(const char *what, uint32_t index)
{
    const struct trap t = probe(msr_read, index, 0);

    check(what, VECTOR_GP, t.vector);
    check(what, (uint64_t)msr_read + MSR_READ_AT, t.rip);
}

static void check_write_refused(const char *what, uint32_t index, uint64_t value)
{
    const struct trap t = probe(msr_write, index, value);

    check(what, VECTOR_GP, t.vector);
    check(what, (uint64_t)msr_write + MSR_WRITE_AT, t.rip);
}

static void msr_unknown(void)
{
    check_read_refused("read", 0x12345678);
    check_write_refused("write", 0x12345678, 0);
    check_read_refused("read", 0xc0000400);
}

static void msr_efer(void)
{
    const uint64_t efer = rdmsr(MSR_EFER);

    check_write_refused("a reserved bit", MSR_EFER, efer | 1 << 9);
    check_write_refused("the upper half", MSR_EFER, efer | 1ull << 33);
    check_write_refused("LME with paging on", MSR_EFER, efer & ~(uint64_t)EFER_LME);
    check("as it was", efer, rdmsr(MSR_EFER));
    wrmsr(MSR_EFER, efer & ~(uint64_t)EFER_LMA); /* no fault: LMA is the CPU's (SDM vol 3 §2.2.1) */
    check("LMA stays", efer, rdmsr(MSR_EFER));
}

static void msr_values(void)
{
    check_write_refused("PAT: type 2", MSR_PAT, 0x0007040600070402);
    check_write_refused("PAT: type 3", MSR_PAT, 0x0307040600070406);
    wrmsr(MSR_PAT, 0x0007040600070106);
    check("PAT", 0x0007040600070106, rdmsr(MSR_PAT));
    wrmsr(MSR_PAT, 0x0007040600070406);
    check_write_refused("APIC base: reserved", MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1);
    check_write_refused("APIC base: x2APIC without the APIC", MSR_APIC_BASE,
                        rdmsr(MSR_APIC_BASE) & ~(1ull << 11));
}

static void msr_x2apic(void)
{
    check_read_refused("EOI is write-only", APIC_EOI);
    check_read_refused("SELF IPI is write-only", APIC_SELF_IPI);
    check_write_refused("the ID is read-only", APIC_ID, 0);
    check_write_refused("PPR is read-only", APIC_PPR, 0);
    if (option("software")) /* KVM takes any */
        check_write_refused("EOI takes 0", APIC_EOI, 1);
    if (option("software")) /* nor does it mind these */
        check_write_refused("TPR: upper bits", APIC_TPR, 0x100);
    check_read_refused("no such register", 0x804);
}

static void msr_tsc(void)
{
    uint64_t before = rdtsc(), now;

    now = rdtsc();
    check_true("goes forward", now >= before);
    wrmsr(0x10, 1ull << 40);
    now = rdtsc();
    check_true("written", now >= 1ull << 40 && now < (1ull << 40) + (1ull << 36));
}

static const struct test tests[] = {
    {"CPUID: instructions outside the model", outside_the_model},
    {"CPUID: instructions of the model", inside_the_model},
    {"#UD: undefined in 64-bit mode", undefined},
    {"#GP: more than 15 bytes", too_long},
    {"control: what CR0, CR3, CR4 and CR8 refuse", control_registers},
    {"control: CR4 and CPUID", control_features},
    {"control: SMSW, LMSW, CLTS", machine_status_word},
    {"control: CR0.ET", et_is_fixed},
    {"control: FSGSBASE", fsgsbase},
    {"MSR: unknown", msr_unknown},
    {"MSR: EFER", msr_efer},
    {"MSR: values that are refused", msr_values},
    {"MSR: x2APIC", msr_x2apic},
    {"MSR: TSC", msr_tsc},
};

void feature_tests(void)
{
    TESTS(tests);
}

/*
 * exec_system_test.c - control registers, MSRs, fast system calls, CPUID, and what each refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/segment.h"
#include "cpu/jit/system_fake.h"
#include "cpu/jit/system_internal.h"

enum { CODE = 0x10000, DATA = 0x8000 };

static int execute(struct fake *f, struct insn i)
{
    i.len = i.len ? i.len : 2;
    i.asize = f->cpu.long_mode ? 8 : 4;
    i.base = i.base ? i.base : REG_NONE;
    i.index = REG_NONE;
    i.seg = SEG_DS;
    return fake_execute(f, &i);
}

static struct fake *machine(void)
{
    struct fake *f = fake_new();

    f->cpu.rip = CODE;
    f->cpu.gpr[RSP] = 0x20000;
    return f;
}

static int to_cr(struct fake *f, unsigned cr, uint64_t value)
{
    f->cpu.gpr[RAX] = value;
    return execute(
        f,
        (struct insn){.op = OP_MOV_TO_CR, .size = f->cpu.long_mode ? 8 : 4, .reg = cr, .rm = RAX});
}

static int wrmsr(struct fake *f, uint32_t index, uint64_t value)
{
    f->cpu.gpr[RCX] = index;
    f->cpu.gpr[RAX] = (uint32_t)value | 0xdead00000000ull; /* upper halves do not count */
    f->cpu.gpr[RDX] = value >> 32 | 0xbeef00000000ull;
    return execute(f, (struct insn){.op = OP_WRMSR});
}

static uint64_t rdmsr(struct fake *f, uint32_t index)
{
    f->cpu.gpr[RCX] = index;
    assert_int_equal(execute(f, (struct insn){.op = OP_RDMSR}), FAKE_OK);
    return f->cpu.gpr[RAX] | f->cpu.gpr[RDX] << 32;
}

static bool rdmsr_refused(struct fake *f, uint32_t index)
{
    f->cpu.gpr[RCX] = index;
    return execute(f, (struct insn){.op = OP_RDMSR}) == VECTOR_GP;
}

static void give_cpuid(struct fake *f, enum cpu_model model)
{
    const struct cpu_topology topology = {1, 2, 1};
    struct cpuid_table supported;
    struct qz_error err = {0};

    jit_cpuid_supported(&supported);
    if (cpu_model_cpuid(model, &supported, &topology, 1, 2500000, &f->cpu.cpuid, &err) != 0)
        fail_msg("%s", err.text);
    f->cpu.features = jit_features(&f->cpu.cpuid);
    f->cpu.apic_base = 0xfee00900;
}

/* --- Control registers -------------------------------------------------------------------------
 */

static void test_cr0(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    const uint64_t cr0 = cpu->cr0;

    assert_int_equal(to_cr(f, 0, cr0 | 1ull << 32), VECTOR_GP);
    assert_int_equal(to_cr(f, 0, cr0 & ~(uint64_t)CR0_PE), VECTOR_GP);
    assert_int_equal(to_cr(f, 0, cr0 | CR0_NW), VECTOR_GP);
    assert_int_equal(to_cr(f, 0, cr0 & ~CR0_PG), VECTOR_GP); /* in 64-bit code */
    assert_int_equal(cpu->cr0, cr0);
    assert_int_equal(cpu->rip, CODE);
    assert_int_equal(to_cr(f, 0, cr0 | CR0_TS | 1 << 7), FAKE_OK); /* reserved: ignored */
    assert_int_equal(cpu->cr0, cr0 | CR0_TS);
    assert_int_equal(execute(f, (struct insn){.op = OP_CLTS}), FAKE_OK);
    assert_int_equal(cpu->cr0, cr0);
    cpu->gpr[RBX] = 0xfff0;
    assert_int_equal(execute(f, (struct insn){.op = OP_LMSW, .rm = RBX}), FAKE_OK);
    assert_int_equal(cpu->cr0, cr0); /* PE stays */
    assert_int_equal(execute(f, (struct insn){.op = OP_SMSW, .size = 2, .rm = RBX}), FAKE_OK);
    assert_int_equal(cpu->gpr[RBX], cr0 & 0xffff);
    fake_free(f);
}

/* The way into IA-32e mode, as a boot loader goes it, and out. */
static void test_mode_switch(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    cpu->cr0 = CR0_ET;
    cpu->cr4 = cpu->efer = 0;
    cpu->seg[SEG_CS].attr = SEG_P | SEG_S | SEG_DB | 0xb;
    cpu->tr.attr = SEG_P | TYPE_TSS_BUSY;
    jit_mode_changed(cpu);
    assert_int_equal(to_cr(f, 0, CR0_PE | CR0_ET), FAKE_OK);
    assert_int_equal(wrmsr(f, 0xc0000080, EFER_LME), FAKE_OK);
    assert_int_equal(to_cr(f, 0, CR0_PE | CR0_PG), VECTOR_GP); /* no PAE */
    assert_int_equal(to_cr(f, 4, CR4_PAE), FAKE_OK);
    assert_int_equal(to_cr(f, 0, CR0_PE | CR0_PG), FAKE_OK);
    assert_int_equal(cpu->efer, EFER_LME | EFER_LMA);
    assert_false(cpu->long_mode); /* compatibility */
    assert_int_equal(wrmsr(f, 0xc0000080, 0), VECTOR_GP);
    assert_int_equal(to_cr(f, 4, 0), VECTOR_GP);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_PCIDE), FAKE_OK);
    assert_int_equal(to_cr(f, 0, CR0_PE), VECTOR_GP); /* PCIDE */
    assert_int_equal(to_cr(f, 4, CR4_PAE), FAKE_OK);
    assert_int_equal(to_cr(f, 0, CR0_PE), FAKE_OK);
    assert_int_equal(cpu->efer, EFER_LME);

    /* PAE paging loads its PDPTEs. */
    assert_int_equal(wrmsr(f, 0xc0000080, 0), FAKE_OK);
    f->bad_pdptes = true;
    assert_int_equal(to_cr(f, 0, CR0_PE | CR0_PG), VECTOR_GP);
    assert_int_equal(cpu->cr0, CR0_PE | CR0_ET);
    f->bad_pdptes = false;
    assert_int_equal(to_cr(f, 0, CR0_PE | CR0_PG), FAKE_OK);
    f->bad_pdptes = true;
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_PGE), VECTOR_GP);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_TSD), FAKE_OK);
    fake_free(f);
}

static void test_cr3_cr4_cr8(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(to_cr(f, 3, 1ull << 40), VECTOR_GP);
    assert_int_equal(to_cr(f, 3, 1ull << 63), VECTOR_GP);
    assert_int_equal(to_cr(f, 3, 0x5001), FAKE_OK);
    assert_int_equal(f->flushes, 1);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_PCIDE), VECTOR_GP); /* CR3[11:0] */
    assert_int_equal(to_cr(f, 3, 0x5000), FAKE_OK);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_PCIDE), FAKE_OK);
    assert_int_equal(to_cr(f, 3, 1ull << 63 | 0x6001), FAKE_OK);
    assert_int_equal(f->flushes, 2);
    assert_int_equal(cpu->cr3, 0x6001);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_VME), VECTOR_GP);
    assert_int_equal(to_cr(f, 4, CR4_PAE | 1 << 12), VECTOR_GP); /* LA57 */
    cpu->features &= ~CPU_FEATURE(CPU_SMEP);
    assert_int_equal(to_cr(f, 4, CR4_PAE | CR4_SMEP), VECTOR_GP);
    assert_int_equal(to_cr(f, 8, 16), VECTOR_GP);
    cpu->attention = 0;
    assert_int_equal(to_cr(f, 8, 9), FAKE_OK);
    assert_true(cpu->attention & ATTENTION_KICK);
    assert_int_equal(to_cr(f, 5, 0), VECTOR_UD);
    assert_int_equal(to_cr(f, 2, ~0ull), FAKE_OK);
    assert_int_equal(
        execute(f, (struct insn){.op = OP_MOV_FROM_CR, .size = 8, .reg = 2, .rm = RDI}), FAKE_OK);
    assert_true(cpu->gpr[RDI] == ~0ull);
    cpu->cpl = 3;
    assert_int_equal(to_cr(f, 3, 0), VECTOR_GP);
    assert_int_equal(
        execute(f, (struct insn){.op = OP_MOV_FROM_CR, .size = 8, .reg = 0, .rm = RDI}), VECTOR_GP);
    fake_free(f);
}

static void test_debug_registers(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    struct insn to = {.op = OP_MOV_TO_DR, .size = 8, .reg = 7, .rm = RAX};

    cpu->gpr[RAX] = 0xffff;
    assert_int_equal(execute(f, to), FAKE_OK);
    assert_int_equal(cpu->dr7, 0x27ff);
    assert_int_equal(execute(f, to), VECTOR_DB); /* general detect is on now */
    cpu->dr7 = 0x400;
    to.reg = 4; /* DR6 */
    cpu->gpr[RAX] = 0;
    assert_int_equal(execute(f, to), FAKE_OK);
    assert_int_equal(cpu->dr6, 0xffff0ff0);
    cpu->cr4 |= CR4_DE;
    assert_int_equal(execute(f, to), VECTOR_UD);
    to.reg = 6;
    cpu->gpr[RAX] = 1ull << 32;
    assert_int_equal(execute(f, to), VECTOR_GP);
    to.reg = 0;
    assert_int_equal(execute(f, to), FAKE_OK);
    assert_int_equal(cpu->dr[0], 1ull << 32);
    to.reg = 8;
    assert_int_equal(execute(f, to), VECTOR_UD);
    fake_free(f);
}

static void test_tables_and_umip(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    struct insn lgdt = {.op = OP_LGDT, .size = 8, .mem = true, .disp = DATA};
    struct insn sidt = {.op = OP_SIDT, .size = 8, .mem = true, .disp = DATA + 32};

    fake_store(f, DATA, 2, 0x7f);
    fake_store(f, DATA + 2, 8, 0xffff800000001000);
    assert_int_equal(execute(f, lgdt), FAKE_OK);
    assert_int_equal(cpu->gdt.base, 0xffff800000001000);
    assert_int_equal(cpu->gdt.limit, 0x7f);
    fake_store(f, DATA + 2, 8, 0x800000000000);
    assert_int_equal(execute(f, lgdt), VECTOR_GP);
    cpu->idt = (struct descriptor_table){0x1122334455, 0xfff};
    assert_int_equal(execute(f, sidt), FAKE_OK);
    assert_int_equal(fake_load(f, DATA + 34, 8), 0x1122334455);
    cpu->cpl = 3;
    assert_int_equal(execute(f, lgdt), VECTOR_GP);
    assert_int_equal(execute(f, sidt), FAKE_OK);
    cpu->cr4 |= CR4_UMIP;
    assert_int_equal(execute(f, sidt), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_SMSW, .size = 4}), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_STR, .size = 4}), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_SLDT, .size = 4}), VECTOR_GP);
    fake_free(f);
}

static void test_invalidation(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    struct insn invpcid = {.op = OP_INVPCID, .reg = RAX, .mem = true, .disp = DATA};

    cpu->gpr[RBX] = 1ull << 47;
    assert_int_equal(execute(f, (struct insn){.op = OP_INVLPG, .mem = true, .base = RBX}), FAKE_OK);
    assert_int_equal(f->invlpgs, 0); /* not canonical: nothing */
    cpu->gpr[RBX] = 0x5000;
    assert_int_equal(execute(f, (struct insn){.op = OP_INVLPG, .mem = true, .base = RBX}), FAKE_OK);
    assert_int_equal(f->invlpgs, 1);
    cpu->gpr[RAX] = 4;
    assert_int_equal(execute(f, invpcid), VECTOR_GP);
    cpu->gpr[RAX] = 2;
    assert_int_equal(execute(f, invpcid), FAKE_OK);
    fake_store(f, DATA, 8, 0x1000);
    assert_int_equal(execute(f, invpcid), VECTOR_GP);
    fake_store(f, DATA, 8, 5);
    cpu->gpr[RAX] = 1;
    assert_int_equal(execute(f, invpcid), VECTOR_GP); /* a PCID without CR4.PCIDE */
    cpu->cr4 |= CR4_PCIDE;
    assert_int_equal(execute(f, invpcid), FAKE_OK);
    cpu->gpr[RAX] = 0;
    fake_store(f, DATA + 8, 8, 1ull << 47);
    assert_int_equal(execute(f, invpcid), VECTOR_GP);
    assert_int_equal(f->invpcids, 2);
    fake_free(f);
}

/* --- Fast system calls -------------------------------------------------------------------------
 */

static void test_syscall_sysret(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(wrmsr(f, 0xc0000081, 0x0023001000000000), FAKE_OK);
    assert_int_equal(wrmsr(f, 0xc0000082, 0xffff800000011000), FAKE_OK);
    assert_int_equal(wrmsr(f, 0xc0000082, 0x0000800000000000), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0xc0000084, RFLAGS_IF | RFLAGS_TF | RFLAGS_AC), FAKE_OK);
    cpu->gpr[RCX] = CODE;
    cpu->gpr[R11] = RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VM | RFLAGS_RF;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSRET, .size = 8}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->rip, CODE);
    assert_int_equal(cpu->seg[SEG_CS].selector, 0x33);
    assert_int_equal(cpu->seg[SEG_SS].selector, 0x2b);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL);
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSRET, .size = 8}), VECTOR_GP);

    assert_int_equal(execute(f, (struct insn){.op = OP_SYSCALL}), FAKE_OK);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->rip, 0xffff800000011000);
    assert_int_equal(cpu->gpr[RCX], CODE + 2);
    assert_int_equal(cpu->gpr[R11], RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | RFLAGS_IOPL);
    assert_int_equal(cpu->seg[SEG_CS].selector, 0x10);
    assert_int_equal(cpu->seg[SEG_SS].selector, 0x18);
    jit_mode_changed(cpu); /* derives the same */
    assert_true(cpu->long_mode && cpu->cpl == 0 && cpu->stack_size == 8);

    /* Not canonical: before the change of ring on Intel's. */
    cpu->gpr[RCX] = 1ull << 47;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSRET, .size = 8}), VECTOR_GP);
    assert_int_equal(cpu->cpl, 0);
    cpu->gpr[RCX] = CODE | 5ull << 32;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSRET, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->code_width, CODE_32);
    assert_int_equal(cpu->rip, CODE);
    assert_int_equal(cpu->seg[SEG_CS].selector, 0x23);
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSCALL}), VECTOR_UD); /* not on Intel's */
    cpu->efer &= ~(uint64_t)EFER_SCE;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSRET, .size = 8}), VECTOR_UD);
    fake_free(f);
}

static void test_sysenter_sysexit(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(execute(f, (struct insn){.op = OP_SYSENTER}), VECTOR_GP); /* CS null */
    assert_int_equal(wrmsr(f, 0x174, 0x10), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x175, 0x20000), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x176, 0xffff800000012000), FAKE_OK);
    cpu->gpr[RDX] = CODE;
    cpu->gpr[RCX] = 0x30000;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSEXIT, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->seg[SEG_CS].selector, 0x23);
    assert_int_equal(cpu->gpr[RSP], 0x30000);
    cpu->rflags |= RFLAGS_IF;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSENTER}), FAKE_OK);
    assert_int_equal(cpu->cpl, 0);
    assert_true(cpu->long_mode);
    assert_int_equal(cpu->rip, 0xffff800000012000);
    assert_false(cpu->rflags & RFLAGS_IF);
    cpu->gpr[RCX] = 1ull << 50;
    assert_int_equal(execute(f, (struct insn){.op = OP_SYSEXIT, .size = 8}), VECTOR_GP);
    fake_free(f);
}

static void test_bases(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(wrmsr(f, 0xc0000101, 0x1111), FAKE_OK);
    assert_int_equal(wrmsr(f, 0xc0000102, 0xffff888800000000), FAKE_OK);
    assert_int_equal(execute(f, (struct insn){.op = OP_SWAPGS}), FAKE_OK);
    assert_int_equal(cpu->seg[SEG_GS].base, 0xffff888800000000);
    assert_int_equal(rdmsr(f, 0xc0000102), 0x1111);
    cpu->gpr[RBX] = 0x7777;
    assert_int_equal(execute(f, (struct insn){.op = OP_WRFSBASE, .size = 8, .rm = RBX}), VECTOR_UD);
    cpu->cr4 |= CR4_FSGSBASE;
    assert_int_equal(execute(f, (struct insn){.op = OP_WRFSBASE, .size = 8, .rm = RBX}), FAKE_OK);
    assert_int_equal(rdmsr(f, 0xc0000100), 0x7777);
    cpu->gpr[RBX] = 1ull << 47;
    assert_int_equal(execute(f, (struct insn){.op = OP_WRFSBASE, .size = 8, .rm = RBX}), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_RDGSBASE, .size = 4, .rm = RBX}), FAKE_OK);
    assert_int_equal(cpu->gpr[RBX], 0);
    cpu->cpl = 3;
    assert_int_equal(execute(f, (struct insn){.op = OP_SWAPGS}), VECTOR_GP);
    fake_free(f);
}

/* --- MSRs --------------------------------------------------------------------------------------
 */

static void test_msrs(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    give_cpuid(f, CPU_MODEL_HOST);
    assert_true(rdmsr_refused(f, 0x12345));
    assert_int_equal(wrmsr(f, 0x12345, 0), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0x277, 0x0007040600070406), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x277, 2), VECTOR_GP);
    assert_int_equal(rdmsr(f, 0x277), 0x0007040600070406);
    assert_int_equal(rdmsr(f, 0xfe) & 0xff, 8);
    assert_int_equal(wrmsr(f, 0x201, 1ull << 40), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0x201, 0xff80000800), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x200, 3), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0x26f, 0x0606060606060606), FAKE_OK);
    assert_int_equal(rdmsr(f, 0x26f), 0x0606060606060606);
    assert_int_equal(wrmsr(f, 0x2ff, 0xc06), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x2ff, 0x1006), VECTOR_GP);
    assert_true(rdmsr(f, 0x1a0) & 1); /* fast strings */
    assert_int_equal(wrmsr(f, 0x1a0, 0), FAKE_OK);
    assert_int_equal(rdmsr(f, 0x1a0), 0);
    if (!guest_is_amd(&f->cpu))           /* AMD's processors have no such register */
        assert_true(rdmsr(f, 0x10a) & 1); /* RDCL_NO */
    assert_int_equal(wrmsr(f, 0x10a, 0), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0x48, 8), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0x48, 1), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x49, 1), FAKE_OK);
    assert_true(rdmsr_refused(f, 0x49));
    assert_int_equal(wrmsr(f, 0xc0000103, 1ull << 32), VECTOR_GP);
    assert_int_equal(wrmsr(f, 0xc0000103, 0x1001), FAKE_OK);
    assert_int_equal(execute(f, (struct insn){.op = OP_RDTSCP}), FAKE_OK);
    assert_int_equal(cpu->gpr[RCX], 0x1001);
    assert_int_equal(execute(f, (struct insn){.op = OP_RDPID, .rm = RSI}), FAKE_OK);
    assert_int_equal(cpu->gpr[RSI], 0x1001);
    cpu->cpl = 3;
    assert_true(rdmsr_refused(f, 0x10));
    cpu->cr4 |= CR4_TSD;
    assert_int_equal(execute(f, (struct insn){.op = OP_RDTSC}), VECTOR_GP);
    fake_free(f);
}

static void test_machines_msrs(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(wrmsr(f, 0x830, 0x100000041), FAKE_OK);
    assert_int_equal(f->machine_msr, 0x830);
    assert_int_equal(f->machine_value, 0x100000041);
    assert_int_equal(wrmsr(f, 0x808, 0x50), FAKE_OK);
    assert_int_equal(cpu->cr8, 5);
    assert_int_equal(wrmsr(f, 0x1b, 0xfee00d00), FAKE_OK);
    assert_int_equal(cpu->apic_base, 0xfee00d00);
    assert_int_equal(wrmsr(f, 0x6e0, 77), FAKE_OK);
    assert_int_equal(rdmsr(f, 0x6e0), 77);
    f->machine_fault = true;
    assert_true(rdmsr_refused(f, 0x802));
    assert_int_equal(wrmsr(f, 0x1b, 0), VECTOR_GP);
    assert_int_equal(cpu->apic_base, 0xfee00d00);
    fake_free(f);
}

/* The clock of `at`, for the guest's counter now. */
static uint64_t guest_ns(struct fake *f, uint64_t at)
{
    const uint64_t delta = jit_guest_tsc(&f->cpu) - fake_load(f, at + 8, 8);
    const int8_t shift = (int8_t)f->memory[at + 28];
    const uint64_t ticks = shift < 0 ? delta >> -shift : delta << shift;

    assert_int_equal(fake_load(f, at, 4) & 1, 0);
    return fake_load(f, at + 16, 8) +
           (uint64_t)((unsigned __int128)ticks * fake_load(f, at + 24, 4) >> 32);
}

static void test_time(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    uint64_t tsc, ns;

    give_cpuid(f, CPU_MODEL_PORTABLE);
    assert_true(msr_restore(cpu, 0x10, 0));
    tsc = rdmsr(f, 0x10);
    assert_true(rdmsr(f, 0x10) > tsc);
    assert_int_equal(wrmsr(f, 0x4b564d01, DATA | 1), FAKE_OK);
    assert_int_equal(f->memory[DATA + 29], 1); /* stable */
    ns = guest_ns(f, DATA);
    /* 2.5 GHz: counter and clock started together. */
    assert_true(ns <= jit_guest_tsc(cpu) * 2 / 5);
    assert_true(ns >= tsc * 2 / 5 - 2);

    /* The guest's own writes move the counter, not the clock. */
    assert_int_equal(wrmsr(f, 0x10, 1ull << 50), FAKE_OK);
    assert_true(rdmsr(f, 0x10) >= 1ull << 50);
    assert_true(rdmsr(f, 0x3b) > 1ull << 49);
    assert_true(guest_ns(f, DATA) >= ns);
    assert_true(guest_ns(f, DATA) < 1ull << 45);
    assert_int_equal(wrmsr(f, 0x3b, 0), FAKE_OK);
    assert_true(rdmsr(f, 0x10) < 1ull << 50);

    /* Outside memory, across its end, or switched off: nothing is written. */
    assert_int_equal(wrmsr(f, 0x4b564d01, 1ull << 40 | 1), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x4b564d01, (FAKE_MEMORY - 16) | 1), FAKE_OK);
    assert_int_equal(fake_load(f, FAKE_MEMORY - 16, 8), 0);
    assert_int_equal(wrmsr(f, 0x4b564d01, ~0ull), FAKE_OK);
    assert_int_equal(wrmsr(f, 0x4b564d00, DATA + 64), FAKE_OK);
    assert_true(fake_load(f, DATA + 68, 4) > 1600000000);
    fake_free(f);
}

/* vCPUs that are restored while the clocks stand count the same. */
static void test_tsc_of_two(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *second = aligned_alloc(64, sizeof(*second));

    assert_non_null(second);
    memcpy(second, &f->cpu, sizeof(*second));
    second->vm = &f->vm;
    f->vm.clocks_stand = true;
    f->vm.stopped_tsc = 12345;
    assert_true(msr_restore(&f->cpu, 0x10, 1ull << 55));
    assert_true(msr_restore(second, 0x10, 1ull << 55));
    assert_true(msr_restore(second, 0x3b, 7)); /* IA32_TSC_ADJUST does not move it */
    assert_int_equal(jit_guest_tsc(second), 1ull << 55);
    assert_int_equal(f->cpu.tsc_offset, second->tsc_offset);
    free(second);
    fake_free(f);
}

/* Set to what another accelerator's said, it goes on from there, and the guest reads it. */
static void test_pv_clock_set(void **state)
{
    struct fake *f = machine();
    const uint64_t hour = 3600ull * 1000000000;

    give_cpuid(f, CPU_MODEL_PORTABLE);
    f->vm.clocks_stand = true;
    f->vm.stopped_tsc = 12345;
    assert_true(pv_clock(&f->cpu) < hour);
    assert_int_equal(wrmsr(f, 0x4b564d01, (DATA + 64) | 1), FAKE_OK);
    f->vm.pv_clock_ahead += hour - pv_clock(&f->cpu);
    pv_clock_moved(&f->cpu);
    assert_int_equal(pv_clock(&f->cpu), hour);
    assert_int_equal(fake_load(f, DATA + 64 + 16, 8), hour);
    fake_free(f);
}

/* --- CPUID and the rest ------------------------------------------------------------------------
 */

static const uint64_t *cpuid(struct fake *f, uint32_t leaf, uint32_t subleaf)
{
    f->cpu.gpr[RAX] = leaf;
    f->cpu.gpr[RCX] = subleaf;
    assert_int_equal(execute(f, (struct insn){.op = OP_CPUID}), FAKE_OK);
    return f->cpu.gpr;
}

static void test_cpuid(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    const uint64_t *r;

    give_cpuid(f, CPU_MODEL_PORTABLE);
    assert_true(cpu->features & CPU_FEATURE(CPU_SSE42));
    assert_true(cpu->features & CPU_FEATURE(CPU_HYPERCALL));
    assert_false(cpu->features & (CPU_FEATURE(CPU_XSAVE) | CPU_FEATURE(CPU_AVX)));
    r = cpuid(f, 0x40000000, 0);
    assert_int_equal(r[RBX], 0x4b4d564b);
    assert_true(cpuid(f, 0x40000001, 0)[RAX] & 8);
    assert_true(cpuid(f, 1, 0)[RDX] & 1 << 9);
    assert_false(cpuid(f, 1, 0)[RCX] & 1 << 27);
    assert_int_equal(cpuid(f, 1, 0)[RBX] >> 24, 1);
    cpu->apic_base = 0xfee00000;
    assert_false(cpuid(f, 1, 0)[RDX] & 1 << 9);
    assert_true(cpuid(f, 0x80000007, 0)[RDX] & 1 << 8);
    assert_int_equal(cpuid(f, 0xb, 1)[RCX], 0x201);
    assert_int_equal(cpuid(f, 0xb, 7)[RCX], 7);
    assert_int_equal(cpuid(f, 0xb, 7)[RDX], 1);
    assert_true(cpuid(f, 0x15, 0)[RBX] != 0);
    assert_int_equal(cpuid(f, 0x40000002, 0)[RAX], 0);
    give_cpuid(f, CPU_MODEL_HOST);
    assert_true(cpu->features & CPU_FEATURE(CPU_UMIP));
    assert_false(cpu->features & CPU_FEATURE(CPU_AVX));
    fake_free(f);
}

static void test_small_ones(void **state)
{
    struct fake *f = machine();
    struct jit_cpu *cpu = &f->cpu;
    bool seen[2] = {false, false};

    assert_int_equal(execute(f, (struct insn){.op = OP_HLT}), FAKE_OK);
    assert_true(cpu->halted);
    cpu->halted = false;
    assert_int_equal(execute(f, (struct insn){.op = OP_RDPMC}), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_XGETBV}), VECTOR_UD);
    assert_int_equal(execute(f, (struct insn){.op = OP_VMCALL}), FAKE_OK);
    assert_int_equal((int64_t)cpu->gpr[RAX], -1000);
    if (__builtin_cpu_supports("rdrnd")) {
        for (unsigned i = 0; i < 64; i++) {
            assert_int_equal(execute(f, (struct insn){.op = OP_RDRAND, .size = 8, .rm = RBX}),
                             FAKE_OK);
            assert_true(cpu->rflags & FLAG_CF);
            seen[cpu->gpr[RBX] & 1] = true;
        }
        assert_true(seen[0] && seen[1]);
    }
    fake_rights(f, DATA, 0);
    assert_int_equal(execute(f, (struct insn){.op = OP_CLFLUSH, .mem = true, .disp = DATA}),
                     VECTOR_PF);
    cpu->cpl = 3;
    assert_int_equal(execute(f, (struct insn){.op = OP_HLT}), VECTOR_GP);
    assert_false(cpu->halted);
    assert_int_equal(execute(f, (struct insn){.op = OP_WBINVD}), VECTOR_GP);
    assert_int_equal(execute(f, (struct insn){.op = OP_VMCALL}), FAKE_OK);
    assert_int_equal((int64_t)cpu->gpr[RAX], -1);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cr0),
        cmocka_unit_test(test_mode_switch),
        cmocka_unit_test(test_cr3_cr4_cr8),
        cmocka_unit_test(test_debug_registers),
        cmocka_unit_test(test_tables_and_umip),
        cmocka_unit_test(test_invalidation),
        cmocka_unit_test(test_syscall_sysret),
        cmocka_unit_test(test_sysenter_sysexit),
        cmocka_unit_test(test_bases),
        cmocka_unit_test(test_msrs),
        cmocka_unit_test(test_machines_msrs),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_tsc_of_two),
        cmocka_unit_test(test_pv_clock_set),
        cmocka_unit_test(test_cpuid),
        cmocka_unit_test(test_small_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * exec_system.c - MSRs, time, CPUID, halting, caches, random numbers, hypercalls; and the table of
 * system instructions.
 */
#include <linux/kvm_para.h>

#include "cpu/jit/counted.h"
#include "cpu/jit/msr.h"
#include "cpu/jit/system_internal.h"

static void set_pair(struct jit_cpu *cpu, uint64_t value) /* EDX:EAX */
{
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

static uint64_t get_pair(const struct jit_cpu *cpu)
{
    return (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
}

/* --- Model-specific registers, time ----------------------------------------------------------- */

static void exec_rdmsr(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value = 0;

    require_ring0(cpu);
    if (!msr_read(cpu, (uint32_t)cpu->gpr[RCX], &value))
        jit_raise_code(cpu, VECTOR_GP, 0);
    set_pair(cpu, value);
}

static void exec_wrmsr(struct jit_cpu *cpu, const struct insn *i)
{
    require_ring0(cpu);
    if (!msr_write(cpu, (uint32_t)cpu->gpr[RCX], get_pair(cpu)))
        jit_raise_code(cpu, VECTOR_GP, 0);
}

static void require_tsc(struct jit_cpu *cpu)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0)
        jit_raise_code(cpu, VECTOR_GP, 0);
}

static void exec_rdtsc(struct jit_cpu *cpu, const struct insn *i)
{
    require_tsc(cpu);
    set_pair(cpu, jit_guest_tsc(cpu));
}

static void exec_rdtscp(struct jit_cpu *cpu, const struct insn *i)
{
    require_tsc(cpu);
    set_pair(cpu, jit_guest_tsc(cpu));
    cpu->gpr[RCX] = (uint32_t)cpu->msrs->tsc_aux;
}

static void exec_rdpid(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, i->rm, cpu->long_mode ? 8 : 4, (uint32_t)cpu->msrs->tsc_aux);
}

/* There are no counters (CPUID leaf 0xA is absent). */
static void exec_rdpmc(struct jit_cpu *cpu, const struct insn *i)
{
    jit_raise_code(cpu, VECTOR_GP, 0);
}

static void exec_cpuid(struct jit_cpu *cpu, const struct insn *i)
{
    uint32_t out[4];

    jit_cpuid(cpu, (uint32_t)cpu->gpr[RAX], (uint32_t)cpu->gpr[RCX], out);
    cpu->gpr[RAX] = out[0];
    cpu->gpr[RBX] = out[1];
    cpu->gpr[RCX] = out[2];
    cpu->gpr[RDX] = out[3];
}

/* --- Extended control register ---------------------------------------------------------------- */

static void require_xsave(struct jit_cpu *cpu)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        jit_raise(cpu, VECTOR_UD);
}

static void exec_xgetbv(struct jit_cpu *cpu, const struct insn *i)
{
    require_xsave(cpu);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        jit_raise_code(cpu, VECTOR_GP, 0);
    set_pair(cpu, cpu->xcr0);
}

/* SDM vol 1 §13.3: x87 always, AVX only with SSE, nothing that CPUID does not have. */
static void exec_xsetbv(struct jit_cpu *cpu, const struct insn *i)
{
    const struct cpuid_entry *e = cpuid_find(&cpu->cpuid, 0xd, 0);
    const uint64_t offered = e ? e->eax | (uint64_t)e->edx << 32 : 1;
    const uint64_t value = get_pair(cpu);

    require_xsave(cpu);
    require_ring0(cpu);
    if ((uint32_t)cpu->gpr[RCX] != 0 || !(value & 1) || (value & ~offered) || (value & 6) == 4)
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->xcr0 = value;
}

/* --- Halting, caches, order ------------------------------------------------------------------- */

static void exec_hlt(struct jit_cpu *cpu, const struct insn *i)
{
    require_ring0(cpu);
    cpu->halted = true;
}

/* Guest memory is coherent: there is nothing to write back or to drop. */
static void exec_wbinvd(struct jit_cpu *cpu, const struct insn *i)
{
    require_ring0(cpu);
}

/* Checked as a load of one byte is. */
static void exec_clflush(struct jit_cpu *cpu, const struct insn *i)
{
    mmu_probe(cpu, jit_operand_linear(cpu, i, 1, false), 1, false);
}

static void exec_fence(struct jit_cpu *cpu, const struct insn *i)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* --- Random numbers, from the host's own instructions ----------------------------------------- */

static void set_random(struct jit_cpu *cpu, const struct insn *i, uint64_t value, bool good)
{
    jit_set_reg(cpu, i->rm, i->size, good ? value : 0);
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (good ? FLAG_CF : 0);
}

static void exec_rdrand(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value;
    bool good;

    if (cpu->vm->counted)
        return set_random(cpu, i, qz_random64(&cpu->vm->random), true);
    __asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(good));
    set_random(cpu, i, value, good);
}

static void exec_rdseed(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value;
    bool good;

    if (cpu->vm->counted)
        return set_random(cpu, i, qz_random64(&cpu->vm->random), true);
    __asm__ volatile("rdseed %0" : "=r"(value), "=@ccc"(good));
    set_random(cpu, i, value, good);
}

/* --- Hypercalls ------------------------------------------------------------------------------- */

/* KVM's interface (Linux Documentation/virt/kvm/x86/hypercalls.rst): no call is implemented, which
 * the feature leaf says too; user code may not ask. */
static void exec_vmcall(struct jit_cpu *cpu, const struct insn *i)
{
    const int64_t result = cpu->cpl != 0 ? -KVM_EPERM : -KVM_ENOSYS;

    jit_set_reg(cpu, RAX, cpu->long_mode ? 8 : 4, (uint64_t)result);
}

const struct jit_handler_entry jit_exec_system[] = {
    {OP_MOV_FROM_CR, exec_mov_from_cr},
    {OP_MOV_TO_CR, exec_mov_to_cr},
    {OP_MOV_FROM_DR, exec_mov_from_dr},
    {OP_MOV_TO_DR, exec_mov_to_dr},
    {OP_CLTS, exec_clts},
    {OP_LMSW, exec_lmsw},
    {OP_SMSW, exec_smsw},
    {OP_LGDT, exec_lgdt},
    {OP_LIDT, exec_lidt},
    {OP_SGDT, exec_sgdt},
    {OP_SIDT, exec_sidt},
    {OP_INVLPG, exec_invlpg},
    {OP_INVPCID, exec_invpcid},
    {OP_INVD, exec_wbinvd},
    {OP_WBINVD, exec_wbinvd},
    {OP_SYSCALL, exec_syscall},
    {OP_SYSRET, exec_sysret},
    {OP_SYSENTER, exec_sysenter},
    {OP_SYSEXIT, exec_sysexit},
    {OP_SWAPGS, exec_swapgs},
    {OP_RDFSBASE, exec_rdfsbase},
    {OP_RDGSBASE, exec_rdgsbase},
    {OP_WRFSBASE, exec_wrfsbase},
    {OP_WRGSBASE, exec_wrgsbase},
    {OP_RDMSR, exec_rdmsr},
    {OP_WRMSR, exec_wrmsr},
    {OP_RDTSC, exec_rdtsc},
    {OP_RDTSCP, exec_rdtscp},
    {OP_RDPID, exec_rdpid},
    {OP_RDPMC, exec_rdpmc},
    {OP_CPUID, exec_cpuid},
    {OP_HLT, exec_hlt},
    {OP_XGETBV, exec_xgetbv},
    {OP_XSETBV, exec_xsetbv},
    {OP_VMCALL, exec_vmcall},
    {OP_RDRAND, exec_rdrand},
    {OP_RDSEED, exec_rdseed},
    {OP_LFENCE, exec_fence},
    {OP_MFENCE, exec_fence},
    {OP_SFENCE, exec_fence},
    {OP_CLFLUSH, exec_clflush},
    {OP_UD, NULL},
};

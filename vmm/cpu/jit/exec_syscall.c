/*
 * exec_syscall.c - fast ways between user and kernel, and the bases of FS and GS.
 *
 * Intel and AMD differ at the edges: SYSCALL outside 64-bit code is AMD's only, SYSENTER in IA-32e
 * mode Intel's only, and a non-canonical RCX at SYSRET faults before (Intel) or after (AMD) the
 * change of ring. SDM vol 2 and APM vol 3, each by its name.
 */
#include "cpu/jit/msr.h"
#include "cpu/jit/system_internal.h"

enum {
    ATTR_CODE = SEG_P | SEG_S | SEG_G | TYPE_CODE | TYPE_READ_WRITE | TYPE_ACCESSED,
    ATTR_STACK = SEG_P | SEG_S | SEG_G | SEG_DB | TYPE_READ_WRITE | TYPE_ACCESSED,
    SYSRET_FLAGS = 0x3c7fd7, /* all that there are, but RF and VM */
};

/* Flat segments for `rip` in ring `cpl`; nothing is read from the GDT. */
static void enter(struct jit_cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, bool to_long,
                  uint64_t rip)
{
    const uint16_t dpl = (uint16_t)(cpl << SEG_DPL_SHIFT);

    cpu->seg[SEG_CS] = (struct segment){
        .limit = 0xffffffff, .selector = cs, .attr = ATTR_CODE | (to_long ? SEG_L : SEG_DB) | dpl};
    cpu->seg[SEG_SS] =
        (struct segment){.limit = 0xffffffff, .selector = ss, .attr = ATTR_STACK | dpl};
    cpu->next_rip = rip;
    /* jit_mode_changed(), shorter: the segments are known. */
    cpu->long_mode = to_long;
    cpu->code_width = to_long ? CODE_64 : CODE_32;
    cpu->stack_size = to_long ? 8 : 4;
    cpu->cpl = (uint8_t)cpl;
    mmu_set_changed(cpu);
}

/* --- SYSCALL and SYSRET ----------------------------------------------------------------------- */

void exec_syscall(struct jit_cpu *cpu, const struct insn *i)
{
    const struct jit_msrs *m = cpu->msrs;
    const uint16_t cs = m->star >> 32 & 0xfffc;

    if (!(cpu->efer & EFER_SCE) || !is_protected(cpu) || (!cpu->long_mode && !guest_is_amd(cpu)))
        jit_raise(cpu, VECTOR_UD);
    cpu->gpr[RCX] = cpu->next_rip;
    if (is_ia32e(cpu)) {
        cpu->gpr[R11] = cpu->rflags & ~(uint64_t)RFLAGS_RF;
        cpu->rflags = (cpu->rflags & ~(m->fmask | RFLAGS_RF)) | RFLAGS_FIXED;
        enter(cpu, cs, cs + 8, 0, true, cpu->long_mode ? m->lstar : m->cstar);
    } else {
        cpu->rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
        enter(cpu, cs, cs + 8, 0, false, (uint32_t)m->star);
    }
}

void exec_sysret(struct jit_cpu *cpu, const struct insn *i)
{
    const uint16_t base = cpu->msrs->star >> 48 & 0xfffc;
    const bool wide = i->size == 8;
    const uint64_t rip = wide ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];

    if (!(cpu->efer & EFER_SCE) || !is_protected(cpu) || (!cpu->long_mode && !guest_is_amd(cpu)))
        jit_raise(cpu, VECTOR_UD);
    require_ring0(cpu);
    if (wide && !is_canonical(rip) && !guest_is_amd(cpu))
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (is_ia32e(cpu))
        cpu->rflags = (cpu->gpr[R11] & SYSRET_FLAGS) | RFLAGS_FIXED;
    else
        cpu->rflags |= RFLAGS_IF;
    enter(cpu, (uint16_t)((wide ? base + 16 : base) | 3), (uint16_t)((base + 8) | 3), 3, wide, rip);
    if (cpu->rflags & RFLAGS_TF)
        jit_attention_set(cpu, ATTENTION_TRACE);
}

/* --- SYSENTER and SYSEXIT --------------------------------------------------------------------- */

void exec_sysenter(struct jit_cpu *cpu, const struct insn *i)
{
    const struct jit_msrs *m = cpu->msrs;
    const uint16_t cs = m->sysenter_cs & 0xfffc;
    const bool wide = is_ia32e(cpu);

    if (wide && guest_is_amd(cpu))
        jit_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE) || !cs)
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
    cpu->gpr[RSP] = wide ? m->sysenter_esp : (uint32_t)m->sysenter_esp;
    enter(cpu, cs, cs + 8, 0, wide, wide ? m->sysenter_eip : (uint32_t)m->sysenter_eip);
}

void exec_sysexit(struct jit_cpu *cpu, const struct insn *i)
{
    const uint16_t base = cpu->msrs->sysenter_cs & 0xfffc;
    const bool wide = i->size == 8;
    const uint16_t cs = wide ? base + 32 : base + 16;
    const uint64_t rip = wide ? cpu->gpr[RDX] : (uint32_t)cpu->gpr[RDX];
    const uint64_t rsp = wide ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];

    if (is_ia32e(cpu) && guest_is_amd(cpu))
        jit_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE) || !base || cpu->cpl != 0)
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (wide && (!is_canonical(rip) || !is_canonical(rsp)))
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->gpr[RSP] = rsp;
    enter(cpu, cs | 3, (uint16_t)(cs + 8) | 3, 3, wide, rip);
}

/* --- FS and GS -------------------------------------------------------------------------------- */

void exec_swapgs(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t base = cpu->seg[SEG_GS].base;

    if (!cpu->long_mode)
        jit_raise(cpu, VECTOR_UD);
    require_ring0(cpu);
    cpu->seg[SEG_GS].base = cpu->msrs->kernel_gs_base;
    cpu->msrs->kernel_gs_base = base;
}

static void require_fsgsbase(struct jit_cpu *cpu)
{
    if (!cpu->long_mode || !(cpu->cr4 & CR4_FSGSBASE))
        jit_raise(cpu, VECTOR_UD);
}

static void read_base(struct jit_cpu *cpu, const struct insn *i, unsigned seg)
{
    require_fsgsbase(cpu);
    jit_set_reg(cpu, i->rm, i->size, cpu->seg[seg].base);
}

static void write_base(struct jit_cpu *cpu, const struct insn *i, unsigned seg)
{
    const uint64_t base = jit_get_reg(cpu, i->rm, i->size);

    require_fsgsbase(cpu);
    if (!is_canonical(base))
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->seg[seg].base = base;
}

void exec_rdfsbase(struct jit_cpu *cpu, const struct insn *i)
{
    read_base(cpu, i, SEG_FS);
}

void exec_rdgsbase(struct jit_cpu *cpu, const struct insn *i)
{
    read_base(cpu, i, SEG_GS);
}

void exec_wrfsbase(struct jit_cpu *cpu, const struct insn *i)
{
    write_base(cpu, i, SEG_FS);
}

void exec_wrgsbase(struct jit_cpu *cpu, const struct insn *i)
{
    write_base(cpu, i, SEG_GS);
}

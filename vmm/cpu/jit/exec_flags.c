/*
 * exec_flags.c - instructions about RFLAGS: CLC STC CMC CLD STD CLI STI CLAC STAC PUSHF POPF.
 *
 * Who may change IF and IOPL: SDM vol 2, CLI, STI, PUSHF, POPF. With CR4.VME (virtual-8086 mode) or
 * CR4.PVI (ring 3) those without the right work on VIF instead (SDM vol 3 §21.3, §21.4).
 */
#include "cpu/jit/event.h"
#include "cpu/jit/exec_internal.h"

static void exec_clc(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags &= ~(uint64_t)FLAG_CF;
}

static void exec_stc(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags |= FLAG_CF;
}

static void exec_cmc(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags ^= FLAG_CF;
}

static void exec_cld(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags &= ~(uint64_t)RFLAGS_DF;
}

static void exec_std(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags |= RFLAGS_DF;
}

/* --- The interrupt flag ---------------------------------------------------------------------- */

static unsigned iopl(const struct jit_cpu *cpu)
{
    return (cpu->rflags & RFLAGS_IOPL) >> 12;
}

static bool virtual_8086(const struct jit_cpu *cpu)
{
    return cpu->rflags & RFLAGS_VM;
}

/* The flag that CLI and STI work on: IF or VIF; raises #GP(0) where it is neither. Virtual-8086
 * mode runs at CPL 3, real mode at CPL 0. */
static uint64_t interrupt_flag(struct jit_cpu *cpu)
{
    if (cpu->cpl <= iopl(cpu))
        return RFLAGS_IF;
    if (cpu->cpl == 3 && (cpu->cr4 & (virtual_8086(cpu) ? CR4_VME : CR4_PVI)))
        return RFLAGS_VIF;
    jit_raise_code(cpu, VECTOR_GP, 0);
}

static void exec_cli(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->rflags &= ~interrupt_flag(cpu);
}

/* Interrupts stay out until the next instruction is complete, where they were out before. */
static void exec_sti(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t flag = interrupt_flag(cpu);

    if (flag == RFLAGS_VIF && (cpu->rflags & RFLAGS_VIP))
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (flag == RFLAGS_IF && !(cpu->rflags & RFLAGS_IF)) {
        cpu->shadow |= 2;
        jit_attention_set(cpu, ATTENTION_TRACE);
    }
    cpu->rflags |= flag;
}

/* --- AC, which with SMAP lets a supervisor reach user pages (SDM vol 2, CLAC, STAC)
 * --------------- */

static void write_ac(struct jit_cpu *cpu, uint64_t ac)
{
    if (cpu->cpl)
        jit_raise(cpu, VECTOR_UD);
    rflags_write(cpu, (cpu->rflags & ~(uint64_t)RFLAGS_AC) | ac);
}

static void exec_clac(struct jit_cpu *cpu, const struct insn *i)
{
    write_ac(cpu, 0);
}

static void exec_stac(struct jit_cpu *cpu, const struct insn *i)
{
    write_ac(cpu, RFLAGS_AC);
}

/* --- PUSHF and POPF -------------------------------------------------------------------------- */

/* In virtual-8086 mode below IOPL 3 only the 16-bit forms are there, with CR4.VME. */
static bool virtual_flags(struct jit_cpu *cpu, const struct insn *i)
{
    if (!virtual_8086(cpu) || iopl(cpu) == 3)
        return false;
    if (i->size != 2 || !(cpu->cr4 & CR4_VME))
        jit_raise_code(cpu, VECTOR_GP, 0);
    return true;
}

static void exec_pushf(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t image = cpu->rflags & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF);

    if (virtual_flags(cpu, i))
        image = (image & ~(uint64_t)RFLAGS_IF) | RFLAGS_IOPL |
                (cpu->rflags & RFLAGS_VIF ? RFLAGS_IF : 0);
    stack_push(cpu, i->size, image & size_mask(i->size));
}

static void exec_popf(struct jit_cpu *cpu, const struct insn *i)
{
    const bool virtual = virtual_flags(cpu, i);
    const uint64_t value = stack_load(cpu, cpu->gpr[RSP], i->size);
    uint64_t changes = FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    uint64_t rflags = cpu->rflags & ~(uint64_t)RFLAGS_RF;

    if (i->size > 2)
        changes |= RFLAGS_AC | RFLAGS_ID;
    if (virtual) {
        if ((value & RFLAGS_TF) || ((value & RFLAGS_IF) && (rflags & RFLAGS_VIP)))
            jit_raise_code(cpu, VECTOR_GP, 0);
        rflags = (rflags & ~(uint64_t)RFLAGS_VIF) | (value & RFLAGS_IF ? RFLAGS_VIF : 0);
    } else if (cpu->cpl <= iopl(cpu)) {
        changes |= RFLAGS_IF;
        if (cpu->cpl == 0)
            changes |= RFLAGS_IOPL;
    }
    stack_drop(cpu, i->size);
    rflags_write(cpu, (rflags & ~changes) | (value & changes));
}

const struct jit_handler_entry exec_flags[] = {
    {OP_CLC, exec_clc},   {OP_STC, exec_stc},   {OP_CMC, exec_cmc},   {OP_CLD, exec_cld},
    {OP_STD, exec_std},   {OP_CLI, exec_cli},   {OP_STI, exec_sti},   {OP_PUSHF, exec_pushf},
    {OP_POPF, exec_popf}, {OP_CLAC, exec_clac}, {OP_STAC, exec_stac}, {OP_UD, NULL},
};

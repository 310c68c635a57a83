/*
 * debug.c - the debug registers (SDM vol 3 §17.2). Breakpoints and single steps are met where
 * instructions run (jit_run.c, mmu.c); what they leave in DR6 is event.c's.
 */
#include "cpu/jit/system_internal.h"

enum {
    DR6_WRITABLE = 0xe00f, /* B0-B3, BD, BS, BT */
    DR7_WRITABLE = 0x23ff, /* and the upper half: all conditions and lengths */
    DR7_FIXED = 1 << 10,
    DR7_GENERAL_DETECT = 1 << 13,
    DR6_GENERAL_DETECT = 1 << 13,
};
#define DR6_FIXED 0xffff0ff0ull

/* DR4 and DR5 are other names of DR6 and DR7, until CR4.DE says that they are none (§17.2.2). */
static unsigned number(struct jit_cpu *cpu, const struct insn *i)
{
    const bool alias = i->reg == 4 || i->reg == 5;

    if (i->reg > 7 || (alias && (cpu->cr4 & CR4_DE)))
        jit_raise(cpu, VECTOR_UD);
    require_ring0(cpu);
    if (cpu->dr7 & DR7_GENERAL_DETECT)
        jit_raise_debug(cpu, DR6_GENERAL_DETECT);
    return alias ? i->reg + 2u : i->reg;
}

void exec_mov_from_dr(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned n = number(cpu, i);

    jit_set_reg(cpu, i->rm, i->size, n == 7 ? cpu->dr7 : n == 6 ? cpu->dr6 : cpu->dr[n]);
}

void exec_mov_to_dr(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t value = jit_get_reg(cpu, i->rm, i->size);
    const unsigned n = number(cpu, i);

    if (n >= 6 && value >> 32)
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (n == 6)
        cpu->dr6 = (value & DR6_WRITABLE) | DR6_FIXED;
    else if (n == 7)
        cpu->dr7 = (value & (0xffff0000 | DR7_WRITABLE)) | DR7_FIXED;
    else
        cpu->dr[n] = value;
    jit_attention_set(cpu, ATTENTION_TRACE);
}

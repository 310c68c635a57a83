/*
 * exec.h - executing one decoded instruction: the interpreter's table, and what its parts share.
 *
 * Contract of a handler: cpu->rip is the instruction's address, cpu->next_rip the following one. It
 * may change next_rip. It commits register and flag writes after its last access that may raise. It
 * never returns an error: see jit_raise().
 */
#ifndef VMM_JIT_EXEC_H
#define VMM_JIT_EXEC_H

#include "cpu/jit/mmu.h"

typedef void jit_handler(struct jit_cpu *cpu, const struct insn *i);

/*
 * By enum insn_op; no entry is NULL. Filled from the tables of the exec_*.c files before main()
 * (exec.c), read-only for everybody else.
 */
extern jit_handler *jit_handlers[OP_COUNT];

/*
 * The quickest handler for exactly this instruction: the common operations have one for each size
 * and place of their operands, which jit_handlers' entry would look up at every execution. For who
 * caches instructions: keep it beside the instruction. Same contract, same result.
 */
jit_handler *jit_handler_for(const struct insn *i);

/* --- Registers
 * ------------------------------------------------------------------------------------------- */

static inline uint64_t jit_get_reg(const struct jit_cpu *cpu, unsigned reg, unsigned size)
{
    switch (size) {
    case 1:
        return reg >= REG_AH ? (uint8_t)(cpu->gpr[reg - REG_AH] >> 8) : (uint8_t)cpu->gpr[reg];
    case 2:
        return (uint16_t)cpu->gpr[reg];
    case 4:
        return (uint32_t)cpu->gpr[reg];
    default:
        return cpu->gpr[reg];
    }
}

/* 32-bit writes clear the upper half, smaller ones keep the rest (SDM vol 1 §3.4.1.1). */
static inline void jit_set_reg(struct jit_cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        if (reg >= REG_AH)
            cpu->gpr[reg - REG_AH] = (cpu->gpr[reg - REG_AH] & ~0xff00ull) | (value & 0xff) << 8;
        else
            cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffull) | (value & 0xff);
        break;
    case 2:
        cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffffull) | (value & 0xffff);
        break;
    case 4:
        cpu->gpr[reg] = (uint32_t)value;
        break;
    default:
        cpu->gpr[reg] = value;
    }
}

/* --- Memory operands
 * -------------------------------------------------------------------------------------- */

/* The offset that base, index, scale and disp make, truncated to the address size. */
uint64_t jit_effective_address(const struct jit_cpu *cpu, const struct insn *i);
/* Offset to linear, checked: canonical in 64-bit code, else limits, type and null (#GP(0) or
 * #SS(0)). */
uint64_t jit_linear(struct jit_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write);
static inline uint64_t jit_operand_linear(struct jit_cpu *cpu, const struct insn *i, unsigned size,
                                          bool write)
{
    return jit_linear(cpu, i->seg, jit_effective_address(cpu, i), size, write);
}
/*
 * How many of the `len` bytes from `offset` up may be accessed without a fault of the segment: to
 * its limit or to where the offset leaves `asize` bytes. 0 where the first byte may not be.
 */
uint64_t jit_segment_span(const struct jit_cpu *cpu, unsigned seg, uint64_t offset, uint64_t len,
                          unsigned asize, bool write);
/* The rm operand, register or memory. */
uint64_t jit_read_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size);
void jit_write_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size, uint64_t value);

/* The stack of the current mode: pushes move rsp only after the store. */
void jit_push(struct jit_cpu *cpu, unsigned size, uint64_t value);
uint64_t jit_pop(struct jit_cpu *cpu, unsigned size);
/* As a near branch goes: checks canonical or CS limit (#GP(0)) and sets next_rip, truncated to the
 * operand size. */
void jit_branch(struct jit_cpu *cpu, uint64_t target, unsigned size);

/* --- Tables of the parts: {op, handler} pairs, ending with a NULL handler
 * -------------------------------- */

struct jit_handler_entry {
    enum insn_op op;
    jit_handler *handler;
};
extern const struct jit_handler_entry jit_exec_integer[], jit_exec_string[], jit_exec_flow[],
    jit_exec_system[], jit_exec_segment[], jit_exec_x87[], jit_exec_vec[];

#endif

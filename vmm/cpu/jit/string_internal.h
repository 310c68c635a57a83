/*
 * string_internal.h - repetition, shared by string instructions on memory and on ports.
 */
#ifndef VMM_JIT_STRING_INTERNAL_H
#define VMM_JIT_STRING_INTERNAL_H

#include "cpu/jit/exec_internal.h"

/*
 * Does 1 to `count` elements, moves rsi and rdi as far, and says how many. May raise before its
 * first change. `end`: the condition of REPE or REPNE ended it.
 */
typedef uint64_t string_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end);

/*
 * The instruction with its prefix. With REP the counter and the index registers are right after
 * every step; when somebody wants the CPU's attention the instruction stays the next one (SDM vol
 * 2, REP).
 */
void string_repeat(struct jit_cpu *cpu, const struct insn *i, string_step *step);

static inline bool string_backward(const struct jit_cpu *cpu)
{
    return cpu->rflags & RFLAGS_DF;
}

static inline uint64_t string_index(const struct jit_cpu *cpu, const struct insn *i, unsigned reg)
{
    return cpu->gpr[reg] & size_mask(i->asize);
}

static inline void string_advance(struct jit_cpu *cpu, const struct insn *i, unsigned reg,
                                  uint64_t elements)
{
    uint64_t bytes = elements * i->size;

    jit_set_reg(cpu, reg, i->asize, cpu->gpr[reg] + (string_backward(cpu) ? -bytes : bytes));
}

static inline uint64_t string_linear(struct jit_cpu *cpu, const struct insn *i, unsigned seg,
                                     unsigned reg, bool write)
{
    return linear_of(cpu, seg, string_index(cpu, i, reg), i->size, write);
}

/*
 * How many of `count` elements, in the direction of DF, lie in the first one's page, inside the
 * segment and before the index wraps. *low is the linear address of the lowest byte of them. 0:
 * take the first one by itself.
 */
uint64_t string_chunk(struct jit_cpu *cpu, const struct insn *i, unsigned seg, unsigned reg,
                      uint64_t count, bool write, uint64_t *low);

#endif

/*
 * counted.h - deterministic mode: a vCPU runs slices of so many instructions, and instructions are
 * the only time there is (accel_ops.slice).
 *
 * cpu->budget is what is left of the slice. The interpreter takes from it what is complete.
 * Translated code takes a whole block at its start, and leaves to the interpreter a block for which
 * the budget is not enough; where it calls C in a block's middle it says in cpu->ahead how many it
 * took too many, the current instruction included. So the count is exact wherever somebody looks,
 * and a slice ends at the same instruction in either way of executing.
 */
#ifndef VMM_JIT_COUNTED_H
#define VMM_JIT_COUNTED_H

#include "cpu/jit/cpu.h"

/* Complete instructions of this slice. */
static inline uint32_t counted_executed(const struct jit_cpu *cpu)
{
    return (uint32_t)(cpu->slice - cpu->budget - cpu->ahead);
}

static inline uint64_t counted_tsc(const struct jit_cpu *cpu)
{
    return cpu->slice_tsc + counted_executed(cpu);
}

/* The interpreter, by itself: the instruction is complete, or a repeated one left in its middle. */
static inline void counted_complete(struct jit_cpu *cpu)
{
    cpu->budget -= !cpu->unfinished;
    cpu->unfinished = false;
}

/* The interpreter, called by translated code, which had taken the instruction. */
static inline void counted_behind(struct jit_cpu *cpu)
{
    cpu->ahead -= cpu->vm->counted && !cpu->unfinished;
    cpu->unfinished = false;
}

/* Translated code goes on in its block. */
static inline void counted_go_on(struct jit_cpu *cpu)
{
    cpu->ahead = 0;
}

/* Translated code was left in a block's middle. */
static inline void counted_give_back(struct jit_cpu *cpu)
{
    cpu->budget += cpu->ahead;
    cpu->ahead = 0;
}

#endif

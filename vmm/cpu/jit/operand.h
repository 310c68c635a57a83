/*
 * operand.h - the operands of general-purpose instructions, inline: what exec.h declares, for the
 * handlers whose speed is the interpreter's.
 *
 * In 64-bit code a linear address is a sum and one comparison; everything else goes to
 * jit_linear().
 */
#ifndef VMM_JIT_OPERAND_H
#define VMM_JIT_OPERAND_H

#include "cpu/jit/exec.h"

static inline uint64_t size_mask(unsigned size)
{
    return size == 8 ? UINT64_MAX : (1ull << size * 8) - 1;
}

/* From the sign of a value of `size` bytes. */
static inline int64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - size * 8;

    return (int64_t)(value << shift) >> shift;
}

static inline uint64_t operand_address(const struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t ea = (int64_t)i->disp;

    if (i->base < GPR_COUNT)
        ea += cpu->gpr[i->base];
    else if (i->base == REG_RIP)
        ea += cpu->next_rip;
    if (i->index < GPR_COUNT)
        ea += cpu->gpr[i->index] << i->scale;
    if (__builtin_expect(i->asize == 8, 1)) {
        if (__builtin_expect(i->map == 0 && (i->opcode & 0xfc) == 0xa0, 0)) /* moffs64 */
            return i->imm;
        return ea;
    }
    return ea & size_mask(i->asize);
}

/* All of [linear, linear + size) in the lower or upper half of 48 bits. The top of the upper half
 * runs on into the lower one, as the CPU's addition does. */
static inline bool linear_is_canonical(uint64_t linear, unsigned size)
{
    return linear + (1ull << 47) <= (1ull << 48) - size;
}

static inline uint64_t linear_of(struct jit_cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                                 bool write)
{
    if (__builtin_expect(cpu->long_mode, 1)) {
        uint64_t linear = offset;

        if (__builtin_expect(seg >= SEG_FS, 0))
            linear += cpu->seg[seg].base;
        if (__builtin_expect(linear_is_canonical(linear, size), 1))
            return linear;
    }
    return jit_linear(cpu, seg, offset, size, write);
}

static inline uint64_t operand_linear(struct jit_cpu *cpu, const struct insn *i, unsigned size,
                                      bool write)
{
    return linear_of(cpu, i->seg, operand_address(cpu, i), size, write);
}

static inline uint64_t operand_load(struct jit_cpu *cpu, const struct insn *i, unsigned size)
{
    return mmu_load(cpu, operand_linear(cpu, i, size, false), size);
}

/* --- Stack ----------------------------------------------------------------------------------- */

static inline uint64_t stack_mask(const struct jit_cpu *cpu)
{
    return size_mask(cpu->stack_size);
}

/* Writes the stack pointer, as wide as the stack's. */
static inline void stack_set(struct jit_cpu *cpu, uint64_t sp)
{
    jit_set_reg(cpu, RSP, cpu->stack_size, sp);
}

static inline void stack_drop(struct jit_cpu *cpu, uint64_t bytes)
{
    stack_set(cpu, cpu->gpr[RSP] + bytes);
}

static inline uint64_t stack_load(struct jit_cpu *cpu, uint64_t sp, unsigned size)
{
    return mmu_load(cpu, linear_of(cpu, SEG_SS, sp & stack_mask(cpu), size, false), size);
}

static inline void stack_store(struct jit_cpu *cpu, uint64_t sp, unsigned size, uint64_t value)
{
    mmu_store(cpu, linear_of(cpu, SEG_SS, sp & stack_mask(cpu), size, true), size, value);
}

static inline void stack_push(struct jit_cpu *cpu, unsigned size, uint64_t value)
{
    uint64_t sp = cpu->gpr[RSP] - size;

    stack_store(cpu, sp, size, value);
    stack_set(cpu, sp);
}

/* --- Branches -------------------------------------------------------------------------------- */

/* SDM vol 2, JMP: #GP(0) where the target is not canonical or beyond the limit of CS. */
static inline void near_branch(struct jit_cpu *cpu, uint64_t target, unsigned size)
{
    target &= size_mask(size);
    if (__builtin_expect(
            cpu->long_mode ? !linear_is_canonical(target, 1) : target > cpu->seg[SEG_CS].limit, 0))
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->next_rip = target;
}

#endif

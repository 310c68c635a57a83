/*
 * exec_internal.h - what the files behind jit_exec_integer, jit_exec_string and jit_exec_flow
 * share.
 */
#ifndef VMM_JIT_EXEC_INTERNAL_H
#define VMM_JIT_EXEC_INTERNAL_H

#include "cpu/jit/host_memory.h"
#include "cpu/jit/operand.h"

enum { SIZES = 4 }; /* of tables by operand size */

static inline unsigned size_index(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* --- Read, change, write without LOCK -------------------------------------------------------- */

/*
 * A memory operand that is read and written. It is checked for writing before it is read: that is
 * what the error code of its page fault says (SDM vol 3 §4.7).
 */
struct update {
    uint64_t linear;
    void *host; /* NULL: through mmu_load and mmu_store */
};

static inline uint64_t update_begin_at(struct jit_cpu *cpu, struct update *u, uint64_t linear,
                                       unsigned size)
{
    u->linear = linear;
    u->host = mmu_hit(cpu, u->linear, size, cpu->tlb.data_set, TLB_WRITE);
    if (__builtin_expect(u->host != NULL, 1))
        return host_load(u->host, size);
    if (cpu->tlb.data_set == TLB_USER_STRICT && (linear & (size - 1)))
        return mmu_load(cpu, linear, size); /* raises #AC, which comes before #PF */
    mmu_probe(cpu, u->linear, size, true);
    return mmu_load(cpu, u->linear, size);
}

static inline uint64_t update_begin(struct jit_cpu *cpu, struct update *u, const struct insn *i,
                                    unsigned size)
{
    return update_begin_at(cpu, u, operand_linear(cpu, i, size, true), size);
}

static inline void update_end(struct jit_cpu *cpu, const struct update *u, unsigned size,
                              uint64_t value)
{
    if (__builtin_expect(u->host != NULL, 1))
        host_store(u->host, size, value);
    else
        mmu_store(cpu, u->linear, size, value);
}

/* --- Read, change, write with LOCK (exec_atomic.c) ------------------------------------------- */

/* New value from old value and operand; flags as alu.h does. May be called more than once. */
typedef uint64_t atomic_fn(uint64_t old, uint64_t operand, uint64_t *rflags);

/* Does it, in one step for all CPUs; gives back the old value. */
uint64_t atomic_update(struct jit_cpu *cpu, uint64_t linear, unsigned size, atomic_fn *fn,
                       uint64_t operand, uint64_t *rflags);

void exec_xchg(struct jit_cpu *cpu, const struct insn *i);
void exec_xadd(struct jit_cpu *cpu, const struct insn *i);
void exec_cmpxchg(struct jit_cpu *cpu, const struct insn *i);
void exec_cmpxchg8b(struct jit_cpu *cpu, const struct insn *i);
void exec_cmpxchg16b(struct jit_cpu *cpu, const struct insn *i);

/* --- Handlers of an operation, for the table, and the quickest for an instruction ------------- */

void exec_alu(struct jit_cpu *cpu, const struct insn *i); /* ADD to TEST */
jit_handler *alu_handler_for(const struct insn *i);
void exec_alu_unary(struct jit_cpu *cpu, const struct insn *i); /* INC DEC NEG NOT */
jit_handler *alu_unary_handler_for(const struct insn *i);
atomic_fn *alu_atomic_fn(unsigned op, unsigned size);

void exec_shift(struct jit_cpu *cpu, const struct insn *i); /* ROL to SAR */
jit_handler *shift_handler_for(const struct insn *i);
void exec_shld(struct jit_cpu *cpu, const struct insn *i);
void exec_shrd(struct jit_cpu *cpu, const struct insn *i);

void exec_mov(struct jit_cpu *cpu, const struct insn *i);
jit_handler *mov_handler_for(const struct insn *i);
void exec_movzx(struct jit_cpu *cpu, const struct insn *i);
void exec_movsx(struct jit_cpu *cpu, const struct insn *i);
jit_handler *extend_handler_for(const struct insn *i);
void exec_lea(struct jit_cpu *cpu, const struct insn *i);
jit_handler *lea_handler_for(const struct insn *i);

void exec_mul(struct jit_cpu *cpu, const struct insn *i);
void exec_imul1(struct jit_cpu *cpu, const struct insn *i);
void exec_imul(struct jit_cpu *cpu, const struct insn *i);
void exec_div(struct jit_cpu *cpu, const struct insn *i);
void exec_idiv(struct jit_cpu *cpu, const struct insn *i);

/* Tables beside those of exec.h, for exec.c. */
extern const struct jit_handler_entry exec_bits[], exec_decimal[], exec_flags[], exec_io[];

jit_handler *flow_handler_for(const struct insn *i);

#endif

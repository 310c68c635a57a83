/*
 * exec_alu.c - ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT.
 *
 * There is a handler for each operation, operand size and place of the operands, so that nothing is
 * decided while it executes but what the values decide.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

enum shape { REG_TO_RM, RM_TO_REG, IMM_TO_RM, MEM_TO_REG, REG_TO_MEM, IMM_TO_MEM, SHAPES };

static unsigned shape_of(const struct insn *i)
{
    if (i->form == FORM_REG_RM)
        return i->mem ? MEM_TO_REG : RM_TO_REG;
    if (i->form == FORM_RM_IMM)
        return i->mem ? IMM_TO_MEM : IMM_TO_RM;
    return i->mem ? REG_TO_MEM : REG_TO_RM;
}

/* `keeps`: the operation has no result but flags. */
#define REG_HANDLER(name, size, type, keeps, shape, target, source)                                \
    static void name##_##size##_##shape(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        type r = alu_##name##_##size((type)jit_get_reg(cpu, target, size), (type)(source),         \
                                     &cpu->rflags);                                                \
                                                                                                   \
        if (!keeps)                                                                                \
            jit_set_reg(cpu, target, size, r);                                                     \
    }
#define MEM_HANDLER(name, size, type, keeps, shape, source)                                        \
    static void name##_##size##_##shape(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        struct update u;                                                                           \
        uint64_t rflags = cpu->rflags;                                                             \
                                                                                                   \
        if (keeps) {                                                                               \
            alu_##name##_##size((type)operand_load(cpu, i, size), (type)(source), &rflags);        \
        } else {                                                                                   \
            type a = (type)update_begin(cpu, &u, i, size);                                         \
                                                                                                   \
            update_end(cpu, &u, size, alu_##name##_##size(a, (type)(source), &rflags));            \
        }                                                                                          \
        cpu->rflags = rflags;                                                                      \
    }
#define SIZE_HANDLERS(name, size, type, keeps)                                                     \
    REG_HANDLER(name, size, type, keeps, reg_to_rm, i->rm, jit_get_reg(cpu, i->reg, size))         \
    REG_HANDLER(name, size, type, keeps, rm_to_reg, i->reg, jit_get_reg(cpu, i->rm, size))         \
    REG_HANDLER(name, size, type, keeps, imm_to_rm, i->rm, i->imm)                                 \
    REG_HANDLER(name, size, type, keeps, mem_to_reg, i->reg, operand_load(cpu, i, size))           \
    MEM_HANDLER(name, size, type, keeps, reg_to_mem, jit_get_reg(cpu, i->reg, size))               \
    MEM_HANDLER(name, size, type, keeps, imm_to_mem, i->imm)                                       \
    static uint64_t name##_##size##_atomic(uint64_t old, uint64_t operand, uint64_t *rflags)       \
    {                                                                                              \
        return alu_##name##_##size((type)old, (type)operand, rflags);                              \
    }
#define OP_HANDLERS(name, keeps)                                                                   \
    SIZE_HANDLERS(name, 1, uint8_t, keeps)                                                         \
    SIZE_HANDLERS(name, 2, uint16_t, keeps)                                                        \
    SIZE_HANDLERS(name, 4, uint32_t, keeps)                                                        \
    SIZE_HANDLERS(name, 8, uint64_t, keeps)

OP_HANDLERS(add, false)
OP_HANDLERS(or, false)
OP_HANDLERS(adc, false)
OP_HANDLERS(sbb, false)
OP_HANDLERS(and, false)
OP_HANDLERS(sub, false)
OP_HANDLERS(xor, false)
OP_HANDLERS(cmp, true)
OP_HANDLERS(test, true)

#define SHAPE_ENTRIES(name, shape)                                                                 \
    {                                                                                              \
        name##_1_##shape, name##_2_##shape, name##_4_##shape, name##_8_##shape                     \
    }
#define OP_ENTRIES(name)                                                                           \
    {                                                                                              \
        [REG_TO_RM] = SHAPE_ENTRIES(name, reg_to_rm),                                              \
        [RM_TO_REG] = SHAPE_ENTRIES(name, rm_to_reg),                                              \
        [IMM_TO_RM] = SHAPE_ENTRIES(name, imm_to_rm),                                              \
        [MEM_TO_REG] = SHAPE_ENTRIES(name, mem_to_reg),                                            \
        [REG_TO_MEM] = SHAPE_ENTRIES(name, reg_to_mem),                                            \
        [IMM_TO_MEM] = SHAPE_ENTRIES(name, imm_to_mem),                                            \
    }

static jit_handler *const alu_handlers[][SHAPES][SIZES] = {
    [OP_ADD - OP_ADD] = OP_ENTRIES(add),   [OP_OR - OP_ADD] = OP_ENTRIES(or),
    [OP_ADC - OP_ADD] = OP_ENTRIES(adc),   [OP_SBB - OP_ADD] = OP_ENTRIES(sbb),
    [OP_AND - OP_ADD] = OP_ENTRIES(and),   [OP_SUB - OP_ADD] = OP_ENTRIES(sub),
    [OP_XOR - OP_ADD] = OP_ENTRIES(xor),   [OP_CMP - OP_ADD] = OP_ENTRIES(cmp),
    [OP_TEST - OP_ADD] = OP_ENTRIES(test),
};

/* --- One operand ----------------------------------------------------------------------------- */

#define UNARY_HANDLERS(name, size, type)                                                           \
    REG_HANDLER(name, size, type, false, reg, i->rm, 0)                                            \
    MEM_HANDLER(name, size, type, false, mem, 0)                                                   \
    static uint64_t name##_##size##_atomic(uint64_t old, uint64_t operand, uint64_t *rflags)       \
    {                                                                                              \
        return alu_##name##_##size((type)old, 0, rflags);                                          \
    }
#define UNARY_OP(name)                                                                             \
    UNARY_HANDLERS(name, 1, uint8_t)                                                               \
    UNARY_HANDLERS(name, 2, uint16_t)                                                              \
    UNARY_HANDLERS(name, 4, uint32_t)                                                              \
    UNARY_HANDLERS(name, 8, uint64_t)

UNARY_OP(inc)
UNARY_OP(dec)
UNARY_OP(neg)
UNARY_OP(not )

static jit_handler *const unary_handlers[][2][SIZES] = {
    [OP_INC - OP_INC] = {SHAPE_ENTRIES(inc, reg), SHAPE_ENTRIES(inc, mem)},
    [OP_DEC - OP_INC] = {SHAPE_ENTRIES(dec, reg), SHAPE_ENTRIES(dec, mem)},
    [OP_NEG - OP_INC] = {SHAPE_ENTRIES(neg, reg), SHAPE_ENTRIES(neg, mem)},
    [OP_NOT - OP_INC] = {SHAPE_ENTRIES(not, reg), SHAPE_ENTRIES(not, mem)},
};

/* --- LOCK ------------------------------------------------------------------------------------ */

atomic_fn *alu_atomic_fn(unsigned op, unsigned size)
{
    static atomic_fn *const fns[][SIZES] = {
        [OP_ADD] = SHAPE_ENTRIES(add, atomic),   [OP_OR] = SHAPE_ENTRIES(or, atomic),
        [OP_ADC] = SHAPE_ENTRIES(adc, atomic),   [OP_SBB] = SHAPE_ENTRIES(sbb, atomic),
        [OP_AND] = SHAPE_ENTRIES(and, atomic),   [OP_SUB] = SHAPE_ENTRIES(sub, atomic),
        [OP_XOR] = SHAPE_ENTRIES(xor, atomic),   [OP_CMP] = SHAPE_ENTRIES(cmp, atomic),
        [OP_TEST] = SHAPE_ENTRIES(test, atomic), [OP_INC] = SHAPE_ENTRIES(inc, atomic),
        [OP_DEC] = SHAPE_ENTRIES(dec, atomic),   [OP_NEG] = SHAPE_ENTRIES(neg, atomic),
        [OP_NOT] = SHAPE_ENTRIES(not, atomic),
    };

    return fns[op][size_index(size)];
}

static void alu_locked(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t operand = i->form == FORM_RM_REG ? jit_get_reg(cpu, i->reg, i->size) : i->imm;
    uint64_t rflags = cpu->rflags;

    atomic_update(cpu, operand_linear(cpu, i, i->size, true), i->size,
                  alu_atomic_fn(i->op, i->size), operand, &rflags);
    cpu->rflags = rflags;
}

/* --- Choosing -------------------------------------------------------------------------------- */

jit_handler *alu_handler_for(const struct insn *i)
{
    if (i->prefix & PREFIX_LOCK)
        return alu_locked;
    return alu_handlers[i->op - OP_ADD][shape_of(i)][size_index(i->size)];
}

void exec_alu(struct jit_cpu *cpu, const struct insn *i)
{
    alu_handler_for(i)(cpu, i);
}

jit_handler *alu_unary_handler_for(const struct insn *i)
{
    if (i->prefix & PREFIX_LOCK)
        return alu_locked;
    return unary_handlers[i->op - OP_INC][i->mem][size_index(i->size)];
}

void exec_alu_unary(struct jit_cpu *cpu, const struct insn *i)
{
    alu_unary_handler_for(i)(cpu, i);
}

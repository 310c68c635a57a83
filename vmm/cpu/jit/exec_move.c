/*
 * exec_move.c - MOV, MOVZX, MOVSX, LEA: a handler for each size and place of the operands.
 */
#include "cpu/jit/exec_internal.h"

enum shape { REG_TO_RM, RM_TO_REG, IMM_TO_RM, MEM_TO_REG, REG_TO_MEM, IMM_TO_MEM, SHAPES };

#define MOV_HANDLERS(size)                                                                         \
    static void mov_##size##_reg_to_rm(struct jit_cpu *cpu, const struct insn *i)                  \
    {                                                                                              \
        jit_set_reg(cpu, i->rm, size, jit_get_reg(cpu, i->reg, size));                             \
    }                                                                                              \
    static void mov_##size##_rm_to_reg(struct jit_cpu *cpu, const struct insn *i)                  \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, size, jit_get_reg(cpu, i->rm, size));                             \
    }                                                                                              \
    static void mov_##size##_imm_to_rm(struct jit_cpu *cpu, const struct insn *i)                  \
    {                                                                                              \
        jit_set_reg(cpu, i->rm, size, i->imm);                                                     \
    }                                                                                              \
    static void mov_##size##_mem_to_reg(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, size, operand_load(cpu, i, size));                                \
    }                                                                                              \
    static void mov_##size##_reg_to_mem(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        mmu_store(cpu, operand_linear(cpu, i, size, true), size, jit_get_reg(cpu, i->reg, size));  \
    }                                                                                              \
    static void mov_##size##_imm_to_mem(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        mmu_store(cpu, operand_linear(cpu, i, size, true), size, i->imm &size_mask(size));         \
    }
MOV_HANDLERS(1)
MOV_HANDLERS(2)
MOV_HANDLERS(4)
MOV_HANDLERS(8)

#define SHAPE_ENTRIES(shape)                                                                       \
    {                                                                                              \
        mov_1_##shape, mov_2_##shape, mov_4_##shape, mov_8_##shape                                 \
    }

jit_handler *mov_handler_for(const struct insn *i)
{
    static jit_handler *const handlers[SHAPES][SIZES] = {
        [REG_TO_RM] = SHAPE_ENTRIES(reg_to_rm),   [RM_TO_REG] = SHAPE_ENTRIES(rm_to_reg),
        [IMM_TO_RM] = SHAPE_ENTRIES(imm_to_rm),   [MEM_TO_REG] = SHAPE_ENTRIES(mem_to_reg),
        [REG_TO_MEM] = SHAPE_ENTRIES(reg_to_mem), [IMM_TO_MEM] = SHAPE_ENTRIES(imm_to_mem),
    };
    enum shape shape = i->form == FORM_REG_RM   ? (i->mem ? MEM_TO_REG : RM_TO_REG)
                       : i->form == FORM_RM_IMM ? (i->mem ? IMM_TO_MEM : IMM_TO_RM)
                                                : (i->mem ? REG_TO_MEM : REG_TO_RM);

    return handlers[shape][size_index(i->size)];
}

void exec_mov(struct jit_cpu *cpu, const struct insn *i)
{
    mov_handler_for(i)(cpu, i);
}

/* --- Extending moves: source sizes 1, 2, 4 (MOVSXD) to destination sizes 2, 4, 8 ---------------
 */

#define EXTEND_HANDLERS(from, to)                                                                  \
    static void movzx_##from##_##to##_reg(struct jit_cpu *cpu, const struct insn *i)               \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, to, jit_get_reg(cpu, i->rm, from));                               \
    }                                                                                              \
    static void movzx_##from##_##to##_mem(struct jit_cpu *cpu, const struct insn *i)               \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, to, operand_load(cpu, i, from));                                  \
    }                                                                                              \
    static void movsx_##from##_##to##_reg(struct jit_cpu *cpu, const struct insn *i)               \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, to, (uint64_t)sign_extend(jit_get_reg(cpu, i->rm, from), from));  \
    }                                                                                              \
    static void movsx_##from##_##to##_mem(struct jit_cpu *cpu, const struct insn *i)               \
    {                                                                                              \
        jit_set_reg(cpu, i->reg, to, (uint64_t)sign_extend(operand_load(cpu, i, from), from));     \
    }
#define EXTEND_FROM(from)                                                                          \
    EXTEND_HANDLERS(from, 2)                                                                       \
    EXTEND_HANDLERS(from, 4)                                                                       \
    EXTEND_HANDLERS(from, 8)
EXTEND_FROM(1)
EXTEND_FROM(2)
EXTEND_FROM(4)

#define TO_ENTRIES(name, from, place)                                                              \
    {                                                                                              \
        NULL, name##_##from##_2_##place, name##_##from##_4_##place, name##_##from##_8_##place      \
    }
#define FROM_ENTRIES(name, place)                                                                  \
    {                                                                                              \
        TO_ENTRIES(name, 1, place), TO_ENTRIES(name, 2, place), TO_ENTRIES(name, 4, place)         \
    }

jit_handler *extend_handler_for(const struct insn *i)
{
    static jit_handler *const handlers[2][2][3][SIZES] = {
        {FROM_ENTRIES(movzx, reg), FROM_ENTRIES(movzx, mem)},
        {FROM_ENTRIES(movsx, reg), FROM_ENTRIES(movsx, mem)},
    };

    return handlers[i->op == OP_MOVSX][i->mem][size_index(i->src_size)][size_index(i->size)];
}

void exec_movzx(struct jit_cpu *cpu, const struct insn *i)
{
    extend_handler_for(i)(cpu, i);
}

void exec_movsx(struct jit_cpu *cpu, const struct insn *i)
{
    extend_handler_for(i)(cpu, i);
}

/* --- LEA ------------------------------------------------------------------------------------- */

void exec_lea(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, i->reg, i->size, operand_address(cpu, i));
}

static void lea_8(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->gpr[i->reg] = operand_address(cpu, i);
}

jit_handler *lea_handler_for(const struct insn *i)
{
    return i->size == 8 ? lea_8 : exec_lea;
}

/*
 * exec_shift.c - ROL ROR RCL RCR SHL SHR SAR, SHLD SHRD.
 *
 * A count of zero leaves flags and register bits alone, but a memory operand is still read and
 * written, and a 32-bit register is still extended.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

enum shape { REG_IMM, REG_CL, MEM_IMM, MEM_CL, SHAPES };

#define REG_HANDLER(name, size, type, shape, count)                                                \
    static void name##_##size##_##shape(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        type a = (type)jit_get_reg(cpu, i->rm, size);                                              \
                                                                                                   \
        jit_set_reg(cpu, i->rm, size, alu_##name##_##size(a, (uint8_t)(count), &cpu->rflags));     \
    }
#define MEM_HANDLER(name, size, type, shape, count)                                                \
    static void name##_##size##_##shape(struct jit_cpu *cpu, const struct insn *i)                 \
    {                                                                                              \
        struct update u;                                                                           \
        uint64_t rflags = cpu->rflags;                                                             \
        type a = (type)update_begin(cpu, &u, i, size);                                             \
                                                                                                   \
        update_end(cpu, &u, size, alu_##name##_##size(a, (uint8_t)(count), &rflags));              \
        cpu->rflags = rflags;                                                                      \
    }
#define SIZE_HANDLERS(name, size, type)                                                            \
    REG_HANDLER(name, size, type, reg_imm, i->imm)                                                 \
    REG_HANDLER(name, size, type, reg_cl, cpu->gpr[RCX])                                           \
    MEM_HANDLER(name, size, type, mem_imm, i->imm)                                                 \
    MEM_HANDLER(name, size, type, mem_cl, cpu->gpr[RCX])
#define OP_HANDLERS(name)                                                                          \
    SIZE_HANDLERS(name, 1, uint8_t)                                                                \
    SIZE_HANDLERS(name, 2, uint16_t)                                                               \
    SIZE_HANDLERS(name, 4, uint32_t)                                                               \
    SIZE_HANDLERS(name, 8, uint64_t)

OP_HANDLERS(rol)
OP_HANDLERS(ror)
OP_HANDLERS(rcl)
OP_HANDLERS(rcr)
OP_HANDLERS(shl)
OP_HANDLERS(shr)
OP_HANDLERS(sar)

#define SHAPE_ENTRIES(name, shape)                                                                 \
    {                                                                                              \
        name##_1_##shape, name##_2_##shape, name##_4_##shape, name##_8_##shape                     \
    }
#define OP_ENTRIES(name)                                                                           \
    {                                                                                              \
        [REG_IMM] = SHAPE_ENTRIES(name, reg_imm), [REG_CL] = SHAPE_ENTRIES(name, reg_cl),          \
        [MEM_IMM] = SHAPE_ENTRIES(name, mem_imm), [MEM_CL] = SHAPE_ENTRIES(name, mem_cl),          \
    }

static jit_handler *const shift_handlers[][SHAPES][SIZES] = {
    [OP_ROL - OP_ROL] = OP_ENTRIES(rol), [OP_ROR - OP_ROL] = OP_ENTRIES(ror),
    [OP_RCL - OP_ROL] = OP_ENTRIES(rcl), [OP_RCR - OP_ROL] = OP_ENTRIES(rcr),
    [OP_SHL - OP_ROL] = OP_ENTRIES(shl), [OP_SHR - OP_ROL] = OP_ENTRIES(shr),
    [OP_SAR - OP_ROL] = OP_ENTRIES(sar),
};

jit_handler *shift_handler_for(const struct insn *i)
{
    bool cl = i->form == FORM_RM_CL;
    enum shape shape = i->mem ? (cl ? MEM_CL : MEM_IMM) : (cl ? REG_CL : REG_IMM);

    return shift_handlers[i->op - OP_ROL][shape][size_index(i->size)];
}

void exec_shift(struct jit_cpu *cpu, const struct insn *i)
{
    shift_handler_for(i)(cpu, i);
}

/* --- Double shifts --------------------------------------------------------------------------- */

typedef uint64_t double_shift_fn(uint64_t a, uint64_t b, uint8_t count, unsigned size,
                                 uint64_t *rflags);

static uint64_t shift_left(uint64_t a, uint64_t b, uint8_t count, unsigned size, uint64_t *rflags)
{
    switch (size) {
    case 2:
        return alu_shld_2((uint16_t)a, (uint16_t)b, count, rflags);
    case 4:
        return alu_shld_4((uint32_t)a, (uint32_t)b, count, rflags);
    default:
        return alu_shld_8(a, b, count, rflags);
    }
}

static uint64_t shift_right(uint64_t a, uint64_t b, uint8_t count, unsigned size, uint64_t *rflags)
{
    switch (size) {
    case 2:
        return alu_shrd_2((uint16_t)a, (uint16_t)b, count, rflags);
    case 4:
        return alu_shrd_4((uint32_t)a, (uint32_t)b, count, rflags);
    default:
        return alu_shrd_8(a, b, count, rflags);
    }
}

static void double_shift(struct jit_cpu *cpu, const struct insn *i, double_shift_fn *shift)
{
    uint8_t count = (uint8_t)(i->form == FORM_RM_REG_CL ? cpu->gpr[RCX] : i->imm);
    uint64_t source = jit_get_reg(cpu, i->reg, i->size), rflags = cpu->rflags;

    if (i->mem) {
        struct update u;
        uint64_t a = update_begin(cpu, &u, i, i->size);

        update_end(cpu, &u, i->size, shift(a, source, count, i->size, &rflags));
    } else {
        uint64_t a = jit_get_reg(cpu, i->rm, i->size);

        jit_set_reg(cpu, i->rm, i->size, shift(a, source, count, i->size, &rflags));
    }
    cpu->rflags = rflags;
}

void exec_shld(struct jit_cpu *cpu, const struct insn *i)
{
    double_shift(cpu, i, shift_left);
}

void exec_shrd(struct jit_cpu *cpu, const struct insn *i)
{
    double_shift(cpu, i, shift_right);
}

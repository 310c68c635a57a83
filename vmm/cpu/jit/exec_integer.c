/*
 * exec_integer.c - the table of integer instructions, the choice of specialised handlers, and the
 * operations that are too small for a file of their own.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

/* --- Moves that look at flags or change the bytes -------------------------------------------- */

/* The source is read, and a 32-bit destination extended, whether it moves or not. */
static void exec_cmov(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    if (!alu_condition(cpu->rflags, i->cond))
        source = jit_get_reg(cpu, i->reg, i->size);
    jit_set_reg(cpu, i->reg, i->size, source);
}

static void exec_setcc(struct jit_cpu *cpu, const struct insn *i)
{
    jit_write_rm(cpu, i, 1, alu_condition(cpu->rflags, i->cond));
}

/* BSWAP of 16 bits is undefined; CPUs clear them. */
static uint64_t swap_bytes(uint64_t value, unsigned size)
{
    return __builtin_bswap64(value) >> (64 - size * 8);
}

static void exec_bswap(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value = jit_get_reg(cpu, i->rm, i->size);

    jit_set_reg(cpu, i->rm, i->size, i->size == 2 ? 0 : swap_bytes(value, i->size));
}

static void exec_movbe(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->form == FORM_REG_RM)
        jit_set_reg(cpu, i->reg, i->size, swap_bytes(jit_read_rm(cpu, i, i->size), i->size));
    else
        jit_write_rm(cpu, i, i->size, swap_bytes(jit_get_reg(cpu, i->reg, i->size), i->size));
}

static void exec_movnti(struct jit_cpu *cpu, const struct insn *i)
{
    jit_write_rm(cpu, i, i->size, jit_get_reg(cpu, i->reg, i->size));
}

/* CBW, CWDE, CDQE: the lower half of the accumulator extends. */
static void exec_cbw(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, RAX, i->size, (uint64_t)sign_extend(cpu->gpr[RAX], i->size / 2));
}

/* CWD, CDQ, CQO: rdx becomes the sign. */
static void exec_cwd(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, RDX, i->size, (uint64_t)(sign_extend(cpu->gpr[RAX], i->size) >> 63));
}

enum { FLAGS_AH = FLAGS_ARITH & 0xff };

static void exec_lahf(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, REG_AH, 1, (cpu->rflags & FLAGS_AH) | RFLAGS_FIXED);
}

static void exec_sahf(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t ah = jit_get_reg(cpu, REG_AH, 1);

    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_AH) | (ah & FLAGS_AH);
}

static void exec_xlat(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t offset = (cpu->gpr[RBX] + (uint8_t)cpu->gpr[RAX]) & size_mask(i->asize);

    jit_set_reg(cpu, RAX, 1, mmu_load(cpu, linear_of(cpu, i->seg, offset, 1, false), 1));
}

static void exec_nop(struct jit_cpu *cpu, const struct insn *i) {}

static void exec_pause(struct jit_cpu *cpu, const struct insn *i)
{
    __builtin_ia32_pause();
}

/* --- The table ------------------------------------------------------------------------------- */

const struct jit_handler_entry jit_exec_integer[] = {
    {OP_ADD, exec_alu},
    {OP_OR, exec_alu},
    {OP_ADC, exec_alu},
    {OP_SBB, exec_alu},
    {OP_AND, exec_alu},
    {OP_SUB, exec_alu},
    {OP_XOR, exec_alu},
    {OP_CMP, exec_alu},
    {OP_TEST, exec_alu},
    {OP_INC, exec_alu_unary},
    {OP_DEC, exec_alu_unary},
    {OP_NEG, exec_alu_unary},
    {OP_NOT, exec_alu_unary},
    {OP_MUL, exec_mul},
    {OP_IMUL1, exec_imul1},
    {OP_IMUL, exec_imul},
    {OP_DIV, exec_div},
    {OP_IDIV, exec_idiv},
    {OP_XADD, exec_xadd},
    {OP_CMPXCHG, exec_cmpxchg},
    {OP_CMPXCHG8B, exec_cmpxchg8b},
    {OP_CMPXCHG16B, exec_cmpxchg16b},
    {OP_ROL, exec_shift},
    {OP_ROR, exec_shift},
    {OP_RCL, exec_shift},
    {OP_RCR, exec_shift},
    {OP_SHL, exec_shift},
    {OP_SHR, exec_shift},
    {OP_SAR, exec_shift},
    {OP_SHLD, exec_shld},
    {OP_SHRD, exec_shrd},
    {OP_MOV, exec_mov},
    {OP_MOVZX, exec_movzx},
    {OP_MOVSX, exec_movsx},
    {OP_MOVBE, exec_movbe},
    {OP_MOVNTI, exec_movnti},
    {OP_LEA, exec_lea},
    {OP_XCHG, exec_xchg},
    {OP_BSWAP, exec_bswap},
    {OP_CBW, exec_cbw},
    {OP_CWD, exec_cwd},
    {OP_CMOV, exec_cmov},
    {OP_SETCC, exec_setcc},
    {OP_LAHF, exec_lahf},
    {OP_SAHF, exec_sahf},
    {OP_XLAT, exec_xlat},
    {OP_NOP, exec_nop},
    {OP_PAUSE, exec_pause},
    {OP_UD, NULL},
};

jit_handler *jit_handler_for(const struct insn *i)
{
    switch (i->op) {
    case OP_ADD ... OP_TEST:
        return alu_handler_for(i);
    case OP_INC ... OP_NOT:
        return alu_unary_handler_for(i);
    case OP_ROL ... OP_SAR:
        return shift_handler_for(i);
    case OP_MOV:
        return mov_handler_for(i);
    case OP_MOVZX:
    case OP_MOVSX:
        return extend_handler_for(i);
    case OP_LEA:
        return lea_handler_for(i);
    case OP_JCC:
    case OP_JMP:
    case OP_CALL:
    case OP_RET:
    case OP_PUSH:
    case OP_POP:
        return flow_handler_for(i);
    default:
        return jit_handlers[i->op];
    }
}

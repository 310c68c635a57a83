/*
 * exec_decimal.c - decimal adjustment: AAA AAS AAD AAM DAA DAS (SDM vol 2). No 64-bit code has
 * them.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

/* SF, ZF and PF from AL; the others as given. */
static void result_flags(struct jit_cpu *cpu, uint8_t al, uint64_t others)
{
    uint64_t flags = 0;

    alu_test_1(al, al, &flags);
    cpu->rflags =
        (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (flags & (FLAG_SF | FLAG_ZF | FLAG_PF)) | others;
}

/* AAA adds, AAS subtracts. */
static void ascii_adjust(struct jit_cpu *cpu, bool add)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    bool adjust = (ax & 0xf) > 9 || (cpu->rflags & FLAG_AF);

    if (adjust)
        ax = (uint16_t)(add ? ax + 0x106 : ax - 0x106);
    jit_set_reg(cpu, RAX, 2, ax & 0xff0f);
    result_flags(cpu, (uint8_t)ax & 0xf, adjust ? FLAG_AF | FLAG_CF : 0);
}

static void exec_aaa(struct jit_cpu *cpu, const struct insn *i)
{
    ascii_adjust(cpu, true);
}

static void exec_aas(struct jit_cpu *cpu, const struct insn *i)
{
    ascii_adjust(cpu, false);
}

static void exec_aad(struct jit_cpu *cpu, const struct insn *i)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (uint8_t)i->imm);

    jit_set_reg(cpu, RAX, 2, al);
    result_flags(cpu, al, 0);
}

static void exec_aam(struct jit_cpu *cpu, const struct insn *i)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX], base = (uint8_t)i->imm;

    if (!base)
        jit_raise(cpu, VECTOR_DE);
    jit_set_reg(cpu, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    result_flags(cpu, al % base, 0);
}

/* DAA adds, DAS subtracts. */
static void decimal_adjust(struct jit_cpu *cpu, bool add)
{
    const uint8_t old = (uint8_t)cpu->gpr[RAX];
    const bool old_carry = cpu->rflags & FLAG_CF;
    uint8_t al = old;
    uint64_t flags = 0;

    if ((old & 0xf) > 9 || (cpu->rflags & FLAG_AF)) {
        al = (uint8_t)(add ? al + 6 : al - 6);
        flags |= FLAG_AF;
        if (old_carry || (add ? old > 0xf9 : old < 6))
            flags |= FLAG_CF;
    }
    if (old > 0x99 || old_carry) {
        al = (uint8_t)(add ? al + 0x60 : al - 0x60);
        flags |= FLAG_CF;
    } else if (add) {
        flags &= ~(uint64_t)FLAG_CF;
    }
    jit_set_reg(cpu, RAX, 1, al);
    result_flags(cpu, al, flags);
}

static void exec_daa(struct jit_cpu *cpu, const struct insn *i)
{
    decimal_adjust(cpu, true);
}

static void exec_das(struct jit_cpu *cpu, const struct insn *i)
{
    decimal_adjust(cpu, false);
}

const struct jit_handler_entry exec_decimal[] = {
    {OP_AAA, exec_aaa}, {OP_AAS, exec_aas}, {OP_AAD, exec_aad}, {OP_AAM, exec_aam},
    {OP_DAA, exec_daa}, {OP_DAS, exec_das}, {OP_UD, NULL},
};

/*
 * exec_muldiv.c - MUL, IMUL, DIV, IDIV.
 *
 * Multiplications are the host's. Divisions are checked first, so that no #DE of the guest becomes
 * a signal here. DIV and IDIV leave the flags, which are undefined then, as they were.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

static void wide_result(struct jit_cpu *cpu, unsigned size, uint64_t low, uint64_t high)
{
    jit_set_reg(cpu, RAX, size, low);
    jit_set_reg(cpu, RDX, size, high);
}

#define WIDE(name)                                                                                 \
    void exec_##name(struct jit_cpu *cpu, const struct insn *i)                                    \
    {                                                                                              \
        const uint64_t b = jit_read_rm(cpu, i, i->size);                                           \
        uint16_t low2 = (uint16_t)cpu->gpr[RAX], high2;                                            \
        uint32_t low4 = (uint32_t)cpu->gpr[RAX], high4;                                            \
        uint64_t low8 = cpu->gpr[RAX], high8;                                                      \
                                                                                                   \
        switch (i->size) {                                                                         \
        case 1:                                                                                    \
            jit_set_reg(cpu, RAX, 2, alu_##name##_1((uint8_t)low2, (uint8_t)b, &cpu->rflags));     \
            break;                                                                                 \
        case 2:                                                                                    \
            alu_##name##_2(&low2, &high2, (uint16_t)b, &cpu->rflags);                              \
            wide_result(cpu, 2, low2, high2);                                                      \
            break;                                                                                 \
        case 4:                                                                                    \
            alu_##name##_4(&low4, &high4, (uint32_t)b, &cpu->rflags);                              \
            wide_result(cpu, 4, low4, high4);                                                      \
            break;                                                                                 \
        default:                                                                                   \
            alu_##name##_8(&low8, &high8, b, &cpu->rflags);                                        \
            wide_result(cpu, 8, low8, high8);                                                      \
        }                                                                                          \
    }
WIDE(mul)
WIDE(imul1)

/* reg := reg * rm, or reg := rm * imm */
void exec_imul(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t a = jit_read_rm(cpu, i, i->size);
    const uint64_t b = i->form == FORM_REG_RM_IMM ? i->imm : jit_get_reg(cpu, i->reg, i->size);
    uint64_t product;

    switch (i->size) {
    case 2:
        product = alu_imul_2((uint16_t)a, (uint16_t)b, &cpu->rflags);
        break;
    case 4:
        product = alu_imul_4((uint32_t)a, (uint32_t)b, &cpu->rflags);
        break;
    default:
        product = alu_imul_8(a, b, &cpu->rflags);
    }
    jit_set_reg(cpu, i->reg, i->size, product);
}

/* --- Division -------------------------------------------------------------------------------- */

/* The host's, where high < divisor: the quotient fits. */
static uint64_t divide(uint64_t low, uint64_t high, uint64_t divisor, uint64_t *remainder)
{
    uint64_t quotient;

    __asm__("divq %4"
            : "=a"(quotient), "=d"(*remainder)
            : "a"(low), "d"(high), "r"(divisor)
            : "cc");
    return quotient;
}

/* The dividend, rdx:rax or a half of it: AX for bytes. */
static unsigned __int128 dividend_of(const struct jit_cpu *cpu, unsigned size)
{
    const uint64_t low = jit_get_reg(cpu, RAX, size), high = jit_get_reg(cpu, RDX, size);

    if (size == 1)
        return (uint16_t)cpu->gpr[RAX];
    return (unsigned __int128)high << size * 8 | low;
}

static void division_result(struct jit_cpu *cpu, unsigned size, uint64_t quotient,
                            uint64_t remainder)
{
    if (size == 1) {
        jit_set_reg(cpu, RAX, 2, (quotient & 0xff) | (remainder & 0xff) << 8);
    } else {
        jit_set_reg(cpu, RAX, size, quotient);
        jit_set_reg(cpu, RDX, size, remainder);
    }
}

void exec_div(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t divisor = jit_read_rm(cpu, i, i->size);
    const unsigned __int128 dividend = dividend_of(cpu, i->size);
    uint64_t quotient, remainder;

    if ((uint64_t)(dividend >> i->size * 8) >= divisor) /* a divisor of zero too */
        jit_raise(cpu, VECTOR_DE);
    quotient = divide((uint64_t)dividend, (uint64_t)(dividend >> 64), divisor, &remainder);
    division_result(cpu, i->size, quotient, remainder);
}

/* By magnitudes; the remainder has the sign of the dividend (SDM vol 2, IDIV). */
void exec_idiv(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned bits = i->size * 8;
    const int64_t divisor = sign_extend(jit_read_rm(cpu, i, i->size), i->size);
    const unsigned shift = 128 - 2 * bits;
    const __int128 dividend = (__int128)(dividend_of(cpu, i->size) << shift) >> shift;
    const bool negative = dividend < 0, quotient_negative = negative != (divisor < 0);
    const unsigned __int128 n =
        negative ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    const uint64_t d = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor;
    const uint64_t most = (1ull << (bits - 1)) - !quotient_negative;
    uint64_t quotient, remainder;

    if (!d || (uint64_t)(n >> 64) >= d)
        jit_raise(cpu, VECTOR_DE);
    quotient = divide((uint64_t)n, (uint64_t)(n >> 64), d, &remainder);
    if (quotient > most)
        jit_raise(cpu, VECTOR_DE);
    division_result(cpu, i->size, quotient_negative ? -quotient : quotient,
                    negative ? -remainder : remainder);
}

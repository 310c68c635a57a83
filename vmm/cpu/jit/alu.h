/*
 * alu.h - arithmetic by the host's own instructions, one for each operation and operand size.
 *
 * The flags are what the host's instruction leaves, undefined ones included, so that nothing has to
 * be worked out. LAHF and SETO bring them out without touching memory: PUSHFQ would write below a
 * stack pointer that the compiler does not know to have moved (red zone).
 *
 * Every function takes RFLAGS and gives back RFLAGS with the flags the operation writes replaced.
 */
#ifndef VMM_JIT_ALU_H
#define VMM_JIT_ALU_H

#include "cpu/jit/cpu.h"

/* AH as LAHF fills it, AL from SETO. */
static inline uint64_t alu_flags(uint64_t rflags, uint32_t ax, uint64_t written)
{
    uint64_t flags = (ax >> 8 & (FLAGS_ARITH & 0xff)) | (uint64_t)(ax & 1) << 11;

    return (rflags & ~written) | (flags & written);
}

#define ALU_FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* r := a op b */
#define ALU_BINARY(name, mnemonic, suffix, type, constraint)                                       \
    static inline type alu_##name(type a, type b, uint64_t *rflags)                                \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        __asm__(mnemonic suffix " %2, %0" ALU_FLAGS_OUT                                            \
                : "+&" constraint(a), "=&a"(ax)                                                    \
                : constraint(b)                                                                    \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return a;                                                                                  \
    }
/* The same with CF as it is: ADC, SBB. */
#define ALU_BINARY_CARRY(name, mnemonic, suffix, type, constraint)                                 \
    static inline type alu_##name(type a, type b, uint64_t *rflags)                                \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        __asm__("btl $0, %k3\n\t" mnemonic suffix " %2, %0" ALU_FLAGS_OUT                          \
                : "+&" constraint(a), "=&a"(ax)                                                    \
                : constraint(b), "r"(*rflags)                                                      \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return a;                                                                                  \
    }
/* Flags only: CMP, TEST. The result is a. */
#define ALU_COMPARE(name, mnemonic, suffix, type, constraint)                                      \
    static inline type alu_##name(type a, type b, uint64_t *rflags)                                \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        __asm__(mnemonic suffix " %2, %1" ALU_FLAGS_OUT                                            \
                : "=&a"(ax)                                                                        \
                : constraint(a), constraint(b)                                                     \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return a;                                                                                  \
    }
/* r := op a; b is there so that all have one shape. */
#define ALU_UNARY(name, mnemonic, suffix, type, constraint, written)                               \
    static inline type alu_##name(type a, type b, uint64_t *rflags)                                \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        __asm__(mnemonic suffix " %0" ALU_FLAGS_OUT : "+&" constraint(a), "=&a"(ax) : : "cc");     \
        *rflags = alu_flags(*rflags, ax, written);                                                 \
        return a;                                                                                  \
    }
/* r := a shifted by b. A count of zero after masking changes no flag (SDM vol 2, SAL/SAR/SHL/SHR).
 */
#define ALU_SHIFT(name, mnemonic, suffix, type, constraint, written)                               \
    static inline type alu_##name(type a, uint8_t count, uint64_t *rflags)                         \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        if (!(count & (sizeof(type) == 8 ? 63 : 31)))                                              \
            return a;                                                                              \
        __asm__("btl $0, %k3\n\t" mnemonic suffix " %%cl, %0" ALU_FLAGS_OUT                        \
                : "+&" constraint(a), "=&a"(ax)                                                    \
                : "c"(count), "r"(*rflags)                                                         \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, written);                                                 \
        return a;                                                                                  \
    }

#define ALU_SIZES(of, name, mnemonic)                                                              \
    of(name##_1, mnemonic, "b", uint8_t, "q") of(name##_2, mnemonic, "w", uint16_t, "r")           \
        of(name##_4, mnemonic, "l", uint32_t, "r") of(name##_8, mnemonic, "q", uint64_t, "r")
#define ALU_SIZES_WRITING(of, name, mnemonic, written)                                             \
    of(name##_1, mnemonic, "b", uint8_t, "q", written)                                             \
        of(name##_2, mnemonic, "w", uint16_t, "r", written)                                        \
            of(name##_4, mnemonic, "l", uint32_t, "r", written)                                    \
                of(name##_8, mnemonic, "q", uint64_t, "r", written)

ALU_SIZES(ALU_BINARY, add, "add")
ALU_SIZES(ALU_BINARY, or, "or")
ALU_SIZES(ALU_BINARY_CARRY, adc, "adc")
ALU_SIZES(ALU_BINARY_CARRY, sbb, "sbb")
ALU_SIZES(ALU_BINARY, and, "and")
ALU_SIZES(ALU_BINARY, sub, "sub")
ALU_SIZES(ALU_BINARY, xor, "xor")
ALU_SIZES(ALU_COMPARE, cmp, "cmp")
ALU_SIZES(ALU_COMPARE, test, "test")
ALU_SIZES_WRITING(ALU_UNARY, inc, "inc", FLAGS_ARITH & ~FLAG_CF)
ALU_SIZES_WRITING(ALU_UNARY, dec, "dec", FLAGS_ARITH & ~FLAG_CF)
ALU_SIZES_WRITING(ALU_UNARY, neg, "neg", FLAGS_ARITH)
ALU_SIZES_WRITING(ALU_UNARY, not, "not", 0)
ALU_SIZES_WRITING(ALU_SHIFT, rol, "rol", FLAG_CF | FLAG_OF)
ALU_SIZES_WRITING(ALU_SHIFT, ror, "ror", FLAG_CF | FLAG_OF)
ALU_SIZES_WRITING(ALU_SHIFT, rcl, "rcl", FLAG_CF | FLAG_OF)
ALU_SIZES_WRITING(ALU_SHIFT, rcr, "rcr", FLAG_CF | FLAG_OF)
ALU_SIZES_WRITING(ALU_SHIFT, shl, "shl", FLAGS_ARITH)
ALU_SIZES_WRITING(ALU_SHIFT, shr, "shr", FLAGS_ARITH)
ALU_SIZES_WRITING(ALU_SHIFT, sar, "sar", FLAGS_ARITH)

/* SHLD and SHRD: bits of b move into a. */
#define ALU_DOUBLE_SHIFT(name, mnemonic, suffix, type, constraint)                                 \
    static inline type alu_##name(type a, type b, uint8_t count, uint64_t *rflags)                 \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        if (!(count & (sizeof(type) == 8 ? 63 : 31)))                                              \
            return a;                                                                              \
        __asm__(mnemonic suffix " %%cl, %2, %0" ALU_FLAGS_OUT                                      \
                : "+&" constraint(a), "=&a"(ax)                                                    \
                : constraint(b), "c"(count)                                                        \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return a;                                                                                  \
    }
ALU_DOUBLE_SHIFT(shld_2, "shld", "w", uint16_t, "r")
ALU_DOUBLE_SHIFT(shld_4, "shld", "l", uint32_t, "r")
ALU_DOUBLE_SHIFT(shld_8, "shld", "q", uint64_t, "r")
ALU_DOUBLE_SHIFT(shrd_2, "shrd", "w", uint16_t, "r")
ALU_DOUBLE_SHIFT(shrd_4, "shrd", "l", uint32_t, "r")
ALU_DOUBLE_SHIFT(shrd_8, "shrd", "q", uint64_t, "r")

/*
 * Multiplications leave SF, ZF, AF and PF undefined, and some hosts leave them as they were: so
 * they are there before, as they are for translated code that is to give the same.
 */
#define ALU_FLAGS_IN "sahf\n\t"
static inline uint32_t alu_flags_in(uint64_t rflags)
{
    return (uint32_t)(rflags & (FLAGS_ARITH & 0xff)) << 8;
}

/* r := a * b, signed and cut (IMUL with two or three operands). */
#define ALU_MULTIPLY(name, suffix, type)                                                           \
    static inline type alu_##name(type a, type b, uint64_t *rflags)                                \
    {                                                                                              \
        uint32_t ax = alu_flags_in(*rflags);                                                       \
                                                                                                   \
        __asm__(ALU_FLAGS_IN "imul" suffix " %2, %0" ALU_FLAGS_OUT                                 \
                : "+&r"(a), "+&a"(ax)                                                              \
                : "r"(b)                                                                           \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return a;                                                                                  \
    }
ALU_MULTIPLY(imul_2, "w", uint16_t)
ALU_MULTIPLY(imul_4, "l", uint32_t)
ALU_MULTIPLY(imul_8, "q", uint64_t)

/* high:low := low * b (MUL, IMUL with one operand). */
#define ALU_WIDE(name, mnemonic, suffix, type)                                                     \
    static inline void alu_##name(type *low, type *high, type b, uint64_t *rflags)                 \
    {                                                                                              \
        uint8_t overflow;                                                                          \
        uint64_t ax = alu_flags_in(*rflags);                                                       \
                                                                                                   \
        __asm__(ALU_FLAGS_IN "mov %5, %%" ALU_A_##type                                             \
                "\n\t" mnemonic suffix " %4\n\tmov %%" ALU_A_##type ", %0\n\tlahf\n\tseto %2"      \
                : "=&r"(*low), "=&d"(*high), "=&q"(overflow), "+&a"(ax)                            \
                : "r"(b), "r"(*low)                                                                \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, (ax & 0xff00) | overflow, FLAGS_ARITH);                       \
    }
#define ALU_A_uint16_t "ax"
#define ALU_A_uint32_t "eax"
#define ALU_A_uint64_t "rax"
ALU_WIDE(mul_2, "mul", "w", uint16_t)
ALU_WIDE(mul_4, "mul", "l", uint32_t)
ALU_WIDE(mul_8, "mul", "q", uint64_t)
ALU_WIDE(imul1_2, "imul", "w", uint16_t)
ALU_WIDE(imul1_4, "imul", "l", uint32_t)
ALU_WIDE(imul1_8, "imul", "q", uint64_t)

/* ax := al * b */
#define ALU_WIDE_BYTE(name, mnemonic)                                                              \
    static inline uint16_t alu_##name(uint8_t a, uint8_t b, uint64_t *rflags)                      \
    {                                                                                              \
        uint8_t overflow;                                                                          \
        uint16_t product;                                                                          \
        uint32_t ax = alu_flags_in(*rflags);                                                       \
                                                                                                   \
        __asm__(ALU_FLAGS_IN "movb %4, %%al\n\t" mnemonic                                          \
                             " %3\n\tmovw %%ax, %0\n\tlahf\n\tseto %1"                             \
                : "=&r"(product), "=&q"(overflow), "+&a"(ax)                                       \
                : "q"(b), "q"(a)                                                                   \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, (ax & 0xff00) | overflow, FLAGS_ARITH);                       \
        return product;                                                                            \
    }
ALU_WIDE_BYTE(mul_1, "mulb")
ALU_WIDE_BYTE(imul1_1, "imulb")

/* BSF and BSR leave the destination alone when the source is zero, as the host does with its upper
 * half too. */
#define ALU_SCAN(name, mnemonic, suffix, modifier, type)                                           \
    static inline uint64_t alu_##name(uint64_t old, type source, uint64_t *rflags)                 \
    {                                                                                              \
        uint32_t ax;                                                                               \
                                                                                                   \
        __asm__(mnemonic suffix " %2, %" modifier "0" ALU_FLAGS_OUT                                \
                : "+&r"(old), "=&a"(ax)                                                            \
                : "r"(source)                                                                      \
                : "cc");                                                                           \
        *rflags = alu_flags(*rflags, ax, FLAGS_ARITH);                                             \
        return old;                                                                                \
    }
ALU_SCAN(bsf_2, "bsf", "w", "w", uint16_t)
ALU_SCAN(bsf_4, "bsf", "l", "k", uint32_t)
ALU_SCAN(bsf_8, "bsf", "q", "q", uint64_t)
ALU_SCAN(bsr_2, "bsr", "w", "w", uint16_t)
ALU_SCAN(bsr_4, "bsr", "l", "k", uint32_t)
ALU_SCAN(bsr_8, "bsr", "q", "q", uint64_t)

/* Whether the condition of a Jcc, SETcc or CMOVcc holds (SDM vol 1 appendix B). */
static inline bool alu_condition(uint64_t rflags, unsigned cond)
{
    bool holds;

    switch (cond >> 1) {
    case 0:
        holds = rflags & FLAG_OF;
        break;
    case 1:
        holds = rflags & FLAG_CF;
        break;
    case 2:
        holds = rflags & FLAG_ZF;
        break;
    case 3:
        holds = rflags & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        holds = rflags & FLAG_SF;
        break;
    case 5:
        holds = rflags & FLAG_PF;
        break;
    case 6:
        holds = (rflags >> 7 ^ rflags >> 11) & 1;
        break;
    default:
        holds = (rflags & FLAG_ZF) || ((rflags >> 7 ^ rflags >> 11) & 1);
    }
    return holds != (cond & 1);
}

#endif

/*
 * test_encode.h - integer instructions, as bytes and decoded, made from a table and random
 * operands.
 */
#ifndef VMM_JIT_TEST_ENCODE_H
#define VMM_JIT_TEST_ENCODE_H

#include "cpu/jit/test_native.h"

#include "cpu/jit/insn.h"

enum {
    ENC_BYTE = 1 << 0,       /* size 1 has the opcode below */
    ENC_LOCK = 1 << 1,       /* LOCK is allowed with memory */
    ENC_IMM8 = 1 << 2,       /* immediate of one byte */
    ENC_IMM = 1 << 3,        /* immediate of the operand size, at most four bytes */
    ENC_NO_MEM = 1 << 4,     /* registers only */
    ENC_MEM = 1 << 5,        /* memory only */
    ENC_OPCODE_REG = 1 << 6, /* the register is in the opcode */
    ENC_VEX = 1 << 7,
    ENC_F2 = 1 << 8,
    ENC_F3 = 1 << 9,
    ENC_66 = 1 << 10, /* a mandatory prefix, not a size */
    ENC_NO_MODRM = 1 << 11,
    ENC_SRC8 = 1 << 12, /* source of one byte */
    ENC_SRC16 = 1 << 13,
    ENC_SRC32 = 1 << 14,
    ENC_STRING = 1 << 15,
    ENC_STACK = 1 << 16, /* sizes 2 and 8, the latter without REX.W */
};

enum { S1 = 1, S2 = 2, S4 = 4, S8 = 8, S248 = 14, S48 = 12, S1248 = 15 };

struct encoding {
    uint16_t op;
    uint8_t form, map, opcode;
    int8_t extension; /* ModRM.reg where it is part of the opcode, else -1 */
    uint8_t sizes;    /* bits of S1 to S8 */
    uint32_t flags;   /* ENC_* */
    enum cpu_feature feature;
};

extern const struct encoding encodings[];
extern const unsigned encodings_count;

struct encoded {
    const struct encoding *encoding;
    struct insn insn;
    uint8_t bytes[16];
};

/* xorshift64*: the same sequence in every run. */
uint64_t test_random(void);
static inline uint64_t test_random_below(uint64_t n)
{
    return test_random() % n;
}
/* Values where things happen: few bits, boundaries, all of them. */
uint64_t test_random_value(void);

/*
 * A random instruction of the encoding at native_rip(), and registers with which its memory operand
 * is at `operand` (strings: rdi; rsi at `operand2`).
 */
void encode_random(const struct encoding *e, struct encoded *out, struct native_state *state,
                   uint64_t operand, uint64_t operand2);

#endif

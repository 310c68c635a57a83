/*
 * vec.h - the MMX and SSE family as data: what the decoder, the interpreter and the translator need
 * to know of an instruction whose arithmetic the host does itself.
 */
#ifndef VMM_JIT_VEC_H
#define VMM_JIT_VEC_H

#include <queztl/base.h>

enum { VEC_PREFIX_NONE, VEC_PREFIX_66, VEC_PREFIX_F3, VEC_PREFIX_F2 };

/* What the ModRM fields name. */
enum vec_operand { VEC_OPERAND_NONE, VEC_OPERAND_XMM, VEC_OPERAND_MMX, VEC_OPERAND_GPR };

struct vec_op {
    const char *name;
    uint8_t map, prefix, opcode; /* 1: 0f, 2: 0f38, 3: 0f3a; VEC_PREFIX_*; last opcode byte */
    int8_t group;       /* ModRM.reg that selects within the opcode (shift groups), -1: none */
    uint8_t feature;    /* enum cpu_feature */
    uint8_t reg, rm;    /* enum vec_operand when a register */
    uint8_t mem_size;   /* bytes of the memory form, 0: no memory form; REX.W forms: mem_size_w */
    uint8_t mem_size_w; /* with REX.W, 0: the same */
    bool no_reg_form;   /* memory only (MOVNTx, MOVLPS loads...) */
    bool store;         /* the rm operand is written */
    bool load;          /* the rm operand is read */
    bool reg_written;   /* the reg operand is written */
    bool aligned;       /* memory must be 16-byte aligned, else #GP(0) */
    bool imm8;
    bool flags;       /* writes the arithmetic flags (COMISS, PTEST, PCMPxSTRx) */
    bool fp;          /* can raise SIMD floating-point exceptions (#XM) */
    uint8_t implicit; /* VEC_IMPLICIT_* */
};

enum {
    VEC_IMPLICIT_XMM0 = 1 << 0,    /* BLENDVx, PCMPxSTRM, SHA256RNDS2 */
    VEC_IMPLICIT_RAX_RDX = 1 << 1, /* PCMPESTRx read them */
    VEC_IMPLICIT_RCX = 1 << 2,     /* PCMPxSTRI write it */
    VEC_IMPLICIT_RDI = 1 << 3,     /* MASKMOVx: memory at [rdi] */
};

extern const struct vec_op vec_ops[]; /* [0] is no instruction */
extern const unsigned vec_ops_count;

/* Index into vec_ops, 0 when there is no such instruction. The last of 66, F3, F2 that counts is
 * the prefix. */
unsigned vec_find(unsigned map, unsigned prefix, uint8_t opcode, uint8_t modrm);

#endif

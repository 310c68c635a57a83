/*
 * insn.h - one decoded guest instruction, the common language of decoder, interpreter and
 * translator.
 *
 * The decoder normalises: the accumulator and register-in-opcode forms become ordinary register
 * operands, moffs becomes a memory operand with a displacement, immediates are sign-extended to 64
 * bits where the instruction does so. What is left is an operation, its operand size and a form
 * that says where the operands are.
 */
#ifndef VMM_JIT_INSN_H
#define VMM_JIT_INSN_H

#include <queztl/base.h>

#include "cpu/jit/insn_ops.h"

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

enum {
    REG_AH = 16, /* AH CH DH BH follow the sixteen byte registers: number - 16 is the register, bits
                    15:8 */
    REG_NONE = 0xff,
    REG_RIP = 0xfe, /* as base: the address of the next instruction */
};

enum {
    PREFIX_LOCK = 1 << 0,
    PREFIX_REP = 1 << 1,   /* f3 */
    PREFIX_REPNE = 1 << 2, /* f2 */
    PREFIX_OPSIZE = 1 << 3,
    PREFIX_ADDRSIZE = 1 << 4,
    PREFIX_REX = 1 << 5, /* any REX was there and counted */
    PREFIX_REX_W = 1 << 6,
    PREFIX_VEX = 1 << 7,
};

/* Destination first. RM: `rm` register or, with `mem`, the memory operand. */
enum insn_form {
    FORM_NONE,
    FORM_RM, /* one operand, ModRM.rm (or opcode register, then in rm) */
    FORM_RM_REG,
    FORM_REG_RM,
    FORM_RM_IMM,     /* also the accumulator and opcode-register forms */
    FORM_REG_RM_IMM, /* IMUL, RORX, EXTRACT... */
    FORM_RM_REG_IMM, /* SHLD, SHRD */
    FORM_RM_REG_CL,
    FORM_RM_CL,       /* shifts by CL */
    FORM_REG_VVVV_RM, /* VEX: reg := vvvv op rm */
    FORM_REG_RM_VVVV,
    FORM_VVVV_RM,
    FORM_IMM, /* PUSH imm, INT, RET imm, ENTER (imm: size, imm2: level) */
    FORM_REL, /* imm: signed displacement from the next instruction */
    FORM_FAR, /* imm: offset, imm2: selector */
};

struct insn {
    uint16_t op;      /* enum insn_op */
    uint8_t len;      /* bytes, 1 to 15 */
    uint8_t size;     /* operand size in bytes: 1, 2, 4, 8; memory bytes of vector operations are in
                         vec_ops */
    uint8_t src_size; /* MOVZX, MOVSX, MOVSXD, CRC32: size of the source; else equal to size */
    uint8_t asize;    /* address size in bytes: 2, 4, 8 */
    uint8_t form;     /* enum insn_form */
    uint8_t prefix;   /* PREFIX_* */
    uint8_t
        reg; /* ModRM.reg with REX.R; segment, control or debug register number where it is one */
    uint8_t rm;     /* register operand of ModRM.rm with REX.B, when !mem */
    uint8_t vvvv;   /* VEX */
    uint8_t cond;   /* Jcc, SETcc, CMOVcc: the low four bits of the opcode */
    bool mem;       /* the rm operand is in memory: */
    uint8_t seg;    /* its segment: overridden or default (SS for rsp/rbp bases) */
    uint8_t base;   /* 0-15, REG_NONE, REG_RIP */
    uint8_t index;  /* 0-15, REG_NONE */
    uint8_t scale;  /* shift count, 0 to 3 */
    uint8_t map;    /* opcode map: 0 one byte, 1 0f, 2 0f38, 3 0f3a */
    uint8_t opcode; /* last opcode byte */
    uint8_t modrm;  /* as it was, 0 when there is none */
    uint16_t vec;   /* OP_VEC: index into vec_ops (vec.h) */
    uint16_t imm2;
    uint16_t page_offset; /* of its first byte; the translator's */
    int32_t disp; /* for moffs with 64-bit addresses the whole address is in imm, and base and index
                     are REG_NONE, disp 0, map 0, opcode a0 to a3 */
    uint64_t imm;
};

/* How code is read: the default sizes. Part of a block's key. */
enum code_width { CODE_16, CODE_32, CODE_64 };

enum decode_result {
    DECODE_OK,
    DECODE_SHORT,    /* the bytes end inside the instruction: more are needed */
    DECODE_TOO_LONG, /* more than 15 bytes: #GP(0) */
};

/*
 * Decodes one instruction from at most `available` bytes. Encodings that no feature of `features`
 * (CPU_FEATURE_* bits, insn_ops.h) defines, LOCK where it is not allowed and forms that the width
 * does not have come out as OP_UD with DECODE_OK, their length up to the byte that told, all other
 * fields empty. Any thread; no state. Reads no byte that the architecture would not have fetched.
 *
 * What is read as whose manual says: near branches in 64-bit code ignore 66 and far ones have
 * REX.W, as Intel; a mode or privilege that an instruction needs is its executor's to check:
 *  - SYSCALL, SYSRET, SYSENTER and SYSEXIT are decoded in every width;
 *  - LAR, LSL, ARPL, 0f 00 and VEX (PREFIX_VEX) raise #UD in real and virtual-8086 mode, which the
 *    width does not tell;
 *  - all of d8 to df is OP_X87, reserved encodings too;
 *  - 0f 20 to 23 name existing registers; CR4.DE is not looked at;
 *  - BSWAP has size 2 with 66.
 *
 * Fields by operation:
 *  - prefix: of REP and REPNE only the last one is set. They, OPSIZE and ADDRSIZE also stay where
 *    they are part of the opcode or say nothing.
 *  - seg: for MOVS, CMPS, LODS, OUTS, XLAT, MASKMOVx the segment of rsi, rbx and rdi; FS and GS
 *    count in 64-bit code, other overrides are not there.
 *  - size: CMPXCHG8B 4, CMPXCHG16B 8 (one register); LGDT, LIDT, SGDT, SIDT 8 in 64-bit code;
 *    SLDT, STR, SMSW, MOV_FROM_SEG 2 in memory; X87 2 or 4 (environments); FXSAVE, XSAVE, SYSRET,
 *    SYSEXIT 8 with REX.W, else 4; VEC the size of a general register, 4 or 8. Near branches, CALL
 *    and RET: the size that the instruction pointer is cut to, LOOP and JCXZ count by asize.
 *  - src_size: of LAR and LSL 2, their register may be read whole.
 *  - imm: cut or sign-extended from the operand's size; shift counts, ports, vectors of INT,
 *    AAM's and AAD's base zero-extended, shifts by one have 1. RET and RET_FAR without an operand
 *    have FORM_NONE and imm 0. IN and OUT: FORM_RM_IMM with a port, FORM_RM with DX.
 *  - NOP: FORM_NONE, whatever ModRM there was; mem may be set, there is no access.
 *  - LZCNT and TZCNT, not offered, are BSR and BSF. PREFETCHW is NOP with or without its feature,
 * as on every 64-bit CPU.
 *  - VEC: registers as vec_ops says, MMX ones below 8; FORM_REG_RM, or FORM_RM_REG where the rm
 *    operand is written, with _IMM; shift groups FORM_RM_IMM.
 */
enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned available,
                               enum code_width width, uint64_t features);

const char *insn_op_name(enum insn_op op);

#endif

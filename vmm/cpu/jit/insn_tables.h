/*
 * insn_tables.h - the opcode maps as data (SDM vol 2 appendix A), what insn_decode.c looks up.
 *
 * An entry is an operation with its operands, or a choice among eight rows by something else than
 * the opcode. Rows may choose again. A row of a choice that leaves form and size open has those of
 * the entry that led to it: so one table serves 80, 81 and 83.
 */
#ifndef VMM_JIT_INSN_TABLES_H
#define VMM_JIT_INSN_TABLES_H

#include "cpu/jit/insn.h"

/* Operand sizes by width of the code and prefixes; named after the suffixes of SDM vol 2 §A.2. */
enum opcode_size {
    SIZE_OPEN, /* in a row: as the entry that led to it; as a source: as the destination */
    SIZE_B,
    SIZE_W,
    SIZE_D,
    SIZE_V,    /* 2, 4, 8 by 66 and REX.W */
    SIZE_Z,    /* 2 or 4: REX.W makes it 4 */
    SIZE_Y,    /* 4, with REX.W 8; 66 says something else */
    SIZE_D64,  /* v, but 8 by default in 64-bit code */
    SIZE_F64,  /* v, but always 8 in 64-bit code */
    SIZE_MODE, /* 8 in 64-bit code, else 4 */
    SIZE_COUNT,
};

/* What follows ModRM and displacement. */
enum opcode_imm {
    IMM_NONE,
    IMM_8,  /* sign-extended */
    IMM_U8, /* zero-extended */
    IMM_U16,
    IMM_Z, /* the operand's size, at most 4 bytes, sign-extended */
    IMM_V, /* the operand's size */
    IMM_1, /* no bytes: the constant 1 */
    IMM_FAR,
    IMM_ENTER,
    IMM_OFFSET, /* moffs: as long as addresses are */
};

enum opcode_choice {
    CHOICE_NONE,
    BY_REG,    /* ModRM.reg */
    BY_RM,     /* ModRM.rm */
    BY_MEM,    /* row 0: register, 1: memory */
    BY_PREFIX, /* rows by mandatory prefix: none, 66, f3, f2; f3 and f2 win over 66 */
    BY_WIDTH,  /* row 0: 16 and 32-bit code, 1: 64-bit code */
    BY_REX_W,
    BY_REX_B,
};

enum {
    MODRM = 1 << 0,
    OPREG = 1 << 1,    /* rm is the low three bits of the opcode */
    LOCKABLE = 1 << 2, /* with a memory operand */
    NOT64 = 1 << 3,
    /* Rare ones, checked together: */
    ONLY64 = 1 << 4,
    MEM_ONLY = 1 << 5,
    FEATURE64 = 1 << 6,   /* `feature` is needed in 64-bit code only */
    IGNORES_MOD = 1 << 7, /* ModRM.rm is a register whatever mod says */
    NO_PREFIX = 1 << 8,   /* none of 66, f3, f2 */
    NO_REPEAT = 1 << 9,   /* neither f3 nor f2 */
    MEM_WORD = 1 << 10,   /* in memory the operand has 16 bits */
    SEGMENT = 1 << 11,    /* reg is a segment register */
    CONTROL = 1 << 12,    /* reg is a control register */
    DEBUG = 1 << 13,
    OP_SEG = 1 << 14, /* bits 5:3 of the opcode are a segment register */
    RARE =
        ONLY64 | MEM_ONLY | NO_PREFIX | NO_REPEAT | MEM_WORD | SEGMENT | CONTROL | DEBUG | OP_SEG,
};

struct opcode {
    uint16_t op;     /* enum insn_op; with a choice: enum opcode_rows */
    uint8_t choice;  /* enum opcode_choice */
    uint8_t form;    /* enum insn_form */
    uint8_t size;    /* enum opcode_size */
    uint8_t src;     /* of the source, SIZE_OPEN: as size */
    uint8_t imm;     /* enum opcode_imm */
    uint8_t feature; /* beside the one that the operation needs everywhere */
    uint16_t flags;
};

enum opcode_rows {
    ROWS_GROUP1,
    ROWS_GROUP1A,
    ROWS_GROUP2,
    ROWS_GROUP3,
    ROWS_GROUP4,
    ROWS_GROUP5,
    ROWS_GROUP6,
    ROWS_GROUP7,
    ROWS_GROUP7_MEMORY,
    ROWS_GROUP7_REGISTER,
    ROWS_GROUP7_REG0,
    ROWS_GROUP7_REG1,
    ROWS_GROUP7_REG2,
    ROWS_GROUP7_REG3,
    ROWS_GROUP7_REG7,
    ROWS_GROUP8,
    ROWS_GROUP9,
    ROWS_GROUP9_MEMORY,
    ROWS_GROUP9_REGISTER,
    ROWS_GROUP9_REG7,
    ROWS_CMPXCHG8B,
    ROWS_GROUP11,
    ROWS_GROUP15,
    ROWS_GROUP15_MEMORY,
    ROWS_GROUP15_REGISTER,
    ROWS_GROUP15_MEM6,
    ROWS_GROUP15_MEM7,
    ROWS_GROUP15_REG0,
    ROWS_GROUP15_REG1,
    ROWS_GROUP15_REG2,
    ROWS_GROUP15_REG3,
    ROWS_63,
    ROWS_90,
    ROWS_90_PREFIX,
    ROWS_0FB8,
    ROWS_0FBC,
    ROWS_0FBD,
    ROWS_0F3882,
    ROWS_0F38F0,
    ROWS_0F38F1,
    ROWS_0F38F6,
    ROWS_COUNT,
};

extern const struct opcode opcode_map0[256], opcode_map1[256], opcode_map2[256], opcode_map3[256];
extern const struct opcode opcode_rows[ROWS_COUNT][8];

/* The VEX-encoded instructions on general registers. */
struct opcode_vex {
    uint8_t map, opcode, prefix; /* prefix: VEX.pp, none 66 f3 f2 */
    int8_t group;                /* ModRM.reg that selects, -1: none */
    uint16_t op;
    uint8_t form;
};
extern const struct opcode_vex opcode_vex[];
extern const unsigned opcode_vex_count;

/* By enum insn_op: the enum cpu_feature that the operation needs. */
extern const uint8_t opcode_feature[OP_COUNT];

#endif

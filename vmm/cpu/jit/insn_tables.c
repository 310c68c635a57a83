/*
 * insn_tables.c - the opcode maps (insn_tables.h), in the order of SDM vol 2 appendix A.
 *
 * E: an operation. S: one with a source of another size. N: one without operands. CHOOSE: a choice
 * of rows. R: a row with the operands of the entry that led to it. What is not there is #UD.
 */
#include "cpu/jit/insn_tables.h"

#define E(op_, form_, size_, imm_, flags_)                                                         \
    {                                                                                              \
        .op = OP_##op_, .form = FORM_##form_, .size = SIZE_##size_, .imm = IMM_##imm_,             \
        .flags = flags_                                                                            \
    }
#define S(op_, form_, size_, src_, flags_)                                                         \
    {                                                                                              \
        .op = OP_##op_, .form = FORM_##form_, .size = SIZE_##size_, .src = SIZE_##src_,            \
        .flags = flags_                                                                            \
    }
#define N(op_, size_, flags_)                                                                      \
    {                                                                                              \
        .op = OP_##op_, .size = SIZE_##size_, .flags = flags_                                      \
    }
#define CHOOSE(by_, rows_, form_, size_, imm_, flags_)                                             \
    {                                                                                              \
        .op = ROWS_##rows_, .choice = by_, .form = FORM_##form_, .size = SIZE_##size_,             \
        .imm = IMM_##imm_, .flags = flags_                                                         \
    }
#define R(op_, flags_)                                                                             \
    {                                                                                              \
        .op = OP_##op_, .flags = flags_                                                            \
    }
#define NEEDS(feature_, op_, form_, size_, flags_)                                                 \
    {                                                                                              \
        .op = OP_##op_, .form = FORM_##form_, .size = SIZE_##size_, .feature = CPU_##feature_,     \
        .flags = flags_                                                                            \
    }

/* The eight arithmetic operations in their six encodings. */
#define ARITHMETIC(base, op, lock)                                                                 \
    [base] = E(op, RM_REG, B, NONE, MODRM | (lock)),                                               \
    [(base) + 1] = E(op, RM_REG, V, NONE, MODRM | (lock)),                                         \
    [(base) + 2] = E(op, REG_RM, B, NONE, MODRM), [(base) + 3] = E(op, REG_RM, V, NONE, MODRM),    \
    [(base) + 4] = E(op, RM_IMM, B, Z, 0), [(base) + 5] = E(op, RM_IMM, V, Z, 0)

/* clang-format off */
const struct opcode opcode_map0[256] = {
    ARITHMETIC(0x00, ADD, LOCKABLE),
    [0x06] = N(PUSH_SEG, D64, NOT64 | OP_SEG), [0x07] = N(POP_SEG, D64, NOT64 | OP_SEG),
    ARITHMETIC(0x08, OR, LOCKABLE),
    [0x0e] = N(PUSH_SEG, D64, NOT64 | OP_SEG),
    ARITHMETIC(0x10, ADC, LOCKABLE),
    [0x16] = N(PUSH_SEG, D64, NOT64 | OP_SEG), [0x17] = N(POP_SEG, D64, NOT64 | OP_SEG),
    ARITHMETIC(0x18, SBB, LOCKABLE),
    [0x1e] = N(PUSH_SEG, D64, NOT64 | OP_SEG), [0x1f] = N(POP_SEG, D64, NOT64 | OP_SEG),
    ARITHMETIC(0x20, AND, LOCKABLE), [0x27] = N(DAA, B, NOT64),
    ARITHMETIC(0x28, SUB, LOCKABLE), [0x2f] = N(DAS, B, NOT64),
    ARITHMETIC(0x30, XOR, LOCKABLE), [0x37] = N(AAA, B, NOT64),
    ARITHMETIC(0x38, CMP, 0), [0x3f] = N(AAS, B, NOT64),
    /* in 64-bit code these are REX */
    [0x40 ... 0x47] = E(INC, RM, V, NONE, OPREG), [0x48 ... 0x4f] = E(DEC, RM, V, NONE, OPREG),
    [0x50 ... 0x57] = E(PUSH, RM, D64, NONE, OPREG), [0x58 ... 0x5f] = E(POP, RM, D64, NONE, OPREG),
    [0x60] = N(PUSHA, Z, NOT64), [0x61] = N(POPA, Z, NOT64),
    /* 62 with a register is EVEX; c4 and c5 are VEX: in 64-bit code always */
    [0x62] = E(BOUND, REG_RM, Z, NONE, MODRM | NOT64 | MEM_ONLY),
    [0x63] = CHOOSE(BY_WIDTH, 63, NONE, OPEN, NONE, MODRM),
    [0x68] = E(PUSH, IMM, D64, Z, 0), [0x69] = E(IMUL, REG_RM_IMM, V, Z, MODRM),
    [0x6a] = E(PUSH, IMM, D64, 8, 0), [0x6b] = E(IMUL, REG_RM_IMM, V, 8, MODRM),
    [0x6c] = N(INS, B, 0), [0x6d] = N(INS, Z, 0), [0x6e] = N(OUTS, B, 0), [0x6f] = N(OUTS, Z, 0),
    [0x70 ... 0x7f] = E(JCC, REL, F64, 8, 0),
    [0x80] = CHOOSE(BY_REG, GROUP1, RM_IMM, B, Z, MODRM), [0x81] = CHOOSE(BY_REG, GROUP1, RM_IMM, V, Z, MODRM),
    [0x82] = CHOOSE(BY_REG, GROUP1, RM_IMM, B, Z, MODRM | NOT64), [0x83] = CHOOSE(BY_REG, GROUP1, RM_IMM, V, 8, MODRM),
    [0x84] = E(TEST, RM_REG, B, NONE, MODRM), [0x85] = E(TEST, RM_REG, V, NONE, MODRM),
    [0x86] = E(XCHG, RM_REG, B, NONE, MODRM | LOCKABLE), [0x87] = E(XCHG, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0x88] = E(MOV, RM_REG, B, NONE, MODRM), [0x89] = E(MOV, RM_REG, V, NONE, MODRM),
    [0x8a] = E(MOV, REG_RM, B, NONE, MODRM), [0x8b] = E(MOV, REG_RM, V, NONE, MODRM),
    [0x8c] = E(MOV_FROM_SEG, RM_REG, V, NONE, MODRM | SEGMENT | MEM_WORD),
    [0x8d] = E(LEA, REG_RM, V, NONE, MODRM | MEM_ONLY),
    [0x8e] = E(MOV_TO_SEG, REG_RM, W, NONE, MODRM | SEGMENT),
    [0x8f] = CHOOSE(BY_REG, GROUP1A, RM, D64, NONE, MODRM),
    [0x90] = CHOOSE(BY_REX_B, 90, RM_REG, V, NONE, OPREG),
    [0x91 ... 0x97] = E(XCHG, RM_REG, V, NONE, OPREG),
    [0x98] = N(CBW, V, 0), [0x99] = N(CWD, V, 0), [0x9a] = E(CALL_FAR, FAR, Z, FAR, NOT64), [0x9b] = N(FWAIT, V, 0),
    [0x9c] = N(PUSHF, D64, 0), [0x9d] = N(POPF, D64, 0), [0x9e] = NEEDS(LAHF64, SAHF, NONE, B, FEATURE64), [0x9f] = NEEDS(LAHF64, LAHF, NONE, B, FEATURE64),
    [0xa0] = E(MOV, REG_RM, B, OFFSET, 0), [0xa1] = E(MOV, REG_RM, V, OFFSET, 0),
    [0xa2] = E(MOV, RM_REG, B, OFFSET, 0), [0xa3] = E(MOV, RM_REG, V, OFFSET, 0),
    [0xa4] = N(MOVS, B, 0), [0xa5] = N(MOVS, V, 0), [0xa6] = N(CMPS, B, 0), [0xa7] = N(CMPS, V, 0),
    [0xa8] = E(TEST, RM_IMM, B, Z, 0), [0xa9] = E(TEST, RM_IMM, V, Z, 0),
    [0xaa] = N(STOS, B, 0), [0xab] = N(STOS, V, 0), [0xac] = N(LODS, B, 0), [0xad] = N(LODS, V, 0),
    [0xae] = N(SCAS, B, 0), [0xaf] = N(SCAS, V, 0),
    [0xb0 ... 0xb7] = E(MOV, RM_IMM, B, Z, OPREG), [0xb8 ... 0xbf] = E(MOV, RM_IMM, V, V, OPREG),
    [0xc0] = CHOOSE(BY_REG, GROUP2, RM_IMM, B, U8, MODRM), [0xc1] = CHOOSE(BY_REG, GROUP2, RM_IMM, V, U8, MODRM),
    [0xc2] = E(RET, IMM, F64, U16, 0), [0xc3] = N(RET, F64, 0),
    [0xc4] = E(LES, REG_RM, Z, NONE, MODRM | NOT64 | MEM_ONLY), [0xc5] = E(LDS, REG_RM, Z, NONE, MODRM | NOT64 | MEM_ONLY),
    [0xc6] = CHOOSE(BY_REG, GROUP11, RM_IMM, B, Z, MODRM), [0xc7] = CHOOSE(BY_REG, GROUP11, RM_IMM, V, Z, MODRM),
    [0xc8] = E(ENTER, IMM, D64, ENTER, 0), [0xc9] = N(LEAVE, D64, 0),
    [0xca] = E(RET_FAR, IMM, V, U16, 0), [0xcb] = N(RET_FAR, V, 0),
    [0xcc] = N(INT3, B, 0), [0xcd] = E(INT, IMM, B, U8, 0), [0xce] = N(INTO, B, NOT64), [0xcf] = N(IRET, V, 0),
    [0xd0] = CHOOSE(BY_REG, GROUP2, RM_IMM, B, 1, MODRM), [0xd1] = CHOOSE(BY_REG, GROUP2, RM_IMM, V, 1, MODRM),
    [0xd2] = CHOOSE(BY_REG, GROUP2, RM_CL, B, NONE, MODRM), [0xd3] = CHOOSE(BY_REG, GROUP2, RM_CL, V, NONE, MODRM),
    [0xd4] = E(AAM, IMM, B, U8, NOT64), [0xd5] = E(AAD, IMM, B, U8, NOT64), [0xd7] = N(XLAT, B, 0),
    [0xd8 ... 0xdf] = E(X87, RM, Z, NONE, MODRM),
    [0xe0] = E(LOOPNE, REL, F64, 8, 0), [0xe1] = E(LOOPE, REL, F64, 8, 0), [0xe2] = E(LOOP, REL, F64, 8, 0),
    [0xe3] = E(JCXZ, REL, F64, 8, 0),
    [0xe4] = E(IN, RM_IMM, B, U8, 0), [0xe5] = E(IN, RM_IMM, Z, U8, 0),
    [0xe6] = E(OUT, RM_IMM, B, U8, 0), [0xe7] = E(OUT, RM_IMM, Z, U8, 0),
    [0xe8] = E(CALL, REL, F64, Z, 0), [0xe9] = E(JMP, REL, F64, Z, 0), [0xea] = E(JMP_FAR, FAR, Z, FAR, NOT64),
    [0xeb] = E(JMP, REL, F64, 8, 0),
    [0xec] = E(IN, RM, B, NONE, 0), [0xed] = E(IN, RM, Z, NONE, 0), [0xee] = E(OUT, RM, B, NONE, 0), [0xef] = E(OUT, RM, Z, NONE, 0),
    [0xf1] = N(INT1, B, 0), [0xf4] = N(HLT, B, 0), [0xf5] = N(CMC, B, 0),
    [0xf6] = CHOOSE(BY_REG, GROUP3, RM, B, NONE, MODRM), [0xf7] = CHOOSE(BY_REG, GROUP3, RM, V, NONE, MODRM),
    [0xf8] = N(CLC, B, 0), [0xf9] = N(STC, B, 0), [0xfa] = N(CLI, B, 0), [0xfb] = N(STI, B, 0),
    [0xfc] = N(CLD, B, 0), [0xfd] = N(STD, B, 0),
    [0xfe] = CHOOSE(BY_REG, GROUP4, RM, B, NONE, MODRM), [0xff] = CHOOSE(BY_REG, GROUP5, RM, V, NONE, MODRM),
};

#define HINT N(NOP, V, MODRM) /* hint space: nothing of it is offered, all of it is NOP */
#define VEC  N(VEC, Y, MODRM)

const struct opcode opcode_map1[256] = {
    [0x00] = CHOOSE(BY_REG, GROUP6, RM, W, NONE, MODRM), [0x01] = CHOOSE(BY_MEM, GROUP7, NONE, OPEN, NONE, MODRM),
    [0x02] = S(LAR, REG_RM, V, W, MODRM), [0x03] = S(LSL, REG_RM, V, W, MODRM),
    [0x05] = N(SYSCALL, B, 0), [0x06] = N(CLTS, B, 0), [0x07] = N(SYSRET, Y, 0),
    [0x08] = N(INVD, B, 0), [0x09] = N(WBINVD, B, 0), /* WBNOINVD, not offered, is WBINVD */
    /* 0f 0d: PREFETCHW and its neighbours do nothing on any 64-bit CPU that lacks them (APM vol 3) */
    [0x0d] = HINT,
    [0x10 ... 0x17] = VEC, [0x18 ... 0x1f] = HINT,
    [0x20] = E(MOV_FROM_CR, RM_REG, MODE, NONE, MODRM | IGNORES_MOD | CONTROL),
    [0x21] = E(MOV_FROM_DR, RM_REG, MODE, NONE, MODRM | IGNORES_MOD | DEBUG),
    [0x22] = E(MOV_TO_CR, REG_RM, MODE, NONE, MODRM | IGNORES_MOD | CONTROL),
    [0x23] = E(MOV_TO_DR, REG_RM, MODE, NONE, MODRM | IGNORES_MOD | DEBUG),
    [0x28 ... 0x2f] = VEC,
    [0x30] = N(WRMSR, B, 0), [0x31] = N(RDTSC, B, 0), [0x32] = N(RDMSR, B, 0), [0x33] = N(RDPMC, B, 0),
    [0x34] = N(SYSENTER, B, 0), [0x35] = N(SYSEXIT, Y, 0),
    [0x38] = R(UD, 0), [0x3a] = R(UD, 0), /* escapes, taken before */
    [0x40 ... 0x4f] = E(CMOV, REG_RM, V, NONE, MODRM),
    [0x50 ... 0x76] = VEC, [0x77] = N(EMMS, B, NO_PREFIX), [0x78 ... 0x7f] = VEC,
    [0x80 ... 0x8f] = E(JCC, REL, F64, Z, 0), [0x90 ... 0x9f] = E(SETCC, RM, B, NONE, MODRM),
    [0xa0] = N(PUSH_SEG, D64, OP_SEG), [0xa1] = N(POP_SEG, D64, OP_SEG), [0xa2] = N(CPUID, B, 0),
    [0xa3] = E(BT, RM_REG, V, NONE, MODRM),
    [0xa4] = E(SHLD, RM_REG_IMM, V, U8, MODRM), [0xa5] = E(SHLD, RM_REG_CL, V, NONE, MODRM),
    [0xa8] = N(PUSH_SEG, D64, OP_SEG), [0xa9] = N(POP_SEG, D64, OP_SEG),
    [0xab] = E(BTS, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0xac] = E(SHRD, RM_REG_IMM, V, U8, MODRM), [0xad] = E(SHRD, RM_REG_CL, V, NONE, MODRM),
    [0xae] = CHOOSE(BY_MEM, GROUP15, NONE, OPEN, NONE, MODRM), [0xaf] = E(IMUL, REG_RM, V, NONE, MODRM),
    [0xb0] = E(CMPXCHG, RM_REG, B, NONE, MODRM | LOCKABLE), [0xb1] = E(CMPXCHG, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0xb2] = E(LSS, REG_RM, V, NONE, MODRM | MEM_ONLY), [0xb3] = E(BTR, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0xb4] = E(LFS, REG_RM, V, NONE, MODRM | MEM_ONLY), [0xb5] = E(LGS, REG_RM, V, NONE, MODRM | MEM_ONLY),
    [0xb6] = S(MOVZX, REG_RM, V, B, MODRM), [0xb7] = S(MOVZX, REG_RM, V, W, MODRM),
    [0xb8] = CHOOSE(BY_PREFIX, 0FB8, REG_RM, V, NONE, MODRM), [0xb9] = R(UD, MODRM), /* UD1 */
    [0xba] = CHOOSE(BY_REG, GROUP8, RM_IMM, V, U8, MODRM), [0xbb] = E(BTC, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0xbc] = CHOOSE(BY_PREFIX, 0FBC, REG_RM, V, NONE, MODRM), [0xbd] = CHOOSE(BY_PREFIX, 0FBD, REG_RM, V, NONE, MODRM),
    [0xbe] = S(MOVSX, REG_RM, V, B, MODRM), [0xbf] = S(MOVSX, REG_RM, V, W, MODRM),
    [0xc0] = E(XADD, RM_REG, B, NONE, MODRM | LOCKABLE), [0xc1] = E(XADD, RM_REG, V, NONE, MODRM | LOCKABLE),
    [0xc2] = VEC, [0xc3] = E(MOVNTI, RM_REG, Y, NONE, MODRM | MEM_ONLY | NO_PREFIX), [0xc4 ... 0xc6] = VEC,
    [0xc7] = CHOOSE(BY_MEM, GROUP9, NONE, OPEN, NONE, MODRM),
    [0xc8 ... 0xcf] = E(BSWAP, RM, V, NONE, OPREG),
    [0xd0 ... 0xfe] = VEC, [0xff] = R(UD, MODRM), /* UD0 */
};

const struct opcode opcode_map2[256] = {
    [0x00 ... 0x81] = VEC, [0x82] = CHOOSE(BY_PREFIX, 0F3882, NONE, OPEN, NONE, MODRM),
    [0x83 ... 0xef] = VEC,
    [0xf0] = CHOOSE(BY_PREFIX, 0F38F0, NONE, OPEN, NONE, MODRM), [0xf1] = CHOOSE(BY_PREFIX, 0F38F1, NONE, OPEN, NONE, MODRM),
    [0xf6] = CHOOSE(BY_PREFIX, 0F38F6, REG_RM, Y, NONE, MODRM),
};

const struct opcode opcode_map3[256] = {[0x00 ... 0xff] = VEC};

const struct opcode opcode_rows[ROWS_COUNT][8] = {
    [ROWS_GROUP1] = {R(ADD, LOCKABLE), R(OR, LOCKABLE), R(ADC, LOCKABLE), R(SBB, LOCKABLE),
                     R(AND, LOCKABLE), R(SUB, LOCKABLE), R(XOR, LOCKABLE), R(CMP, 0)},
    [ROWS_GROUP1A] = {R(POP, 0)},
    /* /6 is an alias of /4, undocumented by Intel and there in every CPU (APM vol 3, SHL) */
    [ROWS_GROUP2] = {R(ROL, 0), R(ROR, 0), R(RCL, 0), R(RCR, 0), R(SHL, 0), R(SHR, 0), R(SHL, 0), R(SAR, 0)},
    [ROWS_GROUP3] = {E(TEST, RM_IMM, OPEN, Z, 0), E(TEST, RM_IMM, OPEN, Z, 0), R(NOT, LOCKABLE), R(NEG, LOCKABLE),
                     R(MUL, 0), R(IMUL1, 0), R(DIV, 0), R(IDIV, 0)},
    [ROWS_GROUP4] = {R(INC, LOCKABLE), R(DEC, LOCKABLE)},
    [ROWS_GROUP5] = {R(INC, LOCKABLE), R(DEC, LOCKABLE), E(CALL, RM, F64, NONE, 0), E(CALL_FAR, RM, V, NONE, MEM_ONLY),
                     E(JMP, RM, F64, NONE, 0), E(JMP_FAR, RM, V, NONE, MEM_ONLY), E(PUSH, RM, D64, NONE, 0)},
    [ROWS_GROUP6] = {E(SLDT, RM, V, NONE, MEM_WORD), E(STR, RM, V, NONE, MEM_WORD), R(LLDT, 0), R(LTR, 0), R(VERR, 0), R(VERW, 0)},

    [ROWS_GROUP7] = {CHOOSE(BY_REG, GROUP7_REGISTER, NONE, OPEN, NONE, 0), CHOOSE(BY_REG, GROUP7_MEMORY, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP7_MEMORY] = {E(SGDT, RM, F64, NONE, 0), E(SIDT, RM, F64, NONE, 0), E(LGDT, RM, F64, NONE, 0), E(LIDT, RM, F64, NONE, 0),
                            E(SMSW, RM, W, NONE, 0), [6] = E(LMSW, RM, W, NONE, 0), [7] = E(INVLPG, RM, B, NONE, 0)},
    [ROWS_GROUP7_REGISTER] = {CHOOSE(BY_RM, GROUP7_REG0, NONE, OPEN, NONE, 0), CHOOSE(BY_RM, GROUP7_REG1, NONE, OPEN, NONE, 0),
                              CHOOSE(BY_RM, GROUP7_REG2, NONE, OPEN, NONE, 0), CHOOSE(BY_RM, GROUP7_REG3, NONE, OPEN, NONE, 0),
                              E(SMSW, RM, V, NONE, 0), [6] = E(LMSW, RM, W, NONE, 0), [7] = CHOOSE(BY_RM, GROUP7_REG7, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP7_REG0] = {[1] = N(VMCALL, B, NO_PREFIX)},
    [ROWS_GROUP7_REG1] = {[2] = N(CLAC, B, NO_PREFIX), [3] = N(STAC, B, NO_PREFIX)},
    [ROWS_GROUP7_REG2] = {N(XGETBV, B, NO_PREFIX), N(XSETBV, B, NO_PREFIX)},
    [ROWS_GROUP7_REG3] = {[1] = N(VMCALL, B, 0)}, /* VMMCALL */
    [ROWS_GROUP7_REG7] = {N(SWAPGS, B, ONLY64), N(RDTSCP, B, 0)},

    [ROWS_GROUP8] = {[4] = R(BT, 0), [5] = R(BTS, LOCKABLE), [6] = R(BTR, LOCKABLE), [7] = R(BTC, LOCKABLE)},
    [ROWS_GROUP9] = {CHOOSE(BY_REG, GROUP9_REGISTER, NONE, OPEN, NONE, 0), CHOOSE(BY_REG, GROUP9_MEMORY, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP9_MEMORY] = {[1] = CHOOSE(BY_REX_W, CMPXCHG8B, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP9_REGISTER] = {[6] = E(RDRAND, RM, V, NONE, NO_REPEAT), [7] = CHOOSE(BY_PREFIX, GROUP9_REG7, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP9_REG7] = {E(RDSEED, RM, V, NONE, 0), E(RDSEED, RM, V, NONE, 0), E(RDPID, RM, MODE, NONE, 0)},
    [ROWS_CMPXCHG8B] = {E(CMPXCHG8B, RM, Y, NONE, LOCKABLE), E(CMPXCHG16B, RM, Y, NONE, LOCKABLE)},
    [ROWS_GROUP11] = {R(MOV, 0)},

    [ROWS_GROUP15] = {CHOOSE(BY_REG, GROUP15_REGISTER, NONE, OPEN, NONE, 0), CHOOSE(BY_REG, GROUP15_MEMORY, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP15_MEMORY] = {E(FXSAVE, RM, Y, NONE, NO_PREFIX), E(FXRSTOR, RM, Y, NONE, NO_PREFIX),
                             E(LDMXCSR, RM, D, NONE, NO_PREFIX), E(STMXCSR, RM, D, NONE, NO_PREFIX),
                             E(XSAVE, RM, Y, NONE, NO_PREFIX), E(XRSTOR, RM, Y, NONE, NO_PREFIX),
                             CHOOSE(BY_PREFIX, GROUP15_MEM6, NONE, OPEN, NONE, 0), CHOOSE(BY_PREFIX, GROUP15_MEM7, NONE, OPEN, NONE, 0)},
    [ROWS_GROUP15_MEM6] = {E(XSAVEOPT, RM, Y, NONE, 0), NEEDS(CLWB, CLFLUSH, RM, B, 0)},
    [ROWS_GROUP15_MEM7] = {E(CLFLUSH, RM, B, NONE, 0), NEEDS(CLFLUSHOPT, CLFLUSH, RM, B, 0)},
    [ROWS_GROUP15_REGISTER] = {CHOOSE(BY_PREFIX, GROUP15_REG0, NONE, OPEN, NONE, 0), CHOOSE(BY_PREFIX, GROUP15_REG1, NONE, OPEN, NONE, 0),
                               CHOOSE(BY_PREFIX, GROUP15_REG2, NONE, OPEN, NONE, 0), CHOOSE(BY_PREFIX, GROUP15_REG3, NONE, OPEN, NONE, 0),
                               [5] = N(LFENCE, B, NO_PREFIX), [6] = N(MFENCE, B, NO_PREFIX), [7] = N(SFENCE, B, NO_PREFIX)},
    [ROWS_GROUP15_REG0] = {[2] = E(RDFSBASE, RM, Y, NONE, ONLY64)},
    [ROWS_GROUP15_REG1] = {[2] = E(RDGSBASE, RM, Y, NONE, ONLY64)},
    [ROWS_GROUP15_REG2] = {[2] = E(WRFSBASE, RM, Y, NONE, ONLY64)},
    [ROWS_GROUP15_REG3] = {[2] = E(WRGSBASE, RM, Y, NONE, ONLY64)},

    [ROWS_63] = {E(ARPL, RM_REG, W, NONE, 0), S(MOVSX, REG_RM, V, Z, 0)}, /* MOVSXD */
    [ROWS_90] = {CHOOSE(BY_PREFIX, 90_PREFIX, NONE, OPEN, NONE, 0), E(XCHG, RM_REG, V, NONE, 0)}, /* r8 */
    [ROWS_90_PREFIX] = {N(NOP, V, 0), N(NOP, V, 0), N(PAUSE, V, 0), N(NOP, V, 0)},
    [ROWS_0FB8] = {[2] = R(POPCNT, 0)},
    [ROWS_0FBC] = {R(BSF, 0), R(BSF, 0), R(TZCNT, 0), R(BSF, 0)},
    [ROWS_0FBD] = {R(BSR, 0), R(BSR, 0), R(LZCNT, 0), R(BSR, 0)},
    [ROWS_0F3882] = {[1] = E(INVPCID, REG_RM, MODE, NONE, MEM_ONLY)},
    [ROWS_0F38F0] = {E(MOVBE, REG_RM, V, NONE, MEM_ONLY), E(MOVBE, REG_RM, V, NONE, MEM_ONLY), [3] = S(CRC32, REG_RM, Y, B, 0)},
    [ROWS_0F38F1] = {E(MOVBE, RM_REG, V, NONE, MEM_ONLY), E(MOVBE, RM_REG, V, NONE, MEM_ONLY), [3] = S(CRC32, REG_RM, Y, V, 0)},
    [ROWS_0F38F6] = {[1] = R(ADCX, 0), [2] = R(ADOX, 0)},
};

const struct opcode_vex opcode_vex[] = {
    {2, 0xf2, 0, -1, OP_ANDN, FORM_REG_VVVV_RM}, {2, 0xf3, 0, 1, OP_BLSR, FORM_VVVV_RM},
    {2, 0xf3, 0, 2, OP_BLSMSK, FORM_VVVV_RM},    {2, 0xf3, 0, 3, OP_BLSI, FORM_VVVV_RM},
    {2, 0xf5, 0, -1, OP_BZHI, FORM_REG_RM_VVVV}, {2, 0xf5, 2, -1, OP_PEXT, FORM_REG_VVVV_RM},
    {2, 0xf5, 3, -1, OP_PDEP, FORM_REG_VVVV_RM}, {2, 0xf6, 3, -1, OP_MULX, FORM_REG_VVVV_RM},
    {2, 0xf7, 0, -1, OP_BEXTR, FORM_REG_RM_VVVV}, {2, 0xf7, 1, -1, OP_SHLX, FORM_REG_RM_VVVV},
    {2, 0xf7, 2, -1, OP_SARX, FORM_REG_RM_VVVV}, {2, 0xf7, 3, -1, OP_SHRX, FORM_REG_RM_VVVV},
    {3, 0xf0, 3, -1, OP_RORX, FORM_REG_RM_IMM},
};
/* clang-format on */

const unsigned opcode_vex_count = QZ_ARRAY_LEN(opcode_vex);

const uint8_t opcode_feature[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) [OP_##name] = CPU_##feature,
    INSN_OPS(OP)
#undef OP
};

static const char *const names[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) [OP_##name] = #name,
    INSN_OPS(OP)
#undef OP
};

const char *insn_op_name(enum insn_op op)
{
    return (unsigned)op < OP_COUNT ? names[op] : "?";
}

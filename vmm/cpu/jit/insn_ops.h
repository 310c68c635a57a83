/*
 * insn_ops.h - the operations that a guest instruction can be, one line each.
 *
 * OP(name, feature, reads, writes, undefined): the CPU feature it needs, the arithmetic flags it
 * reads, writes, and leaves undefined, which is part of writes (SDM vol 1 appendix A). Shifts by a
 * count that can be zero both read and write, as does whatever keeps a flag by one way and changes
 * it by another. MOV to and from control and debug registers keeps all flags, which the SDM lets it
 * spoil. Flags here are the six arithmetic ones; what an
 * operation does to DF, IF and the rest is its own.
 */
#ifndef VMM_JIT_INSN_OPS_H
#define VMM_JIT_INSN_OPS_H

enum {
    FLAG_CF = 1,
    FLAG_PF = 4,
    FLAG_AF = 0x10,
    FLAG_ZF = 0x40,
    FLAG_SF = 0x80,
    FLAG_OF = 0x800,
    FLAGS_ARITH = 0x8d5
};

/* CPU features that gate instructions, bits of struct jit_cpu.features. */
enum cpu_feature {
    CPU_BASE, /* always there: what x86-64 itself requires, SSE2 included */
    CPU_SSE3,
    CPU_SSSE3,
    CPU_SSE41,
    CPU_SSE42,
    CPU_POPCNT,
    CPU_MOVBE,
    CPU_CX16,
    CPU_LAHF64,
    CPU_AES,
    CPU_PCLMUL,
    CPU_SHA,
    CPU_BMI1,
    CPU_BMI2,
    CPU_LZCNT,
    CPU_ADX,
    CPU_XSAVE,
    CPU_XSAVEOPT,
    CPU_AVX,
    CPU_RDRAND,
    CPU_RDSEED,
    CPU_RDTSCP,
    CPU_RDPID,
    CPU_FSGSBASE,
    CPU_SMAP,
    CPU_SMEP,
    CPU_UMIP,
    CPU_PCID,
    CPU_INVPCID,
    CPU_CLFLUSHOPT,
    CPU_CLWB,
    CPU_PREFETCHW,
    CPU_HYPERCALL, /* VMCALL and VMMCALL are answered (KVM's leaf is there) */
    CPU_FEATURE_COUNT,
};
#define CPU_FEATURE(f) (1ull << (f))

#define F_C     FLAG_CF
#define F_Z     FLAG_ZF
#define F_ALL   FLAGS_ARITH
#define F_NOT_C (FLAGS_ARITH & ~FLAG_CF)

/* clang-format off */
#define INSN_OPS(OP) \
    /* not an instruction */ \
    OP(UD, BASE, 0, 0, 0)               /* #UD; also UD0, UD1, UD2 */ \
    /* arithmetic */ \
    OP(ADD, BASE, 0, F_ALL, 0) OP(OR, BASE, 0, F_ALL, FLAG_AF) OP(ADC, BASE, F_C, F_ALL, 0) OP(SBB, BASE, F_C, F_ALL, 0) \
    OP(AND, BASE, 0, F_ALL, FLAG_AF) OP(SUB, BASE, 0, F_ALL, 0) OP(XOR, BASE, 0, F_ALL, FLAG_AF) OP(CMP, BASE, 0, F_ALL, 0) \
    OP(TEST, BASE, 0, F_ALL, FLAG_AF) OP(INC, BASE, 0, F_NOT_C, 0) OP(DEC, BASE, 0, F_NOT_C, 0) \
    OP(NEG, BASE, 0, F_ALL, 0) OP(NOT, BASE, 0, 0, 0) \
    OP(MUL, BASE, 0, F_ALL, F_ALL & ~(FLAG_CF | FLAG_OF))   /* RM: rdx:rax := rax * rm */ \
    OP(IMUL1, BASE, 0, F_ALL, F_ALL & ~(FLAG_CF | FLAG_OF)) /* RM */ \
    OP(IMUL, BASE, 0, F_ALL, F_ALL & ~(FLAG_CF | FLAG_OF))  /* REG_RM, REG_RM_IMM */ \
    OP(DIV, BASE, 0, F_ALL, F_ALL) OP(IDIV, BASE, 0, F_ALL, F_ALL) \
    OP(XADD, BASE, 0, F_ALL, 0) OP(CMPXCHG, BASE, 0, F_ALL, 0) OP(CMPXCHG8B, BASE, 0, F_Z, 0) OP(CMPXCHG16B, CX16, 0, F_Z, 0) \
    OP(ROL, BASE, F_ALL, F_ALL, FLAG_OF) OP(ROR, BASE, F_ALL, F_ALL, FLAG_OF) OP(RCL, BASE, F_ALL, F_ALL, FLAG_OF) \
    OP(RCR, BASE, F_ALL, F_ALL, FLAG_OF) OP(SHL, BASE, F_ALL, F_ALL, FLAG_OF | FLAG_AF | FLAG_CF) \
    OP(SHR, BASE, F_ALL, F_ALL, FLAG_OF | FLAG_AF | FLAG_CF) OP(SAR, BASE, F_ALL, F_ALL, FLAG_OF | FLAG_AF) \
    OP(SHLD, BASE, F_ALL, F_ALL, FLAG_OF | FLAG_AF) OP(SHRD, BASE, F_ALL, F_ALL, FLAG_OF | FLAG_AF) \
    OP(BT, BASE, F_ALL, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) OP(BTS, BASE, F_ALL, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) \
    OP(BTR, BASE, F_ALL, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) OP(BTC, BASE, F_ALL, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) \
    OP(BSF, BASE, 0, F_ALL, F_ALL & ~FLAG_ZF) OP(BSR, BASE, 0, F_ALL, F_ALL & ~FLAG_ZF) \
    OP(POPCNT, POPCNT, 0, F_ALL, 0) OP(LZCNT, LZCNT, 0, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) \
    OP(TZCNT, BMI1, 0, F_ALL, F_ALL & ~(FLAG_CF | FLAG_ZF)) OP(CRC32, SSE42, 0, 0, 0) \
    OP(ADCX, ADX, F_C, F_C, 0) OP(ADOX, ADX, FLAG_OF, FLAG_OF, 0) \
    OP(AAA, BASE, FLAG_AF, F_ALL, F_ALL & ~(FLAG_CF | FLAG_AF)) OP(AAS, BASE, FLAG_AF, F_ALL, F_ALL & ~(FLAG_CF | FLAG_AF)) \
    OP(AAD, BASE, 0, F_ALL, FLAG_OF | FLAG_AF | FLAG_CF) OP(AAM, BASE, 0, F_ALL, FLAG_OF | FLAG_AF | FLAG_CF) \
    OP(DAA, BASE, FLAG_AF | FLAG_CF, F_ALL, FLAG_OF) OP(DAS, BASE, FLAG_AF | FLAG_CF, F_ALL, FLAG_OF) \
    /* BMI, all VEX but TZCNT */ \
    OP(ANDN, BMI1, 0, F_ALL, FLAG_AF | FLAG_PF) OP(BEXTR, BMI1, 0, F_ALL, FLAG_AF | FLAG_SF | FLAG_PF) \
    OP(BLSI, BMI1, 0, F_ALL, FLAG_AF | FLAG_PF) OP(BLSMSK, BMI1, 0, F_ALL, FLAG_AF | FLAG_PF) OP(BLSR, BMI1, 0, F_ALL, FLAG_AF | FLAG_PF) \
    OP(BZHI, BMI2, 0, F_ALL, FLAG_AF | FLAG_PF) OP(MULX, BMI2, 0, 0, 0) OP(PDEP, BMI2, 0, 0, 0) OP(PEXT, BMI2, 0, 0, 0) \
    OP(RORX, BMI2, 0, 0, 0) OP(SARX, BMI2, 0, 0, 0) OP(SHLX, BMI2, 0, 0, 0) OP(SHRX, BMI2, 0, 0, 0) \
    /* moves */ \
    OP(MOV, BASE, 0, 0, 0) OP(MOVZX, BASE, 0, 0, 0) OP(MOVSX, BASE, 0, 0, 0) /* also MOVSXD */ OP(MOVBE, MOVBE, 0, 0, 0) \
    OP(MOVNTI, BASE, 0, 0, 0) OP(LEA, BASE, 0, 0, 0) OP(XCHG, BASE, 0, 0, 0) OP(BSWAP, BASE, 0, 0, 0) \
    OP(CBW, BASE, 0, 0, 0) /* CBW CWDE CDQE by size */ OP(CWD, BASE, 0, 0, 0) /* CWD CDQ CQO by size */ \
    OP(CMOV, BASE, F_ALL, 0, 0) OP(SETCC, BASE, F_ALL, 0, 0) \
    OP(LAHF, BASE, F_ALL, 0, 0) OP(SAHF, BASE, FLAG_OF, F_ALL, 0) /* LAHF64 in 64-bit code: the decoder looks */ \
    OP(XLAT, BASE, 0, 0, 0) OP(NOP, BASE, 0, 0, 0) /* also multi-byte, PREFETCHx, ENDBR, FNOP-like hints */ OP(PAUSE, BASE, 0, 0, 0) \
    /* stack */ \
    OP(PUSH, BASE, 0, 0, 0) OP(POP, BASE, 0, 0, 0) OP(PUSHA, BASE, 0, 0, 0) OP(POPA, BASE, 0, 0, 0) \
    OP(PUSHF, BASE, F_ALL, 0, 0) OP(POPF, BASE, 0, F_ALL, 0) OP(ENTER, BASE, 0, 0, 0) OP(LEAVE, BASE, 0, 0, 0) \
    OP(PUSH_SEG, BASE, 0, 0, 0) OP(POP_SEG, BASE, 0, 0, 0) /* reg: the segment */ \
    /* flow */ \
    OP(JMP, BASE, 0, 0, 0) /* REL or RM */ OP(JCC, BASE, F_ALL, 0, 0) OP(JCXZ, BASE, 0, 0, 0) \
    OP(LOOP, BASE, 0, 0, 0) OP(LOOPE, BASE, F_Z, 0, 0) OP(LOOPNE, BASE, F_Z, 0, 0) \
    OP(CALL, BASE, 0, 0, 0) /* REL or RM */ OP(RET, BASE, 0, 0, 0) /* imm: bytes to drop */ \
    OP(JMP_FAR, BASE, 0, 0, 0) OP(CALL_FAR, BASE, 0, 0, 0) /* FAR or RM in memory */ OP(RET_FAR, BASE, 0, 0, 0) \
    OP(INT, BASE, F_ALL, 0, 0) OP(INT3, BASE, F_ALL, 0, 0) OP(INT1, BASE, F_ALL, 0, 0) OP(INTO, BASE, F_ALL, 0, 0) \
    OP(IRET, BASE, 0, F_ALL, 0) OP(BOUND, BASE, 0, 0, 0) \
    /* flags */ \
    OP(CLC, BASE, 0, F_C, 0) OP(STC, BASE, 0, F_C, 0) OP(CMC, BASE, F_C, F_C, 0) OP(CLD, BASE, 0, 0, 0) OP(STD, BASE, 0, 0, 0) \
    OP(CLI, BASE, 0, 0, 0) OP(STI, BASE, 0, 0, 0) OP(CLAC, SMAP, 0, 0, 0) OP(STAC, SMAP, 0, 0, 0) \
    /* strings; REP in prefix */ \
    OP(MOVS, BASE, 0, 0, 0) OP(STOS, BASE, 0, 0, 0) OP(LODS, BASE, 0, 0, 0) \
    OP(CMPS, BASE, F_ALL, F_ALL, 0) OP(SCAS, BASE, F_ALL, F_ALL, 0) /* rcx 0 keeps the flags */ \
    OP(INS, BASE, 0, 0, 0) OP(OUTS, BASE, 0, 0, 0) OP(IN, BASE, 0, 0, 0) OP(OUT, BASE, 0, 0, 0) /* RM_IMM imm port, or RM: port in DX */ \
    /* system */ \
    OP(MOV_FROM_SEG, BASE, 0, 0, 0) /* RM_REG */ OP(MOV_TO_SEG, BASE, 0, 0, 0) /* REG_RM */ \
    OP(LDS, BASE, 0, 0, 0) OP(LES, BASE, 0, 0, 0) OP(LFS, BASE, 0, 0, 0) OP(LGS, BASE, 0, 0, 0) OP(LSS, BASE, 0, 0, 0) \
    OP(MOV_FROM_CR, BASE, 0, 0, 0) /* RM_REG, reg: CR number, size 4 or 8 */ OP(MOV_TO_CR, BASE, 0, 0, 0) /* REG_RM */ \
    OP(MOV_FROM_DR, BASE, 0, 0, 0) OP(MOV_TO_DR, BASE, 0, 0, 0) OP(CLTS, BASE, 0, 0, 0) \
    OP(LMSW, BASE, 0, 0, 0) OP(SMSW, BASE, 0, 0, 0) OP(LGDT, BASE, 0, 0, 0) OP(LIDT, BASE, 0, 0, 0) OP(SGDT, BASE, 0, 0, 0) \
    OP(SIDT, BASE, 0, 0, 0) OP(LLDT, BASE, 0, 0, 0) OP(SLDT, BASE, 0, 0, 0) OP(LTR, BASE, 0, 0, 0) OP(STR, BASE, 0, 0, 0) \
    OP(LAR, BASE, F_ALL, F_Z, 0) OP(LSL, BASE, F_ALL, F_Z, 0) OP(VERR, BASE, F_ALL, F_Z, 0) OP(VERW, BASE, F_ALL, F_Z, 0) OP(ARPL, BASE, F_ALL, F_Z, 0) \
    OP(INVLPG, BASE, 0, 0, 0) OP(INVPCID, INVPCID, 0, 0, 0) OP(INVD, BASE, 0, 0, 0) OP(WBINVD, BASE, 0, 0, 0) \
    OP(SYSCALL, BASE, F_ALL, F_ALL, 0) OP(SYSRET, BASE, 0, F_ALL, 0) OP(SYSENTER, BASE, F_ALL, 0, 0) OP(SYSEXIT, BASE, 0, 0, 0) \
    OP(SWAPGS, BASE, 0, 0, 0) OP(RDFSBASE, FSGSBASE, 0, 0, 0) OP(RDGSBASE, FSGSBASE, 0, 0, 0) \
    OP(WRFSBASE, FSGSBASE, 0, 0, 0) OP(WRGSBASE, FSGSBASE, 0, 0, 0) /* RM */ \
    OP(RDMSR, BASE, 0, 0, 0) OP(WRMSR, BASE, 0, 0, 0) OP(RDTSC, BASE, 0, 0, 0) OP(RDTSCP, RDTSCP, 0, 0, 0) OP(RDPID, RDPID, 0, 0, 0) \
    OP(RDPMC, BASE, 0, 0, 0) OP(CPUID, BASE, 0, 0, 0) OP(HLT, BASE, 0, 0, 0) OP(XGETBV, XSAVE, 0, 0, 0) OP(XSETBV, XSAVE, 0, 0, 0) \
    OP(VMCALL, HYPERCALL, 0, 0, 0) \
    OP(RDRAND, RDRAND, 0, F_ALL, 0) OP(RDSEED, RDSEED, 0, F_ALL, 0) \
    OP(LFENCE, BASE, 0, 0, 0) OP(MFENCE, BASE, 0, 0, 0) OP(SFENCE, BASE, 0, 0, 0) \
    OP(CLFLUSH, BASE, 0, 0, 0) /* also CLFLUSHOPT and CLWB, gated by the decoder */ \
    /* floating point and vectors */ \
    OP(X87, BASE, 0, 0, 0)   /* d8 to df; FCOMI and FCMOV use flags: x87.h tells */ \
    OP(FWAIT, BASE, 0, 0, 0) OP(EMMS, BASE, 0, 0, 0) \
    OP(FXSAVE, BASE, 0, 0, 0) OP(FXRSTOR, BASE, 0, 0, 0) OP(LDMXCSR, BASE, 0, 0, 0) OP(STMXCSR, BASE, 0, 0, 0) \
    OP(XSAVE, XSAVE, 0, 0, 0) OP(XRSTOR, XSAVE, 0, 0, 0) OP(XSAVEOPT, XSAVEOPT, 0, 0, 0) \
    OP(VEC, BASE, 0, 0, 0)   /* MMX, SSE to SSE4.2, AES, PCLMUL, SHA: vec tells which, with its own feature and flags */
/* clang-format on */

enum insn_op {
#define OP(name, feature, reads, writes, undefined) OP_##name,
    INSN_OPS(OP)
#undef OP
        OP_COUNT
};

#endif

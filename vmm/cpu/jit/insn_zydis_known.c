/*
 * insn_zydis_known.c - where this decoder and Zydis 4.0 differ on purpose, each with its reason.
 */
#include "cpu/jit/insn_zydis.h"

/* Instruction sets that this CPU does not have. */
static bool is_not_offered(ZydisISAExt ext)
{
    static const ZydisISAExt exts[] = {
        ZYDIS_ISA_EXT_AMD3DNOW,   ZYDIS_ISA_EXT_AMD_INVLPGB,
        ZYDIS_ISA_EXT_AVX,        ZYDIS_ISA_EXT_AVX2,
        ZYDIS_ISA_EXT_AVX2GATHER, ZYDIS_ISA_EXT_AVX512EVEX,
        ZYDIS_ISA_EXT_AVX512VEX,  ZYDIS_ISA_EXT_AVXAES,
        ZYDIS_ISA_EXT_AVX_VNNI,   ZYDIS_ISA_EXT_CET,
        ZYDIS_ISA_EXT_CLZERO,     ZYDIS_ISA_EXT_ENQCMD,
        ZYDIS_ISA_EXT_F16C,       ZYDIS_ISA_EXT_FMA,
        ZYDIS_ISA_EXT_FMA4,       ZYDIS_ISA_EXT_GFNI,
        ZYDIS_ISA_EXT_HRESET,     ZYDIS_ISA_EXT_KEYLOCKER,
        ZYDIS_ISA_EXT_KNC,        ZYDIS_ISA_EXT_KNCE,
        ZYDIS_ISA_EXT_KNCV,       ZYDIS_ISA_EXT_KEYLOCKER_WIDE,
        ZYDIS_ISA_EXT_AMX_BF16,   ZYDIS_ISA_EXT_AMX_INT8,
        ZYDIS_ISA_EXT_AMX_TILE,   ZYDIS_ISA_EXT_MCOMMIT,
        ZYDIS_ISA_EXT_MONITOR,    ZYDIS_ISA_EXT_MONITORX,
        ZYDIS_ISA_EXT_MOVDIR,     ZYDIS_ISA_EXT_PADLOCK,
        ZYDIS_ISA_EXT_PCONFIG,    ZYDIS_ISA_EXT_PKU,
        ZYDIS_ISA_EXT_PT,         ZYDIS_ISA_EXT_RDPRU,
        ZYDIS_ISA_EXT_RTM,        ZYDIS_ISA_EXT_SERIALIZE,
        ZYDIS_ISA_EXT_SGX,        ZYDIS_ISA_EXT_SGX_ENCLV,
        ZYDIS_ISA_EXT_SMX,        ZYDIS_ISA_EXT_SNP,
        ZYDIS_ISA_EXT_SSE4A,      ZYDIS_ISA_EXT_SVM,
        ZYDIS_ISA_EXT_TBM,        ZYDIS_ISA_EXT_TDX,
        ZYDIS_ISA_EXT_TSX_LDTRK,  ZYDIS_ISA_EXT_UINTR,
        ZYDIS_ISA_EXT_VAES,       ZYDIS_ISA_EXT_VMFUNC,
        ZYDIS_ISA_EXT_VPCLMULQDQ, ZYDIS_ISA_EXT_VTX,
        ZYDIS_ISA_EXT_WAITPKG,    ZYDIS_ISA_EXT_XOP,
        ZYDIS_ISA_EXT_XSAVEC,     ZYDIS_ISA_EXT_XSAVES,
    };

    for (unsigned n = 0; n < QZ_ARRAY_LEN(exts); n++) {
        if (exts[n] == ext)
            return true;
    }
    return false;
}

static bool theirs_is(const struct pair *p, const char *name)
{
    return strcmp(ZydisMnemonicGetString(p->theirs.mnemonic), name) == 0;
}

bool zydis_alone_is_valid(const struct pair *p)
{
    /* What is there to raise #UD has no operation here; RSM raises it outside of system management
     * mode, which no guest enters. */
    if (theirs_is(p, "ud0") || theirs_is(p, "ud1") || theirs_is(p, "ud2") || theirs_is(p, "rsm"))
        return true;
    /* Reserved by SDM vol 2 table A-2, though CPUs execute it. */
    if (theirs_is(p, "salc"))
        return true;
    return is_not_offered(p->theirs.meta.isa_ext);
}

bool ours_alone_is_valid(const struct pair *p)
{
    /* Reserved x87 encodings raise #UD when they are executed (insn.h). */
    return p->ours.op == OP_X87;
}

bool name_differs(const struct pair *p)
{
    static const struct {
        const char *ours, *theirs;
    } names[] = {
        {"movlps", "movhlps"}, {"movhps", "movlhps"},                       /* the register forms */
        {"movd", "movq"},      {"pextrd", "pextrq"},  {"pinsrd", "pinsrq"}, /* with REX.W */
    };

    /* f3 with REX.B is XCHG with r8 to CPUs, PAUSE to Zydis. */
    if (p->ours.op == OP_XCHG && p->ours.opcode == 0x90 && p->ours.rm == 8)
        return theirs_is(p, "pause");
    if (p->ours.op != OP_VEC)
        return false;
    for (unsigned n = 0; n < QZ_ARRAY_LEN(names); n++) {
        if (strcmp(vec_ops[p->ours.vec].name, names[n].ours) == 0 && theirs_is(p, names[n].theirs))
            return true;
    }
    return false;
}

bool operands_are_not_compared(const struct pair *p)
{
    /* x87 has its operands in ModRM, for its executor; of XCHG see name_differs(). */
    return p->ours.op == OP_X87 || theirs_is(p, "pause");
}

bool operand_differs(const struct pair *p, const char *what)
{
    const struct insn *i = &p->ours;

    switch (i->op) {
    case OP_LEA: /* reads no memory, so that the segment says nothing */
        return strcmp(what, "segment") == 0;
    case OP_LAR: /* 16 bits count of a source register of whatever size */
    case OP_LSL:
        return strcmp(what, "register") == 0;
    case OP_MOVSX: /* SDM vol 2, MOVSXD: with 66 the source has 16 bits; 32 to Zydis and AMD */
        return strcmp(what, "memory size") == 0 && i->opcode == 0x63 && i->size == 2;
    case OP_VEC: /* REX.W widens general registers of which 32 bits or fewer count */
        if (strcmp(what, "register") == 0 && i->size == 8 &&
            (vec_ops[i->vec].reg == VEC_OPERAND_GPR || vec_ops[i->vec].rm == VEC_OPERAND_GPR))
            return !vec_ops[i->vec].mem_size_w;
    }
    /* Without a base, mod 0, REX.B says nothing (SDM vol 2 table 2-3); with 67 Zydis takes it. */
    if (strcmp(what, "address") == 0)
        return i->asize == 4 && i->base == REG_NONE && p->theirs.raw.rex.B &&
               p->theirs.raw.sib.base == 5;
    return false;
}

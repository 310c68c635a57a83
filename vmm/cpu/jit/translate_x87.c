/*
 * translate_x87.c - x87 instructions: copied, with memory operands patched, while the guest's x87
 * state is in the host's registers.
 *
 * All exceptions are masked then (translate_run.c looks), so that none of them raises anything.
 * What changes that, or loads the whole state, is the interpreter's. Where the last instruction and
 * operand were (FIP, FDP) is not kept: it would be the host's.
 */
#include "cpu/jit/translate_internal.h"

/* What d8 to df do with a memory operand, by ModRM.reg: bytes, and whether they are written. */
struct x87_access {
    uint8_t size; /* 0: the interpreter's */
    bool write;
};

static const struct x87_access accesses[8][8] = {
    /* d8 */ {{4}, {4}, {4}, {4}, {4}, {4}, {4}, {4}},
    /* d9: FLD, -, FST, FSTP, FLDENV, FLDCW, FNSTENV, FNSTCW */
    {{4}, {0}, {4, true}, {4, true}, {0}, {0}, {0}, {2, true}},
    /* da */ {{4}, {4}, {4}, {4}, {4}, {4}, {4}, {4}},
    /* db: FILD, FISTTP, FIST, FISTP, -, FLD m80, -, FSTP m80 */
    {{4}, {4, true}, {4, true}, {4, true}, {0}, {10}, {0}, {10, true}},
    /* dc */ {{8}, {8}, {8}, {8}, {8}, {8}, {8}, {8}},
    /* dd: FLD, FISTTP, FST, FSTP, FRSTOR, -, FNSAVE, FNSTSW */
    {{8}, {8, true}, {8, true}, {8, true}, {0}, {0}, {0}, {2, true}},
    /* de */ {{2}, {2}, {2}, {2}, {2}, {2}, {2}, {2}},
    /* df: FILD, FISTTP, FIST, FISTP, FBLD, FILD m64, FBSTP, FISTP m64 */
    {{2}, {2, true}, {2, true}, {2, true}, {10}, {8}, {10, true}, {8, true}},
};

/* Register forms that the manual defines and that neither initialize nor unmask: for each opcode,
 * bits of ModRM / 8 from c0 up, all eight of them. */
static const uint8_t whole_rows[8] = {
    0xff, /* d8: FADD to FDIVR */
    0xc3, /* d9: FLD, FXCH; FPREM and the other functions */
    0x0f, /* da: FCMOV */
    0x6f, /* db: FCMOV, FUCOMI, FCOMI */
    0xf3, /* dc: FADD, FMUL, FSUBR to FDIV */
    0x3d, /* dd: FFREE, FST, FSTP, FUCOM, FUCOMP */
    0xf3, /* de: FADDP, FMULP, FSUBRP to FDIVP */
    0x60, /* df: FUCOMIP, FCOMIP */
};

static bool is_single(unsigned opcode, unsigned modrm)
{
    switch (opcode << 8 | modrm) {
    case 0xd9d0: /* FNOP */
    case 0xd9e0: /* FCHS */
    case 0xd9e1: /* FABS */
    case 0xd9e4: /* FTST */
    case 0xd9e5: /* FXAM */
    case 0xdae9: /* FUCOMPP */
    case 0xdbe2: /* FNCLEX */
    case 0xded9: /* FCOMPP */
    case 0xdfe0: /* FNSTSW AX */
        return true;
    default: /* FLD1 to FLDZ */
        return opcode == 0xd9 && modrm >= 0xe8 && modrm <= 0xee;
    }
}

static const struct x87_access *access_of(const struct insn *i)
{
    return &accesses[i->opcode - 0xd8][i->modrm >> 3 & 7];
}

bool is_native_x87(const struct insn *i)
{
    if (i->op == OP_FWAIT)
        return true;
    if (i->op != OP_X87)
        return false;
    if (i->mem)
        return access_of(i)->size && address_emittable(i);
    return (whole_rows[i->opcode - 0xd8] >> ((i->modrm - 0xc0) >> 3) & 1) ||
           is_single(i->opcode, i->modrm);
}

bool translate_x87(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    if (!is_native_x87(i))
        return false;
    if (i->op == OP_FWAIT) /* nothing can be pending */
        return true;
    if (i->mem) {
        const struct x87_access *a = access_of(i);

        emit_address(x, i, true);
        emit_access(x, a->write ? TLB_WRITE : TLB_READ, a->size == 10 ? 16 : a->size);
    }
    flags_for(x, i);
    if (i->mem) {
        emit8(e, 0x41); /* r11 is the base */
        emit8(e, i->opcode);
        emit8(e, (i->modrm & 0x38) | (H_R11 & 7));
    } else {
        emit8(e, i->opcode);
        emit8(e, i->modrm);
    }
    flags_after(x, i);
    return true;
}

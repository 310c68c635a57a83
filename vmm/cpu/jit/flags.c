/*
 * flags.c - flags liveness (flags.h).
 */
#include "cpu/jit/flags.h"

#include "cpu/jit/vec.h"

static const struct {
    uint16_t reads, writes;
} by_op[OP_COUNT] = {
#define OP(name, feature, r, w, u) [OP_##name] = {.reads = (r), .writes = (w) | (u)},
    INSN_OPS(OP)
#undef OP
};

/* What each condition looks at (SDM vol 1 appendix B), by the upper three bits of its code. */
static const uint16_t condition_reads[8] = {
    FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
    FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF,
};

static bool shifts_by_something(const struct insn *i)
{
    return (i->form == FORM_RM_IMM || i->form == FORM_RM_REG_IMM) &&
           (i->imm & (i->size == 8 ? 63 : 31)) != 0;
}

struct insn_flags insn_flags(const struct insn *i)
{
    struct insn_flags f = {by_op[i->op].reads, by_op[i->op].writes};

    switch (i->op) {
    case OP_JCC:
    case OP_SETCC:
    case OP_CMOV:
        f.reads = condition_reads[i->cond >> 1];
        break;
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_SHLD:
    case OP_SHRD:
        if (shifts_by_something(i))
            f.reads = 0;
        break;
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR: /* a count of 0 after masking keeps all, any other changes only these */
        f.writes = FLAG_CF | FLAG_OF;
        if (shifts_by_something(i))
            f.reads = i->op == OP_RCL || i->op == OP_RCR ? FLAG_CF : 0;
        break;
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC: /* ZF stays, the others are undefined: the host's own result may keep them */
        f.reads = FLAGS_ARITH & ~FLAG_CF;
        break;
    case OP_VEC:
        f.writes = vec_ops[i->vec].flags ? FLAGS_ARITH : 0;
        break;
    case OP_X87:
        if (!i->mem && (i->opcode == 0xda || i->opcode == 0xdb) && i->modrm < 0xe0)
            f.reads = FLAG_CF | FLAG_ZF | FLAG_PF; /* FCMOV */
        if (!i->mem && (i->opcode == 0xdb || i->opcode == 0xdf) && i->modrm >= 0xe8 &&
            i->modrm < 0xf8)
            f.writes = FLAGS_ARITH; /* FUCOMI, FCOMI, and those that pop */
        break;
    default:
        break;
    }
    return f;
}

void insn_flags_live(const struct insn *i, unsigned count, uint16_t at_end, uint16_t *live)
{
    uint16_t wanted = at_end;

    for (unsigned k = count; k-- > 0;) {
        const struct insn_flags f = insn_flags(&i[k]);

        if (i[k].op == OP_JCC && k + 1 < count)
            wanted = FLAGS_ARITH;
        live[k] = wanted;
        wanted = (wanted & ~f.writes) | f.reads;
    }
}

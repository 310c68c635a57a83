/*
 * undefined.c - which flags the architecture leaves undefined at each place of a sequence.
 *
 * A forward analysis over all ways through the items. What uses an undefined flag would differ
 * among processors and is replaced by a comparison, which defines them all.
 */
#include "sequence.h"

#include "cpu/jit/flags.h"
#include "cpu/jit/vec.h"

static const struct {
    uint16_t writes, undefined;
} by_op[OP_COUNT] = {
#define OP(name, feature, r, w, u) [OP_##name] = {.writes = (w), .undefined = (u)},
    INSN_OPS(OP)
#undef OP
};

/* The flags that make a visible difference; what is only kept does not. */
static uint16_t uses(const struct insn *i)
{
    switch (i->op) {
    case OP_ADC:
    case OP_SBB:
    case OP_RCL:
    case OP_RCR:
    case OP_CMC:
    case OP_ADCX:
    case OP_ADOX:
    case OP_LOOPE:
    case OP_LOOPNE:
    case OP_AAA:
    case OP_AAS:
    case OP_DAA:
    case OP_DAS:
    case OP_JCC:
    case OP_SETCC:
    case OP_CMOV:
        return insn_flags(i).reads;
    case OP_LAHF:
        return FLAGS_ARITH & ~FLAG_OF;
    case OP_PUSHF:
        return FLAGS_ARITH;
    case OP_INTO:
        return FLAG_OF;
    case OP_X87: /* FCMOVcc */
        return !i->mem && (i->opcode == 0xda || i->opcode == 0xdb) ? FLAG_CF | FLAG_ZF | FLAG_PF
                                                                   : 0;
    default:
        return 0;
    }
}

/* SDM vol 2, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR: by a count that is known and masked. */
static uint16_t after_shift(const struct insn *i, unsigned count, uint16_t before)
{
    const unsigned bits = i->size * 8u;
    const uint16_t overflow = count == 1 ? 0 : FLAG_OF;

    if (count == 0)
        return before;
    switch (i->op) {
    case OP_SHL:
    case OP_SHR:
        return FLAG_AF | overflow | (count >= bits ? FLAG_CF : 0);
    case OP_SAR:
        return FLAG_AF | overflow;
    case OP_SHLD:
    case OP_SHRD:
        return count > bits ? FLAGS_ARITH : FLAG_AF | overflow;
    case OP_ROL:
    case OP_ROR:
        return (before & ~(FLAG_CF | FLAG_OF)) | overflow;
    default: /* RCL, RCR: a multiple of their width changes nothing */
        return (before & ~(uint16_t)FLAG_OF) | overflow;
    }
}

static bool is_shift(const struct insn *i)
{
    return i->op >= OP_ROL && i->op <= OP_SHRD;
}

static uint16_t after(const struct item *item, const struct insn *i, uint16_t before)
{
    const unsigned mask = i->size == 8 ? 63 : 31;

    if (is_shift(i)) {
        if (i->form == FORM_RM_IMM || i->form == FORM_RM_REG_IMM)
            return after_shift(i, i->imm & mask, before);
        if (item->count_known)
            return after_shift(i, item->count & mask, before);
        return before | by_op[i->op].undefined;
    }
    switch (i->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC: /* ZF is kept */
        return (before & FLAG_ZF) | (FLAGS_ARITH & ~(FLAG_CF | FLAG_ZF));
    case OP_SAHF:
        return before & FLAG_OF;
    case OP_CMPS:
    case OP_SCAS: /* a count of 0 keeps them */
        return i->prefix & (PREFIX_REP | PREFIX_REPNE) ? before : 0;
    case OP_VEC:
        return vec_ops[i->vec].flags ? 0 : before;
    case OP_LAR: /* ZF alone */
    case OP_LSL:
    case OP_VERR:
    case OP_VERW:
    case OP_ARPL:
        return before & ~FLAG_ZF;
    default:
        return (before & ~by_op[i->op].writes) | by_op[i->op].undefined;
    }
}

static bool goes_on(const struct insn *i)
{
    return i->op != OP_JMP && i->op != OP_RET;
}

static bool goes_anywhere(const struct insn *i)
{
    return i->op == OP_RET || i->op == OP_RET_FAR || i->op == OP_IRET || i->op == OP_CALL_FAR ||
           i->op == OP_JMP_FAR || ((i->op == OP_JMP || i->op == OP_CALL) && i->form == FORM_RM);
}

struct analysis {
    const struct forms *forms;
    struct insn insn[ITEMS_MAX];
    uint16_t *undefined;
    bool changed;
};

static void flow(struct analysis *a, unsigned to, uint16_t flags)
{
    if (flags & ~a->undefined[to])
        a->changed = true;
    a->undefined[to] |= flags;
}

/* Indirect branches lead to whatever address was loaded or pushed. */
static void flow_anywhere(struct analysis *a, const struct sequence *s, uint16_t flags)
{
    for (unsigned k = 0; k < s->count; k++) {
        if (s->item[k].label)
            flow(a, (unsigned)s->item[k].target, flags);
        if (a->insn[k].op == OP_CALL)
            flow(a, k + 1, flags);
    }
}

static void pass(struct analysis *a, const struct sequence *s)
{
    for (unsigned k = 0; k < s->count; k++) {
        const struct item *item = &s->item[k];
        const uint16_t flags = after(item, &a->insn[k], a->undefined[k]);

        if (goes_on(&a->insn[k]))
            flow(a, k + 1, flags);
        if (item->rel)
            flow(a, (unsigned)item->target, flags);
        if (goes_anywhere(&a->insn[k]))
            flow_anywhere(a, s, flags);
    }
}

static void decode_item(struct analysis *a, const struct sequence *s, unsigned k)
{
    insn_decode(&a->insn[k], s->item[k].bytes, s->item[k].len, a->forms->width, a->forms->features);
}

/* cmp edx, ecx */
static void replace(struct item *item)
{
    item->form = NO_FORM;
    item->target = NO_ITEM;
    item->rel = item->label = item->rip = 0;
    item->len = 2;
    memcpy(item->bytes, "\x39\xca", 2);
}

void sequence_define_flags(struct sequence *s, const struct forms *forms, uint16_t *undefined)
{
    static struct analysis a;
    bool replaced;

    a.forms = forms;
    a.undefined = undefined;
    for (unsigned k = 0; k < s->count; k++)
        decode_item(&a, s, k);
    do {
        sequence_place(s); /* short branches that do not reach lead elsewhere */
        memset(undefined, 0, (s->count + 1) * sizeof(*undefined));
        do {
            a.changed = false;
            pass(&a, s);
        } while (a.changed);
        replaced = false;
        for (unsigned k = 0; k < s->count; k++)
            if (uses(&a.insn[k]) & undefined[k]) {
                replace(&s->item[k]);
                decode_item(&a, s, k);
                replaced = true;
            }
    } while (replaced);
}

/* Whether what comes after it is another instruction of the same run, for sure. */
static bool may_leave(const struct insn *i)
{
    return i->op >= OP_JMP && i->op <= OP_IRET;
}

uint16_t sequence_dead_flags(const struct sequence *s, const struct forms *forms, uint64_t rip)
{
    uint16_t written = 0, read = 0;
    struct insn i = {.op = OP_NOP};

    for (uint64_t at = rip - s->rip; at < s->code_len && !may_leave(&i); at += i.len) {
        struct insn_flags f;

        if (insn_decode(&i, s->code + at, (unsigned)(s->code_len - at), forms->width,
                        forms->features) != DECODE_OK)
            break;
        f = insn_flags(&i);
        read |= f.reads & ~written;
        written |= f.writes;
    }
    return written & ~read;
}

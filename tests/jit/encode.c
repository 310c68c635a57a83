/*
 * encode.c - one random instruction of a form, with operands that are worth something.
 *
 * Encodings are drawn, decoded, and drawn again when they came out as another instruction: so no
 * rule of the encoding has to be known twice.
 */
#include "sequence.h"

#include "cpu/jit/vec.h"

static uint64_t size_mask(const struct encoder *e)
{
    return e->forms->width == CODE_64 ? ~0ull : 0xffffffff;
}

static bool is_64(const struct encoder *e)
{
    return e->forms->width == CODE_64;
}

/* ---- where memory operands are */

static uint64_t in_pages(struct encoder *e, unsigned first, unsigned pages, unsigned size)
{
    struct random *r = e->random;
    const unsigned page = first + random_below(r, pages);

    if (random_percent(r, 25)) /* up to and across its end */
        return e->window + (page + 1) * PAGE - random_below(r, 2 * QZ_MIN(size, 64u)) - 1;
    return e->window + page * PAGE + random_below(r, PAGE);
}

static uint64_t anywhere(struct encoder *e, unsigned size)
{
    struct random *r = e->random;
    const unsigned what = random_below(r, 100);

    if (what < 72)
        return in_pages(e, PAGE_DATA, DATA_PAGES, size);
    if (what < 84)
        return in_pages(e, PAGE_STACK, STACK_PAGES, size);
    if (what < 91)
        return in_pages(e, PAGE_CONST, 1, size);
    if (what < 93)
        return in_pages(e, PAGE_CODE, CODE_PAGES, size);
    if (what < 97) /* pages that are not there */
        return e->window + (random_percent(r, 50) ? PAGE_CONST + 1 : 0) * PAGE +
               random_below(r, PAGE);
    if (what < 98) /* around the end of the lower half */
        return 0x7ffffffffff0 + random_below(r, 32);
    return what < 99 ? 0x8000000000000000 ^ random_next(r) >> 4
                     : 0xffff900000000000 + random_below(r, PAGE);
}

uint64_t encode_target(struct encoder *e, unsigned size, bool aligned)
{
    uint64_t at = anywhere(e, size);

    if (aligned ? random_percent(e->random, 88) : random_percent(e->random, 40))
        at &= ~(uint64_t)(QZ_MAX(size, 1u) - 1);
    return at & size_mask(e);
}

/* ---- registers */

static void forget(struct encoder *e, unsigned reg)
{
    e->is_known &= (uint16_t) ~(1u << (reg >= REG_AH ? reg - REG_AH : reg & 15));
}

static void forget_implicit(struct encoder *e, const struct insn *i)
{
    if (i->op >= OP_MOVS && i->op <= OP_OUTS) {
        forget(e, RSI);
        forget(e, RDI);
        forget(e, RCX);
        forget(e, RAX);
    } else if (i->op == OP_PUSHA || i->op == OP_POPA) {
        e->is_known = 0;
    } else if (i->op >= OP_PUSH && i->op <= OP_POP_SEG) {
        if (i->op == OP_ENTER || i->op == OP_LEAVE)
            forget(e, RBP);
    } else if (i->op >= OP_MUL && i->op <= OP_CMPXCHG16B) {
        forget(e, RAX);
        forget(e, RDX);
    } else if (i->op >= OP_AAA && i->op <= OP_DAS) {
        forget(e, RAX);
    } else if (i->op == OP_CBW || i->op == OP_CWD || i->op == OP_LAHF || i->op == OP_XLAT ||
               i->op == OP_X87) {
        forget(e, RAX);
        if (i->op == OP_CWD)
            forget(e, RDX);
    } else if (i->op == OP_LOOP || i->op == OP_LOOPE || i->op == OP_LOOPNE ||
               (i->op == OP_VEC && (vec_ops[i->vec].implicit & VEC_IMPLICIT_RCX))) {
        forget(e, RCX);
    }
}

void encode_forget(struct encoder *e, const struct item *item)
{
    struct insn i;

    if (insn_decode(&i, item->bytes, item->len, e->forms->width, e->forms->features) != DECODE_OK)
        return;
    forget_implicit(e, &i);
    if (i.op == OP_CMP || i.op == OP_TEST || i.op == OP_X87)
        return;
    if (i.op == OP_VEC) {
        if (vec_ops[i.vec].reg == VEC_OPERAND_GPR)
            forget(e, i.reg);
        if (vec_ops[i.vec].rm == VEC_OPERAND_GPR && !i.mem)
            forget(e, i.rm);
        return;
    }
    if (!i.mem && i.form != FORM_NONE && i.form != FORM_IMM && i.form != FORM_REL)
        forget(e, i.rm);
    if (i.form == FORM_REG_RM || i.form == FORM_REG_RM_IMM || i.form == FORM_REG_VVVV_RM ||
        i.form == FORM_REG_RM_VVVV || i.op == OP_XCHG || i.op == OP_XADD)
        forget(e, i.reg);
    if (i.form == FORM_VVVV_RM || i.op == OP_MULX)
        forget(e, i.vvvv);
}

static bool pick_known(struct encoder *e, unsigned *reg)
{
    const unsigned first = random_below(e->random, 16);

    for (unsigned n = 0; n < 16; n++) {
        *reg = (first + n) & 15;
        if (e->is_known >> *reg & 1)
            return true;
    }
    return false;
}

/* ---- encoding */

struct draft {
    uint8_t prefixes[6];
    unsigned prefix_count;
    uint8_t rex; /* 0: none */
    uint8_t modrm, sib, vvvv;
    bool has_sib;
    uint8_t disp_size;
    int32_t disp;
    bool rip;
    uint64_t address;
    uint64_t segment_base;
};

static void add_prefix(struct draft *d, uint8_t prefix)
{
    if (d->prefix_count < sizeof(d->prefixes))
        d->prefixes[d->prefix_count++] = prefix;
}

static void draw_prefixes(struct encoder *e, const struct form *f, struct draft *d)
{
    struct random *r = e->random;
    static const uint8_t idle[] = {0x26, 0x2e, 0x36, 0x3e};

    if (!f->vex && random_percent(r, 22) && f->prefix != 0x66)
        add_prefix(d, 0x66);
    if (random_percent(r, f->class == CLASS_STRING ? 60 : 1))
        add_prefix(d, random_percent(r, 60) ? 0xf3 : 0xf2);
    if (f->mem && random_percent(r, f->class == CLASS_INTEGER ? 20 : 1))
        add_prefix(d, 0xf0);
    if (random_percent(r, f->mem || f->class == CLASS_STRING ? 7 : 1))
        add_prefix(d, 0x67);
    if (random_percent(r, f->mem || f->class == CLASS_STRING ? 10 : 1)) {
        const bool fs = random_percent(r, 50);

        add_prefix(d, fs ? 0x64 : 0x65);
        d->segment_base = fs ? e->fs_base : e->gs_base;
    } else if (is_64(e) && random_percent(r, 2)) {
        add_prefix(d, idle[random_below(r, sizeof(idle))]);
    }
    if (is_64(e) && random_percent(r, 45))
        d->rex = (uint8_t)(0x40 | (random_percent(r, 75) ? 8 : 0));
}

static void set_disp(struct encoder *e, struct draft *d, int32_t disp, bool needed)
{
    d->disp = disp;
    if (disp == 0 && !needed && random_percent(e->random, 80))
        d->disp_size = 0;
    else
        d->disp_size = disp == (int8_t)disp && random_percent(e->random, 80) ? 1 : 4;
    d->modrm |= d->disp_size == 0 ? 0 : d->disp_size == 1 ? 0x40 : 0x80;
}

static void use_base(struct encoder *e, struct draft *d, unsigned base, unsigned index,
                     unsigned scale, int32_t disp)
{
    const bool sib = index != REG_NONE || (base & 7) == RSP || random_percent(e->random, 5);

    d->modrm |= sib ? 4 : base & 7;
    d->has_sib = sib;
    d->sib = (uint8_t)(scale << 6 | (index == REG_NONE ? 4 : index & 7) << 3 | (base & 7));
    if (base & 8)
        d->rex |= 0x41;
    if (index != REG_NONE && (index & 8))
        d->rex |= 0x42;
    set_disp(e, d, disp, (base & 7) == RBP);
}

/* Without a base: relative to rip, or absolute. False: out of reach. */
static bool aim_without_base(struct encoder *e, struct draft *d, uint64_t target)
{
    const bool absolute = (uint64_t)(int64_t)(int32_t)target == target || !is_64(e);

    d->disp_size = 4;
    d->disp = (int32_t)target;
    if (is_64(e) && (!absolute || random_percent(e->random, 50))) {
        d->modrm |= 5;
        d->rip = true;
        d->address = target;
        return target - e->window < 1ull << 24 || e->window - target < 1ull << 24;
    }
    if (!is_64(e) && random_percent(e->random, 70)) {
        d->modrm |= 5;
        return true;
    }
    d->modrm |= 4;
    d->has_sib = true;
    d->sib = 0x25;
    return true;
}

static bool aim_by_base(struct encoder *e, struct draft *d, uint64_t target)
{
    unsigned base, index = REG_NONE, scale = 0;
    uint64_t sum;

    if (!pick_known(e, &base))
        return false;
    sum = e->known[base];
    if (random_percent(e->random, 40) && pick_known(e, &index) && index != RSP) {
        scale = random_below(e->random, 4);
        sum += e->known[index] << scale;
    } else {
        index = REG_NONE;
        scale = random_below(e->random, 4);
    }
    if (is_64(e) && (int64_t)(target - sum) != (int32_t)(target - sum))
        return false;
    use_base(e, d, base, index, scale, (int32_t)(target - sum));
    return true;
}

static void draw_memory(struct encoder *e, struct draft *d, unsigned size, bool aligned)
{
    const uint64_t target = encode_target(e, size, aligned) - d->segment_base;
    const struct draft before = *d;

    for (unsigned tries = 0; tries < 6; tries++) {
        *d = before;
        if (random_percent(e->random, 35) ? aim_without_base(e, d, target)
                                          : aim_by_base(e, d, target))
            return;
    }
    *d = before; /* somewhere */
    use_base(e, d, random_below(e->random, is_64(e) ? 16 : 8), REG_NONE, 0,
             (int32_t)random_value(e->random));
}

static void draw_operands(struct encoder *e, const struct form *f, struct draft *d)
{
    struct random *r = e->random;
    const struct vec_op *v = f->op == OP_VEC ? &vec_ops[f->vec] : NULL;
    const unsigned registers = is_64(e) ? 16 : 8;
    unsigned reg = f->reg >= 0 ? (unsigned)f->reg : random_below(r, registers);
    unsigned rm = f->rm >= 0 ? (unsigned)f->rm : random_below(r, registers);

    if (reg == RSP && f->reg < 0 && random_percent(r, 70)) /* rarely lose the stack */
        reg = RAX;
    if (rm == RSP && f->rm < 0 && random_percent(r, 80))
        rm = RDX;
    d->modrm = (uint8_t)((reg & 7) << 3);
    d->vvvv = (uint8_t)random_below(r, registers);
    if (reg & 8)
        d->rex |= 0x44;
    if (f->mem) {
        draw_memory(e, d,
                    v                       ? v->mem_size
                    : f->class == CLASS_X87 ? 8
                                            : 1u << random_below(r, 4),
                    (v && v->aligned) || f->op == OP_CMPXCHG16B);
        return;
    }
    d->modrm |= (uint8_t)(0xc0 | (rm & 7));
    if (rm & 8)
        d->rex |= 0x41;
}

static uint8_t *put(uint8_t *p, uint64_t value, unsigned bytes)
{
    memcpy(p, &value, bytes);
    return p + bytes;
}

static uint8_t *put_opcode(const struct encoder *e, const struct form *f, const struct draft *d,
                           uint8_t *p)
{
    for (unsigned n = 0; n < d->prefix_count; n++)
        *p++ = d->prefixes[n];
    if (f->vex) { /* SDM vol 2 §2.3: bits of REX and vvvv inverted, L 0 */
        *p++ = 0xc4;
        *p++ = (uint8_t)((~d->rex & 7) << 5 | f->map);
        *p++ = (uint8_t)((d->rex & 8) << 4 | (~d->vvvv & 15) << 3 | f->prefix);
        *p++ = f->opcode;
        return p;
    }
    if (f->prefix)
        *p++ = f->prefix;
    if (d->rex && is_64(e))
        *p++ = d->rex;
    if (f->map)
        *p++ = 0x0f;
    if (f->map > 1)
        *p++ = f->map == 2 ? 0x38 : 0x3a;
    *p++ = f->opcode;
    return p;
}

/* The decoder's length tells how many of the bytes behind the operands are immediates. */
static bool finish(struct encoder *e, const struct form *f, struct item *item, const uint8_t *bytes,
                   unsigned fixed, struct insn *i)
{
    if (insn_decode(i, bytes, 15, e->forms->width, e->forms->features) != DECODE_OK ||
        i->op != f->op || (f->op == OP_VEC && i->vec != f->vec))
        return false;
    memcpy(item->bytes, bytes, i->len);
    item->len = i->len;
    if (i->form == FORM_REL)
        item->rel = (uint8_t)(i->len - fixed);
    return i->len <= 15;
}

/*
 * Not results that the architecture leaves open, system calls, and what the vendors do not agree
 * on: near branches with 66 in 64-bit code, far pointers with REX.W (insn.h), MOVSXD of 16 bits,
 * for which AMD's read 32, whether ports are looked at when a count is 0.
 */
static bool is_defined(const struct encoder *e, const struct insn *i)
{
    if (i->op == OP_INT && (i->imm == 0x80 || i->imm >= 0x100))
        return false;
    if (i->op >= OP_JMP && i->op <= OP_RET && (i->prefix & PREFIX_OPSIZE) && is_64(e))
        return false;
    if (i->size == 8 && i->mem &&
        ((i->op >= OP_JMP_FAR && i->op <= OP_CALL_FAR) || (i->op >= OP_LDS && i->op <= OP_LSS)))
        return false;
    if (i->op == OP_MOVSX && i->opcode == 0x63 && i->map == 0 && i->size == 2)
        return false;
    if ((i->op == OP_LOOPE || i->op == OP_LOOPNE) && (i->prefix & (PREFIX_REP | PREFIX_REPNE)))
        return false; /* reserved, and AMD's take it for the condition */
    if ((i->op == OP_INS || i->op == OP_OUTS) && (i->prefix & (PREFIX_REP | PREFIX_REPNE)))
        return false;
    if (i->op == OP_BSWAP)
        return i->size != 2;
    if (i->op == OP_SHLD || i->op == OP_SHRD)
        return i->size != 2 || (i->form == FORM_RM_REG_IMM && (i->imm & 31) <= 16);
    return !(i->op == OP_UD && i->mem && e->forms->width != CODE_64);
}

bool encode_form(struct encoder *e, unsigned form, struct item *item)
{
    const struct form *f = &e->forms->form[form];
    struct draft d = {.rex = 0};
    uint8_t bytes[48], *p;
    struct insn i;
    unsigned fixed;

    *item = (struct item){.form = (int16_t)form, .target = NO_ITEM};
    draw_prefixes(e, f, &d);
    if (f->modrm)
        draw_operands(e, f, &d);
    else if (is_64(e) && random_percent(e->random, 30))
        d.rex |= 0x41;
    p = put_opcode(e, f, &d, bytes);
    if (f->modrm)
        *p++ = d.modrm;
    if (d.has_sib)
        *p++ = d.sib;
    if (d.rip)
        item->rip = (uint8_t)(p - bytes);
    item->address = d.address;
    p = put(p, (uint32_t)d.disp, d.disp_size);
    fixed = (unsigned)(p - bytes);
    p = put(p, random_value(e->random), 8);
    put(p, random_value(e->random), 8);
    return finish(e, f, item, bytes, fixed, &i) && is_defined(e, &i);
}

void encode_mov(struct encoder *e, unsigned reg, uint64_t value, struct item *item)
{
    uint8_t *p = item->bytes;

    *item = (struct item){.form = NO_FORM, .target = NO_ITEM};
    value &= size_mask(e);
    if (is_64(e) && (value >> 32 || reg & 8))
        *p++ = (uint8_t)(0x40 | (value >> 32 ? 8 : 0) | reg >> 3);
    *p++ = (uint8_t)(0xb8 | (reg & 7));
    p = put(p, value, value >> 32 ? 8 : 4);
    item->len = (uint8_t)(p - item->bytes);
    e->known[reg] = value;
    e->is_known |= (uint16_t)(1u << reg);
}

/*
 * translate_row.c - several accesses by the same base register behind one look into the TLB.
 *
 * Compiled code reads and writes fields of one structure, or of its stack frame, a few instructions
 * apart. Where all these bytes lie within one page, the first access's check is good for the
 * others: r11 keeps the host address of the lowest byte, and each instruction has its displacement
 * from there. Instructions between them may stand in the row when they touch neither memory nor the
 * base register and need no scratch register. What is out of the ordinary, a page border for
 * example, makes the interpreter execute the whole row; nothing of it has happened by then.
 */
#include "cpu/jit/translate_internal.h"
#include "cpu/jit/vec.h"

enum { ROW_MAX = 12, SPAN_MAX = 1024 };

bool emit_operand(struct translation *x, const struct insn *i, unsigned access, unsigned size,
                  bool aligned, int32_t *disp)
{
    if (x->in_row) {
        *disp = i->disp - x->row_low;
        return true;
    }
    *disp = 0;
    if (!emit_address(x, i, true))
        return false;
    if (aligned) /* #GP comes before #PF */
        emit_alignment_check(x);
    emit_access(x, access, size);
    return true;
}

static bool is_high_byte(unsigned reg, unsigned size)
{
    return size == 1 && reg >= REG_AH;
}

/* Integer instructions with one register and one register or memory operand, or an immediate. */
static bool is_plain_integer(const struct insn *i)
{
    switch (i->op) {
    case OP_MOV:
    case OP_ADD:
    case OP_OR:
    case OP_ADC:
    case OP_SBB:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
    case OP_CMP:
    case OP_TEST:
    case OP_MOVZX:
    case OP_MOVSX:
        break;
    default:
        return false;
    }
    if (i->form == FORM_RM_IMM)
        return i->mem || !(is_high_byte(i->rm, i->size) || in_memory(i->rm));
    if (i->form != FORM_RM_REG && i->form != FORM_REG_RM)
        return false;
    if (is_high_byte(i->reg, i->size) || in_memory(i->reg))
        return false;
    return i->mem || !(is_high_byte(i->rm, i->src_size) || in_memory(i->rm));
}

static bool is_plain_vector(const struct translation *x, const struct insn *i)
{
    const struct vec_op *v = &vec_ops[i->vec];

    return x->vectors && is_native_vector(i) && !v->fp &&
           (v->reg != VEC_OPERAND_GPR || !in_memory(i->reg)) &&
           (i->mem || v->rm != VEC_OPERAND_GPR || !in_memory(i->rm));
}

static bool is_plain(const struct translation *x, const struct insn *i)
{
    if (i->prefix & PREFIX_LOCK)
        return false;
    return i->op == OP_VEC ? is_plain_vector(x, i) : is_plain_integer(i);
}

static bool is_member(const struct translation *x, const struct insn *i)
{
    return i->mem && i->asize == 8 && i->base < 16 && i->index == REG_NONE && i->seg != SEG_FS &&
           i->seg != SEG_GS && is_plain(x, i);
}

/* May it change this general register? A vector register of the same number is taken for one. */
static bool may_write(const struct insn *i, unsigned guest)
{
    return i->reg == guest || (!i->mem && i->rm == guest);
}

static unsigned access_bytes(const struct insn *i)
{
    return i->op == OP_VEC ? vector_memory_size(i) : i->src_size;
}

static bool writes_memory(const struct insn *i)
{
    if (i->op == OP_VEC)
        return vec_ops[i->vec].store;
    return i->op != OP_CMP && i->op != OP_TEST && i->form != FORM_REG_RM;
}

static bool is_aligned(const struct insn *i)
{
    return i->op == OP_VEC && vec_ops[i->vec].aligned;
}

struct row {
    unsigned count, members; /* instructions, and those of them that access memory */
    int64_t low, high;       /* displacements: the first byte, and the one behind the last */
    bool write, aligned;
    int64_t aligned_at; /* displacement that has to be a multiple of 16 with the base */
};

/* Takes a member in; false: it does not fit to the others. */
static bool take(struct row *r, const struct insn *i)
{
    const int64_t low = QZ_MIN(r->low, (int64_t)i->disp);
    const int64_t high = QZ_MAX(r->high, (int64_t)i->disp + access_bytes(i));

    if (high - low > SPAN_MAX)
        return false;
    if (is_aligned(i)) {
        if (r->aligned && (i->disp - r->aligned_at) & 15)
            return false;
        r->aligned = true;
        r->aligned_at = i->disp;
    }
    r->low = low;
    r->high = high;
    r->write |= writes_memory(i);
    r->members++;
    return true;
}

static struct row find_row(const struct translation *x)
{
    const struct insn *first = current(x);
    struct row r = {.low = first->disp, .high = first->disp};

    for (unsigned n = 0; n < ROW_MAX && x->k + n < x->block->count; n++) {
        const struct insn *i = first + n;
        const bool member = is_member(x, i) && i->base == first->base;

        if (member ? !take(&r, i) : i->mem || !is_plain(x, i) || may_write(i, first->base))
            break;
        if (member)
            r.count = n + 1;
        if (member && may_write(i, first->base))
            break;
    }
    return r;
}

/* Loads in the same page meet what the first one meets, unless each one's alignment is looked at.
 */
static bool can_fill(const struct translation *x, const struct row *r)
{
    return !r->write && x->set != TLB_USER_STRICT;
}

bool translate_access_row(struct translation *x)
{
    const struct insn *first = current(x);
    struct emitter *e = &x->e;
    struct row r;

    if (!is_member(x, first) || (r = find_row(x)).members < 2 || r.low != (int32_t)r.low)
        return false;
    emit_rmx(e, op1(8, 0x8d), H_R11, use_register(x, first->base, H_R11), HOST_NONE, 0,
             (int32_t)r.low);
    if (r.aligned)
        emit_row_alignment_check(x, (r.aligned_at - r.low) & 15, r.count);
    if (can_fill(x, &r))
        emit_access_read_row(x, (unsigned)(r.high - r.low), access_bytes(first),
                             (unsigned)(first->disp - r.low), r.count);
    else
        emit_access_row(x, r.write ? TLB_WRITE : TLB_READ, (unsigned)(r.high - r.low), r.count);
    x->in_row = true;
    x->row_low = (int32_t)r.low;
    for (unsigned n = 0; n < r.count && !e->full; n++, x->k++)
        if (!translate_plain(x, current(x)))
            e->full = true; /* is_plain() says that this cannot be */
    x->k--;
    x->in_row = false;
    return true;
}

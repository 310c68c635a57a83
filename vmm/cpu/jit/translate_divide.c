/*
 * translate_divide.c - DIV and IDIV by the host's, once it is sure that they raise nothing.
 */
#include "cpu/jit/translate_internal.h"

/* r10 := the divisor */
static bool divisor(struct translation *x, const struct insn *i)
{
    if (!i->mem) {
        emit_rr(&x->e, op1(i->size, 0x8b), H_R10, use_register(x, i->rm, H_R10));
        return true;
    }
    if (!emit_address(x, i, true))
        return false;
    emit_access(x, TLB_READ, i->size);
    emit_rm(&x->e, op1(i->size, 0x8b), H_R10, H_R11);
    return true;
}

/* The quotient fits when the upper half is below the divisor. */
static void check_unsigned(struct translation *x, unsigned size)
{
    emit_rr(&x->e, op1(size, 0x3b), H_RDX, H_R10);
    emit_execute_unless(x, CC_B);
}

/* What compilers divide is a sign-extended single: all but 0 and -1 go. */
static void check_signed(struct translation *x, unsigned size)
{
    struct emitter *e = &x->e;

    emit_rr(e, op1(size, 0x8b), H_R11, H_RAX);
    emit_rr(e, op1(size, 0xc1), 7, H_R11); /* sar */
    emit8(e, size * 8 - 1);
    emit_rr(e, op1(size, 0x3b), H_R11, H_RDX);
    emit_execute_unless(x, CC_E);
    emit_rmx(e, op1(size, 0x8d), H_R11, H_R10, HOST_NONE, 0, 1);
    emit_alu_imm(e, size, 7, H_R11, 1);
    emit_execute_unless(x, CC_A);
}

bool translate_divide(struct translation *x, const struct insn *i)
{
    if ((i->op != OP_DIV && i->op != OP_IDIV) || i->size < 4 || (i->mem && !address_emittable(i)))
        return false;
    flags_lose(x, flags_live_before(x));
    divisor(x, i);
    if (i->op == OP_DIV)
        check_unsigned(x, i->size);
    else
        check_signed(x, i->size);
    emit_rr(&x->e, op1(i->size, 0xf7), i->op == OP_DIV ? 6 : 7, H_R10);
    if (x->t->counted) /* undefined: they stay, as the interpreter has it */
        x->flags_in_host = false;
    else
        flags_after(x, i);
    return true;
}

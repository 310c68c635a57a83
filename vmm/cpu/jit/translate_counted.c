/*
 * translate_counted.c - translated code counts instructions (counted.h): a block is taken from the
 * budget as a whole, and what was not executed of it is given back where it is left early.
 */
#include "cpu/jit/translate_internal.h"

uint8_t *counted_take(struct translation *x)
{
    struct emitter *e = &x->e;
    uint8_t *short_of;

    if (!x->t->counted)
        return NULL;
    emit_env(e, op1(4, 0x8b), H_R11, ENV(budget));
    emit_alu_imm(e, 4, 5, H_R11, x->block->count); /* sub */
    short_of = emit_jcc_hole(e, CC_L);
    emit_env(e, op1(4, 0x89), H_R11, ENV(budget));
    return short_of;
}

void counted_note(struct translation *x, unsigned k)
{
    if (!x->t->counted)
        return;
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0xc7), 0, 0xff, 0xff, 0, ENV(ahead)); /* mov, imm32 */
    emit32(&x->e, x->block->count - k);
}

void counted_return(struct translation *x, unsigned instructions)
{
    if (!instructions)
        return;
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0x83), 0, 0xff, 0xff, 0, ENV(budget)); /* add, imm8 */
    emit8(&x->e, instructions);
}

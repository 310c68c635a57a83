/*
 * translate_stack.c - PUSH, POP, LEAVE with 64-bit operands. rsp moves after the access, so that a
 * fault finds it as it was.
 */
#include "cpu/jit/translate_internal.h"

/* r15 += n; flags stay */
static void move_stack(struct translation *x, int n)
{
    emit_rmx(&x->e, op1(8, 0x8d), H_R15, H_R15, HOST_NONE, 0, n);
}

static void stack_slot(struct translation *x, int offset, unsigned access)
{
    if (offset)
        emit_rmx(&x->e, op1(8, 0x8d), H_R11, H_R15, HOST_NONE, 0, offset);
    else
        emit_mov(&x->e, H_R11, H_R15);
    emit_access(x, access, 8);
}

static bool push_memory(struct translation *x, const struct insn *i)
{
    if (!emit_address(x, i, true))
        return false;
    emit_access(x, TLB_READ, 8);
    emit_rm(&x->e, op1(8, 0x8b), H_R10, H_R11);
    emit_store(&x->e, H_R10, ENV(scratch));
    stack_slot(x, -8, TLB_WRITE);
    emit_load(&x->e, H_R10, ENV(scratch));
    emit_rm(&x->e, op1(8, 0x89), H_R10, H_R11);
    move_stack(x, -8);
    return true;
}

static bool push(struct translation *x, const struct insn *i)
{
    if (i->size != 8)
        return false;
    if (i->form == FORM_RM && i->mem)
        return push_memory(x, i);
    stack_slot(x, -8, TLB_WRITE);
    if (i->form == FORM_IMM) {
        emit_rm(&x->e, op1(8, 0xc7), 0, H_R11);
        emit32(&x->e, i->imm);
    } else {
        emit_rm(&x->e, op1(8, 0x89), use_register(x, i->rm, H_R10), H_R11);
    }
    move_stack(x, -8);
    return true;
}

static bool pop(struct translation *x, const struct insn *i)
{
    unsigned host;

    if (i->size != 8 || i->mem)
        return false;
    stack_slot(x, 0, TLB_READ);
    host = in_memory(i->rm) ? H_R10 : jit_host_register[i->rm];
    if (i->rm != RSP)
        move_stack(x, 8);
    emit_rm(&x->e, op1(8, 0x8b), host, H_R11); /* POP RSP: the value read is what counts */
    put_register(x, i->rm, host);
    return true;
}

static bool leave(struct translation *x, const struct insn *i)
{
    if (i->size != 8)
        return false;
    emit_mov(&x->e, H_R11, H_RBP);
    emit_access(x, TLB_READ, 8);
    emit_rmx(&x->e, op1(8, 0x8d), H_R15, H_RBP, HOST_NONE, 0, 8);
    emit_rm(&x->e, op1(8, 0x8b), H_RBP, H_R11);
    return true;
}

bool translate_stack(struct translation *x, const struct insn *i)
{
    switch (i->op) {
    case OP_PUSH:
        return push(x, i);
    case OP_POP:
        return pop(x, i);
    case OP_LEAVE:
        return leave(x, i);
    default:
        return false;
    }
}

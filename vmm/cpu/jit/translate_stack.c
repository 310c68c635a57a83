/*
 * translate_stack.c - PUSH, POP, LEAVE with 64-bit operands. rsp moves after the access, so that a
 * fault finds it as it was. A row of pushes or pops, as at the begin and end of functions and of
 * interrupts, is checked as one access; where that is not plain memory the interpreter executes all
 * of them.
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

enum { ROW_MAX = 16 };

static bool is_row_push(const struct insn *i)
{
    return i->op == OP_PUSH && i->size == 8 && (i->form == FORM_IMM || !i->mem) &&
           !(i->form != FORM_IMM && i->rm == RSP);
}

static bool is_row_pop(const struct insn *i)
{
    return i->op == OP_POP && i->size == 8 && !i->mem && i->rm != RSP;
}

/* How many of them begin here. */
static unsigned row_length(const struct translation *x, bool (*is)(const struct insn *))
{
    unsigned n = 0;

    while (n < ROW_MAX && x->k + n < x->block->count && is(&x->block->insn[x->k + n]))
        n++;
    return n;
}

static void row_push(struct translation *x, unsigned n)
{
    struct emitter *e = &x->e;

    for (unsigned m = 0; m < n; m++) {
        const struct insn *i = &x->block->insn[x->k + m];
        const int at = (int)(n - 1 - m) * 8;

        if (i->form == FORM_IMM) {
            emit_rmx(e, op1(8, 0xc7), 0, H_R11, HOST_NONE, 0, at);
            emit32(e, i->imm);
        } else {
            emit_rmx(e, op1(8, 0x89), use_register(x, i->rm, H_R10), H_R11, HOST_NONE, 0, at);
        }
    }
}

static void row_pop(struct translation *x, unsigned n)
{
    for (unsigned m = 0; m < n; m++) {
        const struct insn *i = &x->block->insn[x->k + m];
        const unsigned host = in_memory(i->rm) ? H_R10 : jit_host_register[i->rm];

        emit_rmx(&x->e, op1(8, 0x8b), host, H_R11, HOST_NONE, 0, (int)m * 8);
        put_register(x, i->rm, host);
    }
}

bool translate_stack_row(struct translation *x)
{
    const unsigned pushes = row_length(x, is_row_push), pops = row_length(x, is_row_pop);
    const unsigned n = pushes ? pushes : pops, bytes = n * 8;

    if (n < 2)
        return false;
    emit_rmx(&x->e, op1(8, 0x8d), H_R11, H_R15, HOST_NONE, 0, pushes ? -(int)bytes : 0);
    emit_access_row(x, pushes ? TLB_WRITE : TLB_READ, bytes, n);
    if (pushes)
        row_push(x, n);
    else
        row_pop(x, n);
    move_stack(x, pushes ? -(int)bytes : (int)bytes);
    x->k += n - 1;
    return true;
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

/*
 * translate_string.c - MOVS, STOS and LODS by the host's own string instructions, forward, with
 * 64-bit addresses. A repeated one runs here when all it touches lies within one page of each
 * operand and is plain memory; the interpreter does it otherwise, page by page. Host addresses
 * overlap as physical ones do, so that a copy onto itself comes out as it should, whatever the
 * linear addresses are.
 */
#include "cpu/jit/translate_internal.h"

enum { DF_BYTE = RFLAGS_DF >> 8, PAGE = 4096 };

/* The interpreter goes backward. */
static void forward_only(struct translation *x)
{
    struct emitter *e = &x->e;

    flags_lose(x, flags_live_before(x));
    emit8(e, 0x65); /* test byte gs:[], imm */
    emit_rmx(e, op1(4, 0xf6), 0, 0xff, 0xff, 0, ENV(rflags) + 1);
    emit8(e, DF_BYTE);
    emit_execute_unless(x, CC_E);
}

/* to := from + rcx elements */
static void behind_all(struct translation *x, const struct insn *i, unsigned to, unsigned from)
{
    emit_rmx(&x->e, op1(8, 0x8d), to, from, H_RCX, (unsigned)__builtin_ctz(i->size), 0);
}

/* r10 := host address of rcx elements at the linear address in `at`; r11 is lost. */
static void emit_span(struct translation *x, const struct insn *i, unsigned at, unsigned access)
{
    emit_mov(&x->e, H_R11, at);
    emit_access_first(x, access, i->size);
    behind_all(x, i, H_R11, H_R11);
    emit_alu_imm(&x->e, 8, 7, H_R11, PAGE); /* cmp */
    emit_execute_unless(x, CC_BE);
}

static void emit_repeat(struct emitter *e, const struct insn *i, uint8_t opcode)
{
    struct opcode o = op1(i->size, opcode | (i->size != 1));

    if (o.size == 2)
        emit8(e, 0x66);
    emit8(e, 0xf3);
    if (o.size == 8)
        emit8(e, 0x48);
    emit8(e, o.byte);
}

/* One element at least, a page at most: rcx - 1 < elements of a page. */
static void check_count(struct translation *x, const struct insn *i)
{
    emit_rmx(&x->e, op1(8, 0x8d), H_R10, H_RCX, HOST_NONE, 0, -1);
    emit_rr(&x->e, op1(8, 0x81), 7, H_R10);
    emit32(&x->e, PAGE / i->size - 1);
    emit_execute_unless(x, CC_BE);
}

static void repeat_movs(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    emit_span(x, i, H_RSI, TLB_READ);
    emit_store(e, H_R10, ENV(scratch));
    emit_span(x, i, H_RDI, TLB_WRITE);
    behind_all(x, i, H_R11, H_RDI);
    emit_mov(e, H_RDI, H_R10);
    behind_all(x, i, H_R10, H_RSI);
    emit_load(e, H_RSI, ENV(scratch));
    emit_repeat(e, i, 0xa4);
    emit_mov(e, H_RSI, H_R10);
    emit_mov(e, H_RDI, H_R11);
}

static void repeat_stos(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    emit_span(x, i, H_RDI, TLB_WRITE);
    behind_all(x, i, H_R11, H_RDI);
    emit_mov(e, H_RDI, H_R10);
    emit_repeat(e, i, 0xaa);
    emit_mov(e, H_RDI, H_R11);
}

/* r11 := host address of the element */
static void emit_element(struct translation *x, const struct insn *i, unsigned at, unsigned access)
{
    emit_mov(&x->e, H_R11, at);
    emit_access(x, access, i->size);
}

static void advance(struct translation *x, const struct insn *i, unsigned reg)
{
    emit_rmx(&x->e, op1(8, 0x8d), reg, reg, HOST_NONE, 0, i->size);
}

static void load_element(struct translation *x, const struct insn *i, unsigned reg)
{
    emit_rm(&x->e, op1(i->size, i->size == 1 ? 0x8a : 0x8b), reg, H_R11);
}

static void store_element(struct translation *x, const struct insn *i, unsigned reg)
{
    emit_rm(&x->e, op1(i->size, i->size == 1 ? 0x88 : 0x89), reg, H_R11);
}

static void one_movs(struct translation *x, const struct insn *i)
{
    emit_element(x, i, H_RSI, TLB_READ);
    load_element(x, i, H_R10);
    emit_store(&x->e, H_R10, ENV(scratch));
    emit_element(x, i, H_RDI, TLB_WRITE);
    emit_load(&x->e, H_R10, ENV(scratch));
    store_element(x, i, H_R10);
    advance(x, i, H_RSI);
    advance(x, i, H_RDI);
}

static void one_stos(struct translation *x, const struct insn *i)
{
    emit_element(x, i, H_RDI, TLB_WRITE);
    store_element(x, i, H_RAX);
    advance(x, i, H_RDI);
}

static void one_lods(struct translation *x, const struct insn *i)
{
    emit_element(x, i, H_RSI, TLB_READ);
    load_element(x, i, H_RAX);
    advance(x, i, H_RSI);
}

bool translate_string(struct translation *x, const struct insn *i)
{
    const bool repeated = i->prefix & (PREFIX_REP | PREFIX_REPNE);
    const bool based = i->seg == SEG_FS || i->seg == SEG_GS;

    if (i->asize != 8 || based)
        return false;
    if (i->op != OP_MOVS && i->op != OP_STOS && (i->op != OP_LODS || repeated))
        return false;
    forward_only(x);
    if (repeated)
        check_count(x, i);
    if (i->op == OP_MOVS)
        repeated ? repeat_movs(x, i) : one_movs(x, i);
    else if (i->op == OP_STOS)
        repeated ? repeat_stos(x, i) : one_stos(x, i);
    else
        one_lods(x, i);
    return true;
}

/*
 * translate_flow.c - jumps, calls, returns: how one block leads to the next.
 */
#include "cpu/jit/translate_internal.h"

/*
 * Goes to r11, which has a linear address, by the jump cache (struct jit_jump); what `pop` says is
 * added to the stack pointer on the way. Where the cache does not know the address, r11 is lost. A
 * jump for each place, so that the host's predictor knows where each one goes. Returns the jump
 * that is taken then.
 */
static uint8_t *emit_lookup(struct translation *x, unsigned pop)
{
    struct emitter *e = &x->e;
    uint8_t *miss;

    emit_rmx(e, op1(4, 0x8d), H_R10, HOST_NONE, H_R11, 3, 0); /* lea r10d, [r11 * 8] */
    emit_alu_imm(e, 4, 4, H_R10, (JIT_JUMPS - 1) << 4);
    emit_env(e, op1(8, 0x33), H_R11, ENV(jump_key)); /* xor */
    emit_env_at(e, op1(8, 0x3b), H_R11, H_R10, ENV(jump) + offsetof(struct jit_jump, tag));
    miss = emit_jcc_hole(e, CC_NE);
    emit_env(e, op1(8, 0x33), H_R11, ENV(jump_key)); /* the address again */
    emit_alu_imm(e, 8, 4, H_R11, -4096);
    emit_store(e, H_R11, ENV(code_base));
    if (pop)
        emit_rmx(e, op1(8, 0x8d), H_R15, H_R15, HOST_NONE, 0, pop);
    emit_env_at(e, op1(4, 0xff), 4, H_R10, ENV(jump) + offsetof(struct jit_jump, code)); /* jmp */
    return miss;
}

/* A place that is not in this page. */
static void leave_page(struct translation *x, int64_t offset)
{
    struct emitter *e = &x->e;

    emit_load(e, H_R11, ENV(code_base));
    if (offset == (int32_t)offset) {
        emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, HOST_NONE, 0, offset);
    } else {
        emit_imm(e, H_R10, offset);
        emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, H_R10, 0, 0);
    }
    emit_fill_run(e, emit_lookup(x, 0), x->t->routines.lookup_missed);
}

/* Where a link leads as long as the block there has no code: the run loop, which is told the link.
 */
static void emit_unlinked(struct translation *x, struct jit_link *link)
{
    struct emitter *e = &x->e;

    emit_load(e, H_R11, ENV(code_base));
    emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, HOST_NONE, 0, link->target);
    emit_store(e, H_R11, ENV(rip));
    emit_imm(e, H_R11, (uintptr_t)link);
    emit_store(e, H_R11, ENV(exit_link));
    emit_jmp(e, x->t->routines.leave);
}

/* The link of a jump whose rel32 is at `jump` and leads here now. */
static struct jit_link *new_link(struct translation *x, uint8_t *jump, int64_t offset)
{
    struct jit_link *link = &x->code->link[x->code->links++];

    *link = (struct jit_link){.jump = jump, .target = (uint32_t)offset, .from = x->block};
    emit_fill(&x->e, jump);
    if (jump)
        memcpy(&link->unlinked, jump, 4);
    return link;
}

/* The rel32 of a jump is written whole while other vCPUs run: it must not cross an 8-byte border.
 */
static void align_jump(struct emitter *e, unsigned opcode_bytes)
{
    while (((uintptr_t)e->p + opcode_bytes) % 8 > 4)
        emit8(e, 0x90);
}

static bool in_page(int64_t offset)
{
    return offset >= 0 && offset <= 4095;
}

/* Leaves to an offset from the page's start: linked within the page, by the jump cache outside. */
static void leave_to(struct translation *x, int64_t offset)
{
    if (!in_page(offset)) {
        leave_page(x, offset);
        return;
    }
    align_jump(&x->e, 1);
    emit_unlinked(x, new_link(x, emit_jmp_hole(&x->e), offset));
}

/* The flags that whatever is at that offset wants. */
static uint16_t flags_wanted_at(struct translation *x, int64_t offset)
{
    if (!in_page(offset) || x->t->counted)
        return FLAGS_ARITH;
    return insn_flags_ahead(x->page, (unsigned)offset, x->width, x->features, &x->block->looked_at);
}

static int64_t behind(const struct insn *i)
{
    return i->page_offset + i->len;
}

void translate_fall_through(struct translation *x)
{
    if (flags_wanted_at(x, behind(current(x))))
        flags_save(x);
    leave_to(x, behind(current(x)));
}

/* Near branches have 64-bit operands in 64-bit code; a 66 prefix is the interpreter's affair. */
static bool is_plain(const struct insn *i)
{
    return i->size == 8;
}

static void branch(struct translation *x, unsigned cond, int64_t offset)
{
    const bool unsaved = x->flags_in_host && !x->flags_in_memory;

    align_jump(&x->e, 2);
    x->side[x->sides++] = (struct side_exit){
        .hole = emit_jcc_hole(&x->e, cond),
        .offset = offset,
        .save_flags = unsaved && flags_wanted_at(x, offset),
        .skipped = x->t->counted ? x->block->count - 1 - x->k : 0,
    };
}

void translate_side_exits(struct translation *x)
{
    for (unsigned n = 0; n < x->sides; n++) {
        const struct side_exit *s = &x->side[n];

        if (!s->save_flags && !s->skipped && in_page(s->offset)) {
            emit_unlinked(x, new_link(x, s->hole, s->offset)); /* the branch itself is linked */
            continue;
        }
        emit_fill(&x->e, s->hole);
        if (s->save_flags) {
            x->flags_in_host = true;
            x->flags_in_memory = false;
            flags_save(x);
        }
        counted_return(x, s->skipped);
        leave_to(x, s->offset);
    }
}

static bool jcc(struct translation *x, const struct insn *i)
{
    if (!is_plain(i))
        return false;
    flags_need(x);
    branch(x, i->cond, behind(i) + (int64_t)i->imm);
    if (x->k + 1 == x->block->count) {
        translate_fall_through(x);
        x->ended = true;
    }
    return true;
}

/* r11 := the target of JMP or CALL rm */
static bool indirect_target(struct translation *x, const struct insn *i)
{
    if (!i->mem) {
        if (in_memory(i->rm))
            emit_load(&x->e, H_R11, ENV_GPR(i->rm));
        else
            emit_mov(&x->e, H_R11, jit_host_register[i->rm]);
        return true;
    }
    if (!emit_address(x, i, true))
        return false;
    emit_access(x, TLB_READ, 8);
    emit_rm(&x->e, op1(8, 0x8b), H_R11, H_R11);
    return true;
}

/* Nothing has happened yet: the interpreter executes the instruction, and raises #GP where the
 * target is no address. */
static void execute_missed(struct translation *x, uint8_t *hole)
{
    add_slow(x, (struct slow_path){.kind = SLOW_EXECUTE, .hole = hole});
}

static bool jmp(struct translation *x, const struct insn *i)
{
    if (!is_plain(i) || (i->form != FORM_REL && i->mem && !address_emittable(i)))
        return false;
    if (i->form == FORM_REL) {
        if (flags_wanted_at(x, behind(i) + (int64_t)i->imm))
            flags_save(x);
        leave_to(x, behind(i) + (int64_t)i->imm);
    } else {
        flags_save(x);
        indirect_target(x, i);
        execute_missed(x, emit_lookup(x, 0));
    }
    x->ended = true;
    return true;
}

static void push_return_address(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    emit_rmx(e, op1(8, 0x8d), H_R11, H_R15, HOST_NONE, 0, -8);
    emit_access(x, TLB_WRITE, 8);
    emit_load(e, H_R10, ENV(code_base));
    emit_rmx(e, op1(8, 0x8d), H_R10, H_R10, HOST_NONE, 0, behind(i));
    emit_rm(e, op1(8, 0x89), H_R10, H_R11);
    emit_rmx(e, op1(8, 0x8d), H_R15, H_R15, HOST_NONE, 0, -8);
}

static bool call(struct translation *x, const struct insn *i)
{
    if (!is_plain(i) || (i->form != FORM_REL && i->mem && !address_emittable(i)))
        return false;
    flags_save(x);
    if (i->form == FORM_REL) {
        push_return_address(x, i);
        leave_to(x, behind(i) + (int64_t)i->imm);
    } else {
        indirect_target(x, i);
        emit_canonical_check(x);
        emit_store(&x->e, H_R11, ENV(scratch));
        push_return_address(x, i);
        emit_load(&x->e, H_R11, ENV(scratch));
        emit_fill_run(&x->e, emit_lookup(x, 0), x->t->routines.lookup_missed);
    }
    x->ended = true;
    return true;
}

static bool ret(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    if (!is_plain(i))
        return false;
    flags_save(x);
    emit_mov(e, H_R11, H_R15);
    emit_access(x, TLB_READ, 8);
    emit_rm(e, op1(8, 0x8b), H_R11, H_R11);
    execute_missed(x, emit_lookup(x, 8 + (i->form == FORM_IMM ? (uint16_t)i->imm : 0)));
    x->ended = true;
    return true;
}

bool translate_flow(struct translation *x, const struct insn *i)
{
    switch (i->op) {
    case OP_JCC:
        return jcc(x, i);
    case OP_JMP:
        return jmp(x, i);
    case OP_CALL:
        return call(x, i);
    case OP_RET:
        return ret(x, i);
    default:
        return false;
    }
}

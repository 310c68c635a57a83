/*
 * translate.c - a block as host code (translate.h): the walk over its instructions, and what stands
 * behind them.
 */
#include "cpu/jit/translate.h"

#include <assert.h>

#include "cpu/jit/translate_internal.h"

enum {
    CODE_SIZE = 96 << 20,
    DATA_SIZE = 32 << 20,
    BLOCK_CODE_MAX =
        32 << 10, /* far more than JIT_BLOCK_MAX instructions with their slow paths take */
    ROUTINES_MAX = 16 << 10,
};

int translator_new(struct translator **out, bool counted)
{
    struct translator *t = calloc(1, sizeof(*t));
    struct emitter e;
    int r;

    if (!t)
        return -ENOMEM;
    r = code_cache_new(&t->cache, CODE_SIZE, DATA_SIZE);
    if (r < 0) {
        translator_free(t);
        return r;
    }
    t->counted = counted;
    t->bmi2 = __builtin_cpu_supports("bmi2");
    code_cache_begin(&t->cache, &e, ROUTINES_MAX);
    jit_routines_emit(&t->routines, &e);
    assert(!e.full); /* our own routines: their size is known */
    code_cache_commit(&t->cache, &e);
    code_cache_keep(&t->cache);
    *out = t;
    return 0;
}

void translator_free(struct translator *t)
{
    if (!t)
        return;
    code_cache_free(&t->cache);
    free(t);
}

void translator_reset(struct translator *t)
{
    code_cache_reset(&t->cache);
    t->generation++;
}

/* ---- one instruction
 * --------------------------------------------------------------------------------------- */

static bool translate_native(struct translation *x, const struct insn *i)
{
    return translate_integer(x, i) || translate_stack(x, i) || translate_flow(x, i) ||
           translate_string(x, i) || translate_divide(x, i) || translate_system(x, i) ||
           (x->vectors && translate_vector(x, i)) || (x->x87 && translate_x87(x, i));
}

/* What may change the flow or the mode: nothing of this block is executed behind it. */
static bool ends_block(const struct translation *x)
{
    return x->k + 1 == x->block->count;
}

/* After these it has to be looked anew whether vector and x87 code may run natively. */
static bool changes_fpu(const struct insn *i)
{
    return i->op == OP_LDMXCSR || i->op == OP_FXRSTOR || i->op == OP_XRSTOR || i->op == OP_X87;
}

/* What comes after a call into C may need registers that it used. */
static bool more_fpu(const struct translation *x)
{
    for (unsigned k = x->k + 1; (x->vectors || x->x87) && k < x->block->count; k++)
        if (is_native_vector(&x->block->insn[k]) || is_native_x87(&x->block->insn[k]))
            return true;
    return false;
}

static void load_fpu(struct translation *x)
{
    emit_call(&x->e, x->x87 ? x->t->routines.x87_need : x->t->routines.fpu_need);
}

const struct insn *keep_instruction(struct translation *x)
{
    struct insn *i = code_cache_data(&x->t->cache, sizeof(*i));

    if (i)
        *i = *current(x);
    else
        x->e.full = true;
    return i;
}

static void translate_by_interpreter(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    flags_lose(x, flags_live_before(x));
    counted_note(x, x->k);
    emit_imm(e, H_R10, (uintptr_t)keep_instruction(x));
    if (ends_block(x) || changes_fpu(i)) {
        emit_jmp(e, x->t->routines.execute_end);
        x->ended = true;
        return;
    }
    emit_call(e, x->t->routines.execute);
    emit_rr(e, op1(4, 0x85), H_R11, H_R11);
    emit_jcc(e, CC_NE, x->t->routines.leave);
    x->flags_in_memory = true;
    x->flags_in_host = false;
    if (more_fpu(x))
        load_fpu(x);
}

/* ---- slow paths
 * -------------------------------------------------------------------------------------------- */

static unsigned log2_of(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* r11, the row's first byte, becomes the address of its first access; the jump is taken when the
 * row does not lie in one page. */
static uint8_t *emit_row_lead(struct translation *x, const struct slow_path *s)
{
    struct emitter *e = &x->e;
    uint8_t *across;

    emit_rr(e, op1(4, 0x8b), H_R10, H_R11);
    emit_alu_imm(e, 4, 4, H_R10, 4095);
    emit_alu_imm(e, 4, 7, H_R10, 4096 - (int)s->span);
    across = emit_jcc_hole(e, CC_A);
    emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, HOST_NONE, 0, (int32_t)s->lead);
    return across;
}

/* The other way round, where there is an address. */
static void emit_row_resume(struct translation *x, const struct slow_path *s)
{
    struct emitter *e = &x->e;
    uint8_t *none = emit_jcc_hole(e, CC_E);

    emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, HOST_NONE, 0, -(int32_t)s->lead);
    emit_jmp(e, s->resume);
    emit_fill(e, none);
}

static void emit_slow_path(struct translation *x, const struct slow_path *s)
{
    struct emitter *e = &x->e;
    const struct insn *i = &x->block->insn[s->insn];
    const unsigned behind = s->insn + QZ_MAX(s->row, 1u);
    const bool last = behind == x->block->count;
    const uint32_t table =
        ENV(tlb.entry) + (x->set * TLB_KINDS + s->access) * sizeof(struct tlb_entry[TLB_ENTRIES]);

    uint8_t *across;

    emit_fill(e, s->hole);
    if (s->kind == SLOW_FILL) {
        counted_note(x, s->insn);
        emit_env_at(e, op1(8, 0x33), H_R11, H_R10,
                    table + offsetof(struct tlb_entry, tag)); /* linear again */
        across = s->row ? emit_row_lead(x, s) : NULL;
        emit_imm(e, H_R10, i->page_offset);
        emit_call(e, x->t->routines.fill[s->access][log2_of(s->size)]);
        if (x->vectors || x->x87)
            load_fpu(x);
        if (s->apart)
            emit_imm(e, H_R10, 0);
        emit_rr(e, op1(8, 0x85), H_R11, H_R11);
        if (s->row)
            emit_row_resume(x, s);
        else
            emit_jcc(e, CC_NE, s->resume);
        if (across)
            emit_fill(e, across);
    }
    for (unsigned n = 0; n < QZ_MAX(s->row, 1u); n++) {
        counted_note(x, s->insn + n);
        emit_imm(e, H_R10, INSN_AT(i[n].page_offset, i[n].len));
        if (last && x->ended) {
            emit_jmp(e, x->t->routines.execute_at_end);
            return;
        }
        emit_call(e, x->t->routines.execute_at);
        emit_rr(e, op1(4, 0x85), H_R11, H_R11);
        emit_jcc(e, CC_NE, x->t->routines.leave);
    }
    if (x->vectors || x->x87)
        load_fpu(x);
    if (x->flags_in_host_at[behind])
        flags_load(e);
    emit_jmp(e, x->start[behind]);
}

/* ---- the block
 * --------------------------------------------------------------------------------------------- */

/* Somebody wants this vCPU: leave before anything of the block happened. */
static uint8_t *emit_attention_check(struct translation *x)
{
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0x83), 7, 0xff, 0xff, 0, ENV(attention));
    emit8(&x->e, 0);
    return emit_jcc_hole(&x->e, CC_NE);
}

/* Their registers in the host's from here on; or not at all, when one of their instructions has to
 * raise something. */
static uint8_t *emit_fpu_check(struct translation *x)
{
    uint8_t *hole;

    emit8(&x->e, 0x65); /* cmp byte, 0 */
    emit_rmx(&x->e, op1(4, 0x80), 7, 0xff, 0xff, 0, x->x87 ? ENV(x87_native) : ENV(vectors_native));
    emit8(&x->e, 0);
    hole = emit_jcc_hole(&x->e, CC_E);
    load_fpu(x);
    return hole;
}

static void emit_leave_at_start(struct translation *x)
{
    emit_load(&x->e, H_R11, ENV(code_base));
    emit_rmx(&x->e, op1(8, 0x8d), H_R11, H_R11, HOST_NONE, 0, x->block->insn[0].page_offset);
    emit_store(&x->e, H_R11, ENV(rip));
    emit_jmp(&x->e, x->t->routines.leave);
}

static void emit_attention_exit(struct translation *x, uint8_t *hole)
{
    emit_fill(&x->e, hole);
    emit_leave_at_start(x);
}

static void emit_interpret_exit(struct translation *x, uint8_t *hole)
{
    emit_fill(&x->e, hole);
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0xc6), 0, 0xff, 0xff, 0, ENV(interpret)); /* mov byte, 1 */
    emit8(&x->e, 1);
    emit_leave_at_start(x);
}

static void number_instructions(struct jit_block *b)
{
    unsigned at = b->gpa & 4095;

    for (unsigned k = 0; k < b->count; k++) {
        b->insn[k].page_offset = at;
        at += b->insn[k].len;
    }
}

static void emit_block(struct translation *x)
{
    struct jit_block *b = x->block;
    uint8_t *attention = emit_attention_check(x), *fpu = NULL, *budget;

    for (unsigned k = 0; k < b->count; k++) {
        x->vectors = x->vectors || is_native_vector(&b->insn[k]);
        x->x87 = x->x87 || is_native_x87(&b->insn[k]);
    }
    if (x->vectors || x->x87)
        fpu = emit_fpu_check(x);
    budget = counted_take(x);
    for (x->k = 0; x->k < b->count && !x->e.full && !x->ended; x->k++) {
        x->start[x->k] = emit_here(&x->e);
        x->flags_in_host_at[x->k] = x->flags_in_host;
        if (!translate_stack_row(x) && !translate_access_row(x) && !translate_native(x, current(x)))
            translate_by_interpreter(x, current(x));
    }
    x->start[b->count] = emit_here(&x->e);
    x->flags_in_host_at[b->count] = x->flags_in_host;
    x->k = b->count - 1;
    if (!x->ended)
        translate_fall_through(x);
    translate_side_exits(x);
    for (unsigned k = 0; k < x->slows; k++)
        emit_slow_path(x, &x->slow[k]);
    emit_attention_exit(x, attention);
    if (fpu)
        emit_interpret_exit(x, fpu);
    if (budget)
        emit_interpret_exit(x, budget);
}

static unsigned count_links(const struct jit_block *b)
{
    unsigned links = 2;

    for (unsigned k = 0; k < b->count; k++)
        links += b->insn[k].op == OP_JCC;
    return links;
}

bool translate_block(struct translator *t, struct jit_block *b, const uint8_t *page,
                     struct jit_cpu *cpu)
{
    struct translation x = {
        .t = t,
        .block = b,
        .page = page,
        .width = cpu->code_width,
        .features = cpu->features,
        .set = cpu->tlb.data_set,
        .flags_in_memory = true,
    };

    if (!code_cache_begin(&t->cache, &x.e, BLOCK_CODE_MAX))
        return false;
    x.code = code_cache_data(&t->cache, sizeof(*x.code) + count_links(b) * sizeof(x.code->link[0]));
    if (!x.code)
        return false;
    *x.code = (struct jit_code){.entry = NULL};
    number_instructions(b);
    b->looked_at = 0;
    insn_flags_live(b->insn, b->count, FLAGS_ARITH, x.live);
    if (t->counted) /* whoever looks between two instructions sees them */
        for (unsigned k = 0; k < b->count; k++)
            x.live[k] = FLAGS_ARITH;
    emit_block(&x);
    if (x.e.full)
        return false;
    x.code->to_run = x.e.to_run;
    x.code->entry = code_cache_commit(&t->cache, &x.e);
    b->code = x.code;
    return true;
}

/* ---- links
 * -------------------------------------------------------------------------------------------------
 */

static void write_jump(uint8_t *at, uint32_t rel)
{
    __atomic_store_n((uint32_t *)at, rel, __ATOMIC_RELEASE);
}

void translate_link(struct jit_link *link, struct jit_block *to)
{
    struct jit_code *code = to->code, *from = link->from->code;
    ptrdiff_t to_run;

    if (link->to || !code || !from)
        return;
    to_run = from->to_run;
    link->to = to;
    link->next = code->incoming;
    code->incoming = link;
    write_jump(link->jump, (uint32_t)(code->entry - (link->jump + 4 + to_run)));
}

static void unlink_one(struct jit_link *link)
{
    write_jump(link->jump, link->unlinked);
    link->to = NULL;
}

static void leave_incoming(struct jit_link *link)
{
    struct jit_link **p = &((struct jit_code *)link->to->code)->incoming;

    while (*p != link)
        p = &(*p)->next;
    *p = link->next;
}

void translate_forget(struct jit_block *b)
{
    struct jit_code *code = b->code;

    if (!code)
        return;
    for (struct jit_link *l = code->incoming; l; l = l->next)
        unlink_one(l);
    for (unsigned i = 0; i < code->links; i++)
        if (code->link[i].to) {
            leave_incoming(&code->link[i]);
            unlink_one(&code->link[i]);
        }
    code->incoming = NULL;
}

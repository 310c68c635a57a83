/* rig.c - see rig.h. */
#include "rig.h"

#include "cpu/jit/cpu.h"
#include "cpu/jit/vec.h"

static const uint8_t compared[] = {PAGE_DATA,  PAGE_DATA + 1,  PAGE_DATA + 2, PAGE_DATA + 3,
                                   PAGE_STACK, PAGE_STACK + 1, PAGE_SAVE};

/* ---- the three */

int rig_open(struct rig *r, const char *program, struct qz_error *err)
{
    int e;

    *r = (struct rig){.program = program, .memory_seed = ~0ull};
    if ((e = native_open(&r->native, program, err)) < 0 ||
        (e = guest_open(&r->interpreter, true, err)) < 0 ||
        (e = guest_open(&r->translator, false, err)) < 0) {
        rig_close(r);
        return e;
    }
    forms_find(&r->forms[0], CODE_32, guest_features(r->translator));
    forms_find(&r->forms[1], CODE_64, guest_features(r->translator));
    return 0;
}

void rig_close(struct rig *r)
{
    native_close(r->native);
    guest_close(r->interpreter);
    guest_close(r->translator);
    r->native = NULL;
    r->interpreter = r->translator = NULL;
}

/* ---- memory */

static uint8_t *native_page(struct rig *r, unsigned page)
{
    return native_window(r->native) + page * PAGE;
}

static uint8_t *page_of(struct rig *r, struct guest *g, unsigned page)
{
    return g ? guest_page(g, page) : native_page(r, page);
}

static void set_data(struct rig *r, struct guest *g)
{
    for (unsigned page = PAGE_DATA; page < PAGE_END; page++)
        if (page_kind(page) != PAGE_ABSENT)
            memcpy(page_of(r, g, page), r->memory + page * PAGE, PAGE);
}

/* INT3 wherever no code is. */
static void set_code(struct rig *r, struct guest *g, const struct sequence *s)
{
    const unsigned first = (s->rip >> 12 & 0xff) - PAGE_CODE, at = s->rip & (PAGE - 1);
    unsigned done = 0;

    for (unsigned n = 0; n < CODE_PAGES; n++)
        memset(page_of(r, g, PAGE_CODE + n), 0xcc, PAGE);
    for (unsigned page = PAGE_CODE + first; done < s->code_len; page++) {
        const unsigned from = done ? 0 : at, len = QZ_MIN(PAGE - from, s->code_len - done);

        memcpy(page_of(r, g, page) + from, s->code + done, len);
        done += len;
    }
    if (g)
        guest_code_written(g);
}

/* The pointers of x87 in saved states (window.h). */
static bool is_compared(unsigned page, unsigned at)
{
    static const struct {
        uint16_t from, to;
    } pointers[] = {
        {SAVE_FXSAVE + 6, SAVE_FXSAVE + 24},
        {SAVE_FXSAVE + 28, SAVE_FXSAVE + 32},
        {SAVE_FNSTENV + 6, SAVE_FNSTENV + 28},
        {SAVE_FNSAVE + 6, SAVE_FNSAVE + 28},
    };

    for (unsigned n = 0; page == PAGE_SAVE && n < QZ_ARRAY_LEN(pointers); n++)
        if (at >= pointers[n].from && at < pointers[n].to)
            return false;
    return true;
}

static bool memory_differs(struct rig *r, struct guest *g, char *text, size_t len)
{
    for (unsigned n = 0; n < sizeof(compared); n++) {
        const unsigned page = compared[n];
        const uint8_t *a = native_page(r, page), *b = guest_page(g, page);

        if (memcmp(a, b, PAGE) == 0)
            continue;
        for (unsigned at = 0; at < PAGE; at++)
            if (a[at] != b[at] && is_compared(page, at)) {
                snprintf(text, len, " memory at page %u + %x: %02x not %02x", page, at, b[at],
                         a[at]);
                return true;
            }
    }
    return false;
}

/* ---- a run on each */

/*
 * A branch into the middle of an instruction may find a system call there, for which the kernel
 * ends the child: it is NOT_COMPARED, and the next sequence has another child.
 */
static int revive(struct rig *r, struct qz_error *err)
{
    native_close(r->native);
    r->native = NULL;
    r->memory_seed = ~0ull;
    r->lost++;
    return native_open(&r->native, r->program, err);
}

/* 1: there is no outcome. */
static int run_native(struct rig *r, const struct sequence *s, struct outcome *out,
                      struct qz_error *err)
{
    int e;

    set_data(r, NULL);
    e = native_run(r->native, &s->in, out);
    if (e == -ECHILD)
        return revive(r, err) < 0 ? -ECHILD : 1;
    if (e < 0)
        return qz_fail(err, e, "the child on the host's CPU does not answer: %s", strerror(-e));
    return 0;
}

static uint16_t undefined_at(const struct sequence *s, const struct comparison *c)
{
    unsigned k = sequence_item_at(s, c->native.regs.rip);
    uint16_t any = 0;

    if (c->native.regs.rip == s->rip + s->code_len)
        k = s->count;
    else if (k == s->count) /* somewhere else */
        k = s->count + 1;
    if (k <= s->count)
        return c->undefined[k];
    for (k = 0; k <= s->count; k++)
        any |= c->undefined[k];
    return any;
}

/*
 * Translated code does not compute flags that nobody reads, so an exception on the way shows old
 * ones; the guest finds none of them when it goes on. Unless rig->precise, they do not count.
 */
static uint16_t dead_at(const struct rig *r, const struct sequence *s, const struct comparison *c)
{
    return sequence_dead_flags(s, &r->forms[s->width == CODE_64], c->native.regs.rip);
}

static struct insn last_of(const struct rig *r, const struct sequence *s, const struct outcome *o)
{
    const unsigned k = sequence_item_at(s, o->regs.rip);
    struct insn i = {.op = OP_NOP};

    if (k < s->count)
        insn_decode(&i, s->item[k].bytes, s->item[k].len, s->width,
                    r->forms[s->width == CODE_64].features);
    return i;
}

/*
 * Unaligned vectors that need no alignment, and the place where ENTER will have rsp: #AC or not is
 * each processor's own affair. So is where a far call into 32-bit code pushes (AMD's cut rsp to 32
 * bits before), how much of POPA is done when its stack ends, and of MASKMOVx when it faults.
 */
static bool is_vendors_affair(const struct rig *r, const struct sequence *s,
                              const struct outcome *o)
{
    const struct insn last = last_of(r, s, o);
    const unsigned op = last.op;
    const bool whole_vector = op == OP_VEC && vec_ops[last.vec].mem_size == 16;

    if (o->regs.rip >> 12 == 0xffffffffff600) /* Linux has a page there (vsyscall) */
        return true;
    if (op == OP_VEC && (vec_ops[last.vec].implicit & VEC_IMPLICIT_RDI))
        return true;
    return (o->vector == VECTOR_AC && (whole_vector || op == OP_ENTER)) ||
           (o->vector == VECTOR_PF && op == OP_CALL_FAR && s->width == CODE_64) || op == OP_POPA;
}

static bool guest_differs(struct rig *r, const struct sequence *s, struct guest *g,
                          struct comparison *c)
{
    const bool lazy = g == r->translator && !r->precise;
    const uint16_t ignored = undefined_at(s, c) | (lazy ? dead_at(r, s, c) : 0);
    const struct insn last = last_of(r, s, &c->native);
    int e;

    set_data(r, g);
    e = guest_run(g, &s->in, &c->other);
    if (e < 0) {
        snprintf(c->what, sizeof(c->what), " the machine stopped: %s", strerror(-e));
        return true;
    }
    return outcome_difference(&c->native, &c->other, &last, s->width, ignored, c->what,
                              sizeof(c->what)) ||
           memory_differs(r, g, c->what, sizeof(c->what));
}

/* A run may have changed the page that it may write to. */
static void restore_code(struct rig *r, struct guest *g)
{
    const uint8_t *before = r->memory + PAGE_MODIFIED * PAGE;

    if (memcmp(guest_page(g, PAGE_MODIFIED), before, PAGE) == 0)
        return;
    memcpy(guest_page(g, PAGE_MODIFIED), before, PAGE);
    guest_code_written(g);
}

static bool is_meant_to_change(const struct sequence *s, unsigned at)
{
    for (unsigned k = 0; s->modifies && k < s->count; k++) {
        const struct item *item = &s->item[k];

        if (item->rip && item->target != NO_ITEM &&
            at == s->item[item->target].at + s->item[item->target].len - 1u)
            return true;
    }
    return false;
}

/*
 * A store that went astray into the sequence itself: what its instructions are then, nobody has
 * looked at, and when a repeated string instruction notices that it is gone is undefined.
 */
static bool is_spoilt(struct rig *r, const struct sequence *s)
{
    const uint8_t *code = native_page(r, PAGE_CODE) + (s->rip & 0xffff) - PAGE_CODE * PAGE;

    for (unsigned at = 0; at < s->code_len; at++)
        if (code[at] != s->code[at] && !is_meant_to_change(s, at))
            return true;
    return false;
}

static bool guests_differ(struct rig *r, const struct sequence *s, struct comparison *c)
{
    set_code(r, r->interpreter, s);
    snprintf(c->who, sizeof(c->who), "interpreter");
    if (guest_differs(r, s, r->interpreter, c))
        return true;
    set_code(r, r->translator, s);
    for (unsigned n = 1; n <= TRANSLATED_RUNS; n++) {
        snprintf(c->who, sizeof(c->who), "translator, run %u", n);
        restore_code(r, r->translator);
        if (guest_differs(r, s, r->translator, c))
            return true;
    }
    return false;
}

/* A processor that does not agree with itself proves nothing. */
static int is_certain(struct rig *r, const struct sequence *s, const struct comparison *c,
                      bool *certain, struct qz_error *err)
{
    const struct insn last = {.op = OP_NOP};
    struct outcome again;
    char text[512];
    int e;

    set_code(r, NULL, s);
    e = run_native(r, s, &again, err);
    *certain =
        e == 0 && !outcome_difference(&c->native, &again, &last, s->width, 0, text, sizeof(text));
    return e;
}

int rig_compare(struct rig *r, struct sequence *s, struct comparison *c, enum verdict *verdict,
                struct qz_error *err)
{
    bool certain;
    int e;

    if (r->memory_seed != s->seed >> 8) {
        r->memory_seed = s->seed >> 8;
        sequence_memory(r->memory, r->memory_seed);
        memcpy(native_page(r, PAGE_CONST), r->memory + PAGE_CONST * PAGE, PAGE);
    }
    sequence_place(s);
    set_code(r, NULL, s);
    memcpy(r->memory + PAGE_MODIFIED * PAGE, native_page(r, PAGE_MODIFIED), PAGE);
    *verdict = NOT_COMPARED;
    e = run_native(r, s, &c->native, err);
    if (e != 0)
        return QZ_MIN(e, 0);
    *verdict =
        c->native.vector == VECTOR_ENDLESS || is_vendors_affair(r, s, &c->native) || is_spoilt(r, s)
            ? NOT_COMPARED
        : guests_differ(r, s, c) ? DIFFERENT
                                 : SAME;
    if (*verdict != DIFFERENT)
        return 0;
    e = is_certain(r, s, c, &certain, err);
    if (!certain)
        *verdict = NOT_COMPARED;
    return QZ_MIN(e, 0);
}

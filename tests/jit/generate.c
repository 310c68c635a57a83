/*
 * generate.c - random sequences: units of instructions one after the other.
 *
 * A unit is one instruction of a random form with what makes it worth executing: pointers and
 * counts before string instructions, a counter before branches that go back, an address before
 * indirect ones. Branches lead to the beginning of units.
 */
#include "sequence.h"

#include "cpu/jit/vec.h"

enum { UNITS_MAX = 24 };

struct generator {
    struct sequence *s;
    const struct forms *forms;
    struct random random;
    struct encoder encoder;
    bool begin;   /* the next item begins a unit */
    int modifier; /* an item that wants something to modify, NO_ITEM: none */
};

static bool percent(struct generator *g, unsigned p)
{
    return random_percent(&g->random, p);
}

static unsigned below(struct generator *g, unsigned n)
{
    return random_below(&g->random, n);
}

/* ---- units */

static struct item *next_item(struct generator *g)
{
    struct item *item = &g->s->item[g->s->count++];

    item->begins = g->begin;
    g->begin = false;
    return item;
}

static void append(struct generator *g, struct item item)
{
    struct item *to;

    if (g->s->count >= ITEMS_MAX - 1)
        return;
    encode_forget(&g->encoder, &item);
    to = next_item(g);
    item.begins = to->begins;
    *to = item;
}

static void append_mov(struct generator *g, unsigned reg, uint64_t value)
{
    struct item item;

    encode_mov(&g->encoder, reg, value, &item);
    item.begins = g->begin;
    g->begin = false;
    if (g->s->count < ITEMS_MAX - 1)
        g->s->item[g->s->count++] = item;
}

static void append_bytes(struct generator *g, const void *bytes, unsigned len)
{
    struct item item = {.form = NO_FORM, .target = NO_ITEM, .len = (uint8_t)len};

    memcpy(item.bytes, bytes, len);
    append(g, item);
}

/* mov reg, address of a unit; which, is decided at the end. */
static void append_label(struct generator *g, unsigned reg)
{
    const bool wide = g->forms->width == CODE_64;
    struct item item = {.form = NO_FORM, .target = NO_ITEM, .label = wide ? 8 : 4};

    if (wide)
        item.bytes[item.len++] = 0x48;
    item.bytes[item.len++] = (uint8_t)(0xb8 | reg);
    item.len += item.label;
    append(g, item);
    g->encoder.is_known &= (uint16_t) ~(1u << reg);
}

/* sub dword [count], 1; js end: nothing goes back more often than that. */
static void append_guard(struct generator *g)
{
    const uint32_t counter = WINDOW + PAGE_COUNT * PAGE;
    uint8_t sub[8] = {0x83, 0x2c, 0x25, 0, 0, 0, 0, 1};
    struct item leave = {.form = NO_FORM, .target = INT16_MAX, .rel = 4, .len = 6};

    memcpy(sub + 3, &counter, 4);
    if (g->forms->width != CODE_64) {
        memmove(sub + 2, sub + 3, 5);
        sub[1] = 0x2d;
    }
    append_bytes(g, sub, g->forms->width == CODE_64 ? 8 : 7);
    memcpy(leave.bytes, "\x0f\x88", 2);
    append(g, leave);
}

static void before_string(struct generator *g)
{
    struct encoder *e = &g->encoder;

    if (percent(g, 85))
        append_mov(g, RDI, encode_target(e, 8, false));
    if (percent(g, 85))
        append_mov(g, RSI, encode_target(e, 8, false));
    if (percent(g, 90))
        append_mov(g, RCX, below(g, 300) >> below(g, 9));
}

/* Shifts by CL are defined where the count is known. */
static bool before_shift(struct generator *g, const struct insn *i, struct item *item)
{
    if (i->form != FORM_RM_CL && i->form != FORM_RM_REG_CL)
        return true;
    if ((i->op == OP_SHLD || i->op == OP_SHRD) && i->size == 2)
        return false;
    if (percent(g, 40))
        return true;
    item->count = (uint8_t)below(g, 70);
    append_mov(g, RCX, item->count);
    item->count_known = true;
    return true;
}

static void before_indirect(struct generator *g, const struct insn *i)
{
    const unsigned reg = below(g, 4);

    if (i->op == OP_RET && percent(g, 60)) {
        append_label(g, reg);
        append_bytes(g, &(uint8_t){(uint8_t)(0x50 | reg)}, 1);
    } else if (i->form == FORM_RM && !i->mem && i->rm < 8 && i->rm != RSP && percent(g, 70)) {
        append_label(g, i->rm);
    }
}

/* Saved states hold addresses that nobody compares: they have places of their own. */
static int save_place(const struct form *f)
{
    switch (f->op) {
    case OP_FXSAVE:
        return SAVE_FXSAVE;
    case OP_FXRSTOR:
        return SAVE_FXRSTOR;
    case OP_LDMXCSR:
        return SAVE_MXCSR;
    case OP_X87:
        if (!f->mem)
            return -1;
        if (f->opcode == 0xd9 && f->reg >= 4 && f->reg <= 6)
            return f->reg == 4 ? SAVE_FLDENV : f->reg == 5 ? SAVE_FCW : SAVE_FNSTENV;
        if (f->opcode == 0xdd && (f->reg == 4 || f->reg == 6))
            return f->reg == 4 ? SAVE_FRSTOR : SAVE_FNSAVE;
        return -1;
    default:
        return -1;
    }
}

/*
 * What must be at a certain place, or must not fault because processors fault differently: MASKMOVx
 * (AMD's have left x87 then already, and name another byte), SHA with an unaligned operand (AMD's
 * do not mind).
 */
static bool place_of(struct generator *g, const struct form *f, uint64_t *at)
{
    const struct vec_op *v = f->op == OP_VEC ? &vec_ops[f->vec] : NULL;
    int place = save_place(f);

    *at = g->encoder.window + PAGE_DATA * PAGE + below(g, DATA_PAGES * PAGE / 16) * 16;
    if (v && ((v->feature == CPU_SHA && f->mem) || (v->implicit & VEC_IMPLICIT_RDI)))
        return true;
    if (place == SAVE_MXCSR)
        place += 4 * (int)below(g, 16);
    else if (place == SAVE_FCW)
        place += 2 * (int)below(g, 16);
    *at = g->encoder.window + PAGE_SAVE * PAGE + (unsigned)place;
    return place >= 0;
}

/* The operand is [rdi], by ModRM or by nature; rdi is made to point there. */
static void append_placed(struct generator *g, const struct form *f, unsigned form, uint64_t at)
{
    const unsigned reg = f->reg >= 0 ? (unsigned)f->reg : below(g, 8);
    struct item item = {.form = (int16_t)form, .target = NO_ITEM};

    append_mov(g, RDI, at);
    if (f->prefix)
        item.bytes[item.len++] = f->prefix;
    if (g->forms->width == CODE_64 && percent(g, 40))
        item.bytes[item.len++] = 0x48;
    if (f->map)
        item.bytes[item.len++] = 0x0f;
    if (f->map > 1)
        item.bytes[item.len++] = f->map == 2 ? 0x38 : 0x3a;
    item.bytes[item.len++] = f->opcode;
    item.bytes[item.len++] = (uint8_t)(reg << 3 | (f->mem ? RDI : 0xc0 | below(g, 8)));
    if (f->map == 3)
        item.bytes[item.len++] = (uint8_t)below(g, 256);
    append(g, item);
    append_mov(g, RDI, encode_target(&g->encoder, 8, true)); /* nobody else reads there */
}

/* The bit is up to 2^63 bits away: rather near. */
static void before_bit(struct generator *g, const struct insn *i)
{
    if (i->mem && i->form == FORM_RM_REG && i->reg != i->base && i->reg != i->index &&
        i->reg != RSP && percent(g, 80)) {
        const uint16_t known = g->encoder.is_known;

        append_mov(g, i->reg, (uint64_t)below(g, 2048) - 1024);
        g->encoder.is_known = known;
    }
}

/*
 * movb $n, (last byte of an immediate); more units; op $immediate, %reg. The instructions stay what
 * they are, so that what is known of their flags stays true.
 */
static void append_modifier(struct generator *g)
{
    uint8_t store[7] = {0xc6, 0x05, 0, 0, 0, 0, (uint8_t)below(g, 256)};

    g->begin = true;
    g->modifier = (int)g->s->count;
    append_bytes(g, store, sizeof(store));
    g->s->item[g->modifier].rip = 2;
}

static void append_modified(struct generator *g)
{
    static const uint8_t digits[] = {0, 1, 4, 5, 6, 7}; /* what reads no flags is not replaced */
    const unsigned digit = digits[below(g, sizeof(digits))];
    uint8_t alu[6] = {0x81, (uint8_t)(0xc0 | digit << 3 | below(g, 3))};
    const uint32_t immediate = (uint32_t)random_value(&g->random);

    memcpy(alu + 2, &immediate, 4);
    g->begin = true;
    g->s->item[g->modifier].target = (int16_t)g->s->count;
    append_bytes(g, alu, sizeof(alu));
    g->modifier = NO_ITEM;
}

/*
 * Instructions one after the other that access [base + displacement], as compiled code does, with
 * an address that now and then is near a page's end.
 */
static void append_row(struct generator *g)
{
    static const uint8_t member[][3] = {
        /* REX allowed, map 0f, opcode */
        {1, 0, 0x8b}, {1, 0, 0x89}, {1, 0, 0x03}, {1, 0, 0x01}, {1, 0, 0x3b},
        {1, 0, 0x11}, {0, 0, 0x88}, {0, 0, 0x8a}, {1, 1, 0xb6}, {1, 1, 0xbf},
        {0, 1, 0x10}, {0, 1, 0x11}, {0, 1, 0x28}, {0, 1, 0x29}, {0, 1, 0x57},
    };
    static const uint8_t bases[] = {RAX, RCX, RDX, RBX, RBP, RSI, RDI};
    const unsigned base = bases[below(g, sizeof(bases))], count = 2 + below(g, 8);

    g->begin = true;
    append_mov(g, base, encode_target(&g->encoder, 64, false));
    for (unsigned n = 0; n < count; n++) {
        const uint8_t *m = member[below(g, QZ_ARRAY_LEN(member))];
        const unsigned reg = bases[below(g, sizeof(bases))];
        const bool memory = percent(g, 75);
        const int32_t disp = percent(g, 90) ? (int32_t)below(g, 128) - 32 : (int32_t)below(g, 4096);
        uint8_t bytes[10];
        unsigned len = 0;

        if (m[0] && percent(g, 50))
            bytes[len++] = 0x48;
        if (m[1])
            bytes[len++] = 0x0f;
        bytes[len++] = m[2];
        bytes[len++] = (uint8_t)((memory ? 0x80 : 0xc0) | reg << 3 | base);
        if (memory) {
            const int32_t at = m[1] && percent(g, 80) ? disp & ~15 : disp;

            memcpy(bytes + len, &at, 4);
            len += 4;
        }
        if (percent(g, 10))
            g->begin = true; /* somebody may branch here */
        append_bytes(g, bytes, len);
        g->encoder.is_known &= (uint16_t) ~(1u << reg | (memory ? 0u : 1u << base));
    }
}

static unsigned draw_form(struct generator *g)
{
    static const uint8_t share[CLASS_COUNT] = {
        [CLASS_INTEGER] = 48, [CLASS_FLOW] = 10, [CLASS_STRING] = 4, [CLASS_STACK] = 8,
        [CLASS_VECTOR] = 18,  [CLASS_X87] = 10,  [CLASS_SYSTEM] = 2,
    };
    unsigned at = below(g, 100), class = 0;

    while (at >= share[class])
        at -= share[class ++];
    return g->forms->member[class][below(g, g->forms->of_class[class])];
}

static void append_unit(struct generator *g)
{
    const unsigned form = draw_form(g);
    const struct form *f = &g->forms->form[form];
    struct item item;
    struct insn i;
    uint64_t at;

    if (g->forms->width == CODE_64 && percent(g, 6)) {
        append_row(g);
        return;
    }
    g->begin = true;
    if (place_of(g, f, &at)) {
        append_placed(g, f, form, at);
        return;
    }
    for (unsigned tries = 0; !encode_form(&g->encoder, form, &item); tries++)
        if (tries == 20)
            return;
    insn_decode(&i, item.bytes, item.len, g->forms->width, g->forms->features);
    if (f->class == CLASS_STRING)
        before_string(g);
    if (i.op >= OP_BT && i.op <= OP_BTC)
        before_bit(g, &i);
    if (i.op >= OP_ROL && i.op <= OP_SHRD && !before_shift(g, &i, &item))
        return;
    if (i.op == OP_JMP || i.op == OP_CALL || i.op == OP_RET)
        before_indirect(g, &i);
    if (item.rel && percent(g, 25)) {
        append_guard(g);
        item.target = -2; /* back */
    }
    append(g, item);
}

/* A unit's beginning before or behind item k. */
static int16_t draw_target(struct generator *g, unsigned k, bool back)
{
    const struct sequence *s = g->s;
    const unsigned from = back ? 0 : k + 1, to = back ? k : s->count;
    unsigned at = from + below(g, to - from);

    while (at < s->count - 1 && !s->item[at].begins)
        at++;
    return (int16_t)at;
}

static void resolve(struct generator *g)
{
    struct sequence *s = g->s;

    for (unsigned k = 0; k + 1 < s->count; k++) {
        struct item *item = &s->item[k];

        if (item->target == INT16_MAX)
            item->target = (int16_t)(s->count - 1);
        else if ((item->rel || item->label) && item->target < 0)
            item->target = draw_target(g, k, item->target == -2);
    }
}

/* An indirect jump to an address that other sequences jumped to as well, when other code was there.
 */
static void begin_where_others_did(struct generator *g)
{
    append_label(g, RAX);
    g->s->item[0].target = 2;
    append_bytes(g, "\xff\xe0", 2);
    g->s->rip = g->encoder.window + PAGE_CODE * PAGE;
}

void sequence_generate(struct sequence *s, const struct forms *forms, uint64_t seed)
{
    struct generator g = {
        .s = s, .forms = forms, .random = {seed}, .begin = true, .modifier = NO_ITEM};
    const bool high = forms->width == CODE_64 && random_percent(&g.random, 50);
    unsigned units;

    s->seed = seed;
    s->width = forms->width;
    s->count = 0;
    g.encoder = (struct encoder){
        .random = &g.random, .forms = forms, .window = high ? WINDOW_HIGH : WINDOW};
    sequence_registers(&s->in, &g.encoder);
    s->rip = g.encoder.window + PAGE_CODE * PAGE + below(&g, 2 * PAGE);
    s->modifies = forms->width == CODE_64 && percent(&g, 4);
    if (s->modifies)
        s->rip = g.encoder.window + PAGE_MODIFIED * PAGE + below(&g, 2048);
    else if (percent(&g, 5))
        begin_where_others_did(&g);
    units = 1 + below(&g, UNITS_MAX);
    for (unsigned n = 0; n < units && g.s->count < ITEMS_MAX - 20; n++) {
        if (s->modifies && g.modifier == NO_ITEM && percent(&g, 25))
            append_modifier(&g);
        append_unit(&g);
        if (g.modifier != NO_ITEM && (n + 1 == units || percent(&g, 50)))
            append_modified(&g);
    }
    if (g.modifier != NO_ITEM)
        append_modified(&g);
    g.begin = true;
    append_bytes(&g, "\xcc", 1);
    resolve(&g);
    s->in.rip = s->rip;
}

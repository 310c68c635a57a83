/*
 * state.c - the registers and the memory that a sequence begins with (sequence.h).
 */
#include "sequence.h"

enum { LOOPS_MAX = 6 };

/* Values that x87 treats differently each: SDM vol 1 table 8-3. */
static void draw_float80(struct random *r, uint8_t *to)
{
    const uint64_t fraction = random_value(r);
    uint16_t exponent = (uint16_t)(0x3fff + (int)random_below(r, 80) - 40);

    switch (random_below(r, 8)) {
    case 0:
        exponent = 0;
        break;
    case 1:
        exponent = 0x7fff;
        break;
    case 2:
        exponent = (uint16_t)random_below(r, 0x8000);
        break;
    }
    exponent |= (uint16_t)(random_below(r, 2) << 15);
    memcpy(to, &fraction, 8);
    if (random_percent(r, 80))
        to[7] |= 0x80; /* normal */
    memcpy(to + 8, &exponent, 2);
}

static float draw_float(struct random *r)
{
    static const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, 3e38f, 1e-40f, 2147483648.0f};

    return random_percent(r, 50) ? special[random_below(r, QZ_ARRAY_LEN(special))]
                                 : (float)(int32_t)random_next(r) / 65536;
}

static void draw_vector(struct random *r, uint8_t *to)
{
    const unsigned kind = random_below(r, 3);

    for (unsigned n = 0; n < 2; n++) {
        const double d = (double)draw_float(r);
        const float f[2] = {draw_float(r), draw_float(r)};
        const uint64_t v = random_value(r);

        memcpy(to + 8 * n, kind == 0 ? (const void *)&d : kind == 1 ? (const void *)f : &v, 8);
    }
}

static void draw_fx(struct random *r, uint8_t *fx)
{
    uint16_t fcw = 0x37f, fsw = (uint16_t)(random_below(r, 8) << 11);
    uint32_t mxcsr = 0x1f80;

    if (random_percent(r, 30))
        fcw = (uint16_t)((random_next(r) & 0xf3f) | 0x40);
    if (random_percent(r, 20))
        fsw |= (uint16_t)(random_next(r) & 0x477f);
    if (random_percent(r, 25))
        mxcsr = (uint32_t)random_next(r) & 0xffff;
    else if (random_percent(r, 30))
        mxcsr |= (uint32_t)random_next(r) & 0xe07f; /* rounding, sticky flags */
    /* ES and B sum up what is unmasked (SDM vol 1 §8.1.3.3). */
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    qz_store_le16(fx, fcw);
    qz_store_le16(fx + 2, fsw);
    fx[4] = (uint8_t)(random_percent(r, 50) ? 0xff : random_next(r));
    qz_store_le32(fx + 24, mxcsr);
    for (unsigned n = 0; n < 8; n++)
        draw_float80(r, fx + 32 + 16 * n);
    for (unsigned n = 0; n < 16; n++)
        draw_vector(r, fx + 160 + 16 * n);
}

void sequence_registers(struct registers *in, struct encoder *e)
{
    struct random *r = e->random;
    const bool wide = e->forms->width == CODE_64;

    *in = (struct registers){.rflags = 0x202 | (random_next(r) & 0x8d5),
                             .cs = wide ? SELECTOR_64 : SELECTOR_32,
                             .ss = SELECTOR_DATA,
                             .ds = SELECTOR_DATA,
                             .es = SELECTOR_DATA};
    for (unsigned n = 0; n < 16; n++) {
        if (random_percent(r, 55))
            in->gpr[n] = encode_target(e, 8, true);
        else if (random_percent(r, 50))
            in->gpr[n] = random_below(r, 64);
        else
            in->gpr[n] = random_value(r);
        if (!wide) /* r8 to r15 are out of reach: the same everywhere */
            in->gpr[n] = n < 8 ? (uint32_t)in->gpr[n] : 0;
    }
    in->gpr[RSP] = e->window + PAGE_STACK * PAGE + PAGE + (random_below(r, 512) & ~7u);
    if (random_percent(r, 5))
        in->gpr[RSP] = e->window + PAGE_STACK * PAGE + random_below(r, 64);
    in->fs_base = e->fs_base = e->window + PAGE_DATA * PAGE + random_below(r, PAGE);
    in->gs_base = e->gs_base = random_percent(r, 50) ? random_below(r, 4096) : in->fs_base + PAGE;
    if (random_percent(r, 6))
        in->rflags |= 0x400; /* DF */
    if (random_percent(r, 6))
        in->rflags |= 0x40000; /* AC */
    if (random_percent(r, 1))
        in->rflags |= 0x100; /* TF */
    memcpy(e->known, in->gpr, sizeof(e->known));
    e->is_known = wide ? 0xffff : 0xff;
    draw_fx(r, in->fx);
}

void sequence_memory(uint8_t *window, uint64_t seed)
{
    struct random r = {seed};
    uint8_t *save = window + PAGE_SAVE * PAGE;

    memset(window, 0, PAGE_END * PAGE);
    for (unsigned page = PAGE_DATA; page < PAGE_STACK + STACK_PAGES; page++)
        for (unsigned at = 0; at < PAGE && page_kind(page) != PAGE_ABSENT; at += 16)
            if (random_percent(&r, 10))
                draw_float80(&r, window + page * PAGE + at);
            else
                draw_vector(&r, window + page * PAGE + at);
    for (unsigned n = 0; n < 16; n++) {
        qz_store_le32(save + SAVE_MXCSR + 4 * n,
                      (uint32_t)random_next(&r) & (n < 14 ? 0xffff : 0x1ffff));
        qz_store_le16(save + SAVE_FCW + 2 * n, (uint16_t)(random_next(&r) & 0xf7f));
    }
    qz_store_le16(save + SAVE_FXRSTOR, 0x37f);
    qz_store_le32(save + SAVE_FXRSTOR + 24, 0x1f80);
    for (unsigned n = 0; n < 24; n++)
        draw_vector(&r, save + SAVE_FXRSTOR + 32 + 16 * n);
    for (unsigned n = 0; n < 28; n += 4) {
        qz_store_le32(save + SAVE_FLDENV + n, n < 12 ? (uint32_t)random_next(&r) & 0x3f7f : 0);
        qz_store_le32(save + SAVE_FRSTOR + n, n < 12 ? (uint32_t)random_next(&r) & 0x3f7f : 0);
    }
    for (unsigned n = 0; n < 8; n++)
        draw_float80(&r, save + SAVE_FRSTOR + 28 + 10 * n);
    qz_store_le32(window + PAGE_COUNT * PAGE, 1 + random_below(&r, LOOPS_MAX));
}

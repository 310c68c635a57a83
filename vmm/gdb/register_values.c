/*
 * register_values.c - what each of GDB's registers is in struct vcpu_state (registers.h).
 *
 * x87 and SSE registers lie in the legacy region of the XSAVE area, in FXSAVE64's layout (SDM vol 1
 * table 10-2). A component that XSTATE_BV leaves out is in its initial configuration, whatever its
 * bytes are (§13.6).
 */
#include "gdb/registers_internal.h"

enum {
    FX_FCW = 0,
    FX_FSW = 2,
    FX_FTW = 4,
    FX_FOP = 6,
    FX_FIP = 8,
    FX_FDP = 16,
    FX_MXCSR = 24,
    FX_ST = 32,
    FX_XMM = 160,
    FX_END = 416,
    XSTATE_BV = 512,
    XSTATE_X87 = 1,
    XSTATE_SSE = 2,
    FCW_INITIAL = 0x37f,
    MXCSR_INITIAL = 0x1f80,
    MXCSR_VALID = 0xffff,
};

/* What program code can change in RFLAGS by itself (SDM vol 1 §3.4.3); not VM, VIF, VIP. */
#define FLAGS_WRITABLE 0x257fd5ull
#define FLAGS_FIXED    2ull

#define MSR_KERNEL_GS_BASE 0xc0000102

/* ---- x87 and SSE -------------------------------------------------------------------------------
 */

static bool has_component(const struct vcpu_state *s, unsigned component)
{
    return s->xsave_size >= XSTATE_BV + 8 && (qz_load_le64(s->xsave + XSTATE_BV) & component);
}

/* Makes the component's bytes mean something, so that one of its registers can be changed. */
static void use_component(struct vcpu_state *s, unsigned component)
{
    if (has_component(s, component))
        return;
    if (component == XSTATE_X87) {
        memset(s->xsave, 0, FX_MXCSR);
        memset(s->xsave + FX_ST, 0, FX_XMM - FX_ST);
        qz_store_le16(s->xsave + FX_FCW, FCW_INITIAL);
    } else {
        memset(s->xsave + FX_XMM, 0, FX_END - FX_XMM);
    }
    qz_store_le64(s->xsave + XSTATE_BV, qz_load_le64(s->xsave + XSTATE_BV) | component);
}

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

/* SDM vol 1 §8.1.7: what FSTENV would have stored for this register. */
static unsigned tag_of(const uint8_t st[10])
{
    const uint64_t fraction = qz_load_le64(st);
    const unsigned exponent = qz_load_le16(st + 8) & 0x7fff;

    if (exponent == 0)
        return fraction == 0 ? TAG_ZERO : TAG_SPECIAL;
    return exponent == 0x7fff || !(fraction >> 63) ? TAG_SPECIAL : TAG_VALID;
}

static unsigned tag_word(const uint8_t *fx)
{
    const unsigned top = qz_load_le16(fx + FX_FSW) >> 11 & 7;
    unsigned word = 0;

    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = fx + FX_ST + 16 * ((physical - top) & 7);
        const bool used = fx[FX_FTW] >> physical & 1;

        word |= (used ? tag_of(st) : (unsigned)TAG_EMPTY) << (2 * physical);
    }
    return word;
}

static uint32_t x87_get(const struct vcpu_state *s, unsigned index)
{
    static const uint8_t initial[FX_XMM] = {FCW_INITIAL & 0xff, FCW_INITIAL >> 8};
    const uint8_t *fx = has_component(s, XSTATE_X87) ? s->xsave : initial;

    switch (index) {
    case X87_CONTROL:
        return qz_load_le16(fx + FX_FCW);
    case X87_STATUS:
        return qz_load_le16(fx + FX_FSW);
    case X87_TAG:
        return tag_word(fx);
    case X87_ISEG:
        return qz_load_le16(fx + FX_FIP + 4);
    case X87_IOFF:
        return qz_load_le32(fx + FX_FIP);
    case X87_OSEG:
        return qz_load_le16(fx + FX_FDP + 4);
    case X87_OOFF:
        return qz_load_le32(fx + FX_FDP);
    default:
        return qz_load_le16(fx + FX_FOP) & 0x7ff;
    }
}

static void x87_set(struct vcpu_state *s, unsigned index, uint32_t v)
{
    uint8_t *fx = s->xsave;

    use_component(s, XSTATE_X87);
    switch (index) {
    case X87_CONTROL:
        qz_store_le16(fx + FX_FCW, (v & 0x1f3f) | 0x40);
        break;
    case X87_STATUS:
        qz_store_le16(fx + FX_FSW, (uint16_t)v);
        break;
    case X87_TAG:
        fx[FX_FTW] = 0;
        for (unsigned i = 0; i < 8; i++)
            fx[FX_FTW] |= (v >> (2 * i) & 3) != TAG_EMPTY ? 1 << i : 0;
        break;
    case X87_ISEG:
        qz_store_le16(fx + FX_FIP + 4, (uint16_t)v);
        break;
    case X87_IOFF:
        qz_store_le32(fx + FX_FIP, v);
        break;
    case X87_OSEG:
        qz_store_le16(fx + FX_FDP + 4, (uint16_t)v);
        break;
    case X87_OOFF:
        qz_store_le32(fx + FX_FDP, v);
        break;
    default:
        qz_store_le16(fx + FX_FOP, v & 0x7ff);
    }
}

static uint32_t mxcsr_get(const struct vcpu_state *s)
{
    /* MXCSR is saved with SSE or AVX; where neither was used it has its initial value. */
    return has_component(s, XSTATE_SSE | 4) ? qz_load_le32(s->xsave + FX_MXCSR) : MXCSR_INITIAL;
}

/* ---- the others --------------------------------------------------------------------------------
 */

static const struct segment *segment_of(const struct vcpu_state *s, unsigned index)
{
    const struct segment *const all[] = {
        [SEGMENT_CS] = &s->cs, [SEGMENT_SS] = &s->ss, [SEGMENT_DS] = &s->ds,
        [SEGMENT_ES] = &s->es, [SEGMENT_FS] = &s->fs, [SEGMENT_GS] = &s->gs,
    };

    return all[index];
}

static uint64_t control_get(const struct vcpu_state *s, unsigned index)
{
    const uint64_t all[] = {
        [CONTROL_CR0] = s->cr0, [CONTROL_CR2] = s->cr2, [CONTROL_CR3] = s->cr3,
        [CONTROL_CR4] = s->cr4, [CONTROL_CR8] = s->cr8, [CONTROL_EFER] = s->efer,
    };

    return all[index];
}

static uint64_t msr_get(const struct vcpu_state *s, uint32_t index)
{
    for (uint32_t i = 0; i < s->msr_count && i < VCPU_MSR_MAX; i++)
        if (s->msr[i].index == index)
            return s->msr[i].value;
    return 0;
}

static uint64_t number(const struct vcpu_state *s, const struct gdb_register *r)
{
    switch (r->part) {
    case PART_GPR:
        return s->gpr[r->index];
    case PART_RIP:
        return s->rip;
    case PART_FLAGS:
        return s->rflags;
    case PART_SELECTOR:
        return segment_of(s, r->index)->selector;
    case PART_X87:
        return x87_get(s, r->index);
    case PART_MXCSR:
        return mxcsr_get(s);
    case PART_BASE:
        return segment_of(s, r->index)->base;
    case PART_KERNEL_GS:
        return msr_get(s, MSR_KERNEL_GS_BASE);
    default:
        return control_get(s, r->index);
    }
}

void gdb_register_get(const struct vcpu_state *s, unsigned n, uint8_t value[GDB_REGISTER_BYTES_MAX])
{
    const struct gdb_register *r = gdb_register(n);

    memset(value, 0, GDB_REGISTER_BYTES_MAX);
    if (!r)
        return;
    if (r->part == PART_ST && has_component(s, XSTATE_X87))
        memcpy(value, s->xsave + FX_ST + 16 * r->index, r->size);
    else if (r->part == PART_XMM && has_component(s, XSTATE_SSE))
        memcpy(value, s->xsave + FX_XMM + 16 * r->index, r->size);
    else if (r->part != PART_ST && r->part != PART_XMM)
        qz_store_le64(value, number(s, r));
}

/* Bits 63 to 47 (56 with five levels of tables) are alike (SDM vol 1 §3.3.7.1). */
static bool is_canonical(const struct vcpu_state *s, uint64_t v)
{
    const unsigned unused = s->cr4 >> 12 & 1 ? 7 : 16;

    return (uint64_t)((int64_t)(v << unused) >> unused) == v;
}

static int set_address(const struct vcpu_state *s, uint64_t *field, uint64_t v)
{
    if (!is_canonical(s, v))
        return -EINVAL;
    *field = v;
    return 0;
}

static int set_number(struct vcpu_state *s, const struct gdb_register *r, uint64_t v)
{
    switch (r->part) {
    case PART_GPR:
        s->gpr[r->index] = v;
        return 0;
    case PART_RIP:
        return set_address(s, &s->rip, v);
    case PART_FLAGS:
        s->rflags = (s->rflags & ~FLAGS_WRITABLE) | (v & FLAGS_WRITABLE) | FLAGS_FIXED;
        return 0;
    case PART_X87:
        x87_set(s, r->index, (uint32_t)v);
        return 0;
    case PART_MXCSR:
        if (v & ~(uint64_t)MXCSR_VALID)
            return -EINVAL;
        use_component(s, XSTATE_SSE);
        qz_store_le32(s->xsave + FX_MXCSR, (uint32_t)v);
        return 0;
    case PART_BASE:
        return set_address(s, r->index == SEGMENT_FS ? &s->fs.base : &s->gs.base, v);
    default: /* takes more than a number: a descriptor, a flush, a mode */
        return v == number(s, r) ? 0 : -EPERM;
    }
}

int gdb_register_set(struct vcpu_state *s, unsigned n, const uint8_t value[GDB_REGISTER_BYTES_MAX])
{
    const struct gdb_register *r = gdb_register(n);
    uint8_t all[GDB_REGISTER_BYTES_MAX] = {0};

    if (!r || s->xsave_size < XSTATE_BV + 8)
        return -EINVAL;
    memcpy(all, value, r->size);
    if (r->part == PART_ST) {
        use_component(s, XSTATE_X87);
        memcpy(s->xsave + FX_ST + 16 * r->index, all, r->size);
        return 0;
    }
    if (r->part == PART_XMM) {
        use_component(s, XSTATE_SSE);
        memcpy(s->xsave + FX_XMM + 16 * r->index, all, r->size);
        return 0;
    }
    return set_number(s, r, qz_load_le64(all));
}

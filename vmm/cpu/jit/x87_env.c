/*
 * x87_env.c - FNSTENV, FNSAVE, FLDENV, FRSTOR: the x87 state in its four memory layouts (SDM vol 1
 * figures 8-9 to 8-12): 16 or 32 bits by operand size, protected or real mode.
 *
 * Both protected layouts have selectors, which this CPU deprecates: they are stored as zero.
 */
#include "cpu/jit/fpu.h"

enum { ENV_16 = 14, ENV_32 = 28, REGISTERS = 8 * 10 };
enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static bool wide_layout(const struct jit_cpu *cpu, const struct insn *i)
{
    bool small = (i->prefix & PREFIX_OPSIZE) && !(i->prefix & PREFIX_REX_W);

    return cpu->code_width == CODE_16 ? small : !small;
}

static bool real_layout(const struct jit_cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || (cpu->rflags & RFLAGS_VM);
}

/* What the tag word says of a register that is not empty (SDM vol 1 §8.1.7). */
static unsigned tag_of(const uint8_t st[16])
{
    uint64_t significand;
    uint16_t exponent;

    memcpy(&significand, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (exponent == 0)
        return significand ? TAG_SPECIAL : TAG_ZERO;
    return exponent == 0x7fff || !(significand >> 63) ? TAG_SPECIAL : TAG_VALID;
}

static uint16_t tag_word(const struct jit_fpu *f)
{
    uint16_t word = 0;

    for (unsigned n = 0; n < 8; n++) {
        unsigned tag =
            f->ftw_abridged >> n & 1 ? tag_of(f->st[(n - fpu_top(f)) & 7]) : (unsigned)TAG_EMPTY;

        word |= tag << 2 * n;
    }
    return word;
}

static uint8_t abridged(uint16_t word)
{
    uint8_t tags = 0;

    for (unsigned n = 0; n < 8; n++)
        if ((word >> 2 * n & 3) != TAG_EMPTY)
            tags |= 1 << n;
    return tags;
}

static void env_write_16(const struct jit_fpu *f, bool real, uint16_t e[7])
{
    e[0] = f->fcw;
    e[1] = f->fsw;
    e[2] = tag_word(f);
    e[3] = f->fip;
    e[4] = real ? (f->fip >> 16 & 0xf) << 12 | f->fop : 0;
    e[5] = f->fdp;
    e[6] = real ? (f->fdp >> 16 & 0xf) << 12 : 0;
}

/* Reserved halves are stored as ones, as CPUs do. */
static void env_write_32(const struct jit_fpu *f, bool real, uint32_t e[7])
{
    e[0] = 0xffff0000 | f->fcw;
    e[1] = 0xffff0000 | f->fsw;
    e[2] = 0xffff0000 | tag_word(f);
    if (real) {
        e[3] = 0xffff0000 | (uint16_t)f->fip;
        e[4] = (f->fip >> 16 & 0xffff) << 12 | f->fop;
        e[5] = 0xffff0000 | (uint16_t)f->fdp;
        e[6] = (f->fdp >> 16 & 0xffff) << 12;
    } else {
        e[3] = f->fip;
        e[4] = (uint32_t)f->fop << 16;
        e[5] = f->fdp;
        e[6] = 0xffff0000;
    }
}

static void env_read_16(struct jit_fpu *f, bool real, const uint16_t e[7])
{
    f->fcw = e[0];
    f->fsw = e[1];
    f->ftw_abridged = abridged(e[2]);
    f->fip = e[3] | (real ? (uint64_t)(e[4] >> 12) << 16 : 0);
    f->fop = real ? e[4] & 0x7ff : 0;
    f->fdp = e[5] | (real ? (uint64_t)(e[6] >> 12) << 16 : 0);
}

static void env_read_32(struct jit_fpu *f, bool real, const uint32_t e[7])
{
    f->fcw = e[0];
    f->fsw = e[1];
    f->ftw_abridged = abridged(e[2]);
    if (real) {
        f->fip = (uint16_t)e[3] | (uint64_t)(e[4] >> 12 & 0xffff) << 16;
        f->fop = e[4] & 0x7ff;
        f->fdp = (uint16_t)e[5] | (uint64_t)(e[6] >> 12 & 0xffff) << 16;
    } else {
        f->fip = e[3];
        f->fop = e[4] >> 16 & 0x7ff;
        f->fdp = e[5];
    }
}

void x87_store_env(struct jit_cpu *cpu, const struct insn *i, bool registers)
{
    bool wide = wide_layout(cpu, i);
    unsigned env = wide ? ENV_32 : ENV_16, size = env + (registers ? REGISTERS : 0);
    uint64_t linear = jit_operand_linear(cpu, i, size, true);
    uint8_t image[ENV_32 + REGISTERS] __attribute__((aligned(4)));
    struct jit_fpu *f = &cpu->fpu;

    if (wide)
        env_write_32(f, real_layout(cpu), (uint32_t *)image);
    else
        env_write_16(f, real_layout(cpu), (uint16_t *)image);
    for (unsigned n = 0; registers && n < 8; n++)
        memcpy(image + env + 10 * n, f->st[n], 10);
    mmu_store_bytes(cpu, linear, image, size);
    if (registers)
        fpu_init(f);
    else
        fpu_set_fcw(f, f->fcw | FSW_EXCEPTIONS); /* masks all; nothing is pending then */
}

void x87_load_env(struct jit_cpu *cpu, const struct insn *i, bool registers)
{
    bool wide = wide_layout(cpu, i);
    unsigned env = wide ? ENV_32 : ENV_16, size = env + (registers ? REGISTERS : 0);
    uint64_t linear = jit_operand_linear(cpu, i, size, false);
    uint8_t image[ENV_32 + REGISTERS] __attribute__((aligned(4)));
    struct jit_fpu *f = &cpu->fpu;

    mmu_load_bytes(cpu, linear, image, size);
    /* TOP moves, the registers do not */
    fpu_set_top(f, image[wide ? 5 : 3] >> (FSW_TOP_SHIFT - 8) & 7);
    if (wide)
        env_read_32(f, real_layout(cpu), (const uint32_t *)image);
    else
        env_read_16(f, real_layout(cpu), (const uint16_t *)image);
    for (unsigned n = 0; registers && n < 8; n++)
        memcpy(f->st[n], image + env + 10 * n, 10);
    fpu_set_fcw(f, f->fcw);
}

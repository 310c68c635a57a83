/* insn_memory.c - ModRM, SIB and displacement: SDM vol 2 §2.1.5, §2.2.1. */
#include "cpu/jit/insn_decoder.h"
#include "cpu/vcpu_state.h"

static void memory16(struct decoder *d, struct insn *i, uint8_t modrm)
{
    static const struct {
        uint8_t base, index;
    } pairs[8] = {{RBX, RSI},      {RBX, RDI},      {RBP, RSI},      {RBP, RDI},
                  {RSI, REG_NONE}, {RDI, REG_NONE}, {RBP, REG_NONE}, {RBX, REG_NONE}};
    const unsigned mod = modrm >> 6;

    if (mod == 0 && (modrm & 7) == 6) {
        i->disp = (int32_t)next_signed(d, 2);
        return;
    }
    i->base = pairs[modrm & 7].base;
    i->index = pairs[modrm & 7].index;
    if (mod)
        i->disp = (int32_t)next_signed(d, mod);
    if (i->base == RBP && !d->segment_is_said)
        i->seg = SEG_SS;
}

void decode_memory(struct decoder *d, struct insn *i, uint8_t modrm)
{
    const unsigned mod = modrm >> 6;
    unsigned base = modrm & 7;

    i->mem = true;
    if (__builtin_expect(i->asize == 2, 0)) {
        memory16(d, i, modrm);
        return;
    }
    if (base == RSP) {
        const uint8_t sib = next8(d);
        const uint8_t index = (uint8_t)((sib >> 3 & 7) | (d->rex & REX_X ? 8 : 0));

        base = sib & 7;
        if (index != RSP) {
            i->index = index;
            i->scale = sib >> 6;
        }
        if (base == RBP && mod == 0) { /* no base, whatever REX.B says */
            i->disp = (int32_t)next_signed(d, 4);
            return;
        }
    } else if (base == RBP && mod == 0) {
        i->disp = (int32_t)next_signed(d, 4);
        if (d->width == CODE_64)
            i->base = REG_RIP;
        return;
    }
    i->base = (uint8_t)(base | (d->rex & REX_B ? 8 : 0));
    if (mod)
        i->disp = (int32_t)next_signed(d, mod == 1 ? 1 : 4);
    if ((i->base == RSP || i->base == RBP) && !d->segment_is_said)
        i->seg = SEG_SS;
}

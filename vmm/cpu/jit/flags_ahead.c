/*
 * flags_ahead.c - which flags the code at a place still wants (flags.h).
 */
#include "cpu/jit/block.h"
#include "cpu/jit/flags.h"

enum { LOOK_AHEAD = 6, LINE_SHIFT = 6 };

/* What goes on elsewhere, where nobody looked. */
static bool leads_away(const struct insn *i)
{
    switch (i->op) {
    case OP_JCC:
    case OP_JMP:
    case OP_CALL:
    case OP_RET:
    case OP_JCXZ:
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE:
        return true;
    default:
        return block_ends_with(i);
    }
}

uint16_t insn_flags_ahead(const uint8_t *page, unsigned offset, enum code_width width,
                          uint64_t features, uint64_t *lines)
{
    uint16_t unknown = FLAGS_ARITH, live = 0;

    for (unsigned n = 0; n < LOOK_AHEAD && unknown && offset < 4096; n++) {
        const unsigned available = QZ_MIN(4096 - offset, 15u);
        uint8_t bytes[15];
        struct insn_flags f;
        struct insn i;

        memcpy(bytes, page + offset, available);
        if (insn_decode(&i, bytes, available, width, features) != DECODE_OK)
            break;
        *lines |= 1ull << (offset >> LINE_SHIFT) | 1ull << ((offset + i.len - 1) >> LINE_SHIFT);
        f = insn_flags(&i);
        live |= f.reads & unknown;
        unknown &= ~(f.reads | f.writes);
        if (leads_away(&i))
            break;
        offset += i.len;
    }
    return live | unknown;
}

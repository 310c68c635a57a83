/*
 * insn_decoder.h - a decoding in progress, what the files of the decoder share.
 *
 * Reading past the last byte gives zeros and is remembered, so that nothing in between asks;
 * whatever was found then is not looked at.
 */
#ifndef VMM_JIT_INSN_DECODER_H
#define VMM_JIT_INSN_DECODER_H

#include "cpu/jit/insn.h"

enum { INSN_BYTES = 15 };

enum { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8 };

struct decoder {
    const uint8_t *bytes;
    unsigned at, limit;
    bool over;            /* a byte beyond the limit was asked for */
    bool segment_is_said; /* by a prefix that counts */
    uint8_t rex;          /* WRXB of REX or VEX */
    enum code_width width;
    uint64_t features;
};

static inline uint64_t next_bytes(struct decoder *d, unsigned n)
{
    uint64_t v = 0;

    if (__builtin_expect(d->limit - d->at < n, 0)) {
        d->over = true;
        d->at = d->limit;
        return 0;
    }
    memcpy(&v, d->bytes + d->at, n);
    d->at += n;
    return v;
}

static inline uint8_t next8(struct decoder *d)
{
    return (uint8_t)next_bytes(d, 1);
}

static inline uint64_t next_signed(struct decoder *d, unsigned n)
{
    switch (n) {
    case 1:
        return (uint64_t)(int8_t)next_bytes(d, 1);
    case 2:
        return (uint64_t)(int16_t)next_bytes(d, 2);
    default:
        return (uint64_t)(int32_t)next_bytes(d, 4);
    }
}

/* The memory operand of a ModRM byte, whose bytes follow (insn_memory.c). */
void decode_memory(struct decoder *d, struct insn *i, uint8_t modrm);
/* What comes after c4 or c5 that is VEX (insn_vex.c). False: #UD. */
bool decode_vex(struct decoder *d, struct insn *i, uint8_t first);

#endif

/*
 * emit.h - writing host instructions.
 *
 * An emitter has a write pointer into the writable view of the code cache; addresses in code are
 * those of the executable view. It never writes past its end: it notes that the space was over, and
 * the caller throws the whole block away.
 */
#ifndef VMM_JIT_EMIT_H
#define VMM_JIT_EMIT_H

#include <queztl/base.h>

/* Host registers by number, as in ModRM with its REX bit. */
enum {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
};

/* x86 condition codes, the low nibble of Jcc. */
enum {
    CC_O,
    CC_NO,
    CC_B,
    CC_AE,
    CC_E,
    CC_NE,
    CC_BE,
    CC_A,
    CC_S,
    CC_NS,
    CC_P,
    CC_NP,
    CC_L,
    CC_GE,
    CC_LE,
    CC_G
};

struct emitter {
    uint8_t *p, *end; /* writable view */
    ptrdiff_t to_run; /* add to a write address for the address in the executable view */
    bool full;
};

static inline void emit8(struct emitter *e, uint8_t v)
{
    if (e->p < e->end)
        *e->p++ = v;
    else
        e->full = true;
}

static inline void emit_bytes(struct emitter *e, const void *v, unsigned n)
{
    if ((size_t)(e->end - e->p) < n) {
        e->full = true;
        return;
    }
    memcpy(e->p, v, n);
    e->p += n;
}

static inline void emit32(struct emitter *e, uint32_t v)
{
    emit_bytes(e, &v, 4);
}

static inline void emit64(struct emitter *e, uint64_t v)
{
    emit_bytes(e, &v, 8);
}

/* The address in the executable view of what is written next. */
static inline uint8_t *emit_here(const struct emitter *e)
{
    return e->p + e->to_run;
}

/*
 * An instruction whose shape is given: prefixes, map, opcode; then a ModRM operand. `size` 2 adds
 * 66, 8 adds REX.W, 1 makes sure that SPL to DIL mean what they say (REX); 4 adds nothing.
 */
struct opcode {
    uint8_t size;
    uint8_t prefix; /* 0, 0x66, 0xf2, 0xf3: mandatory; 0xf0: LOCK */
    uint8_t map;    /* 0: one byte, 1: 0f, 2: 0f38, 3: 0f3a */
    uint8_t byte;
};

static inline struct opcode op1(unsigned size, uint8_t byte)
{
    return (struct opcode){.size = size, .byte = byte};
}
static inline struct opcode op2(unsigned size, uint8_t byte)
{
    return (struct opcode){.size = size, .map = 1, .byte = byte};
}

static inline void emit_opcode(struct emitter *e, struct opcode o, unsigned reg, unsigned index,
                               unsigned rm, bool byte_regs)
{
    uint8_t rex = (o.size == 8) << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (rm >> 3 & 1);

    if (o.size == 2)
        emit8(e, 0x66);
    if (o.prefix)
        emit8(e, o.prefix);
    if (rex || byte_regs)
        emit8(e, 0x40 | rex);
    if (o.map)
        emit8(e, 0x0f);
    if (o.map == 2)
        emit8(e, 0x38);
    if (o.map == 3)
        emit8(e, 0x3a);
    emit8(e, o.byte);
}

/* op reg, rm between registers. byte_reg, byte_rm: these operands are byte registers (REX for 4 to
 * 7). */
static inline void emit_rr(struct emitter *e, struct opcode o, unsigned reg, unsigned rm)
{
    emit_opcode(e, o, reg, 0, rm, o.size == 1);
    emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* op with a memory operand [base] */
static inline void emit_rm(struct emitter *e, struct opcode o, unsigned reg, unsigned base)
{
    emit_opcode(e, o, reg, 0, base, o.size == 1);
    if ((base & 7) == 5) { /* rbp, r13: no form without displacement */
        emit8(e, 0x45 | (reg & 7) << 3);
        emit8(e, 0);
        return;
    }
    emit8(e, (reg & 7) << 3 | (base & 7));
    if ((base & 7) == 4)
        emit8(e, 0x24);
}

/* op with [base + index << scale + disp]; base or index 0xff: none. */
static inline void emit_rmx(struct emitter *e, struct opcode o, unsigned reg, unsigned base,
                            unsigned index, unsigned scale, int32_t disp)
{
    const bool no_base = base == 0xff, no_index = index == 0xff;
    const bool small = disp >= -128 && disp <= 127;
    uint8_t mod = no_base ? 0 : disp == 0 && (base & 7) != 5 ? 0 : small ? 0x40 : 0x80;

    emit_opcode(e, o, reg, no_index ? 0 : index, no_base ? 0 : base, o.size == 1);
    if (no_base || !no_index || (base & 7) == 4) {
        emit8(e, mod | (reg & 7) << 3 | 4);
        emit8(e, scale << 6 | (no_index ? 4 : index & 7) << 3 | (no_base ? 5 : base & 7));
    } else {
        emit8(e, mod | (reg & 7) << 3 | (base & 7));
    }
    if (no_base || mod == 0x80)
        emit32(e, disp);
    else if (mod == 0x40)
        emit8(e, disp);
}

/* op with gs:[offset]: a field of struct jit_cpu. */
static inline void emit_env(struct emitter *e, struct opcode o, unsigned reg, uint32_t offset)
{
    emit8(e, 0x65);
    emit_rmx(e, o, reg, 0xff, 0xff, 0, offset);
}

/* op with gs:[index + offset] */
static inline void emit_env_at(struct emitter *e, struct opcode o, unsigned reg, unsigned index,
                               uint32_t offset)
{
    emit8(e, 0x65);
    emit_opcode(e, o, reg, 0, index, o.size == 1);
    emit8(e, 0x80 | (reg & 7) << 3 | (index & 7)); /* index is r10: no SIB */
    emit32(e, offset);
}

static inline void emit_load(struct emitter *e, unsigned reg,
                             uint32_t offset) /* reg := gs:[offset], 64 bits */
{
    emit_env(e, op1(8, 0x8b), reg, offset);
}
static inline void emit_store(struct emitter *e, unsigned reg, uint32_t offset)
{
    emit_env(e, op1(8, 0x89), reg, offset);
}
static inline void emit_mov(struct emitter *e, unsigned to, unsigned from)
{
    emit_rr(e, op1(8, 0x8b), to, from);
}
/* reg := value in the shortest way; flags stay */
static inline void emit_imm(struct emitter *e, unsigned reg, uint64_t value)
{
    if (value == (uint32_t)value) {
        emit_opcode(e, op1(4, 0xb8 | (reg & 7)), 0, 0, reg, false);
        emit32(e, value);
    } else if ((int64_t)value == (int32_t)value) {
        emit_rr(e, op1(8, 0xc7), 0, reg);
        emit32(e, value);
    } else {
        emit_opcode(e, op1(8, 0xb8 | (reg & 7)), 0, 0, reg, false);
        emit64(e, value);
    }
}
/* 32-bit immediate group op (81 /digit): add, or, adc, sbb, and, sub, xor, cmp */
static inline void emit_alu_imm(struct emitter *e, unsigned size, unsigned digit, unsigned reg,
                                int32_t imm)
{
    bool small = imm >= -128 && imm <= 127;

    emit_rr(e, op1(size, small ? 0x83 : 0x81), digit, reg);
    if (small)
        emit8(e, imm);
    else
        emit32(e, imm);
}

/* rel32 jumps and calls to an address of the executable view */
static inline void emit_rel32(struct emitter *e, const uint8_t *target)
{
    emit32(e, (uint32_t)(target - (emit_here(e) + 4)));
}
static inline void emit_jmp(struct emitter *e, const uint8_t *target)
{
    emit8(e, 0xe9);
    emit_rel32(e, target);
}
static inline void emit_call(struct emitter *e, const uint8_t *target)
{
    emit8(e, 0xe8);
    emit_rel32(e, target);
}
static inline void emit_jcc(struct emitter *e, unsigned cc, const uint8_t *target)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | cc);
    emit_rel32(e, target);
}

/* Forward jumps: emit with a hole, fill it when the target is reached. NULL when the space was
 * over. */
static inline uint8_t *emit_jcc_hole(struct emitter *e, unsigned cc)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | cc);
    emit32(e, 0);
    return e->full ? NULL : e->p - 4;
}
static inline uint8_t *emit_jmp_hole(struct emitter *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->full ? NULL : e->p - 4;
}
/* The hole leads to an address of the executable view. */
static inline void emit_fill_run(struct emitter *e, uint8_t *hole, const uint8_t *target)
{
    uint32_t rel;

    if (e->full || !hole)
        return;
    rel = (uint32_t)(target - (hole + 4 + e->to_run));
    memcpy(hole, &rel, 4);
}
static inline void emit_fill(struct emitter *e, uint8_t *hole)
{
    uint32_t rel;

    if (e->full || !hole)
        return;
    rel = (uint32_t)(e->p - (hole + 4));
    memcpy(hole, &rel, 4);
}

#endif

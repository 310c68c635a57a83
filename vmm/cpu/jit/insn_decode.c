/*
 * insn_decode.c - from bytes to struct insn (insn.h), by the tables of insn_tables.c.
 *
 * The format of instructions: SDM vol 2 chapter 2.
 */
#include "cpu/jit/insn_decoder.h"
#include "cpu/jit/insn_tables.h"
#include "cpu/jit/vec.h"

/* --- Prefixes -------------------------------------------------------------------------------- */

/* What each byte is as a legacy prefix: PREFIX_* or SEGMENT_PREFIX + segment. */
enum { SEGMENT_PREFIX = 0x80 };
static const uint8_t legacy_prefix[256] = {
    [0x26] = SEGMENT_PREFIX + SEG_ES,
    [0x2e] = SEGMENT_PREFIX + SEG_CS,
    [0x36] = SEGMENT_PREFIX + SEG_SS,
    [0x3e] = SEGMENT_PREFIX + SEG_DS,
    [0x64] = SEGMENT_PREFIX + SEG_FS,
    [0x65] = SEGMENT_PREFIX + SEG_GS,
    [0x66] = PREFIX_OPSIZE,
    [0x67] = PREFIX_ADDRSIZE,
    [0xf0] = PREFIX_LOCK,
    [0xf2] = PREFIX_REPNE,
    [0xf3] = PREFIX_REP,
};

static inline void take_prefix(struct decoder *d, struct insn *i, uint8_t prefix)
{
    if (prefix >= SEGMENT_PREFIX) {
        /* In 64-bit code ES, CS, SS and DS overrides are not there, not even to undo another. */
        if (d->width != CODE_64 || prefix >= SEGMENT_PREFIX + SEG_FS) {
            i->seg = prefix - SEGMENT_PREFIX;
            d->segment_is_said = true;
        }
        return;
    }
    if (prefix & (PREFIX_REP | PREFIX_REPNE)) /* the last one counts */
        i->prefix &= (uint8_t) ~(PREFIX_REP | PREFIX_REPNE);
    i->prefix |= prefix;
}

/* Returns the byte that is not a prefix. */
static inline uint8_t prefixes(struct decoder *d, struct insn *i)
{
    uint8_t rex = 0, byte;

    for (;;) {
        byte = next8(d);
        if (d->width == CODE_64 && (byte & 0xf0) == 0x40) {
            rex = byte;
        } else if (legacy_prefix[byte]) {
            take_prefix(d, i, legacy_prefix[byte]);
            rex = 0; /* counts only directly before the opcode (SDM vol 2 §2.2.1) */
        } else {
            break;
        }
    }
    if (rex) {
        d->rex = rex & 0xf;
        i->prefix |= rex & REX_W ? PREFIX_REX | PREFIX_REX_W : PREFIX_REX;
    }
    return byte;
}

/* Index of the mandatory prefix: f3 and f2 win over 66 (SDM vol 2 §3.1.1.1). */
static inline unsigned mandatory_prefix(const struct insn *i)
{
    if (i->prefix & (PREFIX_REP | PREFIX_REPNE))
        return i->prefix & PREFIX_REP ? VEC_PREFIX_F3 : VEC_PREFIX_F2;
    return i->prefix & PREFIX_OPSIZE ? VEC_PREFIX_66 : VEC_PREFIX_NONE;
}

/* --- Sizes ----------------------------------------------------------------------------------- */

/* By operand-size attribute in 16 and 32-bit code: 2, 4; in 64-bit code: 2, 4, 8. */
static const uint8_t sizes[SIZE_COUNT][5] = {
    [SIZE_B] = {1, 1, 1, 1, 1},    [SIZE_W] = {2, 2, 2, 2, 2},   [SIZE_D] = {4, 4, 4, 4, 4},
    [SIZE_V] = {2, 4, 2, 4, 8},    [SIZE_Z] = {2, 4, 2, 4, 4},   [SIZE_Y] = {4, 4, 4, 4, 8},
    [SIZE_D64] = {2, 4, 2, 8, 8},  [SIZE_F64] = {2, 4, 8, 8, 8}, [SIZE_MODE] = {4, 4, 8, 8, 8},
    [SIZE_OPEN] = {0, 0, 0, 0, 0},
};

static inline unsigned operand_attribute(const struct decoder *d, const struct insn *i)
{
    const bool opsize = i->prefix & PREFIX_OPSIZE;

    if (d->width == CODE_64)
        return i->prefix & PREFIX_REX_W ? 4 : opsize ? 2 : 3;
    return (d->width == CODE_32) != opsize;
}

static inline uint8_t address_size(const struct decoder *d, const struct insn *i)
{
    const bool other = i->prefix & PREFIX_ADDRSIZE;

    if (d->width == CODE_64)
        return other ? 4 : 8;
    return (d->width == CODE_32) != other ? 4 : 2;
}

/* --- Immediates ------------------------------------------------------------------------------ */

static inline void immediate(struct decoder *d, struct insn *i, enum opcode_imm kind)
{
    switch (kind) {
    case IMM_NONE:
        break;
    case IMM_8:
        i->imm = next_signed(d, 1);
        break;
    case IMM_U8:
        i->imm = next8(d);
        break;
    case IMM_U16:
        i->imm = next_bytes(d, 2);
        break;
    case IMM_Z:
        i->imm = next_signed(d, i->size);
        break;
    case IMM_V:
        i->imm = i->size == 8 ? next_bytes(d, 8) : next_signed(d, i->size);
        break;
    case IMM_1:
        i->imm = 1;
        break;
    case IMM_FAR:
        i->imm = i->size == 2 ? next_bytes(d, 2) : next_bytes(d, 4);
        i->imm2 = (uint16_t)next_bytes(d, 2);
        break;
    case IMM_ENTER:
        i->imm = next_bytes(d, 2);
        i->imm2 = next8(d);
        break;
    case IMM_OFFSET:
        i->mem = true;
        if (i->asize == 8)
            i->imm = next_bytes(d, 8);
        else if (i->asize == 4)
            i->disp = (int32_t)next_bytes(d, 4);
        else
            i->disp = (uint16_t)next_bytes(d, 2);
        break;
    }
}

/* --- What an opcode means -------------------------------------------------------------------- */

static unsigned chosen_row(const struct decoder *d, const struct insn *i, enum opcode_choice by)
{
    switch (by) {
    case BY_REG:
        return i->modrm >> 3 & 7;
    case BY_RM:
        return i->modrm & 7;
    case BY_MEM:
        return i->modrm < 0xc0;
    case BY_PREFIX:
        return mandatory_prefix(i);
    case BY_WIDTH:
        return d->width == CODE_64;
    case BY_REX_W:
        return (i->prefix & PREFIX_REX_W) != 0;
    case BY_REX_B:
        return (d->rex & REX_B) != 0;
    default:
        return 0;
    }
}

static inline struct opcode chosen(const struct decoder *d, const struct insn *i,
                                   const struct opcode *first)
{
    struct opcode e = *first;

    while (e.choice) {
        const struct opcode *row = &opcode_rows[e.op][chosen_row(d, i, e.choice)];
        const bool open = row->size == SIZE_OPEN;

        e.op = row->op;
        e.choice = row->choice;
        e.src = row->src;
        e.feature = row->feature;
        e.flags |= row->flags;
        if (!open)
            e.size = row->size;
        if (!open || row->form != FORM_NONE) {
            e.form = row->form;
            e.imm = row->imm;
        }
    }
    return e;
}

/* vec.h's table takes the place of the entry. */
static bool vector_entry(const struct decoder *d, struct insn *i, struct opcode *e)
{
    const struct vec_op *op;

    i->vec = (uint16_t)vec_find(i->map, mandatory_prefix(i), i->opcode, i->modrm);
    if (!i->vec)
        return false;
    op = &vec_ops[i->vec];
    e->imm = op->imm8 ? IMM_U8 : IMM_NONE;
    if (op->reg == VEC_OPERAND_NONE)
        e->form = FORM_RM_IMM;
    else if (op->store)
        e->form = op->imm8 ? FORM_RM_REG_IMM : FORM_RM_REG;
    else
        e->form = op->imm8 ? FORM_REG_RM_IMM : FORM_REG_RM;
    return d->features >> op->feature & 1;
}

/* There are eight MMX registers: REX.R and REX.B do not count (SDM vol 2 §2.2.1.2). */
static void vector_registers(struct insn *i)
{
    const struct vec_op *op = &vec_ops[i->vec];

    if (op->reg == VEC_OPERAND_MMX)
        i->reg &= 7;
    if (op->rm == VEC_OPERAND_MMX)
        i->rm &= 7;
}

static bool feature_is_offered(const struct decoder *d, struct insn *i, const struct opcode *e)
{
    if (e->feature && !(d->features >> e->feature & 1))
        return (e->flags & FEATURE64) && d->width != CODE_64;
    if (d->features >> opcode_feature[i->op] & 1)
        return true;
    /* The prefix is ignored, as before these were (SDM vol 2, LZCNT, TZCNT). */
    if (i->op == OP_TZCNT)
        i->op = OP_BSF;
    else if (i->op == OP_LZCNT)
        i->op = OP_BSR;
    else
        return false;
    return true;
}

/* The conditions and fields of few instructions. */
static bool rare_rules(const struct decoder *d, struct insn *i, unsigned flags)
{
    const uint8_t repeat = PREFIX_REP | PREFIX_REPNE;

    if (((flags & ONLY64) && d->width != CODE_64) || ((flags & MEM_ONLY) && i->modrm >= 0xc0))
        return false;
    if (((flags & NO_PREFIX) && (i->prefix & (repeat | PREFIX_OPSIZE))) ||
        ((flags & NO_REPEAT) && (i->prefix & repeat)))
        return false;
    if ((flags & MEM_WORD) && i->modrm < 0xc0)
        i->size = i->src_size = 2;
    if (flags & SEGMENT) { /* REX.R does not count; CS cannot be written */
        i->reg &= 7;
        return i->reg < SEG_COUNT && !(i->op == OP_MOV_TO_SEG && i->reg == SEG_CS);
    }
    if (flags & CONTROL)
        return i->reg == 0 || (i->reg >= 2 && i->reg <= 4) || i->reg == 8;
    if (flags & DEBUG)
        return i->reg < 8;
    if (flags & OP_SEG)
        i->reg = i->opcode >> 3 & 7;
    return true;
}

/* Without REX, 4 to 7 are AH CH DH BH (SDM vol 2 table 3-1). */
static inline uint8_t byte_register(uint8_t reg)
{
    return reg >= 4 && reg < 8 ? (uint8_t)(reg - 4 + REG_AH) : reg;
}

static inline void byte_registers(struct insn *i)
{
    if (i->prefix & PREFIX_REX)
        return;
    if (!i->mem)
        i->rm = byte_register(i->rm);
    if (i->size == 1 && (i->form == FORM_RM_REG || i->form == FORM_REG_RM))
        i->reg = byte_register(i->reg);
}

/* --- Encodings ------------------------------------------------------------------------------- */

/* False: #UD. */
static inline bool legacy(struct decoder *d, struct insn *i, const struct opcode *first)
{
    const struct opcode *e = first;
    struct opcode choice;
    unsigned attribute;
    bool mem = false;

    if (__builtin_expect((e->flags & NOT64) && d->width == CODE_64, 0))
        return false;
    if (e->flags & MODRM) {
        i->modrm = next8(d);
        i->reg = (uint8_t)((i->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0));
        mem = i->modrm < 0xc0;
    }
    if (e->choice) {
        choice = chosen(d, i, e);
        e = &choice;
    } else if (e->op == OP_VEC) {
        choice = *e;
        e = &choice;
        if (!vector_entry(d, i, &choice))
            return false;
    }
    i->op = e->op;
    i->form = e->form;
    attribute = operand_attribute(d, i);
    i->size = sizes[e->size][attribute];
    i->src_size = e->src ? sizes[e->src][attribute] : i->size;
    if (__builtin_expect(e->flags & RARE, 0) && !rare_rules(d, i, e->flags))
        return false;
    if (i->op == OP_UD || !feature_is_offered(d, i, e))
        return false;
    if (__builtin_expect(i->prefix & PREFIX_LOCK, 0) && !((e->flags & LOCKABLE) && mem))
        return false;
    if (mem && !(e->flags & IGNORES_MOD))
        decode_memory(d, i, i->modrm);
    else if (e->flags & (MODRM | OPREG))
        i->rm =
            (uint8_t)(((e->flags & OPREG ? i->opcode : i->modrm) & 7) | (d->rex & REX_B ? 8 : 0));
    immediate(d, i, e->imm);
    if (i->src_size == 1)
        byte_registers(i);
    if (i->op == OP_VEC)
        vector_registers(i);
    return true;
}

static bool decode(struct decoder *d, struct insn *i)
{
    const struct opcode *e;
    uint8_t byte = prefixes(d, i);

    i->asize = address_size(d, i);
    i->opcode = byte;
    e = &opcode_map0[byte];
    if (byte == 0x0f) {
        static const struct opcode *const maps[] = {NULL, opcode_map1, opcode_map2, opcode_map3};

        byte = next8(d);
        i->map = byte == 0x38 ? 2 : byte == 0x3a ? 3 : 1;
        i->opcode = i->map == 1 ? byte : next8(d);
        e = &maps[i->map][i->opcode];
    } else if (byte == 0xc4 || byte == 0xc5) {
        /* LES and LDS have a memory operand; with a register these are VEX (SDM vol 2 §2.3.5). */
        if (d->width == CODE_64 || (d->at < d->limit && d->bytes[d->at] >= 0xc0))
            return decode_vex(d, i, byte);
    }
    i->cond = i->opcode & 0xf;
    return legacy(d, i, e);
}

enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned available,
                               enum code_width width, uint64_t features)
{
    struct decoder d = {
        .bytes = bytes,
        .limit = QZ_MIN(available, (unsigned)INSN_BYTES),
        .width = width,
        .features = features | CPU_FEATURE(CPU_BASE),
    };

    *i = (struct insn){.seg = SEG_DS, .base = REG_NONE, .index = REG_NONE};
    if (!decode(&d, i))
        *i = (struct insn){.op = OP_UD, .seg = SEG_DS, .base = REG_NONE, .index = REG_NONE};
    i->len = (uint8_t)d.at;
    if (d.over)
        return d.limit == INSN_BYTES ? DECODE_TOO_LONG : DECODE_SHORT;
    return DECODE_OK;
}

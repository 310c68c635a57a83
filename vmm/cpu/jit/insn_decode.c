/*
 * insn_decode.c - the decoder: prefixes, opcode maps, operands (insn.h; SDM vol 2 chapter 2 and
 * appendix A).
 */
#include "cpu/jit/insn.h"
#include "cpu/jit/vec.h"
#include "cpu/vcpu_state.h"

enum { INSN_MAX = 15 };

enum { NO_SEGMENT = 0xff };

struct decoder {
    struct insn *i;
    const uint8_t *bytes;
    unsigned at, available;
    enum code_width width;
    uint64_t features;
    uint8_t rex;     /* 0 or 40 to 4f */
    uint8_t segment; /* override, or NO_SEGMENT */
    uint8_t repeat;  /* f2, f3 or 0: the last one */
    bool opsize, lock;
    bool lockable; /* memory destination of an operation that LOCK may precede */
    bool out, too_long;
};

/* ---- bytes
 * --------------------------------------------------------------------------------------------------
 */

static uint8_t next8(struct decoder *d)
{
    if (d->at >= INSN_MAX) {
        d->too_long = true;
        return 0;
    }
    if (d->at >= d->available) {
        d->out = true;
        return 0;
    }
    return d->bytes[d->at++];
}

static uint64_t next_bytes(struct decoder *d, unsigned n)
{
    uint64_t v = 0;

    for (unsigned k = 0; k < n; k++)
        v |= (uint64_t)next8(d) << (8 * k);
    return v;
}

static uint64_t next_signed(struct decoder *d, unsigned n)
{
    const uint64_t v = next_bytes(d, n);
    const unsigned unused = 64 - 8 * n;

    return (uint64_t)((int64_t)(v << unused) >> unused);
}

/* ---- sizes
 * --------------------------------------------------------------------------------------------------
 */

static unsigned operand_size(const struct decoder *d)
{
    if (d->width == CODE_64)
        return d->rex & 8 ? 8 : d->opsize ? 2 : 4;
    return (d->width == CODE_16) == d->opsize ? 4 : 2;
}

/* PUSH, POP and their like have 64 bits by default in 64-bit code, and no 32. */
static unsigned stack_size(const struct decoder *d)
{
    return d->width == CODE_64 ? (d->opsize ? 2 : 8) : operand_size(d);
}

/* Near branches: 64 bits in 64-bit code whatever the prefixes say (Intel). */
static unsigned branch_size(const struct decoder *d)
{
    return d->width == CODE_64 ? 8 : operand_size(d);
}

/* Control and debug registers, and others that know no 16 bits. */
static unsigned natural_size(const struct decoder *d)
{
    return d->width == CODE_64 ? 8 : 4;
}

static unsigned wide_size(const struct decoder *d)
{
    return d->rex & 8 ? 8 : 4;
}

static unsigned imm_size(unsigned size)
{
    return size == 8 ? 4 : size;
}

/* ---- registers and memory
 * ----------------------------------------------------------------------------------- */

static uint8_t byte_register(const struct decoder *d, unsigned reg)
{
    return !d->rex && reg >= 4 && reg < 8 ? REG_AH + reg - 4 : reg;
}

static uint8_t general(const struct decoder *d, unsigned reg, unsigned size)
{
    return size == 1 ? byte_register(d, reg) : reg;
}

static unsigned rex_r(const struct decoder *d)
{
    return d->rex & 4 ? 8 : 0;
}
static unsigned rex_x(const struct decoder *d)
{
    return d->rex & 2 ? 8 : 0;
}
static unsigned rex_b(const struct decoder *d)
{
    return d->rex & 1 ? 8 : 0;
}

static void address_16(struct decoder *d, unsigned mod, unsigned rm)
{
    static const uint8_t base[] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const uint8_t index[] = {RSI, RDI, RSI, RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE};
    struct insn *i = d->i;

    if (mod == 0 && rm == 6) {
        i->disp = (int32_t)next_signed(d, 2);
        return;
    }
    i->base = base[rm];
    i->index = index[rm];
    if (mod)
        i->disp = (int32_t)next_signed(d, mod == 1 ? 1 : 2);
}

static void address_32(struct decoder *d, unsigned mod, unsigned rm)
{
    struct insn *i = d->i;
    unsigned base = rm;

    if (rm == 4) {
        const uint8_t sib = next8(d);
        const unsigned index = (sib >> 3 & 7) + rex_x(d);

        base = sib & 7;
        i->scale = sib >> 6;
        i->index = index == 4 ? REG_NONE : index;
        if (mod == 0 && base == 5) {
            i->disp = (int32_t)next_signed(d, 4);
            return;
        }
    } else if (mod == 0 && rm == 5) {
        i->disp = (int32_t)next_signed(d, 4);
        if (d->width == CODE_64)
            i->base = REG_RIP;
        return;
    }
    i->base = base + rex_b(d);
    if (mod)
        i->disp = (int32_t)next_signed(d, mod == 1 ? 1 : 4);
}

static void set_segment(struct decoder *d)
{
    struct insn *i = d->i;

    i->seg = d->segment != NO_SEGMENT           ? d->segment
             : i->base == RSP || i->base == RBP ? SEG_SS
                                                : SEG_DS;
}

static void modrm(struct decoder *d)
{
    struct insn *i = d->i;
    unsigned mod, rm;

    i->modrm = next8(d);
    mod = i->modrm >> 6;
    rm = i->modrm & 7;
    i->reg = (i->modrm >> 3 & 7) + rex_r(d);
    i->mem = mod != 3;
    i->base = i->index = REG_NONE;
    if (!i->mem) {
        i->rm = rm + rex_b(d);
        return;
    }
    if (i->asize == 2)
        address_16(d, mod, rm);
    else
        address_32(d, mod, rm);
    set_segment(d);
}

static unsigned digit(const struct decoder *d)
{
    return d->i->modrm >> 3 & 7;
}

/* ---- shapes
 * -------------------------------------------------------------------------------------------------
 */

static void as(struct decoder *d, enum insn_op op, enum insn_form form, unsigned size)
{
    d->i->op = op;
    d->i->form = form;
    d->i->size = d->i->src_size = size;
}

static void ud(struct decoder *d)
{
    as(d, OP_UD, FORM_NONE, 4);
}

static void plain(struct decoder *d, enum insn_op op)
{
    as(d, op, FORM_NONE, operand_size(d));
}

static void fix_bytes(struct decoder *d, unsigned reg_size, unsigned rm_size)
{
    d->i->reg = general(d, d->i->reg, reg_size);
    if (!d->i->mem)
        d->i->rm = general(d, d->i->rm, rm_size);
}

/* ModRM with both operands general registers of one size. */
static void rm_reg(struct decoder *d, enum insn_op op, enum insn_form form, unsigned size)
{
    modrm(d);
    as(d, op, form, size);
    fix_bytes(d, size, size);
}

/* ModRM already read: one operand. */
static void rm_only(struct decoder *d, enum insn_op op, unsigned size)
{
    as(d, op, FORM_RM, size);
    if (!d->i->mem)
        d->i->rm = general(d, d->i->rm, size);
}

static void rm_imm(struct decoder *d, enum insn_op op, unsigned size, unsigned imm)
{
    rm_only(d, op, size);
    d->i->form = FORM_RM_IMM;
    d->i->imm = next_signed(d, imm);
}

static void reg_imm(struct decoder *d, enum insn_op op, unsigned reg, unsigned size, unsigned imm)
{
    d->i->rm = general(d, reg, size);
    as(d, op, FORM_RM_IMM, size);
    d->i->imm = next_signed(d, imm);
}

static void rel(struct decoder *d, enum insn_op op, unsigned bytes)
{
    as(d, op, FORM_REL, branch_size(d));
    d->i->imm = next_signed(d, bytes);
}

static unsigned rel_size(const struct decoder *d)
{
    return branch_size(d) == 2 ? 2 : 4;
}

static void opcode_register(struct decoder *d, enum insn_op op, uint8_t opcode, unsigned size)
{
    d->i->rm = (opcode & 7) + rex_b(d);
    as(d, op, FORM_RM, size);
}

/* String instructions: sources in seg (overridable), rsi; destinations in ES, rdi. */
static void string(struct decoder *d, enum insn_op op, unsigned size)
{
    as(d, op, FORM_NONE, size);
    d->i->seg = d->segment != NO_SEGMENT ? d->segment : SEG_DS;
}

static bool in_64(const struct decoder *d)
{
    return d->width == CODE_64;
}

static bool has(const struct decoder *d, enum cpu_feature f)
{
    return d->features >> f & 1;
}

/* ---- groups
 * -------------------------------------------------------------------------------------------------
 */

static const uint16_t alu_ops[] = {OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP};
static const uint16_t shift_ops[] = {OP_ROL, OP_ROR, OP_RCL, OP_RCR,
                                     OP_SHL, OP_SHR, OP_SHL, OP_SAR};

static void lockable(struct decoder *d, bool yes)
{
    d->lockable = yes && d->i->mem;
}

static void alu(struct decoder *d, uint8_t opcode)
{
    const enum insn_op op = alu_ops[opcode >> 3];
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    switch (opcode & 7) {
    case 0:
    case 1:
        rm_reg(d, op, FORM_RM_REG, size);
        lockable(d, op != OP_CMP);
        break;
    case 2:
    case 3:
        rm_reg(d, op, FORM_REG_RM, size);
        break;
    default:
        reg_imm(d, op, RAX, size, imm_size(size));
    }
}

static void group_1(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    if (opcode == 0x82 && in_64(d))
        return ud(d);
    modrm(d);
    rm_imm(d, alu_ops[digit(d)], size, opcode == 0x81 ? imm_size(size) : 1);
    lockable(d, digit(d) != 7);
}

static void group_2(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    modrm(d);
    rm_only(d, shift_ops[digit(d)], size);
    if (opcode >= 0xd2) {
        d->i->form = FORM_RM_CL;
        return;
    }
    d->i->form = FORM_RM_IMM;
    d->i->imm = opcode >= 0xd0 ? 1 : next8(d);
}

static void group_3(struct decoder *d, uint8_t opcode)
{
    static const uint16_t ops[] = {OP_TEST, OP_TEST,  OP_NOT, OP_NEG,
                                   OP_MUL,  OP_IMUL1, OP_DIV, OP_IDIV};
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    modrm(d);
    if (digit(d) < 2)
        rm_imm(d, OP_TEST, size, imm_size(size));
    else
        rm_only(d, ops[digit(d)], size);
    lockable(d, digit(d) == 2 || digit(d) == 3);
}

static void far_memory(struct decoder *d, enum insn_op op)
{
    if (!d->i->mem)
        return ud(d);
    rm_only(d, op, operand_size(d));
}

static void group_4_5(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    modrm(d);
    switch (digit(d)) {
    case 0:
        rm_only(d, OP_INC, size);
        return lockable(d, true);
    case 1:
        rm_only(d, OP_DEC, size);
        return lockable(d, true);
    default:
        break;
    }
    if (size == 1)
        return ud(d);
    switch (digit(d)) {
    case 2:
        return rm_only(d, OP_CALL, branch_size(d));
    case 3:
        return far_memory(d, OP_CALL_FAR);
    case 4:
        return rm_only(d, OP_JMP, branch_size(d));
    case 5:
        return far_memory(d, OP_JMP_FAR);
    case 6:
        return rm_only(d, OP_PUSH, stack_size(d));
    default:
        ud(d);
    }
}

/* ---- the one-byte map
 * --------------------------------------------------------------------------------------- */

static void push_segment(struct decoder *d, enum insn_op op, unsigned seg)
{
    if (in_64(d) && seg != SEG_FS && seg != SEG_GS)
        return ud(d);
    as(d, op, FORM_NONE, stack_size(d));
    d->i->reg = seg;
}

static void legacy_only(struct decoder *d, enum insn_op op)
{
    if (in_64(d))
        ud(d);
    else
        plain(d, op);
}

static void moffs(struct decoder *d, uint8_t opcode)
{
    struct insn *i = d->i;
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    i->mem = true;
    i->base = i->index = REG_NONE;
    i->reg = RAX;
    as(d, OP_MOV, opcode & 2 ? FORM_RM_REG : FORM_REG_RM, size);
    if (i->asize == 8)
        i->imm = next_bytes(d, 8);
    else
        i->disp = (int32_t)next_bytes(d, i->asize);
    set_segment(d);
}

static void far_pointer(struct decoder *d, enum insn_op op)
{
    if (in_64(d))
        return ud(d);
    as(d, op, FORM_FAR, operand_size(d));
    d->i->imm = next_bytes(d, d->i->size);
    d->i->imm2 = (uint16_t)next_bytes(d, 2);
}

static void load_far(struct decoder *d, enum insn_op op)
{
    modrm(d);
    if (!d->i->mem)
        return ud(d);
    as(d, op, FORM_REG_RM, operand_size(d));
}

static void mov_from_segment(struct decoder *d)
{
    modrm(d);
    as(d, OP_MOV_FROM_SEG, FORM_RM_REG, d->i->mem ? 2 : operand_size(d));
    d->i->reg = digit(d);
    if (d->i->reg >= SEG_COUNT)
        ud(d);
}

static void mov_to_segment(struct decoder *d)
{
    modrm(d);
    as(d, OP_MOV_TO_SEG, FORM_REG_RM, 2);
    d->i->reg = digit(d);
    if (d->i->reg >= SEG_COUNT || d->i->reg == SEG_CS)
        ud(d);
}

static void port(struct decoder *d, enum insn_op op, unsigned size, bool immediate)
{
    d->i->rm = RAX;
    as(d, op, immediate ? FORM_RM_IMM : FORM_RM, size);
    if (immediate)
        d->i->imm = next8(d);
}

/* String, flag and other instructions of one byte. */
static void one_byte_rest(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;
    const unsigned port_size = opcode & 1 ? (operand_size(d) == 8 ? 4 : operand_size(d)) : 1;

    switch (opcode) {
    case 0x6c:
    case 0x6d:
        return string(d, OP_INS, port_size);
    case 0x6e:
    case 0x6f:
        return string(d, OP_OUTS, port_size);
    case 0xa4:
    case 0xa5:
        return string(d, OP_MOVS, size);
    case 0xa6:
    case 0xa7:
        return string(d, OP_CMPS, size);
    case 0xaa:
    case 0xab:
        return string(d, OP_STOS, size);
    case 0xac:
    case 0xad:
        return string(d, OP_LODS, size);
    case 0xae:
    case 0xaf:
        return string(d, OP_SCAS, size);
    case 0xe4:
    case 0xe5:
        return port(d, OP_IN, port_size, true);
    case 0xe6:
    case 0xe7:
        return port(d, OP_OUT, port_size, true);
    case 0xec:
    case 0xed:
        return port(d, OP_IN, port_size, false);
    case 0xee:
    case 0xef:
        return port(d, OP_OUT, port_size, false);
    case 0xf1:
        return plain(d, OP_INT1);
    case 0xf4:
        return plain(d, OP_HLT);
    case 0xf5:
        return plain(d, OP_CMC);
    case 0xf8:
        return plain(d, OP_CLC);
    case 0xf9:
        return plain(d, OP_STC);
    case 0xfa:
        return plain(d, OP_CLI);
    case 0xfb:
        return plain(d, OP_STI);
    case 0xfc:
        return plain(d, OP_CLD);
    case 0xfd:
        return plain(d, OP_STD);
    case 0xd7:
        string(d, OP_XLAT, 1);
        return;
    default:
        ud(d);
    }
}

static void one_byte_high(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    switch (opcode) {
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return group_2(d, opcode);
    case 0xc2:
        as(d, OP_RET, FORM_IMM, branch_size(d));
        d->i->imm = next_bytes(d, 2);
        return;
    case 0xc3:
        as(d, OP_RET, FORM_NONE, branch_size(d));
        return;
    case 0xc4:
        return load_far(d, OP_LES); /* in 64-bit code VEX, seen before */
    case 0xc5:
        return load_far(d, OP_LDS);
    case 0xc6:
    case 0xc7:
        modrm(d);
        if (digit(d))
            return ud(d);
        return rm_imm(d, OP_MOV, size, imm_size(size));
    case 0xc8:
        as(d, OP_ENTER, FORM_IMM, stack_size(d));
        d->i->imm = next_bytes(d, 2);
        d->i->imm2 = next8(d);
        return;
    case 0xc9:
        as(d, OP_LEAVE, FORM_NONE, stack_size(d));
        return;
    case 0xca:
        as(d, OP_RET_FAR, FORM_IMM, operand_size(d));
        d->i->imm = next_bytes(d, 2);
        return;
    case 0xcb:
        return plain(d, OP_RET_FAR);
    case 0xcc:
        return plain(d, OP_INT3);
    case 0xcd:
        as(d, OP_INT, FORM_IMM, operand_size(d));
        d->i->imm = next8(d);
        return;
    case 0xce:
        return legacy_only(d, OP_INTO);
    case 0xcf:
        return plain(d, OP_IRET);
    case 0xd4:
    case 0xd5:
        if (in_64(d))
            return ud(d);
        as(d, opcode == 0xd4 ? OP_AAM : OP_AAD, FORM_IMM, 1);
        d->i->imm = next8(d);
        return;
    case 0xd8 ... 0xdf:
        modrm(d);
        as(d, OP_X87, FORM_RM, 4);
        return;
    case 0xe0:
        return rel(d, OP_LOOPNE, 1);
    case 0xe1:
        return rel(d, OP_LOOPE, 1);
    case 0xe2:
        return rel(d, OP_LOOP, 1);
    case 0xe3:
        return rel(d, OP_JCXZ, 1);
    case 0xe8:
        return rel(d, OP_CALL, rel_size(d));
    case 0xe9:
        return rel(d, OP_JMP, rel_size(d));
    case 0xea:
        return far_pointer(d, OP_JMP_FAR);
    case 0xeb:
        return rel(d, OP_JMP, 1);
    case 0xf6:
    case 0xf7:
        return group_3(d, opcode);
    case 0xfe:
    case 0xff:
        return group_4_5(d, opcode);
    default:
        one_byte_rest(d, opcode);
    }
}

static void one_byte(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    if (opcode < 0x40 && (opcode & 7) < 6)
        return alu(d, opcode);
    switch (opcode) {
    case 0x06:
    case 0x0e:
    case 0x16:
    case 0x1e:
        return push_segment(d, OP_PUSH_SEG, opcode >> 3 & 3);
    case 0x07:
    case 0x17:
    case 0x1f:
        return push_segment(d, OP_POP_SEG, opcode >> 3 & 3);
    case 0x27:
        return legacy_only(d, OP_DAA);
    case 0x2f:
        return legacy_only(d, OP_DAS);
    case 0x37:
        return legacy_only(d, OP_AAA);
    case 0x3f:
        return legacy_only(d, OP_AAS);
    case 0x40 ... 0x47: /* REX in 64-bit code, seen before */
        return opcode_register(d, OP_INC, opcode, operand_size(d));
    case 0x48 ... 0x4f:
        return opcode_register(d, OP_DEC, opcode, operand_size(d));
    case 0x50 ... 0x57:
        return opcode_register(d, OP_PUSH, opcode, stack_size(d));
    case 0x58 ... 0x5f:
        return opcode_register(d, OP_POP, opcode, stack_size(d));
    case 0x60:
        return legacy_only(d, OP_PUSHA);
    case 0x61:
        return legacy_only(d, OP_POPA);
    case 0x62:
        if (in_64(d))
            return ud(d);
        return load_far(d, OP_BOUND);
    case 0x63:
        if (!in_64(d))
            return rm_reg(d, OP_ARPL, FORM_RM_REG, 2);
        rm_reg(d, OP_MOVSX, FORM_REG_RM, operand_size(d));
        d->i->src_size = d->i->size == 2 ? 2 : 4;
        return;
    case 0x68:
        as(d, OP_PUSH, FORM_IMM, stack_size(d));
        d->i->imm = next_signed(d, imm_size(d->i->size));
        return;
    case 0x6a:
        as(d, OP_PUSH, FORM_IMM, stack_size(d));
        d->i->imm = next_signed(d, 1);
        return;
    case 0x69:
    case 0x6b:
        rm_reg(d, OP_IMUL, FORM_REG_RM_IMM, operand_size(d));
        d->i->imm = next_signed(d, opcode == 0x69 ? imm_size(d->i->size) : 1);
        return;
    case 0x70 ... 0x7f:
        d->i->cond = opcode & 15;
        return rel(d, OP_JCC, 1);
    case 0x80 ... 0x83:
        return group_1(d, opcode);
    case 0x84:
    case 0x85:
        return rm_reg(d, OP_TEST, FORM_RM_REG, size);
    case 0x86:
    case 0x87:
        rm_reg(d, OP_XCHG, FORM_RM_REG, size);
        return lockable(d, true);
    case 0x88:
    case 0x89:
        return rm_reg(d, OP_MOV, FORM_RM_REG, size);
    case 0x8a:
    case 0x8b:
        return rm_reg(d, OP_MOV, FORM_REG_RM, size);
    case 0x8c:
        return mov_from_segment(d);
    case 0x8d:
        modrm(d);
        if (!d->i->mem)
            return ud(d);
        as(d, OP_LEA, FORM_REG_RM, operand_size(d));
        return;
    case 0x8e:
        return mov_to_segment(d);
    case 0x8f:
        modrm(d);
        if (digit(d))
            return ud(d);
        return rm_only(d, OP_POP, stack_size(d));
    case 0x90:
        if (!(d->rex & 1))
            return d->repeat == 0xf3 ? plain(d, OP_PAUSE) : plain(d, OP_NOP);
        /* fall through */
    case 0x91 ... 0x97:
        opcode_register(d, OP_XCHG, opcode, operand_size(d));
        d->i->form = FORM_RM_REG;
        d->i->reg = RAX;
        return;
    case 0x98:
        return plain(d, OP_CBW);
    case 0x99:
        return plain(d, OP_CWD);
    case 0x9a:
        return far_pointer(d, OP_CALL_FAR);
    case 0x9b:
        return plain(d, OP_FWAIT);
    case 0x9c:
        as(d, OP_PUSHF, FORM_NONE, stack_size(d));
        return;
    case 0x9d:
        as(d, OP_POPF, FORM_NONE, stack_size(d));
        return;
    case 0x9e:
    case 0x9f:
        if (in_64(d) && !has(d, CPU_LAHF64))
            return ud(d);
        return plain(d, opcode == 0x9e ? OP_SAHF : OP_LAHF);
    case 0xa0 ... 0xa3:
        return moffs(d, opcode);
    case 0xa8:
    case 0xa9:
        return reg_imm(d, OP_TEST, RAX, size, imm_size(size));
    case 0xb0 ... 0xb7:
        return reg_imm(d, OP_MOV, (opcode & 7) + rex_b(d), 1, 1);
    case 0xb8 ... 0xbf:
        return reg_imm(d, OP_MOV, (opcode & 7) + rex_b(d), operand_size(d), operand_size(d));
    case 0xc0 ... 0xd5:
    case 0xd8 ... 0xe3:
    case 0xe8 ... 0xeb:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff:
        return one_byte_high(d, opcode);
    default:
        one_byte_rest(d, opcode);
    }
}

/* ---- the two-byte map
 * --------------------------------------------------------------------------------------- */

static void sized_rm(struct decoder *d, enum insn_op op, unsigned register_size)
{
    rm_only(d, op, d->i->mem ? 2 : register_size);
}

static void group_6(struct decoder *d)
{
    static const uint16_t ops[] = {OP_SLDT, OP_STR,  OP_LLDT, OP_LTR,
                                   OP_VERR, OP_VERW, OP_UD,   OP_UD};

    modrm(d);
    if (digit(d) < 2)
        sized_rm(d, ops[digit(d)], operand_size(d));
    else
        rm_only(d, ops[digit(d)], 2);
}

/* 0f 01 with a register: instructions without operands. */
static void group_7_register(struct decoder *d)
{
    switch (d->i->modrm) {
    case 0xc1:
    case 0xd9:
        return plain(d, OP_VMCALL);
    case 0xca:
        return plain(d, OP_CLAC);
    case 0xcb:
        return plain(d, OP_STAC);
    case 0xd0:
        return plain(d, OP_XGETBV);
    case 0xd1:
        return plain(d, OP_XSETBV);
    case 0xf8:
        if (!in_64(d))
            return ud(d);
        return plain(d, OP_SWAPGS);
    case 0xf9:
        return plain(d, OP_RDTSCP);
    default:
        break;
    }
    if (digit(d) == 4)
        rm_only(d, OP_SMSW, operand_size(d));
    else if (digit(d) == 6)
        rm_only(d, OP_LMSW, 2);
    else
        ud(d);
}

static void group_7(struct decoder *d)
{
    static const uint16_t ops[] = {OP_SGDT, OP_SIDT, OP_LGDT, OP_LIDT,
                                   OP_SMSW, OP_UD,   OP_LMSW, OP_INVLPG};

    modrm(d);
    if (!d->i->mem)
        return group_7_register(d);
    if (digit(d) == 4 || digit(d) == 6)
        return rm_only(d, ops[digit(d)], 2);
    rm_only(d, ops[digit(d)], digit(d) == 7 ? natural_size(d) : in_64(d) ? 8 : operand_size(d));
}

static void group_8(struct decoder *d)
{
    static const uint16_t ops[] = {OP_BT, OP_BTS, OP_BTR, OP_BTC};

    modrm(d);
    if (digit(d) < 4)
        return ud(d);
    rm_imm(d, ops[digit(d) - 4], operand_size(d), 1);
    d->i->imm &= 0xff;
    lockable(d, digit(d) != 4);
}

static void group_9(struct decoder *d)
{
    modrm(d);
    if (d->i->mem) {
        if (digit(d) != 1)
            return ud(d);
        rm_only(d, d->rex & 8 ? OP_CMPXCHG16B : OP_CMPXCHG8B, d->rex & 8 ? 16 : 8);
        return lockable(d, true);
    }
    if (digit(d) == 6 && !d->repeat)
        rm_only(d, OP_RDRAND, operand_size(d));
    else if (digit(d) == 7 && d->repeat == 0xf3)
        rm_only(d, OP_RDPID, natural_size(d));
    else if (digit(d) == 7 && !d->repeat)
        rm_only(d, OP_RDSEED, operand_size(d));
    else
        ud(d);
}

static void group_15_register(struct decoder *d)
{
    static const uint16_t bases[] = {OP_RDFSBASE, OP_RDGSBASE, OP_WRFSBASE, OP_WRGSBASE};

    if (d->repeat == 0xf3) {
        if (digit(d) > 3 || !in_64(d))
            return ud(d);
        return rm_only(d, bases[digit(d)], wide_size(d));
    }
    if (d->repeat || d->opsize)
        return ud(d);
    switch (digit(d)) {
    case 5:
        return plain(d, OP_LFENCE);
    case 6:
        return plain(d, OP_MFENCE);
    case 7:
        return plain(d, OP_SFENCE);
    default:
        ud(d);
    }
}

static void group_15(struct decoder *d)
{
    static const uint16_t ops[] = {OP_FXSAVE, OP_FXRSTOR, OP_LDMXCSR,  OP_STMXCSR,
                                   OP_XSAVE,  OP_XRSTOR,  OP_XSAVEOPT, OP_CLFLUSH};

    modrm(d);
    if (!d->i->mem)
        return group_15_register(d);
    if (d->repeat)
        return ud(d);
    if (d->opsize && digit(d) == 7 && !has(d, CPU_CLFLUSHOPT))
        return ud(d);
    if (d->opsize && digit(d) == 6 && has(d, CPU_CLWB))
        return rm_only(d, OP_CLFLUSH, 1);
    if (d->opsize && digit(d) != 7)
        return ud(d);
    rm_only(d, ops[digit(d)], wide_size(d));
}

static void nop_rm(struct decoder *d)
{
    modrm(d);
    rm_only(d, OP_NOP, operand_size(d));
}

static void extend(struct decoder *d, enum insn_op op, unsigned source)
{
    rm_reg(d, op, FORM_REG_RM, operand_size(d));
    d->i->src_size = source;
    if (!d->i->mem && source == 1)
        d->i->rm = byte_register(d, d->i->rm);
}

static void counted(struct decoder *d, enum insn_op with_f3, enum insn_op without,
                    enum cpu_feature f)
{
    rm_reg(d, d->repeat == 0xf3 && has(d, f) ? with_f3 : without, FORM_REG_RM, operand_size(d));
}

static void control_register(struct decoder *d, enum insn_op op, enum insn_form form)
{
    modrm(d);
    d->i->mem = false; /* mod is ignored, and what it would bring is not there */
    d->i->rm = (d->i->modrm & 7) + rex_b(d);
    as(d, op, form, natural_size(d));
}

static unsigned vector_prefix(const struct decoder *d)
{
    return d->repeat == 0xf2   ? VEC_PREFIX_F2
           : d->repeat == 0xf3 ? VEC_PREFIX_F3
           : d->opsize         ? VEC_PREFIX_66
                               : VEC_PREFIX_NONE;
}

static void vector(struct decoder *d, unsigned map, uint8_t opcode)
{
    struct insn *i = d->i;
    const struct vec_op *v;

    modrm(d);
    i->vec = vec_find(map, vector_prefix(d), opcode, i->modrm);
    v = &vec_ops[i->vec];
    if (!i->vec || !has(d, v->feature) || (i->mem ? !v->mem_size : v->no_reg_form))
        return ud(d);
    as(d, OP_VEC, FORM_REG_RM, d->rex & 8 ? 8 : 4);
    if (v->reg == VEC_OPERAND_MMX)
        i->reg &= 7;
    if (!i->mem && v->rm == VEC_OPERAND_MMX)
        i->rm &= 7;
    if (v->implicit & VEC_IMPLICIT_RDI)
        i->seg = d->segment != NO_SEGMENT ? d->segment : SEG_DS;
    if (v->imm8)
        i->imm = next8(d);
}

static void two_byte_system(struct decoder *d, uint8_t opcode)
{
    switch (opcode) {
    case 0x00:
        return group_6(d);
    case 0x01:
        return group_7(d);
    case 0x02:
    case 0x03:
        rm_reg(d, opcode == 2 ? OP_LAR : OP_LSL, FORM_REG_RM, operand_size(d));
        d->i->src_size = 2;
        return;
    case 0x05:
        if (!in_64(d))
            return ud(d);
        return plain(d, OP_SYSCALL);
    case 0x06:
        return plain(d, OP_CLTS);
    case 0x07:
        if (!in_64(d))
            return ud(d);
        return plain(d, OP_SYSRET);
    case 0x08:
        return plain(d, OP_INVD);
    case 0x09:
        return plain(d, OP_WBINVD);
    case 0x0d:
        modrm(d);
        if (!d->i->mem)
            return ud(d);
        return rm_only(d, OP_NOP, 1); /* PREFETCH, PREFETCHW */
    case 0x18 ... 0x1f:
        return nop_rm(d);
    case 0x20:
        return control_register(d, OP_MOV_FROM_CR, FORM_RM_REG);
    case 0x21:
        return control_register(d, OP_MOV_FROM_DR, FORM_RM_REG);
    case 0x22:
        return control_register(d, OP_MOV_TO_CR, FORM_REG_RM);
    case 0x23:
        return control_register(d, OP_MOV_TO_DR, FORM_REG_RM);
    case 0x30:
        return plain(d, OP_WRMSR);
    case 0x31:
        return plain(d, OP_RDTSC);
    case 0x32:
        return plain(d, OP_RDMSR);
    case 0x33:
        return plain(d, OP_RDPMC);
    case 0x34:
        return plain(d, OP_SYSENTER);
    case 0x35:
        return plain(d, OP_SYSEXIT);
    case 0x77:
        return d->opsize || d->repeat ? ud(d) : plain(d, OP_EMMS);
    case 0xa2:
        return plain(d, OP_CPUID);
    case 0xae:
        return group_15(d);
    case 0xc7:
        return group_9(d);
    default:
        vector(d, 1, opcode);
    }
}

static void two_byte(struct decoder *d, uint8_t opcode)
{
    const unsigned size = opcode & 1 ? operand_size(d) : 1;

    switch (opcode) {
    case 0x0b:
        return ud(d);
    case 0xb9:
    case 0xff: /* UD1, UD0 have operands */
        modrm(d);
        return ud(d);
    case 0x40 ... 0x4f:
        d->i->cond = opcode & 15;
        return rm_reg(d, OP_CMOV, FORM_REG_RM, operand_size(d));
    case 0x80 ... 0x8f:
        d->i->cond = opcode & 15;
        return rel(d, OP_JCC, rel_size(d));
    case 0x90 ... 0x9f:
        d->i->cond = opcode & 15;
        modrm(d);
        return rm_only(d, OP_SETCC, 1);
    case 0xa0:
    case 0xa8:
        return push_segment(d, OP_PUSH_SEG, opcode == 0xa0 ? SEG_FS : SEG_GS);
    case 0xa1:
    case 0xa9:
        return push_segment(d, OP_POP_SEG, opcode == 0xa1 ? SEG_FS : SEG_GS);
    case 0xa3:
        return rm_reg(d, OP_BT, FORM_RM_REG, operand_size(d));
    case 0xab:
    case 0xb3:
    case 0xbb:
        rm_reg(d,
               opcode == 0xab   ? OP_BTS
               : opcode == 0xb3 ? OP_BTR
                                : OP_BTC,
               FORM_RM_REG, operand_size(d));
        return lockable(d, true);
    case 0xa4:
    case 0xac:
        rm_reg(d, opcode == 0xa4 ? OP_SHLD : OP_SHRD, FORM_RM_REG_IMM, operand_size(d));
        d->i->imm = next8(d);
        return;
    case 0xa5:
    case 0xad:
        return rm_reg(d, opcode == 0xa5 ? OP_SHLD : OP_SHRD, FORM_RM_REG_CL, operand_size(d));
    case 0xaf:
        return rm_reg(d, OP_IMUL, FORM_REG_RM, operand_size(d));
    case 0xb0:
    case 0xb1:
        rm_reg(d, OP_CMPXCHG, FORM_RM_REG, size);
        return lockable(d, true);
    case 0xb2:
        return load_far(d, OP_LSS);
    case 0xb4:
        return load_far(d, OP_LFS);
    case 0xb5:
        return load_far(d, OP_LGS);
    case 0xb6:
    case 0xb7:
        return extend(d, OP_MOVZX, opcode & 1 ? 2 : 1);
    case 0xbe:
    case 0xbf:
        return extend(d, OP_MOVSX, opcode & 1 ? 2 : 1);
    case 0xb8:
        if (d->repeat != 0xf3)
            return ud(d);
        return rm_reg(d, OP_POPCNT, FORM_REG_RM, operand_size(d));
    case 0xba:
        return group_8(d);
    case 0xbc:
        return counted(d, OP_TZCNT, OP_BSF, CPU_BMI1);
    case 0xbd:
        return counted(d, OP_LZCNT, OP_BSR, CPU_LZCNT);
    case 0xc0:
    case 0xc1:
        rm_reg(d, OP_XADD, FORM_RM_REG, size);
        return lockable(d, true);
    case 0xc3:
        modrm(d);
        if (!d->i->mem || d->repeat || d->opsize)
            return ud(d);
        as(d, OP_MOVNTI, FORM_RM_REG, wide_size(d));
        return;
    case 0xc8 ... 0xcf:
        return opcode_register(d, OP_BSWAP, opcode, operand_size(d));
    default:
        two_byte_system(d, opcode);
    }
}

/* ---- the three-byte maps
 * ------------------------------------------------------------------------------------ */

static void crc32(struct decoder *d, uint8_t opcode)
{
    modrm(d);
    as(d, OP_CRC32, FORM_REG_RM, wide_size(d));
    d->i->src_size = opcode & 1 ? operand_size(d) : 1;
    if (!d->i->mem)
        d->i->rm = general(d, d->i->rm, d->i->src_size);
}

static void three_byte_38(struct decoder *d, uint8_t opcode)
{
    switch (opcode) {
    case 0x82:
        if (d->opsize && !d->repeat) {
            modrm(d);
            if (!d->i->mem)
                return ud(d);
            as(d, OP_INVPCID, FORM_REG_RM, natural_size(d));
            return;
        }
        break;
    case 0xf0:
    case 0xf1:
        if (d->repeat == 0xf2)
            return crc32(d, opcode);
        if (d->repeat)
            return ud(d);
        modrm(d);
        if (!d->i->mem)
            return ud(d);
        as(d, OP_MOVBE, opcode == 0xf0 ? FORM_REG_RM : FORM_RM_REG, operand_size(d));
        return;
    case 0xf6:
        if (d->repeat == 0xf3 || (d->opsize && !d->repeat)) {
            modrm(d);
            as(d, d->repeat ? OP_ADOX : OP_ADCX, FORM_REG_RM, wide_size(d));
            return;
        }
        break;
    default:
        break;
    }
    vector(d, 2, opcode);
}

/* ---- VEX: the BMI instructions
 * ------------------------------------------------------------------------------ */

static void vex_3(struct decoder *d, uint8_t opcode, unsigned pp)
{
    struct insn *i = d->i;
    const unsigned size = in_64(d) && (d->rex & 8) ? 8 : 4;

    switch (opcode << 4 | pp) {
    case 0xf20:
        as(d, OP_ANDN, FORM_REG_VVVV_RM, size);
        return;
    case 0xf30:
        switch (digit(d)) {
        case 1:
            as(d, OP_BLSR, FORM_VVVV_RM, size);
            return;
        case 2:
            as(d, OP_BLSMSK, FORM_VVVV_RM, size);
            return;
        case 3:
            as(d, OP_BLSI, FORM_VVVV_RM, size);
            return;
        default:
            return ud(d);
        }
    case 0xf50:
        as(d, OP_BZHI, FORM_REG_RM_VVVV, size);
        return;
    case 0xf52:
        as(d, OP_PEXT, FORM_REG_VVVV_RM, size);
        return;
    case 0xf53:
        as(d, OP_PDEP, FORM_REG_VVVV_RM, size);
        return;
    case 0xf63:
        as(d, OP_MULX, FORM_REG_VVVV_RM, size);
        return;
    case 0xf70:
        as(d, OP_BEXTR, FORM_REG_RM_VVVV, size);
        return;
    case 0xf71:
        as(d, OP_SHLX, FORM_REG_RM_VVVV, size);
        return;
    case 0xf72:
        as(d, OP_SARX, FORM_REG_RM_VVVV, size);
        return;
    case 0xf73:
        as(d, OP_SHRX, FORM_REG_RM_VVVV, size);
        return;
    default:
        i->op = OP_UD;
    }
}

/* pp: 0 none, 1: 66, 2: f3, 3: f2. L is in bit 2 of the payload's last byte. */
static void vex(struct decoder *d, uint8_t first)
{
    struct insn *i = d->i;
    uint8_t a = next8(d), b = a;
    unsigned map = 1;

    if (d->opsize || d->repeat || d->lock || d->rex)
        return ud(d);
    d->rex = 0x40 | (~a >> 5 & 4);
    if (first == 0xc4) {
        b = next8(d);
        d->rex |= (~a >> 5 & 3) | (b >> 4 & 8);
        map = a & 31;
    }
    i->prefix |= PREFIX_VEX;
    i->vvvv = ~b >> 3 & 15;
    i->opcode = next8(d);
    i->map = map;
    if (b & 4 || (map != 2 && map != 3))
        return ud(d);
    modrm(d);
    if (map == 2)
        return vex_3(d, i->opcode, b & 3);
    if (i->opcode != 0xf0 || (b & 3) != 3 || i->vvvv)
        return ud(d);
    as(d, OP_RORX, FORM_REG_RM_IMM, in_64(d) && (d->rex & 8) ? 8 : 4);
    i->imm = next8(d);
}

/* ---- prefixes
 * -----------------------------------------------------------------------------------------------
 */

/* The first byte that is no legacy prefix. */
static uint8_t prefixes(struct decoder *d)
{
    for (;;) {
        const uint8_t b = next8(d);

        switch (b) {
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e: /* in 64-bit code these count for nothing, but take the place of an earlier one
                    */
            if (d->width != CODE_64)
                d->segment = b >> 3 & 3;
            break;
        case 0x64:
            d->segment = SEG_FS;
            break;
        case 0x65:
            d->segment = SEG_GS;
            break;
        case 0x66:
            d->opsize = true;
            break;
        case 0x67:
            d->i->prefix |= PREFIX_ADDRSIZE;
            break;
        case 0xf0:
            d->lock = true;
            break;
        case 0xf2:
        case 0xf3:
            d->repeat = b;
            break;
        default:
            if (d->width == CODE_64 && (b & 0xf0) == 0x40) {
                d->rex = b; /* counts only right before the opcode */
                continue;
            }
            return b;
        }
        d->rex = 0;
        if (d->out || d->too_long)
            return 0;
    }
}

static void set_prefixes(struct decoder *d)
{
    struct insn *i = d->i;
    const bool a = i->prefix & PREFIX_ADDRSIZE;

    if (d->lock)
        i->prefix |= PREFIX_LOCK;
    if (d->repeat)
        i->prefix |= d->repeat == 0xf3 ? PREFIX_REP : PREFIX_REPNE;
    if (d->opsize)
        i->prefix |= PREFIX_OPSIZE;
    if (d->rex)
        i->prefix |= PREFIX_REX | (d->rex & 8 ? PREFIX_REX_W : 0);
    i->asize = d->width == CODE_64 ? (a ? 4 : 8) : (d->width == CODE_16) == a ? 4 : 2;
}

/* C4 and C5 are VEX in 64-bit code, and elsewhere when what follows could not be LES' or LDS'
 * memory operand. */
static bool is_vex(const struct decoder *d, uint8_t b)
{
    if (b != 0xc4 && b != 0xc5)
        return false;
    return d->width == CODE_64 || (d->at < d->available && d->bytes[d->at] >= 0xc0);
}

static void opcode(struct decoder *d, uint8_t b)
{
    struct insn *i = d->i;

    if (is_vex(d, b))
        return vex(d, b);
    i->opcode = b;
    if (b != 0x0f)
        return one_byte(d, b);
    b = i->opcode = next8(d);
    i->map = 1;
    if (b == 0x38 || b == 0x3a) {
        i->map = b == 0x38 ? 2 : 3;
        i->opcode = next8(d);
        if (d->out || d->too_long)
            return;
        if (i->map == 2)
            three_byte_38(d, i->opcode);
        else
            vector(d, 3, i->opcode);
        return;
    }
    two_byte(d, b);
}

static const uint8_t op_feature[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) [OP_##name] = CPU_##feature,
    INSN_OPS(OP)
#undef OP
};

enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned available,
                               enum code_width width, uint64_t features)
{
    struct decoder d = {
        .i = i,
        .bytes = bytes,
        .available = available,
        .width = width,
        .features = features | CPU_FEATURE(CPU_BASE),
        .segment = NO_SEGMENT,
    };
    uint8_t first;

    *i = (struct insn){.base = REG_NONE, .index = REG_NONE, .seg = SEG_DS};
    first = prefixes(&d);
    if (!d.out && !d.too_long) {
        set_prefixes(&d);
        opcode(&d, first);
    }
    if (d.too_long)
        return DECODE_TOO_LONG;
    if (d.out)
        return DECODE_SHORT;
    if ((d.lock && !d.lockable) || !(d.features >> op_feature[i->op] & 1))
        ud(&d);
    i->len = (uint8_t)d.at;
    return DECODE_OK;
}

static const char *const op_names[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) #name,
    INSN_OPS(OP)
#undef OP
};

const char *insn_op_name(enum insn_op op)
{
    return op < OP_COUNT ? op_names[op] : "?";
}

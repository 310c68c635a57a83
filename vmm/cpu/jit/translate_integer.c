/*
 * translate_integer.c - integer instructions as host code: the same operation with its operands
 * patched.
 */
#include "cpu/jit/translate_internal.h"

enum { READ = 1, WRITE = 2 };

/* An instruction as it will stand in host code. */
struct shape {
    struct opcode opcode;
    int digit;        /* ModRM.reg when it is part of the opcode, -1: a register */
    uint8_t reg_size; /* bytes of the register operand */
    uint8_t rm_size;
    uint8_t rm; /* READ, WRITE: how the rm operand is used */
    bool reg_written;
    uint8_t imm_bytes;
};

struct operand {
    unsigned host;
    bool byte, high; /* high: AH to BH */
};

static struct operand register_operand(struct translation *x, unsigned guest, unsigned size,
                                       unsigned scratch)
{
    if (guest >= REG_AH && size == 1)
        return (struct operand){.host = guest - REG_AH + 4, .byte = true, .high = true};
    return (struct operand){.host = use_register(x, guest, scratch), .byte = size == 1};
}

static bool wants_rex(struct operand o)
{
    return o.host >= 8 || (o.byte && !o.high && o.host >= 4);
}

static bool is_high(unsigned guest, unsigned size)
{
    return size == 1 && guest >= REG_AH;
}

/* AH to BH cannot stand beside a REX prefix, which a memory operand in r11 or a mapped register
 * would need. */
static bool high_operands_fit(const struct insn *i, const struct shape *s)
{
    const bool reg_high = s->digit < 0 && is_high(i->reg, s->reg_size);
    const bool rm_high = !i->mem && is_high(i->rm, s->rm_size);

    if (!reg_high && !rm_high)
        return true;
    if (i->mem || s->opcode.size == 8)
        return false;
    if (!reg_high && s->digit < 0)
        return i->reg < 8 && !in_memory(i->reg) && i->reg != RSP &&
               !(s->reg_size == 1 && i->reg >= 4);
    if (!rm_high)
        return i->rm < 8 && i->rm != RSP && !(s->rm_size == 1 && i->rm >= 4);
    return true;
}

static void emit_immediate(struct emitter *e, uint64_t imm, unsigned bytes)
{
    emit_bytes(e, &imm, bytes);
}

static void emit_shape_registers(struct emitter *e, const struct shape *s, struct operand reg,
                                 struct operand rm)
{
    emit_opcode(e, s->opcode, reg.host, 0, rm.host, wants_rex(reg) || wants_rex(rm));
    emit8(e, 0xc0 | (reg.host & 7) << 3 | (rm.host & 7));
}

static void emit_shape_memory(struct emitter *e, const struct shape *s, struct operand reg,
                              int32_t disp)
{
    emit_rmx(e, s->opcode, reg.host, H_R11, HOST_NONE, 0, disp);
}

/* A load whose address may come from the load before: MOV, MOVZX, MOVSX into a register that is the
 * host's. It needs no scratch register and no flags between the look into the TLB and itself. */
static bool is_lone_load(const struct translation *x, const struct insn *i, const struct shape *s)
{
    const struct insn_flags f = insn_flags(i);

    return i->mem && !x->in_row && s->rm == READ && s->reg_written && !f.reads && !f.writes &&
           !is_high(i->reg, s->reg_size) && !in_memory(i->reg);
}

static bool emit_lone_load(struct translation *x, const struct insn *i, const struct shape *s)
{
    if (!emit_address(x, i, true))
        return false;
    emit_access_apart(x, TLB_READ, s->rm_size);
    emit_rmx(&x->e, s->opcode, jit_host_register[i->reg], H_R11, H_R10, 0, 0);
    return true;
}

static bool emit_shape(struct translation *x, const struct insn *i, const struct shape *s)
{
    struct emitter *e = &x->e;
    struct operand reg = {.host = s->digit < 0 ? 0 : s->digit}, rm = {0};
    int32_t disp = 0;

    if (!high_operands_fit(i, s) || (i->mem && !address_emittable(i)))
        return false;
    if (is_lone_load(x, i, s))
        return emit_lone_load(x, i, s);
    if (i->mem)
        emit_operand(x, i, s->rm & WRITE ? TLB_WRITE : TLB_READ, s->rm_size, false, &disp);
    flags_for(x, i);
    if (s->digit < 0)
        reg = register_operand(x, i->reg, s->reg_size, H_R10);
    if (i->mem) {
        emit_shape_memory(e, s, reg, disp);
    } else {
        rm = register_operand(x, i->rm, s->rm_size, H_R11);
        emit_shape_registers(e, s, reg, rm);
    }
    emit_immediate(e, i->imm, s->imm_bytes);
    if (s->reg_written && !is_high(i->reg, s->reg_size))
        put_register(x, i->reg, reg.host);
    if (!i->mem && (s->rm & WRITE) && !is_high(i->rm, s->rm_size))
        put_register(x, i->rm, rm.host);
    flags_after(x, i);
    return true;
}

/* ---- shapes
 * ------------------------------------------------------------------------------------------------
 */

static unsigned imm_bytes(unsigned size)
{
    return size == 8 ? 4 : size;
}

/* One-byte opcodes whose low bit says "not bytes". */
static struct opcode by_size(const struct insn *i, uint8_t byte)
{
    struct opcode o = op1(i->size, byte | (i->size != 1));

    if (i->prefix & PREFIX_LOCK)
        o.prefix = 0xf0;
    return o;
}

static struct opcode by_size2(const struct insn *i, uint8_t byte)
{
    struct opcode o = by_size(i, byte);

    o.map = 1;
    return o;
}

static bool alu(struct translation *x, const struct insn *i, unsigned digit)
{
    const uint8_t rm = i->op == OP_CMP ? READ : READ | WRITE;
    struct shape s = {.digit = -1, .reg_size = i->size, .rm_size = i->size, .rm = rm};

    switch (i->form) {
    case FORM_RM_REG:
        s.opcode = by_size(i, digit << 3);
        return emit_shape(x, i, &s);
    case FORM_REG_RM:
        s.opcode = by_size(i, digit << 3 | 2);
        s.rm = READ;
        s.reg_written = i->op != OP_CMP;
        return emit_shape(x, i, &s);
    case FORM_RM_IMM:
        s.opcode = by_size(i, 0x80);
        s.digit = digit;
        s.imm_bytes = imm_bytes(i->size);
        if (i->size != 1 && (int64_t)i->imm >= -128 && (int64_t)i->imm <= 127) {
            s.opcode.byte = 0x83;
            s.imm_bytes = 1;
        }
        return emit_shape(x, i, &s);
    default:
        return false;
    }
}

static bool mov(struct translation *x, const struct insn *i)
{
    struct shape s = {.digit = -1, .reg_size = i->size, .rm_size = i->size, .rm = WRITE};

    switch (i->form) {
    case FORM_RM_REG:
        s.opcode = by_size(i, 0x88);
        return emit_shape(x, i, &s);
    case FORM_REG_RM:
        s.opcode = by_size(i, 0x8a);
        s.rm = READ;
        s.reg_written = true;
        return emit_shape(x, i, &s);
    case FORM_RM_IMM:
        if (!i->mem && i->size >= 4) {
            const unsigned host = in_memory(i->rm) ? H_R11 : jit_host_register[i->rm];

            emit_imm(&x->e, host, i->size == 4 ? (uint32_t)i->imm : i->imm);
            put_register(x, i->rm, host);
            return true;
        }
        s.opcode = by_size(i, 0xc6);
        s.digit = 0;
        s.imm_bytes = imm_bytes(i->size);
        return emit_shape(x, i, &s);
    default:
        return false;
    }
}

static bool extend(struct translation *x, const struct insn *i)
{
    struct shape s = {
        .digit = -1, .reg_size = i->size, .rm_size = i->src_size, .rm = READ, .reg_written = true};

    if (i->src_size == 4)
        s.opcode = op1(i->size, 0x63);
    else
        s.opcode = op2(i->size, (i->op == OP_MOVZX ? 0xb6 : 0xbe) | (i->src_size == 2));
    return emit_shape(x, i, &s);
}

static bool lea(struct translation *x, const struct insn *i)
{
    unsigned host = in_memory(i->reg) ? H_R10 : jit_host_register[i->reg];

    if (!emit_address(x, i, false))
        return false;
    if (i->size == 2) {
        host = use_register(x, i->reg, H_R10); /* the upper bits stay */
        emit_rr(&x->e, op1(2, 0x8b), host, H_R11);
    } else {
        emit_rr(&x->e, op1(i->size, 0x8b), host, H_R11);
    }
    put_register(x, i->reg, host);
    return true;
}

/* One operand: F6/F7 and FE/FF groups. */
static bool unary(struct translation *x, const struct insn *i, uint8_t byte, unsigned digit,
                  uint8_t rm)
{
    const struct shape s = {
        .opcode = by_size(i, byte), .digit = digit, .rm_size = i->size, .rm = rm};

    return i->form == FORM_RM && emit_shape(x, i, &s);
}

static bool test(struct translation *x, const struct insn *i)
{
    struct shape s = {.digit = -1,
                      .reg_size = i->size,
                      .rm_size = i->size,
                      .rm = READ,
                      .opcode = by_size(i, 0x84)};

    if (i->form == FORM_RM_IMM) {
        s.opcode = by_size(i, 0xf6);
        s.digit = 0;
        s.imm_bytes = imm_bytes(i->size);
    } else if (i->form != FORM_RM_REG && i->form != FORM_REG_RM) {
        return false;
    }
    return emit_shape(x, i, &s);
}

static bool shift(struct translation *x, const struct insn *i, unsigned digit)
{
    struct shape s = {.digit = digit, .rm_size = i->size, .rm = READ | WRITE};

    if (i->form == FORM_RM_IMM) {
        s.opcode = by_size(i, 0xc0);
        s.imm_bytes = 1;
    } else if (i->form == FORM_RM_CL) {
        s.opcode = by_size(i, 0xd2);
    } else {
        return false;
    }
    return emit_shape(x, i, &s);
}

static bool double_shift(struct translation *x, const struct insn *i, uint8_t byte)
{
    struct shape s = {.digit = -1, .reg_size = i->size, .rm_size = i->size, .rm = READ | WRITE};

    s.opcode = op2(i->size, byte | (i->form == FORM_RM_REG_CL));
    if (i->form == FORM_RM_REG_IMM)
        s.imm_bytes = 1;
    else if (i->form != FORM_RM_REG_CL)
        return false;
    return emit_shape(x, i, &s);
}

static bool imul(struct translation *x, const struct insn *i)
{
    struct shape s = {.opcode = op2(i->size, 0xaf),
                      .digit = -1,
                      .reg_size = i->size,
                      .rm_size = i->size,
                      .rm = READ,
                      .reg_written = true};

    if (i->form == FORM_REG_RM_IMM) {
        s.opcode = op1(i->size, 0x69);
        s.imm_bytes = imm_bytes(i->size);
    }
    return emit_shape(x, i, &s);
}

/* A register as bit number reaches beyond the memory operand: the word that has the bit is the
 * operand. */
static bool bit_test_string(struct translation *x, const struct insn *i, unsigned digit)
{
    struct emitter *e = &x->e;
    const struct shape s = {.opcode = {.size = i->size,
                                       .prefix = i->prefix & PREFIX_LOCK ? 0xf0 : 0,
                                       .map = 1,
                                       .byte = 0x83 | digit << 3}};

    if (i->size < 4 || i->asize != 8 || !address_emittable(i))
        return false;
    flags_lose(x, flags_live_before(x));
    emit_address(x, i, true);
    emit_rr(e, op1(8, i->size == 8 ? 0x8b : 0x63), H_R10, use_register(x, i->reg, H_R10));
    emit_rr(e, op1(8, 0xc1), 7, H_R10); /* sar */
    emit8(e, i->size == 8 ? 6 : 5);
    emit_rmx(e, op1(8, 0x8d), H_R11, H_R11, H_R10, i->size == 8 ? 3 : 2, 0);
    emit_access(x, i->op == OP_BT ? TLB_READ : TLB_WRITE, i->size);
    emit_rr(e, op1(4, 0x8b), H_R10, use_register(x, i->reg, H_R10));
    emit_alu_imm(e, 4, 4, H_R10, i->size * 8 - 1);
    emit_store(e, H_R10, ENV(scratch));
    flags_for(x, i);
    emit_load(e, H_R10, ENV(scratch));
    emit_shape_memory(e, &s, (struct operand){.host = H_R10}, 0);
    flags_after(x, i);
    return true;
}

static bool bit_test(struct translation *x, const struct insn *i, unsigned digit)
{
    struct shape s = {.digit = -1,
                      .reg_size = i->size,
                      .rm_size = i->size,
                      .rm = i->op == OP_BT ? READ : READ | WRITE};

    if (i->form == FORM_RM_IMM) {
        s.opcode = op2(i->size, 0xba);
        s.digit = digit;
        s.imm_bytes = 1;
    } else if (i->form == FORM_RM_REG && i->mem) {
        return bit_test_string(x, i, digit);
    } else if (i->form == FORM_RM_REG) {
        s.opcode = op2(i->size, 0x83 | digit << 3);
    } else {
        return false;
    }
    if (i->prefix & PREFIX_LOCK)
        s.opcode.prefix = 0xf0;
    return emit_shape(x, i, &s);
}

/* reg := operation of rm, map 0f; prefix f3 for POPCNT, TZCNT, LZCNT. */
static bool count(struct translation *x, const struct insn *i, uint8_t prefix, uint8_t byte)
{
    struct shape s = {.opcode = op2(i->size, byte),
                      .digit = -1,
                      .reg_size = i->size,
                      .rm_size = i->size,
                      .rm = READ,
                      .reg_written = true};

    s.opcode.prefix = prefix;
    return i->form == FORM_REG_RM && emit_shape(x, i, &s);
}

static bool cmov(struct translation *x, const struct insn *i)
{
    const struct shape s = {.opcode = op2(i->size, 0x40 | i->cond),
                            .digit = -1,
                            .reg_size = i->size,
                            .rm_size = i->size,
                            .rm = READ,
                            .reg_written = true};

    return emit_shape(x, i, &s);
}

static bool setcc(struct translation *x, const struct insn *i)
{
    struct shape s = {.opcode = op2(4, 0x90 | i->cond), .digit = 0, .rm_size = 1, .rm = WRITE};

    return emit_shape(x, i, &s);
}

static bool exchange(struct translation *x, const struct insn *i, struct opcode o)
{
    const struct shape s = {.opcode = o,
                            .digit = -1,
                            .reg_size = i->size,
                            .rm_size = i->size,
                            .rm = READ | WRITE,
                            .reg_written = i->op != OP_CMPXCHG};

    return emit_shape(x, i, &s);
}

static bool cmpxchg_wide(struct translation *x, const struct insn *i)
{
    const unsigned bytes = i->op == OP_CMPXCHG16B ? 16 : 8;
    struct shape s = {
        .opcode = op2(bytes == 16 ? 8 : 4, 0xc7), .digit = 1, .rm_size = bytes, .rm = READ | WRITE};

    if (!i->mem || !address_emittable(i))
        return false;
    if (i->prefix & PREFIX_LOCK)
        s.opcode.prefix = 0xf0;
    if (bytes == 8)
        return emit_shape(x, i, &s);
    emit_address(x, i, true);
    emit_access(x, TLB_WRITE, 16);
    emit_alignment_check(x); /* #GP is the interpreter's */
    flags_for(x, i);
    emit_shape_memory(&x->e, &s, (struct operand){.host = 1}, 0);
    flags_after(x, i);
    return true;
}

static bool bswap(struct translation *x, const struct insn *i)
{
    const unsigned host = use_register(x, i->rm, H_R11);

    emit_opcode(&x->e, (struct opcode){.size = i->size, .map = 1, .byte = 0xc8 | (host & 7)}, 0, 0,
                host, false);
    put_register(x, i->rm, host);
    return true;
}

/* Operands that are not in ModRM: the instruction as it is. */
static bool plain(struct translation *x, const struct insn *i, unsigned size, uint8_t byte)
{
    flags_for(x, i);
    if (size == 2)
        emit8(&x->e, 0x66);
    if (size == 8)
        emit8(&x->e, 0x48);
    emit8(&x->e, byte);
    flags_after(x, i);
    return true;
}

static bool fence(struct translation *x, uint8_t modrm)
{
    emit_bytes(&x->e, (const uint8_t[]){0x0f, 0xae, modrm}, 3);
    return true;
}

static bool crc32(struct translation *x, const struct insn *i)
{
    struct shape s = {.opcode = {.size = i->src_size == 1 ? 4 : i->src_size,
                                 .prefix = 0xf2,
                                 .map = 2,
                                 .byte = 0xf0 | (i->src_size != 1)},
                      .digit = -1,
                      .reg_size = 4,
                      .rm_size = i->src_size,
                      .rm = READ,
                      .reg_written = true};

    if (i->size == 8) /* with REX.W the upper half is cleared all the same */
        s.opcode.size = 8;
    return emit_shape(x, i, &s);
}

bool translate_integer(struct translation *x, const struct insn *i)
{
    switch (i->op) {
    case OP_ADD:
        return alu(x, i, 0);
    case OP_OR:
        return alu(x, i, 1);
    case OP_ADC:
        return alu(x, i, 2);
    case OP_SBB:
        return alu(x, i, 3);
    case OP_AND:
        return alu(x, i, 4);
    case OP_SUB:
        return alu(x, i, 5);
    case OP_XOR:
        return alu(x, i, 6);
    case OP_CMP:
        return alu(x, i, 7);
    case OP_TEST:
        return test(x, i);
    case OP_INC:
        return unary(x, i, 0xfe, 0, READ | WRITE);
    case OP_DEC:
        return unary(x, i, 0xfe, 1, READ | WRITE);
    case OP_NOT:
        return unary(x, i, 0xf6, 2, READ | WRITE);
    case OP_NEG:
        return unary(x, i, 0xf6, 3, READ | WRITE);
    case OP_MUL:
        return unary(x, i, 0xf6, 4, READ);
    case OP_IMUL1:
        return unary(x, i, 0xf6, 5, READ);
    case OP_IMUL:
        return imul(x, i);
    case OP_MOV:
        return mov(x, i);
    case OP_MOVNTI: {
        const struct shape s = {.opcode = op2(i->size, 0xc3),
                                .digit = -1,
                                .reg_size = i->size,
                                .rm_size = i->size,
                                .rm = WRITE};

        return i->mem && emit_shape(x, i, &s);
    }
    case OP_MOVZX:
    case OP_MOVSX:
        return extend(x, i);
    case OP_LEA:
        return lea(x, i);
    case OP_XCHG:
        return exchange(x, i, by_size(i, 0x86));
    case OP_CMPXCHG:
        return exchange(x, i, by_size2(i, 0xb0));
    case OP_XADD:
        return exchange(x, i, by_size2(i, 0xc0));
    case OP_CMPXCHG8B:
    case OP_CMPXCHG16B:
        return cmpxchg_wide(x, i);
    case OP_ROL:
        return shift(x, i, 0);
    case OP_ROR:
        return shift(x, i, 1);
    case OP_RCL:
        return shift(x, i, 2);
    case OP_RCR:
        return shift(x, i, 3);
    case OP_SHL:
        return shift(x, i, 4);
    case OP_SHR:
        return shift(x, i, 5);
    case OP_SAR:
        return shift(x, i, 7);
    case OP_SHLD:
        return double_shift(x, i, 0xa4);
    case OP_SHRD:
        return double_shift(x, i, 0xac);
    case OP_BT:
        return bit_test(x, i, 4);
    case OP_BTS:
        return bit_test(x, i, 5);
    case OP_BTR:
        return bit_test(x, i, 6);
    case OP_BTC:
        return bit_test(x, i, 7);
    case OP_BSF:
        return count(x, i, 0, 0xbc);
    case OP_BSR:
        return count(x, i, 0, 0xbd);
    case OP_POPCNT:
        return count(x, i, 0xf3, 0xb8);
    case OP_TZCNT:
        return count(x, i, 0xf3, 0xbc);
    case OP_LZCNT:
        return count(x, i, 0xf3, 0xbd);
    case OP_CRC32:
        return crc32(x, i);
    case OP_BSWAP:
        return i->size >= 4 && bswap(x, i);
    case OP_CMOV:
        return cmov(x, i);
    case OP_SETCC:
        return setcc(x, i);
    case OP_CBW:
        return plain(x, i, i->size, 0x98);
    case OP_CWD:
        return plain(x, i, i->size, 0x99);
    case OP_CLC:
        return plain(x, i, 4, 0xf8);
    case OP_STC:
        return plain(x, i, 4, 0xf9);
    case OP_CMC:
        return plain(x, i, 4, 0xf5);
    case OP_LAHF:
        return plain(x, i, 4, 0x9f);
    case OP_SAHF:
        return plain(x, i, 4, 0x9e);
    case OP_NOP:
        return true;
    case OP_PAUSE:
        emit_bytes(&x->e, (const uint8_t[]){0xf3, 0x90}, 2);
        return true;
    case OP_LFENCE:
        return fence(x, 0xe8);
    case OP_MFENCE:
        return fence(x, 0xf0);
    case OP_SFENCE:
        return fence(x, 0xf8);
    default:
        return false;
    }
}

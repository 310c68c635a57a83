/* test_encode.c - see test_encode.h. */
#include "cpu/jit/test_encode.h"

#include "cpu/jit/cpu.h"

/* clang-format off */
#define ALU(op, n, keeps) \
    {op, FORM_RM_REG, 0, (n) << 3 | 1, -1, S1248, ENC_BYTE | (keeps), CPU_BASE}, \
    {op, FORM_REG_RM, 0, (n) << 3 | 3, -1, S1248, ENC_BYTE, CPU_BASE}, \
    {op, FORM_RM_IMM, 0, 0x81, n, S1248, ENC_BYTE | ENC_IMM | (keeps), CPU_BASE}, \
    {op, FORM_RM_IMM, 0, 0x83, n, S248, ENC_IMM8 | (keeps), CPU_BASE}
#define UNARY(op, code, n, lock) {op, FORM_RM, 0, code, n, S1248, ENC_BYTE | (lock), CPU_BASE}
#define SHIFT(op, n) \
    {op, FORM_RM_IMM, 0, 0xc1, n, S1248, ENC_BYTE | ENC_IMM8, CPU_BASE}, \
    {op, FORM_RM_CL, 0, 0xd3, n, S1248, ENC_BYTE, CPU_BASE}
#define BIT(op, code, n, lock) \
    {op, FORM_RM_REG, 1, code, -1, S248, lock, CPU_BASE}, \
    {op, FORM_RM_IMM, 1, 0xba, n, S248, ENC_IMM8 | (lock), CPU_BASE}
#define VEX(op, form, map, code, n, flags, feature) {op, form, map, code, n, S48, ENC_VEX | (flags), feature}
#define STRING(op, code) {op, FORM_NONE, 0, code, -1, S1248, ENC_BYTE | ENC_NO_MODRM | ENC_STRING, CPU_BASE}
#define PLAIN(op, map, code, sizes) {op, FORM_NONE, map, code, -1, sizes, ENC_NO_MODRM, CPU_BASE}

const struct encoding encodings[] = {
    ALU(OP_ADD, 0, ENC_LOCK), ALU(OP_OR, 1, ENC_LOCK), ALU(OP_ADC, 2, ENC_LOCK), ALU(OP_SBB, 3, ENC_LOCK),
    ALU(OP_AND, 4, ENC_LOCK), ALU(OP_SUB, 5, ENC_LOCK), ALU(OP_XOR, 6, ENC_LOCK), ALU(OP_CMP, 7, 0),
    {OP_TEST, FORM_RM_REG, 0, 0x85, -1, S1248, ENC_BYTE, CPU_BASE},
    {OP_TEST, FORM_RM_IMM, 0, 0xf7, 0, S1248, ENC_BYTE | ENC_IMM, CPU_BASE},
    UNARY(OP_INC, 0xff, 0, ENC_LOCK), UNARY(OP_DEC, 0xff, 1, ENC_LOCK),
    UNARY(OP_NOT, 0xf7, 2, ENC_LOCK), UNARY(OP_NEG, 0xf7, 3, ENC_LOCK),
    UNARY(OP_MUL, 0xf7, 4, 0), UNARY(OP_IMUL1, 0xf7, 5, 0), UNARY(OP_DIV, 0xf7, 6, 0), UNARY(OP_IDIV, 0xf7, 7, 0),
    {OP_IMUL, FORM_REG_RM, 1, 0xaf, -1, S248, 0, CPU_BASE},
    {OP_IMUL, FORM_REG_RM_IMM, 0, 0x69, -1, S248, ENC_IMM, CPU_BASE},
    {OP_IMUL, FORM_REG_RM_IMM, 0, 0x6b, -1, S248, ENC_IMM8, CPU_BASE},
    {OP_XADD, FORM_RM_REG, 1, 0xc1, -1, S1248, ENC_BYTE | ENC_LOCK, CPU_BASE},
    {OP_CMPXCHG, FORM_RM_REG, 1, 0xb1, -1, S1248, ENC_BYTE | ENC_LOCK, CPU_BASE},
    {OP_CMPXCHG8B, FORM_RM, 1, 0xc7, 1, S4, ENC_MEM | ENC_LOCK, CPU_BASE},
    {OP_CMPXCHG16B, FORM_RM, 1, 0xc7, 1, S8, ENC_MEM | ENC_LOCK, CPU_CX16},
    {OP_XCHG, FORM_RM_REG, 0, 0x87, -1, S1248, ENC_BYTE | ENC_LOCK, CPU_BASE},
    SHIFT(OP_ROL, 0), SHIFT(OP_ROR, 1), SHIFT(OP_RCL, 2), SHIFT(OP_RCR, 3), SHIFT(OP_SHL, 4), SHIFT(OP_SHR, 5), SHIFT(OP_SAR, 7),
    {OP_SHLD, FORM_RM_REG_IMM, 1, 0xa4, -1, S248, ENC_IMM8, CPU_BASE}, {OP_SHLD, FORM_RM_REG_CL, 1, 0xa5, -1, S248, 0, CPU_BASE},
    {OP_SHRD, FORM_RM_REG_IMM, 1, 0xac, -1, S248, ENC_IMM8, CPU_BASE}, {OP_SHRD, FORM_RM_REG_CL, 1, 0xad, -1, S248, 0, CPU_BASE},
    BIT(OP_BT, 0xa3, 4, 0), BIT(OP_BTS, 0xab, 5, ENC_LOCK), BIT(OP_BTR, 0xb3, 6, ENC_LOCK), BIT(OP_BTC, 0xbb, 7, ENC_LOCK),
    {OP_BSF, FORM_REG_RM, 1, 0xbc, -1, S248, 0, CPU_BASE}, {OP_BSR, FORM_REG_RM, 1, 0xbd, -1, S248, 0, CPU_BASE},
    {OP_POPCNT, FORM_REG_RM, 1, 0xb8, -1, S248, ENC_F3, CPU_POPCNT},
    {OP_TZCNT, FORM_REG_RM, 1, 0xbc, -1, S248, ENC_F3, CPU_BMI1}, {OP_LZCNT, FORM_REG_RM, 1, 0xbd, -1, S248, ENC_F3, CPU_LZCNT},
    {OP_CRC32, FORM_REG_RM, 2, 0xf0, -1, S4, ENC_F2 | ENC_SRC8, CPU_SSE42}, {OP_CRC32, FORM_REG_RM, 2, 0xf1, -1, S48, ENC_F2, CPU_SSE42},
    {OP_ADCX, FORM_REG_RM, 2, 0xf6, -1, S48, ENC_66, CPU_ADX}, {OP_ADOX, FORM_REG_RM, 2, 0xf6, -1, S48, ENC_F3, CPU_ADX},
    VEX(OP_ANDN, FORM_REG_VVVV_RM, 2, 0xf2, -1, 0, CPU_BMI1), VEX(OP_BEXTR, FORM_REG_RM_VVVV, 2, 0xf7, -1, 0, CPU_BMI1),
    VEX(OP_BLSR, FORM_VVVV_RM, 2, 0xf3, 1, 0, CPU_BMI1), VEX(OP_BLSMSK, FORM_VVVV_RM, 2, 0xf3, 2, 0, CPU_BMI1),
    VEX(OP_BLSI, FORM_VVVV_RM, 2, 0xf3, 3, 0, CPU_BMI1), VEX(OP_BZHI, FORM_REG_RM_VVVV, 2, 0xf5, -1, 0, CPU_BMI2),
    VEX(OP_MULX, FORM_REG_VVVV_RM, 2, 0xf6, -1, ENC_F2, CPU_BMI2), VEX(OP_PDEP, FORM_REG_VVVV_RM, 2, 0xf5, -1, ENC_F2, CPU_BMI2),
    VEX(OP_PEXT, FORM_REG_VVVV_RM, 2, 0xf5, -1, ENC_F3, CPU_BMI2), VEX(OP_RORX, FORM_REG_RM_IMM, 3, 0xf0, -1, ENC_F2 | ENC_IMM8, CPU_BMI2),
    VEX(OP_SARX, FORM_REG_RM_VVVV, 2, 0xf7, -1, ENC_F3, CPU_BMI2), VEX(OP_SHLX, FORM_REG_RM_VVVV, 2, 0xf7, -1, ENC_66, CPU_BMI2),
    VEX(OP_SHRX, FORM_REG_RM_VVVV, 2, 0xf7, -1, ENC_F2, CPU_BMI2),
    {OP_MOV, FORM_RM_REG, 0, 0x89, -1, S1248, ENC_BYTE, CPU_BASE}, {OP_MOV, FORM_REG_RM, 0, 0x8b, -1, S1248, ENC_BYTE, CPU_BASE},
    {OP_MOV, FORM_RM_IMM, 0, 0xc7, 0, S1248, ENC_BYTE | ENC_IMM, CPU_BASE},
    {OP_MOVZX, FORM_REG_RM, 1, 0xb6, -1, S248, ENC_SRC8, CPU_BASE}, {OP_MOVZX, FORM_REG_RM, 1, 0xb7, -1, S248, ENC_SRC16, CPU_BASE},
    {OP_MOVSX, FORM_REG_RM, 1, 0xbe, -1, S248, ENC_SRC8, CPU_BASE}, {OP_MOVSX, FORM_REG_RM, 1, 0xbf, -1, S248, ENC_SRC16, CPU_BASE},
    {OP_MOVSX, FORM_REG_RM, 0, 0x63, -1, S8, ENC_SRC32, CPU_BASE},
    {OP_MOVBE, FORM_REG_RM, 2, 0xf0, -1, S248, ENC_MEM, CPU_MOVBE}, {OP_MOVBE, FORM_RM_REG, 2, 0xf1, -1, S248, ENC_MEM, CPU_MOVBE},
    {OP_MOVNTI, FORM_RM_REG, 1, 0xc3, -1, S48, ENC_MEM, CPU_BASE}, {OP_LEA, FORM_REG_RM, 0, 0x8d, -1, S248, ENC_MEM, CPU_BASE},
    {OP_BSWAP, FORM_RM, 1, 0xc8, -1, S48, ENC_OPCODE_REG | ENC_NO_MODRM, CPU_BASE},
    PLAIN(OP_CBW, 0, 0x98, S248), PLAIN(OP_CWD, 0, 0x99, S248), PLAIN(OP_SAHF, 0, 0x9e, S4), PLAIN(OP_LAHF, 0, 0x9f, S4),
    PLAIN(OP_CLC, 0, 0xf8, S4), PLAIN(OP_STC, 0, 0xf9, S4), PLAIN(OP_CMC, 0, 0xf5, S4), PLAIN(OP_NOP, 0, 0x90, S4),
    PLAIN(OP_CLD, 0, 0xfc, S4), PLAIN(OP_STD, 0, 0xfd, S4),
    {OP_CMOV, FORM_REG_RM, 1, 0x40, -1, S248, 0, CPU_BASE}, {OP_SETCC, FORM_RM, 1, 0x90, -1, S1, 0, CPU_BASE},
    {OP_PUSH, FORM_RM, 0, 0x50, -1, S2 | S8, ENC_OPCODE_REG | ENC_NO_MODRM | ENC_STACK, CPU_BASE},
    {OP_POP, FORM_RM, 0, 0x58, -1, S2 | S8, ENC_OPCODE_REG | ENC_NO_MODRM | ENC_STACK, CPU_BASE},
    {OP_PUSH, FORM_RM, 0, 0xff, 6, S2 | S8, ENC_STACK, CPU_BASE}, {OP_POP, FORM_RM, 0, 0x8f, 0, S2 | S8, ENC_STACK, CPU_BASE},
    {OP_PUSH, FORM_IMM, 0, 0x68, -1, S2 | S8, ENC_STACK | ENC_IMM | ENC_NO_MODRM, CPU_BASE},
    {OP_PUSH, FORM_IMM, 0, 0x6a, -1, S2 | S8, ENC_STACK | ENC_IMM8 | ENC_NO_MODRM, CPU_BASE},
    {OP_PUSHF, FORM_NONE, 0, 0x9c, -1, S2 | S8, ENC_STACK | ENC_NO_MODRM, CPU_BASE},
    {OP_LEAVE, FORM_NONE, 0, 0xc9, -1, S2 | S8, ENC_STACK | ENC_NO_MODRM, CPU_BASE},
    {OP_ENTER, FORM_IMM, 0, 0xc8, -1, S2 | S8, ENC_STACK | ENC_NO_MODRM, CPU_BASE},
    STRING(OP_MOVS, 0xa5), STRING(OP_CMPS, 0xa7), STRING(OP_STOS, 0xab), STRING(OP_LODS, 0xad), STRING(OP_SCAS, 0xaf),
    {OP_XLAT, FORM_NONE, 0, 0xd7, -1, S1, ENC_NO_MODRM, CPU_BASE},
};
/* clang-format on */
const unsigned encodings_count = sizeof(encodings) / sizeof(encodings[0]);

/* --- Random values --------------------------------------------------------------------------- */

uint64_t test_random(void)
{
    static uint64_t x = 0x9e3779b97f4a7c15;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return x * 0x2545f4914f6cdd1d;
}

uint64_t test_random_value(void)
{
    uint64_t r = test_random();
    unsigned bits = r >> 8 & 63;

    switch (r & 7) {
    case 0:
        return (1ull << bits) - (r >> 16 & 1);
    case 1:
        return -((1ull << bits) - (r >> 16 & 1));
    case 2:
        return test_random() >> bits;
    case 3:
        return (uint64_t)((int64_t)test_random() >> bits);
    case 4:
        return r >> 16 & 0xff;
    default:
        return test_random();
    }
}

/* --- Bytes ----------------------------------------------------------------------------------- */

struct fields { /* of the encoding, with the bits of REX or VEX in place */
    unsigned reg, rm, vvvv;
    bool rex; /* there even where no bit asks for it */
};

static uint8_t *put(uint8_t *p, uint64_t value, unsigned len)
{
    memcpy(p, &value, len);
    return p + len;
}

static uint8_t *put_vex(uint8_t *p, const struct encoded *x, const struct fields *f,
                        unsigned high_x, unsigned high_b)
{
    const struct encoding *e = x->encoding;
    unsigned pp = e->flags & ENC_66 ? 1 : e->flags & ENC_F3 ? 2 : e->flags & ENC_F2 ? 3 : 0;

    *p++ = 0xc4;
    *p++ = (uint8_t)((f->reg & 8 ? 0 : 0x80) | (high_x ? 0 : 0x40) | (high_b ? 0 : 0x20) | e->map);
    *p++ = (uint8_t)((x->insn.size == 8) << 7 | (~f->vvvv & 15) << 3 | pp);
    return p;
}

static uint8_t *put_prefixes(uint8_t *p, const struct encoded *x, const struct fields *f,
                             unsigned high_x, unsigned high_b)
{
    static const uint8_t maps[] = {0, 0x0f, 0x38, 0x3a};
    const struct encoding *e = x->encoding;
    const struct insn *i = &x->insn;
    bool wide = i->size == 8 && !(e->flags & ENC_STACK);
    unsigned rex = (wide ? 8 : 0) | (f->reg & 8 ? 4 : 0) | (high_x ? 2 : 0) | (high_b ? 1 : 0);

    if (i->prefix & PREFIX_LOCK)
        *p++ = 0xf0;
    if (i->asize == 4)
        *p++ = 0x67;
    if (e->flags & ENC_VEX)
        return put_vex(p, x, f, high_x, high_b);
    if (i->size == 2 || (e->flags & ENC_66))
        *p++ = 0x66;
    if ((e->flags & ENC_F2) || (i->prefix & PREFIX_REPNE))
        *p++ = 0xf2;
    if ((e->flags & ENC_F3) || (i->prefix & PREFIX_REP))
        *p++ = 0xf3;
    if (rex || f->rex)
        *p++ = (uint8_t)(0x40 | rex);
    if (e->map) {
        *p++ = 0x0f;
        if (e->map > 1)
            *p++ = maps[e->map];
    }
    return p;
}

/* ModRM, SIB and displacement of four bytes; `rip`: relative to the next instruction. */
static uint8_t *put_operand(uint8_t *p, const struct insn *i, const struct fields *f)
{
    unsigned reg = (f->reg & 7) << 3;

    if (!i->mem) {
        *p++ = (uint8_t)(0xc0 | reg | (f->rm & 7));
        return p;
    }
    if (i->base == REG_RIP) {
        *p++ = (uint8_t)(0x05 | reg);
        return p + 4; /* when the length is known */
    }
    *p++ = (uint8_t)(0x84 | reg);
    *p++ =
        (uint8_t)(i->scale << 6 | (i->index == REG_NONE ? 4 : i->index & 7) << 3 | (i->base & 7));
    return put(p, (uint32_t)i->disp, 4);
}

/* --- Operands -------------------------------------------------------------------------------- */

/* A register of an operand: its number in the encoding, and as the decoder gives it. */
static unsigned pick_reg(unsigned size, bool rex, uint8_t *decoded)
{
    unsigned n = (unsigned)test_random_below(size == 1 && !rex ? 8 : 16);

    *decoded = (uint8_t)(size == 1 && !rex && n >= 4 ? REG_AH + n - 4 : n);
    return n;
}

static void pick_address(struct insn *i, bool stack)
{
    i->mem = true;
    i->base = (uint8_t)test_random_below(16);
    i->index = REG_NONE;
    i->seg = SEG_DS;
    i->asize = test_random_below(4) ? 8 : 4;
    if (test_random_below(2)) {
        do
            i->index = (uint8_t)test_random_below(16);
        while (i->index == RSP || i->index == i->base);
        i->scale = (uint8_t)test_random_below(4);
    }
    if (!test_random_below(8)) {
        i->base = REG_RIP;
        i->index = REG_NONE;
        i->asize = 8;
    }
    if (i->base == RSP || i->base == RBP)
        i->seg = SEG_SS;
    if (i->base == RSP && stack) { /* rsp is given: the displacement aims */
        i->index = REG_NONE;
        i->asize = 8;
    }
    i->disp = (int32_t)test_random_value();
}

/* Registers such that the address is `operand`. */
static void aim(struct encoded *x, struct native_state *state, uint64_t operand)
{
    struct insn *i = &x->insn;

    if (i->base == REG_RIP) {
        i->disp = (int32_t)(operand - (native_rip() + i->len));
        return;
    }
    if (i->base == RSP && (x->encoding->flags & ENC_STACK)) {
        i->disp = (int32_t)(operand - state->gpr[RSP]);
        return;
    }
    state->gpr[i->base] = operand - (uint64_t)(int64_t)i->disp;
    if (i->index != REG_NONE)
        state->gpr[i->base] -= state->gpr[i->index] << i->scale;
    if (i->asize == 4)
        state->gpr[i->base] ^= test_random() << 32;
}

static unsigned immediate_size(const struct encoded *x)
{
    if (x->encoding->flags & ENC_IMM8)
        return 1;
    if (!(x->encoding->flags & ENC_IMM))
        return 0;
    return x->insn.size > 4 ? 4 : x->insn.size;
}

static void pick_prefixes(struct insn *i, const struct encoding *e)
{
    if ((e->flags & ENC_LOCK) && i->mem && test_random_below(2))
        i->prefix |= PREFIX_LOCK;
    if (e->flags & ENC_STRING) {
        i->seg = SEG_DS;
        i->asize = test_random_below(4) ? 8 : 4;
        i->prefix |=
            (uint8_t)((const uint8_t[]){0, PREFIX_REP, PREFIX_REPNE})[test_random_below(3)];
    }
}

/* Registers that instructions use without naming them. */
static void aim_implicit(const struct encoding *e, struct encoded *x, struct native_state *state,
                         uint64_t operand, uint64_t operand2)
{
    const struct insn *i = &x->insn;

    if (e->flags & ENC_STRING) {
        state->gpr[RDI] = operand;
        state->gpr[RSI] = operand2;
        state->gpr[RCX] = test_random_below(600) >> test_random_below(10);
        if (i->asize == 4) {
            state->gpr[RDI] |= test_random() << 32;
            state->gpr[RSI] |= test_random() << 32;
            state->gpr[RCX] |= test_random() << 32;
        }
    }
    if (e->flags & ENC_STACK) {
        state->gpr[RSP] = operand2;
        state->gpr[RBP] = operand;
    }
    if (e->op == OP_XLAT)
        state->gpr[RBX] = operand - (state->gpr[RAX] & 0xff);
}

void encode_random(const struct encoding *e, struct encoded *x, struct native_state *state,
                   uint64_t operand, uint64_t operand2)
{
    struct insn *i = &x->insn;
    struct fields f = {.reg = e->extension >= 0 ? (unsigned)e->extension : 0,
                       .rex = test_random_below(2)};
    uint8_t *p = x->bytes, opcode = e->opcode;
    unsigned immediate, source;

    *x = (struct encoded){.encoding = e};
    i->op = e->op;
    i->form = e->form;
    i->map = e->map;
    i->asize = 8;
    i->base = i->index = REG_NONE;
    do
        i->size = (uint8_t)(1u << test_random_below(4));
    while (!(e->sizes & i->size));
    source = e->flags & ENC_SRC8    ? 1
             : e->flags & ENC_SRC16 ? 2
             : e->flags & ENC_SRC32 ? 4
                                    : i->size;
    i->src_size = (uint8_t)source;
    if (i->size == 8 && (e->flags & ENC_SRC8))
        f.rex = true;

    if (e->flags & ENC_OPCODE_REG)
        f.rm = pick_reg(i->size, true, &i->rm);
    else if (!(e->flags & ENC_NO_MODRM) && !(e->flags & ENC_NO_MEM) &&
             ((e->flags & ENC_MEM) || test_random_below(2)))
        pick_address(i, e->flags & ENC_STACK);
    /* Byte registers have other names with REX, which these ask for. */
    if (i->size == 8 ||
        (i->mem && ((i->base < 16 && i->base >= 8) || (i->index < 16 && i->index >= 8))))
        f.rex = true;
    if (e->extension < 0 && !(e->flags & ENC_NO_MODRM)) {
        do
            f.reg = pick_reg(i->size, f.rex, &i->reg);
        while (i->mem && (e->op >= OP_BT && e->op <= OP_BTC) &&
               (i->reg == i->base || i->reg == i->index));
        f.rex |= f.reg >= 8;
    }
    if (!i->mem && !(e->flags & ENC_NO_MODRM)) {
        f.rm = pick_reg(source, f.rex, &i->rm);
        f.rex |= f.rm >= 8;
    }
    if ((e->flags & ENC_VEX) && e->form != FORM_REG_RM_IMM)
        f.vvvv = i->vvvv = (uint8_t)test_random_below(16);
    pick_prefixes(i, e);
    if (e->op == OP_CMOV || e->op == OP_SETCC) {
        i->cond = (uint8_t)test_random_below(16);
        opcode |= i->cond;
    }
    if ((e->flags & ENC_BYTE) && i->size == 1)
        opcode = opcode == 0x83 ? opcode : opcode - 1;

    p = put_prefixes(p, x, &f, i->index < 16 && i->index >= 8,
                     e->flags & ENC_OPCODE_REG || !i->mem ? f.rm & 8
                                                          : i->base < 16 && i->base >= 8);
    if (e->flags & ENC_OPCODE_REG)
        opcode |= f.rm & 7;
    i->opcode = opcode;
    *p++ = opcode;
    if (!(e->flags & ENC_NO_MODRM))
        p = put_operand(p, i, &f);
    immediate = immediate_size(x);
    i->len = (uint8_t)(p - x->bytes + immediate + (e->op == OP_ENTER ? 3 : 0));
    if (i->mem && (e->op >= OP_BT && e->op <= OP_BTC) && e->form == FORM_RM_REG)
        state->gpr[i->reg] =
            (test_random_below(1024) - 512) | (i->size < 8 ? test_random() << i->size * 8 : 0);
    aim_implicit(e, x, state, operand, operand2);
    if (i->mem) {
        aim(x, state, operand);
        memcpy(p - 4, &i->disp, 4);
    }
    if (immediate) {
        uint64_t value = test_random_value();
        unsigned shift = 64 - immediate * 8;

        i->imm = (uint64_t)((int64_t)(value << shift) >> shift);
        put(p, value, immediate);
    }
    if (e->op == OP_ENTER) {
        i->imm = test_random_below(256);
        i->imm2 = (uint16_t)(test_random_below(2) ? test_random_below(40) : 0);
        put(put(p, i->imm, 2), i->imm2, 1);
    }
}

/*
 * exec_bits.c - BT BTS BTR BTC, BSF BSR, POPCNT LZCNT TZCNT, CRC32, ADCX ADOX, and BMI1 and BMI2.
 *
 * What needs more of the host than x86-64 itself has is done in C: which features the guest sees is
 * decided elsewhere.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

static void set_flags(struct jit_cpu *cpu, uint64_t written, uint64_t flags)
{
    cpu->rflags = (cpu->rflags & ~written) | (flags & written);
}

/* ZF and SF of a result. */
static uint64_t result_flags(uint64_t value, unsigned size)
{
    return (value ? 0 : FLAG_ZF) | (value >> (size * 8 - 1) & 1 ? FLAG_SF : 0);
}

/* --- Bit test -------------------------------------------------------------------------------- */

static uint64_t bit_set(uint64_t old, uint64_t mask, uint64_t *rflags)
{
    return old | mask;
}

static uint64_t bit_reset(uint64_t old, uint64_t mask, uint64_t *rflags)
{
    return old & ~mask;
}

static uint64_t bit_complement(uint64_t old, uint64_t mask, uint64_t *rflags)
{
    return old ^ mask;
}

/*
 * Where the bit is in memory: a register's value is a signed distance from the operand's first bit,
 * an immediate stays within it (SDM vol 2, BT and §3.1.1.9).
 */
static uint64_t bit_linear(struct jit_cpu *cpu, const struct insn *i, uint64_t bit, bool write)
{
    uint64_t offset = operand_address(cpu, i);

    if (i->form == FORM_RM_REG) {
        int64_t operands = sign_extend(bit, i->size) >> (3 + size_index(i->size));

        offset += (uint64_t)operands << size_index(i->size);
        offset &= size_mask(i->asize);
    }
    return linear_of(cpu, i->seg, offset, i->size, write);
}

/* CF is the bit as it was; the other flags stay. NULL: only tested. */
static void bit_operation(struct jit_cpu *cpu, const struct insn *i, atomic_fn *fn)
{
    const unsigned size = i->size;
    const uint64_t bit = i->form == FORM_RM_REG ? jit_get_reg(cpu, i->reg, size) : i->imm;
    const unsigned shift = bit & (size * 8 - 1);
    const uint64_t mask = 1ull << shift;
    uint64_t old, rflags = cpu->rflags;

    if (!i->mem) {
        old = jit_get_reg(cpu, i->rm, size);
        if (fn)
            jit_set_reg(cpu, i->rm, size, fn(old, mask, &rflags));
    } else if (!fn) {
        old = mmu_load(cpu, bit_linear(cpu, i, bit, false), size);
    } else if (i->prefix & PREFIX_LOCK) {
        old = atomic_update(cpu, bit_linear(cpu, i, bit, true), size, fn, mask, &rflags);
    } else {
        struct update u;

        old = update_begin_at(cpu, &u, bit_linear(cpu, i, bit, true), size);
        update_end(cpu, &u, size, fn(old, mask, &rflags));
    }
    set_flags(cpu, FLAG_CF, old >> shift & 1);
}

static void exec_bt(struct jit_cpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, NULL);
}

static void exec_bts(struct jit_cpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, bit_set);
}

static void exec_btr(struct jit_cpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, bit_reset);
}

static void exec_btc(struct jit_cpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, bit_complement);
}

/* --- Scans and counts ------------------------------------------------------------------------ */

#define SCAN(name)                                                                                 \
    static void exec_##name(struct jit_cpu *cpu, const struct insn *i)                             \
    {                                                                                              \
        const uint64_t source = jit_read_rm(cpu, i, i->size), old = cpu->gpr[i->reg];              \
                                                                                                   \
        switch (i->size) {                                                                         \
        case 2:                                                                                    \
            cpu->gpr[i->reg] = alu_##name##_2(old, (uint16_t)source, &cpu->rflags);                \
            break;                                                                                 \
        case 4:                                                                                    \
            cpu->gpr[i->reg] = alu_##name##_4(old, (uint32_t)source, &cpu->rflags);                \
            break;                                                                                 \
        default:                                                                                   \
            cpu->gpr[i->reg] = alu_##name##_8(old, source, &cpu->rflags);                          \
        }                                                                                          \
    }
SCAN(bsf)
SCAN(bsr)

static void exec_popcnt(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    jit_set_reg(cpu, i->reg, i->size, (uint64_t)__builtin_popcountll(source));
    set_flags(cpu, FLAGS_ARITH, source ? 0 : FLAG_ZF);
}

static void count_result(struct jit_cpu *cpu, const struct insn *i, uint64_t source, uint64_t count)
{
    jit_set_reg(cpu, i->reg, i->size, count);
    set_flags(cpu, FLAG_CF | FLAG_ZF, (source ? 0 : FLAG_CF) | (count ? 0 : FLAG_ZF));
}

static void exec_lzcnt(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);
    unsigned bits = i->size * 8;

    count_result(cpu, i, source,
                 source ? (uint64_t)__builtin_clzll(source) - (64 - bits) : (uint64_t)bits);
}

static void exec_tzcnt(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    count_result(cpu, i, source,
                 source ? (uint64_t)__builtin_ctzll(source) : (uint64_t)i->size * 8);
}

/* CRC-32C, polynomial 11edc6f41, bits reflected: four bits a step. */
static void exec_crc32(struct jit_cpu *cpu, const struct insn *i)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint64_t source = jit_read_rm(cpu, i, i->src_size);
    uint32_t crc = (uint32_t)cpu->gpr[i->reg];

    for (unsigned step = 0; step < 2u * i->src_size; step++) {
        crc = crc >> 4 ^ table[(crc ^ source) & 0xf];
        source >>= 4;
    }
    cpu->gpr[i->reg] = crc;
}

/* --- ADCX, ADOX: chains of additions through CF and OF alone ---------------------------------- */

static void add_chain(struct jit_cpu *cpu, const struct insn *i, unsigned flag)
{
    uint64_t a = jit_read_rm(cpu, i, i->size), b = jit_get_reg(cpu, i->reg, i->size);
    unsigned __int128 sum = (unsigned __int128)a + b + !!(cpu->rflags & flag);

    jit_set_reg(cpu, i->reg, i->size, (uint64_t)sum);
    set_flags(cpu, flag, (uint64_t)(sum >> i->size * 8) & 1 ? flag : 0);
}

static void exec_adcx(struct jit_cpu *cpu, const struct insn *i)
{
    add_chain(cpu, i, FLAG_CF);
}

static void exec_adox(struct jit_cpu *cpu, const struct insn *i)
{
    add_chain(cpu, i, FLAG_OF);
}

/* --- BMI: AF and PF, undefined, stay ---------------------------------------------------------- */

enum { BMI_FLAGS = FLAG_CF | FLAG_ZF | FLAG_SF | FLAG_OF };

static void bmi_result(struct jit_cpu *cpu, const struct insn *i, unsigned reg, uint64_t value,
                       bool carry)
{
    value &= size_mask(i->size);
    jit_set_reg(cpu, reg, i->size, value);
    set_flags(cpu, BMI_FLAGS, result_flags(value, i->size) | (carry ? FLAG_CF : 0));
}

static void exec_andn(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    bmi_result(cpu, i, i->reg, ~cpu->gpr[i->vvvv] & source, false);
}

static void exec_bextr(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);
    unsigned start = cpu->gpr[i->vvvv] & 0xff, length = cpu->gpr[i->vvvv] >> 8 & 0xff;
    uint64_t value = start < 64 ? source >> start : 0;

    if (length < 64)
        value &= (1ull << length) - 1;
    jit_set_reg(cpu, i->reg, i->size, value);
    set_flags(cpu, FLAG_CF | FLAG_OF | FLAG_ZF, value ? 0 : FLAG_ZF);
}

static void exec_blsi(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    bmi_result(cpu, i, i->vvvv, source & -source, source != 0);
}

static void exec_blsmsk(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    bmi_result(cpu, i, i->vvvv, source ^ (source - 1), source == 0);
}

static void exec_blsr(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);

    bmi_result(cpu, i, i->vvvv, source & (source - 1), source == 0);
}

static void exec_bzhi(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t source = jit_read_rm(cpu, i, i->size);
    unsigned index = cpu->gpr[i->vvvv] & 0xff;
    bool beyond = index >= i->size * 8u;

    bmi_result(cpu, i, i->reg, beyond ? source : source & ((1ull << index) - 1), beyond);
}

static void exec_mulx(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t a = jit_get_reg(cpu, RDX, i->size), b = jit_read_rm(cpu, i, i->size);
    unsigned __int128 product = (unsigned __int128)a * b;

    /* The high half wins where both go to one register (SDM vol 2, MULX). */
    jit_set_reg(cpu, i->vvvv, i->size, (uint64_t)product);
    jit_set_reg(cpu, i->reg, i->size, (uint64_t)(product >> i->size * 8));
}

/* Bits of vvvv, lowest first, to where the mask has bits. */
static void exec_pdep(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t mask = jit_read_rm(cpu, i, i->size), source = cpu->gpr[i->vvvv], value = 0;

    for (; mask; mask &= mask - 1, source >>= 1) {
        if (source & 1)
            value |= mask & -mask;
    }
    jit_set_reg(cpu, i->reg, i->size, value);
}

static void exec_pext(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t mask = jit_read_rm(cpu, i, i->size), source = cpu->gpr[i->vvvv], value = 0;

    for (uint64_t bit = 1; mask; mask &= mask - 1, bit <<= 1) {
        if (source & mask & -mask)
            value |= bit;
    }
    jit_set_reg(cpu, i->reg, i->size, value);
}

static void exec_rorx(struct jit_cpu *cpu, const struct insn *i)
{
    unsigned bits = i->size * 8, count = i->imm & (bits - 1);
    uint64_t source = jit_read_rm(cpu, i, i->size);

    jit_set_reg(cpu, i->reg, i->size, count ? source >> count | source << (bits - count) : source);
}

static unsigned shift_count(const struct jit_cpu *cpu, const struct insn *i)
{
    return cpu->gpr[i->vvvv] & (i->size * 8u - 1);
}

static void exec_sarx(struct jit_cpu *cpu, const struct insn *i)
{
    int64_t source = sign_extend(jit_read_rm(cpu, i, i->size), i->size);

    jit_set_reg(cpu, i->reg, i->size, (uint64_t)(source >> shift_count(cpu, i)));
}

static void exec_shlx(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, i->reg, i->size, jit_read_rm(cpu, i, i->size) << shift_count(cpu, i));
}

static void exec_shrx(struct jit_cpu *cpu, const struct insn *i)
{
    jit_set_reg(cpu, i->reg, i->size, jit_read_rm(cpu, i, i->size) >> shift_count(cpu, i));
}

const struct jit_handler_entry exec_bits[] = {
    {OP_BT, exec_bt},         {OP_BTS, exec_bts},     {OP_BTR, exec_btr},
    {OP_BTC, exec_btc},       {OP_BSF, exec_bsf},     {OP_BSR, exec_bsr},
    {OP_POPCNT, exec_popcnt}, {OP_LZCNT, exec_lzcnt}, {OP_TZCNT, exec_tzcnt},
    {OP_CRC32, exec_crc32},   {OP_ADCX, exec_adcx},   {OP_ADOX, exec_adox},
    {OP_ANDN, exec_andn},     {OP_BEXTR, exec_bextr}, {OP_BLSI, exec_blsi},
    {OP_BLSMSK, exec_blsmsk}, {OP_BLSR, exec_blsr},   {OP_BZHI, exec_bzhi},
    {OP_MULX, exec_mulx},     {OP_PDEP, exec_pdep},   {OP_PEXT, exec_pext},
    {OP_RORX, exec_rorx},     {OP_SARX, exec_sarx},   {OP_SHLX, exec_shlx},
    {OP_SHRX, exec_shrx},     {OP_UD, NULL},
};

/*
 * vec_zydis_test.c - a second opinion on the table of vec_ops.c: every encoding of the three opcode
 * maps is either there with the operands that Zydis knows, or no vector instruction to Zydis.
 */
#include "cpu/jit/vec.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <Zydis/Zydis.h>

struct encoding {
    unsigned map, prefix, opcode;
    bool memory, wide;
    unsigned reg;
};

static unsigned encode(const struct encoding *e, uint8_t *code)
{
    static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0;

    if (e->prefix)
        code[n++] = prefix[e->prefix];
    if (e->wide)
        code[n++] = 0x48;
    code[n++] = 0x0f;
    if (e->map > 1)
        code[n++] = e->map == 2 ? 0x38 : 0x3a;
    code[n++] = e->opcode;
    code[n++] = (e->memory ? 0 : 0xc0) | e->reg << 3 | 6;
    memset(code + n, 0, 8);
    return n + 8;
}

/* Vector instruction sets in Zydis's words, without what has an operation of its own here. */
static bool is_vector(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_FISTTP:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_PAUSE:
        return false;
    default:
        break;
    }
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
        return true;
    default:
        return false;
    }
}

static unsigned kind_of(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_XMM:
        return VEC_OPERAND_XMM;
    case ZYDIS_REGCLASS_MMX:
        return VEC_OPERAND_MMX;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return VEC_OPERAND_GPR;
    default:
        return VEC_OPERAND_NONE;
    }
}

static void compare_operand(const struct vec_op *op, const struct encoding *e,
                            const ZydisDecodedOperand *o)
{
    bool read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
        o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
        unsigned size = e->wide && op->mem_size_w ? op->mem_size_w : op->mem_size;

        assert_int_equal(o->size, size * 8);
        assert_int_equal(read, op->load);
        assert_int_equal(written, op->store);
    } else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        assert_int_equal(kind_of(o->reg.value), op->rm);
        assert_int_equal(written, op->store);
    } else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
        assert_int_equal(kind_of(o->reg.value), op->reg);
        assert_int_equal(written, op->reg_written);
    } else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        assert_true(op->imm8);
    } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == ZYDIS_REGISTER_XMM0) {
        assert_true(op->implicit & VEC_IMPLICIT_XMM0);
    } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == ZYDIS_REGISTER_RFLAGS) {
        assert_true(op->flags);
    }
}

static void compare(ZydisDecoder *decoder, const struct encoding *e)
{
    uint8_t code[16], modrm = (e->memory ? 0 : 0xc0) | e->reg << 3 | 6;
    unsigned len = encode(e, code), index = vec_find(e->map, e->prefix, e->opcode, modrm);
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction z;
    bool known =
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, code, len, &z, operands)) && is_vector(&z);
    const struct vec_op *op = &vec_ops[index];

    if (known != (index != 0))
        fail_msg("map %u prefix %u opcode %02x modrm %02x: %s here, %s there", e->map, e->prefix,
                 e->opcode, modrm, op->name, known ? ZydisMnemonicGetString(z.mnemonic) : "none");
    if (!known)
        return;
    assert_int_equal(z.length, len - 8 + op->imm8);
    for (unsigned n = 0; n < z.operand_count; n++)
        compare_operand(op, e, &operands[n]);
}

static void table_as_zydis_knows_it(void **state)
{
    ZydisDecoder decoder;

    assert_true(
        ZYAN_SUCCESS(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)));
    for (unsigned n = 0; n < 3 * 4 * 256 * 2 * 2 * 8; n++) {
        struct encoding e = {.reg = n % 8,
                             .memory = n / 8 % 2,
                             .wide = n / 16 % 2,
                             .opcode = n / 32 % 256,
                             .prefix = n / 8192 % 4,
                             .map = 1 + n / 32768};

        if (e.map == 1 && (e.opcode == 0x38 || e.opcode == 0x3a))
            continue; /* the escapes to the other maps */
        compare(&decoder, &e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(table_as_zydis_knows_it)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * insn_flags_test.c - the flags that insn_ops.h says an operation reads, writes and leaves
 * undefined, against what Zydis says of every encoding of it.
 *
 * A flag that may be kept is read and written here, so that what made it is not dropped: more reads
 * than Zydis has are safe; a missing read or a write too many is a bug.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/jit/insn_zydis.h"

enum { BYTES = 15 };

struct flags {
    unsigned reads, writes, undefined;
};

static const struct flags table[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) [OP_##name] = {reads, writes, undefined},
    INSN_OPS(OP)
#undef OP
};

static bool told[OP_COUNT];

/* Where Zydis 4.0 says something else than the SDM or than this CPU does. */
static struct flags corrected(const struct insn *i, struct flags zydis)
{
    switch (i->op) {
    case OP_SBB: /* SDM vol 2, SBB: AF is set by the result */
        zydis.undefined &= ~(unsigned)FLAG_AF;
        break;
    case OP_SHL: /* SDM vol 2, SHL: CF is undefined for counts beyond the operand's size */
    case OP_SHR:
        zydis.undefined |= FLAG_CF;
        break;
    case OP_VMCALL: /* the flags of VMfail; a hypercall keeps them all */
        zydis.writes = 0;
        break;
    }
    return zydis;
}

static void compare(const ZydisDecoder *decoder, const uint8_t bytes[BYTES], enum code_width width)
{
    ZydisDecodedInstruction theirs;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    const ZydisAccessedFlags *z;
    struct flags ours, zydis;
    struct insn i;

    if (insn_decode(&i, bytes, BYTES, width, ~0ull) != DECODE_OK || i.op == OP_UD ||
        i.op == OP_VEC || i.op == OP_X87 || told[i.op] ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, BYTES, &theirs, operands)))
        return;
    ours = table[i.op];
    zydis = (struct flags){0};
    z = theirs.cpu_flags;
    if (z) {
        zydis.reads = z->tested & FLAGS_ARITH;
        zydis.undefined = z->undefined & FLAGS_ARITH;
        zydis.writes = (z->modified | z->set_0 | z->set_1 | z->undefined) & FLAGS_ARITH;
    }
    zydis = corrected(&i, zydis);
    if ((zydis.reads & ~ours.reads) || (ours.writes & ~zydis.writes & ~ours.reads) ||
        (zydis.writes & ~ours.writes) || ours.undefined != zydis.undefined ||
        (ours.undefined & ~ours.writes)) {
        told[i.op] = true;
        printf("%-10s reads %03x, Zydis %03x; writes %03x, %03x; undefined %03x, %03x (%s)\n",
               insn_op_name(i.op), ours.reads, zydis.reads, ours.writes, zydis.writes,
               ours.undefined, zydis.undefined, ZydisMnemonicGetString(theirs.mnemonic));
    }
}

static void test_flags(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2, 0x48};
    static const uint8_t maps[][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    ZydisDecoder decoder[2];
    unsigned wrong = 0;

    ZydisDecoderInit(&decoder[0], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoder[1], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < 2u * QZ_ARRAY_LEN(prefixes) * QZ_ARRAY_LEN(maps); n++) {
        const uint8_t prefix = prefixes[n / 2 % QZ_ARRAY_LEN(prefixes)];
        const uint8_t *map = maps[n / 2 / QZ_ARRAY_LEN(prefixes)];

        for (unsigned k = 0; k < 0x10000; k++) {
            uint8_t bytes[BYTES] = {0};
            unsigned at = 0;

            if (prefix)
                bytes[at++] = prefix;
            for (unsigned m = 0; m < 2 && map[m]; m++)
                bytes[at++] = map[m];
            bytes[at++] = (uint8_t)(k >> 8);
            bytes[at++] = (uint8_t)k;
            bytes[at + 4] = 9; /* counts and immediates that are not zero */
            compare(&decoder[n % 2], bytes, n % 2 ? CODE_64 : CODE_32);
        }
    }
    for (unsigned op = 0; op < OP_COUNT; op++)
        wrong += told[op];
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flags)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

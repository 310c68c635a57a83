/*
 * insn_zydis_test.c - the decoder against Zydis: every opcode with every ModRM, and random
 * instructions, in 16, 32 and 64-bit code. Lengths, validity, operations and operands must agree;
 * where they do not on purpose, insn_zydis_known.c says why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/jit/insn_zydis.h"

enum { BYTES = 15, REPORTED = 200 };

static ZydisDecoder decoders[3];
static uint64_t random_state;
static unsigned failures;
static unsigned long compared, both_valid;

static uint64_t random64(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int setup(void **state)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth stacks[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_64};

    for (unsigned w = 0; w < 3; w++) {
        assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&decoders[w], modes[w], stacks[w])));
        ZydisDecoderEnableMode(&decoders[w], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[w], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[w], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
    random_state = 1;
    failures = 0;
    return 0;
}

/* One of a kind is enough. */
static bool is_news(const struct pair *p, const char *what)
{
    static char seen[REPORTED][96];
    char key[96];

    snprintf(key, sizeof(key), "%s/%s/%u.%u.%02x", what,
             p->valid ? ZydisMnemonicGetString(p->theirs.mnemonic) : "", p->ours.op, p->ours.map,
             p->valid ? 0 : p->ours.opcode);
    for (unsigned n = 0; n < REPORTED; n++) {
        if (strcmp(seen[n], key) == 0)
            return false;
        if (!seen[n][0]) {
            strcpy(seen[n], key);
            return true;
        }
    }
    return false;
}

static void report(const struct pair *p, const char *what)
{
    failures++;
    if (!is_news(p, what))
        return;
    printf("%u-bit:", 16u << p->width);
    for (unsigned n = 0; n < BYTES; n++)
        printf(" %02x", p->bytes[n]);
    printf("\n    %s: ours %s len %u size %u form %u", what,
           p->ours.op == OP_VEC ? vec_ops[p->ours.vec].name : insn_op_name(p->ours.op), p->ours.len,
           p->ours.size, p->ours.form);
    if (p->valid)
        printf(", Zydis %s len %u width %u ext %s, %u operands",
               ZydisMnemonicGetString(p->theirs.mnemonic), p->theirs.length,
               p->theirs.operand_width, ZydisISAExtGetString(p->theirs.meta.isa_ext),
               p->theirs.operand_count_visible);
    printf("\n");
}

static void compare(const uint8_t bytes[BYTES], enum code_width width)
{
    struct pair p = {.bytes = bytes, .width = width};
    enum decode_result r = insn_decode(&p.ours, bytes, BYTES, width, ~0ull);
    const char *what;

    p.valid =
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[width], bytes, BYTES, &p.theirs, p.operands));
    compared++;
    if (r != DECODE_OK || p.ours.op == OP_UD) {
        if (p.valid && !zydis_alone_is_valid(&p))
            report(&p, r == DECODE_OK ? "not valid here" : "too long here");
        return;
    }
    if (!p.valid) {
        if (!ours_alone_is_valid(&p))
            report(&p, "valid here only");
        return;
    }
    both_valid++;
    what = zydis_difference(&p);
    if (what)
        report(&p, what);
}

/* Every opcode of the four maps with every ModRM, with and without prefixes. */
static void test_every_opcode(void **state)
{
    static const uint8_t prefixes[][2] = {{0},    {0x66}, {0xf3},      {0xf2},
                                          {0x67}, {0xf0}, {0x66, 0xf2}};
    static const uint8_t maps[][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    static const uint8_t rex[] = {0, 0x48, 0x45};

    for (unsigned n = 0; n < 3u * QZ_ARRAY_LEN(prefixes) * QZ_ARRAY_LEN(rex) * 4; n++) {
        const enum code_width width = n % 3;
        const uint8_t *prefix = prefixes[n / 3 % QZ_ARRAY_LEN(prefixes)],
                      *map = maps[n / 3 / QZ_ARRAY_LEN(prefixes) % 4];
        const uint8_t rex_byte = rex[n / 3 / QZ_ARRAY_LEN(prefixes) / 4];

        if (rex_byte && width != CODE_64)
            continue;
        for (unsigned k = 0; k < 0x10000; k++) {
            uint8_t bytes[BYTES];
            unsigned at = 0;

            for (unsigned m = 0; m < 2 && prefix[m]; m++)
                bytes[at++] = prefix[m];
            if (rex_byte)
                bytes[at++] = rex_byte;
            for (unsigned m = 0; m < 2 && map[m]; m++)
                bytes[at++] = map[m];
            bytes[at++] = k >> 8;
            bytes[at++] = k & 0xff;
            for (; at < BYTES; at++)
                bytes[at] = (uint8_t)(0x91 + 7 * at + k);
            compare(bytes, width);
        }
    }
    printf("%lu compared, %lu valid in both\n", compared, both_valid);
    assert_int_equal(failures, 0);
}

/* Prefixes in any number and order, opcodes of any map, VEX. */
static void make_random(uint8_t bytes[BYTES])
{
    static const uint8_t legacy[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                     0x66, 0x67, 0xf0, 0xf2, 0xf3};
    uint64_t r = random64();
    unsigned at = 0, prefixes = r & 1 ? 0 : r >> 1 & 3;

    for (unsigned n = 0; n < BYTES; n++)
        bytes[n] = (uint8_t)random64();
    if ((r >> 3 & 0xff) == 0) /* near the limit of the length */
        prefixes = 8 + (r >> 11) % 7;
    for (; prefixes && at < BYTES - 1; prefixes--)
        bytes[at++] = r >> 20 & 1 && random64() % 3 == 0 ? 0x40 + random64() % 16
                                                         : legacy[random64() % sizeof(legacy)];
    if (at > 8)
        return;
    if (r >> 21 & 1)
        bytes[at++] = 0x40 + (r >> 24 & 15);
    switch (r >> 32 & 7) {
    case 0:
        bytes[at++] = 0x0f;
        bytes[at] = 0x38;
        break;
    case 1:
        bytes[at++] = 0x0f;
        bytes[at] = 0x3a;
        break;
    case 2:
        bytes[at++] = 0xc4;
        bytes[at] = (uint8_t)((bytes[at] & 0xe0) | (r >> 40 & 1 ? 2 : 3));
        bytes[++at] &= r >> 41 & 1 ? 0xff : 0xfb;
        at++;
        bytes[at] = 0xf0 + (r >> 44 & 7);
        break;
    case 3:
    case 4:
    case 5:
        bytes[at] = 0x0f;
        break;
    }
}

static void test_random(void **state)
{
    uint8_t bytes[BYTES];

    for (unsigned n = 0; n < 1000000; n++) {
        make_random(bytes);
        compare(bytes, n % 4 == 0 ? CODE_16 : n % 4 == 1 ? CODE_32 : CODE_64);
    }
    printf("%lu compared, %lu valid in both\n", compared, both_valid);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_opcode, setup),
        cmocka_unit_test_setup(test_random, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

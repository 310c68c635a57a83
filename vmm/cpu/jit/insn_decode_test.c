/*
 * insn_decode_test.c - the decoder by cases from the SDM: each rule once, by the text that
 * insn_print() makes of the result.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/jit/insn_print.h"
#include "cpu/jit/vec.h"

enum { BYTES = 16 };

struct line {
    const char *bytes; /* hexadecimal; all of them are the instruction */
    const char *text;
};

static unsigned parse_hex(const char *text, uint8_t bytes[BYTES])
{
    unsigned n = 0;

    for (char *end; *text; text = end) {
        assert_true(n < BYTES);
        bytes[n++] = (uint8_t)strtoul(text, &end, 16);
        assert_true(end > text);
        while (*end == ' ')
            end++;
    }
    return n;
}

/* Each line decodes to its text, in its length, and is short with one byte less. */
static void check(enum code_width width, uint64_t features, const struct line *lines, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        uint8_t bytes[BYTES];
        unsigned len = parse_hex(lines[n].bytes, bytes);
        struct insn i;
        char text[128];

        assert_int_equal(insn_decode(&i, bytes, len, width, features), DECODE_OK);
        insn_print(&i, text, sizeof(text));
        if (strcmp(text, lines[n].text) != 0)
            fail_msg("%u-bit %s: %s instead of %s", 16u << width, lines[n].bytes, text,
                     lines[n].text);
        assert_int_equal(i.len, len);
        for (unsigned part = 0; part < len; part++)
            assert_int_equal(insn_decode(&i, bytes, part, width, features), DECODE_SHORT);
    }
}
#define CHECK(width, features, lines) check(width, features, lines, QZ_ARRAY_LEN(lines))

static const uint64_t all = CPU_FEATURE(CPU_FEATURE_COUNT) - 1;

static void test_64(void **state)
{
    static const struct line lines[] = {
        {"01 d8", "add.4 eax, ebx"},
        {"48 01 d8", "add.8 rax, rbx"},
        {"66 01 d8", "add.2 ax, bx"},
        {"66 48 01 d8", "add.8 rax, rbx"}, /* REX.W wins over 66 */
        {"48 66 01 d8", "add.2 ax, bx"},   /* a REX that is not last does not count */
        {"4f 40 01 d8", "add.4 eax, ebx"},
        {"00 e0", "add.1 al, ah"},
        {"40 00 e0", "add.1 al, spl"},
        {"45 00 e0", "add.1 r8b, r12b"},
        {"04 80", "add.1 al, -0x80"},
        {"41 04 80", "add.1 al, -0x80"}, /* no register that REX.B could extend */
        {"48 83 c0 ff", "add.8 rax, -0x1"},
        {"48 81 45 08 ff ff ff 7f", "add.8 [ss:rbp+0x8], +0x7fffffff"},
        {"f0 ff 00", "lock inc.4 [ds:rax]"},
        {"ff c0", "inc.4 eax"},
        {"50", "push.8 rax"},
        {"41 57", "push.8 r15"},
        {"66 50", "push.2 ax"},
        {"6a ff", "push.8 -0x1"},
        {"66 68 34 12", "push.2 +0x1234"},
        {"8f 04 24", "pop.8 [ss:rsp]"},
        {"63 c3", "movsx.4 eax, ebx"},
        {"48 63 c3", "movsx.8 rax, ebx"},
        {"66 63 c3", "movsx.2 ax, bx"},
        {"48 b8 88 77 66 55 44 33 22 91", "mov.8 rax, -0x6eddccbbaa998878"},
        {"b8 ff ff ff ff", "mov.4 eax, -0x1"},
        {"b4 12", "mov.1 ah, +0x12"},
        {"40 b4 12", "mov.1 spl, +0x12"},
        {"8b 05 fc ff ff ff", "mov.4 eax, [ds:rip-0x4]"},
        {"67 8b 05 fc ff ff ff", "mov.4 eax, [ds:eip-0x4]"},
        {"8b 04 25 00 10 00 00", "mov.4 eax, [ds:+0x1000]"},
        {"64 8b 04 25 00 00 00 00", "mov.4 eax, [fs:+0x0]"},
        {"64 2e 8b 00", "mov.4 eax, [fs:rax]"}, /* the later CS is not there */
        {"3e 8b 45 00", "mov.4 eax, [ss:rbp]"},
        {"41 8b 45 00", "mov.4 eax, [ds:r13]"},
        {"4a 8b 04 e5 00 00 00 00", "mov.8 rax, [ds:r12*8]"},
        {"67 8b 44 88 7f", "mov.4 eax, [ds:eax+ecx*4+0x7f]"},
        {"a0 08 07 06 05 04 03 02 01", "mov.1 al, [ds:+0x102030405060708]"},
        {"67 48 a3 78 56 34 12", "mov.8 [ds:+0x12345678], rax"},
        {"90", "nop.4"},
        {"f3 90", "rep pause.4"},
        {"41 90", "xchg.4 r8d, eax"},
        {"f3 41 90", "rep xchg.4 r8d, eax"},
        {"48 87 03", "xchg.8 [ds:rbx], rax"},
        {"f3 0f 1e fa", "rep nop.4"}, /* ENDBR64 */
        {"66 2e 0f 1f 84 00 00 00 00 00", "nop.2"},
        {"0f 0d 08", "nop.4"}, /* PREFETCHW */
        {"0f 18 08", "nop.4"},
        {"66 e8 10 00 00 00", "call.8 +0x10"}, /* Intel: 66 does not count */
        {"e9 fc ff ff ff", "jmp.8 -0x4"},
        {"74 fe", "jcc4.8 -0x2"},
        {"0f 8f 00 01 00 00", "jcc15.8 +0x100"},
        {"67 e3 00", "jcxz.8 +0x0"},
        {"ff 25 00 00 00 00", "jmp.8 [ds:rip]"},
        {"48 ff 28", "jmp_far.8 [ds:rax]"},
        {"c3", "ret.8"},
        {"66 c3", "ret.8"},
        {"c2 08 00", "ret.8 +0x8"},
        {"cb", "ret_far.4"},
        {"48 cf", "iret.8"},
        {"c8 10 00 01", "enter.8 +0x10"},
        {"0f b6 c4", "movzx.4 eax, ah"},
        {"48 0f be c0", "movsx.8 rax, al"},
        {"c1 e0 85", "shl.4 eax, +0x85"},
        {"d1 f0", "shl.4 eax, +0x1"}, /* the alias */
        {"d3 f8", "sar.4 eax, cl"},
        {"0f a4 c8 04", "shld.4 eax, ecx, +0x4"},
        {"0f ad c8", "shrd.4 eax, ecx, cl"},
        {"f7 08 01 00 00 00", "test.4 [ds:rax], +0x1"}, /* the alias */
        {"0f 94 c4", "setcc4.1 ah"},
        {"48 0f 44 c1", "cmov4.8 rax, rcx"},
        {"6b c1 fd", "imul.4 eax, ecx, -0x3"},
        {"0f c8", "bswap.4 eax"},
        {"f0 0f c7 08", "lock cmpxchg8b.4 [ds:rax]"},
        {"f0 48 0f c7 08", "lock cmpxchg16b.8 [ds:rax]"},
        {"f0 0f ba 28 1f", "lock bts.4 [ds:rax], +0x1f"},
        {"f2 0f 38 f0 c4", "repne crc32.4 eax, ah"},
        {"66 f2 0f 38 f1 c1", "repne crc32.4 eax, cx"},
        {"f2 48 0f 38 f1 c1", "repne crc32.8 rax, rcx"},
        {"0f 38 f0 00", "movbe.4 eax, [ds:rax]"},
        {"f3 0f b8 c1", "rep popcnt.4 eax, ecx"},
        {"f3 0f bc c1", "rep tzcnt.4 eax, ecx"},
        {"0f 01 f8", "swapgs.1"},
        {"0f 01 38", "invlpg.1 [ds:rax]"},
        {"66 0f 01 10", "lgdt.8 [ds:rax]"},
        {"44 0f 20 c0", "mov_from_cr.8 rax, 8"},
        {"0f 22 18", "mov_to_cr.8 3, rax"}, /* mod does not count */
        {"44 8e d8", "mov_to_seg.2 ds, ax"},
        {"8c 18", "mov_from_seg.2 [ds:rax], ds"},
        {"48 8c d8", "mov_from_seg.8 rax, ds"},
        {"0f a0", "push_seg.8"},
        {"48 0f 07", "sysret.8"},
        {"f3 48 0f ae c0", "rep rdfsbase.8 rax"},
        {"f3 0f c7 f8", "rep rdpid.8 rax"},
        {"66 0f 38 82 00", "invpcid.8 rax, [ds:rax]"},
        {"e5 70", "in.4 eax, +0x70"},
        {"66 ef", "out.2 ax"},
        {"f3 48 a5", "rep movs.8"},
        {"f2 f3 a6", "rep cmps.1"}, /* the last one counts */
        {"f3 f2 a6", "repne cmps.1"},
        {"d8 c1", "x87.4 ecx"},
        {"66 d9 30", "x87.2 [ds:rax]"},
        {"9f", "lahf.1"},
        {"0f 05", "syscall.1"},
        {"cd 80", "int.1 +0x80"},
    };

    CHECK(CODE_64, all, lines);
}

static void test_vex(void **state)
{
    static const struct line lines[] = {
        {"c4 e2 70 f2 c2", "andn.4 eax, ecx, edx"},
        {"c4 42 b8 f2 c2", "andn.8 r8, r8, r10"},
        {"c4 e2 f0 f3 c9", "blsr.8 rcx, rcx"},
        {"c4 e2 70 f5 02", "bzhi.4 eax, [ds:rdx], ecx"},
        {"c4 e2 f3 f6 c2", "mulx.8 rax, rcx, rdx"},
        {"c4 e2 71 f7 c2", "shlx.4 eax, edx, ecx"},
        {"65 c4 e3 fb f0 00 07", "rorx.8 rax, [gs:rax], +0x7"},
    };
    static const struct line narrow[] = {
        {"c4 e2 f0 f2 c2", "andn.4 eax, ecx, edx"}, /* W does not count */
        {"c4 e2 70 f2 02", "andn.4 eax, ecx, [ds:edx]"},
        {"c4 10", "les.4 edx, [ds:eax]"},
        {"c5 10", "lds.4 edx, [ds:eax]"},
        {"62 10", "bound.4 edx, [ds:eax]"},
    };

    CHECK(CODE_64, all, lines);
    CHECK(CODE_32, all, narrow);
}

static void test_32(void **state)
{
    static const struct line lines[] = {
        {"40", "inc.4 eax"},
        {"66 4f", "dec.2 di"},
        {"06", "push_seg.4"},
        {"60", "pusha.4"},
        {"63 c8", "arpl.2 ax, cx"},
        {"82 c0 ff", "add.1 al, -0x1"},
        {"a1 78 56 34 92", "mov.4 eax, [ds:-0x6dcba988]"},
        {"8b 05 78 56 34 12", "mov.4 eax, [ds:+0x12345678]"},
        {"36 8b 00", "mov.4 eax, [ss:eax]"},
        {"64 2e 8b 00", "mov.4 eax, [cs:eax]"},
        {"67 8b 42 fe", "mov.4 eax, [ss:bp+si*1-0x2]"},
        {"67 8b 06 34 12", "mov.4 eax, [ds:+0x1234]"},
        {"66 ea 34 12 78 56", "jmp_far.2 0x5678:+0x1234"},
        {"9a 78 56 34 12 08 00", "call_far.4 0x8:+0x12345678"},
        {"66 e8 fe ff", "call.2 -0x2"},
        {"d4 0a", "aam.1 +0xa"},
        {"0f 20 c0", "mov_from_cr.4 eax, 0"},
        {"0f 01 10", "lgdt.4 [ds:eax]"},
        {"9f", "lahf.1"},
    };

    CHECK(CODE_32, all, lines);
}

static void test_16(void **state)
{
    static const struct line lines[] = {
        {"01 d8", "add.2 ax, bx"},
        {"66 01 d8", "add.4 eax, ebx"},
        {"8b 00", "mov.2 ax, [ds:bx+si*1]"},
        {"8b 46 00", "mov.2 ax, [ss:bp]"},
        {"8b 0e 34 12", "mov.2 cx, [ds:+0x1234]"},
        {"67 8b 04 24", "mov.2 ax, [ss:esp]"},
        {"67 66 8b 44 8d 10", "mov.4 eax, [ss:ebp+ecx*4+0x10]"},
        {"66 ea 78 56 34 12 08 00", "jmp_far.4 0x8:+0x12345678"},
        {"ea 34 12 00 f0", "jmp_far.2 0xf000:+0x1234"},
        {"0f 22 c0", "mov_to_cr.4 0, eax"},
        {"66 0f 01 16 00 7c", "lgdt.4 [ds:+0x7c00]"},
        {"e9 fd ff", "jmp.2 -0x3"},
        {"a1 fe ff", "mov.2 ax, [ds:+0xfffe]"},
        {"cf", "iret.2"},
    };

    CHECK(CODE_16, all, lines);
}

static void test_invalid(void **state)
{
    static const struct line lines[] = {
        {"06", "ud"},
        {"27", "ud"},
        {"60", "ud"},
        {"62", "ud"},
        {"82", "ud"},
        {"9a", "ud"},
        {"c5 f8", "ud"},
        {"ce", "ud"},
        {"d4", "ud"},
        {"d6", "ud"},
        {"ea", "ud"},
        {"0f 0b", "ud"},
        {"0f 04", "ud"},
        {"0f b8 c0", "ud"},
        {"f0 90", "ud"},
        {"f0 01 d8", "ud"},
        {"f0 03 00", "ud"},
        {"f0 39 00", "ud"},
        {"f0 0f ba 20", "ud"},
        {"8d c0", "ud"},
        {"8e c8", "ud"},
        {"8e f0", "ud"},
        {"8f c8", "ud"},
        {"c6 c8", "ud"},
        {"fe d0", "ud"},
        {"ff d8", "ud"},
        {"ff f8", "ud"},
        {"0f 20 c8", "ud"},
        {"44 0f 21 c0", "ud"},
        {"0f 38 f0 c0", "ud"},
        {"0f c7 c8", "ud"},
        {"0f c7 00", "ud"},
        {"f3 0f c7 f0", "ud"},
        {"66 0f ae 00", "ud"},
        {"66 0f ae e8", "ud"},
        {"66 0f 01 ca", "ud"},
        {"66 c4 e2 70 f2", "ud"},
        {"0f 01 c8", "ud"},
        {"0f c5 00", "ud"},
    };
    /* the byte that told is the last one */
    for (size_t n = 0; n < QZ_ARRAY_LEN(lines); n++) {
        uint8_t bytes[BYTES];
        unsigned len = parse_hex(lines[n].bytes, bytes);
        struct insn i;

        memset(bytes + len, 0x11, sizeof(bytes) - len);
        assert_int_equal(insn_decode(&i, bytes, BYTES, CODE_64, all & ~CPU_FEATURE(CPU_BASE)),
                         DECODE_OK);
        if (i.op != OP_UD)
            fail_msg("%s is %s", lines[n].bytes, insn_op_name(i.op));
        assert_true(i.len > 0 && i.len <= len);
    }
}

/* What CPUID does not offer is #UD, or what it was before. */
static void test_features(void **state)
{
    static const struct line old[] = {
        {"f3 0f bc c1", "rep bsf.4 eax, ecx"},
        {"f3 0f bd c1", "rep bsr.4 eax, ecx"},
        {"f3 0f b8 c1", "ud"},
        {"0f c7 f0", "ud"},
        {"f3 0f c7 f8", "ud"},
        {"48 0f c7 08", "ud"},
        {"0f c7 08", "cmpxchg8b.4 [ds:rax]"},
        {"0f 01 c1", "ud"},
        {"0f 01 ca", "ud"},
        {"0f 01 d0", "ud"},
        {"0f 01 f9", "ud"},
        {"0f ae 38", "clflush.1 [ds:rax]"},
        {"66 0f ae 38", "ud"},
        {"66 0f ae 30", "ud"},
        {"0f ae 20", "ud"},
        {"9e", "ud"},
        {"9f", "ud"},
        {"0f 0d 08", "nop.4"},
    };
    static const struct line narrow[] = {{"9e", "sahf.1"}, {"9f", "lahf.1"}};
    static const struct line clwb[] = {{"66 0f ae 30", "clflush.1 [ds:rax]"},
                                       {"66 0f ae 38", "ud"}};

    CHECK(CODE_64, 0, old);
    CHECK(CODE_32, 0, narrow);
    CHECK(CODE_64, CPU_FEATURE(CPU_CLWB), clwb);
}

static void test_vectors(void **state)
{
    static const struct line lines[] = {
        {"0f 58 c1", "vec addps xmm0, xmm1"},
        {"66 0f 6f 00", "vec movdqa xmm0, [ds:rax]"},
        {"f3 44 0f 7f 3b", "rep vec movdqu [ds:rbx], xmm15"},
        {"45 0f 6f c1", "vec movq mm0, mm1"}, /* eight MMX registers */
        {"66 0f 72 d1 05", "vec psrld xmm1, +0x5"},
        {"0f c6 c1 ff", "vec shufps xmm0, xmm1, +0xff"},
        {"66 48 0f 6e c1", "vec movd xmm0, rcx"},
        {"66 f2 0f 10 c1", "repne vec movsd xmm0, xmm1"}, /* f2 wins over 66 */
        {"66 0f 38 00 c1", "vec pshufb xmm0, xmm1"},
        {"66 0f 3a 0f c1 08", "vec palignr xmm0, xmm1, +0x8"},
    };
    static const struct line none[] = {{"66 0f 38 00 c1", "ud"},
                                       {"0f 58 c1", "vec addps xmm0, xmm1"}};

    CHECK(CODE_64, all, lines);
    CHECK(CODE_64, 0, none);
}

static void test_length(void **state)
{
    uint8_t bytes[BYTES];
    struct insn i;

    memset(bytes, 0x66, sizeof(bytes));
    for (unsigned available = 0; available < 15; available++)
        assert_int_equal(insn_decode(&i, bytes, available, CODE_64, all), DECODE_SHORT);
    assert_int_equal(insn_decode(&i, bytes, 15, CODE_64, all), DECODE_TOO_LONG);
    assert_int_equal(insn_decode(&i, bytes, 16, CODE_64, all), DECODE_TOO_LONG);

    bytes[14] = 0x90;
    assert_int_equal(insn_decode(&i, bytes, 15, CODE_64, all), DECODE_OK);
    assert_int_equal(i.op, OP_NOP);
    assert_int_equal(i.len, 15);

    bytes[14] = 0x05; /* add ax, imm16 would take 17 bytes */
    assert_int_equal(insn_decode(&i, bytes, 14, CODE_64, all), DECODE_SHORT);
    assert_int_equal(insn_decode(&i, bytes, 16, CODE_64, all), DECODE_TOO_LONG);
}

/* Fields that the text does not show. */
static void test_fields(void **state)
{
    struct insn i;

    assert_int_equal(insn_decode(&i, (const uint8_t[]){0x65, 0x48, 0xa5}, 3, CODE_64, all), 0);
    assert_int_equal(i.seg, SEG_GS); /* of the source of MOVS */
    assert_int_equal(i.asize, 8);
    assert_int_equal(insn_decode(&i, (const uint8_t[]){0x0f, 0xa9}, 2, CODE_32, all), 0);
    assert_int_equal(i.op, OP_POP_SEG);
    assert_int_equal(i.reg, SEG_GS);
    assert_int_equal(insn_decode(&i, (const uint8_t[]){0xc8, 0x10, 0, 3}, 4, CODE_32, all), 0);
    assert_int_equal(i.imm, 0x10);
    assert_int_equal(i.imm2, 3);
    assert_int_equal(insn_decode(&i, (const uint8_t[]){0x0f, 0x01, 0xd9}, 3, CODE_32, all), 0);
    assert_int_equal(i.op, OP_VMCALL);
    assert_int_equal(i.modrm, 0xd9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_64),      cmocka_unit_test(test_vex),
        cmocka_unit_test(test_32),      cmocka_unit_test(test_16),
        cmocka_unit_test(test_invalid), cmocka_unit_test(test_features),
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_length),
        cmocka_unit_test(test_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

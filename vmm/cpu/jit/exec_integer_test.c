/*
 * exec_integer_test.c - integer and string instructions against the host's own CPU: the same random
 * instruction, registers, flags and memory on both, and nothing may differ but undefined flags.
 */
#include <cpuid.h>
#include <stdarg.h>
#include <stdlib.h>

#include "cpu/jit/test_flat.h"

#include <cmocka.h>

#include "cpu/jit/test_encode.h"

enum { ROUNDS = 1500 }; /* for each encoding; QUEZTL_TEST_ROUNDS overrides */

static const struct {
    uint16_t undefined;
    const char *name;
} ops[OP_COUNT] = {
#define OP(name, feature, reads, writes, undefined) [OP_##name] = {undefined, #name},
    INSN_OPS(OP)
#undef OP
};

/* CPUID bits by feature (SDM vol 2, CPUID). */
static bool host_has(enum cpu_feature feature)
{
    static const struct {
        uint32_t leaf;
        uint8_t reg, bit; /* eax to edx */
    } bits[CPU_FEATURE_COUNT] = {
        [CPU_SSE42] = {1, 2, 20}, [CPU_MOVBE] = {1, 2, 22},         [CPU_POPCNT] = {1, 2, 23},
        [CPU_CX16] = {1, 2, 13},  [CPU_BMI1] = {7, 1, 3},           [CPU_BMI2] = {7, 1, 8},
        [CPU_ADX] = {7, 1, 19},   [CPU_LZCNT] = {0x80000001, 2, 5},
    };
    uint32_t r[4] = {0};

    if (feature == CPU_BASE)
        return true;
    __get_cpuid_count(bits[feature].leaf, 0, &r[0], &r[1], &r[2], &r[3]);
    return r[bits[feature].reg] >> bits[feature].bit & 1;
}

/* The flags that the instruction leaves undefined with this count: a shift by one defines OF, one
 * by less than the operand's bits defines CF. */
static uint64_t undefined_flags(const struct insn *i, const struct native_state *in)
{
    uint64_t undefined = ops[i->op].undefined;
    unsigned count;

    if (i->op < OP_ROL || i->op > OP_SHRD)
        return undefined;
    count = (i->form == FORM_RM_CL || i->form == FORM_RM_REG_CL ? in->gpr[RCX] : i->imm) &
            (i->size == 8 ? 63 : 31);
    if (count == 0)
        return 0;
    if (count == 1)
        undefined &= ~(uint64_t)FLAG_OF;
    if (count < i->size * 8u)
        undefined &= ~(uint64_t)FLAG_CF;
    else if (i->op == OP_SHLD || i->op == OP_SHRD)
        undefined = FLAGS_ARITH;
    return undefined;
}

/* SHLD and SHRD by more than 16 bits have no defined result with 16-bit operands. */
static bool defined_result(const struct insn *i, const struct native_state *in)
{
    uint64_t count = i->form == FORM_RM_REG_CL ? in->gpr[RCX] : i->imm;

    return (i->op != OP_SHLD && i->op != OP_SHRD) || i->size != 2 || (count & 31) <= 16;
}

static void print_case(const struct encoded *x, const struct native_state *in,
                       const struct native_result *native)
{
    fprintf(stderr, "%s size %u form %u%s:", ops[x->insn.op].name, x->insn.size, x->insn.form,
            x->insn.mem ? " mem" : "");
    for (unsigned n = 0; n < x->insn.len; n++)
        fprintf(stderr, " %02x", x->bytes[n]);
    fprintf(stderr, "\nexception %d, host %d\n", flat.vector, native->vector);
    for (unsigned reg = 0; reg < GPR_COUNT; reg++)
        fprintf(stderr, "r%-2u %016lx -> %016lx, host %016lx%s\n", reg, in->gpr[reg],
                flat.cpu->gpr[reg], native->state.gpr[reg],
                flat.cpu->gpr[reg] == native->state.gpr[reg] ? "" : " <--");
    fprintf(stderr, "flags %lx -> %lx, host %lx\n", in->rflags, flat.cpu->rflags,
            native->state.rflags);
}

static uint8_t initial[FLAT_SIZE], expected[FLAT_SIZE];

/* An address in memory, now and then across its end or a page, often near the other one. */
static uint64_t pick_operand(uint64_t other)
{
    uint64_t memory = (uintptr_t)flat.memory;

    switch (test_random_below(8)) {
    case 0:
        return memory + FLAT_SIZE - test_random_below(32);
    case 1:
        return memory + 4096 * (1 + test_random_below(FLAT_PAGES - 1)) - test_random_below(16);
    case 2:
        return memory + test_random_below(32) - 8;
    case 3:
        return other ? other + test_random_below(64) - 32 : memory + 2048;
    default:
        return memory + test_random_below(FLAT_SIZE - 64);
    }
}

static bool memory_differs(void)
{
    return memcmp(flat.memory, expected, FLAT_SIZE) != 0;
}

/* One instruction on both; true when they agree. */
static bool compare(const struct encoded *x, const struct native_state *in)
{
    const uint64_t flags = FLAGS_ARITH | RFLAGS_DF;
    uint64_t mask = flags & ~undefined_flags(&x->insn, in);
    struct native_result native;
    bool same;

    memcpy(flat.memory, initial, FLAT_SIZE);
    native_run(x->bytes, x->insn.len, in, &native);
    memcpy(expected, flat.memory, FLAT_SIZE);

    memcpy(flat.memory, initial, FLAT_SIZE);
    memcpy(flat.cpu->gpr, in->gpr, sizeof(in->gpr));
    flat.cpu->rflags = in->rflags;
    flat.cpu->rip = native_rip();
    flat_execute(test_random_below(2) ? jit_handlers[x->insn.op] : jit_handler_for(&x->insn),
                 &x->insn);

    if (native.vector != flat.vector)
        return false;
    same = !memcmp(flat.cpu->gpr, native.state.gpr, sizeof(in->gpr));
    if (native.vector == NATIVE_NONE)
        return same && !memory_differs() && flat.cpu->rip == native_rip() + x->insn.len &&
               (flat.cpu->rflags & mask) == (native.state.rflags & mask);
    if (flat.vector == VECTOR_PF && ((uint32_t)native.code ^ flat.code) & PF_WRITE)
        return false;
    /* Stores of a fault's instruction before the fault may or may not be seen: PUSHA, ENTER. */
    return same && flat.cpu->rip == native_rip() && (x->insn.op == OP_ENTER || !memory_differs());
}

static void test_encoding(const struct encoding *e, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        struct native_state in = {.rflags =
                                      (test_random() & FLAGS_ARITH) | RFLAGS_FIXED | RFLAGS_IF};
        uint64_t operand = pick_operand(0);
        struct encoded x;

        for (unsigned reg = 0; reg < GPR_COUNT; reg++)
            in.gpr[reg] = test_random_value();
        if ((e->flags & ENC_STRING) && test_random_below(4) == 0)
            in.rflags |= RFLAGS_DF;
        encode_random(e, &x, &in, operand, pick_operand(operand));
        if (defined_result(&x.insn, &in) && !compare(&x, &in)) {
            struct native_result native;

            memcpy(flat.memory, initial, FLAT_SIZE);
            native_run(x.bytes, x.insn.len, &in, &native);
            print_case(&x, &in, &native);
            fail_msg("%s differs from the host's", ops[e->op].name);
        }
    }
}

static void integer_instructions_do_as_the_host(void **state)
{
    const char *text = getenv("QUEZTL_TEST_ROUNDS");
    unsigned rounds = text ? (unsigned)strtoul(text, NULL, 0) : ROUNDS;
    unsigned run = 0;

    if (native_open())
        skip();
    flat_reset_64();
    for (unsigned n = 0; n < encodings_count; n++) {
        if (!host_has(encodings[n].feature))
            continue;
        test_encoding(&encodings[n], rounds);
        run += rounds;
    }
    print_message("%u instructions, %u of %u encodings\n", run, run / rounds, encodings_count);
    native_close();
}

/* --- Decimal adjustment: 32-bit code, which a 64-bit process reaches by a far jump --------------
 */

/* The instruction in a 32-bit code segment, there and back; returns its length. */
static unsigned compatibility_code(uint8_t *p, const uint8_t *insn, unsigned len)
{
    enum { USER32_CS = 0x23, JUMP_LEN = 7 };
    uint32_t start = (uint32_t)native_rip(), back = start + 2 * JUMP_LEN + len;
    uint32_t pointer = back + 2, inside = start + JUMP_LEN;
    uint16_t cs32 = USER32_CS, cs64;

    __asm__("mov %%cs, %0" : "=r"(cs64));
    memcpy(p, "\xff\x2c\x25", 3); /* jmp far [pointer] */
    memcpy(p + 3, &pointer, 4);
    memcpy(p + 7, insn, len);
    p += 7 + len;
    *p = 0xea; /* jmp far cs64:back */
    memcpy(p + 1, &back, 4);
    memcpy(p + 5, &cs64, 2);
    memcpy(p + 7, "\xeb\x06", 2); /* over the pointer */
    memcpy(p + 9, &inside, 4);
    memcpy(p + 13, &cs32, 2);
    return 2 * JUMP_LEN + len + 2 + 6;
}

static void decimal_as_the_host(enum insn_op op, const uint8_t *bytes, unsigned len, uint16_t ax,
                                uint64_t flags)
{
    const struct insn i = {.op = op, .len = (uint8_t)len, .size = 1, .imm = len > 1 ? bytes[1] : 0};
    struct native_state in = {.gpr[RAX] = ax, .rflags = flags | RFLAGS_FIXED | RFLAGS_IF};
    uint64_t mask = FLAGS_ARITH & ~(uint64_t)ops[op].undefined;
    struct native_result native;
    uint8_t code[32];

    native_run(code, compatibility_code(code, bytes, len), &in, &native);
    flat.cpu->gpr[RAX] = ax;
    flat.cpu->rflags = in.rflags;
    flat_execute(jit_handlers[op], &i);
    assert_int_equal(flat.vector, native.vector);
    if (native.vector != NATIVE_NONE)
        return;
    assert_int_equal(flat.cpu->gpr[RAX], native.state.gpr[RAX]);
    assert_int_equal(flat.cpu->rflags & mask, native.state.rflags & mask);
}

/* False where the kernel has no 32-bit code segment. */
static bool has_compatibility_mode(void)
{
    struct native_state in = {.rflags = RFLAGS_FIXED | RFLAGS_IF};
    struct native_result native;
    uint8_t code[32];

    native_run(code, compatibility_code(code, (const uint8_t *)"\x90", 1), &in, &native);
    return native.vector == NATIVE_NONE;
}

static void decimal_adjustments_do_as_the_host(void **state)
{
    static const struct {
        enum insn_op op;
        uint8_t byte;
    } plain[] = {{OP_AAA, 0x37}, {OP_AAS, 0x3f}, {OP_DAA, 0x27}, {OP_DAS, 0x2f}};

    if (native_open())
        skip();
    if (!has_compatibility_mode()) {
        native_close();
        skip();
    }
    flat_reset_legacy(32);
    for (unsigned n = 0; n < 4; n++) {
        for (unsigned ax = 0; ax < 0x10000; ax += plain[n].op >= OP_DAA ? 1 : 7) {
            uint64_t flags = (ax & 0x100 ? FLAG_AF : 0) | (ax & 0x200 ? FLAG_CF : 0);

            decimal_as_the_host(plain[n].op, &plain[n].byte, 1, (uint16_t)ax, flags);
        }
    }
    for (unsigned n = 0; n < 20000; n++) {
        const uint8_t aam[] = {0xd4, (uint8_t)test_random_value()};
        const uint8_t aad[] = {0xd5, (uint8_t)test_random_value()};

        decimal_as_the_host(OP_AAM, aam, 2, (uint16_t)test_random(), 0);
        decimal_as_the_host(OP_AAD, aad, 2, (uint16_t)test_random(), 0);
    }
    native_close();
}

static int setup(void **state)
{
    flat_open();
    for (unsigned n = 0; n < FLAT_SIZE; n++) /* runs of equal bytes too, for REPE */
        initial[n] = n % 1024 < 300 ? 0x5a : (uint8_t)test_random();
    return 0;
}

static int teardown(void **state)
{
    flat_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integer_instructions_do_as_the_host),
        cmocka_unit_test(decimal_adjustments_do_as_the_host),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

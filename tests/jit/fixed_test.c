/*
 * fixed_test.c - sequences on which the three CPUs once did not agree.
 *
 * Each is executed with registers as a random sequence begins with, flags apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rig.h"

#include "cpu/jit/cpu.h"

static struct rig rig;
static const char *child;

static int open_rig(void **state)
{
    struct qz_error err = {0};

    if (rig_open(&rig, child, &err) == 0)
        return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int close_rig(void **state)
{
    rig_close(&rig);
    return 0;
}

static void append(struct sequence *s, const uint8_t *code, unsigned len)
{
    struct item *item = &s->item[s->count++];

    *item = (struct item){.form = NO_FORM, .target = NO_ITEM, .len = (uint8_t)len};
    memcpy(item->bytes, code, len);
}

static void append_mov(struct sequence *s, unsigned reg, uint64_t value)
{
    uint8_t mov[10] = {0x48, (uint8_t)(0xb8 | reg)};

    memcpy(mov + 2, &value, 8);
    append(s, mov, sizeof(mov));
}

static struct sequence *begin(uint64_t rflags)
{
    static struct sequence s;

    sequence_generate(&s, &rig.forms[1], 1);
    s.count = 0;
    s.modifies = false;
    s.in.rflags = 0x202 | rflags;
    return &s;
}

/* They agree, and it ended with this exception. Gives back the host's rcx. */
static uint64_t agree(struct sequence *s, unsigned vector)
{
    static struct comparison c;
    enum verdict verdict = NOT_COMPARED;
    struct qz_error err = {0};

    append(s, (const uint8_t[]){0xcc}, 1);
    sequence_define_flags(s, &rig.forms[1], c.undefined);
    if (rig_compare(&rig, s, &c, &verdict, &err) < 0)
        fail_msg("%s", err.text);
    if (verdict != SAME)
        fail_msg("%s:%s", verdict == DIFFERENT ? c.who : "not compared", c.what);
    assert_int_equal(c.native.vector, vector);
    return c.native.regs.gpr[RCX];
}

#define CODE(...) append(s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static const uint64_t not_canonical[] = {0x8000000000000000, 0x0000800000000000, 0xffff7fffffffffff,
                                         0x8000000020005000};
#define ABSENT (WINDOW + 4 * PAGE)

/* An empty TLB entry once had the tag 0x8000000000000000. */
static void test_data_that_is_not_canonical(void **state)
{
    for (unsigned n = 0; n < QZ_ARRAY_LEN(not_canonical); n++) {
        struct sequence *s = begin(0);

        append_mov(s, RAX, not_canonical[n]);
        CODE(0x48, 0x8b, 0x18); /* mov (%rax), %rbx */
        agree(s, VECTOR_GP);
        s = begin(0);
        append_mov(s, RAX, not_canonical[n]);
        CODE(0x48, 0x89, 0x18);
        agree(s, VECTOR_GP);
    }
}

static void test_a_store_across_the_end(void **state)
{
    struct sequence *s = begin(0);

    append_mov(s, RAX, 0x7fffffffffff);
    CODE(0x66, 0x89, 0x18);
    agree(s, VECTOR_GP);
}

static void test_branches_that_are_not_canonical(void **state)
{
    for (unsigned n = 0; n < QZ_ARRAY_LEN(not_canonical); n++) {
        struct sequence *s = begin(0);

        append_mov(s, RAX, not_canonical[n]);
        CODE(0xff, 0xe0); /* jmp *%rax */
        agree(s, VECTOR_GP);
        s = begin(0);
        append_mov(s, RAX, not_canonical[n]);
        CODE(0xff, 0xd0); /* call *%rax */
        agree(s, VECTOR_GP);
        s = begin(0);
        append_mov(s, RAX, not_canonical[n]);
        CODE(0x50); /* push %rax; ret */
        CODE(0xc3);
        agree(s, VECTOR_GP);
    }
}

static void test_alignment_before_absence(void **state)
{
    struct sequence *s = begin(0);

    append_mov(s, RAX, ABSENT + 8);
    CODE(0x0f, 0x28, 0x00); /* movaps (%rax), %xmm0 */
    agree(s, VECTOR_GP);
    s = begin(RFLAGS_AC);
    append_mov(s, RAX, ABSENT + 1);
    CODE(0x01, 0x18); /* add %ebx, (%rax) */
    agree(s, VECTOR_AC);
    s = begin(RFLAGS_AC);
    append_mov(s, RAX, ABSENT + 1);
    CODE(0xf2, 0x0f, 0x11, 0x00); /* movsd %xmm0, (%rax) */
    agree(s, VECTOR_AC);
}

static void test_alignment_of_x87(void **state)
{
    static const uint8_t loads[][2] = {{0xd9, 0x00}, {0xdd, 0x00}, {0xdb, 0x28},
                                       {0xdf, 0x00}, {0xd9, 0x18}, {0xdd, 0x18}};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(loads); n++) {
        struct sequence *s = begin(RFLAGS_AC);

        CODE(0x9b, 0xdb, 0xe3); /* finit */
        append_mov(s, RAX, WINDOW + PAGE_DATA * PAGE + 1);
        append(s, loads[n], 2);
        agree(s, VECTOR_AC);
    }
}

/* The page behind the data may be read and not written, that behind it is absent. */
static void test_strings_backward(void **state)
{
    static const uint8_t strings[] = {0xa4, 0xa6, 0xaa, 0xae};

    for (unsigned n = 0; n < sizeof(strings); n++) {
        struct sequence *s = begin(RFLAGS_DF);

        append_mov(s, RDI, ABSENT + PAGE - 1);
        append_mov(s, RSI, WINDOW + PAGE_DATA * PAGE + 100);
        append_mov(s, RCX, 10);
        CODE(0xf3, strings[n]);
        agree(s, VECTOR_PF);
    }
}

/* Three runs of the same place with other code: what was made of the old is not executed. */
static void test_code_that_is_replaced(void **state)
{
    for (unsigned n = 0; n < 3; n++) {
        struct sequence *s = begin(0);

        append_mov(s, RAX, s->rip + 12);
        CODE(0xff, 0xe0);
        CODE(0xb9, (uint8_t)n, 0, 0, 0); /* mov $n, %ecx */
        agree(s, VECTOR_BP);
    }
}

static void test_code_that_modifies_itself(void **state)
{
    struct sequence *s = begin(0);

    s->rip = s->in.rip = WINDOW + PAGE_MODIFIED * PAGE + 100;
    s->modifies = true;
    CODE(0xc6, 0x05, 4, 0, 0, 0, 7); /* movb $7, 4(%rip): the last byte of what follows */
    CODE(0xb9, 1, 0, 0, 0);          /* mov $1, %ecx */
    s->item[0].rip = 2;
    s->item[0].target = 1;
    assert_int_equal(agree(s, VECTOR_BP), 0x07000001);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_that_is_not_canonical),
        cmocka_unit_test(test_a_store_across_the_end),
        cmocka_unit_test(test_branches_that_are_not_canonical),
        cmocka_unit_test(test_alignment_before_absence),
        cmocka_unit_test(test_alignment_of_x87),
        cmocka_unit_test(test_strings_backward),
        cmocka_unit_test(test_code_that_is_replaced),
        cmocka_unit_test(test_code_that_modifies_itself),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: %s CHILD\n", argv[0]);
        return 2;
    }
    child = argv[1];
    return cmocka_run_group_tests(tests, open_rig, close_rig);
}

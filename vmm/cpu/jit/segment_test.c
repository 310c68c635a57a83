/* segment_test.c - loads of segment registers, questions about descriptors, I/O permissions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/event_kit.h"

/* --- Segment loads -----------------------------------------------------------------------------
 */

static int mov_to_seg(struct fake *f, unsigned seg, uint16_t selector)
{
    f->cpu.gpr[RAX] = selector;
    return execute(f, (struct insn){.op = OP_MOV_TO_SEG, .size = 2, .reg = seg, .rm = RAX});
}

static void test_segment_loads(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(mov_to_seg(f, SEG_DS, K_DATA), FAKE_OK);
    assert_true(fake_load(f, GDT + K_DATA + 5, 1) & TYPE_ACCESSED);
    assert_int_equal(mov_to_seg(f, SEG_DS, 3), FAKE_OK);
    assert_true(cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
    assert_int_equal(cpu->seg[SEG_DS].selector, 3);
    assert_int_equal(mov_to_seg(f, SEG_CS, K_CODE), VECTOR_UD);
    assert_raised(f, mov_to_seg(f, SEG_DS, EXECUTE_ONLY), VECTOR_GP, EXECUTE_ONLY);
    assert_raised(f, mov_to_seg(f, SEG_ES, NOT_PRESENT), VECTOR_NP, NOT_PRESENT);
    assert_raised(f, mov_to_seg(f, SEG_ES, TSS_SEL), VECTOR_GP, TSS_SEL);
    assert_raised(f, mov_to_seg(f, SEG_ES, K_DATA | 3), VECTOR_GP, K_DATA);
    assert_int_equal(mov_to_seg(f, SEG_ES, K_CODE), FAKE_OK);         /* readable code */
    assert_int_equal(mov_to_seg(f, SEG_ES, CONFORMING | 3), FAKE_OK); /* any privilege */
    assert_raised(f, mov_to_seg(f, SEG_SS, 0), VECTOR_GP, 0);
    assert_raised(f, mov_to_seg(f, SEG_SS, K_CODE), VECTOR_GP, K_CODE);
    assert_raised(f, mov_to_seg(f, SEG_SS, U_DATA), VECTOR_GP, U_DATA & ~3);
    assert_raised(f, mov_to_seg(f, SEG_SS, NOT_PRESENT), VECTOR_SS, NOT_PRESENT);
    assert_int_equal(cpu->shadow, 0);
    assert_int_equal(mov_to_seg(f, SEG_SS, K_DATA16), FAKE_OK);
    assert_int_equal(cpu->stack_size, 2);
    assert_int_equal(cpu->shadow, 1);

    /* LDT: base, limit, selectors into it. */
    put(f, TSS_B_SEL, small(LDT, 7, TYPE_LDT, 0));
    cpu->gpr[RBX] = TSS_B_SEL;
    assert_int_equal(execute(f, (struct insn){.op = OP_LLDT, .size = 2, .rm = RBX}), FAKE_OK);
    fake_store(f, LDT, 8, small(0x1234, 0x10, 0x12, 0));
    assert_int_equal(mov_to_seg(f, SEG_FS, 4), FAKE_OK);
    assert_int_equal(cpu->seg[SEG_FS].base, 0x1234);
    assert_int_equal(cpu->seg[SEG_FS].limit, 0x10);
    assert_raised(f, mov_to_seg(f, SEG_FS, 0xc), VECTOR_GP, 0xc);

    /* A table that is not mapped is a page fault of the supervisor, whoever asks. */
    to_user(f, U_CODE);
    fake_rights(f, GDT, 0);
    assert_raised(f, mov_to_seg(f, SEG_FS, U_DATA), VECTOR_PF, 0);
    fake_rights(f, GDT, FAKE_PRESENT | FAKE_WRITE);
    assert_int_equal(mov_to_seg(f, SEG_FS, U_DATA), FAKE_OK);
    fake_free(f);
}

static void test_descriptor_questions(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    cpu->gpr[RBX] = K_CODE;
    execute(f, (struct insn){.op = OP_LAR, .size = 4, .reg = RAX, .rm = RBX});
    assert_true(cpu->rflags & FLAG_ZF);
    assert_int_equal(cpu->gpr[RAX], 0x00c09a00);
    execute(f, (struct insn){.op = OP_LSL, .size = 4, .reg = RAX, .rm = RBX});
    assert_int_equal(cpu->gpr[RAX], 0xffffffff);
    execute(f, (struct insn){.op = OP_VERW, .rm = RBX});
    assert_false(cpu->rflags & FLAG_ZF);
    execute(f, (struct insn){.op = OP_VERR, .rm = RBX});
    assert_true(cpu->rflags & FLAG_ZF);
    cpu->gpr[RBX] = TSS_SEL;
    execute(f, (struct insn){.op = OP_LSL, .size = 2, .reg = RAX, .rm = RBX});
    assert_int_equal(cpu->gpr[RAX], 0xffff0067);
    cpu->gpr[RBX] = GATE; /* an empty descriptor */
    execute(f, (struct insn){.op = OP_LAR, .size = 4, .reg = RAX, .rm = RBX});
    assert_false(cpu->rflags & FLAG_ZF);
    to_user(f, U_CODE);
    cpu->gpr[RBX] = K_DATA;
    execute(f, (struct insn){.op = OP_VERR, .rm = RBX});
    assert_false(cpu->rflags & FLAG_ZF);
    cpu->gpr[RCX] = 0x10;
    cpu->gpr[RDX] = 3;
    execute(f, (struct insn){.op = OP_ARPL, .size = 2, .rm = RCX, .reg = RDX});
    assert_true(cpu->rflags & FLAG_ZF);
    assert_int_equal(cpu->gpr[RCX], 0x13);
    fake_free(f);
}

static void test_ltr_wide(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    put(f, TSS_SEL, small(TSS, 0x67, TYPE_TSS, 0));
    put(f, TSS_SEL + 8, 0xffff8000);
    cpu->gpr[RBX] = TSS_SEL;
    assert_int_equal(execute(f, (struct insn){.op = OP_LTR, .size = 2, .rm = RBX}), FAKE_OK);
    assert_int_equal(cpu->tr.base, 0xffff800000000000 | TSS);
    assert_int_equal(fake_load(f, GDT + TSS_SEL + 5, 1) & 0xf, TYPE_TSS_BUSY);
    assert_raised(f, execute(f, (struct insn){.op = OP_LTR, .size = 2, .rm = RBX}), VECTOR_GP,
                  TSS_SEL);
    cpu->gpr[RBX] = 0;
    assert_raised(f, execute(f, (struct insn){.op = OP_LTR, .size = 2, .rm = RBX}), VECTOR_GP, 0);
    cpu->gdt.limit = TSS_SEL + 7; /* half of it is beyond */
    cpu->gpr[RBX] = TSS_SEL;
    put(f, TSS_SEL, small(TSS, 0x67, TYPE_TSS, 0));
    assert_raised(f, execute(f, (struct insn){.op = OP_LTR, .size = 2, .rm = RBX}), VECTOR_GP,
                  TSS_SEL);
    cpu->gpr[RBX] = 0;
    assert_int_equal(execute(f, (struct insn){.op = OP_LLDT, .size = 2, .rm = RBX}), FAKE_OK);
    assert_true(cpu->ldt.attr & SEG_UNUSABLE);
    fake_free(f);
}

static void test_io_permission(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    assert_true(io_allowed(cpu, 0x3f8, 1));
    to_user(f, U_CODE64);
    cpu->tr.limit = 0x68 + 0x2000;
    memset(f->memory + TSS + 0x68, 0xff, 0x2001);
    assert_false(io_allowed(cpu, 0x3f8, 1));
    f->memory[TSS + 0x68 + 0x3f8 / 8] = 0xfc;
    assert_true(io_allowed(cpu, 0x3f8, 2));
    assert_false(io_allowed(cpu, 0x3f8, 4));
    cpu->tr.limit = 0x68 + 0x3f8 / 8; /* the byte after it is beyond */
    assert_false(io_allowed(cpu, 0x3f8, 1));
    cpu->rflags |= RFLAGS_IOPL;
    assert_true(io_allowed(cpu, 0x3f8, 4));
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_loads),
        cmocka_unit_test(test_descriptor_questions),
        cmocka_unit_test(test_ltr_wide),
        cmocka_unit_test(test_io_permission),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

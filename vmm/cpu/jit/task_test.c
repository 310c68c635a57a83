/* task_test.c - task switches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/event_kit.h"

/* --- Tasks -------------------------------------------------------------------------------------
 */

static void fill_task(struct fake *f)
{
    fake_store(f, TSS_B + 0x1c, 4, 0x7000);
    fake_store(f, TSS_B + 0x20, 4, HANDLER);
    fake_store(f, TSS_B + 0x24, 4, RFLAGS_FIXED | FLAG_CF);
    fake_store(f, TSS_B + 0x28, 4, 0xaaaa5555); /* EAX */
    fake_store(f, TSS_B + 0x38, 4, 0x25000);    /* ESP */
    fake_store(f, TSS_B + 0x48, 4, K_DATA);
    fake_store(f, TSS_B + 0x4c, 4, K_CODE);
    fake_store(f, TSS_B + 0x50, 4, K_DATA);
    fake_store(f, TSS_B + 0x54, 4, K_DATA);
}

static void test_task_switches(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    fill_task(f);
    cpu->gpr[RAX] = 0x1234;
    assert_int_equal(far_to(f, OP_CALL_FAR, TSS_B_SEL, 0), FAKE_OK);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->gpr[RAX], 0xaaaa5555);
    assert_int_equal(cpu->gpr[RSP], 0x25000);
    assert_int_equal(cpu->cr3, 0x7000);
    assert_true(cpu->cr0 & CR0_TS);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | FLAG_CF | RFLAGS_NT);
    assert_int_equal(fake_load(f, TSS_B, 2), TSS_SEL);
    assert_int_equal(fake_load(f, TSS + 0x20, 4), CODE + 2);
    assert_int_equal(fake_load(f, TSS + 0x28, 4), 0x1234);
    assert_int_equal(cpu->tr.selector, TSS_B_SEL);
    assert_int_equal(fake_load(f, GDT + TSS_B_SEL + 5, 1) & 0xf, TYPE_TSS_BUSY);
    assert_int_equal(fake_load(f, GDT + TSS_SEL + 5, 1) & 0xf, TYPE_TSS_BUSY);

    /* IRET with NT goes back. */
    assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->tr.selector, TSS_SEL);
    assert_int_equal(cpu->rip, CODE + 2);
    assert_int_equal(cpu->gpr[RAX], 0x1234);
    assert_int_equal(fake_load(f, GDT + TSS_B_SEL + 5, 1) & 0xf, TYPE_TSS);
    assert_false(fake_load(f, TSS_B + 0x24, 4) & RFLAGS_NT);
    assert_int_equal(fake_load(f, TSS_B + 0x20, 4), HANDLER + 2);

    /* JMP through a task gate: no way back, the old one is free. */
    fill_task(f);
    assert_int_equal(far_to(f, OP_JMP_FAR, TASK_GATE_SEL, 0), FAKE_OK);
    assert_int_equal(cpu->tr.selector, TSS_B_SEL);
    assert_false(cpu->rflags & RFLAGS_NT);
    assert_int_equal(fake_load(f, GDT + TSS_SEL + 5, 1) & 0xf, TYPE_TSS);
    assert_raised(f, far_to(f, OP_JMP_FAR, TSS_B_SEL, 0), VECTOR_GP, TSS_B_SEL); /* itself */
    assert_int_equal(far_to(f, OP_JMP_FAR, TSS_SEL, 0), FAKE_OK);

    /* An exception through a task gate, with its code on the new stack. */
    fill_task(f);
    gate32(f, VECTOR_DF, TYPE_TASK_GATE, 0, TSS_B_SEL);
    raise_pending(f, VECTOR_DF, true, 0);
    f->cpu.exception.code = 0x77;
    fake_deliver(f);
    assert_int_equal(cpu->tr.selector, TSS_B_SEL);
    assert_int_equal(cpu->gpr[RSP], 0x25000 - 4);
    assert_int_equal(fake_load(f, 0x25000 - 4, 4), 0x77);
    assert_true(cpu->rflags & RFLAGS_NT);
    fake_free(f);
}

static void test_task_faults(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    fill_task(f);
    put(f, TSS_B_SEL, small(TSS_B, 0x66, TYPE_TSS, 0));
    assert_raised(f, far_to(f, OP_JMP_FAR, TSS_B_SEL, 0), VECTOR_TS, TSS_B_SEL);
    put(f, TSS_B_SEL, small(TSS_B, 0x67, TYPE_TSS, 0) & ~(1ull << 47));
    assert_raised(f, far_to(f, OP_JMP_FAR, TSS_B_SEL, 0), VECTOR_NP, TSS_B_SEL);
    assert_int_equal(cpu->rip, CODE);
    cpu->rflags |= RFLAGS_NT;
    fake_store(f, TSS, 2, TSS_B_SEL); /* IRET wants a busy one */
    put(f, TSS_B_SEL, small(TSS_B, 0x67, TYPE_TSS, 0));
    assert_raised(f, execute(f, (struct insn){.op = OP_IRET, .size = 4}), VECTOR_TS, TSS_B_SEL);
    cpu->rflags &= ~(uint64_t)RFLAGS_NT;

    /* Bad segments are the new task's problem. */
    fake_store(f, TSS_B + 0x54, 4, NOT_PRESENT);
    assert_raised(f, far_to(f, OP_JMP_FAR, TSS_B_SEL, 0), VECTOR_NP, NOT_PRESENT);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->tr.selector, TSS_B_SEL);

    /* The trap bit; a task of 16 bits. */
    assert_int_equal(far_to(f, OP_JMP_FAR, TSS_SEL, 0), FAKE_OK);
    fill_task(f);
    fake_store(f, TSS_B + 0x64, 2, 1);
    assert_int_equal(far_to(f, OP_JMP_FAR, TSS_B_SEL, 0), VECTOR_DB);
    assert_int_equal(cpu->exception.dr6, 1 << 15);
    assert_int_equal(cpu->rip, HANDLER);
    fake_store(f, TSS_16 + 0x0e, 2, 0x4321);
    fake_store(f, TSS_16 + 0x10, 2, RFLAGS_FIXED);
    fake_store(f, TSS_16 + 0x12, 2, 0xbeef);
    fake_store(f, TSS_16 + 0x22, 2, K_DATA);
    fake_store(f, TSS_16 + 0x24, 2, K_CODE16);
    fake_store(f, TSS_16 + 0x26, 2, K_DATA16);
    fake_store(f, TSS_16 + 0x28, 2, K_DATA);
    assert_int_equal(far_to(f, OP_CALL_FAR, TSS_16_SEL, 0), FAKE_OK);
    assert_int_equal(cpu->rip, 0x4321);
    assert_int_equal(cpu->gpr[RAX] & 0xffff, 0xbeef);
    assert_int_equal(cpu->code_width, CODE_16);
    assert_int_equal(fake_load(f, TSS_16, 2), TSS_B_SEL);
    assert_true(cpu->seg[SEG_FS].attr & SEG_UNUSABLE);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_switches),
        cmocka_unit_test(test_task_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* transfer_test.c - IRET and far transfers, within and between rings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/event_kit.h"

/* --- IRET's own faults -------------------------------------------------------------------------
 */

static int iret64(struct fake *f, uint64_t rip, uint16_t cs, uint16_t ss)
{
    const uint64_t frame[5] = {rip, cs, RFLAGS_FIXED, STACK3, ss};

    f->cpu.gpr[RSP] = STACK0 - sizeof(frame);
    memcpy(f->memory + STACK0 - sizeof(frame), frame, sizeof(frame));
    return execute(f, (struct insn){.op = OP_IRET, .size = 8});
}

static void test_iret_checks(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    cpu->nmi_masked = true;
    assert_raised(f, iret64(f, CODE, 0, K_DATA), VECTOR_GP, 0);
    assert_false(cpu->nmi_masked); /* even so */
    assert_raised(f, iret64(f, CODE, 0xa0, K_DATA), VECTOR_GP, 0xa0);
    assert_raised(f, iret64(f, CODE, K_DATA, K_DATA), VECTOR_GP, K_DATA);
    assert_raised(f, iret64(f, CODE, U_CODE & ~3, K_DATA), VECTOR_GP, U_CODE & ~3);
    assert_raised(f, iret64(f, CODE, U_CODE64, 3), VECTOR_GP, 0); /* null SS for ring 3 */
    assert_raised(f, iret64(f, CODE, U_CODE64, K_DATA), VECTOR_GP, K_DATA);
    assert_raised(f, iret64(f, CODE, U_CODE64, EXECUTE_ONLY | 3), VECTOR_GP, EXECUTE_ONLY);
    assert_raised(f, iret64(f, 1ull << 47, U_CODE64, U_DATA), VECTOR_GP, 0);
    assert_raised(f, iret64(f, 1ull << 32, U_CODE, U_DATA), VECTOR_GP, 0);
    assert_raised(f, iret64(f, CODE, K_CODE, NOT_PRESENT), VECTOR_SS, NOT_PRESENT);
    assert_int_equal(cpu->cpl, 0);
    cpu->rflags |= RFLAGS_NT;
    assert_raised(f, iret64(f, CODE, K_CODE, 0), VECTOR_GP, 0);
    cpu->rflags &= ~(uint64_t)RFLAGS_NT;
    put(f, K_CODE16, fake_load(f, GDT + K_CODE16, 8) & ~(1ull << 47));
    assert_raised(f, iret64(f, CODE, K_CODE16, K_DATA), VECTOR_NP, K_CODE16);

    assert_int_equal(iret64(f, CODE, K_CODE, 0), FAKE_OK); /* null SS in ring 0 */
    assert_int_equal(cpu->gpr[RSP], STACK3);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(iret64(f, CODE, U_CODE, U_DATA), FAKE_OK); /* compatibility mode */
    assert_int_equal(cpu->code_width, CODE_32);
    assert_int_equal(cpu->stack_size, 4);
    assert_int_equal(cpu->cpl, 3);
    assert_false(cpu->long_mode);
    fake_free(f);
}

static void test_iret_to_16_bit(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(iret64(f, 0x1234, U_CODE16, U_DATA16), FAKE_OK);
    assert_int_equal(cpu->code_width, CODE_16);
    assert_int_equal(cpu->stack_size, 2);
    /* Only SP is written: the rest of the kernel's RSP stays, as on hardware. */
    assert_int_equal(cpu->gpr[RSP], ((STACK0 - 40) & ~0xffffull) | (STACK3 & 0xffff));

    /* Ring 3 changes neither IOPL nor IF. */
    fake_store(f, cpu->gpr[RSP] & 0xffff, 2, 0x10);
    fake_store(f, (cpu->gpr[RSP] & 0xffff) + 2, 2, U_CODE16);
    fake_store(f, (cpu->gpr[RSP] & 0xffff) + 4, 2, 0xffff & ~RFLAGS_NT);
    assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 2}), FAKE_OK);
    assert_int_equal(cpu->rip, 0x10);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF);
    fake_free(f);
}

/* --- Far transfers -----------------------------------------------------------------------------
 */

static void test_far_protected(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    assert_int_equal(far_to(f, OP_JMP_FAR, K_CODE, 0x1500), FAKE_OK);
    assert_int_equal(cpu->rip, 0x1500);
    assert_raised(f, far_to(f, OP_JMP_FAR, 0, 0), VECTOR_GP, 0);
    assert_raised(f, far_to(f, OP_JMP_FAR, K_DATA, 0), VECTOR_GP, K_DATA);
    assert_raised(f, far_to(f, OP_JMP_FAR, U_CODE, 0), VECTOR_GP, U_CODE & ~3);
    assert_raised(f, far_to(f, OP_JMP_FAR, K_CODE16, 0x10000), VECTOR_GP, 0);
    assert_raised(f, far_to(f, OP_JMP_FAR, 4 | 8, 0), VECTOR_GP, 4 | 8);     /* no LDT */
    assert_raised(f, far_to(f, OP_JMP_FAR, TSS_SEL, 0), VECTOR_GP, TSS_SEL); /* busy */
    assert_int_equal(far_to(f, OP_JMP_FAR, K_CODE16, 0x1600), FAKE_OK);
    assert_int_equal(cpu->code_width, CODE_16);
    assert_int_equal(far_to(f, OP_CALL_FAR, K_CODE, 0x1700), FAKE_OK);
    assert_int_equal(fake_load(f, STACK0 - 8, 4), 0x1602);
    assert_int_equal(execute(f, (struct insn){.op = OP_RET_FAR, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->rip, 0x1602);
    assert_int_equal(cpu->code_width, CODE_16);
    fake_free(f);
}

static void test_call_gate(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    /* Two parameters, from ring 3. */
    put(f, GATE,
        (HANDLER & 0xffff) | (uint64_t)K_CODE << 16 | 2ull << 32 | 0xecull << 40 |
            (uint64_t)(HANDLER >> 16) << 48);
    to_user(f, U_CODE);
    cpu->gpr[RSP] = STACK3 - 8;
    fake_store(f, STACK3 - 8, 4, 0x11111111);
    fake_store(f, STACK3 - 4, 4, 0x22222222);
    assert_int_equal(far_to(f, OP_CALL_FAR, GATE | 3, 0), FAKE_OK);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 24);
    assert_int_equal(fake_load(f, STACK0 - 24, 4), CODE + 2);
    assert_int_equal(fake_load(f, STACK0 - 20, 4), U_CODE);
    assert_int_equal(fake_load(f, STACK0 - 16, 4), 0x11111111);
    assert_int_equal(fake_load(f, STACK0 - 12, 4), 0x22222222);
    assert_int_equal(fake_load(f, STACK0 - 8, 4), STACK3 - 8);
    assert_int_equal(fake_load(f, STACK0 - 4, 4), U_DATA);
    assert_int_equal(execute(f, (struct insn){.op = OP_RET_FAR, .size = 4, .imm = 8}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->gpr[RSP], STACK3);
    assert_int_equal(cpu->rip, CODE + 2);

    put(f, GATE, fake_load(f, GDT + GATE, 8) & ~(3ull << 45)); /* for ring 0 only */
    assert_raised(f, far_to(f, OP_CALL_FAR, GATE | 3, 0), VECTOR_GP, GATE);
    put(f, GATE, (fake_load(f, GDT + GATE, 8) | 3ull << 45) & ~(1ull << 47));
    assert_raised(f, far_to(f, OP_CALL_FAR, GATE | 3, 0), VECTOR_NP, GATE);
    put(f, GATE, fake_load(f, GDT + GATE, 8) | 1ull << 47);
    assert_raised(f, far_to(f, OP_JMP_FAR, GATE | 3, 0), VECTOR_GP, K_CODE); /* JMP cannot */
    fake_free(f);
}

static void test_call_gate_64(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    put(f, GATE,
        (HANDLER & 0xffff) | (uint64_t)K_CODE << 16 | 0xecull << 40 |
            (uint64_t)(HANDLER >> 16) << 48);
    put(f, GATE + 8, 0xffff8000);
    to_user(f, U_CODE); /* compatibility mode */
    assert_int_equal(far_to(f, OP_CALL_FAR, GATE | 3, 0), FAKE_OK);
    assert_true(cpu->long_mode);
    assert_int_equal(cpu->rip, 0xffff800000000000 | HANDLER);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 32);
    assert_int_equal(cpu->seg[SEG_SS].selector, 0);
    assert_int_equal(fake_load(f, STACK0 - 16, 8), STACK3);
    assert_int_equal(execute(f, (struct insn){.op = OP_RET_FAR, .size = 8}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->code_width, CODE_32);
    put(f, GATE + 8, 0x1000000000);                                 /* a type in the upper half */
    assert_int_equal(far_to(f, OP_CALL_FAR, GATE | 3, 0), FAKE_OK); /* bit 36 is of the offset */
    to_user(f, U_CODE);
    put(f, GATE + 8, 1ull << 40);
    assert_raised(f, far_to(f, OP_CALL_FAR, GATE | 3, 0), VECTOR_GP, GATE);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iret_checks),   cmocka_unit_test(test_iret_to_16_bit),
        cmocka_unit_test(test_far_protected), cmocka_unit_test(test_call_gate),
        cmocka_unit_test(test_call_gate_64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* event_test.c - delivery of events, through gates of every mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/event_kit.h"

/* --- 64-bit gates ------------------------------------------------------------------------------
 */

static void test_long_from_user(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    to_user(f, U_CODE64);
    gate64(f, VECTOR_GP, TYPE_INTERRUPT, 0, 0);
    cpu->rflags |= RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | FLAG_ZF;
    cpu->shadow = 1;
    raise_pending(f, VECTOR_GP, true, 0x1234);
    fake_deliver(f);

    assert_false(cpu->exception.pending);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->seg[SEG_CS].selector, K_CODE);
    assert_int_equal(cpu->seg[SEG_SS].selector, 0);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 48);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | RFLAGS_AC | FLAG_ZF);
    assert_int_equal(cpu->shadow, 0);
    assert_int_equal(cpu->tlb.data_set, TLB_KERNEL);
    assert_int_equal(fake_load(f, STACK0 - 48, 8), 0x1234);
    assert_int_equal(fake_load(f, STACK0 - 40, 8), CODE);
    assert_int_equal(fake_load(f, STACK0 - 32, 8), U_CODE64);
    assert_int_equal(fake_load(f, STACK0 - 24, 8),
                     RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | FLAG_ZF | RFLAGS_RF);
    assert_int_equal(fake_load(f, STACK0 - 16, 8), STACK3);
    assert_int_equal(fake_load(f, STACK0 - 8, 8), U_DATA);
    assert_true(fake_load(f, GDT + K_CODE + 5, 1) & TYPE_ACCESSED);

    /* And back. The second time every page is known: the fast ways. */
    for (unsigned i = 0; i < 2; i++) {
        cpu->gpr[RSP] = STACK0 - 40;
        cpu->nmi_masked = true;
        assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 8}), FAKE_OK);
        assert_int_equal(cpu->cpl, 3);
        assert_int_equal(cpu->rip, CODE);
        assert_int_equal(cpu->gpr[RSP], STACK3);
        assert_int_equal(cpu->seg[SEG_SS].selector, U_DATA);
        assert_true(cpu->rflags & RFLAGS_TF);
        assert_int_equal(cpu->tlb.data_set, TLB_USER);
        assert_false(cpu->nmi_masked);
        assert_int_equal(interrupt(f, VECTOR_GP, EVENT_EXTERNAL), FAKE_OK);
        assert_int_equal(cpu->gpr[RSP], STACK0 - 40);
        assert_int_equal(fake_load(f, STACK0 - 40, 8), CODE);
    }
    fake_free(f);
}

static void test_long_same_ring_and_ist(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    gate64(f, 0x40, TYPE_TRAP, 0, 0);
    gate64(f, VECTOR_NMI, TYPE_INTERRUPT, 0, 1);
    cpu->gpr[RSP] = STACK0 - 9; /* the frame is aligned to 16 bytes */
    cpu->rflags |= RFLAGS_IF;
    assert_int_equal(interrupt(f, 0x40, EVENT_EXTERNAL), FAKE_OK);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 16 - 40);
    assert_int_equal(fake_load(f, STACK0 - 16 - 16, 8), STACK0 - 9);
    assert_true(cpu->rflags & RFLAGS_IF); /* a trap gate */
    assert_int_equal(cpu->seg[SEG_SS].selector, 0x10);

    assert_int_equal(interrupt(f, VECTOR_NMI, EVENT_EXTERNAL), FAKE_OK);
    assert_int_equal(cpu->gpr[RSP], STACK_IST - 40);
    assert_false(cpu->rflags & RFLAGS_IF);
    assert_int_equal(cpu->seg[SEG_SS].selector, 0x10);
    fake_free(f);
}

static void test_long_gate_faults(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;
    const struct jit_cpu before = *cpu;

    gate64(f, 0x30, TYPE_INTERRUPT, 0, 0);
    fake_store(f, IDT + 0x30 * 16 + 5, 1, 0x0e); /* not present */
    assert_raised(f, interrupt(f, 0x30, EVENT_EXTERNAL), VECTOR_NP, 0x30 * 8 + 3);
    assert_raised(f, interrupt(f, 0x30, EVENT_SOFTWARE), VECTOR_NP, 0x30 * 8 + 2);
    gate64(f, 0x31, TYPE_TASK_GATE, 0, 0);
    assert_raised(f, interrupt(f, 0x31, EVENT_EXTERNAL), VECTOR_GP, 0x31 * 8 + 3);
    gate64(f, 0x32, TYPE_INTERRUPT, 0, 0);
    fake_store(f, IDT + 0x32 * 16 + 2, 2, 0);
    assert_raised(f, interrupt(f, 0x32, EVENT_EXTERNAL), VECTOR_GP, 1);
    fake_store(f, IDT + 0x32 * 16 + 2, 2, K_DATA);
    assert_raised(f, interrupt(f, 0x32, EVENT_SOFTWARE), VECTOR_GP, K_DATA);
    fake_store(f, IDT + 0x32 * 16 + 2, 2, U_CODE); /* not of 64 bits, and of ring 3 */
    assert_raised(f, interrupt(f, 0x32, EVENT_EXTERNAL), VECTOR_GP, (U_CODE & ~3) + 1);
    fake_store(f, IDT + 0x32 * 16 + 2, 2, 0xa0); /* beyond the GDT */
    assert_raised(f, interrupt(f, 0x32, EVENT_EXTERNAL), VECTOR_GP, 0xa1);
    gate64(f, 0x33, TYPE_INTERRUPT, 0, 0);
    fake_store(f, IDT + 0x33 * 16 + 8, 4, 0x8000); /* not canonical */
    assert_raised(f, interrupt(f, 0x33, EVENT_EXTERNAL), VECTOR_GP, 1);
    cpu->idt.limit = 0x33f;
    assert_raised(f, interrupt(f, 0x34, EVENT_INT1), VECTOR_GP, 0x34 * 8 + 3);

    assert_int_equal(cpu->rip, before.rip);
    assert_int_equal(cpu->gpr[RSP], before.gpr[RSP]);
    assert_int_equal(cpu->rflags, before.rflags);
    cpu->idt.limit = 0xfff;
    to_user(f, U_CODE64);
    gate64(f, 0x35, TYPE_INTERRUPT, 0, 0);
    assert_raised(f, interrupt(f, 0x35, EVENT_SOFTWARE), VECTOR_GP, 0x35 * 8 + 2);
    assert_int_equal(interrupt(f, 0x35, EVENT_INT1), FAKE_OK);
    fake_free(f);
}

/* --- Faults of faults --------------------------------------------------------------------------
 */

static void test_double_and_triple_fault(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    /* #GP whose gate is absent makes #GP, together #DF; by IST, for the stack is gone. */
    gate64(f, VECTOR_DF, TYPE_INTERRUPT, 0, 1);
    raise_pending(f, VECTOR_GP, true, 8);
    fake_deliver(f);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->gpr[RSP], STACK_IST - 48);
    assert_int_equal(fake_load(f, STACK_IST - 48, 8), 0);
    assert_int_equal(fake_load(f, STACK_IST - 40, 8), CODE);
    assert_false(cpu->shutdown);
    assert_false(cpu->a_fault_interrupts);

    /* A page fault whose handler's stack is absent: #DF, CR2 of the second. */
    gate64(f, VECTOR_PF, TYPE_INTERRUPT, 0, 0);
    cpu->rip = CODE;
    cpu->gpr[RSP] = STACK0;
    fake_rights(f, STACK0 - 4096, 0);
    raise_pending(f, VECTOR_PF, true, 2);
    cpu->exception.address = 0x123000;
    fake_deliver(f);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->gpr[RSP], STACK_IST - 48);
    assert_int_equal(cpu->cr2, STACK0 - 8);

    /* #UD is benign: what happens on its way is delivered by itself. */
    gate64(f, VECTOR_PF, TYPE_INTERRUPT, 0, 1);
    cpu->idt.limit = 0xfff;
    gate64(f, VECTOR_UD, TYPE_INTERRUPT, 0, 0);
    cpu->rip = CODE;
    cpu->gpr[RSP] = STACK0;
    raise_pending(f, VECTOR_UD, false, 0);
    fake_deliver(f);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(fake_load(f, STACK_IST - 48, 8), PF_WRITE); /* not present, supervisor */
    assert_false(cpu->shutdown);

    /* And no #DF handler: shutdown. */
    fake_store(f, IDT + VECTOR_DF * 16, 8, 0);
    fake_store(f, IDT + VECTOR_GP * 16, 8, 0);
    raise_pending(f, VECTOR_GP, true, 8);
    fake_deliver(f);
    assert_true(cpu->shutdown);
    fake_free(f);
}

static void test_debug_exception(void **state)
{
    struct fake *f = machine(true);
    struct jit_cpu *cpu = &f->cpu;

    gate64(f, VECTOR_DB, TYPE_INTERRUPT, 0, 0);
    cpu->dr7 |= 1 << 13;
    cpu->dr6 |= 2;
    assert_int_equal(execute(f, (struct insn){.op = OP_MOV_FROM_DR, .size = 8, .reg = 7}),
                     VECTOR_DB);
    fake_deliver(f);
    assert_int_equal(cpu->dr6, 0xffff0ff0 | 1 << 13);
    assert_false(cpu->dr7 & 1 << 13);
    assert_true(fake_load(f, cpu->gpr[RSP] + 16, 8) & RFLAGS_RF); /* a fault */
    assert_int_equal(fake_load(f, cpu->gpr[RSP], 8), CODE);

    cpu->exception.dr6 = 1 << 14;
    raise_pending(f, VECTOR_DB, false, 0);
    fake_deliver(f);
    assert_int_equal(cpu->dr6, 0xffff0ff0 | 1 << 13 | 1 << 14);
    assert_false(fake_load(f, cpu->gpr[RSP] + 16, 8) & RFLAGS_RF); /* a trap */
    fake_free(f);
}

/* --- 32-bit gates, virtual-8086 mode, real mode ------------------------------------------------
 */

static void test_protected_interrupt(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    gate32(f, 0x80, TYPE_TRAP, 3, K_CODE);
    to_user(f, U_CODE);
    assert_int_equal(interrupt(f, 0x80, EVENT_SOFTWARE), FAKE_OK);
    assert_int_equal(cpu->rip, HANDLER);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 20);
    assert_int_equal(cpu->seg[SEG_SS].selector, K_DATA);
    assert_int_equal(fake_load(f, STACK0 - 20, 4), CODE + 2);
    assert_int_equal(fake_load(f, STACK0 - 16, 4), U_CODE);
    assert_int_equal(fake_load(f, STACK0 - 8, 4), STACK3);
    assert_int_equal(fake_load(f, STACK0 - 4, 4), U_DATA);
    assert_int_equal(cpu->seg[SEG_DS].selector, U_DATA);

    cpu->seg[SEG_DS] = cpu->seg[SEG_SS]; /* IRET makes it null: ring 3 may not use it */
    assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->rip, CODE + 2);
    assert_int_equal(cpu->gpr[RSP], STACK3);
    assert_true(cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
    assert_false(cpu->seg[SEG_ES].attr & SEG_UNUSABLE);

    /* Inner stacks that are not: null, of another ring, not present, beyond the TSS. */
    fake_store(f, TSS + 8, 2, 0);
    assert_raised(f, interrupt(f, 0x80, EVENT_EXTERNAL), VECTOR_TS, 1);
    fake_store(f, TSS + 8, 2, U_DATA);
    assert_raised(f, interrupt(f, 0x80, EVENT_SOFTWARE), VECTOR_TS, U_DATA & ~3);
    fake_store(f, TSS + 8, 2, NOT_PRESENT);
    assert_raised(f, interrupt(f, 0x80, EVENT_SOFTWARE), VECTOR_SS, NOT_PRESENT);
    cpu->tr.limit = 8;
    assert_raised(f, interrupt(f, 0x80, EVENT_EXTERNAL), VECTOR_TS, TSS_SEL + 1);
    assert_int_equal(cpu->cpl, 3);

    /* 16-bit gate: words. */
    cpu->tr.limit = 0x67;
    fake_store(f, TSS + 8, 2, K_DATA);
    gate32(f, 0x81, TYPE_INTERRUPT16, 3, CONFORMING);
    fake_store(f, IDT + 0x81 * 8 + 6, 2, 0);
    assert_int_equal(interrupt(f, 0x81, EVENT_SOFTWARE), FAKE_OK);
    assert_int_equal(cpu->cpl, 3); /* conforming */
    assert_int_equal(cpu->rip, HANDLER & 0xffff);
    assert_int_equal(cpu->gpr[RSP], STACK3 - 6);
    fake_free(f);
}

static void test_v86(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;
    const uint32_t frame[9] = {0x20,   0x1000, RFLAGS_FIXED | RFLAGS_VM | RFLAGS_IF,
                               0x800,  0x2000, 0x3000,
                               0x3100, 0x3200, 0x3300};

    gate32(f, VECTOR_GP, TYPE_INTERRUPT, 0, K_CODE);
    cpu->gpr[RSP] = STACK0 - sizeof(frame);
    memcpy(f->memory + STACK0 - sizeof(frame), frame, sizeof(frame));
    assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 4}), FAKE_OK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->code_width, CODE_16);
    assert_int_equal(cpu->stack_size, 2);
    assert_int_equal(cpu->rip, 0x20);
    assert_int_equal(cpu->gpr[RSP], 0x800);
    assert_int_equal(cpu->seg[SEG_CS].base, 0x10000);
    assert_int_equal(cpu->seg[SEG_ES].base, 0x30000);
    assert_int_equal(cpu->seg[SEG_GS].selector, 0x3300);

    /* IRET asks for IOPL 3, and raises #GP to ring 0, with the segments saved. */
    assert_raised(f, execute(f, (struct insn){.op = OP_IRET, .size = 2}), VECTOR_GP, 0);
    fake_deliver(f);
    assert_int_equal(cpu->cpl, 0);
    assert_false(cpu->rflags & RFLAGS_VM);
    assert_int_equal(cpu->gpr[RSP], STACK0 - 40);
    assert_int_equal(fake_load(f, STACK0 - 4, 4), 0x3300);
    assert_int_equal(fake_load(f, STACK0 - 16, 4), 0x3000);
    assert_int_equal(fake_load(f, STACK0 - 20, 4), 0x2000);
    assert_int_equal(fake_load(f, STACK0 - 24, 4), 0x800);
    assert_true(fake_load(f, STACK0 - 28, 4) & RFLAGS_VM);
    assert_true(cpu->seg[SEG_DS].attr & SEG_UNUSABLE);
    fake_free(f);
}

static void test_real_mode(void **state)
{
    struct fake *f = machine(false);
    struct jit_cpu *cpu = &f->cpu;

    cpu->cr0 = CR0_ET;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        cpu->seg[s] = (struct segment){.limit = 0xffff, .attr = SEG_P | SEG_S | 3};
    cpu->idt = (struct descriptor_table){0, 0x3ff};
    jit_mode_changed(cpu);
    cpu->gpr[RSP] = 0x12348000;
    cpu->rip = 0x7c00;
    cpu->rflags |= RFLAGS_IF | RFLAGS_TF;
    fake_store(f, 0x10 * 4, 4, 0xf0001234);
    assert_int_equal(interrupt(f, 0x10, EVENT_SOFTWARE), FAKE_OK);
    assert_int_equal(cpu->rip, 0x1234);
    assert_int_equal(cpu->seg[SEG_CS].base, 0xf0000);
    assert_int_equal(cpu->gpr[RSP], 0x12347ffa);
    assert_int_equal(fake_load(f, 0x7ffa, 2), 0x7c02);
    assert_int_equal(fake_load(f, 0x7ffe, 2), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED);
    assert_int_equal(execute(f, (struct insn){.op = OP_IRET, .size = 2}), FAKE_OK);
    assert_int_equal(cpu->rip, 0x7c02);
    assert_int_equal(cpu->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF);

    /* No room in the table for #GP, #DF: the end. */
    cpu->idt.limit = 0x1f;
    raise_pending(f, VECTOR_GP, true, 0);
    fake_deliver(f);
    assert_true(cpu->shutdown);

    /* Far jumps and calls load CS as the rest does; an exception pushes no code. */
    cpu->shutdown = false;
    cpu->idt.limit = 0x3ff;
    fake_store(f, VECTOR_GP * 4, 4, 0x20000100);
    raise_pending(f, VECTOR_GP, true, 5);
    fake_deliver(f);
    assert_int_equal(cpu->gpr[RSP] & 0xffff, 0x8000 - 6);
    assert_int_equal(
        execute(f,
                (struct insn){
                    .op = OP_CALL_FAR, .form = FORM_FAR, .size = 2, .imm = 0x50, .imm2 = 0x1100}),
        FAKE_OK);
    assert_int_equal(cpu->seg[SEG_CS].base, 0x11000);
    assert_int_equal(execute(f, (struct insn){.op = OP_RET_FAR, .size = 2, .imm = 4}), FAKE_OK);
    assert_int_equal(cpu->seg[SEG_CS].base, 0x20000);
    assert_int_equal(cpu->gpr[RSP] & 0xffff, 0x8000 - 6 + 4);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_from_user),
        cmocka_unit_test(test_long_same_ring_and_ist),
        cmocka_unit_test(test_long_gate_faults),
        cmocka_unit_test(test_double_and_triple_fault),
        cmocka_unit_test(test_debug_exception),
        cmocka_unit_test(test_protected_interrupt),
        cmocka_unit_test(test_v86),
        cmocka_unit_test(test_real_mode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

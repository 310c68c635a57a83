/*
 * event_test.c - delivery of events, IRET, far transfers, task switches, in every mode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/segment.h"
#include "cpu/jit/system_fake.h"

enum { GDT = 0x1000, IDT = 0x2000, LDT = 0x3000, TSS = 0x4000, TSS_B = 0x5000, TSS_16 = 0x6000 };
enum { CODE = 0x10000, HANDLER = 0x11000, STACK0 = 0x20000, STACK_IST = 0x22000, STACK3 = 0x30000 };

/* Selectors. */
enum {
    K_CODE = 0x08,
    K_DATA = 0x10,
    U_CODE = 0x18 | 3,
    U_DATA = 0x20 | 3,
    U_CODE64 = 0x28 | 3,
    CONFORMING = 0x30,
    NOT_PRESENT = 0x38,
    EXECUTE_ONLY = 0x40,
    K_CODE16 = 0x48,
    K_DATA16 = 0x50,
    TSS_SEL = 0x58, /* sixteen bytes in IA-32e mode */
    GATE = 0x68,    /* likewise */
    TSS_B_SEL = 0x78,
    TSS_16_SEL = 0x80,
    TASK_GATE_SEL = 0x88,
    U_CODE16 = 0x90 | 3,
    U_DATA16 = 0x98 | 3,
    GDT_LIMIT = 0x9f,
};

static uint64_t flat(unsigned type, unsigned dpl, uint64_t flags)
{
    return 0x000f00000000ffffull | (uint64_t)type << 40 | 1ull << 44 | (uint64_t)dpl << 45 |
           1ull << 47 | flags << 52;
}

static uint64_t small(uint64_t base, uint64_t limit, unsigned type, unsigned dpl)
{
    return limit | base << 16 | (uint64_t)type << 40 | (uint64_t)dpl << 45 | 1ull << 47;
}

static void put(struct fake *f, unsigned selector, uint64_t raw)
{
    fake_store(f, GDT + (selector & 0xfff8), 8, raw);
}

/* `wide`: 64-bit code in ring 0 and 64-bit gates; else 32-bit. */
static struct fake *machine(bool wide)
{
    struct fake *f = fake_new();
    struct jit_cpu *cpu = &f->cpu;
    const uint64_t k_flags = wide ? 0xa : 0xc;

    cpu->gdt = (struct descriptor_table){GDT, GDT_LIMIT};
    cpu->idt = (struct descriptor_table){IDT, wide ? 0xfff : 0x7ff};
    cpu->tr = (struct segment){
        .base = TSS, .limit = 0x67, .selector = TSS_SEL, .attr = SEG_P | TYPE_TSS_BUSY};
    put(f, K_CODE, flat(0xa, 0, k_flags));
    put(f, K_DATA, flat(2, 0, 0xc));
    put(f, U_CODE, flat(0xa, 3, 0xc));
    put(f, U_DATA, flat(2, 3, 0xc));
    put(f, U_CODE64, flat(0xa, 3, 0xa));
    put(f, CONFORMING, flat(0xe, 0, k_flags));
    put(f, NOT_PRESENT, flat(2, 0, 0xc) & ~(1ull << 47));
    put(f, EXECUTE_ONLY, flat(8, 0, 0xc));
    put(f, K_CODE16, small(0, 0xffff, 0x1a, 0));
    put(f, K_DATA16, small(0, 0xffff, 0x12, 0));
    put(f, TSS_SEL, small(TSS, 0x67, TYPE_TSS_BUSY, 0));
    put(f, TSS_B_SEL, small(TSS_B, 0x67, TYPE_TSS, 0));
    put(f, TSS_16_SEL, small(TSS_16, 0x2b, TYPE_TSS16, 0));
    put(f, TASK_GATE_SEL, (uint64_t)TSS_B_SEL << 16 | 0x85ull << 40);
    put(f, U_CODE16, small(0, 0xffff, 0x1a, 3));
    put(f, U_DATA16, small(0, 0xffff, 0x12, 3));
    if (wide) {
        put(f, TSS_B_SEL, 0); /* its lower half lies where others need the upper one */
        fake_store(f, TSS + 4, 8, STACK0);
        fake_store(f, TSS + 0x24, 8, STACK_IST);
    } else {
        cpu->efer = EFER_SCE;
        fake_store(f, TSS + 4, 4, STACK0);
        fake_store(f, TSS + 8, 2, K_DATA);
        cpu->seg[SEG_CS].attr = SEG_P | SEG_S | SEG_G | SEG_DB | 0xb;
    }
    fake_store(f, TSS + 0x66, 2, 0x68);
    cpu->rip = CODE;
    cpu->gpr[RSP] = STACK0;
    jit_mode_changed(cpu);
    return f;
}

/* Ring 3, with code of that selector. */
static void to_user(struct fake *f, uint16_t cs)
{
    const struct descriptor code = {.raw = fake_load(f, GDT + (cs & 0xfff8), 8), .selector = cs};
    const struct descriptor data = {.raw = flat(3, 3, 0xc), .selector = U_DATA};

    f->cpu.seg[SEG_CS] = descriptor_segment(&code);
    for (unsigned s = 0; s < SEG_COUNT; s++)
        if (s != SEG_CS)
            f->cpu.seg[s] = descriptor_segment(&data);
    f->cpu.gpr[RSP] = STACK3;
    jit_mode_changed(&f->cpu);
    assert_int_equal(f->cpu.cpl, 3);
}

static void gate64(struct fake *f, unsigned vector, unsigned type, unsigned dpl, unsigned ist)
{
    fake_store(f, IDT + vector * 16, 8,
               (HANDLER & 0xffff) | (uint64_t)(HANDLER >> 16) << 48 | (uint64_t)K_CODE << 16 |
                   (uint64_t)ist << 32 | (uint64_t)type << 40 | (uint64_t)dpl << 45 | 1ull << 47);
    fake_store(f, IDT + vector * 16 + 8, 8, 0);
}

static void gate32(struct fake *f, unsigned vector, unsigned type, unsigned dpl, uint16_t selector)
{
    const uint64_t target = type == TYPE_TASK_GATE ? 0 : HANDLER;

    fake_store(f, IDT + vector * 8, 8,
               (target & 0xffff) | (target >> 16) << 48 | (uint64_t)selector << 16 |
                   (uint64_t)type << 40 | (uint64_t)dpl << 45 | 1ull << 47);
}

struct interrupt {
    uint8_t vector;
    enum event_source source;
    bool has_code;
    uint32_t code;
};

static void call_interrupt(struct jit_cpu *cpu, const void *arg)
{
    const struct interrupt *i = arg;

    event_interrupt(cpu, i->vector, i->source, i->has_code, i->code);
}

static int interrupt(struct fake *f, uint8_t vector, enum event_source source)
{
    const struct interrupt i = {.vector = vector, .source = source};

    f->cpu.next_rip = f->cpu.rip + 2;
    return fake_try(f, call_interrupt, &i);
}

static void raise_pending(struct fake *f, uint8_t vector, bool has_code, uint32_t code)
{
    f->cpu.exception.pending = true;
    f->cpu.exception.vector = vector;
    f->cpu.exception.has_code = has_code;
    f->cpu.exception.code = code;
}

#define assert_raised(f, got, want_vector, want_code)                                              \
    do {                                                                                           \
        assert_int_equal(got, want_vector);                                                        \
        assert_true((f)->cpu.exception.has_code);                                                  \
        assert_int_equal((f)->cpu.exception.code, want_code);                                      \
    } while (0)

static int execute(struct fake *f, struct insn i)
{
    i.len = i.len ? i.len : 2;
    i.asize = i.asize ? i.asize : f->cpu.long_mode ? 8 : 4;
    i.base = i.base ? i.base : REG_NONE;
    i.index = REG_NONE;
    i.seg = i.seg ? i.seg : SEG_DS;
    return fake_execute(f, &i);
}

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

static int far_to(struct fake *f, unsigned op, uint16_t selector, uint64_t offset)
{
    return execute(
        f, (struct insn){.op = op, .form = FORM_FAR, .size = 4, .imm = offset, .imm2 = selector});
}

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
        cmocka_unit_test(test_long_from_user),
        cmocka_unit_test(test_long_same_ring_and_ist),
        cmocka_unit_test(test_long_gate_faults),
        cmocka_unit_test(test_double_and_triple_fault),
        cmocka_unit_test(test_debug_exception),
        cmocka_unit_test(test_protected_interrupt),
        cmocka_unit_test(test_v86),
        cmocka_unit_test(test_real_mode),
        cmocka_unit_test(test_iret_checks),
        cmocka_unit_test(test_iret_to_16_bit),
        cmocka_unit_test(test_far_protected),
        cmocka_unit_test(test_call_gate),
        cmocka_unit_test(test_call_gate_64),
        cmocka_unit_test(test_task_switches),
        cmocka_unit_test(test_task_faults),
        cmocka_unit_test(test_segment_loads),
        cmocka_unit_test(test_descriptor_questions),
        cmocka_unit_test(test_ltr_wide),
        cmocka_unit_test(test_io_permission),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

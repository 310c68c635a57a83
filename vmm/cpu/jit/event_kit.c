/* event_kit.c - the machine that tests of events and segments begin with (event_kit.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/jit/event_kit.h"

uint64_t flat(unsigned type, unsigned dpl, uint64_t flags)
{
    return 0x000f00000000ffffull | (uint64_t)type << 40 | 1ull << 44 | (uint64_t)dpl << 45 |
           1ull << 47 | flags << 52;
}

uint64_t small(uint64_t base, uint64_t limit, unsigned type, unsigned dpl)
{
    return limit | base << 16 | (uint64_t)type << 40 | (uint64_t)dpl << 45 | 1ull << 47;
}

void put(struct fake *f, unsigned selector, uint64_t raw)
{
    fake_store(f, GDT + (selector & 0xfff8), 8, raw);
}

struct fake *machine(bool wide)
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

void to_user(struct fake *f, uint16_t cs)
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

void gate64(struct fake *f, unsigned vector, unsigned type, unsigned dpl, unsigned ist)
{
    fake_store(f, IDT + vector * 16, 8,
               (HANDLER & 0xffff) | (uint64_t)(HANDLER >> 16) << 48 | (uint64_t)K_CODE << 16 |
                   (uint64_t)ist << 32 | (uint64_t)type << 40 | (uint64_t)dpl << 45 | 1ull << 47);
    fake_store(f, IDT + vector * 16 + 8, 8, 0);
}

void gate32(struct fake *f, unsigned vector, unsigned type, unsigned dpl, uint16_t selector)
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

int interrupt(struct fake *f, uint8_t vector, enum event_source source)
{
    const struct interrupt i = {.vector = vector, .source = source};

    f->cpu.next_rip = f->cpu.rip + 2;
    return fake_try(f, call_interrupt, &i);
}

void raise_pending(struct fake *f, uint8_t vector, bool has_code, uint32_t code)
{
    f->cpu.exception.pending = true;
    f->cpu.exception.vector = vector;
    f->cpu.exception.has_code = has_code;
    f->cpu.exception.code = code;
}

int execute(struct fake *f, struct insn i)
{
    i.len = i.len ? i.len : 2;
    i.asize = i.asize ? i.asize : f->cpu.long_mode ? 8 : 4;
    i.base = i.base ? i.base : REG_NONE;
    i.index = REG_NONE;
    i.seg = i.seg ? i.seg : SEG_DS;
    return fake_execute(f, &i);
}

int far_to(struct fake *f, unsigned op, uint16_t selector, uint64_t offset)
{
    return execute(
        f, (struct insn){.op = op, .form = FORM_FAR, .size = 4, .imm = offset, .imm2 = selector});
}

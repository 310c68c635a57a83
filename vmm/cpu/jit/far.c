/*
 * far.c - JMP, CALL and RET between segments: directly, through call gates, to tasks (SDM vol 3
 * §5.8; vol 2, CALL, JMP, RET).
 */
#include "cpu/jit/event.h"
#include "cpu/jit/segment.h"

/* Where a protected-mode transfer goes. */
struct target {
    struct descriptor code;
    struct segment cs;
    uint64_t rip;
    unsigned cpl, size, parameters; /* size: of what a call pushes */
};

static uint64_t truncated(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((1ull << size * 8) - 1);
}

void check_target(struct jit_cpu *cpu, const struct segment *cs, uint64_t rip, unsigned ext)
{
    if (is_ia32e(cpu) && (cs->attr & SEG_L) ? !is_canonical(rip) : rip > cs->limit)
        jit_raise_code(cpu, VECTOR_GP, ext);
}

/* --- Finding the target ---------------------------------------------------------------------- */

static void check_code(struct jit_cpu *cpu, const struct descriptor *d, bool through_gate)
{
    const bool wide = is_ia32e(cpu) && descriptor_is_long(d);

    if (!descriptor_is_code(d) || (wide && descriptor_is_big(d)) ||
        (through_gate && is_ia32e(cpu) && !wide))
        segment_fault(cpu, VECTOR_GP, d->selector, 0);
}

static void direct(struct jit_cpu *cpu, struct target *t)
{
    const unsigned dpl = descriptor_dpl(&t->code), rpl = t->code.selector & 3;

    check_code(cpu, &t->code, false);
    if (descriptor_is_conforming(&t->code) ? dpl > cpu->cpl : rpl > cpu->cpl || dpl != cpu->cpl)
        segment_fault(cpu, VECTOR_GP, t->code.selector, 0);
    if (!descriptor_is_present(&t->code))
        segment_fault(cpu, VECTOR_NP, t->code.selector, 0);
    t->cpl = cpu->cpl;
}

static void through_gate(struct jit_cpu *cpu, const struct descriptor *gate, bool call,
                         struct target *t)
{
    const uint16_t selector = (uint16_t)(gate->raw >> 16);
    unsigned dpl;

    t->size = descriptor_type(gate) == TYPE_CALL16 ? 2 : is_ia32e(cpu) ? 8 : 4;
    t->rip = gate->raw & 0xffff;
    if (t->size > 2)
        t->rip |= gate->raw >> 32 & 0xffff0000;
    t->parameters = gate->raw >> 32 & 0x1f;
    if (t->size == 8) {
        uint64_t upper;

        if (!descriptor_upper(cpu, gate, &upper) || (upper >> 40 & 0x1f))
            segment_fault(cpu, VECTOR_GP, gate->selector, 0);
        t->rip |= upper << 32;
        t->parameters = 0;
    }
    if (is_null(selector))
        jit_raise_code(cpu, VECTOR_GP, 0);
    t->code = descriptor_get(cpu, selector, VECTOR_GP, 0);
    check_code(cpu, &t->code, true);
    dpl = descriptor_dpl(&t->code);
    if (dpl > cpu->cpl || (!call && !descriptor_is_conforming(&t->code) && dpl != cpu->cpl))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!descriptor_is_present(&t->code))
        segment_fault(cpu, VECTOR_NP, selector, 0);
    t->cpl = descriptor_is_conforming(&t->code) ? cpu->cpl : dpl;
}

static bool is_gate_type(const struct jit_cpu *cpu, unsigned type)
{
    if (type == TYPE_CALL)
        return true;
    return !is_ia32e(cpu) && (type == TYPE_CALL16 || type == TYPE_TASK_GATE || type == TYPE_TSS16 ||
                              type == TYPE_TSS || type == TYPE_TSS16_BUSY || type == TYPE_TSS_BUSY);
}

/* False: it was a task, and is switched to. */
static bool find_target(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size,
                        bool call, struct target *t)
{
    struct descriptor d;

    if (is_null(selector))
        jit_raise_code(cpu, VECTOR_GP, 0);
    d = descriptor_get(cpu, selector, VECTOR_GP, 0);
    *t = (struct target){.code = d, .rip = truncated(offset, size), .size = size};
    if (!descriptor_is_system(&d)) {
        direct(cpu, t);
    } else {
        const unsigned type = descriptor_type(&d);
        const enum task_switch_source source = call ? TASK_CALL : TASK_JMP;

        if (!is_gate_type(cpu, type) ||
            descriptor_dpl(&d) < QZ_MAX((unsigned)cpu->cpl, selector & 3u))
            segment_fault(cpu, VECTOR_GP, selector, 0);
        if (type != TYPE_CALL && type != TYPE_CALL16 && type != TYPE_TASK_GATE) {
            task_switch(cpu, selector, source, false, 0);
            return false;
        }
        if (!descriptor_is_present(&d))
            segment_fault(cpu, VECTOR_NP, selector, 0);
        if (type == TYPE_TASK_GATE) {
            task_switch(cpu, (uint16_t)(d.raw >> 16), source, false, 0);
            return false;
        }
        through_gate(cpu, &d, call, t);
    }
    t->cs = descriptor_segment(&t->code);
    t->cs.selector = (uint16_t)((t->code.selector & 0xfffc) | t->cpl);
    check_target(cpu, &t->cs, t->rip, 0);
    return true;
}

static void arrive(struct jit_cpu *cpu, const struct segment *cs, uint64_t rip)
{
    cpu->seg[SEG_CS] = *cs;
    cpu->next_rip = rip;
    jit_mode_changed(cpu);
}

static struct segment unprotected_code(struct jit_cpu *cpu, uint16_t selector, uint64_t rip)
{
    const struct segment cs = cpu->rflags & RFLAGS_VM
                                  ? segment_v86(selector)
                                  : segment_real(cpu, &cpu->seg[SEG_CS], selector);

    check_target(cpu, &cs, rip, 0);
    return cs;
}

/* --- JMP ------------------------------------------------------------------------------------- */

void far_jump(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size)
{
    struct target t;

    if (!is_protected(cpu)) {
        const uint64_t rip = truncated(offset, size);
        const struct segment cs = unprotected_code(cpu, selector, rip);

        arrive(cpu, &cs, rip);
    } else if (find_target(cpu, selector, offset, size, false, &t)) {
        descriptor_set_accessed(cpu, &t.code);
        arrive(cpu, &t.cs, t.rip);
    }
}

/* --- CALL ------------------------------------------------------------------------------------ */

/* The stack of the inner ring, with the old one's place and the gate's parameters on it. */
static struct stack enter_inner(struct jit_cpu *cpu, const struct target *t)
{
    const struct tss_stack from_tss = tss_stack(cpu, t->cpl, 0, 0);
    struct stack old = stack_current(cpu), s;
    uint64_t parameter[31];

    if (t->size == 8) {
        s = stack_of(cpu, segment_null((uint16_t)t->cpl, t->cpl), from_tss.sp, 8, t->cpl);
    } else {
        const struct segment ss = segment_for_stack(cpu, from_tss.ss, t->cpl, VECTOR_TS, 0);

        s = stack_of(cpu, ss, from_tss.sp, ss.attr & SEG_DB ? 4 : 2, t->cpl);
        s.fault = from_tss.ss & 0xfffc;
    }
    for (unsigned i = 0; i < t->parameters; i++)
        parameter[i] = stack_read(cpu, &old, t->size);
    stack_write(cpu, &s, t->size, cpu->seg[SEG_SS].selector);
    stack_write(cpu, &s, t->size, cpu->gpr[RSP]);
    for (unsigned i = t->parameters; i-- > 0;)
        stack_write(cpu, &s, t->size, parameter[i]);
    return s;
}

static void call_protected(struct jit_cpu *cpu, const struct target *t)
{
    struct stack s;

    if (t->cpl < cpu->cpl) {
        s = enter_inner(cpu, t);
    } else {
        s = stack_current(cpu);
        if (t->size == 8 && (t->cs.attr & SEG_L))
            s.size = 8; /* a gate out of compatibility mode */
    }
    stack_write(cpu, &s, t->size, cpu->seg[SEG_CS].selector);
    stack_write(cpu, &s, t->size, cpu->next_rip);
    descriptor_set_accessed(cpu, &t->code);
    stack_commit(cpu, &s);
    arrive(cpu, &t->cs, t->rip);
}

void far_call(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size)
{
    struct target t;

    if (!is_protected(cpu)) {
        const uint64_t rip = truncated(offset, size);
        const struct segment cs = unprotected_code(cpu, selector, rip);
        struct stack s = stack_current(cpu);

        stack_write(cpu, &s, size, cpu->seg[SEG_CS].selector);
        stack_write(cpu, &s, size, cpu->next_rip);
        stack_commit(cpu, &s);
        arrive(cpu, &cs, rip);
    } else if (find_target(cpu, selector, offset, size, true, &t)) {
        call_protected(cpu, &t);
    }
}

/* --- RET ------------------------------------------------------------------------------------- */

/* To the ring of CS's RPL: checks, and what comes back from the outer ring's stack. */
static void return_protected(struct jit_cpu *cpu, struct stack *s, uint16_t selector, uint64_t rip,
                             unsigned size, unsigned drop)
{
    const struct descriptor d = segment_for_return(cpu, selector);
    const struct segment cs = descriptor_segment(&d);
    const unsigned rpl = selector & 3;
    const bool outer = rpl > cpu->cpl, to_long = is_ia32e(cpu) && (cs.attr & SEG_L);

    s->sp += drop;
    if (outer) {
        const uint64_t sp = stack_read(cpu, s, size);
        const uint16_t stack = (uint16_t)stack_read(cpu, s, size);
        const struct segment ss = stack_for_return(cpu, stack, rpl, to_long);

        *s = (struct stack){.ss = ss,
                            .sp = sp + drop,
                            .size = to_long            ? 8
                                    : ss.attr & SEG_DB ? 4
                                                       : 2};
    }
    check_target(cpu, &cs, rip, 0);
    descriptor_set_accessed(cpu, &d);
    stack_commit(cpu, s);
    arrive(cpu, &cs, rip);
    if (outer)
        segments_leave_ring(cpu);
}

void far_return(struct jit_cpu *cpu, unsigned size, unsigned drop)
{
    struct stack s = stack_current(cpu);
    const uint64_t rip = stack_read(cpu, &s, size);
    const uint16_t selector = (uint16_t)stack_read(cpu, &s, size);

    if (is_protected(cpu)) {
        return_protected(cpu, &s, selector, rip, size, drop);
    } else {
        const struct segment cs = unprotected_code(cpu, selector, rip);

        s.sp += drop;
        stack_commit(cpu, &s);
        arrive(cpu, &cs, rip);
    }
}

/*
 * event.c - delivery of exceptions and interrupts through the IDT (SDM vol 3 chapter 6).
 *
 * Theory of operation. A delivery reads gate, code segment and stack, writes the frame, and only
 * then changes a register, so that a fault on the way finds the interrupted state. The fault itself
 * unwinds to the run loop, which comes back to event_deliver_pending(): the vector that was being
 * delivered is remembered there, and the two together make a double fault or a shutdown (§6.15,
 * table 6-5).
 */
#include "cpu/jit/event.h"

#include "cpu/jit/segment.h"

enum { DR6_GENERAL_DETECT = 1 << 13, DR6_TRAPS = 0xf, DR7_GENERAL_DETECT = 1 << 13 };

struct event {
    uint8_t vector;
    bool software; /* INT n, INT3, INTO: the gate's privilege counts */
    bool has_code;
    unsigned ext; /* bit 0 of error codes of faults on the way */
    uint32_t code;
    uint64_t rip;    /* to return to */
    uint64_t rflags; /* as pushed */
};

struct gate {
    uint64_t target;
    uint16_t selector;
    uint8_t type, ist;
};

static _Noreturn void gate_fault(struct jit_cpu *cpu, const struct event *e, uint8_t vector)
{
    jit_raise_code(cpu, vector, e->vector * 8u | 2 | e->ext);
}

/* --- RFLAGS ---------------------------------------------------------------------------------- */

/* Faults push RF, so that the instruction does not meet its breakpoint again (§17.3.1.1). */
static bool is_fault(const struct jit_cpu *cpu, uint8_t vector)
{
    if (vector == VECTOR_DB)
        return cpu->exception.dr6 & DR6_GENERAL_DETECT;
    return vector == VECTOR_DE || (vector >= VECTOR_BR && vector <= VECTOR_NM) ||
           (vector >= VECTOR_TS && vector <= VECTOR_AC) || vector == VECTOR_XM;
}

static void enter_handler(struct jit_cpu *cpu, uint64_t rip, bool interrupt_gate)
{
    cpu->rflags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM |
                               (interrupt_gate ? RFLAGS_IF : 0));
    cpu->rip = cpu->next_rip = rip;
    cpu->shadow = 0;
}

/* --- The code segment of a handler ----------------------------------------------------------- */

static struct descriptor handler_segment(struct jit_cpu *cpu, const struct event *e,
                                         uint16_t selector)
{
    struct descriptor d;

    if (is_null(selector))
        jit_raise_code(cpu, VECTOR_GP, e->ext);
    d = descriptor_get(cpu, selector, VECTOR_GP, e->ext);
    if (!descriptor_is_code(&d) || descriptor_dpl(&d) > cpu->cpl)
        segment_fault(cpu, VECTOR_GP, selector, e->ext);
    if (is_ia32e(cpu) && (!descriptor_is_long(&d) || descriptor_is_big(&d)))
        segment_fault(cpu, VECTOR_GP, selector, e->ext);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, e->ext);
    return d;
}

static void check_gate(struct jit_cpu *cpu, const struct event *e, uint64_t low)
{
    if (e->software && (low >> 45 & 3) < cpu->cpl)
        gate_fault(cpu, e, VECTOR_GP);
    if (!(low >> 47 & 1))
        gate_fault(cpu, e, VECTOR_NP);
}

/* --- IA-32e mode (§6.14) --------------------------------------------------------------------- */

static struct gate long_gate(struct jit_cpu *cpu, const struct event *e)
{
    const uint64_t at = cpu->idt.base + e->vector * 16u;
    uint64_t low, high;
    struct gate g;

    if (e->vector * 16u + 15 > cpu->idt.limit)
        gate_fault(cpu, e, VECTOR_GP);
    low = mmu_load_system(cpu, at, 8);
    high = mmu_load_system(cpu, at + 8, 8);
    g = (struct gate){
        .target = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32,
        .selector = (uint16_t)(low >> 16),
        .type = low >> 40 & 0x1f, /* with the S bit, which is 0 */
        .ist = low >> 32 & 7,
    };
    if (g.type != TYPE_INTERRUPT && g.type != TYPE_TRAP)
        gate_fault(cpu, e, VECTOR_GP);
    check_gate(cpu, e, low);
    return g;
}

/* SS, RSP, RFLAGS, CS, RIP and the code. Nearly always all of it lies in one page that is known. */
static void push_long_frame(struct jit_cpu *cpu, const struct event *e, struct stack *s)
{
    const uint64_t frame[6] = {e->code,   e->rip,        cpu->seg[SEG_CS].selector,
                               e->rflags, cpu->gpr[RSP], cpu->seg[SEG_SS].selector};
    const unsigned first = e->has_code ? 0 : 1, bytes = (6 - first) * 8;
    volatile host_u64 *host;

    host = mmu_hit(cpu, s->sp - bytes, bytes, s->set, TLB_WRITE);
    if (host) {
        for (unsigned i = first; i < 6; i++)
            host[i - first] = frame[i];
        s->sp -= bytes;
        return;
    }
    for (unsigned i = 6; i-- > first;)
        stack_write(cpu, s, 8, frame[i]);
}

static void long_interrupt(struct jit_cpu *cpu, const struct event *e)
{
    const struct gate g = long_gate(cpu, e);
    const struct descriptor cs = handler_segment(cpu, e, g.selector);
    const unsigned cpl = descriptor_is_conforming(&cs) ? cpu->cpl : descriptor_dpl(&cs);
    const bool inner = cpl < cpu->cpl;
    struct stack s =
        stack_of(cpu, inner ? segment_null((uint16_t)cpl, cpl) : cpu->seg[SEG_SS],
                 inner || g.ist ? tss_stack(cpu, cpl, g.ist, e->ext).sp : cpu->gpr[RSP], 8, cpl);

    if (!is_canonical(g.target))
        jit_raise_code(cpu, VECTOR_GP, e->ext);
    s.fault = e->ext;
    s.sp &= ~15ull;
    push_long_frame(cpu, e, &s);
    descriptor_set_accessed(cpu, &cs);

    cpu->seg[SEG_CS] = descriptor_segment(&cs);
    cpu->seg[SEG_CS].selector = (uint16_t)((g.selector & 0xfffc) | cpl);
    cpu->seg[SEG_SS] = s.ss;
    cpu->gpr[RSP] = s.sp;
    enter_handler(cpu, g.target, g.type == TYPE_INTERRUPT);
    /* jit_mode_changed(), shorter: it is a 64-bit segment. */
    cpu->long_mode = true;
    cpu->code_width = CODE_64;
    cpu->stack_size = 8;
    cpu->cpl = (uint8_t)cpl;
    mmu_set_changed(cpu);
}

/* --- Protected mode (§6.12) and virtual-8086 mode (§20.3) ------------------------------------ */

static struct gate protected_gate(struct jit_cpu *cpu, const struct event *e)
{
    uint64_t low;
    struct gate g;

    if (e->vector * 8u + 7 > cpu->idt.limit)
        gate_fault(cpu, e, VECTOR_GP);
    low = mmu_load_system(cpu, cpu->idt.base + e->vector * 8u, 8);
    g = (struct gate){
        .target = low & 0xffff,
        .selector = (uint16_t)(low >> 16),
        .type = low >> 40 & 0x1f,
    };
    switch (g.type) {
    case TYPE_INTERRUPT:
    case TYPE_TRAP:
        g.target |= low >> 32 & 0xffff0000;
        break;
    case TYPE_INTERRUPT16:
    case TYPE_TRAP16:
    case TYPE_TASK_GATE:
        break;
    default:
        gate_fault(cpu, e, VECTOR_GP);
    }
    check_gate(cpu, e, low);
    return g;
}

static struct stack inner_stack(struct jit_cpu *cpu, const struct event *e, unsigned cpl)
{
    const struct tss_stack t = tss_stack(cpu, cpl, 0, e->ext);
    const struct segment ss = segment_for_stack(cpu, t.ss, cpl, VECTOR_TS, e->ext);
    struct stack s = stack_of(cpu, ss, t.sp, ss.attr & SEG_DB ? 4 : 2, cpl);

    s.fault = (t.ss & 0xfffc) | e->ext;
    return s;
}

static void protected_interrupt(struct jit_cpu *cpu, const struct event *e)
{
    static const uint8_t data_segments[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
    const struct gate g = protected_gate(cpu, e);
    const bool from_v86 = cpu->rflags & RFLAGS_VM;
    unsigned cpl, size;
    struct descriptor cs;
    struct segment code;
    struct stack s;

    if (g.type == TYPE_TASK_GATE) {
        cpu->next_rip = e->rip; /* both go into the old TSS; a fault on the way sets RF itself */
        cpu->rflags = e->rflags;
        task_switch(cpu, g.selector, e->software ? TASK_GATE_SOFTWARE : TASK_GATE, e->has_code,
                    e->code);
        return;
    }
    size = g.type >= TYPE_INTERRUPT ? 4 : 2;
    cs = handler_segment(cpu, e, g.selector);
    cpl = descriptor_is_conforming(&cs) ? cpu->cpl : descriptor_dpl(&cs);
    if (from_v86 && cpl != 0)
        segment_fault(cpu, VECTOR_GP, g.selector, e->ext);
    if (cpl < cpu->cpl) {
        s = inner_stack(cpu, e, cpl);
    } else {
        s = stack_current(cpu);
        s.fault = e->ext;
    }
    code = descriptor_segment(&cs);
    code.selector = (uint16_t)((g.selector & 0xfffc) | cpl);
    check_target(cpu, &code, g.target, e->ext);
    if (from_v86)
        for (unsigned i = 0; i < QZ_ARRAY_LEN(data_segments); i++)
            stack_write(cpu, &s, size, cpu->seg[data_segments[i]].selector);
    if (cpl < cpu->cpl) {
        stack_write(cpu, &s, size, cpu->seg[SEG_SS].selector);
        stack_write(cpu, &s, size, cpu->gpr[RSP]);
    }
    stack_write(cpu, &s, size, e->rflags);
    stack_write(cpu, &s, size, cpu->seg[SEG_CS].selector);
    stack_write(cpu, &s, size, e->rip);
    if (e->has_code)
        stack_write(cpu, &s, size, e->code);
    descriptor_set_accessed(cpu, &cs);

    if (from_v86)
        for (unsigned i = 0; i < QZ_ARRAY_LEN(data_segments); i++)
            cpu->seg[data_segments[i]] = segment_null(0, 0);
    cpu->seg[SEG_CS] = code;
    stack_commit(cpu, &s);
    enter_handler(cpu, g.target, g.type == TYPE_INTERRUPT || g.type == TYPE_INTERRUPT16);
    jit_mode_changed(cpu);
}

/* --- Real mode (§20.1.4) --------------------------------------------------------------------- */

static void real_interrupt(struct jit_cpu *cpu, const struct event *e)
{
    const uint64_t at = cpu->idt.base + e->vector * 4u;
    struct stack s = stack_current(cpu);
    uint64_t ip;
    struct segment cs;

    if (e->vector * 4u + 3 > cpu->idt.limit)
        gate_fault(cpu, e, VECTOR_GP);
    ip = mmu_load_system(cpu, at, 2);
    cs = segment_real(cpu, &cpu->seg[SEG_CS], (uint16_t)mmu_load_system(cpu, at + 2, 2));
    check_target(cpu, &cs, ip, e->ext);
    stack_write(cpu, &s, 2, e->rflags);
    stack_write(cpu, &s, 2, cpu->seg[SEG_CS].selector);
    stack_write(cpu, &s, 2, e->rip);

    cpu->seg[SEG_CS] = cs;
    stack_commit(cpu, &s);
    cpu->rflags &= ~(uint64_t)RFLAGS_AC;
    cpu->rip = cpu->next_rip = ip;
    enter_handler(cpu, ip, true);
    jit_mode_changed(cpu);
}

/* --- All of them ----------------------------------------------------------------------------- */

void event_interrupt(struct jit_cpu *cpu, uint8_t vector, enum event_source source, bool has_code,
                     uint32_t code)
{
    const bool by_instruction = source == EVENT_SOFTWARE || source == EVENT_INT1;
    const struct event e = {
        .vector = vector,
        .software = source == EVENT_SOFTWARE,
        .has_code = has_code,
        .ext = source == EVENT_SOFTWARE ? 0 : 1,
        .code = code,
        .rip = by_instruction ? cpu->next_rip : cpu->rip,
        .rflags = cpu->rflags | RFLAGS_FIXED |
                  (source == EVENT_EXCEPTION && is_fault(cpu, vector) ? RFLAGS_RF : 0),
    };

    if (!(cpu->cr0 & CR0_PE))
        real_interrupt(cpu, &e);
    else if (is_ia32e(cpu))
        long_interrupt(cpu, &e);
    else
        protected_interrupt(cpu, &e);
}

/* Table 6-4. */
static bool is_contributory(uint8_t vector)
{
    return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

/* Two exceptions, the second while the first was being delivered, that cannot be delivered one
 * after the other (table 6-5). */
static bool makes_double_fault(uint8_t first, uint8_t second)
{
    if (is_contributory(first))
        return is_contributory(second);
    return first == VECTOR_PF && (is_contributory(second) || second == VECTOR_PF);
}

void event_deliver_pending(struct jit_cpu *cpu)
{
    const bool nested = cpu->a_fault_interrupts;
    uint8_t vector = cpu->exception.vector;
    bool has_code = cpu->exception.has_code && (cpu->cr0 & CR0_PE);
    uint32_t code = cpu->exception.code;

    cpu->exception.pending = false;
    if (vector == VECTOR_PF)
        cpu->cr2 = cpu->exception.address;
    if (vector == VECTOR_DB) { /* §17.2.3: B0 to B3 are of this exception, the others stay */
        cpu->dr6 = (cpu->dr6 & ~(uint64_t)DR6_TRAPS) | cpu->exception.dr6;
        cpu->dr7 &= ~(uint64_t)DR7_GENERAL_DETECT;
    }
    if (nested && cpu->delivering == VECTOR_DF) {
        cpu->a_fault_interrupts = false;
        cpu->shutdown = true;
        return;
    }
    if (nested && makes_double_fault(cpu->delivering, vector)) {
        vector = VECTOR_DF;
        has_code = cpu->cr0 & CR0_PE;
        code = 0;
    }
    cpu->delivering = vector;
    cpu->a_fault_interrupts = true;
    event_interrupt(cpu, vector, EVENT_EXCEPTION, has_code, code);
    cpu->a_fault_interrupts = false;
    cpu->halted = false;
}

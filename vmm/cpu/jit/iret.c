/*
 * iret.c - IRET (SDM vol 2): the return from a handler in each mode, to each other.
 *
 * NMIs are let in again by IRET even where it faults (SDM vol 3 §24.5, "NMI unblocking due to
 * IRET").
 */
#include "cpu/jit/event.h"
#include "cpu/jit/segment.h"

enum { FLAGS_DEFINED = 0x3f7fd7 };

struct frame {
    uint64_t rip, rflags, rsp;
    uint16_t cs, ss;
};

/* The flags that this ring may change. */
static uint64_t flags_after(const struct jit_cpu *cpu, uint64_t image, unsigned size)
{
    uint64_t changes = FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

    if (size > 2)
        changes |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (cpu->cpl <= (cpu->rflags & RFLAGS_IOPL) >> 12)
        changes |= RFLAGS_IF;
    if (cpu->cpl == 0)
        changes |= RFLAGS_IOPL;
    if (cpu->cpl == 0 && size > 2 && (cpu->cr0 & CR0_PE))
        changes |= RFLAGS_VIF | RFLAGS_VIP;
    return (cpu->rflags & ~changes) | (image & changes) | RFLAGS_FIXED;
}

static void finish(struct jit_cpu *cpu, uint64_t rip, uint64_t rflags)
{
    cpu->next_rip = rip;
    cpu->rflags = rflags;
    if (rflags & (RFLAGS_TF | RFLAGS_RF))
        jit_attention_set(cpu, ATTENTION_TRACE);
    jit_mode_changed(cpu);
}

/* --- Real and virtual-8086 mode -------------------------------------------------------------- */

static void return_real(struct jit_cpu *cpu, unsigned size)
{
    const bool v86 = cpu->rflags & RFLAGS_VM;
    struct stack s = stack_current(cpu);
    const uint64_t rip = stack_read(cpu, &s, size);
    const uint16_t selector = (uint16_t)stack_read(cpu, &s, size);
    const uint64_t image = stack_read(cpu, &s, size);
    const struct segment cs =
        v86 ? segment_v86(selector) : segment_real(cpu, &cpu->seg[SEG_CS], selector);
    uint64_t rflags = flags_after(cpu, image, size);

    if (v86) /* CPL 3 of IOPL 3: IF may change, IOPL not */
        rflags = (rflags & ~(uint64_t)RFLAGS_IOPL) | (cpu->rflags & RFLAGS_IOPL);
    check_target(cpu, &cs, rip, 0);
    cpu->seg[SEG_CS] = cs;
    stack_commit(cpu, &s);
    finish(cpu, rip, rflags);
}

static void return_to_v86(struct jit_cpu *cpu, struct stack *s, const struct frame *f)
{
    static const uint8_t order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    const struct segment cs = segment_v86(f->cs);
    const uint64_t esp = stack_read(cpu, s, 4);
    const uint16_t ss = (uint16_t)stack_read(cpu, s, 4);
    uint16_t data[QZ_ARRAY_LEN(order)];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(order); i++)
        data[i] = (uint16_t)stack_read(cpu, s, 4);
    check_target(cpu, &cs, f->rip, 0);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(order); i++)
        cpu->seg[order[i]] = segment_v86(data[i]);
    cpu->seg[SEG_CS] = cs;
    cpu->seg[SEG_SS] = segment_v86(ss);
    cpu->gpr[RSP] = esp;
    finish(cpu, f->rip, (f->rflags & FLAGS_DEFINED) | RFLAGS_FIXED);
}

/* --- Protected and IA-32e mode --------------------------------------------------------------- */

/* Where no fault is near: the five words of a 64-bit frame, in one page. */
static bool read_long_frame(struct jit_cpu *cpu, struct frame *f)
{
    const volatile host_u64 *host = mmu_hit(cpu, cpu->gpr[RSP], 40, cpu->tlb.data_set, TLB_READ);

    if (!host)
        return false;
    *f = (struct frame){host[0], host[2], host[3], (uint16_t)host[1], (uint16_t)host[4]};
    return true;
}

static void return_protected(struct jit_cpu *cpu, unsigned size)
{
    struct stack s = stack_current(cpu);
    struct descriptor d;
    struct segment cs;
    struct frame f = {0};
    uint64_t rflags;
    bool to_long, outer;

    if (size != 8 || !cpu->long_mode || !read_long_frame(cpu, &f)) {
        f.rip = stack_read(cpu, &s, size);
        f.cs = (uint16_t)stack_read(cpu, &s, size);
        f.rflags = stack_read(cpu, &s, size);
        if (!is_ia32e(cpu) && size == 4 && (f.rflags & RFLAGS_VM) && cpu->cpl == 0) {
            return_to_v86(cpu, &s, &f);
            return;
        }
        if (cpu->long_mode || (f.cs & 3) > cpu->cpl) {
            f.rsp = stack_read(cpu, &s, size);
            f.ss = (uint16_t)stack_read(cpu, &s, size);
        }
    }
    d = segment_for_return(cpu, f.cs);
    cs = descriptor_segment(&d);
    to_long = is_ia32e(cpu) && (cs.attr & SEG_L);
    outer = (f.cs & 3) > cpu->cpl;
    if (cpu->long_mode || outer) {
        const struct segment ss = stack_for_return(cpu, f.ss, f.cs & 3, to_long);

        s = (struct stack){.ss = ss, .sp = f.rsp, .size = to_long ? 8 : ss.attr & SEG_DB ? 4 : 2};
    }
    check_target(cpu, &cs, f.rip, 0);
    descriptor_set_accessed(cpu, &d);

    rflags = flags_after(cpu, f.rflags, size);
    cpu->seg[SEG_CS] = cs;
    stack_commit(cpu, &s);
    finish(cpu, f.rip, rflags);
    if (outer)
        segments_leave_ring(cpu);
}

void interrupt_return(struct jit_cpu *cpu, unsigned size)
{
    cpu->nmi_masked = false;
    if (!(cpu->cr0 & CR0_PE)) {
        return_real(cpu, size);
    } else if (cpu->rflags & RFLAGS_VM) {
        if ((cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
            jit_raise_code(cpu, VECTOR_GP, 0);
        return_real(cpu, size);
    } else if (!(cpu->rflags & RFLAGS_NT)) {
        return_protected(cpu, size);
    } else if (is_ia32e(cpu)) {
        jit_raise_code(cpu, VECTOR_GP, 0); /* there are no tasks to return to */
    } else {
        task_switch(cpu, (uint16_t)mmu_load_system(cpu, cpu->tr.base, 2), TASK_IRET, false, 0);
    }
}

/*
 * task.c - task switches (SDM vol 3 §7.3), between 32-bit and 16-bit task-state segments.
 *
 * Theory of operation. Everything is read and the old task is saved before a register changes. From
 * then on the new task runs: its segments are loaded one by one, and what is wrong with them is an
 * exception in the new task, at its first instruction.
 */
#include "cpu/jit/event.h"
#include "cpu/jit/segment.h"

/* Offsets in a TSS (figures 7-2 and 7-10). */
struct layout {
    uint8_t bytes, cr3, ip, flags, gpr, segments, ldt, trap;
    uint8_t count; /* of segments */
    uint8_t limit; /* at least */
};

static const struct layout tss32 = {4, 0x1c, 0x20, 0x24, 0x28, 0x48, 0x60, 0x64, 6, 0x67};
static const struct layout tss16 = {2, 0, 0x0e, 0x10, 0x12, 0x22, 0x2a, 0, 4, 0x2b};

static const uint8_t segment_order[] = {SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS};

enum { DR6_TASK = 1 << 15, DR7_LOCAL = 0x155, FLAGS_DEFINED = 0x3f7fd7, GPRS = 8 };

struct task {
    const struct layout *layout;
    uint64_t cr3;
    uint32_t ip, flags;
    uint32_t gpr[GPRS];
    uint16_t segment[QZ_ARRAY_LEN(segment_order)];
    uint16_t ldt;
    bool trap;
};

static const struct layout *layout_of(const struct segment *tss)
{
    return tss->attr & 8 ? &tss32 : &tss16;
}

/* --- The two TSSs ---------------------------------------------------------------------------- */

static struct descriptor find_tss(struct jit_cpu *cpu, uint16_t selector,
                                  enum task_switch_source source, unsigned ext)
{
    const uint8_t vector = source == TASK_IRET ? VECTOR_TS : VECTOR_GP;
    const unsigned wanted = source == TASK_IRET ? TYPE_TSS16_BUSY : TYPE_TSS16;
    struct descriptor d;

    if (is_null(selector) || (selector & 4)) /* in the GDT only */
        segment_fault(cpu, vector, selector, ext);
    d = descriptor_get(cpu, selector, vector, ext);
    if (!descriptor_is_system(&d) || (descriptor_type(&d) & ~8u) != wanted)
        segment_fault(cpu, vector, selector, ext);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, ext);
    return d;
}

static struct task read_tss(struct jit_cpu *cpu, const struct segment *tss)
{
    const struct layout *l = layout_of(tss);
    struct task t = {.layout = l};

    if (l->cr3)
        t.cr3 = mmu_load_system(cpu, tss->base + l->cr3, 4);
    t.ip = (uint32_t)mmu_load_system(cpu, tss->base + l->ip, l->bytes);
    t.flags = (uint32_t)mmu_load_system(cpu, tss->base + l->flags, l->bytes);
    for (unsigned i = 0; i < GPRS; i++)
        t.gpr[i] = (uint32_t)mmu_load_system(cpu, tss->base + l->gpr + i * l->bytes, l->bytes);
    for (unsigned i = 0; i < l->count; i++)
        t.segment[i] = (uint16_t)mmu_load_system(cpu, tss->base + l->segments + i * l->bytes, 2);
    t.ldt = (uint16_t)mmu_load_system(cpu, tss->base + l->ldt, 2);
    t.trap = l->trap && (mmu_load_system(cpu, tss->base + l->trap, 1) & 1);
    return t;
}

static void save_task(struct jit_cpu *cpu, enum task_switch_source source)
{
    const struct segment *tss = &cpu->tr;
    const struct layout *l = layout_of(tss);
    const uint64_t nt = source == TASK_IRET ? RFLAGS_NT : 0;

    mmu_store_system(cpu, tss->base + l->ip, l->bytes, cpu->next_rip);
    mmu_store_system(cpu, tss->base + l->flags, l->bytes, cpu->rflags & ~nt);
    for (unsigned i = 0; i < GPRS; i++)
        mmu_store_system(cpu, tss->base + l->gpr + i * l->bytes, l->bytes, cpu->gpr[i]);
    for (unsigned i = 0; i < l->count; i++)
        mmu_store_system(cpu, tss->base + l->segments + i * l->bytes, 2,
                         cpu->seg[segment_order[i]].selector);
}

static void set_busy(struct jit_cpu *cpu, uint64_t descriptor, bool busy)
{
    const uint64_t type = mmu_load_system(cpu, descriptor + 5, 1);

    mmu_store_system(cpu, descriptor + 5, 1, busy ? type | TYPE_BUSY : type & ~(uint64_t)TYPE_BUSY);
}

/* --- The new task's segments ----------------------------------------------------------------- */

static void load_ldt(struct jit_cpu *cpu, uint16_t selector, unsigned ext)
{
    struct descriptor d;

    cpu->ldt = segment_null(selector, 0);
    if (is_null(selector))
        return;
    if ((selector & 4) || !descriptor_find(cpu, selector, &d) || !descriptor_is_system(&d) ||
        descriptor_type(&d) != TYPE_LDT || !descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_TS, selector, ext);
    cpu->ldt = descriptor_segment(&d);
}

static void load_code(struct jit_cpu *cpu, uint16_t selector, unsigned ext)
{
    const unsigned rpl = selector & 3;
    struct descriptor d;

    if (is_null(selector))
        segment_fault(cpu, VECTOR_TS, selector, ext);
    d = descriptor_get(cpu, selector, VECTOR_TS, ext);
    if (!descriptor_is_code(&d) ||
        (descriptor_is_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl))
        segment_fault(cpu, VECTOR_TS, selector, ext);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, ext);
    descriptor_set_accessed(cpu, &d);
    cpu->seg[SEG_CS] = descriptor_segment(&d);
    jit_mode_changed(cpu);
}

static void load_data(struct jit_cpu *cpu, unsigned seg, uint16_t selector, unsigned ext)
{
    struct descriptor d;

    if (is_null(selector))
        return;
    d = descriptor_get(cpu, selector, VECTOR_TS, ext);
    if (descriptor_is_system(&d) ||
        (descriptor_type(&d) & (TYPE_CODE | TYPE_READ_WRITE)) == TYPE_CODE)
        segment_fault(cpu, VECTOR_TS, selector, ext);
    if (!(descriptor_is_code(&d) && descriptor_is_conforming(&d)) &&
        descriptor_dpl(&d) < QZ_MAX((unsigned)cpu->cpl, selector & 3u))
        segment_fault(cpu, VECTOR_TS, selector, ext);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, ext);
    descriptor_set_accessed(cpu, &d);
    cpu->seg[seg] = descriptor_segment(&d);
}

/* All registers but the hidden parts of segments: from here on it is the new task. */
static void become(struct jit_cpu *cpu, const struct task *t)
{
    const unsigned cpl = t->segment[SEG_CS] & 3;

    for (unsigned i = 0; i < GPRS; i++)
        cpu->gpr[i] = t->layout->bytes == 4 ? t->gpr[i] : (cpu->gpr[i] & 0xffff0000) | t->gpr[i];
    cpu->rip = cpu->next_rip = t->ip;
    cpu->rflags = (t->flags & FLAGS_DEFINED) | RFLAGS_FIXED;
    cpu->shadow = 0;
    cpu->cr0 |= CR0_TS;
    cpu->dr7 &= ~(uint64_t)DR7_LOCAL;
    for (unsigned i = 0; i < QZ_ARRAY_LEN(segment_order); i++)
        cpu->seg[i] =
            cpu->rflags & RFLAGS_VM ? segment_v86(t->segment[i]) : segment_null(t->segment[i], cpl);
    jit_mode_changed(cpu);
    if (t->layout->cr3 && (cpu->cr0 & CR0_PG))
        mmu_cr3_write(cpu, t->cr3);
}

static void load_segments(struct jit_cpu *cpu, const struct task *t, unsigned ext)
{
    load_ldt(cpu, t->ldt, ext);
    if (cpu->rflags & RFLAGS_VM)
        return;
    load_code(cpu, t->segment[SEG_CS], ext);
    cpu->seg[SEG_SS] =
        segment_for_stack(cpu, t->segment[SEG_SS], t->segment[SEG_CS] & 3, VECTOR_TS, ext);
    jit_mode_changed(cpu);
    load_data(cpu, SEG_DS, t->segment[SEG_DS], ext);
    load_data(cpu, SEG_ES, t->segment[SEG_ES], ext);
    load_data(cpu, SEG_FS, t->segment[SEG_FS], ext);
    load_data(cpu, SEG_GS, t->segment[SEG_GS], ext);
}

/* --- The switch ------------------------------------------------------------------------------ */

void task_switch(struct jit_cpu *cpu, uint16_t selector, enum task_switch_source source,
                 bool has_code, uint32_t code)
{
    const unsigned ext = source == TASK_GATE;
    const bool nests = source != TASK_JMP && source != TASK_IRET;
    const uint16_t old_selector = cpu->tr.selector;
    const struct descriptor d = find_tss(cpu, selector, source, ext);
    struct segment tss = descriptor_segment(&d);
    struct task t;

    if (tss.limit < layout_of(&tss)->limit)
        segment_fault(cpu, VECTOR_TS, selector, ext);
    if (cpu->tr.limit < layout_of(&cpu->tr)->limit)
        segment_fault(cpu, VECTOR_TS, old_selector, ext);
    t = read_tss(cpu, &tss);
    save_task(cpu, source);
    if (nests) {
        mmu_store_system(cpu, tss.base, 2, old_selector);
        t.flags |= RFLAGS_NT;
    } else if (cpu->gdt.limit >= (old_selector | 7u)) {
        set_busy(cpu, cpu->gdt.base + (old_selector & 0xfff8), false);
    }
    if (source != TASK_IRET)
        set_busy(cpu, d.address, true);

    tss.attr |= TYPE_BUSY;
    cpu->tr = tss;
    become(cpu, &t);
    load_segments(cpu, &t, ext);
    if (has_code) {
        struct stack s = stack_current(cpu);

        stack_write(cpu, &s, t.layout->bytes, code);
        stack_commit(cpu, &s);
    }
    check_target(cpu, &cpu->seg[SEG_CS], cpu->rip, 0);
    if (t.trap)
        jit_raise_debug(cpu, DR6_TASK);
    jit_attention_set(cpu, ATTENTION_TRACE);
}

/*
 * segment.c - descriptors, segment registers, and the mode that follows from them.
 */
#include "cpu/jit/segment.h"

#include "cpu/jit/event.h"

void jit_mode_changed(struct jit_cpu *cpu)
{
    const struct segment *cs = &cpu->seg[SEG_CS], *ss = &cpu->seg[SEG_SS];

    cpu->long_mode = is_ia32e(cpu) && (cs->attr & SEG_L);
    cpu->code_width = cpu->long_mode ? CODE_64 : cs->attr & SEG_DB ? CODE_32 : CODE_16;
    cpu->stack_size = cpu->long_mode ? 8 : ss->attr & SEG_DB ? 4 : 2;
    if (!(cpu->cr0 & CR0_PE))
        cpu->cpl = 0;
    else if (cpu->rflags & RFLAGS_VM)
        cpu->cpl = 3;
    else
        cpu->cpl = ss->attr >> SEG_DPL_SHIFT & 3; /* SS.DPL is the CPL, SDM vol 3 §24.4.1 */
    mmu_set_changed(cpu);
}

void rflags_write(struct jit_cpu *cpu, uint64_t rflags)
{
    const uint64_t changed = cpu->rflags ^ rflags;

    cpu->rflags = rflags | RFLAGS_FIXED;
    if (changed & RFLAGS_VM)
        jit_mode_changed(cpu);
    else if (changed & RFLAGS_AC)
        mmu_set_changed(cpu);
    if (rflags & (RFLAGS_TF | RFLAGS_RF))
        jit_attention_set(cpu, ATTENTION_TRACE);
}

_Noreturn void segment_fault(struct jit_cpu *cpu, uint8_t vector, uint16_t selector, unsigned ext)
{
    jit_raise_code(cpu, vector, (selector & 0xfffc) | ext);
}

/* --- Descriptors ----------------------------------------------------------------------------- */

static bool table_has(struct jit_cpu *cpu, uint16_t selector, unsigned bytes, uint64_t *address)
{
    const unsigned offset = selector & 0xfff8;

    if (selector & 4) {
        if ((cpu->ldt.attr & SEG_UNUSABLE) || offset + bytes - 1 > cpu->ldt.limit)
            return false;
        *address = cpu->ldt.base + offset;
    } else {
        if (offset + bytes - 1 > cpu->gdt.limit)
            return false;
        *address = cpu->gdt.base + offset;
    }
    return true;
}

bool descriptor_find(struct jit_cpu *cpu, uint16_t selector, struct descriptor *d)
{
    if (!table_has(cpu, selector, 8, &d->address))
        return false;
    d->selector = selector;
    d->raw = mmu_load_system(cpu, d->address, 8);
    return true;
}

struct descriptor descriptor_get(struct jit_cpu *cpu, uint16_t selector, uint8_t vector,
                                 unsigned ext)
{
    struct descriptor d;

    if (!descriptor_find(cpu, selector, &d))
        segment_fault(cpu, vector, selector, ext);
    return d;
}

bool descriptor_upper(struct jit_cpu *cpu, const struct descriptor *d, uint64_t *upper)
{
    uint64_t address;

    if (!table_has(cpu, d->selector, 16, &address))
        return false;
    *upper = mmu_load_system(cpu, address + 8, 8);
    return true;
}

struct segment descriptor_segment(const struct descriptor *d)
{
    const uint64_t raw = d->raw;
    struct segment s = {
        .base = (raw >> 16 & 0xffffff) | (raw >> 56) << 24,
        .limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000)),
        .selector = d->selector,
        .attr = (uint16_t)((raw >> 40 & 0xff) | (raw >> 52 & 0xf) << 8),
    };

    if (s.attr & SEG_G)
        s.limit = s.limit << 12 | 0xfff;
    if (s.attr & SEG_S)
        s.attr |= TYPE_ACCESSED;
    return s;
}

/* Others may look at the byte at the same time, and nobody loses by writing what is there. */
void descriptor_set_accessed(struct jit_cpu *cpu, const struct descriptor *d)
{
    if (!(d->raw >> 40 & TYPE_ACCESSED))
        mmu_store_system(cpu, d->address + 5, 1, (d->raw >> 40 & 0xff) | TYPE_ACCESSED);
}

struct segment segment_null(uint16_t selector, unsigned cpl)
{
    return (struct segment){.selector = selector,
                            .attr = (uint16_t)(SEG_UNUSABLE | cpl << SEG_DPL_SHIFT)};
}

/* Limit and size stay what protected mode left (SDM vol 3 §9.9.2); a segment that was unusable
 * there is usable again. */
struct segment segment_real(const struct jit_cpu *cpu, const struct segment *old, uint16_t selector)
{
    const uint16_t keep = SEG_DB | SEG_G | SEG_AVL;

    return (struct segment){
        .base = (uint64_t)selector << 4,
        .limit = old->attr & SEG_UNUSABLE ? 0xffff : old->limit,
        .selector = selector,
        .attr = (old->attr & keep) | SEG_P | SEG_S | TYPE_READ_WRITE | TYPE_ACCESSED,
    };
}

struct segment segment_v86(uint16_t selector)
{
    return (struct segment){
        .base = (uint64_t)selector << 4,
        .limit = 0xffff,
        .selector = selector,
        .attr = SEG_P | SEG_S | 3 << SEG_DPL_SHIFT | TYPE_READ_WRITE | TYPE_ACCESSED,
    };
}

/* --- Loads by MOV, POP, LDS and so on -------------------------------------------------------- */

/* SDM vol 2, MOV: loading SS. A null SS is for 64-bit code only, of rings 0 to 2. */
static struct segment load_ss(struct jit_cpu *cpu, uint16_t selector)
{
    const unsigned rpl = selector & 3;
    struct descriptor d;

    if (is_null(selector)) {
        if (!cpu->long_mode || cpu->cpl == 3 || rpl != cpu->cpl)
            jit_raise_code(cpu, VECTOR_GP, 0);
        return segment_null(selector, cpu->cpl);
    }
    d = descriptor_get(cpu, selector, VECTOR_GP, 0);
    if (rpl != cpu->cpl || !descriptor_is_writable_data(&d) || descriptor_dpl(&d) != cpu->cpl)
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_SS, selector, 0);
    descriptor_set_accessed(cpu, &d);
    return descriptor_segment(&d);
}

static struct segment load_data(struct jit_cpu *cpu, uint16_t selector)
{
    struct descriptor d;

    if (is_null(selector))
        return segment_null(selector, 0);
    d = descriptor_get(cpu, selector, VECTOR_GP, 0);
    if (descriptor_is_system(&d) ||
        (descriptor_type(&d) & (TYPE_CODE | TYPE_READ_WRITE)) == TYPE_CODE) /* execute-only */
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!(descriptor_is_code(&d) && descriptor_is_conforming(&d)) &&
        descriptor_dpl(&d) < QZ_MAX((unsigned)cpu->cpl, selector & 3u))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, 0);
    descriptor_set_accessed(cpu, &d);
    return descriptor_segment(&d);
}

void segment_load(struct jit_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];

    if (!(cpu->cr0 & CR0_PE))
        *s = segment_real(cpu, s, selector);
    else if (cpu->rflags & RFLAGS_VM)
        *s = segment_v86(selector);
    else if (seg == SEG_SS)
        *s = load_ss(cpu, selector);
    else
        *s = load_data(cpu, selector);
    if (seg == SEG_SS)
        jit_mode_changed(cpu);
}

/* --- Stacks of other rings ------------------------------------------------------------------- */

struct segment segment_for_stack(struct jit_cpu *cpu, uint16_t selector, unsigned cpl,
                                 uint8_t vector, unsigned ext)
{
    struct descriptor d;

    if (is_null(selector))
        jit_raise_code(cpu, vector, ext);
    d = descriptor_get(cpu, selector, vector, ext);
    if ((selector & 3) != cpl || descriptor_dpl(&d) != cpl || !descriptor_is_writable_data(&d))
        segment_fault(cpu, vector, selector, ext);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_SS, selector, ext);
    descriptor_set_accessed(cpu, &d);
    return descriptor_segment(&d);
}

struct descriptor segment_for_return(struct jit_cpu *cpu, uint16_t selector)
{
    const unsigned rpl = selector & 3;
    struct descriptor d;

    if (is_null(selector))
        jit_raise_code(cpu, VECTOR_GP, 0);
    d = descriptor_get(cpu, selector, VECTOR_GP, 0);
    if (!descriptor_is_code(&d) || rpl < cpu->cpl ||
        (descriptor_is_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl) ||
        (is_ia32e(cpu) && descriptor_is_long(&d) && descriptor_is_big(&d)))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!descriptor_is_present(&d))
        segment_fault(cpu, VECTOR_NP, selector, 0);
    return d;
}

/* A null SS is for 64-bit code of rings 0 to 2. */
struct segment stack_for_return(struct jit_cpu *cpu, uint16_t selector, unsigned rpl, bool to_long)
{
    if (is_null(selector) && to_long && rpl != 3 && (selector & 3) == rpl)
        return segment_null(selector, rpl);
    return segment_for_stack(cpu, selector, rpl, VECTOR_GP, 0);
}

void segments_leave_ring(struct jit_cpu *cpu)
{
    static const uint8_t registers[] = {SEG_ES, SEG_FS, SEG_GS, SEG_DS};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(registers); i++) {
        struct segment *s = &cpu->seg[registers[i]];
        const bool conforming =
            (s->attr & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);

        /* A null one keeps its base: in 64-bit mode FS and GS have one of their own. */
        if (!(s->attr & SEG_UNUSABLE) && !conforming && (s->attr >> SEG_DPL_SHIFT & 3) < cpu->cpl)
            *s = segment_null(0, 0);
    }
}

struct stack stack_of(const struct jit_cpu *cpu, struct segment ss, uint64_t sp, unsigned size,
                      unsigned cpl)
{
    struct stack s = {.ss = ss, .sp = sp, .size = (uint8_t)size, .cpl = (uint8_t)cpl};

    if (cpl == cpu->cpl)
        s.set = cpu->tlb.data_set;
    else if (cpl == 3)
        s.set = TLB_USER;
    else
        s.set = (cpu->cr4 & CR4_SMAP) && (cpu->rflags & RFLAGS_AC) ? TLB_KERNEL_AC : TLB_KERNEL;
    return s;
}

struct stack stack_current(const struct jit_cpu *cpu)
{
    return stack_of(cpu, cpu->seg[SEG_SS], cpu->gpr[RSP], cpu->stack_size, cpu->cpl);
}

static uint64_t stack_mask(unsigned size)
{
    return size == 8 ? ~0ull : (1ull << size * 8) - 1;
}

/* SDM vol 3 §5.3: limits, turned round for segments that expand down. */
static bool within_limit(const struct segment *ss, uint64_t offset, unsigned size)
{
    if (ss->attr & SEG_UNUSABLE)
        return false;
    if (ss->attr & 4)
        return offset > ss->limit &&
               offset + size - 1 <= (ss->attr & SEG_DB ? 0xffffffffull : 0xffffull);
    return offset + size - 1 <= ss->limit;
}

static uint64_t stack_linear(struct jit_cpu *cpu, const struct stack *s, uint64_t offset,
                             unsigned size)
{
    if (s->size == 8) {
        if (!is_canonical(offset) || !is_canonical(offset + size - 1))
            jit_raise_code(cpu, VECTOR_SS, s->fault);
        return offset;
    }
    if (!within_limit(&s->ss, offset, size))
        jit_raise_code(cpu, VECTOR_SS, s->fault);
    return (uint32_t)(s->ss.base + offset);
}

void stack_write(struct jit_cpu *cpu, struct stack *s, unsigned size, uint64_t value)
{
    const uint64_t sp = (s->sp - size) & stack_mask(s->size);

    mmu_store_in(cpu, stack_linear(cpu, s, sp, size), size, value, s->set);
    s->sp = sp;
}

uint64_t stack_read(struct jit_cpu *cpu, struct stack *s, unsigned size)
{
    const uint64_t sp = s->sp & stack_mask(s->size);
    const uint64_t value = mmu_load_in(cpu, stack_linear(cpu, s, sp, size), size, s->set);

    s->sp = sp + size;
    return value;
}

void stack_commit(struct jit_cpu *cpu, const struct stack *s)
{
    const uint64_t mask = stack_mask(s->size);

    cpu->seg[SEG_SS] = s->ss;
    /* A 32-bit pointer clears the upper half, as every 32-bit write does. */
    cpu->gpr[RSP] = s->size == 2 ? (cpu->gpr[RSP] & ~mask) | (s->sp & mask) : s->sp & mask;
}

/* SDM vol 3 figures 7-2, 7-10, 7-11: the stacks of rings 0 to 2, in IA-32e mode also IST 1 to 7. */
struct tss_stack tss_stack(struct jit_cpu *cpu, unsigned cpl, unsigned ist, unsigned ext)
{
    const bool wide = is_ia32e(cpu), tss16 = !(cpu->tr.attr & 8);
    const unsigned offset = wide    ? (ist ? 0x1c + ist * 8 : 4 + cpl * 8)
                            : tss16 ? 2 + cpl * 4
                                    : 4 + cpl * 8;
    const unsigned bytes = wide ? 8 : tss16 ? 4 : 6;
    struct tss_stack s = {0};

    if (offset + bytes - 1 > cpu->tr.limit)
        segment_fault(cpu, VECTOR_TS, cpu->tr.selector, ext);
    s.sp = mmu_load_system(cpu, cpu->tr.base + offset, wide ? 8 : tss16 ? 2 : 4);
    if (!wide)
        s.ss = (uint16_t)mmu_load_system(cpu, cpu->tr.base + offset + (tss16 ? 2 : 4), 2);
    return s;
}

/*
 * exec_segment.c - instructions about segments: loads and stores of selectors, questions about
 * descriptors, LDT and task register, far transfers (SDM vol 2, each by its name).
 */
#include "cpu/jit/event.h"
#include "cpu/jit/system_internal.h"

enum { SHADOW_MOV_SS = 1 };

/* Selectors of tables and tasks mean nothing in real and virtual-8086 mode. */
static void require_protected(struct jit_cpu *cpu)
{
    if (!is_protected(cpu))
        jit_raise(cpu, VECTOR_UD);
}

static void set_zf(struct jit_cpu *cpu, bool zf)
{
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAG_ZF) | (zf ? FLAG_ZF : 0);
}

/* A register takes the selector zero-extended, memory always 16 bits. */
static void store_selector(struct jit_cpu *cpu, const struct insn *i, uint16_t selector)
{
    if (i->mem)
        jit_write_rm(cpu, i, 2, selector);
    else
        jit_set_reg(cpu, i->rm, i->size, selector);
}

/* --- Segment registers ------------------------------------------------------------------------ */

/* No interrupt before the instruction after MOV SS and POP SS, so that it can load the pointer. */
static void load(struct jit_cpu *cpu, unsigned seg, uint16_t selector)
{
    if (seg == SEG_CS || seg >= SEG_COUNT)
        jit_raise(cpu, VECTOR_UD);
    segment_load(cpu, seg, selector);
    if (seg == SEG_SS) {
        cpu->shadow |= SHADOW_MOV_SS;
        jit_attention_set(cpu, ATTENTION_TRACE);
    }
}

static void exec_mov_from_seg(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->reg >= SEG_COUNT)
        jit_raise(cpu, VECTOR_UD);
    store_selector(cpu, i, cpu->seg[i->reg].selector);
}

static void exec_mov_to_seg(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->reg == SEG_CS || i->reg >= SEG_COUNT)
        jit_raise(cpu, VECTOR_UD);
    load(cpu, i->reg, (uint16_t)jit_read_rm(cpu, i, 2));
}

static void exec_push_seg(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->reg >= SEG_COUNT)
        jit_raise(cpu, VECTOR_UD);
    jit_push(cpu, i->size, cpu->seg[i->reg].selector);
}

static void exec_pop_seg(struct jit_cpu *cpu, const struct insn *i)
{
    struct stack s = stack_current(cpu);
    const uint16_t selector = (uint16_t)stack_read(cpu, &s, i->size);

    load(cpu, i->reg, selector);
    jit_set_reg(cpu, RSP, s.size, s.sp); /* as wide as the stack was before POP SS */
}

/* A far pointer in memory; its offset. Two accesses, as processors do it: a page fault of the first
 * comes before what is wrong with the place of the second. */
static uint64_t read_far_pointer(struct jit_cpu *cpu, const struct insn *i, uint16_t *selector)
{
    const uint64_t at = jit_effective_address(cpu, i);
    const uint64_t offset = mmu_load(cpu, jit_linear(cpu, i->seg, at, i->size, false), i->size);

    *selector = (uint16_t)mmu_load(cpu, jit_linear(cpu, i->seg, at + i->size, 2, false), 2);
    return offset;
}

static void load_far_pointer(struct jit_cpu *cpu, const struct insn *i, unsigned seg)
{
    uint16_t selector;
    const uint64_t offset = read_far_pointer(cpu, i, &selector);

    segment_load(cpu, seg, selector);
    jit_set_reg(cpu, i->reg, i->size, offset);
}

static void exec_lds(struct jit_cpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_DS);
}

static void exec_les(struct jit_cpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_ES);
}

static void exec_lfs(struct jit_cpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_FS);
}

static void exec_lgs(struct jit_cpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_GS);
}

static void exec_lss(struct jit_cpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_SS);
}

/* --- Questions about descriptors (SDM vol 3 §5.10) ----------------------------------------------
 */

static bool has_bit(unsigned set, unsigned type)
{
    return set >> type & 1;
}

/* The descriptor, where this privilege may know of it; `system`: system types that may be asked. */
static bool visible(struct jit_cpu *cpu, uint16_t selector, unsigned system, struct descriptor *d)
{
    if (is_null(selector) || !descriptor_find(cpu, selector, d))
        return false;
    if (descriptor_is_system(d) && !has_bit(system, descriptor_type(d)))
        return false;
    if (descriptor_is_code(d) && descriptor_is_conforming(d))
        return true;
    return descriptor_dpl(d) >= QZ_MAX((unsigned)cpu->cpl, selector & 3u);
}

static void exec_lar(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned all = 1 << TYPE_LDT | 1 << TYPE_TSS | 1 << TYPE_TSS_BUSY | 1 << TYPE_CALL;
    const unsigned legacy =
        1 << TYPE_TSS16 | 1 << TYPE_TSS16_BUSY | 1 << TYPE_CALL16 | 1 << TYPE_TASK_GATE;
    struct descriptor d;
    bool found;

    require_protected(cpu);
    found = visible(cpu, (uint16_t)jit_read_rm(cpu, i, 2), is_ia32e(cpu) ? all : all | legacy, &d);
    if (found)
        jit_set_reg(cpu, i->reg, i->size, d.raw >> 32 & 0x00f0ff00);
    set_zf(cpu, found);
}

static void exec_lsl(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned all = 1 << TYPE_LDT | 1 << TYPE_TSS | 1 << TYPE_TSS_BUSY;
    const unsigned legacy = 1 << TYPE_TSS16 | 1 << TYPE_TSS16_BUSY;
    struct descriptor d;
    bool found;

    require_protected(cpu);
    found = visible(cpu, (uint16_t)jit_read_rm(cpu, i, 2), is_ia32e(cpu) ? all : all | legacy, &d);
    if (found)
        jit_set_reg(cpu, i->reg, i->size, descriptor_segment(&d).limit);
    set_zf(cpu, found);
}

static void exec_verr(struct jit_cpu *cpu, const struct insn *i)
{
    struct descriptor d;

    require_protected(cpu);
    set_zf(cpu, visible(cpu, (uint16_t)jit_read_rm(cpu, i, 2), 0, &d) &&
                    (!descriptor_is_code(&d) || (descriptor_type(&d) & TYPE_READ_WRITE)));
}

static void exec_verw(struct jit_cpu *cpu, const struct insn *i)
{
    struct descriptor d;

    require_protected(cpu);
    set_zf(cpu, visible(cpu, (uint16_t)jit_read_rm(cpu, i, 2), 0, &d) &&
                    descriptor_is_writable_data(&d));
}

static void exec_arpl(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned rpl = cpu->gpr[i->reg] & 3;
    uint16_t selector;
    bool raise;

    require_protected(cpu);
    selector = (uint16_t)jit_read_rm(cpu, i, 2);
    raise = (selector & 3u) < rpl;
    if (raise)
        jit_write_rm(cpu, i, 2, (selector & 0xfffc) | rpl);
    set_zf(cpu, raise);
}

/* --- LDT and task register ----------------------------------------------------------------------
 */

/* A system segment of the GDT, in IA-32e mode of sixteen bytes (SDM vol 3 §7.2.3). */
static struct segment system_segment(struct jit_cpu *cpu, uint16_t selector, unsigned types,
                                     struct descriptor *d)
{
    struct segment s;
    uint64_t upper = 0;

    if (selector & 4)
        segment_fault(cpu, VECTOR_GP, selector, 0);
    *d = descriptor_get(cpu, selector, VECTOR_GP, 0);
    if (!descriptor_is_system(d) || !has_bit(types, descriptor_type(d)))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    if (!descriptor_is_present(d))
        segment_fault(cpu, VECTOR_NP, selector, 0);
    if (is_ia32e(cpu) && (!descriptor_upper(cpu, d, &upper) || (upper >> 40 & 0x1f)))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    s = descriptor_segment(d);
    s.base |= upper << 32;
    if (!is_canonical(s.base))
        segment_fault(cpu, VECTOR_GP, selector, 0);
    return s;
}

static void exec_lldt(struct jit_cpu *cpu, const struct insn *i)
{
    struct descriptor d;
    uint16_t selector;

    require_protected(cpu);
    require_ring0(cpu);
    selector = (uint16_t)jit_read_rm(cpu, i, 2);
    if (is_null(selector))
        cpu->ldt = segment_null(selector, 0);
    else
        cpu->ldt = system_segment(cpu, selector, 1 << TYPE_LDT, &d);
}

static void exec_ltr(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned types = is_ia32e(cpu) ? 1 << TYPE_TSS : 1 << TYPE_TSS | 1 << TYPE_TSS16;
    struct descriptor d;
    struct segment tss;
    uint16_t selector;

    require_protected(cpu);
    require_ring0(cpu);
    selector = (uint16_t)jit_read_rm(cpu, i, 2);
    if (is_null(selector))
        jit_raise_code(cpu, VECTOR_GP, 0);
    tss = system_segment(cpu, selector, types, &d);
    mmu_store_system(cpu, d.address + 5, 1, (d.raw >> 40 & 0xff) | TYPE_BUSY);
    tss.attr |= TYPE_BUSY;
    cpu->tr = tss;
}

static void exec_sldt(struct jit_cpu *cpu, const struct insn *i)
{
    require_protected(cpu);
    require_umip(cpu);
    store_selector(cpu, i, cpu->ldt.selector);
}

static void exec_str(struct jit_cpu *cpu, const struct insn *i)
{
    require_protected(cpu);
    require_umip(cpu);
    store_selector(cpu, i, cpu->tr.selector);
}

/* --- Far transfers ------------------------------------------------------------------------------
 */

typedef void far_transfer(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size);

static void transfer(struct jit_cpu *cpu, const struct insn *i, far_transfer *go)
{
    uint16_t selector;
    uint64_t offset;

    if (i->form == FORM_FAR) {
        go(cpu, i->imm2, i->imm, i->size);
        return;
    }
    offset = read_far_pointer(cpu, i, &selector);
    go(cpu, selector, offset, i->size);
}

static void exec_jmp_far(struct jit_cpu *cpu, const struct insn *i)
{
    transfer(cpu, i, far_jump);
}

static void exec_call_far(struct jit_cpu *cpu, const struct insn *i)
{
    transfer(cpu, i, far_call);
}

static void exec_ret_far(struct jit_cpu *cpu, const struct insn *i)
{
    far_return(cpu, i->size, (uint16_t)i->imm);
}

static void exec_iret(struct jit_cpu *cpu, const struct insn *i)
{
    interrupt_return(cpu, i->size);
}

const struct jit_handler_entry jit_exec_segment[] = {
    {OP_MOV_FROM_SEG, exec_mov_from_seg},
    {OP_MOV_TO_SEG, exec_mov_to_seg},
    {OP_PUSH_SEG, exec_push_seg},
    {OP_POP_SEG, exec_pop_seg},
    {OP_LDS, exec_lds},
    {OP_LES, exec_les},
    {OP_LFS, exec_lfs},
    {OP_LGS, exec_lgs},
    {OP_LSS, exec_lss},
    {OP_LAR, exec_lar},
    {OP_LSL, exec_lsl},
    {OP_VERR, exec_verr},
    {OP_VERW, exec_verw},
    {OP_ARPL, exec_arpl},
    {OP_LLDT, exec_lldt},
    {OP_LTR, exec_ltr},
    {OP_SLDT, exec_sldt},
    {OP_STR, exec_str},
    {OP_JMP_FAR, exec_jmp_far},
    {OP_CALL_FAR, exec_call_far},
    {OP_RET_FAR, exec_ret_far},
    {OP_IRET, exec_iret},
    {OP_UD, NULL},
};

/*
 * exec_vec.c - MMX and SSE instructions: the guest's operands, the host's arithmetic.
 *
 * One handler for all of vec_ops. Memory operands pass through a bounce buffer; the snippet of the
 * instruction (vec_snippets.h) runs with fixed registers. Most instructions touch two XMM registers
 * and nothing else and take the short way; the others carry their operands in a struct vec_frame.
 */
#include "cpu/jit/fpu.h"
#include "cpu/jit/vec.h"
#include "cpu/jit/vec_fp.h"
#include "cpu/jit/vec_frame.h"
#include "cpu/jit/vec_snippets.h"

_Static_assert(offsetof(struct vec_frame, xmm) == VEC_FRAME_XMM, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, mm) == VEC_FRAME_MM, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, rax) == VEC_FRAME_RAX, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, rcx) == VEC_FRAME_RCX, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, rdx) == VEC_FRAME_RDX, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, rflags) == VEC_FRAME_RFLAGS, "vec_frame.h");
_Static_assert(offsetof(struct vec_frame, mxcsr) == VEC_FRAME_MXCSR, "vec_frame.h");

struct operand {
    uint8_t bytes[16] __attribute__((aligned(16)));
    uint64_t linear;
    unsigned size;
};

static const void *snippet_of(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op)
{
    const uint32_t *slots = vec_snippet_slot[i->vec];
    unsigned form = i->mem ? VEC_FORM_MEM : VEC_FORM_REG;
    uint32_t slot = slots[form];

    if ((i->prefix & PREFIX_REX_W) && slots[form + 1] != VEC_NO_SNIPPET)
        slot = slots[form + 1];
    if (slot == VEC_NO_SNIPPET)
        jit_raise(cpu, VECTOR_UD);
    return vec_snippet_code + (size_t)VEC_SNIPPET_SIZE * (slot + (op->imm8 ? (uint8_t)i->imm : 0));
}

/* Where the memory operand is, and its value when it is read. */
static void operand_begin(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                          struct operand *m)
{
    uint64_t value;

    m->size =
        (i->prefix & PREFIX_REX_W) && op->mem_size_w ? op->mem_size_w : (unsigned)op->mem_size;
    m->linear = jit_operand_linear(cpu, i, m->size, op->store);
    if (op->aligned && (m->linear & 15))
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (!op->load)
        return;
    if (m->size == 16) {
        const void *p = mmu_hit(cpu, m->linear, 16, cpu->tlb.data_set, TLB_READ);

        if (__builtin_expect(p != NULL, 1))
            memcpy(m->bytes, p, 16);
        else
            mmu_load_bytes(cpu, m->linear, m->bytes, 16);
        return;
    }
    value = mmu_load(cpu, m->linear, m->size);
    memcpy(m->bytes, &value, sizeof(value));
}

static void operand_store(struct jit_cpu *cpu, const struct operand *m)
{
    uint64_t value;

    if (m->size == 16) {
        void *p = mmu_hit(cpu, m->linear, 16, cpu->tlb.data_set, TLB_WRITE);

        if (__builtin_expect(p != NULL, 1))
            memcpy(p, m->bytes, 16);
        else
            mmu_store_bytes(cpu, m->linear, m->bytes, 16);
        return;
    }
    memcpy(&value, m->bytes, sizeof(value));
    mmu_store(cpu, m->linear, m->size, value);
}

/* Whether the instruction turns the x87 registers into MMX ones. CVTPI2Px from memory does not. */
static bool touches_mmx(const struct insn *i, const struct vec_op *op)
{
    return op->reg == VEC_OPERAND_MMX || (op->rm == VEC_OPERAND_MMX && !i->mem);
}

/*
 * Stores of the low bytes of a register, as all of the 0f map are but MOVHPx, and loads of a whole
 * one: no snippet. It would send MOVNTx through the host's write-combining buffers only to read the
 * bounce buffer at once.
 */
static bool is_plain_store(const struct insn *i, const struct vec_op *op)
{
    return i->mem && op->store && op->map == 1 && op->opcode != 0x17;
}

static bool is_plain_load(const struct insn *i, const struct vec_op *op)
{
    return i->mem && op->load && op->map == 1 && op->mem_size == 16 &&
           (op->opcode == 0x10 || op->opcode == 0x28 || op->opcode == 0x6f);
}

static void exec_plain_store(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op)
{
    struct operand m;

    operand_begin(cpu, i, op, &m);
    if (op->reg == VEC_OPERAND_XMM) {
        memcpy(m.bytes, cpu->fpu.xmm[i->reg & 15], 16);
        operand_store(cpu, &m);
    } else {
        memcpy(m.bytes, fpu_mmx(&cpu->fpu, i->reg & 7), 8);
        operand_store(cpu, &m);
        fpu_enter_mmx(&cpu->fpu);
    }
}

static void exec_plain_load(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op)
{
    struct operand m;

    operand_begin(cpu, i, op, &m);
    memcpy(cpu->fpu.xmm[i->reg & 15], m.bytes, 16);
}

/* XMM registers only, no flags, no exceptions of its own: most of all vector instructions. */
static void exec_xmm(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                     const void *snippet)
{
    uint8_t *reg = cpu->fpu.xmm[i->reg & 15];

    if (i->mem) {
        struct operand m;

        operand_begin(cpu, i, op, &m);
        vec_run_reg(snippet, reg, reg, m.bytes);
        if (op->store)
            operand_store(cpu, &m);
    } else if (op->store) {
        vec_run_rm(snippet, reg, cpu->fpu.xmm[i->rm & 15], NULL);
    } else {
        vec_run_reg(snippet, reg, cpu->fpu.xmm[i->rm & 15], NULL);
    }
}

/*
 * MASKMOVQ, MASKMOVDQU: the bytes of reg that the sign bits of rm choose go to [rdi]. Only the
 * range from the first to the last chosen byte is looked at for faults (SDM vol 2 leaves the rest
 * open).
 */
static void exec_mask_move(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op)
{
    bool mmx = op->reg == VEC_OPERAND_MMX;
    unsigned size = mmx ? 8 : 16;
    const uint8_t *data = mmx ? fpu_mmx(&cpu->fpu, i->reg & 7) : cpu->fpu.xmm[i->reg & 15];
    const uint8_t *mask = mmx ? fpu_mmx(&cpu->fpu, i->rm & 7) : cpu->fpu.xmm[i->rm & 15];
    uint64_t linear = jit_linear(cpu, i->seg, jit_get_reg(cpu, RDI, i->asize), size, true);
    unsigned first = size, last = 0;

    for (unsigned n = 0; n < size; n++) {
        if (!(mask[n] & 0x80))
            continue;
        if (first == size)
            first = n;
        last = n;
    }
    if (first < size)
        mmu_probe(cpu, linear + first, last - first + 1, true);
    for (unsigned n = first; n < size && n <= last; n++)
        if (mask[n] & 0x80)
            mmu_store(cpu, linear + n, 1, data[n]);
    if (mmx)
        fpu_enter_mmx(&cpu->fpu);
}

/* --- Everything else --- */

static void frame_load(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                       struct vec_frame *f)
{
    memcpy(f->xmm[0], cpu->fpu.xmm[0], 16);
    if (op->reg == VEC_OPERAND_XMM)
        memcpy(f->xmm[1], cpu->fpu.xmm[i->reg & 15], 16);
    else if (op->reg == VEC_OPERAND_MMX)
        memcpy(&f->mm[0], fpu_mmx(&cpu->fpu, i->reg & 7), 8);
    if (op->implicit & VEC_IMPLICIT_RAX_RDX) {
        f->rax = cpu->gpr[RAX];
        f->rdx = cpu->gpr[RDX];
    }
    if (i->mem)
        return;
    if (op->rm == VEC_OPERAND_XMM)
        memcpy(f->xmm[2], cpu->fpu.xmm[i->rm & 15], 16);
    else if (op->rm == VEC_OPERAND_MMX)
        memcpy(&f->mm[1], fpu_mmx(&cpu->fpu, i->rm & 7), 8);
    else if (op->rm == VEC_OPERAND_GPR)
        f->rdx = cpu->gpr[i->rm & 15];
}

/* A write to an MMX register sets the exponent and sign of the x87 register to ones. */
static void write_mmx(struct jit_cpu *cpu, unsigned n, uint64_t value)
{
    uint8_t *mm = fpu_mmx(&cpu->fpu, n & 7);

    memcpy(mm, &value, 8);
    mm[8] = mm[9] = 0xff;
}

static void frame_commit(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                         const struct vec_frame *f)
{
    bool rm_written = op->store && !i->mem;

    if (op->implicit & VEC_IMPLICIT_XMM0)
        memcpy(cpu->fpu.xmm[0], f->xmm[0], 16);
    if (op->implicit & VEC_IMPLICIT_RCX)
        cpu->gpr[RCX] = f->rcx;
    if (op->reg_written) {
        if (op->reg == VEC_OPERAND_XMM)
            memcpy(cpu->fpu.xmm[i->reg & 15], f->xmm[1], 16);
        else if (op->reg == VEC_OPERAND_MMX)
            write_mmx(cpu, i->reg, f->mm[0]);
        else
            cpu->gpr[i->reg & 15] = f->rcx;
    }
    if (rm_written) {
        if (op->rm == VEC_OPERAND_XMM)
            memcpy(cpu->fpu.xmm[i->rm & 15], f->xmm[2], 16);
        else if (op->rm == VEC_OPERAND_MMX)
            write_mmx(cpu, i->rm, f->mm[1]);
        else
            cpu->gpr[i->rm & 15] = f->rdx;
    }
    if (op->flags)
        cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (f->rflags & FLAGS_ARITH);
}

/* Takes what was raised into the guest's MXCSR; raises #XM before anything else is written. */
static void take_exceptions(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                            const struct vec_frame *f, const uint8_t *rm)
{
    uint32_t guest = cpu->fpu.mxcsr, raised;

    if (vec_fp_has_stages(op) && vec_fp_unmasked(guest, MXCSR_EXCEPTIONS))
        raised = vec_fp_staged(op, i->imm, guest, cpu->fpu.xmm[i->reg & 15], rm);
    else
        raised = vec_fp_raised(op, guest, f);
    cpu->fpu.mxcsr = guest | raised;
    if (vec_fp_unmasked(guest, raised))
        jit_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
}

static void exec_frame(struct jit_cpu *cpu, const struct insn *i, const struct vec_op *op,
                       const void *snippet)
{
    struct vec_frame f = {.mxcsr = op->fp ? vec_fp_mxcsr(cpu->fpu.mxcsr) : MXCSR_INIT};
    struct operand m;

    if (i->mem)
        operand_begin(cpu, i, op, &m);
    frame_load(cpu, i, op, &f);
    if (op->reg == VEC_OPERAND_MMX || op->rm == VEC_OPERAND_MMX)
        vec_run_mmx(snippet, &f, i->mem ? m.bytes : NULL);
    else if (op->fp)
        vec_run_fp(snippet, &f, i->mem ? m.bytes : NULL);
    else
        vec_run_frame(snippet, &f, i->mem ? m.bytes : NULL);
    if (i->mem && op->store)
        operand_store(cpu, &m);
    if (touches_mmx(i, op)) /* also where #XM follows */
        fpu_enter_mmx(&cpu->fpu);
    if (op->fp)
        take_exceptions(cpu, i, op, &f, i->mem ? m.bytes : f.xmm[2]);
    frame_commit(cpu, i, op, &f);
}

static void exec_vec(struct jit_cpu *cpu, const struct insn *i)
{
    const struct vec_op *op = &vec_ops[i->vec];
    bool sse = op->reg == VEC_OPERAND_XMM || op->rm == VEC_OPERAND_XMM;
    const void *snippet;

    /* SDM vol 3 §14.1: what works on MMX registers only does not need CR4.OSFXSR */
    if (__builtin_expect((cpu->cr0 & (CR0_EM | CR0_TS)) || !(cpu->cr4 & CR4_OSFXSR), 0))
        fpu_check_sse(cpu, sse);
    if (touches_mmx(i, op))
        fpu_check_pending(cpu);
    if (op->implicit & VEC_IMPLICIT_RDI) {
        exec_mask_move(cpu, i, op);
        return;
    }
    if (is_plain_store(i, op)) {
        exec_plain_store(cpu, i, op);
        return;
    }
    if (is_plain_load(i, op)) {
        exec_plain_load(cpu, i, op);
        return;
    }
    snippet = snippet_of(cpu, i, op);
    if (op->reg <= VEC_OPERAND_XMM && op->rm <= VEC_OPERAND_XMM && !op->fp && !op->flags &&
        !op->implicit)
        exec_xmm(cpu, i, op, snippet);
    else
        exec_frame(cpu, i, op, snippet);
}

const struct jit_handler_entry jit_exec_vec[] = {
    {OP_VEC, exec_vec},
    {OP_LDMXCSR, fpu_ldmxcsr},
    {OP_STMXCSR, fpu_stmxcsr},
    {OP_UD, NULL},
};

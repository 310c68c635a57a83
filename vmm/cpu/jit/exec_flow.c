/*
 * exec_flow.c - near branches, calls and returns, PUSH and POP, software interrupts.
 *
 * Order inside an instruction: the target is checked, then the stack is written, then the stack
 * pointer moves. A fault leaves next_rip behind, which nobody looks at then.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/event.h"
#include "cpu/jit/exec_internal.h"

/* --- Branches -------------------------------------------------------------------------------- */

static void branch_relative(struct jit_cpu *cpu, const struct insn *i)
{
    near_branch(cpu, cpu->next_rip + i->imm, i->size);
}

/* In 64-bit code all near branches are 64 bits wide. */
static inline void branch_relative_8(struct jit_cpu *cpu, const struct insn *i)
{
    near_branch(cpu, cpu->next_rip + i->imm, 8);
}

static void exec_jmp(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->form == FORM_REL)
        branch_relative(cpu, i);
    else
        near_branch(cpu, jit_read_rm(cpu, i, i->size), i->size);
}

static void jmp_relative_8(struct jit_cpu *cpu, const struct insn *i)
{
    branch_relative_8(cpu, i);
}

static void exec_jcc(struct jit_cpu *cpu, const struct insn *i)
{
    if (alu_condition(cpu->rflags, i->cond))
        branch_relative(cpu, i);
}

#define JCC(cond)                                                                                  \
    static void jcc_8_##cond(struct jit_cpu *cpu, const struct insn *i)                            \
    {                                                                                              \
        if (alu_condition(cpu->rflags, cond))                                                      \
            branch_relative_8(cpu, i);                                                             \
    }
JCC(0)
JCC(1)
JCC(2)
JCC(3)
JCC(4)
JCC(5)
JCC(6)
JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)

    static jit_handler *const jcc_8[16] = {
        jcc_8_0, jcc_8_1, jcc_8_2,  jcc_8_3,  jcc_8_4,  jcc_8_5,  jcc_8_6,  jcc_8_7,
        jcc_8_8, jcc_8_9, jcc_8_10, jcc_8_11, jcc_8_12, jcc_8_13, jcc_8_14, jcc_8_15,
};

static void exec_jcxz(struct jit_cpu *cpu, const struct insn *i)
{
    if (!(cpu->gpr[RCX] & size_mask(i->asize)))
        branch_relative(cpu, i);
}

/* The counter is as wide as addresses are. */
static void loop_while(struct jit_cpu *cpu, const struct insn *i, bool condition)
{
    uint64_t count = (cpu->gpr[RCX] - 1) & size_mask(i->asize);

    if (count && condition)
        branch_relative(cpu, i);
    jit_set_reg(cpu, RCX, i->asize, count);
}

static void exec_loop(struct jit_cpu *cpu, const struct insn *i)
{
    loop_while(cpu, i, true);
}

static void exec_loope(struct jit_cpu *cpu, const struct insn *i)
{
    loop_while(cpu, i, cpu->rflags & FLAG_ZF);
}

static void exec_loopne(struct jit_cpu *cpu, const struct insn *i)
{
    loop_while(cpu, i, !(cpu->rflags & FLAG_ZF));
}

static inline void call_to(struct jit_cpu *cpu, uint64_t target, unsigned size)
{
    uint64_t back = cpu->next_rip;

    near_branch(cpu, target, size);
    stack_push(cpu, size, back);
}

static void exec_call(struct jit_cpu *cpu, const struct insn *i)
{
    if (i->form == FORM_REL)
        call_to(cpu, cpu->next_rip + i->imm, i->size);
    else
        call_to(cpu, jit_read_rm(cpu, i, i->size), i->size);
}

static void call_relative_8(struct jit_cpu *cpu, const struct insn *i)
{
    call_to(cpu, cpu->next_rip + i->imm, 8);
}

static inline void return_near(struct jit_cpu *cpu, unsigned size, uint64_t drop)
{
    near_branch(cpu, stack_load(cpu, cpu->gpr[RSP], size), size);
    stack_drop(cpu, size + drop);
}

static void exec_ret(struct jit_cpu *cpu, const struct insn *i)
{
    return_near(cpu, i->size, (uint16_t)i->imm);
}

static void ret_8(struct jit_cpu *cpu, const struct insn *i)
{
    return_near(cpu, 8, (uint16_t)i->imm);
}

/* --- PUSH and POP ---------------------------------------------------------------------------- */

static void exec_push(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value = i->form == FORM_IMM ? i->imm : jit_read_rm(cpu, i, i->size);

    stack_push(cpu, i->size, value & size_mask(i->size));
}

/* rsp moves first: as a register it is then replaced, as the base of the address it counts moved
 * (SDM vol 2, POP). */
static void exec_pop(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t value = stack_load(cpu, cpu->gpr[RSP], i->size), old = cpu->gpr[RSP];
    uint64_t offset;

    stack_drop(cpu, i->size);
    if (!i->mem) {
        jit_set_reg(cpu, i->rm, i->size, value);
        return;
    }
    offset = operand_address(cpu, i);
    cpu->gpr[RSP] = old;
    mmu_store(cpu, linear_of(cpu, i->seg, offset, i->size, true), i->size, value);
    stack_drop(cpu, i->size);
}

/* Operands of eight bytes are there in 64-bit code only, with a stack pointer of eight bytes. */
static void push_reg_8(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t sp = cpu->gpr[RSP] - 8;

    mmu_store(cpu, linear_of(cpu, SEG_SS, sp, 8, true), 8, cpu->gpr[i->rm]);
    cpu->gpr[RSP] = sp;
}

static void pop_reg_8(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value = mmu_load(cpu, linear_of(cpu, SEG_SS, cpu->gpr[RSP], 8, false), 8);

    cpu->gpr[RSP] += 8;
    cpu->gpr[i->rm] = value;
}

/* PUSHA and POPA: rax rcx rdx rbx rsp rbp rsi rdi from the top down. */
static void exec_pusha(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t sp = cpu->gpr[RSP];

    for (unsigned reg = RAX; reg <= RDI; reg++)
        stack_store(cpu, sp - (reg + 1) * i->size, i->size, jit_get_reg(cpu, reg, i->size));
    stack_set(cpu, sp - 8u * i->size);
}

static void exec_popa(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t sp = cpu->gpr[RSP];
    uint64_t value[8];

    for (unsigned n = 0; n < 8; n++)
        value[n] = stack_load(cpu, sp + n * i->size, i->size);
    stack_set(cpu, sp + 8u * i->size);
    for (unsigned reg = RAX; reg <= RDI; reg++) {
        if (reg != RSP)
            jit_set_reg(cpu, reg, i->size, value[RDI - reg]);
    }
}

/*
 * SDM vol 2, ENTER: the outer frames' pointers are copied down; the new frame must be writable at
 * its end. The stack pointer moves when all is written.
 */
static void exec_enter(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned size = i->size, level = i->imm2 & 31;
    uint64_t sp = cpu->gpr[RSP] - size, outer = cpu->gpr[RBP];
    const uint64_t frame = sp;

    stack_store(cpu, sp, size, jit_get_reg(cpu, RBP, size));
    for (unsigned n = 1; n < level; n++) {
        outer -= size;
        sp -= size;
        stack_store(cpu, sp, size, stack_load(cpu, outer, size));
    }
    if (level) {
        sp -= size;
        stack_store(cpu, sp, size, frame & size_mask(size));
    }
    sp -= (uint16_t)i->imm;
    mmu_probe(cpu, linear_of(cpu, SEG_SS, sp & stack_mask(cpu), size, true), size, true);
    jit_set_reg(cpu, RBP, size, frame);
    stack_set(cpu, sp);
}

static void exec_leave(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t frame = cpu->gpr[RBP], value = stack_load(cpu, frame, i->size);

    stack_set(cpu, frame + i->size);
    jit_set_reg(cpu, RBP, i->size, value);
}

/* --- Software interrupts --------------------------------------------------------------------- */

/* In virtual-8086 mode INT n asks for IOPL 3, INT3 and INTO do not (SDM vol 3 §21.2.7). */
static void exec_int(struct jit_cpu *cpu, const struct insn *i)
{
    if ((cpu->rflags & RFLAGS_VM) && (cpu->rflags & RFLAGS_IOPL) != RFLAGS_IOPL)
        jit_raise_code(cpu, VECTOR_GP, 0);
    event_interrupt(cpu, (uint8_t)i->imm, EVENT_SOFTWARE, false, 0);
}

static void exec_int3(struct jit_cpu *cpu, const struct insn *i)
{
    event_interrupt(cpu, VECTOR_BP, EVENT_SOFTWARE, false, 0);
}

static void exec_int1(struct jit_cpu *cpu, const struct insn *i)
{
    event_interrupt(cpu, VECTOR_DB, EVENT_INT1, false, 0);
}

static void exec_into(struct jit_cpu *cpu, const struct insn *i)
{
    if (cpu->rflags & FLAG_OF)
        event_interrupt(cpu, VECTOR_OF, EVENT_SOFTWARE, false, 0);
}

/* Signed, both bounds included (SDM vol 2, BOUND). */
static void exec_bound(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned size = i->size;
    const uint64_t linear = operand_linear(cpu, i, 2 * size, false);
    const int64_t index = sign_extend(jit_get_reg(cpu, i->reg, size), size);
    const int64_t lower = sign_extend(mmu_load(cpu, linear, size), size);
    const int64_t upper = sign_extend(mmu_load(cpu, linear + size, size), size);

    if (index < lower || index > upper)
        jit_raise(cpu, VECTOR_BR);
}

/* --- The table ------------------------------------------------------------------------------- */

const struct jit_handler_entry jit_exec_flow[] = {
    {OP_JMP, exec_jmp},     {OP_JCC, exec_jcc},       {OP_JCXZ, exec_jcxz},   {OP_LOOP, exec_loop},
    {OP_LOOPE, exec_loope}, {OP_LOOPNE, exec_loopne}, {OP_CALL, exec_call},   {OP_RET, exec_ret},
    {OP_PUSH, exec_push},   {OP_POP, exec_pop},       {OP_PUSHA, exec_pusha}, {OP_POPA, exec_popa},
    {OP_ENTER, exec_enter}, {OP_LEAVE, exec_leave},   {OP_INT, exec_int},     {OP_INT3, exec_int3},
    {OP_INT1, exec_int1},   {OP_INTO, exec_into},     {OP_BOUND, exec_bound}, {OP_UD, NULL},
};

jit_handler *flow_handler_for(const struct insn *i)
{
    if (i->size != 8)
        return jit_handlers[i->op];
    switch (i->op) {
    case OP_JCC:
        return jcc_8[i->cond & 15];
    case OP_JMP:
        return i->form == FORM_REL ? jmp_relative_8 : exec_jmp;
    case OP_CALL:
        return i->form == FORM_REL ? call_relative_8 : exec_call;
    case OP_RET:
        return ret_8;
    case OP_PUSH:
        return i->form == FORM_RM && !i->mem ? push_reg_8 : exec_push;
    default: /* OP_POP */
        return i->mem ? exec_pop : pop_reg_8;
    }
}

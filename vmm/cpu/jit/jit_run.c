/*
 * jit_run.c - the run loop: events, then blocks, until the machine is needed.
 *
 * Theory of operation. Whatever goes wrong in an instruction unwinds to run() by
 * __builtin_longjmp, which leaves everything in struct jit_cpu: nothing of the loop lives in
 * locals across an instruction that may raise. A word of attention bits is looked at after every
 * instruction; bits are rare, so the look is what costs.
 *
 * Order at an instruction boundary (SDM vol 3 table 6-2, highest first): traps of the instruction
 * before (#DB), NMI, external interrupts, breakpoints and faults of the fetch. Exceptions that an
 * instruction raised are delivered before anything else is looked at.
 */
#include "cpu/jit/jit_run.h"

#include "cpu/jit/block_cache.h"
#include "cpu/jit/counted.h"
#include "cpu/jit/event.h"
#include "cpu/jit/exec.h"
#include "cpu/jit/guest_debug.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/world.h"

enum {
    DR6_SINGLE_STEP = 1 << 14,
};

/* ---- raising
 * -----------------------------------------------------------------------------------------------
 */

/* Not inlined: __builtin_longjmp must not be in the function of its __builtin_setjmp. */
static _Noreturn __attribute__((noinline)) void unwind(struct jit_cpu *cpu)
{
    __builtin_longjmp(cpu->unwind, 1);
}

static _Noreturn void raise(struct jit_cpu *cpu, uint8_t vector, bool has_code, uint32_t code)
{
    cpu->exception.pending = true;
    cpu->exception.vector = vector;
    cpu->exception.has_code = has_code;
    cpu->exception.code = code;
    unwind(cpu);
}

_Noreturn void jit_raise(struct jit_cpu *cpu, uint8_t vector)
{
    raise(cpu, vector, false, 0);
}

_Noreturn void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code)
{
    raise(cpu, vector, true, code);
}

_Noreturn void jit_raise_page_fault(struct jit_cpu *cpu, uint64_t linear, uint32_t code)
{
    cpu->exception.address = linear;
    raise(cpu, VECTOR_PF, true, code);
}

_Noreturn void jit_raise_debug(struct jit_cpu *cpu, uint64_t dr6_bits)
{
    cpu->exception.dr6 = dr6_bits;
    raise(cpu, VECTOR_DB, false, 0);
}

_Noreturn void jit_leave(struct jit_cpu *cpu)
{
    cpu->leaving = true;
    unwind(cpu);
}

_Noreturn void jit_resume(struct jit_cpu *cpu)
{
    unwind(cpu);
}

void jit_serve(struct jit_cpu *cpu, struct vcpu_exit *exit)
{
    const struct accel_config *config = &cpu->vm->config;

    /* Whoever is alone stays it; everybody else may be stopped while a device thinks. */
    if (!cpu->alone)
        world_leave(cpu);
    config->serve(config->serve_context, cpu->accel.id, exit);
    if (!cpu->alone)
        world_enter(cpu);
}

/* ---- executing
 * --------------------------------------------------------------------------------------------- */

/* What ends a block before its end. The other bits wait for IF or the end of a shadow: what changes
 * those ends the block, or sets ATTENTION_TRACE as STI does. */
static inline bool is_urgent(const struct jit_cpu *cpu)
{
    return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) &
           (ATTENTION_KICK | ATTENTION_FLUSH | ATTENTION_EXCLUSIVE | ATTENTION_BLOCKS |
            ATTENTION_TRACE | ATTENTION_DEBUG);
}

/* Whether the next instruction of the block is the one behind it. */
static inline bool execute(struct jit_cpu *cpu, const struct jit_block *b, unsigned k)
{
    uint64_t behind;

    cpu->next_rip = cpu->rip + b->insn[k].len;
    if (!cpu->long_mode) {
        if (cpu->next_rip - 1 > cpu->seg[SEG_CS].limit)
            jit_raise_code(cpu, VECTOR_GP, 0);
        cpu->next_rip = (uint32_t)cpu->next_rip;
    }
    behind = cpu->next_rip;
    b->handler[k](cpu, &b->insn[k]);
    cpu->rip = cpu->next_rip;
    if (cpu->vm->counted)
        counted_complete(cpu);
    else
        cpu->instructions++;
    return cpu->rip == behind;
}

static void execute_block(struct jit_cpu *cpu, const struct jit_block *b)
{
    unsigned k = 0;

    while (execute(cpu, b, k) && ++k < b->count && !is_urgent(cpu))
        ;
}

/* Whatever wants attention, and the end of the slice, is met at the same instruction in whatever
 * way the guest got there. */
static void execute_block_counted(struct jit_cpu *cpu, const struct jit_block *b)
{
    unsigned k = 0;

    while (execute(cpu, b, k) && ++k < b->count && cpu->budget > 0 &&
           !__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED))
        ;
}

/*
 * 64-bit code needs no look at CS, which makes this loop worth its own place. rip stays in a
 * register on the way: only branches write next_rip, and a chain of loads of what was just stored
 * would cost more than most instructions.
 */
static void execute_block_64(struct jit_cpu *cpu, const struct jit_block *b)
{
    const struct insn *i = b->insn;
    jit_handler *const *handler = b->handler, *const *last = handler + b->count - 1;
    uint64_t rip = cpu->rip;

    for (;; i++, handler++) {
        cpu->next_rip = rip += i->len;
        (*handler)(cpu, i);
        if (handler == last || cpu->next_rip != rip) {
            cpu->rip = cpu->next_rip;
            break;
        }
        cpu->rip = rip;
        if (is_urgent(cpu))
            break;
    }
    cpu->instructions += (uint64_t)(handler - b->handler) + 1;
}

/* ---- one instruction at a time
 * ----------------------------------------------------------------------------- */

/* Instruction breakpoints at rip (SDM vol 3 §17.2.4): bits of DR6. */
static uint64_t breakpoints_here(const struct jit_cpu *cpu)
{
    const uint64_t linear = block_linear(cpu);
    uint64_t met = 0;

    for (unsigned n = 0; n < 4; n++)
        if ((cpu->dr7 >> (2 * n) & 3) && (cpu->dr7 >> (16 + 4 * n) & 15) == 0 &&
            cpu->dr[n] == linear)
            met |= 1ull << n;
    return met;
}

/* The first level of translations leaves out watched pages: it is emptied when these change. */
static void follow_debug_registers(struct jit_cpu *cpu)
{
    struct watch *w = &cpu->blocks->watch;

    if (w->dr7 == cpu->dr7 && memcmp(w->dr, cpu->dr, sizeof(w->dr)) == 0)
        return;
    w->dr7 = cpu->dr7;
    memcpy(w->dr, cpu->dr, sizeof(w->dr));
    tlb_flush_level1(cpu);
}

/* These clear TF on their way, and no trap follows them (§17.3.1.4). */
static bool enters_handler(const struct insn *i, uint64_t rflags_before)
{
    return i->op == OP_INT || i->op == OP_INT3 || i->op == OP_INT1 ||
           (i->op == OP_INTO && (rflags_before & FLAG_OF)) || i->op == OP_SYSCALL ||
           i->op == OP_SYSENTER;
}

static void step(struct jit_cpu *cpu)
{
    const uint64_t before = cpu->rflags;
    const bool single_step = before & RFLAGS_TF;
    const uint8_t shadow = cpu->shadow;
    uint64_t traps;

    follow_debug_registers(cpu);
    cpu->shadow = 0;
    if ((cpu->dr7 & DR7_ENABLED) && !(cpu->rflags & RFLAGS_RF) && !shadow &&
        (traps = breakpoints_here(cpu)) != 0)
        jit_raise_debug(cpu, traps);
    cpu->watch_hits = 0;
    cpu->blocks->current = block_to_interpret(cpu);
    if (single_step || (cpu->dr7 & DR7_ENABLED) || cpu->debug.step)
        jit_attention_set(cpu, ATTENTION_TRACE); /* one element of a string at a time */
    execute(cpu, cpu->blocks->current, 0);
    if (cpu->blocks->current->insn->op != OP_IRET && cpu->blocks->current->insn->op != OP_POPF)
        cpu->rflags &= ~(uint64_t)RFLAGS_RF; /* §17.3.1.1: good for one instruction */
    cpu->debug.stepped = cpu->debug.step;
    traps = cpu->watch_hits;
    if (single_step && !enters_handler(cpu->blocks->current->insn, before))
        traps |= DR6_SINGLE_STEP;
    /* MOV SS holds the trap of its own instruction back, and it is lost with it (§6.8.3). */
    if (traps && !(cpu->shadow & SHADOW_MOV_SS))
        jit_raise_debug(cpu, traps);
}

/* ---- events
 * ------------------------------------------------------------------------------------------------
 */

static void interrupt(struct jit_cpu *cpu, uint8_t vector)
{
    cpu->halted = false;
    event_interrupt(cpu, vector, EVENT_EXTERNAL, false, 0);
    cpu->debug.stepped = cpu->debug.step;
}

enum next { NEXT_BLOCK, NEXT_LOOK /* something changed: look again */, NEXT_LEAVE };

static enum next leave_with(struct jit_cpu *cpu, enum vcpu_exit_kind kind)
{
    cpu->exit->kind = kind;
    return NEXT_LEAVE;
}

static enum next attend(struct jit_cpu *cpu)
{
    unsigned a = __atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST);

    if (!guest_debug_lets_interrupt(cpu))
        a &= ~(unsigned)(ATTENTION_INTERRUPT | ATTENTION_NMI | ATTENTION_WINDOW);
    if (a & (ATTENTION_BLOCKS | ATTENTION_TRACE))
        jit_attention_clear(cpu, ATTENTION_BLOCKS | ATTENTION_TRACE);
    if (a & ATTENTION_BLOCKS)
        jump_cache_flush(cpu);
    if (a & ATTENTION_EXCLUSIVE)
        world_yield(cpu);
    if (a & ATTENTION_FLUSH) {
        jit_attention_clear(cpu, ATTENTION_FLUSH);
        mmu_flush_all(cpu);
    }
    if ((a & ATTENTION_NMI) && !cpu->nmi_masked && !(cpu->shadow & SHADOW_MOV_SS)) {
        jit_attention_clear(cpu, ATTENTION_NMI);
        cpu->nmi_masked = true;
        interrupt(cpu, VECTOR_NMI);
        return NEXT_LOOK;
    }
    if ((a & ATTENTION_INTERRUPT) && event_can_interrupt(cpu)) {
        jit_attention_clear(cpu, ATTENTION_INTERRUPT);
        interrupt(cpu, cpu->interrupt_vector);
        return NEXT_LOOK;
    }
    if (a & ATTENTION_KICK) {
        jit_attention_clear(cpu, ATTENTION_KICK);
        return leave_with(cpu, EXIT_KICKED);
    }
    if ((a & ATTENTION_WINDOW) && event_can_interrupt(cpu)) {
        jit_attention_clear(cpu, ATTENTION_WINDOW);
        return leave_with(cpu, EXIT_IRQ_WINDOW);
    }
    return NEXT_BLOCK;
}

static bool is_traced(const struct jit_cpu *cpu)
{
    return cpu->shadow || (cpu->rflags & (RFLAGS_TF | RFLAGS_RF)) || (cpu->dr7 & DR7_ENABLED) ||
           cpu->debug.step || (cpu->debug.pages && guest_debug_in_page(cpu));
}

static enum next between_blocks(struct jit_cpu *cpu)
{
    enum next next;

    if (cpu->exception.pending) {
        cpu->budget -= cpu->vm->counted; /* a handler that faults for ever takes time */
        event_deliver_pending(cpu);
        cpu->debug.stepped = cpu->debug.step;
        return NEXT_LOOK;
    }
    if (cpu->shutdown)
        return leave_with(cpu, EXIT_SHUTDOWN);
    if (cpu->debug.stepped || cpu->debug.met)
        return guest_debug_take(cpu, cpu->exit) ? NEXT_LEAVE : NEXT_LOOK;
    next = attend(cpu);
    if (next != NEXT_BLOCK)
        return next;
    if (cpu->debug.pages && guest_debug_take(cpu, cpu->exit))
        return NEXT_LEAVE;
    if (cpu->halted)
        return leave_with(cpu, EXIT_HALT);
    if (!is_traced(cpu))
        return NEXT_BLOCK;
    step(cpu);
    return NEXT_LOOK;
}

static void enter_block_64(struct jit_cpu *cpu, const struct jit_block *b)
{
    cpu->blocks->entered_at = cpu->rip;
    execute_block_64(cpu, b);
    cpu->blocks->entered_at = NOT_ENTERED;
}

/* False: the interpreter is to execute what is at rip. */
static bool run_translated(struct jit_cpu *cpu)
{
    struct jit_block *b = block_at_hand(cpu);
    struct jit_link *came_by = cpu->exit_link;

    cpu->exit_link = NULL;
    if (!b->code && !block_translate(cpu, b))
        return false;
    if (came_by)
        block_link(cpu, came_by, b);
    jump_cache_add(cpu, cpu->rip, b);
    cpu->blocks->current = NULL;
    translate_run(cpu->vm->translator, cpu, b);
    return !cpu->interpret;
}

static __attribute__((noinline)) void loop(struct jit_cpu *cpu)
{
    for (;;) {
        if (cpu->vm->counted && cpu->budget <= 0) {
            leave_with(cpu, EXIT_KICKED);
            return;
        }
        if (!jit_is_quiet(cpu)) {
            const enum next next = between_blocks(cpu);

            if (next == NEXT_LEAVE)
                return;
            if (next == NEXT_LOOK)
                continue;
        }
        /* Translated code leaves as long as anything wants attention: what cannot be had yet is
         * waited for here. */
        if (cpu->vm->translator && !__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) &&
            run_translated(cpu))
            continue;
        if (cpu->vm->counted && cpu->budget <= 0)
            continue; /* blocks before the one that was refused took it */
        cpu->blocks->current = block_to_interpret(cpu);
        if (cpu->vm->counted)
            execute_block_counted(cpu, cpu->blocks->current);
        else if (cpu->long_mode)
            enter_block_64(cpu, cpu->blocks->current);
        else
            execute_block(cpu, cpu->blocks->current);
    }
}

/* A block that an instruction left by raising: those before it count. */
static void count_left_block(struct jit_cpu *cpu)
{
    const struct jit_block *b = cpu->blocks->current;
    uint64_t at = cpu->blocks->entered_at;

    if (at == NOT_ENTERED)
        return;
    for (unsigned k = 0; k < b->count && at != cpu->rip; at += b->insn[k++].len)
        cpu->instructions++;
    cpu->blocks->entered_at = NOT_ENTERED;
}

/* Everything that raises is called from here or below; setjmp needs a frame that stays. */
static __attribute__((noinline)) void run_unwinding(struct jit_cpu *cpu)
{
    if (__builtin_setjmp(cpu->unwind)) {
        jit_exclusive_end(cpu);
        count_left_block(cpu);
        counted_give_back(cpu);
        if (cpu->leaving) {
            cpu->leaving = false;
            return;
        }
    }
    loop(cpu);
}

int jit_vcpu_run(struct accel_vcpu *vcpu, struct vcpu_exit *exit)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    cpu->exit = exit;
    world_enter(cpu);
    run_unwinding(cpu);
    world_leave(cpu);
    cpu->exit = NULL;
    return 0;
}

void jit_vcpu_kick(struct accel_vcpu *vcpu)
{
    jit_attention_set(jit_cpu_of(vcpu), ATTENTION_KICK);
}

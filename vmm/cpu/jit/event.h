/*
 * event.h - exceptions, interrupts, far control transfers, task switches (SDM vol 3 chapters 5 to
 * 7).
 */
#ifndef VMM_JIT_EVENT_H
#define VMM_JIT_EVENT_H

#include "cpu/jit/cpu.h"

enum event_source {
    EVENT_EXCEPTION,
    EVENT_EXTERNAL,
    EVENT_SOFTWARE /* INT n, INT3, INTO */,
    EVENT_INT1
};

/*
 * Transfers to the handler of `vector` in the current mode. Software events return to next_rip,
 * others to rip. A fault on the way raises with the double-fault rules applied by
 * event_deliver_pending.
 */
void event_interrupt(struct jit_cpu *cpu, uint8_t vector, enum event_source source, bool has_code,
                     uint32_t code);

/*
 * Delivers cpu->exception, turning a fault during delivery into a double fault and a third into
 * shutdown (cpu->shutdown, SDM vol 3 table 6-5). Called by the run loop with its unwind buffer set.
 */
void event_deliver_pending(struct jit_cpu *cpu);

/* True when an external interrupt may be taken now: IF set and no shadow. */
static inline bool event_can_interrupt(const struct jit_cpu *cpu)
{
    return (cpu->rflags & RFLAGS_IF) && !cpu->shadow && !cpu->exception.pending;
}

/* Loads a segment register as MOV or POP does, raising what they raise. Protected and real mode,
 * virtual-8086 mode. */
void segment_load(struct jit_cpu *cpu, unsigned seg, uint16_t selector);

/* Task switch through a TSS selector (SDM vol 3 §7.3). */
enum task_switch_source {
    TASK_JMP,
    TASK_CALL,
    TASK_IRET,
    TASK_GATE,          /* of the IDT, for an exception or an interrupt from outside */
    TASK_GATE_SOFTWARE, /* of the IDT, for INT n, INT3, INTO */
};
void task_switch(struct jit_cpu *cpu, uint16_t selector, enum task_switch_source source,
                 bool has_code, uint32_t code);

/* RFLAGS as POPF, IRET and others may change them is each instruction's own; this writes and
 * rederives. */
void rflags_write(struct jit_cpu *cpu, uint64_t rflags);

/* Whether IOPL or the TSS's bitmap lets the current code use `size` ports from `port`. */
bool io_allowed(struct jit_cpu *cpu, uint16_t port, unsigned size);

#endif

/*
 * guest_debug.h - breakpoints, watchpoints and single steps for a debugger outside the guest
 * (accel_ops.set_debug). The guest's own debug registers are not touched and go on working.
 *
 * How translated code does not run over a breakpoint
 * --------------------------------------------------
 * Translated code leaves its page only through the jump cache, which knows linear addresses. A page
 * with a breakpoint never gets into it: the run loop executes such a page one instruction at a time
 * and looks before each. Everything else runs as fast as always. Watched data is met as with debug
 * registers: its page is not in the first level of translations, so each access comes to mmu.c.
 */
#ifndef VMM_JIT_GUEST_DEBUG_H
#define VMM_JIT_GUEST_DEBUG_H

#include "cpu/jit/cpu.h"

int jit_set_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug);

/* The breakpoint at the next instruction, NULL: none. */
const struct accel_point *guest_debug_breakpoint(const struct jit_cpu *cpu);
/* Whether the page of the next instruction has one. */
bool guest_debug_in_page(const struct jit_cpu *cpu);

bool guest_debug_watches(const struct jit_cpu *cpu, uint64_t linear, uint64_t len);
/* An access was made; when it met a watchpoint the run loop leaves after the instruction. */
void guest_debug_access(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write);

/* Something to stop for happened: *exit is filled, and it is forgotten. */
bool guest_debug_take(struct jit_cpu *cpu, struct vcpu_exit *exit);

/* A stepped vCPU takes no interrupt, so that a step does not end in a handler each time; one that
 * halted does. */
static inline bool guest_debug_lets_interrupt(const struct jit_cpu *cpu)
{
    return !cpu->debug.step || cpu->halted;
}

#endif

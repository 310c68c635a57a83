/*
 * jit_run.h - running a vCPU of the software CPU.
 */
#ifndef VMM_JIT_RUN_H
#define VMM_JIT_RUN_H

#include "cpu/jit/cpu.h"

enum { SHADOW_MOV_SS = 1 << 0, SHADOW_STI = 1 << 1 };

enum { DR7_ENABLED = 0xff };

/* Nothing but the next block: one branch for all of it. */
static inline bool jit_is_quiet(const struct jit_cpu *cpu)
{
    return !(__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) | cpu->exception.pending |
             cpu->halted | cpu->shutdown | cpu->shadow | (cpu->rflags & (RFLAGS_TF | RFLAGS_RF)) |
             (cpu->dr7 & DR7_ENABLED) | cpu->debug.executes);
}

int jit_vcpu_run(struct accel_vcpu *vcpu, struct vcpu_exit *exit);
void jit_vcpu_kick(struct accel_vcpu *vcpu);

#endif

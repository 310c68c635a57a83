/*
 * jit_run.h - running a vCPU of the software CPU.
 */
#ifndef VMM_JIT_RUN_H
#define VMM_JIT_RUN_H

#include "cpu/jit/cpu.h"

enum { SHADOW_MOV_SS = 1 << 0, SHADOW_STI = 1 << 1 };

int jit_vcpu_run(struct accel_vcpu *vcpu, struct vcpu_exit *exit);
void jit_vcpu_kick(struct accel_vcpu *vcpu);

#endif

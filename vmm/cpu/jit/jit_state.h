/*
 * jit_state.h - architectural state between struct vcpu_state and struct jit_cpu. The vCPU's
 * thread, outside run().
 */
#ifndef VMM_JIT_STATE_H
#define VMM_JIT_STATE_H

#include "cpu/jit/cpu.h"

int jit_get_state(struct accel_vcpu *vcpu, struct vcpu_state *state);
/* -EINVAL: a state that no processor of this kind can be in. The vCPU is then as it was. */
int jit_set_state(struct accel_vcpu *vcpu, const struct vcpu_state *state);
/* What accel_ops.set_registers takes; -EINVAL as above. */
int jit_set_registers(struct accel_vcpu *vcpu, const struct vcpu_state *state);

#endif

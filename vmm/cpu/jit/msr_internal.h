/*
 * msr_internal.h - between msr.c (which registers there are), mtrr.c (memory types) and
 * timestamp.c (the time-stamp counter and the clock made of it).
 */
#ifndef VMM_JIT_MSR_INTERNAL_H
#define VMM_JIT_MSR_INTERNAL_H

#include "cpu/jit/msr.h"

enum msr_result {
    MSR_NONE, /* not one of these */
    MSR_DONE,
    MSR_REFUSED /* #GP */
};

enum msr_result mtrr_read(struct jit_cpu *cpu, uint32_t index, uint64_t *value);
enum msr_result mtrr_write(struct jit_cpu *cpu, uint32_t index, uint64_t value);

void tsc_write(struct jit_cpu *cpu, uint64_t value);
void tsc_adjust_write(struct jit_cpu *cpu, uint64_t value);
void tsc_restore(struct jit_cpu *cpu, uint64_t value);

/* KVM's clock (Linux Documentation/virt/kvm/x86/msr.rst): fills the structure that the register
 * names, where it is in the guest's memory. */
void kvm_system_time_write(struct jit_cpu *cpu, uint64_t value);
void kvm_wall_clock_write(struct jit_cpu *cpu, uint64_t value);

#endif

/*
 * msr.h - the software CPU's model-specific registers, time-stamp counter and CPUID.
 */
#ifndef VMM_JIT_MSR_H
#define VMM_JIT_MSR_H

#include "cpu/jit/cpu.h"

struct jit_msrs {
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, spec_ctrl, debugctl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t kvm_system_time, kvm_wall_clock;
    uint64_t mcg_status, hwcr;
};

/* False: #GP. x2APIC registers, IA32_APIC_BASE and the TSC deadline are the machine's (jit_serve).
 */
bool msr_read(struct jit_cpu *cpu, uint32_t index, uint64_t *value);
bool msr_write(struct jit_cpu *cpu, uint32_t index, uint64_t value);

/* A register of a saved state, or of RESET: as msr_write(), but that IA32_TSC and IA32_TSC_ADJUST
 * do not move each other, and that nothing is written to the guest's memory by the wall clock's. */
bool msr_restore(struct jit_cpu *cpu, uint32_t index, uint64_t value);

uint64_t jit_guest_tsc(const struct jit_cpu *cpu);
/* The paravirtual clock, in ns; and: it was set, the guest's copy of it is written anew. */
uint64_t pv_clock(const struct jit_cpu *cpu);
void pv_clock_moved(struct jit_cpu *cpu);

/* What this CPU can do, as a CPUID table for cpu_model_cpuid(). */
void jit_cpuid_supported(struct cpuid_table *t);
/* CPU_FEATURE bits of a guest's table. */
uint64_t jit_features(const struct cpuid_table *t);
void jit_cpuid(struct jit_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif

/*
 * vcpu_msrs.h - the model-specific registers that belong to a vCPU's state, with their values after
 * RESET.
 *
 * One list for all accelerators: reset writes it, get_state reads it. A register that an
 * accelerator does not have is left out of what it reports, and its reset value 0 is then true by
 * itself. EFER, FS/GS base, IA32_APIC_BASE and IA32_TSC_DEADLINE have fields of their own in struct
 * vcpu_state.
 */
#ifndef VMM_VCPU_MSRS_H
#define VMM_VCPU_MSRS_H

#include "cpu/vcpu_state.h"

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC_FIRST = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
};

extern const struct vcpu_msr vcpu_msr_list[];
extern const unsigned vcpu_msr_list_count; /* at most VCPU_MSR_MAX */

#endif

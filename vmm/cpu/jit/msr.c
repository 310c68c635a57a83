/*
 * msr.c - model-specific registers (SDM vol 4; APM vol 2 appendix A; the KVM interface).
 *
 * What is not here is #GP. Registers of the local APIC are the machine's. A few read as a constant
 * and take writes without effect: those that operating systems touch without asking CPUID first.
 */
#include "cpu/jit/msr_internal.h"

#include "cpu/jit/segment.h"
#include "cpu/jit/system_internal.h"
#include "cpu/vcpu_msrs.h"

enum {
    MSR_PLATFORM_ID = 0x17,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_WRITE = 0x79,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_MISC_FEATURES_ENABLES = 0x140,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_KVM_WALL_CLOCK = 0x4b564d00,
    MSR_KVM_SYSTEM_TIME = 0x4b564d01,
    MSR_KVM_PV_EOI = 0x4b564d04,
};
#define MSR_EFER           0xc0000080u
#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_CSTAR          0xc0000083u
#define MSR_FMASK          0xc0000084u
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX        0xc0000103u
#define MSR_AMD_HWCR       0xc0010015u
#define MSR_AMD_DE_CFG     0xc0011029u

/* Fast strings; no branch trace store, no precise event sampling. */
#define MISC_ENABLE_RESET 0x1801ull
/* The time-stamp counter runs at the P0 frequency. */
#define HWCR_RESET   QZ_BIT(24)
#define HWCR_ALLOWED (QZ_BIT(3) | QZ_BIT(6) | QZ_BIT(8) | QZ_BIT(18) | QZ_BIT(24))
/* A revision that is newer than what anybody would load, in the upper half (Intel) or lower (AMD).
 */
#define MICROCODE_REVISION_INTEL (1ull << 32)
#define MICROCODE_REVISION_AMD   0x01000065ull
#define DE_CFG_LFENCE_SERIALIZES 2ull

/*
 * IA32_ARCH_CAPABILITIES (SDM vol 4 table 2-2): what an interpreter that does not speculate on the
 * guest's behalf does not suffer from. RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
 * IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
 * ITS_NO.
 */
#define ARCH_CAPABILITIES                                                                          \
    (QZ_BIT(0) | QZ_BIT(1) | QZ_BIT(3) | QZ_BIT(4) | QZ_BIT(5) | QZ_BIT(6) | QZ_BIT(8) |           \
     QZ_BIT(13) | QZ_BIT(14) | QZ_BIT(15) | QZ_BIT(20) | QZ_BIT(24) | QZ_BIT(26) | QZ_BIT(27) |    \
     QZ_BIT(62))

/* Read as 0 and take any write: power, cache and bus settings of AMD's that nothing here has. */
static const uint32_t amd_ignored[] = {
    0xc0010010, /* SYSCFG */
    0xc001001a, /* TOP_MEM */
    0xc001001d, /* TOP_MEM2 */
    0xc001001f, /* NB_CFG */
    0xc0010055, /* Interrupt Pending Message */
    0xc0010058, /* MMIO configuration base */
    0xc0010112, /* TSEG address */
    0xc0010113, /* TSEG mask */
    0xc0011022, /* DC_CFG */
    0xc001102a, /* BU_CFG2 */
};

/* --- Which are there ---------------------------------------------------------------------------
 */

static bool cpuid_has(const struct jit_cpu *cpu, uint32_t leaf, unsigned reg, unsigned bit)
{
    const struct cpuid_entry *e = cpuid_find(&cpu->cpuid, leaf, 0);
    const uint32_t word[4] = {e ? e->eax : 0, e ? e->ebx : 0, e ? e->ecx : 0, e ? e->edx : 0};

    return word[reg] >> bit & 1;
}

enum { EAX, EBX, ECX, EDX };

static bool has_spec_ctrl(const struct jit_cpu *cpu)
{
    return cpuid_has(cpu, 7, EDX, 26) || cpuid_has(cpu, 0x80000008, EBX, 14);
}

static bool has_ibpb(const struct jit_cpu *cpu)
{
    return cpuid_has(cpu, 7, EDX, 26) || cpuid_has(cpu, 0x80000008, EBX, 12);
}

static bool has_kvmclock(const struct jit_cpu *cpu)
{
    return cpuid_has(cpu, 0x40000001, EAX, 3);
}

static bool has_tsc_aux(const struct jit_cpu *cpu)
{
    return cpu->features & (CPU_FEATURE(CPU_RDTSCP) | CPU_FEATURE(CPU_RDPID));
}

static bool is_ignored(const struct jit_cpu *cpu, uint32_t index)
{
    if (index < amd_ignored[0] || !guest_is_amd(cpu))
        return false;
    for (unsigned i = 0; i < QZ_ARRAY_LEN(amd_ignored); i++)
        if (amd_ignored[i] == index)
            return true;
    return false;
}

static bool is_machines(uint32_t index)
{
    return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
           (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
}

/* --- The machine's -----------------------------------------------------------------------------
 */

enum { MSR_X2APIC_TPR = 0x808 };

static bool ask_machine(struct jit_cpu *cpu, enum vcpu_exit_kind kind, uint32_t index,
                        uint64_t *value)
{
    struct vcpu_exit exit = {.kind = kind, .msr = {.index = index, .value = *value}};

    jit_serve(cpu, &exit);
    *value = exit.msr.value;
    return !exit.msr.fault;
}

/* Two of them have a second face in the CPU: IA32_APIC_BASE in CPUID, the task priority in CR8. */
static bool machine_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t now = 0;

    if (!ask_machine(cpu, EXIT_WRMSR, index, &value))
        return false;
    if (index == MSR_APIC_BASE && ask_machine(cpu, EXIT_RDMSR, index, &now))
        cpu->apic_base = now;
    if (index == MSR_X2APIC_TPR)
        cpu->cr8 = value >> 4 & 15;
    return true;
}

/* --- Plain ones --------------------------------------------------------------------------------
 */

/* Registers that hold a value; `canonical`: an address of 64-bit code or data. */
static uint64_t *plain(struct jit_cpu *cpu, uint32_t index, bool *canonical)
{
    struct jit_msrs *m = cpu->msrs;

    *canonical = true;
    switch (index) {
    case MSR_SYSENTER_ESP:
        return &m->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &m->sysenter_eip;
    case MSR_LSTAR:
        return &m->lstar;
    case MSR_CSTAR:
        return &m->cstar;
    case MSR_FS_BASE:
        return &cpu->seg[SEG_FS].base;
    case MSR_GS_BASE:
        return &cpu->seg[SEG_GS].base;
    case MSR_KERNEL_GS_BASE:
        return &m->kernel_gs_base;
    default:
        break;
    }
    *canonical = false;
    switch (index) {
    case MSR_STAR:
        return &m->star;
    case MSR_SYSENTER_CS:
        return &m->sysenter_cs;
    default:
        return NULL;
    }
}

/* Registers of which only some bits may be set; NULL: not one of these, or not on this CPU. */
static uint64_t *masked(struct jit_cpu *cpu, uint32_t index, uint64_t *allowed)
{
    struct jit_msrs *m = cpu->msrs;

    switch (index) {
    case MSR_SPEC_CTRL:
        *allowed = 7; /* IBRS, STIBP, SSBD: there is nothing to restrict */
        return has_spec_ctrl(cpu) ? &m->spec_ctrl : NULL;
    case MSR_FMASK:
        *allowed = UINT32_MAX;
        return &m->fmask;
    case MSR_TSC_AUX:
        *allowed = UINT32_MAX;
        return has_tsc_aux(cpu) ? &m->tsc_aux : NULL;
    case MSR_MCG_STATUS:
        *allowed = 7;
        return &m->mcg_status;
    default:
        return NULL;
    }
}

static bool constant(struct jit_cpu *cpu, uint32_t index, uint64_t *value)
{
    *value = 0;
    switch (index) {
    case MSR_PLATFORM_ID:
    case MSR_PLATFORM_INFO: /* no CPUID faulting */
    case MSR_MISC_FEATURES_ENABLES:
    case MSR_MCG_CAP: /* no banks */
        return true;
    case MSR_BIOS_SIGN_ID:
        *value = guest_is_amd(cpu) ? MICROCODE_REVISION_AMD : MICROCODE_REVISION_INTEL;
        return true;
    case MSR_ARCH_CAPABILITIES:
        *value = ARCH_CAPABILITIES;
        return cpuid_has(cpu, 7, EDX, 29);
    case MSR_AMD_DE_CFG:
        *value = DE_CFG_LFENCE_SERIALIZES;
        return guest_is_amd(cpu);
    default:
        return is_ignored(cpu, index);
    }
}

/* Writes of constant registers that are answered with silence, as hardware does. */
static bool constant_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_UCODE_WRITE:
    case MSR_BIOS_SIGN_ID: /* written with 0 before CPUID and read */
        return true;
    case MSR_MISC_FEATURES_ENABLES:
    case MSR_MCG_CAP:
    case MSR_KVM_PV_EOI: /* a guest from KVM switches it off again */
        return value == 0;
    case MSR_PRED_CMD:
        return has_ibpb(cpu) && !(value & ~1ull);
    case MSR_AMD_DE_CFG:
        return guest_is_amd(cpu) && !(value & ~DE_CFG_LFENCE_SERIALIZES);
    default:
        return is_ignored(cpu, index);
    }
}

/* --- IA32_EFER (SDM vol 3 §2.2.1) --------------------------------------------------------------
 */

static bool efer_write(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t old = cpu->efer;
    const uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA |
                             (cpuid_has(cpu, 0x80000001, EDX, 20) ? EFER_NXE : 0) |
                             (cpuid_has(cpu, 0x80000021, EAX, 8) ? EFER_AUTOIBRS : 0);

    if (value & ~allowed)
        return false;
    if (((value ^ old) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return false;
    cpu->efer = (value & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
    mmu_paging_changed(cpu, cpu->cr0, cpu->cr4, old);
    return true;
}

/* --- All of them -------------------------------------------------------------------------------
 */

bool msr_read(struct jit_cpu *cpu, uint32_t index, uint64_t *value)
{
    enum msr_result memory_type;
    const uint64_t *reg;
    uint64_t allowed;
    bool canonical;

    if (is_machines(index)) {
        *value = 0;
        return ask_machine(cpu, EXIT_RDMSR, index, value);
    }
    memory_type = mtrr_read(cpu, index, value);
    if (memory_type != MSR_NONE)
        return memory_type == MSR_DONE;
    reg = plain(cpu, index, &canonical);
    if (!reg)
        reg = masked(cpu, index, &allowed);
    if (reg) {
        *value = *reg;
        return true;
    }
    switch (index) {
    case MSR_TSC:
        *value = jit_guest_tsc(cpu);
        return true;
    case MSR_TSC_ADJUST:
        *value = cpu->msrs->tsc_adjust;
        return true;
    case MSR_EFER:
        *value = cpu->efer;
        return true;
    case MSR_MISC_ENABLE:
        *value = cpu->msrs->misc_enable ^ MISC_ENABLE_RESET;
        return true;
    case MSR_AMD_HWCR:
        *value = cpu->msrs->hwcr ^ HWCR_RESET;
        return guest_is_amd(cpu);
    case MSR_DEBUGCTL:
        *value = cpu->msrs->debugctl;
        return true;
    case MSR_KVM_WALL_CLOCK:
        *value = cpu->msrs->kvm_wall_clock;
        return has_kvmclock(cpu);
    case MSR_KVM_SYSTEM_TIME:
        *value = cpu->msrs->kvm_system_time;
        return has_kvmclock(cpu);
    default:
        return constant(cpu, index, value);
    }
}

bool msr_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    enum msr_result memory_type;
    uint64_t *reg, allowed;
    bool canonical;

    if (is_machines(index)) /* first: the end of every interrupt is one */
        return machine_write(cpu, index, value);
    memory_type = mtrr_write(cpu, index, value);
    if (memory_type != MSR_NONE)
        return memory_type == MSR_DONE;
    reg = plain(cpu, index, &canonical);
    if (reg && canonical && !is_canonical(value))
        return false;
    if (!reg) {
        reg = masked(cpu, index, &allowed);
        if (reg && (value & ~allowed))
            return false;
    }
    if (reg) {
        *reg = value;
        return true;
    }
    switch (index) {
    case MSR_TSC:
        tsc_write(cpu, value);
        return true;
    case MSR_TSC_ADJUST:
        tsc_adjust_write(cpu, value);
        return true;
    case MSR_EFER:
        return efer_write(cpu, value);
    case MSR_MISC_ENABLE:
        cpu->msrs->misc_enable = value ^ MISC_ENABLE_RESET;
        return true;
    case MSR_AMD_HWCR:
        if (!guest_is_amd(cpu) || (value & ~HWCR_ALLOWED))
            return false;
        cpu->msrs->hwcr = value ^ HWCR_RESET;
        return true;
    case MSR_DEBUGCTL: /* no branch records, no steps by branches: their bits stay 0 */
        return !(value & ~3ull);
    case MSR_KVM_WALL_CLOCK:
        if (has_kvmclock(cpu))
            kvm_wall_clock_write(cpu, value);
        return has_kvmclock(cpu);
    case MSR_KVM_SYSTEM_TIME:
        if (has_kvmclock(cpu))
            kvm_system_time_write(cpu, value);
        return has_kvmclock(cpu);
    default:
        return constant_write(cpu, index, value);
    }
}

bool msr_restore(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_TSC:
        tsc_restore(cpu, value);
        return true;
    case MSR_TSC_ADJUST:
        cpu->msrs->tsc_adjust = value;
        return true;
    case MSR_KVM_WALL_CLOCK: /* was written to memory once, where something else may be now */
        cpu->msrs->kvm_wall_clock = value;
        return value == 0 || has_kvmclock(cpu);
    case MSR_KVM_PV_EOI: /* says where the host may allow to leave an EOI out: it never does */
        return true;
    default:
        return msr_write(cpu, index, value);
    }
}

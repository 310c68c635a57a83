/*
 * msr.c - model-specific registers and the time-stamp counter (msr.h; SDM vol 4).
 */
#include "cpu/jit/msr.h"

#include <linux/kvm_para.h>
#include <x86intrin.h>

#include "cpu/jit/event.h"
#include "cpu/jit/mmu.h"
#include "cpu/jit/slots.h"
#include "cpu/vcpu_msrs.h"

enum {
    CLOCK_ENABLED = 1 << 0,
    CLOCK_STABLE = 1 << 0, /* PVCLOCK_TSC_STABLE_BIT */
};

/* What a machine without these faults says of itself (IA32_ARCH_CAPABILITIES): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY,
   MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, GDS_NO, RFDS_NO: nothing of the host's caches is to be
   read through an engine that checks every address. */
#define ARCH_CAPABILITIES 0x0c00e16bull

uint64_t jit_guest_tsc(const struct jit_cpu *cpu)
{
    return __rdtsc() + cpu->tsc_offset;
}

/* ---- the paravirtual clock --------------------------------------------------------------------------------- */

struct clock_page { /* struct pvclock_vcpu_time_info */
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};

static void write_guest(struct jit_cpu *cpu, uint64_t gpa, const void *data, size_t len)
{
    struct jit_slot *s = slot_find(cpu->vm, gpa);

    if (s && !s->readonly && gpa - s->gpa + len <= s->size)
        memcpy(slot_host(s, gpa), data, len);
}

/* Nanoseconds since the guest's counter was 0: ((tsc << shift) * mul) >> 32. */
static void write_system_time(struct jit_cpu *cpu, uint64_t gpa)
{
    const uint64_t tsc = jit_guest_tsc(cpu);
    struct clock_page page = {.version = 2, .tsc_timestamp = tsc, .flags = CLOCK_STABLE};
    uint64_t khz = cpu->vm->tsc_khz;

    while (khz <= 1000000) {
        khz *= 2;
        page.shift++;
    }
    page.mul = (uint32_t)((1000000ull << 32) / khz);
    page.system_time = (uint64_t)((unsigned __int128)(tsc << page.shift) * page.mul >> 32);
    write_guest(cpu, gpa, &page, sizeof(page));
}

static void write_wall_clock(struct jit_cpu *cpu, uint64_t gpa)
{
    struct timespec now;
    uint64_t up = jit_guest_tsc(cpu) / cpu->vm->tsc_khz * 1000000, boot;
    uint32_t wall[3] = {2};

    clock_gettime(CLOCK_REALTIME, &now);
    boot = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - up;
    wall[1] = (uint32_t)(boot / 1000000000);
    wall[2] = (uint32_t)(boot % 1000000000);
    write_guest(cpu, gpa, wall, sizeof(wall));
}

/* ---- registers --------------------------------------------------------------------------------------------- */

static uint64_t *plain_register(struct jit_cpu *cpu, uint32_t index)
{
    struct jit_msrs *m = cpu->msrs;

    switch (index) {
    case 0x48:
        return &m->spec_ctrl;
    case 0x174:
        return &m->sysenter_cs;
    case 0x175:
        return &m->sysenter_esp;
    case 0x176:
        return &m->sysenter_eip;
    case 0x1a0:
        return &m->misc_enable;
    case 0x1d9:
        return &m->debugctl;
    case 0x277:
        return &m->pat;
    case 0x2ff:
        return &m->mtrr_def_type;
    case 0x200 ... 0x20f:
        return index & 1 ? &m->mtrr_mask[(index - 0x200) / 2] : &m->mtrr_base[(index - 0x200) / 2];
    case 0x250:
        return &m->mtrr_fixed[0];
    case 0x258:
        return &m->mtrr_fixed[1];
    case 0x259:
        return &m->mtrr_fixed[2];
    case 0x268 ... 0x26f:
        return &m->mtrr_fixed[3 + index - 0x268];
    case 0xc0000081:
        return &m->star;
    case 0xc0000082:
        return &m->lstar;
    case 0xc0000083:
        return &m->cstar;
    case 0xc0000084:
        return &m->fmask;
    case 0xc0000102:
        return &m->kernel_gs_base;
    case 0xc0000103:
        return &m->tsc_aux;
    default:
        return NULL;
    }
}

static bool is_machines(uint32_t index)
{
    return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE || (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
}

static bool ask_machine(struct jit_cpu *cpu, bool write, uint32_t index, uint64_t *value)
{
    struct vcpu_exit exit = {.kind = write ? EXIT_WRMSR : EXIT_RDMSR, .msr = {.index = index, .value = *value}};

    jit_serve(cpu, &exit);
    *value = exit.msr.value;
    if (!exit.msr.fault && write && index == MSR_APIC_BASE)
        cpu->apic_base = *value;
    return !exit.msr.fault;
}

static bool is_address(uint32_t index)
{
    return index == 0xc0000082 || index == 0xc0000083 || index == 0xc0000102 || index == 0x175 || index == 0x176 ||
           index == 0xc0000100 || index == 0xc0000101;
}

static bool canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

bool msr_read(struct jit_cpu *cpu, uint32_t index, uint64_t *value)
{
    const uint64_t *plain = plain_register(cpu, index);

    *value = 0;
    if (plain) {
        *value = *plain;
        return true;
    }
    if (is_machines(index))
        return ask_machine(cpu, false, index, value);
    switch (index) {
    case MSR_TSC:
        *value = jit_guest_tsc(cpu);
        return true;
    case 0x3b:
        *value = cpu->msrs->tsc_adjust;
        return true;
    case 0xc0000080:
        *value = cpu->efer;
        return true;
    case 0xc0000100:
        *value = cpu->seg[SEG_FS].base;
        return true;
    case 0xc0000101:
        *value = cpu->seg[SEG_GS].base;
        return true;
    case 0xfe: /* MTRRCAP: 8 ranges, fixed ones, write-combining */
        *value = 0x508;
        return true;
    case 0x10a:
        *value = ARCH_CAPABILITIES;
        return true;
    case 0x8b: /* microcode revision */
        *value = 1ull << 32;
        return true;
    case 0x17: /* platform id */
    case 0x3a: /* feature control: locked */
        *value = index == 0x3a;
        return true;
    case 0xce: /* platform info: the maximum ratio */
        *value = (uint64_t)(cpu->vm->tsc_khz / 100000 & 0xff) << 8;
        return true;
    case 0x179 ... 0x17a: /* no machine-check banks */
    case 0x34:
    case 0x140:
    case 0x122:
    case 0x198:
    case 0xc001001f: /* northbridge configuration and the like of AMD's */
    case 0xc0010015:
    case 0xc0011029:
    case 0xc0010010:
        return true;
    case MSR_KVM_SYSTEM_TIME_NEW:
        *value = cpu->msrs->kvm_system_time;
        return true;
    case MSR_KVM_WALL_CLOCK_NEW:
        *value = cpu->msrs->kvm_wall_clock;
        return true;
    default:
        return false;
    }
}

static bool write_efer(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t old = cpu->efer;

    if (value & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
        return false;
    if ((cpu->cr0 & CR0_PG) && ((old ^ value) & EFER_LME))
        return false;
    cpu->efer = (value & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
    mmu_paging_changed(cpu, cpu->cr0, cpu->cr4, old);
    jit_mode_changed(cpu);
    return true;
}

bool msr_write(struct jit_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t *plain = plain_register(cpu, index);

    if (is_address(index) && !canonical(value))
        return false;
    if (plain) {
        *plain = value;
        return true;
    }
    if (is_machines(index))
        return ask_machine(cpu, true, index, &value);
    switch (index) {
    case MSR_TSC:
        cpu->msrs->tsc_adjust += value - jit_guest_tsc(cpu);
        cpu->tsc_offset += value - jit_guest_tsc(cpu);
        return true;
    case 0x3b:
        cpu->tsc_offset += value - cpu->msrs->tsc_adjust;
        cpu->msrs->tsc_adjust = value;
        return true;
    case 0xc0000080:
        return write_efer(cpu, value);
    case 0xc0000100:
        cpu->seg[SEG_FS].base = value;
        return true;
    case 0xc0000101:
        cpu->seg[SEG_GS].base = value;
        return true;
    case 0x49: /* PRED_CMD: nothing is predicted across guests */
    case 0x10b:
    case 0x8b:
    case 0x79:
    case 0x17a:
    case 0x140:
    case 0x122:
    case 0xc0010015:
    case 0xc0011029:
    case 0xc0010010:
        return true;
    case MSR_KVM_SYSTEM_TIME_NEW:
        cpu->msrs->kvm_system_time = value;
        if (value & CLOCK_ENABLED)
            write_system_time(cpu, value & ~1ull);
        return true;
    case MSR_KVM_WALL_CLOCK_NEW:
        cpu->msrs->kvm_wall_clock = value;
        write_wall_clock(cpu, value);
        return true;
    default:
        return false;
    }
}

/*
 * jit_state.c - architectural state in and out (jit_state.h).
 *
 * A state comes from boot code or from a snapshot, and the latter may be hostile: what the rest
 * relies on is checked here, before anything is taken.
 */
#include "cpu/jit/jit_state.h"

#include "cpu/jit/fpu.h"

#include "cpu/jit/mmu.h"
#include "cpu/jit/msr.h"
#include "cpu/jit/world.h"
#include "cpu/vcpu_msrs.h"

enum { XSAVE_MXCSR_MASK = 28, XSAVE_LEGACY = 416, XSAVE_HEADER = 512, XSAVE_SIZE = 576 };
enum { XSTATE_X87 = 1, XSTATE_SSE = 2 };

/* ---- extended state: XSAVE's standard format, whose legacy region is FXSAVE's
 * ------------------------------- */

static void get_extended(const struct jit_cpu *cpu, struct vcpu_state *s)
{
    memset(s->xsave, 0, XSAVE_SIZE);
    memcpy(s->xsave, &cpu->fpu, XSAVE_LEGACY);
    qz_store_le32(s->xsave + XSAVE_MXCSR_MASK,
                  MXCSR_VALID); /* not the host's, which may have more */
    qz_store_le64(s->xsave + XSAVE_HEADER, XSTATE_X87 | XSTATE_SSE);
    s->xsave_size = XSAVE_SIZE;
}

static bool extended_is_valid(const struct vcpu_state *s)
{
    return s->xsave_size >= XSAVE_SIZE && s->xsave_size <= sizeof(s->xsave) &&
           !(qz_load_le64(s->xsave + XSAVE_HEADER) & ~(uint64_t)(XSTATE_X87 | XSTATE_SSE)) &&
           !(qz_load_le32(s->xsave + 24) & ~MXCSR_VALID);
}

/* Components that XSTATE_BV leaves out are in their initial configuration (SDM vol 1 §13.6). */
/* The image may be anybody's: what fpu_set_image() leaves of it is what a CPU could hold. */
static void set_extended(struct jit_cpu *cpu, const struct vcpu_state *s)
{
    const uint64_t present = qz_load_le64(s->xsave + XSAVE_HEADER);
    const unsigned parts = (present & XSTATE_X87 ? FPU_PART_X87 : 0) |
                           (present & XSTATE_SSE ? FPU_PART_SSE : 0) | FPU_PART_MXCSR;

    memset(&cpu->fpu, 0, sizeof(cpu->fpu));
    fpu_init(&cpu->fpu);
    fpu_set_image(&cpu->fpu, s->xsave, parts);
}

/* ---- model-specific registers
 * ------------------------------------------------------------------------------ */

static void get_msrs(struct jit_cpu *cpu, struct vcpu_state *s)
{
    s->msr_count = 0;
    for (unsigned i = 0; i < vcpu_msr_list_count; i++) {
        uint64_t value;

        if (msr_read(cpu, vcpu_msr_list[i].index, &value))
            s->msr[s->msr_count++] = (struct vcpu_msr){vcpu_msr_list[i].index, value};
    }
}

static bool is_reset_value(const struct vcpu_msr *m)
{
    for (unsigned i = 0; i < vcpu_msr_list_count; i++)
        if (vcpu_msr_list[i].index == m->index)
            return vcpu_msr_list[i].value == m->value;
    return m->value == 0;
}

/* A register that this CPU lacks is as good as set when it should hold its reset value. */
static int set_msrs(struct jit_cpu *cpu, const struct vcpu_state *s)
{
    for (unsigned i = 0; i < s->msr_count; i++) {
        uint64_t is;

        if (msr_read(cpu, s->msr[i].index, &is) && is == s->msr[i].value)
            continue;
        if (!msr_restore(cpu, s->msr[i].index, s->msr[i].value) && !is_reset_value(&s->msr[i])) {
            qz_warn("vCPU %u: the software CPU does not take the value 0x%llx for MSR 0x%x",
                    cpu->accel.id, (unsigned long long)s->msr[i].value, s->msr[i].index);
            return -ENOTSUP;
        }
    }
    return 0;
}

/* ---- events
 * ------------------------------------------------------------------------------------------------
 */

static void get_events(const struct jit_cpu *cpu, struct vcpu_state *s)
{
    const unsigned a = __atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST);

    memset(&s->event, 0, sizeof(s->event));
    s->event.exception_pending = cpu->exception.pending;
    s->event.exception_vector = cpu->exception.pending ? cpu->exception.vector : 0;
    s->event.exception_has_code = cpu->exception.pending && cpu->exception.has_code;
    s->event.exception_code = s->event.exception_has_code ? cpu->exception.code : 0;
    s->event.interrupt_injected = a & ATTENTION_INTERRUPT;
    s->event.interrupt_vector = a & ATTENTION_INTERRUPT ? cpu->interrupt_vector : 0;
    s->event.interrupt_shadow = cpu->shadow;
    s->event.nmi_pending = a & ATTENTION_NMI;
    s->event.nmi_masked = cpu->nmi_masked;
    s->mp_state = cpu->halted ? MP_HALTED : MP_RUNNABLE;
}

static void set_events(struct jit_cpu *cpu, const struct vcpu_state *s)
{
    jit_attention_clear(cpu, ATTENTION_INTERRUPT | ATTENTION_NMI | ATTENTION_WINDOW);
    memset(&cpu->exception, 0, sizeof(cpu->exception));
    if (s->event.exception_pending || s->event.exception_injected) {
        cpu->exception.pending = true;
        cpu->exception.vector = s->event.exception_vector;
        cpu->exception.has_code = s->event.exception_has_code;
        cpu->exception.code = s->event.exception_code;
        cpu->exception.address = s->cr2;
    }
    if (s->event.interrupt_injected) {
        cpu->interrupt_vector = s->event.interrupt_vector;
        jit_attention_set(cpu, ATTENTION_INTERRUPT);
    }
    if (s->event.nmi_pending || s->event.nmi_injected)
        jit_attention_set(cpu, ATTENTION_NMI);
    cpu->shadow = s->event.interrupt_shadow & 3;
    cpu->nmi_masked = s->event.nmi_masked && !s->event.nmi_injected;
    cpu->halted = s->mp_state == MP_HALTED;
    cpu->shutdown = false;
    cpu->a_fault_interrupts = false;
    cpu->watch_hits = 0;
}

/* ---- the whole
 * --------------------------------------------------------------------------------------------- */

int jit_get_state(struct accel_vcpu *vcpu, struct vcpu_state *s)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
    s->rip = cpu->rip;
    s->rflags = cpu->rflags;
    s->cs = cpu->seg[SEG_CS];
    s->ds = cpu->seg[SEG_DS];
    s->es = cpu->seg[SEG_ES];
    s->fs = cpu->seg[SEG_FS];
    s->gs = cpu->seg[SEG_GS];
    s->ss = cpu->seg[SEG_SS];
    s->tr = cpu->tr;
    s->ldt = cpu->ldt;
    s->gdt = cpu->gdt;
    s->idt = cpu->idt;
    s->cr0 = cpu->cr0;
    s->cr2 = cpu->cr2;
    s->cr3 = cpu->cr3;
    s->cr4 = cpu->cr4;
    s->cr8 = cpu->cr8;
    s->efer = cpu->efer;
    s->xcr0 = cpu->xcr0;
    memcpy(s->dr, cpu->dr, sizeof(s->dr));
    s->dr6 = cpu->dr6;
    s->dr7 = cpu->dr7;
    s->apic_base = cpu->apic_base;
    get_events(cpu, s);
    get_msrs(cpu, s);
    get_extended(cpu, s);
    return 0;
}

static bool registers_are_valid(const struct vcpu_state *s)
{
    const uint64_t cr0 = CR0_PG | CR0_CD | CR0_NW | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_TS |
                         CR0_EM | CR0_MP | CR0_PE;
    const uint64_t cr4 = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE |
                         CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE |
                         CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP;
    const uint64_t efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AUTOIBRS;
    const bool paging = s->cr0 & CR0_PG, lma = s->efer & EFER_LMA;

    return !(s->cr0 & ~cr0) && !(s->cr4 & ~cr4) && !(s->efer & ~efer) &&
           (!paging || (s->cr0 & CR0_PE)) && lma == (paging && (s->efer & EFER_LME)) &&
           (!lma || (s->cr4 & CR4_PAE)) && (lma || !(s->cr4 & CR4_PCIDE)) && s->cr8 < 16 &&
           (s->xcr0 & ~3ull) == 0 && (s->xcr0 & 1) && s->msr_count <= VCPU_MSR_MAX &&
           !((s->rflags & RFLAGS_VM) && lma) && !(s->dr7 >> 32) && !(s->dr6 >> 32);
}

static void set_segments(struct jit_cpu *cpu, const struct vcpu_state *s)
{
    cpu->seg[SEG_CS] = s->cs;
    cpu->seg[SEG_DS] = s->ds;
    cpu->seg[SEG_ES] = s->es;
    cpu->seg[SEG_FS] = s->fs;
    cpu->seg[SEG_GS] = s->gs;
    cpu->seg[SEG_SS] = s->ss;
    cpu->tr = s->tr;
    cpu->ldt = s->ldt;
    cpu->gdt = s->gdt;
    cpu->idt = s->idt;
}

int jit_set_state(struct accel_vcpu *vcpu, const struct vcpu_state *s)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);
    int r;

    if (!registers_are_valid(s) || !extended_is_valid(s))
        return -EINVAL;
    world_enter(cpu); /* the PDPTEs and some MSRs name guest memory */
    memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
    cpu->rip = s->rip;
    cpu->rflags = s->rflags | RFLAGS_FIXED;
    set_segments(cpu, s);
    cpu->cr0 = s->cr0 | CR0_ET;
    cpu->cr2 = s->cr2;
    cpu->cr3 = s->cr3;
    cpu->cr4 = s->cr4;
    cpu->cr8 = s->cr8;
    cpu->efer = s->efer;
    cpu->xcr0 = s->xcr0;
    memcpy(cpu->dr, s->dr, sizeof(cpu->dr));
    cpu->dr6 = s->dr6;
    cpu->dr7 = s->dr7;
    cpu->apic_base = s->apic_base;
    set_events(cpu, s);
    set_extended(cpu, s);
    jit_mode_changed(cpu);
    r = mmu_restore(cpu);
    if (r == 0)
        r = set_msrs(cpu, s);
    world_leave(cpu);
    return r;
}

int jit_set_registers(struct accel_vcpu *vcpu, const struct vcpu_state *s)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    if (!extended_is_valid(s))
        return -EINVAL;
    if (s->rip != cpu->rip) { /* nothing of where it was before counts */
        cpu->halted = false;
        cpu->shadow = 0;
        cpu->exception.pending = false;
    }
    memcpy(cpu->gpr, s->gpr, sizeof(cpu->gpr));
    cpu->rip = s->rip;
    cpu->rflags = (s->rflags & ~(uint64_t)RFLAGS_VM) | (cpu->rflags & RFLAGS_VM) | RFLAGS_FIXED;
    cpu->seg[SEG_FS].base = s->fs.base;
    cpu->seg[SEG_GS].base = s->gs.base;
    set_extended(cpu, s);
    mmu_set_changed(cpu);
    jit_attention_set(cpu, ATTENTION_TRACE);
    return 0;
}

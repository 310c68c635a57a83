/*
 * vcpu_state.c - architectural states that everything starts from: RESET, start-up IPI, flat
 * segments.
 *
 * RESET follows SDM vol 3 table 10-1 and §11.4.7 (local APIC), the start-up IPI §10.4.4.
 */
#include "cpu/vcpu_state.h"
#include "cpu/vcpu_msrs.h"

enum {
    SEG_TYPE_DATA = 0x3, /* read/write, accessed */
    SEG_TYPE_CODE = 0xb, /* execute/read, accessed */
    SEG_TYPE_LDT = 0x2,
    SEG_TYPE_TSS_BUSY = 0xb,
};

/* Selectors of the Linux 64-bit boot protocol; any flat kernel entry is content with them. */
enum { FLAT_CS = 0x10, FLAT_DS = 0x18, FLAT_TR = 0x20 };

/* Registers of the xAPIC page by offset / 16. */
enum {
    APIC_ID = 0x20 / 16,
    APIC_VERSION = 0x30 / 16,
    APIC_DFR = 0xe0 / 16,
    APIC_SVR = 0xf0 / 16,
    APIC_LVT_TIMER = 0x320 / 16,
    APIC_LVT_ERROR = 0x370 / 16,
};

const struct vcpu_msr vcpu_msr_list[] = {
    {MSR_TSC, 0}, /* first: what is written after it may be relative to it */
    {MSR_TSC_ADJUST, 0},
    {0x48, 0},                      /* IA32_SPEC_CTRL */
    {0x122, 0},                     /* IA32_TSX_CTRL */
    {0x140, 0},                     /* MISC_FEATURES_ENABLES: CPUID faulting */
    {0x174, 0},                     /* IA32_SYSENTER_CS */
    {0x175, 0},                     /* IA32_SYSENTER_ESP */
    {0x176, 0},                     /* IA32_SYSENTER_EIP */
    {0x17a, 0},                     /* IA32_MCG_STATUS */
    {0x1c4, 0},                     /* IA32_XFD */
    {0x1c5, 0},                     /* IA32_XFD_ERR */
    {0x1d9, 0},                     /* IA32_DEBUGCTL */
    {0x277, 0x0007040600070406ull}, /* IA32_PAT, SDM vol 3 §12.12.4 */

    /* MTRRs, SDM vol 3 §12.11: off, everything uncached by them until firmware or the monitor says
       more. */
    {0x2ff, 0}, /* IA32_MTRR_DEF_TYPE before the ranges: reset turns them off first */
    {0x200, 0},
    {0x201, 0},
    {0x202, 0},
    {0x203, 0},
    {0x204, 0},
    {0x205, 0},
    {0x206, 0},
    {0x207, 0},
    {0x208, 0},
    {0x209, 0},
    {0x20a, 0},
    {0x20b, 0},
    {0x20c, 0},
    {0x20d, 0},
    {0x20e, 0},
    {0x20f, 0},
    {0x250, 0},
    {0x258, 0},
    {0x259, 0},
    {0x268, 0},
    {0x269, 0},
    {0x26a, 0},
    {0x26b, 0},
    {0x26c, 0},
    {0x26d, 0},
    {0x26e, 0},
    {0x26f, 0},

    /* Control-flow enforcement, SDM vol 1 §17 */
    {0x6a0, 0},
    {0x6a2, 0},
    {0x6a4, 0},
    {0x6a5, 0},
    {0x6a6, 0},
    {0x6a7, 0},
    {0x6a8, 0},
    {0xda0, 0}, /* IA32_XSS */

    {0xc0000081, 0}, /* STAR */
    {0xc0000082, 0}, /* LSTAR */
    {0xc0000083, 0}, /* CSTAR */
    {0xc0000084, 0}, /* SFMASK */
    {0xc0000102, 0}, /* KERNEL_GS_BASE */
    {0xc0000103, 0}, /* TSC_AUX */
    {0xc0010015, 0}, /* AMD HWCR */
    {0xc001011f, 0}, /* AMD VIRT_SPEC_CTRL */

    /*
     * The KVM interface (Linux Documentation/virt/kvm/x86/msr.rst). Reset must clear these: they
     * hold guest-physical addresses that the host goes on writing to.
     */
    {0x4b564d00, 0}, /* wall clock */
    {0x4b564d01, 0}, /* system time */
    {0x4b564d02, 0}, /* asynchronous page faults */
    {0x4b564d03, 0}, /* steal time */
    {0x4b564d04, 0}, /* paravirtual EOI */
    {0x4b564d05, 1}, /* host-side polling on HLT: allowed */
    {0x4b564d06, 0}, /* vector of asynchronous page faults */
};
const unsigned vcpu_msr_list_count = QZ_ARRAY_LEN(vcpu_msr_list);
_Static_assert(QZ_ARRAY_LEN(vcpu_msr_list) <= VCPU_MSR_MAX, "the list fits the state");

static struct segment real_mode_segment(uint16_t selector, uint64_t base, unsigned type)
{
    return (struct segment){
        .base = base,
        .limit = 0xffff,
        .selector = selector,
        .attr = SEG_P | SEG_S | type,
    };
}

static void reset_lapic(struct lapic_registers *lapic, uint32_t apic_id)
{
    lapic->reg[APIC_ID] = apic_id << 24;
    lapic->reg[APIC_VERSION] = 0x50014; /* six LVT entries, integrated APIC */
    lapic->reg[APIC_DFR] = 0xffffffff;
    lapic->reg[APIC_SVR] = 0xff;
    for (unsigned i = APIC_LVT_TIMER; i <= APIC_LVT_ERROR; i++)
        lapic->reg[i] = 1 << 16; /* masked */
}

void vcpu_state_reset(struct vcpu_state *s, bool bsp, uint32_t apic_id)
{
    memset(s, 0, sizeof(*s));
    s->gpr[RDX] = 0x600; /* processor signature, family 6 */
    s->rip = 0xfff0;
    s->rflags = 2;

    s->cs = real_mode_segment(0xf000, 0xffff0000, SEG_TYPE_CODE);
    s->ds = s->es = s->fs = s->gs = s->ss = real_mode_segment(0, 0, SEG_TYPE_DATA);
    s->tr = (struct segment){.limit = 0xffff, .attr = SEG_P | SEG_TYPE_TSS_BUSY};
    s->ldt = (struct segment){.limit = 0xffff, .attr = SEG_P | SEG_TYPE_LDT};
    s->gdt.limit = s->idt.limit = 0xffff;

    s->cr0 = 0x60000010; /* CD, NW, ET */
    s->xcr0 = 1;
    s->dr6 = 0xffff0ff0;
    s->dr7 = 0x400;
    s->apic_base = 0xfee00000 | QZ_BIT(11) | (bsp ? QZ_BIT(8) : 0);
    s->mp_state = bsp ? MP_RUNNABLE : MP_WAIT_SIPI;

    s->msr_count = vcpu_msr_list_count;
    memcpy(s->msr, vcpu_msr_list, vcpu_msr_list_count * sizeof(s->msr[0]));

    /* XSAVE layout (SDM vol 1 §13.4): FCW, abridged FTW (all registers hold zero), MXCSR,
     * XSTATE_BV. */
    s->xsave_size = 576;
    qz_store_le16(s->xsave, 0x40);
    s->xsave[4] = 0xff;
    qz_store_le32(s->xsave + 24, 0x1f80);
    qz_store_le64(s->xsave + 512, 3);

    reset_lapic(&s->lapic, apic_id);
}

void vcpu_state_init(struct vcpu_state *s, uint32_t apic_id)
{
    unsigned kept = 0;

    vcpu_state_reset(s, false, apic_id);
    for (unsigned i = 0; i < s->msr_count; i++)
        if (s->msr[i].index != MSR_TSC && s->msr[i].index != MSR_TSC_ADJUST)
            s->msr[kept++] = s->msr[i];
    s->msr_count = kept;
}

void vcpu_state_sipi(struct vcpu_state *s, uint8_t vector)
{
    s->cs = real_mode_segment((uint16_t)(vector << 8), (uint64_t)vector << 12, SEG_TYPE_CODE);
    s->rip = 0;
    s->mp_state = MP_RUNNABLE;
}

void vcpu_state_flat(struct vcpu_state *s, unsigned bits)
{
    const struct segment data = {
        .limit = 0xffffffff,
        .selector = FLAT_DS,
        .attr = SEG_P | SEG_S | SEG_DB | SEG_G | SEG_TYPE_DATA,
    };

    s->cs = (struct segment){
        .limit = 0xffffffff,
        .selector = FLAT_CS,
        .attr = SEG_P | SEG_S | SEG_G | SEG_TYPE_CODE | (bits == 64 ? SEG_L : SEG_DB),
    };
    s->ds = s->es = s->fs = s->gs = s->ss = data;
    s->tr =
        (struct segment){.limit = 0xffff, .selector = FLAT_TR, .attr = SEG_P | SEG_TYPE_TSS_BUSY};
    s->ldt = (struct segment){.attr = SEG_UNUSABLE};
}

int vcpu_state_set_msr(struct vcpu_state *s, uint32_t index, uint64_t value)
{
    for (unsigned i = 0; i < s->msr_count && i < VCPU_MSR_MAX; i++) {
        if (s->msr[i].index == index) {
            s->msr[i].value = value;
            return 0;
        }
    }
    if (s->msr_count >= VCPU_MSR_MAX)
        return -ENOSPC;
    s->msr[s->msr_count++] = (struct vcpu_msr){index, value};
    return 0;
}

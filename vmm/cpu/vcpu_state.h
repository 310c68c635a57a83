/*
 * vcpu_state.h - the architectural state of one virtual CPU, neutral between accelerators.
 *
 * What a snapshot holds and what boot code fills in. An accelerator translates to and from its own
 * form in get_state and set_state; nothing here names one. Field names follow the SDM.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include <queztl/state.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPR_COUNT };

/* Segment attributes in the layout of descriptor bytes 5 and 6 (SDM vol 3 §3.4.5), limit bits
 * removed. */
enum {
    SEG_TYPE_MASK = 0xf,
    SEG_S = 1 << 4,
    SEG_DPL_SHIFT = 5,
    SEG_P = 1 << 7,
    SEG_AVL = 1 << 8,
    SEG_L = 1 << 9,
    SEG_DB = 1 << 10,
    SEG_G = 1 << 11,
    SEG_UNUSABLE = 1 << 12, /* null selector loaded */
};

struct segment {
    uint64_t base;
    uint32_t limit; /* in bytes, as the CPU uses it: granularity applied */
    uint16_t selector;
    uint16_t attr;
};

struct descriptor_table {
    uint64_t base;
    uint16_t limit;
};

enum mp_state {
    MP_RUNNABLE,
    MP_HALTED,
    MP_WAIT_SIPI,     /* after INIT, or an application processor after reset */
    MP_UNINITIALIZED, /* application processor that never saw INIT */
};

struct vcpu_msr {
    uint32_t index;
    uint64_t value;
};

/* The local APIC's registers as the 4 KiB xAPIC page holds them (SDM vol 3 §11.4.1), 32 bits each
 * 16 bytes. */
struct lapic_registers {
    uint32_t reg[64];
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE, 0 when disarmed */
};

enum { VCPU_MSR_MAX = 128, VCPU_XSAVE_MAX = 12288 };

struct vcpu_state {
    uint64_t gpr[GPR_COUNT];
    uint64_t rip, rflags;
    struct segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct descriptor_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t apic_base; /* IA32_APIC_BASE */
    enum mp_state mp_state;

    /* An event that was being delivered, and what shadows the next one. */
    struct {
        bool exception_injected, exception_pending, exception_has_code;
        uint8_t exception_vector;
        uint32_t exception_code;
        bool interrupt_injected, interrupt_soft;
        uint8_t interrupt_vector;
        uint8_t interrupt_shadow; /* bit 0: MOV SS, bit 1: STI */
        bool nmi_injected, nmi_pending, nmi_masked;
    } event;

    uint32_t msr_count;
    struct vcpu_msr msr[VCPU_MSR_MAX];

    uint32_t xsave_size; /* bytes of xsave that are valid; standard (uncompacted) layout */
    uint8_t xsave[VCPU_XSAVE_MAX] __attribute__((aligned(64)));

    struct lapic_registers lapic; /* meaningful only where the accelerator holds the local APIC */
};

/* The state after RESET (SDM vol 3 table 10-1): real mode at f000:fff0, or waiting for SIPI when
 * not the BSP. */
void vcpu_state_reset(struct vcpu_state *s, bool bsp, uint32_t apic_id);
/* The state after INIT: the time-stamp counter, which goes on (SDM vol 3 table 10-1), is not in it.
 */
void vcpu_state_init(struct vcpu_state *s, uint32_t apic_id);
/* Start-up IPI (SDM vol 3 §10.4.4): real mode at vector:0. Changes only cs, rip and mp_state. */
void vcpu_state_sipi(struct vcpu_state *s, uint8_t vector);
/* Flat segments for a kernel entry: a code segment of the given width (32 or 64) and data segments.
 */
void vcpu_state_flat(struct vcpu_state *s, unsigned bits);
/* Sets the MSR in the state's list, adding it when it is not there yet; -ENOSPC when the list is
 * full. */
int vcpu_state_set_msr(struct vcpu_state *s, uint32_t index, uint64_t value);
/* All of it, saved or loaded. */
void vcpu_registers_state(struct vcpu_state *v, struct qz_state *s);

#endif

/*
 * lapic_internal.h - one local APIC, shared by lapic.c (registers, delivery) and lapic_timer.c.
 */
#ifndef VMM_LAPIC_INTERNAL_H
#define VMM_LAPIC_INTERNAL_H

#include "machine/lapic.h"

/* Register numbers: offset in the page / 16 = MSR - 0x800 (SDM vol 3 tables 11-1 and 11-6). */
enum {
    ID = 0x02,
    VERSION = 0x03,
    TPR = 0x08,
    APR = 0x09,
    PPR = 0x0a,
    EOI = 0x0b,
    LDR = 0x0d,
    DFR = 0x0e,
    SVR = 0x0f,
    ISR = 0x10,
    TMR = 0x18,
    IRR = 0x20,
    ESR = 0x28,
    ICR = 0x30,
    ICR_HIGH = 0x31,
    LVT_TIMER = 0x32,
    LVT_THERMAL = 0x33,
    LVT_PERF = 0x34,
    LVT_LINT0 = 0x35,
    LVT_LINT1 = 0x36,
    LVT_ERROR = 0x37,
    TIMER_INITIAL = 0x38,
    TIMER_CURRENT = 0x39,
    TIMER_DIVIDE = 0x3e,
    SELF_IPI = 0x3f,
    REGISTERS = 0x40,
};

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

/* What the holder of the lock leaves to be told to the vCPU once the lock is dropped. */
enum { NOTE_WAKE = 1 << 0, NOTE_NMI = 1 << 1 };

struct lapic {
    struct lapic_set *set;
    unsigned id;
    pthread_mutex_t lock; /* over everything below */
    unsigned notes;
    uint64_t base;
    uint32_t reg[REGISTERS];
    uint32_t esr_pending; /* errors that the next write of ESR shows */
    struct vm_timer timer;
    int64_t timer_start;   /* machine time at which the count was loaded */
    int64_t timer_expires; /* machine time of the next firing, 0: none */
    uint64_t tsc_deadline; /* 0: none */
    uint64_t tsc_offset;   /* from the host's TSC to the vCPU's */
};

struct lapic_set {
    unsigned count;
    struct vm_clock *clock;
    const struct lapic_ops *ops;
    void *context;
    uint32_t tsc_khz; /* 0: not told; then measured since the two below */
    uint64_t tsc_at_start;
    int64_t ns_at_start;
    unsigned arbiter; /* atomic: where the next search for the lowest priority begins */
    bool extint;      /* atomic: the PIC's output, wired to LINT0 of APIC 0 */
    struct lapic apic[];
};

void lapic_lock(struct lapic *a);
/* own_thread: called by the vCPU itself, which looks at its APIC before it runs on and needs no
 * waking. */
void lapic_unlock(struct lapic *a, bool own_thread);
/* An interrupt of the APIC's own, by its LVT entry. Lock held. */
void lapic_local(struct lapic *a, unsigned lvt);

/* lapic_timer.c; all with the lock held. */
void lapic_timer_init(struct lapic *a);
void lapic_timer_stop(struct lapic *a);
void lapic_timer_write_lvt(struct lapic *a, uint32_t value);
void lapic_timer_write_initial(struct lapic *a, uint32_t value);
void lapic_timer_write_divide(struct lapic *a, uint32_t value);
uint32_t lapic_timer_current(const struct lapic *a);
void lapic_timer_write_deadline(struct lapic *a, uint64_t deadline);
uint64_t lapic_timer_deadline(const struct lapic *a);
void lapic_timer_tsc_changed(struct lapic *a);
/* After the registers were put in place from outside: goes on with what was left. */
void lapic_timer_restore(struct lapic *a, uint32_t current, uint64_t deadline);

#endif

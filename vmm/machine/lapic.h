/*
 * lapic.h - our own local APICs, xAPIC and x2APIC (SDM vol 3 ch. 11), for irqchip=user.
 */
#ifndef VMM_LAPIC_H
#define VMM_LAPIC_H

#include "machine/irq.h"

enum {
    LAPIC_TIMER_HZ = 1000000000
}; /* bus clock: 1 tick is 1 ns before division; announced by CPUID */

struct lapic_set;

/* What the set needs of its surroundings. Called with no lock of the set held. */
struct lapic_ops {
    void (*wake)(void *context, unsigned cpu);
    void (*nmi)(void *context, unsigned cpu);
    void (*init)(void *context, unsigned cpu);
    void (*sipi)(void *context, unsigned cpu, uint8_t vector);
    void (*eoi)(void *context, uint8_t vector); /* a level-triggered vector was acknowledged */
};

int lapic_set_new(struct lapic_set **s, unsigned cpus, struct vm_clock *clock,
                  const struct lapic_ops *ops, void *context);
void lapic_set_free(struct lapic_set *s);
void lapic_set_reset(struct lapic_set *s);
/* Guest TSC = host TSC + offset, at khz (0: measure it). For the TSC-deadline timer; timers under
 * way are moved. */
void lapic_set_tsc(struct lapic_set *s, uint32_t khz, uint64_t offset);
/* Of one vCPU, for deadlines that it writes from now on. */
void lapic_set_cpu_tsc(struct lapic_set *s, unsigned cpu, uint64_t offset);

void lapic_message(struct lapic_set *s, uint64_t address, uint32_t data); /* any thread */
void lapic_extint(struct lapic_set *s, bool level); /* the PIC's output; any thread */

/* All with a cpu: on that vCPU's thread. */
bool lapic_pending(struct lapic_set *s, unsigned cpu);
int lapic_acknowledge(struct lapic_set *s, unsigned cpu,
                      bool *extint); /* vector; -1 none; *extint: ask the PIC */

bool lapic_rdmsr(struct lapic_set *s, unsigned cpu, uint32_t index, uint64_t *value, bool *fault);
bool lapic_wrmsr(struct lapic_set *s, unsigned cpu, uint32_t index, uint64_t value, bool *fault);
bool lapic_mmio(struct lapic_set *s, unsigned cpu, uint64_t gpa, void *data, unsigned len,
                bool write);
uint64_t lapic_get_tpr(struct lapic_set *s, unsigned cpu);
void lapic_set_tpr(struct lapic_set *s, unsigned cpu, uint64_t cr8);

/*
 * The whole state, for snapshots; the vCPU stands still. base: IA32_APIC_BASE. put takes registers
 * from anywhere and keeps of them what hardware would; -EINVAL when base names an impossible mode.
 */
void lapic_get(struct lapic_set *s, unsigned cpu, struct lapic_registers *r, uint64_t *base);
int lapic_put(struct lapic_set *s, unsigned cpu, const struct lapic_registers *r, uint64_t base);

/* The fabric's set; NULL where the local APICs are the accelerator's. */
struct lapic_set *irq_fabric_lapics(struct irq_fabric *fabric);

#endif

/*
 * irq.h - how interrupts travel: lines into IOAPIC and PIC, messages into local APICs.
 *
 * The fabric owns one IOAPIC, one pair of 8259 PICs and, with irqchip=user, one local APIC per
 * vCPU. A device knows only lines and messages. With the accelerator's local APICs (irqchip=split),
 * messages go to accel_ops.signal_msi and IOAPIC pins are told by accel_ops.ioapic_route; with our
 * own, to lapic.c.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "cpu/accel.h"
#include "machine/bus.h"
#include "machine/clock.h"

enum { IOAPIC_PINS = 24 };
#define IOAPIC_BASE 0xfec00000ull
#define LAPIC_BASE  0xfee00000ull

struct irq_fabric;

/* What the fabric asks of a vCPU; the life cycle (vmm/vm) supplies it. Any thread, must not block.
 */
struct irq_cpu_ops {
    void (*wake)(void *context, unsigned cpu); /* something is pending: leave HLT or the guest */
    void (*nmi)(void *context, unsigned cpu);
    void (*init)(void *context, unsigned cpu);
    void (*sipi)(void *context, unsigned cpu, uint8_t vector);
};

/*
 * Registers IOAPIC (MMIO), PIC (ports 20, 21, a0, a1, 4d0, 4d1) and, with own local APICs, the
 * xAPIC page on the buses. accel: for split mode; context is handed to ops.
 */
int irq_fabric_new(struct irq_fabric **fabric, struct accel_vm *accel, unsigned cpus,
                   struct bus *pio, struct bus *mmio, struct vm_clock *clock,
                   const struct irq_cpu_ops *ops, void *context, struct qz_error *err);
void irq_fabric_free(struct irq_fabric *fabric);
void irq_fabric_reset(struct irq_fabric *fabric); /* machine reset; all vCPUs stopped */

/*
 * The controllers, but for local APICs, saved or loaded; all vCPUs stopped. Loading comes after
 * every device: their lines are up then as they were, and what the controllers made of that on the
 * way is replaced. Inputs that no line explains are refused.
 */
void irq_fabric_state(struct irq_fabric *fabric, struct qz_state *s);

/* One source on a line. Several sources may share a GSI (wired OR). Embedded in the device. */
struct irq_line {
    struct irq_fabric *fabric;
    uint8_t gsi; /* 0 to 23: IOAPIC pin; 0 to 15 reach the PIC too (ISA IRQ 0 arrives at IOAPIC pin
                    2) */
    bool level;
};
void irq_line_init(struct irq_line *line, struct irq_fabric *fabric, unsigned gsi);
void irq_line_set(struct irq_line *line, bool level); /* any thread; idempotent */
void irq_line_pulse(struct irq_line *line);           /* edge: up and down */
/* Its level, saved or loaded. */
void irq_line_state(struct irq_line *line, struct qz_state *s, const char *name);

/* A message-signalled interrupt (SDM vol 3 §11.11; bits 5 to 11 of the address extend the
 * destination). */
void msi_send(struct irq_fabric *fabric, uint64_t address, uint32_t data);

/*
 * vCPU side, on the vCPU's thread before each run. Whether the CPU should take an external
 * interrupt now (from the PIC when its local APIC lets ExtINT through, or from our own local APIC),
 * and taking it.
 */
bool irq_pending(struct irq_fabric *fabric, unsigned cpu);
int irq_acknowledge(struct irq_fabric *fabric, unsigned cpu); /* vector, or -1: it went away */

/* EXIT_IOAPIC_EOI */
void irq_eoi(struct irq_fabric *fabric, uint8_t vector);

/* Own local APIC only. MSRs 0x1b, 0x800 to 0x83f and 0x6e0; false: not one of its MSRs. *fault:
 * #GP. */
bool irq_lapic_rdmsr(struct irq_fabric *fabric, unsigned cpu, uint32_t index, uint64_t *value,
                     bool *fault);
bool irq_lapic_wrmsr(struct irq_fabric *fabric, unsigned cpu, uint32_t index, uint64_t value,
                     bool *fault);
/* xAPIC page access by this vCPU (an MMIO exit at LAPIC_BASE is routed here before the bus). */
bool irq_lapic_mmio(struct irq_fabric *fabric, unsigned cpu, uint64_t gpa, void *data, unsigned len,
                    bool write);
/*
 * The guest's TSC runs at khz (0: as measured) and is the host's plus offset, which is 0 until
 * told; for the TSC-deadline timer. No vCPU runs meanwhile; timers under way are moved, so it is
 * also told after a pause.
 */
void irq_lapic_set_tsc(struct irq_fabric *fabric, uint32_t khz, uint64_t offset);
/* A guest may have written to the TSC of one vCPU: told, by its thread, before a deadline that it
 * names. */
void irq_lapic_set_cpu_tsc(struct irq_fabric *fabric, unsigned cpu, uint64_t offset);
/* Its registers, for struct vcpu_state; no vCPU runs. put: -EINVAL when `base` is none. */
void irq_lapic_get(struct irq_fabric *fabric, unsigned cpu, struct lapic_registers *r,
                   uint64_t *base);
int irq_lapic_put(struct irq_fabric *fabric, unsigned cpu, const struct lapic_registers *r,
                  uint64_t base);
uint64_t irq_lapic_get_tpr(struct irq_fabric *fabric, unsigned cpu); /* as CR8 */
void irq_lapic_set_tpr(struct irq_fabric *fabric, unsigned cpu, uint64_t cr8);

#endif

/* ioapic.h - the 82093AA I/O APIC with 24 pins, version 0x20 with an EOI register. */
#ifndef VMM_IOAPIC_H
#define VMM_IOAPIC_H

#include "machine/irq.h"

struct ioapic_message {
    uint64_t address;
    uint32_t data;
};

/* What the I/O APIC is attached to. Called with its lock held. */
struct ioapic_ops {
    void (*send)(void *context, const struct ioapic_message *m);
    /* A redirection entry changed; so that an accelerator knows which vectors need an EOI exit. */
    void (*routed)(void *context, unsigned pin, const struct ioapic_message *m, bool masked);
};

struct ioapic {
    uint64_t entry[IOAPIC_PINS];
    uint32_t lines; /* levels of the pins */
    uint8_t select, id;
    const struct ioapic_ops *ops;
    void *context;
    pthread_mutex_t *lock;
};

int ioapic_init(struct ioapic *a, struct bus *mmio, pthread_mutex_t *lock,
                const struct ioapic_ops *ops, void *context);
void ioapic_reset(struct ioapic *a);
void ioapic_set(struct ioapic *a, unsigned pin, bool level); /* lock held */
void ioapic_eoi(struct ioapic *a, uint8_t vector);           /* lock held */
/* Saved or loaded, lock held; loading tells the routes and sends nothing. */
void ioapic_state(struct ioapic *a, struct qz_state *s);

#endif

/*
 * machine.h - what a device may use of the machine around it.
 *
 * The life cycle (vmm/vm) builds one of these, hands it to every device's constructor and outlives
 * them all. Devices never see the life cycle itself: they ask for a reset or power-off through
 * request().
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <queztl/loop.h>
#include <sys/random.h>

#include "cpu/accel.h"
#include "machine/bus.h"
#include "machine/clock.h"
#include "machine/irq.h"
#include "machine/memory.h"

struct io_gate;
struct pci_bus;

enum machine_request {
    MACHINE_RESET,    /* reset port, i8042 pulse, ACPI reset register, triple fault with reset asked
                         for */
    MACHINE_POWEROFF, /* ACPI S5 */
    MACHINE_PANIC,    /* pvpanic: the guest says that it crashed */
};

struct machine {
    struct guest_memory memory;
    struct accel_vm *accel;
    struct bus *pio, *mmio;
    struct irq_fabric *irq;
    struct vm_clock *clock;
    struct pci_bus *pci;
    struct qz_loop *main_loop;
    struct io_gate *gate; /* a deterministic machine's; NULL: it is none */
    uint64_t random;      /* and its source of random numbers; the device loop's */
    unsigned cpus;
    /* Any thread; returns at once, the request is carried out by the main loop. */
    void (*request)(struct machine *m, enum machine_request what);
};

/* A device wrote to guest memory at `data`, which came out of mem_span(): code made of the old
 * bytes goes. Any thread. */
static inline void machine_written(const struct machine *m, const void *data, uint64_t len)
{
    if (m->accel && m->accel->ops->memory_written && len > 0)
        m->accel->ops->memory_written(m->accel, mem_gpa(&m->memory, data).v, len);
}

/* n random bytes: the host's, or the deterministic machine's own. The number of them, or -errno. */
static inline ssize_t machine_random(struct machine *m, void *to, size_t n)
{
    uint8_t *p = to;

    if (!m->gate)
        return getrandom(to, n, 0);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(qz_random64(&m->random) >> 56);
    return (ssize_t)n;
}

#endif

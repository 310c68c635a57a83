/*
 * pci.h - the PCI root bus of a q35 machine, and what a PCI function is made of.
 *
 * A function embeds struct pci_device, fills its configuration space with the helpers below and
 * joins the bus. The core then answers configuration accesses (mechanism #1 and ECAM, PCI 3.0
 * §3.2.2.3.2, PCIe 5.0 §7.2.2), sizes and places BARs, and delivers its interrupts.
 *
 * Locks. One lock for each bus guards configuration spaces and mappings; it is taken before any
 * device's own lock. So the callbacks of a BAR, and code under a device's lock, never touch
 * configuration space or add devices. Interrupts (pci_msix_notify, pci_intx_set) may be raised by
 * any thread under any device's lock.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include "machine/machine.h"

enum {
    PCI_BUSES = 1, /* there are no bridges */
    PCI_SLOTS = 32,
    PCI_FUNCTIONS = 256,
    PCI_CONFIG_SIZE = 4096,
    PCI_BARS = 6,
    PCI_MSIX_MAX = 2048,
};

#define PCI_DEVFN(slot, function) ((uint8_t)((slot) << 3 | (function)))

/* 32-bit BARs live here when nobody else assigns them; firmware and _CRS use the same window. */
#define PCI_LOW_WINDOW     0xc0000000ull
#define PCI_LOW_WINDOW_END 0xe0000000ull
#define PCI_IO_WINDOW      0xc000u
#define PCI_ECAM_DEFAULT   0xe0000000ull
#define PCI_ECAM_SIZE      0x10000000ull

struct pci_bus;
struct pci_device;

/* All optional. All but reset: with the bus's lock held. */
struct pci_device_ops {
    /* [offset, offset + len) is about to be read: fill in what is not storage. */
    void (*config_reading)(struct pci_device *d, unsigned offset, unsigned len);
    /* Writable bits in [offset, offset + len) were stored. */
    void (*config_written)(struct pci_device *d, unsigned offset, unsigned len);
    /* The BAR was put on the bus at base, or taken off. Takes the device's lock if it needs it. */
    void (*bar_moved)(struct pci_device *d, unsigned bar, bool mapped, uint64_t base);
    /* Machine reset, vCPUs stopped, bus lock not held; the core has reset configuration space
     * already. */
    void (*reset)(struct pci_device *d);
    /* True while the device still works on what it began before a reset. Takes the device's lock
     * itself. */
    bool (*busy)(struct pci_device *d);
};

enum pci_bar_kind { PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_MEM64_PREFETCH, PCI_BAR_IO };

struct pci_bar {
    uint64_t size; /* power of two; 0: no such BAR */
    enum pci_bar_kind kind;
    struct bus_region region; /* base and size filled by the core */
    bool mapped;              /* on the bus at region.base */
};

struct pci_device {
    const struct pci_device_ops *ops;
    const char *name;
    struct pci_bus *bus; /* NULL while not on one */
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that software may change */
    uint8_t *initial;                  /* what config becomes at reset, taken by pci_add() */
    struct pci_bar bar[PCI_BARS];
    unsigned capability_end; /* first free byte after the capabilities */
    uint8_t last_capability;

    /* Interrupts. irq_lock is innermost but for the fabric's own. */
    pthread_mutex_t irq_lock;
    uint8_t pin; /* 0: none, 1: INTA ... 4: INTD */
    bool intx_level, intx_wired;
    struct irq_line line;
    unsigned msix_capability, msix_vectors;
    uint16_t msix_control; /* copy of the capability's Message Control, under irq_lock */
    uint32_t *msix_table;  /* 4 words for each vector */
    uint64_t *msix_pending;
};

/* ---- the bus ----------------------------------------------------------------------------------
 */

/* Claims ports 0xcf8 to 0xcff on m->pio, sets m->pci. ECAM appears when a host bridge enables it.
 */
int pci_bus_new(struct pci_bus **bus, struct machine *m, struct qz_error *err);
void pci_bus_free(struct pci_bus *bus); /* after its devices left */
/* Machine reset; all vCPUs stopped. */
void pci_bus_reset(struct pci_bus *bus);
/*
 * Configuration spaces, MSI-X tables and wires of all functions, saved or loaded; vCPUs stopped. A
 * loaded machine has the same functions. What a device keeps beside is its own to say, afterwards.
 */
void pci_bus_state(struct pci_bus *bus, struct qz_state *s);
/* True while a device still drains what was in flight before a reset (guest memory may still
 * change). */
bool pci_bus_busy(struct pci_bus *bus);

/* base: aligned to size, size: 64, 128 or 256 MiB, one MiB for each bus number; size 0: none. Bus
 * lock held. */
void pci_bus_set_ecam(struct pci_bus *bus, uint64_t base, uint64_t size);
/* PIRQ routing for a PIC: value of the LPC bridge's PIRQn_ROUT (n 0 to 7). Bus lock held. */
void pci_bus_set_pirq(struct pci_bus *bus, unsigned n, uint8_t value);

/*
 * What firmware does, for a kernel that is booted without any: an address for every BAR (32-bit
 * ones in the low window, 64-bit ones above RAM), decode and bus mastering on, interrupt lines.
 */
void pci_assign_resources(struct pci_bus *bus);

/* First address above RAM for 64-bit BARs, 1 GiB aligned. */
uint64_t pci_high_window(const struct machine *m);

/*
 * Interrupt pin (0 INTA ... 3 INTD) of a function on the root bus to IOAPIC pin: PIRQ (slot + pin)
 * & 7, and PIRQ A to H are pins 16 to 23. The same in _PRT.
 */
unsigned pci_intx_gsi(unsigned devfn, unsigned pin);

/* One configuration access of 1, 2 or 4 bytes inside the 4 KiB, as a guest makes it. Takes the
 * bus's lock. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned size,
                      uint32_t value);

/* ---- a function -------------------------------------------------------------------------------
 */

struct pci_identity {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: base, sub, interface */
    uint8_t revision;
    uint8_t pin; /* 0: no INTx, 1 INTA */
};

/* Zeroes *d and writes the type 0 header. */
void pci_device_init(struct pci_device *d, const struct pci_device_ops *ops, const char *name,
                     const struct pci_identity *id);
/* region gives ops, device, lock and name. Offsets that callbacks see lie inside size. */
int pci_bar_init(struct pci_device *d, unsigned bar, enum pci_bar_kind kind, uint64_t size,
                 const struct bus_region *region);
/*
 * Appends a capability: 2 bytes of header, then `len - 2` bytes of body, read-only unless mask says
 * otherwise (NULL: all read-only). Returns its offset, or -ENOSPC.
 */
int pci_capability_add(struct pci_device *d, uint8_t id, const void *body, const void *mask,
                       unsigned len);
/* MSI-X with its table and pending bits alone in this 32-bit BAR. vectors: 1 to PCI_MSIX_MAX. */
int pci_msix_init(struct pci_device *d, unsigned bar, unsigned vectors);

/* Puts it on the bus; devfn -1: function 0 of the first free slot. -EBUSY taken, -ENOSPC bus full.
 */
int pci_add(struct pci_bus *bus, struct pci_device *d, int devfn, struct qz_error *err);
void pci_remove(struct pci_device *d); /* off the bus, and frees what the core allocated */

/* Access to a BAR past the bus (VIRTIO_PCI_CAP_PCI_CFG): false when it is not wholly inside. */
bool pci_bar_access(struct pci_device *d, unsigned bar, uint64_t offset, unsigned size,
                    uint64_t *value, bool write);

bool pci_msix_enabled(struct pci_device *d);
/* Sends vector's message, or keeps it pending while masked. Nothing when MSI-X is off or no such
 * vector. */
void pci_msix_notify(struct pci_device *d, unsigned vector);
/* INTx pin; shown on the line only while MSI-X is off and COMMAND lets it through. */
void pci_intx_set(struct pci_device *d, bool level);

#endif

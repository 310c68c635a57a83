/*
 * pci_q35.c - host bridge (8086:29c0) and LPC bridge (8086:2918) of a q35 board.
 *
 * Both are mostly storage that firmware writes and reads back. What acts: PCIEXBAR (where ECAM is),
 * PMBASE with ACPI_CNTL (where the ACPI block is), and the PIRQ routing registers (which ISA IRQ a
 * PIC sees an INTx on). The PAM, SMRAM and TSEG registers move no memory: RAM is RAM everywhere
 * below 1 MiB, there is no system management mode to hide anything for.
 *
 * At reset ECAM is on at 0xe0000000 and the ACPI block at 0x600, where the real parts start with
 * both off: a kernel booted without firmware needs them, and firmware sets them to what it wants.
 *
 * Specifications: Intel 3 Series Express Chipset (MCH) §5.1, Intel I/O Controller Hub 9 §13.1.
 */
#include "devices/pci_q35.h"

#include <linux/pci_regs.h>

#include "devices/acpi_pm.h"

enum {
    MCH_PCIEXBAR = 0x60,
    MCH_PAM0 = 0x90,
    MCH_SMRAM = 0x9d,
    MCH_ESMRAMC = 0x9e,
    MCH_TOM = 0xa0,
    MCH_TOLUD = 0xb0,
    PCIEXBAR_ENABLE = 1,

    LPC_PMBASE = 0x40,
    LPC_ACPI_CNTL = 0x44,
    LPC_GPIOBASE = 0x48,
    LPC_PIRQA = 0x60,
    LPC_PIRQE = 0x68,
    LPC_DECODE = 0x80,
    LPC_GEN_PMCON = 0xa0,
    LPC_BIOS_CNTL = 0xdc,
    LPC_RCBA = 0xf0,
    ACPI_ENABLE = 0x80,
    PIRQ_DISABLED = 0x80,
};

struct pci_q35 {
    struct pci_device mch, lpc;
    void (*pmbase_changed)(void *context, uint16_t base, bool enabled);
    void *context;
    bool pm_known, pm_enabled;
    uint16_t pm_base;
};

static void storage(struct pci_device *d, unsigned from, unsigned to)
{
    memset(d->writable + from, 0xff, to - from);
}

static bool touches(unsigned offset, unsigned len, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + len;
}

static void mch_written(struct pci_device *d, unsigned offset, unsigned len)
{
    static const uint32_t mib[] = {256, 128, 64, 0}; /* LENGTH; 3 is reserved: no ECAM */
    uint64_t bar, size;

    if (!touches(offset, len, MCH_PCIEXBAR, 8))
        return;
    bar = qz_load_le64(d->config + MCH_PCIEXBAR);
    size = bar & PCIEXBAR_ENABLE ? (uint64_t)mib[bar >> 1 & 3] << 20 : 0;
    pci_bus_set_ecam(d->bus, size ? bar & 0xffc000000ull & ~(size - 1) : 0, size);
}

static void lpc_written(struct pci_device *d, unsigned offset, unsigned len)
{
    struct pci_q35 *q = QZ_CONTAINER_OF(d, struct pci_q35, lpc);

    for (unsigned n = 0; n < 8; n++) {
        unsigned reg = n < 4 ? LPC_PIRQA + n : LPC_PIRQE + n - 4;

        if (touches(offset, len, reg, 1))
            pci_bus_set_pirq(d->bus, n, d->config[reg]);
    }
    if (touches(offset, len, LPC_PMBASE, 8)) {
        uint16_t base = qz_load_le16(d->config + LPC_PMBASE) & 0xff80;
        bool enabled = base && d->config[LPC_ACPI_CNTL] & ACPI_ENABLE;

        if (q->pm_known && q->pm_base == base && q->pm_enabled == enabled)
            return;
        q->pm_known = true;
        q->pm_base = base;
        q->pm_enabled = enabled;
        if (q->pmbase_changed)
            q->pmbase_changed(q->context, base, enabled);
    }
}

static const struct pci_device_ops mch_ops = {.config_written = mch_written};
static const struct pci_device_ops lpc_ops = {.config_written = lpc_written};

static void mch_init(struct pci_device *d, const struct guest_memory *memory)
{
    pci_device_init(d, &mch_ops, "q35 host bridge",
                    &(struct pci_identity){.vendor = 0x8086,
                                           .device = 0x29c0,
                                           .class_code = 0x060000,
                                           .subsystem_vendor = 0x8086,
                                           .subsystem = 0x29c0,
                                           .revision = 2});
    /* A host bridge is always on (§5.1.3). */
    qz_store_le16(d->config + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    qz_store_le16(d->writable + PCI_COMMAND, PCI_COMMAND_SERR);
    storage(d, 0x40, 0x60); /* EPBAR, MCHBAR, DEVEN, extended TSEG */
    qz_store_le64(d->config + MCH_PCIEXBAR, PCI_ECAM_DEFAULT | PCIEXBAR_ENABLE);
    qz_store_le64(d->writable + MCH_PCIEXBAR, 0xffc000007ull); /* bits 35:26, length, enable */
    storage(d, 0x68, 0x70);                                    /* DMIBAR */
    storage(d, MCH_PAM0, MCH_PAM0 + 7);
    storage(d, 0x97, 0xb2); /* LAC, REMAP, SMRAM, ESMRAMC, TOM ... TOLUD */
    d->config[MCH_SMRAM] = 0x02;
    d->config[MCH_ESMRAMC] = 0x38;
    /* Top of memory in 64 MiB, of usable memory below 4 GiB in MiB << 4 (§5.1.29, §5.1.35). */
    qz_store_le16(d->config + MCH_TOM, (uint16_t)(memory->size >> 26));
    qz_store_le16(d->config + MCH_TOLUD, (uint16_t)(memory->low_size >> 20 << 4));
}

static void lpc_init(struct pci_device *d)
{
    pci_device_init(d, &lpc_ops, "ICH9 LPC bridge",
                    &(struct pci_identity){.vendor = 0x8086,
                                           .device = 0x2918,
                                           .class_code = 0x060100,
                                           .subsystem_vendor = 0x8086,
                                           .subsystem = 0x2918,
                                           .revision = 2});
    d->config[PCI_HEADER_TYPE] = 0x80; /* one of several functions, as on the real part */
    qz_store_le16(d->config + PCI_COMMAND,
                  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    qz_store_le16(d->writable + PCI_COMMAND, PCI_COMMAND_SERR);
    qz_store_le32(d->config + LPC_PMBASE, ACPI_PM_BASE | 1); /* bit 0: I/O space */
    qz_store_le32(d->writable + LPC_PMBASE, 0xff80);
    d->config[LPC_ACPI_CNTL] = ACPI_ENABLE;
    d->writable[LPC_ACPI_CNTL] = ACPI_ENABLE | 7;
    qz_store_le32(d->config + LPC_GPIOBASE, 1);
    qz_store_le32(d->writable + LPC_GPIOBASE, 0xff80);
    d->writable[LPC_GPIOBASE + 4] = 0x10; /* GC: GPIO enable */
    for (unsigned n = 0; n < 4; n++) {
        d->config[LPC_PIRQA + n] = d->config[LPC_PIRQE + n] = PIRQ_DISABLED;
        d->writable[LPC_PIRQA + n] = d->writable[LPC_PIRQE + n] = PIRQ_DISABLED | 15;
    }
    d->config[0x64] = 0x10; /* SIRQ_CNTL */
    d->writable[0x64] = 0xff;
    storage(d, LPC_DECODE,
            LPC_DECODE + 0x14); /* which ports reach the LPC bus: all that exist here do */
    storage(d, LPC_GEN_PMCON, LPC_GEN_PMCON + 0x10);
    d->writable[LPC_BIOS_CNTL] = 0x1f;
    qz_store_le32(d->writable + LPC_RCBA, 0xffffc001);
}

int pci_q35_new(struct pci_q35 **out, struct machine *m,
                void (*pmbase_changed)(void *context, uint16_t base, bool enabled), void *context,
                struct qz_error *err)
{
    struct pci_q35 *q = calloc(1, sizeof(*q));
    int r;

    if (!q)
        return qz_fail(err, -ENOMEM, "q35 bridges: no memory");
    q->pmbase_changed = pmbase_changed;
    q->context = context;
    mch_init(&q->mch, &m->memory);
    lpc_init(&q->lpc);
    r = pci_add(m->pci, &q->mch, PCI_DEVFN(0, 0), err);
    if (r == 0)
        r = pci_add(m->pci, &q->lpc, PCI_DEVFN(31, 0), err);
    if (r < 0) {
        pci_q35_free(q);
        return r;
    }
    *out = q;
    return 0;
}

void pci_q35_free(struct pci_q35 *q)
{
    if (!q)
        return;
    pci_remove(&q->lpc);
    pci_remove(&q->mch);
    free(q);
}

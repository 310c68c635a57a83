/*
 * pci_q35.h - the two functions of a q35 board that firmware and kernels look for: the memory controller hub (MCH)
 * at 00:00.0 and the ICH9's LPC bridge at 00:1f.0.
 */
#ifndef VMM_PCI_Q35_H
#define VMM_PCI_Q35_H

#include "devices/pci.h"

struct pci_q35;

struct pci_q35_config {
    /*
     * The ACPI I/O block is at base, or hidden: from PMBASE and ACPI_CNTL. Called at construction, at reset and at
     * each change, with the PCI bus's lock held. May be NULL.
     */
    void (*pmbase_changed)(void *context, uint16_t base, bool enabled);
    void *context;
};

/* On m->pci, which exists. */
int pci_q35_new(struct pci_q35 **q35, struct machine *m, const struct pci_q35_config *config, struct qz_error *err);
void pci_q35_free(struct pci_q35 *q35);

#endif

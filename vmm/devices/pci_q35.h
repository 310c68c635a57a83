/*
 * pci_q35.h - the two functions of a q35 board that firmware and kernels look for: the memory
 * controller hub (MCH) at 00:00.0 and the ICH9's LPC bridge at 00:1f.0.
 */
#ifndef VMM_PCI_Q35_H
#define VMM_PCI_Q35_H

#include "devices/pci.h"

struct pci_q35;

/*
 * Both on m->pci, which exists. pmbase_changed (may be NULL): the ACPI I/O block is at base, or
 * hidden, as PMBASE and ACPI_CNTL say. Called at construction, at reset and at each change, with
 * the PCI bus's lock held.
 */
int pci_q35_new(struct pci_q35 **q35, struct machine *m,
                void (*pmbase_changed)(void *context, uint16_t base, bool enabled), void *context,
                struct qz_error *err);
void pci_q35_free(struct pci_q35 *q35);

#endif

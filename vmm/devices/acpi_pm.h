/*
 * acpi_pm.h - the ICH9's ACPI block: power button, sleep, PM timer, and beside it the fixed ports
 * that reset or report: i8042 (0x60, 0x64) lives in i8042.h, 0xcf9 with the PCI bus.
 */
#ifndef VMM_ACPI_PM_H
#define VMM_ACPI_PM_H

#include "machine/machine.h"

#define ACPI_PM_BASE  0x600 /* where direct kernel boot and OVMF both expect it */
#define ACPI_SCI_GSI  9
#define ACPI_SLEEP_S5 0 /* SLP_TYP value for S5, as the DSDT's \_S5 says */

/* General-purpose events; for each the DSDT has a method in \_GPE (ACPI 6.4 §5.6.4). */
enum { ACPI_GPE_VMGENID = 5, ACPI_GPES = 64 };

struct acpi_pm;

int acpi_pm_new(struct acpi_pm **pm, struct machine *m, struct qz_error *err);
void acpi_pm_free(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);
void acpi_pm_state(struct acpi_pm *pm, struct qz_state *s); /* saved or loaded, the clock stands */

/* Moves or hides the 128 byte I/O block; from the LPC bridge's PMBASE and ACPI_CNTL. */
void acpi_pm_map(struct acpi_pm *pm, uint16_t base, bool enabled);
/* Presses the power button once. Any thread. False when no guest listens (PWRBTN_EN clear). */
bool acpi_pm_power_button(struct acpi_pm *pm);
/* Event `gpe` has happened; the guest learns it when it listens. Any thread. */
void acpi_pm_event(struct acpi_pm *pm, unsigned gpe);

#endif

/* acpi_tables.h - the ACPI tables of the PC that pc.c builds. */
#ifndef VMM_ACPI_TABLES_H
#define VMM_ACPI_TABLES_H

#include <queztl/acpi.h>

#include "machine/machine.h"

/* Everything but the RSDP, not yet finished; the caller places or exports the set and frees it. */
void acpi_tables_build(struct qz_acpi_tables *t, const struct machine *m);

#endif

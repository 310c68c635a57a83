/* testpc.h - a whole PC's tables, for the tests of lib/acpi. */
#ifndef QUEZTL_LIB_ACPI_TESTPC_H
#define QUEZTL_LIB_ACPI_TESTPC_H

#include <queztl/acpi.h>

enum { TESTPC_CPUS_MAX = 512 };

/* Adds every table and every AML construct this library makes. Processor i has APIC id and uid i.
 */
void testpc_build(struct qz_acpi_tables *t, unsigned n_cpus, bool x2apic_only);

#endif

/*
 * madt.c - the MADT: processors, I/O APICs, interrupt overrides, NMI lines (ACPI 6.4 §5.2.12).
 *
 * §5.2.12.12: a processor with an APIC id of 255 or more has an x2APIC entry; others have one only
 * when asked for, because old systems read the 8-bit entries alone.
 */
#include "internal.h"

enum {
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_X2APIC = 9,
    MADT_X2APIC_NMI = 10,
    CPU_ENABLED = 1 << 0,
    CPU_ONLINE_CAPABLE = 1 << 1,
};

static void put_cpu(struct qz_acpi_blob *b, const struct qz_acpi_cpu *c, bool x2apic)
{
    uint32_t flags = c->absent ? CPU_ONLINE_CAPABLE : CPU_ENABLED;

    if (x2apic) {
        qz_acpi_put8(b, MADT_X2APIC);
        qz_acpi_put8(b, 16);
        qz_acpi_put16(b, 0);
        qz_acpi_put32(b, c->apic_id);
        qz_acpi_put32(b, flags);
        qz_acpi_put32(b, c->uid);
    } else {
        qz_acpi_put8(b, MADT_LAPIC);
        qz_acpi_put8(b, 8);
        qz_acpi_put8(b, (uint8_t)c->uid);
        qz_acpi_put8(b, (uint8_t)c->apic_id);
        qz_acpi_put32(b, flags);
    }
}

static void put_nmi(struct qz_acpi_blob *b, const struct qz_acpi_lapic_nmi *n, bool x2apic)
{
    if (x2apic) {
        qz_acpi_put8(b, MADT_X2APIC_NMI);
        qz_acpi_put8(b, 12);
        qz_acpi_put16(b, n->flags);
        qz_acpi_put32(b, n->uid);
        qz_acpi_put8(b, n->lint);
        qz_acpi_put_zeros(b, 3);
    } else {
        qz_acpi_put8(b, MADT_LAPIC_NMI);
        qz_acpi_put8(b, 6);
        qz_acpi_put8(b, (uint8_t)n->uid); /* "all processors" becomes 0xff */
        qz_acpi_put16(b, n->flags);
        qz_acpi_put8(b, n->lint);
    }
}

void qz_acpi_add_madt(struct qz_acpi_tables *t, const struct qz_acpi_madt *m)
{
    struct qz_acpi_blob *b = &t->blob;
    size_t n_x2apic = 0;

    qz_acpi_table_begin(t, "APIC", 5);
    qz_acpi_put32(b, m->lapic_address ? m->lapic_address : 0xfee00000);
    qz_acpi_put32(b, m->has_8259 ? 1 : 0);
    for (size_t i = 0; i < m->n_cpus && !b->error; i++) {
        bool x2apic = cpu_needs_x2apic(&m->cpus[i], m->x2apic_only);

        n_x2apic += x2apic;
        put_cpu(b, &m->cpus[i], x2apic);
    }
    for (size_t i = 0; i < m->n_ioapics; i++) {
        qz_acpi_put8(b, MADT_IOAPIC);
        qz_acpi_put8(b, 12);
        qz_acpi_put8(b, m->ioapics[i].id);
        qz_acpi_put8(b, 0);
        qz_acpi_put32(b, m->ioapics[i].address);
        qz_acpi_put32(b, m->ioapics[i].gsi_base);
    }
    for (size_t i = 0; i < m->n_overrides; i++) {
        qz_acpi_put8(b, MADT_OVERRIDE);
        qz_acpi_put8(b, 10);
        qz_acpi_put8(b, 0); /* ISA bus */
        qz_acpi_put8(b, m->overrides[i].irq);
        qz_acpi_put32(b, m->overrides[i].gsi);
        qz_acpi_put16(b, m->overrides[i].flags);
    }
    for (size_t i = 0; i < m->n_nmis && !b->error; i++) {
        const struct qz_acpi_lapic_nmi *n = &m->nmis[i];
        size_t k;

        if (n->uid == QZ_ACPI_ALL_CPUS) {
            if (n_x2apic < m->n_cpus)
                put_nmi(b, n, false);
            if (n_x2apic)
                put_nmi(b, n, true);
            continue;
        }
        for (k = 0; k < m->n_cpus && m->cpus[k].uid != n->uid; k++)
            ;
        if (k == m->n_cpus) {
            qz_acpi_blob_fail(b, -EINVAL, "MADT: NMI line of processor %u, which is not there",
                              n->uid);
            break;
        }
        put_nmi(b, n, cpu_needs_x2apic(&m->cpus[k], m->x2apic_only));
    }
    qz_acpi_table_end(t);
}

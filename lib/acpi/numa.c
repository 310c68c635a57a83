/*
 * numa.c - which processors and memory belong together, how far apart they are and how fast: SRAT,
 * SLIT, HMAT (ACPI 6.4 §5.2.16, §5.2.17, §5.2.28).
 */
#include "internal.h"

enum {
    SRAT_APIC = 0,
    SRAT_MEMORY = 1,
    SRAT_X2APIC = 2,
    SRAT_INITIATOR = 5,
    NODES_MAX = 1024,
};

static void put_cpu_affinity(struct qz_acpi_blob *b, const struct qz_acpi_cpu *c, bool x2apic)
{
    if (x2apic) {
        qz_acpi_put8(b, SRAT_X2APIC);
        qz_acpi_put8(b, 24);
        qz_acpi_put16(b, 0);
        qz_acpi_put32(b, c->proximity);
        qz_acpi_put32(b, c->apic_id);
        qz_acpi_put32(b, 1); /* enabled */
        qz_acpi_put32(b, 0); /* clock domain */
        qz_acpi_put32(b, 0);
    } else {
        qz_acpi_put8(b, SRAT_APIC);
        qz_acpi_put8(b, 16);
        qz_acpi_put8(b, (uint8_t)c->proximity);
        qz_acpi_put8(b, (uint8_t)c->apic_id);
        qz_acpi_put32(b, 1);
        qz_acpi_put8(b, 0); /* SAPIC EID */
        qz_acpi_put8(b, (uint8_t)(c->proximity >> 8));
        qz_acpi_put16(b, (uint16_t)(c->proximity >> 16));
        qz_acpi_put32(b, 0);
    }
}

void qz_acpi_add_srat(struct qz_acpi_tables *t, const struct qz_acpi_srat *s)
{
    struct qz_acpi_blob *b = &t->blob;

    qz_acpi_table_begin(t, "SRAT", 3);
    qz_acpi_put32(b, 1); /* reserved, 1 for history's sake */
    qz_acpi_put64(b, 0);
    for (size_t i = 0; i < s->n_cpus && !b->error; i++)
        put_cpu_affinity(b, &s->cpus[i], cpu_needs_x2apic(&s->cpus[i], s->x2apic_only));
    for (size_t i = 0; i < s->n_memories && !b->error; i++) {
        const struct qz_acpi_memory *m = &s->memories[i];

        if (m->base + m->len < m->base)
            qz_acpi_blob_fail(b, -EINVAL, "SRAT: memory at 0x%llx runs past the address space",
                              (unsigned long long)m->base);
        qz_acpi_put8(b, SRAT_MEMORY);
        qz_acpi_put8(b, 40);
        qz_acpi_put32(b, m->proximity);
        qz_acpi_put16(b, 0);
        qz_acpi_put64(b, m->base);
        qz_acpi_put64(b, m->len);
        qz_acpi_put32(b, 0);
        qz_acpi_put32(b, 1 | (m->hotplug ? 2 : 0) | (m->nonvolatile ? 4 : 0));
        qz_acpi_put64(b, 0);
    }
    for (size_t i = 0; i < s->n_initiators && !b->error; i++) {
        const struct qz_acpi_initiator *g = &s->initiators[i];

        qz_acpi_put8(b, SRAT_INITIATOR);
        qz_acpi_put8(b, 32);
        qz_acpi_put8(b, 0);
        qz_acpi_put8(b, 1); /* a PCI device handle */
        qz_acpi_put32(b, g->proximity);
        qz_acpi_put16(b, g->segment);
        qz_acpi_put8(b, g->bus);
        qz_acpi_put8(b, g->devfn);
        qz_acpi_put_zeros(b, 12);
        qz_acpi_put32(b, 1 | (g->architectural ? 2 : 0));
        qz_acpi_put32(b, 0);
    }
    qz_acpi_table_end(t);
}

void qz_acpi_add_slit(struct qz_acpi_tables *t, const uint8_t *distance, size_t n)
{
    struct qz_acpi_blob *b = &t->blob;

    if (n == 0 || n > NODES_MAX) {
        qz_acpi_blob_fail(b, -EINVAL, "SLIT: %zu nodes", n);
        return;
    }
    for (size_t i = 0; i < n * n; i++) {
        bool self = i / n == i % n;

        if (self ? distance[i] != 10 : distance[i] <= 10) {
            qz_acpi_blob_fail(b, -EINVAL, "SLIT: distance %u from node %zu to node %zu",
                              distance[i], i / n, i % n);
            return;
        }
    }
    qz_acpi_table_begin(t, "SLIT", 1);
    qz_acpi_put64(b, n);
    qz_acpi_put_bytes(b, distance, n * n);
    qz_acpi_table_end(t);
}

/*
 * Entries are 16 bits with 0xffff for "unreachable", in units of entry_base_unit (1 ps or 1 MB/s at
 * the finest): the smallest power of ten that lets the largest value fit keeps round numbers exact.
 */
static uint64_t base_unit(const uint64_t *values, size_t n)
{
    uint64_t max = 0, unit = 1;

    for (size_t i = 0; i < n; i++)
        if (values[i] != QZ_ACPI_HMAT_UNREACHABLE)
            max = QZ_MAX(max, values[i]);
    while (max / unit >= 0xfffe)
        unit *= 10;
    return unit;
}

static uint16_t scaled(uint64_t value, uint64_t unit)
{
    uint64_t entry;

    if (value == QZ_ACPI_HMAT_UNREACHABLE)
        return 0xffff;
    entry = value / unit + (value % unit >= unit - unit / 2);
    /* Zero would say "not known". */
    return (uint16_t)(value && !entry ? 1 : entry);
}

static void put_locality(struct qz_acpi_blob *b, const struct qz_acpi_hmat_locality *l)
{
    size_t ni = l->n_initiators, nt = l->n_targets;
    uint64_t unit;

    if (!ni || !nt || ni > NODES_MAX || nt > NODES_MAX) {
        qz_acpi_blob_fail(b, -EINVAL, "HMAT: %zu initiators and %zu targets", ni, nt);
        return;
    }
    if (l->type > QZ_ACPI_HMAT_WRITE_BANDWIDTH || l->hierarchy > 3) {
        qz_acpi_blob_fail(b, -EINVAL, "HMAT: data type %d of hierarchy %u", (int)l->type,
                          l->hierarchy);
        return;
    }
    unit = base_unit(l->values, ni * nt);
    qz_acpi_put16(b, 1);
    qz_acpi_put16(b, 0);
    qz_acpi_put32(b, (uint32_t)(32 + 4 * ni + 4 * nt + 2 * ni * nt));
    qz_acpi_put8(b, l->hierarchy);
    qz_acpi_put8(b, (uint8_t)l->type);
    qz_acpi_put8(b, 0); /* minimum transfer size: any */
    qz_acpi_put8(b, 0);
    qz_acpi_put32(b, (uint32_t)ni);
    qz_acpi_put32(b, (uint32_t)nt);
    qz_acpi_put32(b, 0);
    qz_acpi_put64(b, unit);
    for (size_t i = 0; i < ni; i++)
        qz_acpi_put32(b, l->initiators[i]);
    for (size_t i = 0; i < nt; i++)
        qz_acpi_put32(b, l->targets[i]);
    for (size_t i = 0; i < ni * nt && !b->error; i++)
        qz_acpi_put16(b, scaled(l->values[i], unit));
}

void qz_acpi_add_hmat(struct qz_acpi_tables *t, const struct qz_acpi_hmat *h)
{
    struct qz_acpi_blob *b = &t->blob;

    qz_acpi_table_begin(t, "HMAT", 2);
    qz_acpi_put32(b, 0);
    for (size_t i = 0; i < h->n_memories && !b->error; i++) {
        const struct qz_acpi_hmat_memory *m = &h->memories[i];

        qz_acpi_put16(b, 0);
        qz_acpi_put16(b, 0);
        qz_acpi_put32(b, 40);
        qz_acpi_put16(b, m->has_initiator ? 1 : 0);
        qz_acpi_put16(b, 0);
        qz_acpi_put32(b, m->has_initiator ? m->initiator : 0);
        qz_acpi_put32(b, m->memory);
        qz_acpi_put_zeros(b, 20);
    }
    for (size_t i = 0; i < h->n_localities && !b->error; i++)
        put_locality(b, &h->localities[i]);
    for (size_t i = 0; i < h->n_caches && !b->error; i++) {
        const struct qz_acpi_hmat_cache *c = &h->caches[i];

        if (c->total_levels > 3 || c->level > 3 || c->associativity > 2 || c->write_policy > 2)
            qz_acpi_blob_fail(b, -EINVAL, "HMAT: attributes of the cache before node %u",
                              c->memory);
        qz_acpi_put16(b, 2);
        qz_acpi_put16(b, 0);
        qz_acpi_put32(b, 32);
        qz_acpi_put32(b, c->memory);
        qz_acpi_put32(b, 0);
        qz_acpi_put64(b, c->size);
        qz_acpi_put32(b, (uint32_t)(c->total_levels | c->level << 4 | c->associativity << 8 |
                                    c->write_policy << 12) |
                             (uint32_t)c->line_size << 16);
        qz_acpi_put32(b, 0); /* reserved; no SMBIOS handles */
    }
    qz_acpi_table_end(t);
}

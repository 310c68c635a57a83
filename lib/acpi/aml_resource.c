/*
 * aml_resource.c - resource descriptors inside a resource template (ACPI 6.4 §6.4.2 small, §6.4.3
 * large).
 */
#include "internal.h"

enum {
    SMALL_IRQ = 0x22,       /* two bytes of mask */
    SMALL_IRQ_FLAGS = 0x23, /* and one of flags */
    SMALL_DMA = 0x2a,
    SMALL_IO = 0x47,
    LARGE_MEMORY32_FIXED = 0x86,
    LARGE_DWORD = 0x87,
    LARGE_WORD = 0x88,
    LARGE_INTERRUPT = 0x89,
    LARGE_QWORD = 0x8a,
    TYPE_MEMORY = 0,
    TYPE_IO = 1,
    TYPE_BUS = 2,
    MIN_FIXED = 1 << 2,
    MAX_FIXED = 1 << 3,
    CONSUMER = 1 << 0,
    ENTIRE_RANGE = 3, /* ISA and non-ISA ports */
};

static bool in_template(struct qz_aml *a, const char *what)
{
    return aml_in(a, FRAME_RESOURCES, what);
}

void qz_aml_io(struct qz_aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len)
{
    if (!in_template(a, "IO"))
        return;
    if (min > max || !len) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: %u ports from 0x%x to 0x%x", len, min, max);
        return;
    }
    qz_acpi_put8(a->out, SMALL_IO);
    qz_acpi_put8(a->out, 1); /* decodes 16 bits */
    qz_acpi_put16(a->out, min);
    qz_acpi_put16(a->out, max);
    qz_acpi_put8(a->out, align);
    qz_acpi_put8(a->out, len);
}

static bool irq_ok(struct qz_aml *a, unsigned irq)
{
    if (irq > 15)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: ISA interrupt %u", irq);
    return irq <= 15;
}

void qz_aml_irq_no_flags(struct qz_aml *a, unsigned irq)
{
    if (!in_template(a, "IRQNoFlags") || !irq_ok(a, irq))
        return;
    qz_acpi_put8(a->out, SMALL_IRQ);
    qz_acpi_put16(a->out, (uint16_t)(1u << irq));
}

void qz_aml_irq(struct qz_aml *a, unsigned irq, unsigned flags)
{
    if (!in_template(a, "IRQ") || !irq_ok(a, irq))
        return;
    qz_acpi_put8(a->out, SMALL_IRQ_FLAGS);
    qz_acpi_put16(a->out, (uint16_t)(1u << irq));
    qz_acpi_put8(a->out, (uint8_t)((flags & QZ_AML_EDGE ? 1 : 0) |
                                   (flags & QZ_AML_ACTIVE_LOW ? 1 << 3 : 0) |
                                   (flags & QZ_AML_SHARED ? 1 << 4 : 0)));
}

void qz_aml_dma(struct qz_aml *a, unsigned channel)
{
    if (!in_template(a, "DMA"))
        return;
    if (channel > 7) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: DMA channel %u", channel);
        return;
    }
    qz_acpi_put8(a->out, SMALL_DMA);
    qz_acpi_put8(a->out, (uint8_t)(1u << channel));
    qz_acpi_put8(a->out, 0);
}

void qz_aml_memory32_fixed(struct qz_aml *a, uint32_t base, uint32_t len, unsigned flags)
{
    if (!in_template(a, "Memory32Fixed"))
        return;
    qz_acpi_put8(a->out, LARGE_MEMORY32_FIXED);
    qz_acpi_put16(a->out, 9);
    qz_acpi_put8(a->out, flags & QZ_AML_MEM_RW);
    qz_acpi_put32(a->out, base);
    qz_acpi_put32(a->out, len);
}

void qz_aml_interrupts(struct qz_aml *a, const uint32_t *gsis, size_t n, unsigned flags)
{
    if (!in_template(a, "Interrupt"))
        return;
    if (n == 0 || n > 255) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: %zu interrupts in one descriptor", n);
        return;
    }
    qz_acpi_put8(a->out, LARGE_INTERRUPT);
    qz_acpi_put16(a->out, (uint16_t)(2 + 4 * n));
    qz_acpi_put8(a->out, (uint8_t)(CONSUMER | (flags & QZ_AML_EDGE ? 1 << 1 : 0) |
                                   (flags & QZ_AML_ACTIVE_LOW ? 1 << 2 : 0) |
                                   (flags & QZ_AML_SHARED ? 1 << 3 : 0)));
    qz_acpi_put8(a->out, (uint8_t)n);
    for (size_t i = 0; i < n; i++)
        qz_acpi_put32(a->out, gsis[i]);
}

void qz_aml_interrupt(struct qz_aml *a, uint32_t gsi, unsigned flags)
{
    qz_aml_interrupts(a, &gsi, 1, flags);
}

static void put_value(struct qz_acpi_blob *b, unsigned width, uint64_t v)
{
    if (width == 2)
        qz_acpi_put16(b, (uint16_t)v);
    else if (width == 4)
        qz_acpi_put32(b, (uint32_t)v);
    else
        qz_acpi_put64(b, v);
}

/* An address space descriptor (§6.4.3.5): both ends fixed, no translation, granularity zero. */
static void window(struct qz_aml *a, uint8_t tag, unsigned width, uint8_t type, uint64_t min,
                   uint64_t max, unsigned flags, uint8_t type_flags)
{
    uint64_t len = max - min + 1;

    if (!in_template(a, "an address window"))
        return;
    /* A window whose length does not fit its own field (all of the address space) cannot be told.
     */
    if (min > max || len == 0 || (width < 8 && len >> (8 * width))) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: window from 0x%llx to 0x%llx",
                          (unsigned long long)min, (unsigned long long)max);
        return;
    }
    qz_acpi_put8(a->out, tag);
    qz_acpi_put16(a->out, (uint16_t)(3 + 5 * width));
    qz_acpi_put8(a->out, type);
    qz_acpi_put8(a->out,
                 (uint8_t)(MIN_FIXED | MAX_FIXED | (flags & QZ_AML_CONSUMER ? CONSUMER : 0)));
    qz_acpi_put8(a->out, type_flags);
    put_value(a->out, width, 0);
    put_value(a->out, width, min);
    put_value(a->out, width, max);
    put_value(a->out, width, 0);
    put_value(a->out, width, len);
}

void qz_aml_word_bus(struct qz_aml *a, uint16_t min, uint16_t max)
{
    window(a, LARGE_WORD, 2, TYPE_BUS, min, max, 0, 0);
}

void qz_aml_word_io(struct qz_aml *a, uint16_t min, uint16_t max)
{
    window(a, LARGE_WORD, 2, TYPE_IO, min, max, 0, ENTIRE_RANGE);
}

void qz_aml_dword_io(struct qz_aml *a, uint32_t min, uint32_t max)
{
    window(a, LARGE_DWORD, 4, TYPE_IO, min, max, 0, ENTIRE_RANGE);
}

void qz_aml_dword_memory(struct qz_aml *a, uint32_t min, uint32_t max, unsigned flags)
{
    window(a, LARGE_DWORD, 4, TYPE_MEMORY, min, max, flags, flags & 7);
}

void qz_aml_qword_memory(struct qz_aml *a, uint64_t min, uint64_t max, unsigned flags)
{
    window(a, LARGE_QWORD, 8, TYPE_MEMORY, min, max, flags, flags & 7);
}

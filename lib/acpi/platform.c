/*
 * platform.c - the tables that describe fixed hardware: FADT, MCFG, HPET, SPCR, WAET.
 *
 * Sources: ACPI 6.4 §5.2.9 (FADT) and §5.2.3.2 (generic addresses); PCI Firmware 3.3 §4.1.2 (MCFG);
 * IA-PC HPET 1.0a §3.2.4; Microsoft's SPCR revision 2 and WAET documents.
 */
#include "internal.h"

static struct qz_acpi_gas gas(uint8_t space, uint64_t address, uint8_t bits)
{
    uint8_t access = bits == 8 ? 1 : bits == 16 ? 2 : bits == 32 ? 3 : bits == 64 ? 4 : 0;

    return (struct qz_acpi_gas){.space = space, .bits = bits, .access = access, .address = address};
}

struct qz_acpi_gas qz_acpi_gas_io(uint16_t port, uint8_t bits)
{
    return gas(QZ_ACPI_SPACE_IO, port, bits);
}

struct qz_acpi_gas qz_acpi_gas_mem(uint64_t gpa, uint8_t bits)
{
    return gas(QZ_ACPI_SPACE_MEMORY, gpa, bits);
}

static void put_gas(struct qz_acpi_blob *b, struct qz_acpi_gas g)
{
    qz_acpi_put8(b, g.space);
    qz_acpi_put8(b, g.bits);
    qz_acpi_put8(b, 0); /* bit offset */
    qz_acpi_put8(b, g.access);
    qz_acpi_put64(b, g.address);
}

/* A block of `len` bytes at an I/O port, read `access` bytes at a time; all zero where there is
 * none. */
static void put_io_block(struct qz_acpi_blob *b, uint16_t port, uint8_t len, uint8_t access_bits)
{
    struct qz_acpi_gas g = {0};

    if (port) {
        g = qz_acpi_gas_io(port, access_bits);
        g.bits = (uint8_t)QZ_MIN(len * 8, 255);
    }
    put_gas(b, g);
}

void qz_acpi_add_fadt(struct qz_acpi_tables *t, const struct qz_acpi_fadt *f)
{
    struct qz_acpi_blob *b = &t->blob;
    uint32_t flags = f->flags | (f->reset.address ? QZ_ACPI_FADT_RESET_REG_SUP : 0);
    uint8_t gpe0_len = f->gpe0 ? f->gpe0_len : 0;

    if (!f->pm1a_event || !f->pm1a_control)
        qz_acpi_blob_fail(b, -EINVAL, "FADT: PM1a event and control blocks are needed");
    if (gpe0_len % 2 || (f->gpe0 && !gpe0_len))
        qz_acpi_blob_fail(b, -EINVAL, "FADT: GPE0 block of %u bytes", gpe0_len);

    qz_acpi_table_begin(t, "FACP", 6);
    qz_acpi_put32(b, 0); /* FIRMWARE_CTRL, when the place is known */
    qz_acpi_put32(b, 0); /* DSDT, likewise */
    qz_acpi_put8(b, 0);
    qz_acpi_put8(b, f->profile);
    qz_acpi_put16(b, f->sci_irq);
    qz_acpi_put32(b, f->smi_command);
    qz_acpi_put8(b, f->acpi_enable);
    qz_acpi_put8(b, f->acpi_disable);
    qz_acpi_put8(b, 0); /* S4BIOS_REQ */
    qz_acpi_put8(b, 0); /* PSTATE_CNT */
    qz_acpi_put32(b, f->pm1a_event);
    qz_acpi_put32(b, 0); /* PM1b event */
    qz_acpi_put32(b, f->pm1a_control);
    qz_acpi_put32(b, 0); /* PM1b control */
    qz_acpi_put32(b, 0); /* PM2 control */
    qz_acpi_put32(b, f->pm_timer);
    qz_acpi_put32(b, f->gpe0);
    qz_acpi_put32(b, 0); /* GPE1 */
    qz_acpi_put8(b, 4);  /* PM1_EVT_LEN */
    qz_acpi_put8(b, 2);  /* PM1_CNT_LEN */
    qz_acpi_put8(b, 0);  /* PM2_CNT_LEN */
    qz_acpi_put8(b, f->pm_timer ? 4 : 0);
    qz_acpi_put8(b, gpe0_len);
    qz_acpi_put8(b, 0);      /* GPE1_BLK_LEN */
    qz_acpi_put8(b, 0);      /* GPE1_BASE */
    qz_acpi_put8(b, 0);      /* CST_CNT */
    qz_acpi_put16(b, 0xfff); /* P_LVL2_LAT: above 100, no C2 */
    qz_acpi_put16(b, 0xfff); /* P_LVL3_LAT: above 1000, no C3 */
    qz_acpi_put16(b, 0);     /* FLUSH_SIZE */
    qz_acpi_put16(b, 0);     /* FLUSH_STRIDE */
    qz_acpi_put8(b, 0);      /* DUTY_OFFSET */
    qz_acpi_put8(b, 0);      /* DUTY_WIDTH */
    qz_acpi_put8(b, 0);      /* DAY_ALRM */
    qz_acpi_put8(b, 0);      /* MON_ALRM */
    qz_acpi_put8(b, f->rtc_century);
    qz_acpi_put16(b, f->boot_arch);
    qz_acpi_put8(b, 0);
    qz_acpi_put32(b, flags);
    put_gas(b, f->reset);
    qz_acpi_put8(b, f->reset_value);
    qz_acpi_put16(b, 0); /* ARM_BOOT_ARCH */
    qz_acpi_put8(b, 4);  /* minor version: ACPI 6.4 */
    qz_acpi_put64(b, 0); /* X_FIRMWARE_CTRL, when the place is known */
    qz_acpi_put64(b, 0); /* X_DSDT, likewise */
    put_io_block(b, f->pm1a_event, 4, 16);
    put_io_block(b, 0, 0, 0);
    put_io_block(b, f->pm1a_control, 2, 16);
    put_io_block(b, 0, 0, 0);
    put_io_block(b, 0, 0, 0);
    put_io_block(b, f->pm_timer, 4, 32);
    put_io_block(b, f->gpe0, gpe0_len, 8);
    put_io_block(b, 0, 0, 0);
    put_io_block(b, 0, 0, 0); /* SLEEP_CONTROL_REG: hardware-reduced machines only */
    put_io_block(b, 0, 0, 0); /* SLEEP_STATUS_REG */
    qz_acpi_put_text(b, f->hypervisor ? f->hypervisor : "", 8, 0);
    qz_acpi_table_end(t);
}

void qz_acpi_add_mcfg(struct qz_acpi_tables *t, const struct qz_acpi_ecam *e, size_t n)
{
    struct qz_acpi_blob *b = &t->blob;

    qz_acpi_table_begin(t, "MCFG", 1);
    qz_acpi_put64(b, 0);
    for (size_t i = 0; i < n && !b->error; i++) {
        if (e[i].first_bus > e[i].last_bus)
            qz_acpi_blob_fail(b, -EINVAL, "MCFG: buses %u to %u", e[i].first_bus, e[i].last_bus);
        qz_acpi_put64(b, e[i].base);
        qz_acpi_put16(b, e[i].segment);
        qz_acpi_put8(b, e[i].first_bus);
        qz_acpi_put8(b, e[i].last_bus);
        qz_acpi_put32(b, 0);
    }
    qz_acpi_table_end(t);
}

void qz_acpi_add_hpet(struct qz_acpi_tables *t, const struct qz_acpi_hpet *h)
{
    struct qz_acpi_blob *b = &t->blob;
    struct qz_acpi_gas where = {.space = QZ_ACPI_SPACE_MEMORY, .address = h->address};

    qz_acpi_table_begin(t, "HPET", 1);
    qz_acpi_put32(b, h->block_id);
    put_gas(b, where);
    qz_acpi_put8(b, h->number);
    qz_acpi_put16(b, h->min_tick);
    qz_acpi_put8(b, 0); /* no page protection guarantee */
    qz_acpi_table_end(t);
}

void qz_acpi_add_spcr(struct qz_acpi_tables *t, const struct qz_acpi_spcr *s)
{
    static const struct {
        uint32_t baud;
        uint8_t code;
    } rates[] = {{0, 0}, {9600, 3}, {19200, 4}, {57600, 6}, {115200, 7}};
    struct qz_acpi_blob *b = &t->blob;
    size_t r;

    for (r = 0; r < QZ_ARRAY_LEN(rates) && rates[r].baud != s->baud; r++)
        ;
    if (r == QZ_ARRAY_LEN(rates)) {
        qz_acpi_blob_fail(b, -EINVAL, "SPCR: %u baud has no code", s->baud);
        return;
    }
    qz_acpi_table_begin(t, "SPCR", 2);
    qz_acpi_put8(b, 0); /* full 16550 */
    qz_acpi_put_zeros(b, 3);
    put_gas(b, s->base);
    qz_acpi_put8(b, s->irq ? 3 : 2); /* 8259 line and I/O APIC input, or the latter alone */
    qz_acpi_put8(b, s->irq);
    qz_acpi_put32(b, s->gsi);
    qz_acpi_put8(b, rates[r].code);
    qz_acpi_put8(b, 0);       /* no parity */
    qz_acpi_put8(b, 1);       /* one stop bit */
    qz_acpi_put8(b, 0);       /* no flow control */
    qz_acpi_put8(b, 3);       /* ANSI terminal */
    qz_acpi_put8(b, 0);       /* language */
    qz_acpi_put16(b, 0xffff); /* not a PCI device */
    qz_acpi_put16(b, 0xffff);
    qz_acpi_put_zeros(b, 3 + 4 + 1 + 4); /* bus, device, function; flags; segment; reserved */
    qz_acpi_table_end(t);
}

void qz_acpi_add_waet(struct qz_acpi_tables *t, uint32_t flags)
{
    qz_acpi_table_begin(t, "WAET", 1);
    qz_acpi_put32(&t->blob, flags);
    qz_acpi_table_end(t);
}

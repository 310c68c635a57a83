/*
 * pci_test.c - configuration space, BARs, bridges and interrupts of the PCI bus, by the accesses a
 * guest makes.
 */
#include "devices/pci.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/pci_regs.h>

#include "devices/acpi_pm.h"
#include "devices/pci_q35.h"
#include "devices/virtio/test_driver.h"
#include "test_state.h"

enum { SLOT = PCI_DEVFN(3, 0), MCH = 0, LPC = PCI_DEVFN(31, 0), VECTORS = 5 };

struct card { /* BAR 0: 4 KiB of 32-bit memory, BAR 1: MSI-X, BAR 2/3: 64 KiB of 64-bit memory, BAR
                 5: I/O */
    struct pci_device d;
    uint64_t last_offset, last_value;
    unsigned reads, writes, moves;
};

struct fixture {
    struct vtest_machine *tm;
    struct pci_q35 *q35;
    struct card card, other;
    uint16_t pm_base;
    bool pm_enabled;
    unsigned pm_calls;
};

static uint64_t card_read(void *device, uint64_t offset, unsigned size)
{
    struct card *c = device;

    c->reads++;
    c->last_offset = offset;
    return 0x8877665544332211;
}

static void card_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *c = device;

    c->writes++;
    c->last_offset = offset;
    c->last_value = value;
}

static void card_moved(struct pci_device *d, unsigned bar, bool mapped, uint64_t base)
{
    QZ_CONTAINER_OF(d, struct card, d)->moves++;
}

static const struct bus_ops card_bus_ops = {.read = card_read, .write = card_write};
static const struct pci_device_ops card_ops = {.bar_moved = card_moved};

static void card_init(struct card *c, const char *name)
{
    const struct pci_identity id = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0x088000, .pin = 1};
    const struct bus_region region = {.ops = &card_bus_ops, .device = c, .name = name};

    pci_device_init(&c->d, &card_ops, name, &id);
    assert_int_equal(pci_bar_init(&c->d, 0, PCI_BAR_MEM32, 4096, &region), 0);
    assert_int_equal(pci_msix_init(&c->d, 1, VECTORS), 0);
    assert_int_equal(pci_bar_init(&c->d, 2, PCI_BAR_MEM64_PREFETCH, 65536, &region), 0);
    assert_int_equal(pci_bar_init(&c->d, 3, PCI_BAR_MEM32, 4096, &region),
                     -EINVAL); /* upper half of BAR 2 */
    assert_int_equal(pci_bar_init(&c->d, 5, PCI_BAR_MEM64, 4096, &region), -EINVAL); /* no BAR 6 */
    assert_int_equal(pci_bar_init(&c->d, 4, PCI_BAR_MEM32, 5000, &region), -EINVAL);
    assert_int_equal(pci_bar_init(&c->d, 5, PCI_BAR_IO, 32, &region), 0);
}

static void on_pmbase(void *context, uint16_t base, bool enabled)
{
    struct fixture *f = context;

    f->pm_base = base;
    f->pm_enabled = enabled;
    f->pm_calls++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err;

    qz_log_set_level(QZ_LOG_ERROR);
    f->tm = vtest_machine_new(0);
    assert_int_equal(pci_q35_new(&f->q35, &f->tm->m, on_pmbase, f, &err), 0);
    card_init(&f->card, "card");
    card_init(&f->other, "other");
    assert_int_equal(pci_add(f->tm->m.pci, &f->card.d, SLOT, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    pci_remove(&f->card.d);
    pci_remove(&f->other.d);
    pci_q35_free(f->q35);
    vtest_machine_free(f->tm);
    free(f);
    return 0;
}

static uint32_t rd(struct fixture *f, unsigned devfn, unsigned reg, unsigned size)
{
    uint32_t v = vtest_config_read(f->tm, devfn, reg, size);

    /* Both doors show the same. */
    assert_int_equal(vtest_mmio_read(f->tm, vtest_ecam(f->tm, devfn, reg), size), v);
    return v;
}

static void wr(struct fixture *f, unsigned devfn, unsigned reg, unsigned size, uint32_t v)
{
    vtest_config_write(f->tm, devfn, reg, size, v);
}

static void test_config_space(void **state)
{
    struct fixture *f = *state;
    uint32_t v;

    assert_int_equal(rd(f, SLOT, 0, 4), 0x56781234);
    assert_int_equal(rd(f, SLOT, 1, 1), 0x12);
    assert_int_equal(rd(f, SLOT, 2, 2), 0x5678);
    assert_int_equal(rd(f, SLOT, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(rd(f, PCI_DEVFN(4, 0), 0, 4), UINT32_MAX); /* nobody */
    assert_int_equal(rd(f, PCI_DEVFN(3, 1), 0, 2), 0xffff);
    wr(f, SLOT, 0, 4, 0);
    assert_int_equal(rd(f, SLOT, 0, 4), 0x56781234);
    wr(f, SLOT, PCI_INTERRUPT_LINE, 1, 0x5a);
    wr(f, SLOT, PCI_CACHE_LINE_SIZE, 4, 0xffffffff); /* three read-only bytes beside it */
    assert_int_equal(rd(f, SLOT, PCI_INTERRUPT_LINE, 1), 0x5a);
    assert_int_equal(rd(f, SLOT, PCI_CACHE_LINE_SIZE, 4), 0xff);
    /* Other buses are empty. */
    v = 0x80000000u | 1 << 16 | SLOT << 8;
    bus_write(f->tm->m.pio, 0xcf8, &v, 4);
    bus_read(f->tm->m.pio, 0xcfc, &v, 4);
    assert_int_equal(v, UINT32_MAX);
    assert_int_equal(vtest_mmio_read(f->tm, PCI_ECAM_DEFAULT + (1 << 20) + (SLOT << 12), 4),
                     UINT32_MAX);
    /* Without the enable bit nothing answers. */
    v = SLOT << 8;
    bus_write(f->tm->m.pio, 0xcf8, &v, 4);
    bus_read(f->tm->m.pio, 0xcfc, &v, 4);
    assert_int_equal(v, UINT32_MAX);
    /* Narrow writes to the address register are not its. */
    v = 0x80000000u | SLOT << 8;
    bus_write(f->tm->m.pio, 0xcf8, &v, 4);
    bus_write(f->tm->m.pio, 0xcf8, "\x55\x55", 2);
    bus_write(f->tm->m.pio, 0xcfa, "\x55", 1);
    bus_read(f->tm->m.pio, 0xcf8, &v, 4);
    assert_int_equal(v, 0x80000000u | SLOT << 8);
    /* ECAM: 8 bytes at once, and an access over the end of a function. */
    assert_true(vtest_mmio_read(f->tm, vtest_ecam(f->tm, SLOT, 0), 8) >> 32 ==
                vtest_config_read(f->tm, SLOT, 4, 4));
    assert_int_equal(vtest_mmio_read(f->tm, vtest_ecam(f->tm, SLOT, 4094), 4), 0xffff0000);
    vtest_mmio_write(f->tm, PCI_ECAM_DEFAULT + PCI_ECAM_SIZE - 2, 8, 0);
}

static void test_reset_port(void **state)
{
    struct fixture *f = *state;
    uint8_t v;

    bus_write(f->tm->m.pio, 0xcf9, "\x02", 1);
    assert_int_equal(f->tm->requests[MACHINE_RESET], 0);
    bus_write(f->tm->m.pio, 0xcf9, "\x06", 1);
    assert_int_equal(f->tm->requests[MACHINE_RESET], 1);
    bus_read(f->tm->m.pio, 0xcf9, &v, 1);
    assert_int_equal(v, 6);
    pci_bus_reset(f->tm->m.pci);
    bus_write(f->tm->m.pio, 0xcf9, "\x0e", 1);
    assert_int_equal(f->tm->requests[MACHINE_RESET], 2);
}

static void test_bar_sizing(void **state)
{
    struct fixture *f = *state;
    static const uint32_t want[] = {0xfffff000, 0xfffff000, 0xffff000c, 0xffffffff, 0, 0xffffffe1};

    for (unsigned i = 0; i < PCI_BARS; i++) {
        wr(f, SLOT, PCI_BASE_ADDRESS_0 + i * 4, 4, UINT32_MAX);
        assert_int_equal(rd(f, SLOT, PCI_BASE_ADDRESS_0 + i * 4, 4), want[i]);
    }
    /* With decode on too: all ones is no address. */
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    assert_int_equal(f->card.moves, 0);
    assert_int_equal(rd(f, SLOT, PCI_ROM_ADDRESS, 4), 0);
}

static void test_bar_mapping(void **state)
{
    struct fixture *f = *state;
    struct card *c = &f->card;
    uint8_t byte = 9;

    wr(f, SLOT, PCI_BASE_ADDRESS_0, 4, 0xc1000000);
    assert_int_equal(vtest_mmio_read(f->tm, 0xc1000010, 4), UINT32_MAX);
    assert_int_equal(c->reads, 0);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(vtest_mmio_read(f->tm, 0xc1000010, 4), 0x44332211);
    assert_int_equal(c->last_offset, 0x10);
    /* Moves while decode is on. */
    wr(f, SLOT, PCI_BASE_ADDRESS_0, 4, 0xc2000000);
    assert_int_equal(vtest_mmio_read(f->tm, 0xc1000010, 4), UINT32_MAX);
    vtest_mmio_write(f->tm, 0xc2000ff8, 8, 0x1122334455667788);
    assert_true(c->last_value == 0x1122334455667788);
    assert_int_equal(c->last_offset, 0xff8);
    /* 64 bits, above 4 GiB: the low half alone first, as a guest programs it. */
    wr(f, SLOT, PCI_BASE_ADDRESS_2, 4, 0x10000);
    wr(f, SLOT, PCI_BASE_ADDRESS_3, 4, 0x12);
    assert_int_equal(vtest_mmio_read(f->tm, 0x1200010004, 1), 0x11);
    /* I/O needs its own decode bit. */
    wr(f, SLOT, PCI_BASE_ADDRESS_5, 4, 0xd000);
    bus_write(f->tm->m.pio, 0xd01f, &byte, 1);
    assert_int_not_equal(c->last_value, 9);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    bus_write(f->tm->m.pio, 0xd01f, &byte, 1);
    assert_int_equal(c->last_value, 9);
    assert_int_equal(c->last_offset, 0x1f);
    /* Off: gone. */
    wr(f, SLOT, PCI_COMMAND, 2, 0);
    c->reads = 0;
    assert_int_equal(vtest_mmio_read(f->tm, 0xc2000000, 4), UINT32_MAX);
    assert_int_equal(vtest_mmio_read(f->tm, 0x1200010004, 4), UINT32_MAX);
    assert_int_equal(c->reads, 0);
}

/* Onto another card, ECAM or the IOAPIC: stays unmapped, and appears when the way is free. */
static void test_bar_overlap(void **state)
{
    struct fixture *f = *state;
    enum { OTHER = PCI_DEVFN(4, 0) };

    assert_int_equal(pci_add(f->tm->m.pci, &f->other.d, -1, NULL), 0); /* first free slot: 1 */
    assert_int_equal(f->other.d.devfn, PCI_DEVFN(1, 0));
    wr(f, SLOT, PCI_BASE_ADDRESS_0, 4, 0xc1000000);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    wr(f, PCI_DEVFN(1, 0), PCI_BASE_ADDRESS_0, 4, 0xc1000000);
    wr(f, PCI_DEVFN(1, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    vtest_mmio_read(f->tm, 0xc1000000, 4);
    assert_int_equal(f->card.reads, 1);
    assert_int_equal(f->other.reads, 0);
    wr(f, SLOT, PCI_COMMAND, 2, 0);
    vtest_mmio_read(f->tm, 0xc1000000, 4);
    assert_int_equal(f->card.reads, 1);
    assert_int_equal(f->other.reads, 1);
    wr(f, PCI_DEVFN(1, 0), PCI_BASE_ADDRESS_0, 4, IOAPIC_BASE);
    wr(f, PCI_DEVFN(1, 0), PCI_BASE_ADDRESS_2, 4, PCI_ECAM_DEFAULT);
    vtest_mmio_read(f->tm, IOAPIC_BASE, 4);
    assert_int_equal(f->other.reads, 1);
    assert_int_equal(rd(f, SLOT, 0, 4), 0x56781234); /* ECAM stands */
    /* Its own two onto each other. */
    wr(f, SLOT, PCI_BASE_ADDRESS_0, 4, 0xc3000000);
    wr(f, SLOT, PCI_BASE_ADDRESS_1, 4, 0xc3000000);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    vtest_mmio_read(f->tm, 0xc3000000, 4);
    assert_int_equal(f->card.reads, 2);
}

static void test_slots(void **state)
{
    struct fixture *f = *state;
    struct qz_error err;
    struct card *many = calloc(PCI_SLOTS, sizeof(*many));
    unsigned n = 0;

    assert_int_equal(pci_add(f->tm->m.pci, &f->other.d, SLOT, &err), -EBUSY);
    for (; n < PCI_SLOTS; n++) {
        const struct pci_identity id = {.vendor = 1, .device = 2};

        pci_device_init(&many[n].d, &card_ops, "many", &id);
        if (pci_add(f->tm->m.pci, &many[n].d, -1, &err) < 0)
            break;
    }
    assert_int_equal(n, PCI_SLOTS - 3); /* less bridge, LPC, card */
    assert_non_null(strstr(err.text, "slot"));
    for (unsigned i = 0; i <= n; i++)
        pci_remove(&many[i].d);
    free(many);
}

static void test_assign(void **state)
{
    struct fixture *f = *state;
    uint64_t wide;

    assert_int_equal(pci_add(f->tm->m.pci, &f->other.d, -1, NULL), 0);
    for (unsigned round = 0; round < 2; round++) {
        pci_assign_resources(f->tm->m.pci);
        for (unsigned i = 0; i < 2; i++) {
            struct card *c = i ? &f->other : &f->card;

            for (unsigned b = 0; b < PCI_BARS; b++)
                assert_int_equal(c->d.bar[b].mapped, c->d.bar[b].size != 0);
            assert_true(c->d.bar[0].region.base >= PCI_LOW_WINDOW &&
                        c->d.bar[0].region.base < PCI_LOW_WINDOW_END);
            wide = c->d.bar[2].region.base;
            assert_true(wide >= pci_high_window(&f->tm->m) && wide % 65536 == 0);
            assert_int_equal(rd(f, c->d.devfn, PCI_INTERRUPT_LINE, 1), pci_intx_gsi(c->d.devfn, 0));
            assert_int_equal(rd(f, c->d.devfn, PCI_COMMAND, 2),
                             PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        }
        pci_bus_reset(f->tm->m.pci);
        assert_false(f->card.d.bar[0].mapped);
        assert_int_equal(rd(f, SLOT, PCI_COMMAND, 2), 0);
        assert_int_equal(rd(f, SLOT, PCI_BASE_ADDRESS_2, 4), 0xc);
    }
    assert_int_equal(pci_intx_gsi(SLOT, 0), 19);
    assert_int_equal(pci_intx_gsi(SLOT, 3), 22);
    assert_int_equal(pci_intx_gsi(PCI_DEVFN(31, 0), 3), 18);
}

static void test_ecam_moves(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint32_t low, high;
        uint64_t base, size;
    } at[] = {{0xb0000001, 0, 0xb0000000, 256 << 20},
              {0xc8000003, 0, 0xc8000000, 128 << 20},
              {0xcc000005, 0, 0xcc000000, 64 << 20},
              {0x80000001, 2, 0x280000000, 256 << 20},
              {0xc8000001, 0, 0xc0000000, 256 << 20}}; /* not aligned: rounded down */

    for (unsigned i = 0; i < QZ_ARRAY_LEN(at); i++) {
        vtest_config_write(f->tm, MCH, 0x60, 4, 0);
        assert_int_equal(vtest_mmio_read(f->tm, PCI_ECAM_DEFAULT, 4), UINT32_MAX);
        vtest_config_write(f->tm, MCH, 0x64, 4, at[i].high);
        vtest_config_write(f->tm, MCH, 0x60, 4, at[i].low);
        assert_int_equal(vtest_mmio_read(f->tm, at[i].base, 4), 0x29c08086);
        assert_int_equal(vtest_mmio_read(f->tm, at[i].base + (SLOT << 12), 4), 0x56781234);
        assert_int_equal(vtest_mmio_read(f->tm, at[i].base + at[i].size, 4), UINT32_MAX);
    }
    vtest_config_write(f->tm, MCH, 0x60, 4, 0xb0000007); /* reserved length */
    assert_int_equal(vtest_mmio_read(f->tm, 0xb0000000, 4), UINT32_MAX);
    /* Through itself, onto the IOAPIC: stays away, and comes back. */
    vtest_config_write(f->tm, MCH, 0x60, 4, 0xb0000001);
    vtest_mmio_write(f->tm, 0xb0000060, 4, 0xf0000001);
    assert_int_equal(vtest_mmio_read(f->tm, 0xb0000000, 4), UINT32_MAX);
    assert_int_equal(vtest_mmio_read(f->tm, 0xf0000000, 4), UINT32_MAX);
    vtest_config_write(f->tm, MCH, 0x60, 4, 0xe0000001);
    assert_int_equal(vtest_mmio_read(f->tm, 0xe0000000, 4), 0x29c08086);
    pci_bus_reset(f->tm->m.pci);
    assert_int_equal(vtest_mmio_read(f->tm, PCI_ECAM_DEFAULT, 4), 0x29c08086);
}

static void test_bridges(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(rd(f, MCH, 0, 4), 0x29c08086);
    assert_int_equal(rd(f, MCH, PCI_CLASS_REVISION, 4) >> 8, 0x060000);
    assert_int_equal(rd(f, LPC, 0, 4), 0x29188086);
    assert_int_equal(rd(f, LPC, PCI_CLASS_REVISION, 4) >> 8, 0x060100);
    assert_int_equal(rd(f, LPC, PCI_HEADER_TYPE, 1), 0x80);
    wr(f, MCH, 0x90, 4, 0x33333333);
    assert_int_equal(rd(f, MCH, 0x90, 4), 0x33333333);
    /* The ACPI block. */
    assert_int_equal(f->pm_calls, 1);
    assert_int_equal(f->pm_base, ACPI_PM_BASE);
    assert_true(f->pm_enabled);
    wr(f, LPC, 0x40, 4, 0xffffb07f);
    assert_int_equal(rd(f, LPC, 0x40, 4), 0xb001);
    assert_int_equal(f->pm_base, 0xb000);
    wr(f, LPC, 0x44, 1, 0);
    assert_false(f->pm_enabled);
    assert_int_equal(f->pm_calls, 3);
    wr(f, LPC, 0x44, 1, 0); /* nothing new */
    assert_int_equal(f->pm_calls, 3);
    pci_bus_reset(f->tm->m.pci);
    assert_int_equal(f->pm_base, ACPI_PM_BASE);
    assert_true(f->pm_enabled);
    for (unsigned reg = 0x60; reg < 0x64; reg++) {
        assert_int_equal(rd(f, LPC, reg, 1), 0x80);
        assert_int_equal(rd(f, LPC, reg + 8, 1), 0x80);
    }
    wr(f, LPC, 0x60, 1, 0x7b);
    assert_int_equal(rd(f, LPC, 0x60, 1), 0x0b);
}

static void program_msix(struct fixture *f, unsigned v, bool masked)
{
    uint64_t entry = 0xc4000000 + v * 16;

    vtest_mmio_write(f->tm, entry, 8, 0xfee01003); /* low bits do not stick */
    vtest_mmio_write(f->tm, entry + 8, 8, (0x40 + v) | (uint64_t)masked << 32);
}

static void test_msix(void **state)
{
    struct fixture *f = *state;
    struct vtest_machine *tm = f->tm;
    unsigned cap = rd(f, SLOT, PCI_CAPABILITY_LIST, 1);
    uint64_t pba;

    assert_int_equal(rd(f, SLOT, cap, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(rd(f, SLOT, cap + 2, 2), VECTORS - 1);
    assert_int_equal(rd(f, SLOT, cap + PCI_MSIX_TABLE, 4), 1);
    pba = 0xc4000000 + (rd(f, SLOT, cap + PCI_MSIX_PBA, 4) & ~7u);
    wr(f, SLOT, PCI_BASE_ADDRESS_1, 4, 0xc4000000);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(vtest_mmio_read(tm, 0xc4000000 + 12, 4), 1); /* masked at first */
    for (unsigned v = 0; v < VECTORS; v++)
        program_msix(f, v, v == 2);
    assert_int_equal(vtest_mmio_read(tm, 0xc4000000, 4), 0xfee01000);
    pci_msix_notify(&f->card.d, 1); /* MSI-X off: lost */
    assert_int_equal(tm->msi_count, 0);
    wr(f, SLOT, cap + 2, 2, PCI_MSIX_FLAGS_ENABLE);
    pci_msix_notify(&f->card.d, 1);
    assert_int_equal(tm->msi_count, 1);
    assert_int_equal(tm->msi[0].data, 0x41);
    assert_true(tm->msi[0].address == 0xfee01000);
    /* Masked: pending, then sent once. */
    pci_msix_notify(&f->card.d, 2);
    pci_msix_notify(&f->card.d, 2);
    assert_int_equal(tm->msi_count, 1);
    assert_int_equal(vtest_mmio_read(tm, pba, 8), 1 << 2);
    vtest_mmio_write(tm, pba, 8, 0); /* read-only */
    assert_int_equal(vtest_mmio_read(tm, pba, 4), 1 << 2);
    vtest_mmio_write(tm, 0xc4000000 + 2 * 16 + 12, 4, 0);
    assert_int_equal(vtest_msi_count(tm, 0x42), 1);
    assert_int_equal(vtest_mmio_read(tm, pba, 8), 0);
    /* All masked. */
    wr(f, SLOT, cap + 2, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    pci_msix_notify(&f->card.d, 3);
    assert_int_equal(vtest_msi_count(tm, 0x43), 0);
    wr(f, SLOT, cap + 2, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(vtest_msi_count(tm, 0x43), 1);
    pci_msix_notify(&f->card.d, VECTORS); /* no such vector */
    pci_msix_notify(&f->card.d, UINT32_MAX);
    assert_int_equal(tm->msi_count, 3);
    /* Every size at every place of the BAR. */
    for (uint64_t at = 0; at < 4096; at++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            vtest_mmio_read(tm, 0xc4000000 + at, size);
            vtest_mmio_write(tm, 0xc4000000 + at, size, 0);
        }
}

static bool intx_wire(struct fixture *f)
{
    return f->card.d.intx_wired;
}

static void test_intx(void **state)
{
    struct fixture *f = *state;
    unsigned cap = rd(f, SLOT, PCI_CAPABILITY_LIST, 1);

    pci_intx_set(&f->card.d, true);
    assert_true(intx_wire(f));
    assert_true(f->card.d.line.level);
    assert_int_equal(f->card.d.line.gsi, 19);
    assert_int_not_equal(rd(f, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_false(intx_wire(f));
    assert_int_not_equal(rd(f, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
                         0); /* shown all the same */
    wr(f, SLOT, PCI_COMMAND, 2, 0);
    assert_true(intx_wire(f));
    wr(f, SLOT, cap + 2, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_false(intx_wire(f));
    wr(f, SLOT, cap + 2, 2, 0);
    assert_true(intx_wire(f));
    pci_bus_reset(f->tm->m.pci);
    assert_false(intx_wire(f));
    assert_false(f->card.d.line.level);
}

static uint8_t pic2_requests(struct fixture *f)
{
    uint8_t v = 0x0a; /* OCW3: read the request register next */

    bus_write(f->tm->m.pio, 0xa0, &v, 1);
    bus_read(f->tm->m.pio, 0xa0, &v, 1);
    return v;
}

/* In PIC mode PIRQD (slot 3, INTA) goes to the ISA IRQ its routing register names. */
static void test_pirq(void **state)
{
    struct fixture *f = *state;

    for (unsigned port = 0x20; port <= 0xa0; port += 0x80) { /* ICW1 to ICW4 */
        bus_write(f->tm->m.pio, port, "\x11", 1);
        bus_write(f->tm->m.pio, port + 1, port == 0x20 ? "\x08" : "\x70", 1);
        bus_write(f->tm->m.pio, port + 1, port == 0x20 ? "\x04" : "\x02", 1);
        bus_write(f->tm->m.pio, port + 1, "\x01", 1);
    }
    bus_write(f->tm->m.pio, 0x4d1, "\x0c", 1); /* IRQ 10 and 11 level triggered */
    pci_intx_set(&f->card.d, true);
    assert_int_equal(pic2_requests(f), 0);
    wr(f, LPC, 0x63, 1, 10);
    assert_int_equal(pic2_requests(f), 1 << 2);
    wr(f, LPC, 0x63, 1, 11);
    assert_int_equal(pic2_requests(f), 1 << 3);
    wr(f, LPC, 0x63, 1, 0x80 | 11);
    assert_int_equal(pic2_requests(f), 0);
    wr(f, LPC, 0x63, 1, 10);
    /* Shared by slot 11: low only when both are. */
    assert_int_equal(pci_add(f->tm->m.pci, &f->other.d, PCI_DEVFN(11, 0), NULL), 0);
    pci_intx_set(&f->other.d, true);
    pci_intx_set(&f->card.d, false);
    assert_int_equal(pic2_requests(f), 1 << 2);
    pci_intx_set(&f->other.d, false);
    assert_int_equal(pic2_requests(f), 0);
}

static void test_bar_access(void **state)
{
    struct fixture *f = *state;
    uint64_t v = 7;

    assert_true(pci_bar_access(&f->card.d, 0, 4092, 4, &v, false));
    assert_false(pci_bar_access(&f->card.d, 0, 4093, 4, &v, false));
    assert_false(pci_bar_access(&f->card.d, 0, UINT64_MAX, 4, &v, true));
    assert_false(pci_bar_access(&f->card.d, 3, 0, 4, &v, true));
    assert_false(pci_bar_access(&f->card.d, 4, 0, 1, &v, true));
    assert_false(pci_bar_access(&f->card.d, 6, 0, 1, &v, true));
    assert_false(pci_bar_access(&f->card.d, 0, 0, 0, &v, true));
    assert_int_equal(f->card.writes, 0);
}

static void test_state(void **state)
{
    struct fixture *f = *state;
    struct vtest_machine *tm = f->tm;
    unsigned cap = rd(f, SLOT, PCI_CAPABILITY_LIST, 1);
    uint64_t pba = 0xc4000000 + (rd(f, SLOT, cap + PCI_MSIX_PBA, 4) & ~7u);

    wr(f, SLOT, PCI_BASE_ADDRESS_0, 4, 0xc5000000);
    wr(f, SLOT, PCI_BASE_ADDRESS_1, 4, 0xc4000000);
    wr(f, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    for (unsigned v = 0; v < VECTORS; v++)
        program_msix(f, v, v == 2);
    wr(f, SLOT, cap + 2, 2, PCI_MSIX_FLAGS_ENABLE);
    pci_msix_notify(&f->card.d, 2);
    wr(f, LPC, 0x40, 4, 0x701); /* PMBASE */
    pci_intx_set(&f->card.d, true);
    TEST_STATE_KEPT(tm->m.pci, pci_bus_state, pci_bus_reset);
    assert_int_equal(rd(f, SLOT, PCI_BASE_ADDRESS_0, 4), 0xc5000000);
    assert_int_equal(vtest_mmio_read(tm, pba, 4), 1 << 2);
    assert_int_equal(vtest_mmio_read(tm, 0xc4000000 + 16 + 8, 4), 0x41);
    f->card.reads = 0;
    vtest_mmio_read(tm, 0xc5000010, 4);
    assert_int_equal(f->card.reads, 1);
    assert_int_equal(f->pm_base, 0x700);
    assert_true(rd(f, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_config_space), T(test_reset_port), T(test_bar_sizing), T(test_bar_mapping),
        T(test_bar_overlap),  T(test_slots),      T(test_assign),     T(test_ecam_moves),
        T(test_bridges),      T(test_msix),       T(test_intx),       T(test_pirq),
        T(test_bar_access),   T(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

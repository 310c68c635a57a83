/*
 * acpi_tables.c - the ACPI tables of the PC (ACPI 6.4, PCI Firmware 3.3 §4).
 *
 * One source for both ways to boot: placed in memory for a kernel, exported by fw_cfg for firmware.
 * Addresses come from the headers of the devices that decode them.
 */
#include "vm/acpi_tables.h"

#include "devices/acpi_pm.h"
#include "devices/isa_ports.h"
#include "devices/pci.h"
#include "devices/vmgenid.h"
#include "machine/hpet.h"

enum {
    COM1_PORT = 0x3f8,
    COM1_IRQ = 4,
    RTC_PORT = 0x70,
    RTC_IRQ = 8,
    RESET_PORT = 0xcf9,
    RESET_VALUE = 0x0f
};

static void add_fixed(struct qz_acpi_tables *t, const struct machine *m)
{
    struct qz_acpi_cpu *cpus = calloc(m->cpus, sizeof(*cpus));
    const struct qz_acpi_ioapic ioapic = {.id = 0, .address = IOAPIC_BASE, .gsi_base = 0};
    const struct qz_acpi_override overrides[] = {
        {.irq = 0, .gsi = 2, .flags = QZ_ACPI_INTI_BUS},
        {.irq = ACPI_SCI_GSI, .gsi = ACPI_SCI_GSI, .flags = QZ_ACPI_INTI_HIGH | QZ_ACPI_INTI_LEVEL},
    };
    const struct qz_acpi_lapic_nmi nmi = {.uid = QZ_ACPI_ALL_CPUS, .lint = 1};
    /* Only the buses that are there: Linux looks at every slot of every bus it is told of, one exit
     * each. */
    const struct qz_acpi_ecam ecam = {.base = PCI_ECAM_DEFAULT, .last_bus = PCI_BUSES - 1};

    if (!cpus)
        return qz_acpi_blob_fail(&t->blob, -ENOMEM, "no memory");
    for (unsigned i = 0; i < m->cpus; i++)
        cpus[i] = (struct qz_acpi_cpu){.apic_id = i, .uid = i};
    qz_acpi_add_facs(t);
    qz_acpi_add_fadt(
        t,
        &(struct qz_acpi_fadt){
            .sci_irq = ACPI_SCI_GSI,
            .pm1a_event = ACPI_PM_BASE,
            .pm1a_control = ACPI_PM_BASE + 4,
            .pm_timer = ACPI_PM_BASE + 8,
            .gpe0 = ACPI_PM_BASE + 0x20,
            .gpe0_len = 16,
            .reset = qz_acpi_gas_io(RESET_PORT, 8),
            .reset_value = RESET_VALUE,
            .rtc_century = 0x32,
            .boot_arch = QZ_ACPI_BOOT_LEGACY_DEVICES | QZ_ACPI_BOOT_NO_VGA | QZ_ACPI_BOOT_NO_ASPM,
            .flags = QZ_ACPI_FADT_WBINVD | QZ_ACPI_FADT_PROC_C1 | QZ_ACPI_FADT_SLP_BUTTON_METHOD |
                     QZ_ACPI_FADT_RESET_REG_SUP | QZ_ACPI_FADT_HEADLESS |
                     (m->cpus > 8 ? QZ_ACPI_FADT_APIC_PHYSICAL : 0),
            .hypervisor = "QUEZTL",
        });
    qz_acpi_add_madt(t, &(struct qz_acpi_madt){
                            .has_8259 = true,
                            .cpus = cpus,
                            .n_cpus = m->cpus,
                            .ioapics = &ioapic,
                            .n_ioapics = 1,
                            .overrides = overrides,
                            .n_overrides = QZ_ARRAY_LEN(overrides),
                            .nmis = &nmi,
                            .n_nmis = 1,
                        });
    qz_acpi_add_mcfg(t, &ecam, 1);
    qz_acpi_add_hpet(t, &(struct qz_acpi_hpet){.address = HPET_BASE, .block_id = HPET_BLOCK_ID});
    qz_acpi_add_waet(t, QZ_ACPI_WAET_RTC_GOOD | QZ_ACPI_WAET_PM_TIMER_GOOD);
    free(cpus);
}

static void add_pci_root(struct qz_aml *a, const struct machine *m)
{
    uint64_t high_start = pci_high_window(m),
             high_end = (1ull << cpuid_physical_bits(m->accel->ops->cpuid(m->accel))) - 1;

    qz_aml_device(a, "PCI0");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0A08"));
    qz_aml_name(a, "_CID", qz_ax_eisaid("PNP0A03"));
    qz_aml_name(a, "_UID", qz_ax_int(0));
    qz_aml_name(a, "_CCA", qz_ax_int(1));
    /* The OS owns every PCIe service; nothing in firmware competes for them (PCI Firmware §4.5.1).
     */
    qz_aml_method(a, "_OSC", 4, 0);
    qz_aml_return(a, qz_ax_arg(3));
    qz_aml_end(a);
    qz_aml_name_resources(a, "_CRS");
    qz_aml_word_bus(a, 0, PCI_BUSES - 1);
    qz_aml_io(a, 0xcf8, 0xcf8, 1, 8);
    qz_aml_word_io(a, 0x0000, 0x0cf7);
    qz_aml_word_io(a, 0x0d00, 0xffff);
    qz_aml_dword_memory(a, LOW_RAM_MAX, PCI_ECAM_DEFAULT - 1, QZ_AML_MEM_RW);
    qz_aml_dword_memory(a, PCI_ECAM_DEFAULT + PCI_ECAM_SIZE, IOAPIC_BASE - 1, QZ_AML_MEM_RW);
    if (high_start < high_end)
        qz_aml_qword_memory(a, high_start, high_end, QZ_AML_MEM_RW | QZ_AML_MEM_PREFETCHABLE);
    qz_aml_end(a);
    qz_aml_name_package(a, "_PRT");
    for (unsigned slot = 0; slot < 32; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            qz_aml_prt_entry(a, slot, pin, NULL, pci_intx_gsi(slot << 3, pin));
    qz_aml_end(a);
    qz_aml_end(a);

    /* ECAM must be reserved by something other than the root bridge (PCI Firmware §4.1.2). */
    qz_aml_device(a, "MBRD");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0C02"));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_memory32_fixed(a, PCI_ECAM_DEFAULT, PCI_ECAM_SIZE, QZ_AML_MEM_RW);
    qz_aml_memory32_fixed(a, VMGENID_BASE, VMGENID_PAGE, QZ_AML_MEM_RO);
    qz_aml_io(a, ACPI_PM_BASE, ACPI_PM_BASE, 1, 0x80);
    qz_aml_end(a);
    qz_aml_end(a);
}

static void add_isa_devices(struct qz_aml *a)
{
    qz_aml_device(a, "COM1");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0501"));
    qz_aml_name(a, "_UID", qz_ax_int(1));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_io(a, COM1_PORT, COM1_PORT, 1, 8);
    qz_aml_irq_no_flags(a, COM1_IRQ);
    qz_aml_end(a);
    qz_aml_end(a);

    qz_aml_device(a, "RTC");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0B00"));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_io(a, RTC_PORT, RTC_PORT, 1, 8);
    qz_aml_irq_no_flags(a, RTC_IRQ);
    qz_aml_end(a);
    qz_aml_end(a);

    qz_aml_device(a, "HPET");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0103"));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_memory32_fixed(a, HPET_BASE, 0x400, QZ_AML_MEM_RO);
    qz_aml_end(a);
    qz_aml_end(a);

    qz_aml_device(a, "PEVT"); /* pvpanic: the guest reports a crash */
    qz_aml_name(a, "_HID", qz_ax_str("QEMU0001"));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_io(a, PVPANIC_PORT, PVPANIC_PORT, 1, 1);
    qz_aml_end(a);
    qz_aml_operation_region(a, "PEOR", QZ_AML_SYSTEM_IO, PVPANIC_PORT, 1);
    qz_aml_field(a, "PEOR", QZ_AML_BYTE_ACC | QZ_AML_NO_LOCK | QZ_AML_PRESERVE);
    qz_aml_field_unit(a, "PEPT", 8);
    qz_aml_end(a);
    qz_aml_method(a, "RDPT", 0, 0);
    qz_aml_return(a, qz_ax_name("PEPT"));
    qz_aml_end(a);
    qz_aml_method(a, "WRPT", 1, 0);
    qz_aml_store(a, qz_ax_arg(0), qz_ax_name("PEPT"));
    qz_aml_end(a);
    qz_aml_name(a, "_STA", qz_ax_int(0x0f));
    qz_aml_end(a);

    qz_aml_device(a, "FWCF");
    qz_aml_name(a, "_HID", qz_ax_str("QEMU0002"));
    qz_aml_name(a, "_STA", qz_ax_int(0x0b));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_io(a, 0x510, 0x510, 1, 12);
    qz_aml_end(a);
    qz_aml_end(a);
}

/* Microsoft's "Virtual Machine Generation ID": a driver finds the device by _CID, which has a
 * second name since the first is longer than ACPI allows. */
static void add_generation(struct qz_aml *a)
{
    qz_aml_device(a, "VGEN");
    qz_aml_name(a, "_HID", qz_ax_str("QZTL0001"));
    qz_aml_name_package(a, "_CID");
    qz_aml_put(a, qz_ax_str("VM_Gen_Counter"));
    qz_aml_put(a, qz_ax_str("VMGENCTR"));
    qz_aml_end(a);
    qz_aml_name(a, "_DDN", qz_ax_str("VM_Gen_Counter"));
    qz_aml_method(a, "ADDR", 0, 0); /* lower and upper half */
    qz_aml_return_package(a);
    qz_aml_put(a, qz_ax_int(VMGENID_BASE & UINT32_MAX));
    qz_aml_put(a, qz_ax_int(VMGENID_BASE >> 32));
    qz_aml_end(a);
    qz_aml_end(a);
    qz_aml_end(a);
}

/* Methods of general-purpose events: _E and the event's number, for one that comes by an edge. */
static void add_events(struct qz_aml *a)
{
    char name[sizeof("_Exx")];

    snprintf(name, sizeof(name), "_E%02X", ACPI_GPE_VMGENID);
    qz_aml_scope(a, "\\_GPE");
    qz_aml_method(a, name, 0, 0);
    qz_aml_notify(a, qz_ax_name("\\_SB.VGEN"), qz_ax_int(0x80)); /* the identifier is new */
    qz_aml_end(a);
    qz_aml_end(a);
}

static void add_dsdt(struct qz_acpi_tables *t, const struct machine *m)
{
    struct qz_acpi_cpu *cpus = calloc(m->cpus, sizeof(*cpus));
    struct qz_aml a;

    if (!cpus)
        return qz_acpi_blob_fail(&t->blob, -ENOMEM, "no memory");
    for (unsigned i = 0; i < m->cpus; i++)
        cpus[i] = (struct qz_acpi_cpu){.apic_id = i, .uid = i};
    qz_aml_begin(&a, t, "DSDT");
    qz_aml_sleep_state(&a, 5, ACPI_SLEEP_S5);
    qz_aml_scope(&a, "\\_SB");
    qz_aml_cpu_devices(&a, cpus, m->cpus, false);
    add_pci_root(&a, m);
    add_isa_devices(&a);
    add_generation(&a);
    qz_aml_end(&a);
    add_events(&a);
    qz_aml_finish(&a);
    free(cpus);
}

void acpi_tables_build(struct qz_acpi_tables *t, const struct machine *m)
{
    qz_acpi_tables_init(t, "QUEZTL", "QUEZTLPC");
    add_fixed(t, m);
    add_dsdt(t, m);
}

/*
 * testpc.c - a whole PC's tables, for the tests of lib/acpi.
 *
 * Modelled on a q35 machine, so that what iasl and the interpreter see is what a guest will see;
 * the device \_SB.TEST computes things, so that the interpreter can be asked for their results.
 */
#include "testpc.h"

static const struct qz_acpi_ioapic ioapics[] = {{.id = 0, .address = 0xfec00000, .gsi_base = 0}};
static const struct qz_acpi_override overrides[] = {
    {.irq = 0, .gsi = 2, .flags = QZ_ACPI_INTI_BUS},
    {.irq = 9, .gsi = 9, .flags = QZ_ACPI_INTI_HIGH | QZ_ACPI_INTI_LEVEL},
};
static const struct qz_acpi_lapic_nmi nmis[] = {
    {.uid = QZ_ACPI_ALL_CPUS, .lint = 1, .flags = QZ_ACPI_INTI_BUS},
    {.uid = 0, .lint = 0, .flags = QZ_ACPI_INTI_HIGH | QZ_ACPI_INTI_EDGE},
};
static const struct qz_acpi_memory memories[] = {
    {.base = 0, .len = 0xa0000, .proximity = 0},
    {.base = 0x100000, .len = 0x7ff00000, .proximity = 0},
    {.base = 0x100000000, .len = 0x80000000, .proximity = 1},
    {.base = 0x8000000000,
     .len = 0x4000000000,
     .proximity = 2,
     .hotplug = true,
     .nonvolatile = true},
};
static const struct qz_acpi_initiator initiators[] = {{.proximity = 2, .bus = 3, .devfn = 0x10}};
static const uint8_t distances[] = {10, 20, 30, 20, 10, 255, 30, 255, 10};

static void add_numa(struct qz_acpi_tables *t, const struct qz_acpi_cpu *cpus, unsigned n,
                     bool x2apic_only)
{
    static const uint32_t from[] = {0, 1}, to[] = {0, 1, 2};
    static const uint64_t latency[] = {100000, 150000, 300000,
                                       150000, 100000, QZ_ACPI_HMAT_UNREACHABLE};
    static const uint64_t bandwidth[] = {20000, 10000, 0, 10000, 20000, 5};
    static const struct qz_acpi_hmat_memory attributes[] = {
        {.memory = 0, .initiator = 0, .has_initiator = true},
        {.memory = 1, .initiator = 1, .has_initiator = true},
        {.memory = 2},
    };
    static const struct qz_acpi_hmat_locality localities[] = {
        {QZ_ACPI_HMAT_ACCESS_LATENCY, 0, from, 2, to, 3, latency},
        {QZ_ACPI_HMAT_ACCESS_BANDWIDTH, 0, from, 2, to, 3, bandwidth},
    };
    static const struct qz_acpi_hmat_cache caches[] = {
        {.memory = 2,
         .size = 1 << 30,
         .total_levels = 1,
         .level = 1,
         .associativity = 1,
         .write_policy = 1,
         .line_size = 64},
    };

    qz_acpi_add_srat(t, &(struct qz_acpi_srat){.x2apic_only = x2apic_only,
                                               .cpus = cpus,
                                               .n_cpus = n,
                                               .memories = memories,
                                               .n_memories = QZ_ARRAY_LEN(memories),
                                               .initiators = initiators,
                                               .n_initiators = QZ_ARRAY_LEN(initiators)});
    qz_acpi_add_slit(t, distances, 3);
    qz_acpi_add_hmat(t, &(struct qz_acpi_hmat){.memories = attributes,
                                               .n_memories = QZ_ARRAY_LEN(attributes),
                                               .localities = localities,
                                               .n_localities = QZ_ARRAY_LEN(localities),
                                               .caches = caches,
                                               .n_caches = QZ_ARRAY_LEN(caches)});
}

static void add_fixed(struct qz_acpi_tables *t)
{
    qz_acpi_add_facs(t);
    qz_acpi_add_fadt(t, &(struct qz_acpi_fadt){
                            .profile = 1,
                            .sci_irq = 9,
                            .smi_command = 0xb2,
                            .acpi_enable = 2,
                            .acpi_disable = 3,
                            .pm1a_event = 0x600,
                            .pm1a_control = 0x604,
                            .pm_timer = 0x608,
                            .gpe0 = 0x620,
                            .gpe0_len = 16,
                            .reset = qz_acpi_gas_io(0xcf9, 8),
                            .reset_value = 0x0f,
                            .rtc_century = 0x32,
                            .boot_arch = QZ_ACPI_BOOT_LEGACY_DEVICES | QZ_ACPI_BOOT_8042,
                            .flags = QZ_ACPI_FADT_WBINVD | QZ_ACPI_FADT_PROC_C1 |
                                     QZ_ACPI_FADT_SLP_BUTTON_METHOD | QZ_ACPI_FADT_TMR_VAL_EXT,
                            .hypervisor = "QUEZTL",
                        });
    qz_acpi_add_mcfg(t, &(struct qz_acpi_ecam){.base = 0xb0000000, .last_bus = 255}, 1);
    qz_acpi_add_hpet(t, &(struct qz_acpi_hpet){.address = 0xfed00000, .block_id = 0x8086a201});
    qz_acpi_add_spcr(t, &(struct qz_acpi_spcr){
                            .base = qz_acpi_gas_io(0x3f8, 8), .irq = 4, .gsi = 4, .baud = 115200});
    qz_acpi_add_waet(t, QZ_ACPI_WAET_RTC_GOOD | QZ_ACPI_WAET_PM_TIMER_GOOD);
}

/* §6.2.11: grants everything that was asked for, refuses an unknown UUID. */
static void add_osc(struct qz_aml *a)
{
    qz_aml_method(a, "_OSC", 4, 0);
    qz_aml_create_field(a, qz_ax_arg(3), qz_ax_int(0), "CDW1", 32);
    qz_aml_if(a, qz_ax_equal(qz_ax_arg(0), qz_ax_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")));
    {
        qz_aml_create_field(a, qz_ax_arg(3), qz_ax_int(4), "CDW2", 32);
        qz_aml_create_field(a, qz_ax_arg(3), qz_ax_int(8), "CDW3", 32);
        qz_aml_store(a, qz_ax_and(qz_ax_name("CDW3"), qz_ax_int(0x1f)), qz_ax_name("CDW3"));
        qz_aml_if(a, qz_ax_not_equal(qz_ax_arg(1), qz_ax_int(1)));
        qz_aml_store(a, qz_ax_or(qz_ax_name("CDW1"), qz_ax_int(8)), qz_ax_name("CDW1"));
        qz_aml_end(a);
    }
    qz_aml_else(a);
    qz_aml_store(a, qz_ax_or(qz_ax_name("CDW1"), qz_ax_int(4)), qz_ax_name("CDW1"));
    qz_aml_end(a);
    qz_aml_return(a, qz_ax_arg(3));
    qz_aml_end(a);
}

static void add_pci(struct qz_aml *a)
{
    qz_aml_device(a, "PCI0");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0A08"));
    qz_aml_name(a, "_CID", qz_ax_eisaid("PNP0A03"));
    qz_aml_name(a, "_UID", qz_ax_int(0));
    qz_aml_name(a, "_BBN", qz_ax_int(0));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_word_bus(a, 0, 255);
    qz_aml_io(a, 0xcf8, 0xcf8, 1, 8);
    qz_aml_word_io(a, 0, 0xcf7);
    qz_aml_dword_io(a, 0xd00, 0xffff);
    qz_aml_dword_memory(a, 0xc0000000, 0xfebfffff, QZ_AML_MEM_RW);
    qz_aml_dword_memory(a, 0xa0000, 0xbffff, QZ_AML_MEM_RW | QZ_AML_MEM_CACHEABLE);
    qz_aml_qword_memory(a, 0x380000000000, 0x38ffffffffff, QZ_AML_MEM_RW | QZ_AML_MEM_PREFETCHABLE);
    qz_aml_end(a);
    qz_aml_name_package(a, "_PRT");
    for (unsigned slot = 0; slot < 32; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            qz_aml_prt_entry(a, slot, pin, slot == 31 ? "LNKA" : NULL, 16 + (slot + pin) % 8);
    qz_aml_end(a);
    add_osc(a);

    qz_aml_device(a, "COM1");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0501"));
    qz_aml_name(a, "_UID", qz_ax_int(1));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_io(a, 0x3f8, 0x3f8, 0, 8);
    qz_aml_irq_no_flags(a, 4);
    qz_aml_end(a);
    qz_aml_end(a);
    qz_aml_end(a);

    qz_aml_device(a, "LNKA");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0C0F"));
    qz_aml_name(a, "_UID", qz_ax_int(2));
    qz_aml_name_resources(a, "_PRS");
    qz_aml_interrupts(a, (const uint32_t[]){5, 10, 11}, 3,
                      QZ_AML_LEVEL | QZ_AML_ACTIVE_HIGH | QZ_AML_SHARED);
    qz_aml_end(a);
    qz_aml_method(a, "_CRS", 0, 0);
    qz_aml_return_resources(a);
    qz_aml_interrupt(a, 10, QZ_AML_LEVEL | QZ_AML_ACTIVE_LOW | QZ_AML_SHARED);
    qz_aml_end(a);
    qz_aml_end(a);
    qz_aml_method(a, "_SRS", 1, QZ_AML_SERIALIZED);
    qz_aml_end(a);
    qz_aml_method(a, "_DIS", 0, 0);
    qz_aml_end(a);
    qz_aml_end(a);

    qz_aml_device(a, "HPET");
    qz_aml_name(a, "_HID", qz_ax_eisaid("PNP0103"));
    qz_aml_name(a, "_UID", qz_ax_int(0));
    qz_aml_name_resources(a, "_CRS");
    qz_aml_memory32_fixed(a, 0xfed00000, 0x400, QZ_AML_MEM_RO);
    qz_aml_irq(a, 8, QZ_AML_EDGE);
    qz_aml_dma(a, 2);
    qz_aml_end(a);
    qz_aml_end(a);
}

/* Registers in memory-backed regions and methods whose results are known. */
static void add_computing(struct qz_aml *a)
{
    qz_aml_device(a, "TEST");
    qz_aml_name(a, "_HID", qz_ax_str("QZTL0001"));
    qz_aml_name_buffer(a, "DATA", "Queztl\0\1", 8);
    qz_aml_mutex(a, "LOK0");
    qz_aml_operation_region(a, "REGS", QZ_AML_SYSTEM_MEMORY, 0xfed40000, 0x100);
    qz_aml_field(a, "REGS", QZ_AML_DWORD_ACC | QZ_AML_NO_LOCK | QZ_AML_PRESERVE);
    qz_aml_field_unit(a, "STS", 32);
    qz_aml_field_offset(a, 8);
    qz_aml_field_unit(a, "CTL", 1);
    qz_aml_field_skip(a, 31);
    qz_aml_field_offset(a, 0x40);
    qz_aml_field_unit(a, "WIDE", 256);
    qz_aml_end(a);
    qz_aml_operation_region(a, "PORT", QZ_AML_SYSTEM_IO, 0x70, 2);
    qz_aml_field(a, "PORT", QZ_AML_BYTE_ACC | QZ_AML_LOCK | QZ_AML_WRITE_AS_ZEROS);
    qz_aml_field_unit(a, "INDX", 8);
    qz_aml_field_unit(a, "DATX", 8);
    qz_aml_end(a);
    qz_aml_index_field(a, "INDX", "DATX", QZ_AML_BYTE_ACC);
    qz_aml_field_offset(a, 0x32);
    qz_aml_field_unit(a, "CENT", 8);
    qz_aml_end(a);

    /* SUM (n): 1 + 2 + ... + n, with odd numbers skipped by Continue and stopped by Break at 100.
     */
    qz_aml_method(a, "SUM", 1, QZ_AML_SERIALIZED);
    qz_aml_store(a, qz_ax_int(0), qz_ax_local(0));
    qz_aml_store(a, qz_ax_int(0), qz_ax_local(1));
    qz_aml_while(a, qz_ax_less(qz_ax_local(1), qz_ax_arg(0)));
    {
        qz_aml_put(a, qz_ax_increment(qz_ax_local(1)));
        qz_aml_if(a, qz_ax_greater(qz_ax_local(1), qz_ax_int(100)));
        qz_aml_break(a);
        qz_aml_else_if(a, qz_ax_equal(qz_ax_mod(qz_ax_local(1), qz_ax_int(2)), qz_ax_int(1)));
        qz_aml_continue(a);
        qz_aml_else(a);
        qz_aml_store(a, qz_ax_add(qz_ax_local(0), qz_ax_local(1)), qz_ax_local(0));
        qz_aml_end(a);
    }
    qz_aml_end(a);
    qz_aml_return(a, qz_ax_local(0));
    qz_aml_end(a);

    /* CLAS (x): which of four classes x is in, by an If / ElseIf / Else chain. */
    qz_aml_method(a, "CLAS", 1, 0);
    qz_aml_if(a, qz_ax_less(qz_ax_arg(0), qz_ax_int(10)));
    qz_aml_return(a, qz_ax_int(1));
    qz_aml_else_if(a, qz_ax_less_equal(qz_ax_arg(0), qz_ax_int(20)));
    qz_aml_return(a, qz_ax_int(2));
    qz_aml_else_if(a, qz_ax_land(qz_ax_greater_equal(qz_ax_arg(0), qz_ax_int(0x1000)),
                                 qz_ax_lnot(qz_ax_int(0))));
    qz_aml_return(a, qz_ax_int(3));
    qz_aml_else(a);
    qz_aml_return(a, qz_ax_int(4));
    qz_aml_end(a);
    qz_aml_end(a);

    /* MATH (): one bit for each operator that gives the right answer. */
    qz_aml_method(a, "MATH", 0, QZ_AML_SERIALIZED);
    {
        const struct {
            struct qz_ax is, should;
        } cases[] = {
            {qz_ax_subtract(qz_ax_int(7), qz_ax_int(9)), qz_ax_int(UINT64_MAX - 1)},
            {qz_ax_multiply(qz_ax_int(300), qz_ax_int(70000)), qz_ax_int(21000000)},
            {qz_ax_divide(qz_ax_int(100), qz_ax_int(7)), qz_ax_int(14)},
            {qz_ax_xor(qz_ax_int(0xff00), qz_ax_int(0x0ff0)), qz_ax_int(0xf0f0)},
            {qz_ax_shift_left(qz_ax_int(1), qz_ax_int(40)), qz_ax_int(1ull << 40)},
            {qz_ax_shift_right(qz_ax_int(0x1234), qz_ax_int(8)), qz_ax_int(0x12)},
            {qz_ax_not(qz_ax_int(0)), qz_ax_int(UINT64_MAX)},
            {qz_ax_find_set_left_bit(qz_ax_int(0x90)), qz_ax_int(8)},
            {qz_ax_find_set_right_bit(qz_ax_int(0x90)), qz_ax_int(5)},
            {qz_ax_size_of(qz_ax_name("DATA")), qz_ax_int(8)},
            {qz_ax_deref_of(qz_ax_index(qz_ax_name("DATA"), qz_ax_int(7))), qz_ax_int(1)},
            {qz_ax_to_integer(qz_ax_str("0x1f")), qz_ax_int(31)},
            {qz_ax_to_buffer(qz_ax_int(0x41)), qz_ax_bytes("A\0\0\0\0\0\0\0", 8)},
            {qz_ax_op(QZ_AML_NOR, qz_ax_int(1), qz_ax_int(2)), qz_ax_not(qz_ax_int(3))},
            {qz_ax_cond_ref_of(qz_ax_name("LOK0")), qz_ax_int(UINT64_MAX)},
            {qz_ax_deref_of(qz_ax_ref_of(qz_ax_name("\\_SB.PCI0.COM1._UID"))), qz_ax_int(1)},
            {qz_ax_call("SUM", qz_ax_int(10)), qz_ax_int(30)},
            {qz_ax_lor(qz_ax_int(0), qz_ax_int(0)), qz_ax_int(0)},
        };

        qz_aml_store(a, qz_ax_int(0), qz_ax_local(0));
        for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
            qz_aml_if(a, qz_ax_equal(cases[i].is, cases[i].should));
            qz_aml_store(a, qz_ax_or(qz_ax_local(0), qz_ax_int(1ull << i)), qz_ax_local(0));
            qz_aml_end(a);
        }
    }
    qz_aml_return(a, qz_ax_local(0));
    qz_aml_end(a);

    /* POKE (): side effects. */
    qz_aml_method(a, "POKE", 0, QZ_AML_SERIALIZED);
    qz_aml_put(a, qz_ax_acquire("LOK0", 0xffff));
    qz_aml_store(a, qz_ax_name("STS"), qz_ax_local(0));
    qz_aml_store(a, qz_ax_int(1), qz_ax_name("CTL"));
    qz_aml_store(a, qz_ax_local(0), qz_ax_debug());
    qz_aml_put(a, qz_ax_decrement(qz_ax_local(0)));
    qz_aml_sleep(a, qz_ax_int(1));
    qz_aml_stall(a, qz_ax_int(5));
    qz_aml_notify(a, qz_ax_name("\\_SB.PCI0.COM1"), qz_ax_int(0x80));
    qz_aml_release(a, "LOK0");
    qz_aml_end(a);

    qz_aml_method(a, "LIST", 0, 0);
    qz_aml_return_package(a);
    qz_aml_put(a, qz_ax_int(0x123456789abcull));
    qz_aml_put(a, qz_ax_str("two"));
    qz_aml_package(a);
    qz_aml_put(a, qz_ax_name("\\_SB.PCI0"));
    qz_aml_end(a);
    qz_aml_end(a);
    qz_aml_end(a);
    qz_aml_end(a);
}

void testpc_build(struct qz_acpi_tables *t, unsigned n_cpus, bool x2apic_only)
{
    struct qz_acpi_cpu cpus[TESTPC_CPUS_MAX] = {0};
    struct qz_aml a;

    for (unsigned i = 0; i < n_cpus; i++)
        cpus[i] = (struct qz_acpi_cpu){.apic_id = i, .uid = i, .proximity = i * 2 / n_cpus};
    add_fixed(t);
    qz_acpi_add_madt(t, &(struct qz_acpi_madt){.has_8259 = true,
                                               .x2apic_only = x2apic_only,
                                               .cpus = cpus,
                                               .n_cpus = n_cpus,
                                               .ioapics = ioapics,
                                               .n_ioapics = QZ_ARRAY_LEN(ioapics),
                                               .overrides = overrides,
                                               .n_overrides = QZ_ARRAY_LEN(overrides),
                                               .nmis = nmis,
                                               .n_nmis = QZ_ARRAY_LEN(nmis)});
    add_numa(t, cpus, n_cpus, x2apic_only);

    qz_aml_begin(&a, t, "DSDT");
    qz_aml_scope(&a, "\\_SB");
    add_pci(&a);
    add_computing(&a);
    qz_aml_end(&a);
    qz_aml_sleep_state(&a, 5, 0);
    qz_aml_finish(&a);

    qz_aml_begin(&a, t, "SSDT");
    qz_aml_scope(&a, "\\_SB");
    qz_aml_cpu_devices(&a, cpus, n_cpus, true);
    qz_aml_end(&a);
    qz_aml_finish(&a);
}

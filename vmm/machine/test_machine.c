/* test_machine.c - a machine for tests (test_machine.h). */
#include "machine/test_machine.h"

static int fake_msi(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct test_machine *t = QZ_CONTAINER_OF(vm, struct test_machine, accel);

    t->message[t->messages % TEST_MESSAGES].address = address;
    t->message[t->messages++ % TEST_MESSAGES].data = data;
    return 0;
}

static int fake_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                      bool masked)
{
    struct test_machine *t = QZ_CONTAINER_OF(vm, struct test_machine, accel);

    t->route[pin].address = address;
    t->route[pin].data = data;
    t->route[pin].masked = masked;
    t->route[pin].count++;
    return 0;
}

static const struct accel_ops fake_ops = {
    .name = "fake", .signal_msi = fake_msi, .ioapic_route = fake_route};

static void on_wake(void *context, unsigned cpu)
{
    struct test_machine *t = context;

    __atomic_add_fetch(&t->wakes[cpu], 1, __ATOMIC_RELAXED);
}
static void on_nmi(void *context, unsigned cpu)
{
    struct test_machine *t = context;

    __atomic_add_fetch(&t->nmis[cpu], 1, __ATOMIC_RELAXED);
}
static void on_init(void *context, unsigned cpu)
{
    struct test_machine *t = context;

    __atomic_add_fetch(&t->inits[cpu], 1, __ATOMIC_RELAXED);
}
static void on_sipi(void *context, unsigned cpu, uint8_t vector)
{
    struct test_machine *t = context;

    __atomic_add_fetch(&t->sipis[cpu], 1, __ATOMIC_RELAXED);
    __atomic_store_n(&t->sipi_vector[cpu], vector, __ATOMIC_RELAXED);
}

static const struct irq_cpu_ops cpu_ops = {on_wake, on_nmi, on_init, on_sipi};

static void must(int r)
{
    if (r < 0)
        abort();
}

struct test_machine *test_machine_new(unsigned cpus, bool own_lapic)
{
    struct test_machine *t = calloc(1, sizeof(*t));

    if (!t || cpus > TEST_CPUS)
        abort();
    t->accel.ops = &fake_ops;
    t->accel.own_lapic = own_lapic;
    t->m.accel = &t->accel;
    t->m.cpus = cpus;
    must(bus_new(&t->m.pio, 0x10000));
    must(bus_new(&t->m.mmio, 0));
    must(vm_clock_new(&t->m.clock, NULL));
    must(irq_fabric_new(&t->m.irq, &t->accel, cpus, t->m.pio, t->m.mmio, t->m.clock, &cpu_ops, t,
                        NULL));
    return t;
}

void test_machine_free(struct test_machine *t)
{
    irq_fabric_free(t->m.irq);
    vm_clock_free(t->m.clock);
    bus_free(t->m.pio);
    bus_free(t->m.mmio);
    free(t);
}

uint8_t test_in(struct test_machine *t, uint16_t port)
{
    uint8_t v;

    bus_read(t->m.pio, port, &v, 1);
    return v;
}

void test_out(struct test_machine *t, uint16_t port, uint8_t value)
{
    bus_write(t->m.pio, port, &value, 1);
}

uint64_t test_load(struct test_machine *t, uint64_t address, unsigned len)
{
    uint64_t v = 0;

    bus_read(t->m.mmio, address, &v, len);
    return v;
}

void test_store(struct test_machine *t, uint64_t address, unsigned len, uint64_t value)
{
    bus_write(t->m.mmio, address, &value, len);
}

uint32_t test_ioapic_read(struct test_machine *t, uint8_t reg)
{
    test_store(t, IOAPIC_BASE, 4, reg);
    return (uint32_t)test_load(t, IOAPIC_BASE + 0x10, 4);
}

void test_ioapic_write(struct test_machine *t, uint8_t reg, uint32_t value)
{
    test_store(t, IOAPIC_BASE, 4, reg);
    test_store(t, IOAPIC_BASE + 0x10, 4, value);
}

void test_ioapic_route(struct test_machine *t, unsigned pin, uint64_t entry)
{
    test_ioapic_write(t, (uint8_t)(0x11 + 2 * pin), (uint32_t)(entry >> 32));
    test_ioapic_write(t, (uint8_t)(0x10 + 2 * pin), (uint32_t)entry);
}

void test_pic_setup(struct test_machine *t)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } steps[] = {
        {0x21, 0xff}, {0xa1, 0xff},                               /* all masked */
        {0x20, 0x11}, {0x21, 0x30}, {0x21, 1 << 2}, {0x21, 0x01}, /* ICW1 to ICW4 */
        {0xa0, 0x11}, {0xa1, 0x38}, {0xa1, 2},      {0xa1, 0x01}, {0x21, 0x00}, {0xa1, 0x00},
    };

    for (size_t i = 0; i < QZ_ARRAY_LEN(steps); i++)
        test_out(t, steps[i].port, steps[i].value);
}

/*
 * test_driver_machine.c - the machine of the in-process guest: memory, buses, and an accelerator
 * that catches messages instead of delivering them (test_driver.h).
 */
#include "devices/virtio/test_driver_internal.h"

#include <linux/pci_regs.h>

void vtest_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("test driver: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(99);
}

void *vtest_need(void *p)
{
    if (!p)
        vtest_die("no memory");
    return p;
}

static struct vtest_machine *machine_of(struct accel_vm *vm)
{
    return QZ_CONTAINER_OF(vm, struct vtest_machine, accel);
}

static int catch_msi(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct vtest_machine *tm = machine_of(vm);
    unsigned i = __atomic_fetch_add(&tm->msi_count, 1, __ATOMIC_RELAXED);

    if (i < VTEST_MSIS_MAX)
        tm->msi[i] = (struct vtest_msi){address, data};
    return 0;
}

static int no_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data, bool masked)
{
    return 0;
}

static int doorbell_add(struct accel_vm *vm, uint64_t a, unsigned len, int fd)
{
    struct vtest_machine *tm = machine_of(vm);

    if (!tm->doorbells)
        return -ENOSYS;
    for (unsigned i = 0; i < tm->doorbell_count; i++)
        if (tm->doorbell[i].gpa == a)
            return -EEXIST;
    tm->doorbell =
        vtest_need(realloc(tm->doorbell, (tm->doorbell_count + 1) * sizeof(*tm->doorbell)));
    tm->doorbell[tm->doorbell_count++] = (struct vtest_doorbell){a, len, fd};
    return 0;
}

static int doorbell_del(struct accel_vm *vm, uint64_t a, unsigned len, int fd)
{
    struct vtest_machine *tm = machine_of(vm);

    for (unsigned i = 0; i < tm->doorbell_count; i++)
        if (tm->doorbell[i].gpa == a && tm->doorbell[i].len == len && tm->doorbell[i].fd == fd) {
            tm->doorbell[i] = tm->doorbell[--tm->doorbell_count];
            return 0;
        }
    return -ENOENT;
}

static const struct accel_ops test_accel_ops = {
    .name = "test",
    .signal_msi = catch_msi,
    .ioapic_route = no_route,
    .doorbell_add = doorbell_add,
    .doorbell_del = doorbell_del,
};

static void count_request(struct machine *m, enum machine_request what)
{
    QZ_CONTAINER_OF(m, struct vtest_machine, m)->requests[what]++;
}

static void no_cpu(void *context, unsigned cpu) {}

static void no_sipi(void *context, unsigned cpu, uint8_t vector) {}

static const struct irq_cpu_ops cpu_ops = {
    .wake = no_cpu, .nmi = no_cpu, .init = no_cpu, .sipi = no_sipi};

struct vtest_machine *vtest_machine_new(uint64_t ram)
{
    struct vtest_machine *tm = vtest_need(calloc(1, sizeof(*tm)));
    struct machine *m = &tm->m;
    struct qz_error err = {0};

    tm->accel.ops = &test_accel_ops;
    m->accel = &tm->accel;
    m->cpus = 1;
    m->request = count_request;
    if (guest_memory_new(&m->memory, ram ? ram : VTEST_RAM, &err) < 0 ||
        bus_new(&m->pio, 0x10000) < 0 || bus_new(&m->mmio, 0) < 0 ||
        vm_clock_new(&m->clock, &err) < 0 || qz_loop_new(&m->main_loop, &err) < 0 ||
        irq_fabric_new(&m->irq, m->accel, 1, m->pio, m->mmio, m->clock, &cpu_ops, tm, &err) < 0 ||
        pci_bus_new(&m->pci, m, &err) < 0)
        vtest_die("machine: %s", err.text);
    tm->memory_top = m->memory.low_size;
    return tm;
}

void vtest_machine_free(struct vtest_machine *tm)
{
    if (!tm)
        return;
    pci_bus_free(tm->m.pci);
    irq_fabric_free(tm->m.irq);
    qz_loop_free(tm->m.main_loop);
    vm_clock_free(tm->m.clock);
    bus_free(tm->m.mmio);
    bus_free(tm->m.pio);
    guest_memory_free(&tm->m.memory);
    free(tm->doorbell);
    free(tm);
}

void *vtest_mem(struct vtest_machine *tm, gpa_t a, uint64_t len)
{
    struct mem_span span;

    return mem_span(&tm->m.memory, a, len, &span) == 0 ? span.data : NULL;
}

gpa_t vtest_alloc(struct vtest_machine *tm, uint64_t size, uint64_t align)
{
    uint64_t at = (tm->memory_top - size) & ~(align - 1);

    if (size > tm->memory_top || at < 1 << 20)
        vtest_die("guest memory is full");
    tm->memory_top = at;
    memset(vtest_need(vtest_mem(tm, gpa(at), size)), 0, size);
    return gpa(at);
}

void vtest_run(struct vtest_machine *tm, int timeout_ms)
{
    int r = qz_loop_once(tm->m.main_loop, timeout_ms);

    if (r < 0 && r != -EINTR)
        vtest_die("loop: %s", strerror(-r));
}

int vtest_run_until(struct vtest_machine *tm, bool (*done)(void *context), void *context)
{
    int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;

    while (!done(context)) {
        if (qz_now_ns() > end)
            return -ETIMEDOUT;
        vtest_run(tm, SLICE_MS);
    }
    return 0;
}

unsigned vtest_msi_count(const struct vtest_machine *tm, uint32_t data)
{
    unsigned n = 0;

    for (unsigned i = 0; i < tm->msi_count && i < VTEST_MSIS_MAX; i++)
        n += tm->msi[i].data == data;
    return n;
}

uint32_t vtest_config_read(struct vtest_machine *tm, unsigned devfn, unsigned reg, unsigned size)
{
    uint32_t address = 0x80000000u | devfn << 8 | (reg & 0xfc), value = 0;

    bus_write(tm->m.pio, 0xcf8, &address, 4);
    bus_read(tm->m.pio, 0xcfc + (reg & 3), &value, size);
    return value;
}

void vtest_config_write(struct vtest_machine *tm, unsigned devfn, unsigned reg, unsigned size,
                        uint32_t value)
{
    uint32_t address = 0x80000000u | devfn << 8 | (reg & 0xfc);

    bus_write(tm->m.pio, 0xcf8, &address, 4);
    bus_write(tm->m.pio, 0xcfc + (reg & 3), &value, size);
}

uint64_t vtest_ecam(const struct vtest_machine *tm, unsigned devfn, unsigned reg)
{
    return PCI_ECAM_DEFAULT + (devfn << 12) + reg;
}

uint64_t vtest_mmio_read(struct vtest_machine *tm, uint64_t address, unsigned size)
{
    uint64_t value = 0;

    bus_read(tm->m.mmio, address, &value, size);
    return value;
}

void vtest_mmio_write(struct vtest_machine *tm, uint64_t address, unsigned size, uint64_t value)
{
    bus_write(tm->m.mmio, address, &value, size);
}

/*
 * isa_ports.c - the single-port devices (isa_ports.h).
 *
 * The i8042 has no keyboard behind it: it answers every command at once, so that a kernel's probe
 * and its reset by 0xfe cost one exit each and never a time-out.
 */
#include "devices/isa_ports.h"

QZ_SYSCALLS(vcpu, "write");

enum { KBC_DATA = 0x60, KBC_COMMAND = 0x64, PORT92 = 0x92, DEBUG_PORT = 0x402 };
enum { STATUS_OBF = 1, STATUS_SYS = 4, STATUS_UNLOCKED = 0x10 };
enum { PVPANIC_PANICKED = 1, PVPANIC_CRASH_LOADED = 2 };
enum { DEBUG_PRESENT = 0xe9 };

struct isa_ports {
    struct machine *machine;
    pthread_mutex_t lock;
    uint8_t kbc_output, kbc_config, kbc_command, port92;
    bool kbc_full;
    int debug_fd;
};

static void kbc_answer(struct isa_ports *p, uint8_t v)
{
    p->kbc_output = v;
    p->kbc_full = true;
}

static void kbc_run(struct isa_ports *p, uint8_t command)
{
    p->kbc_command = 0;
    switch (command) {
    case 0x20: /* read configuration byte */
        kbc_answer(p, p->kbc_config);
        break;
    case 0xaa: /* self test passed */
        kbc_answer(p, 0x55);
        break;
    case 0xab: /* first port test: clock line stuck low, there is nothing on it */
    case 0xa9: /* second port: likewise */
        kbc_answer(p, 0x01);
        break;
    case 0xd0: /* read output port: A20 on, reset not asserted */
        kbc_answer(p, 0x03);
        break;
    case 0x60: /* these take a parameter at the data port */
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        p->kbc_command = command;
        break;
    case 0xf0 ... 0xff: /* pulse output lines; bit 0 clear is the CPU's reset line */
        if (!(command & 1))
            p->machine->request(p->machine, MACHINE_RESET);
        break;
    }
}

static void kbc_parameter(struct isa_ports *p, uint8_t v)
{
    switch (p->kbc_command) {
    case 0x60:
        p->kbc_config = v;
        break;
    case 0xd1: /* output port: bit 0 clear holds the CPU in reset */
        if (!(v & 1))
            p->machine->request(p->machine, MACHINE_RESET);
        break;
    case 0xd2: /* comes back as if a keyboard or mouse had sent it */
    case 0xd3:
        kbc_answer(p, v);
        break;
    default: /* 0xd4 and plain data go to a device that is not there */
        kbc_answer(p, 0xfe);
    }
    p->kbc_command = 0;
}

static uint64_t kbc_data_read(void *device, uint64_t offset, unsigned size)
{
    struct isa_ports *p = device;

    p->kbc_full = false;
    return p->kbc_output;
}
static void kbc_data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    kbc_parameter(device, (uint8_t)value);
}
static uint64_t kbc_status_read(void *device, uint64_t offset, unsigned size)
{
    struct isa_ports *p = device;

    return STATUS_UNLOCKED | STATUS_SYS | (p->kbc_full ? STATUS_OBF : 0);
}
static void kbc_command_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    kbc_run(device, (uint8_t)value);
}

static uint64_t port92_read(void *device, uint64_t offset, unsigned size)
{
    struct isa_ports *p = device;

    return p->port92;
}
static void port92_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct isa_ports *p = device;

    if (value & 1 && !(p->port92 & 1))
        p->machine->request(p->machine, MACHINE_RESET);
    p->port92 = (value & 0xfe) | 2; /* A20 is always on */
}

static uint64_t pvpanic_read(void *device, uint64_t offset, unsigned size)
{
    return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED; /* the events that may be reported */
}
static void pvpanic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct isa_ports *p = device;

    /* CRASH_LOADED means that a crash kernel takes over: the guest still has something to do. */
    if (value & PVPANIC_PANICKED)
        p->machine->request(p->machine, MACHINE_PANIC);
}

static uint64_t debug_read(void *device, uint64_t offset, unsigned size)
{
    struct isa_ports *p = device;

    return p->debug_fd >= 0 ? DEBUG_PRESENT : 0xff;
}
static void debug_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct isa_ports *p = device;
    uint8_t byte = (uint8_t)value;

    if (p->debug_fd >= 0 && write(p->debug_fd, &byte, 1) < 0)
        p->debug_fd = -1; /* the log's reader is gone */
}

static const struct {
    uint16_t port;
    struct bus_ops ops;
    const char *name;
} regions[] = {
    {KBC_DATA, {kbc_data_read, kbc_data_write}, "i8042-data"},
    {KBC_COMMAND, {kbc_status_read, kbc_command_write}, "i8042-command"},
    {PORT92, {port92_read, port92_write}, "port92"},
    {PVPANIC_PORT, {pvpanic_read, pvpanic_write}, "pvpanic"},
    {DEBUG_PORT, {debug_read, debug_write}, "debug-port"},
};

void isa_ports_reset(struct isa_ports *p)
{
    QZ_LOCKED(&p->lock);

    p->kbc_full = false;
    p->kbc_config = 0;
    p->kbc_command = 0;
    p->port92 = 2;
}

void isa_ports_state(struct isa_ports *p, struct qz_state *s)
{
    QZ_LOCKED(&p->lock);

    qz_state_group(s, "isa_ports");
    QZ_STATE_ANY(s, "kbc_output", p->kbc_output);
    QZ_STATE_ANY(s, "kbc_config", p->kbc_config);
    QZ_STATE_ANY(s, "kbc_command", p->kbc_command);
    QZ_STATE(s, "kbc_full", p->kbc_full, 1);
    QZ_STATE_ANY(s, "port92", p->port92);
    qz_state_end(s);
}

int isa_ports_new(struct isa_ports **out, struct machine *m, int debug_fd, struct qz_error *err)
{
    struct isa_ports *p = calloc(1, sizeof(*p));

    if (!p)
        return qz_fail(err, -ENOMEM, "isa ports: no memory");
    p->machine = m;
    p->debug_fd = debug_fd;
    pthread_mutex_init(&p->lock, NULL);
    isa_ports_reset(p);
    for (size_t i = 0; i < QZ_ARRAY_LEN(regions); i++) {
        struct bus_region r = {regions[i].port, 1, &regions[i].ops, p, &p->lock, regions[i].name};
        int e = bus_add(m->pio, &r);

        if (e < 0) {
            isa_ports_free(p);
            return qz_fail(err, e, "%s: port 0x%x is taken", r.name, regions[i].port);
        }
    }
    *out = p;
    return 0;
}

void isa_ports_free(struct isa_ports *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < QZ_ARRAY_LEN(regions); i++)
        bus_remove(p->machine->pio, regions[i].port, 1);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

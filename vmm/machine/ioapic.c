/*
 * ioapic.c - the I/O APIC (82093AA data sheet; EOI register as in ICH9 §13.5).
 *
 * Redirection entry: 7:0 vector, 10:8 delivery mode, 11 logical destination, 12 delivery status, 13
 * active low, 14 remote IRR, 15 level, 16 mask, 55:49 destination bits 14:8 (the extension that KVM
 * announces), 63:56 destination.
 */
#include "machine/ioapic.h"

enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40, WINDOW = 0x1000 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_TABLE = 0x10 };
enum { VERSION = 0x20 | (IOAPIC_PINS - 1) << 16 };
enum { MODE_LOWEST = 1, MODE_EXTINT = 7 };

#define ENTRY_MODE(e)    ((e) >> 8 & 7)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_WRITABLE   0xfffe00000001afffull
#define ENTRY_BITS       (ENTRY_WRITABLE | ENTRY_REMOTE_IRR)

/* NMI, INIT and the like are edges whatever the trigger bit says: no EOI would ever end them. */
static bool is_level(uint64_t entry)
{
    return entry & ENTRY_LEVEL && ENTRY_MODE(entry) <= MODE_LOWEST;
}

static struct ioapic_message message(uint64_t entry)
{
    struct ioapic_message m = {
        .address =
            LAPIC_BASE | (entry >> 56) << 12 | (entry >> 49 & 0x7f) << 5 | (entry >> 11 & 1) << 2,
        .data = (entry & 0x7ff) | (is_level(entry) ? 1u << 15 | 1u << 14 : 0),
    };

    return m;
}

static void fire(struct ioapic *a, unsigned pin)
{
    uint64_t entry = a->entry[pin];
    struct ioapic_message m = message(entry);

    if (ENTRY_MODE(entry) == MODE_EXTINT)
        return; /* the PIC is wired to CPU 0's LINT0, not through a pin */
    if (is_level(entry))
        a->entry[pin] |= ENTRY_REMOTE_IRR;
    a->ops->send(a->context, &m);
}

/* A level-triggered pin fires while it is high and nobody is at it. */
static void check_level(struct ioapic *a, unsigned pin)
{
    uint64_t entry = a->entry[pin];

    if (a->lines >> pin & 1 && is_level(entry) && !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        fire(a, pin);
}

void ioapic_set(struct ioapic *a, unsigned pin, bool level)
{
    bool rose = level && !(a->lines >> pin & 1);

    a->lines = level ? a->lines | 1u << pin : a->lines & ~(1u << pin);
    if (is_level(a->entry[pin]))
        check_level(a, pin);
    else if (rose && !(a->entry[pin] & ENTRY_MASKED))
        fire(a, pin);
}

void ioapic_eoi(struct ioapic *a, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = a->entry[pin];

        if ((entry & 0xff) != vector || !(entry & ENTRY_REMOTE_IRR))
            continue;
        a->entry[pin] &= ~ENTRY_REMOTE_IRR;
        check_level(a, pin);
    }
}

static void write_entry(struct ioapic *a, unsigned pin, unsigned half, uint32_t v)
{
    uint64_t mask = (half ? 0xffffffff00000000ull : 0xffffffffull) & ENTRY_WRITABLE;
    uint64_t entry = (a->entry[pin] & ~mask) | ((half ? (uint64_t)v << 32 : v) & mask);
    struct ioapic_message m;

    if (!is_level(entry))
        entry &=
            ~ENTRY_REMOTE_IRR; /* switching to edge and back is how kernels without EOI clear it */
    a->entry[pin] = entry;
    m = message(entry);
    if (a->ops->routed)
        a->ops->routed(a->context, pin, &m, entry & ENTRY_MASKED);
    check_level(a, pin);
}

static uint32_t read_register(const struct ioapic *a)
{
    unsigned i = a->select - REG_TABLE;

    switch (a->select) {
    case REG_ID:
    case REG_ARBITRATION:
        return (uint32_t)a->id << 24;
    case REG_VERSION:
        return VERSION;
    }
    return a->select >= REG_TABLE && i / 2 < IOAPIC_PINS
               ? (uint32_t)(a->entry[i / 2] >> (i & 1) * 32)
               : 0;
}

static uint64_t ioapic_read(void *device, uint64_t offset, unsigned size)
{
    struct ioapic *a = device;

    if (offset == IOREGSEL)
        return a->select;
    return offset == IOWIN ? read_register(a) : 0;
}

static void ioapic_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *a = device;
    unsigned i = a->select - REG_TABLE;

    if (offset == IOREGSEL)
        a->select = (uint8_t)value;
    else if (offset == IOEOI)
        ioapic_eoi(a, (uint8_t)value);
    else if (offset == IOWIN && a->select == REG_ID)
        a->id = value >> 24 & 0x0f;
    else if (offset == IOWIN && a->select >= REG_TABLE && i / 2 < IOAPIC_PINS)
        write_entry(a, i / 2, i & 1, (uint32_t)value);
}

void ioapic_reset(struct ioapic *a)
{
    a->select = a->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        a->entry[pin] = ENTRY_MASKED;
        if (a->ops->routed)
            a->ops->routed(a->context, pin, &(struct ioapic_message){LAPIC_BASE, 0}, true);
    }
}

int ioapic_init(struct ioapic *a, struct bus *mmio, pthread_mutex_t *lock,
                const struct ioapic_ops *ops, void *context)
{
    static const struct bus_ops bus_ops = {ioapic_read, ioapic_write};
    const struct bus_region region = {IOAPIC_BASE, WINDOW, &bus_ops, a, lock, "ioapic"};

    *a = (struct ioapic){.ops = ops, .context = context, .lock = lock};
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->entry[pin] = ENTRY_MASKED;
    return bus_add(mmio, &region);
}

void ioapic_state(struct ioapic *a, struct qz_state *s)
{
    qz_state_group(s, "ioapic");
    QZ_STATE_ANY(s, "select", a->select);
    QZ_STATE(s, "id", a->id, 15);
    QZ_STATE(s, "lines", a->lines, (1u << IOAPIC_PINS) - 1);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        qz_state_group_at(s, "pin", pin);
        QZ_STATE_ANY(s, "entry", a->entry[pin]);
        if (a->entry[pin] & ~ENTRY_BITS)
            qz_state_refuse(s, "bits that no entry has: 0x%llx", (unsigned long long)a->entry[pin]);
        qz_state_end(s);
    }
    qz_state_end(s);
    if (!qz_state_loading(s) || qz_state_failed(s) || !a->ops->routed)
        return;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        const struct ioapic_message m = message(a->entry[pin]);

        a->ops->routed(a->context, pin, &m, a->entry[pin] & ENTRY_MASKED);
    }
}

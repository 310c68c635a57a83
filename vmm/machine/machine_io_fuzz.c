/*
 * machine_io_fuzz.c - random port and memory accesses, MSRs, line changes and time over PIC, I/O
 * APIC, own local APICs, PIT and HPET on one pair of buses. Nothing may crash, and no state may
 * make the clock thread busy.
 *
 * The input is a row of operations: one byte what, then its operands (missing ones are 0).
 */
#include "machine/hpet.h"
#include "machine/lapic.h"
#include "machine/pit.h"
#include "machine/test_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CPUS = 3, LINES = 26, STEPS_MAX = 4096, FIRINGS_PER_MS_MAX = 400 };

struct input {
    const uint8_t *p, *end;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint8_t b[8] = {0};
    unsigned n = QZ_MIN(bytes, (unsigned)QZ_MIN((size_t)8, (size_t)(in->end - in->p)));

    memcpy(b, in->p, n);
    in->p += n;
    return qz_load_le64(b);
}

/* Mostly addresses that mean something. */
static uint16_t port(struct input *in)
{
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40,
                                     0x41, 0x42, 0x43, 0x61, 0x1f,  0x3f,  0x4cf};
    uint8_t i = (uint8_t)take(in, 1);

    return i < 0xf0 ? ports[i % QZ_ARRAY_LEN(ports)] : (uint16_t)take(in, 2);
}

static uint64_t address(struct input *in)
{
    static const uint64_t bases[] = {IOAPIC_BASE,     IOAPIC_BASE + 0x10, IOAPIC_BASE + 0x40,
                                     HPET_BASE,       HPET_BASE + 0x100,  LAPIC_BASE,
                                     IOAPIC_BASE - 4, HPET_BASE + 0x3fc};
    uint8_t i = (uint8_t)take(in, 1);

    if (i >= 0xf8)
        return take(in, 8);
    return bases[i & 7] + (i & 0x80 ? take(in, 1) : take(in, 1) & 0x68);
}

static void step(struct test_machine *t, struct input *in, struct irq_line *lines)
{
    uint8_t op = (uint8_t)take(in, 1);
    unsigned cpu = op / 16 % CPUS, len = 1 + op / 48 % 8;
    uint64_t v = 0;
    bool fault;

    switch (op & 15) {
    case 0:
    case 1: {
        uint16_t at = port(in);

        v = take(in, 2);
        bus_write(t->m.pio, at, &v, op & 16 ? len : 1);
        break;
    }
    case 2:
        bus_read(t->m.pio, port(in), &v, len);
        break;
    case 3:
    case 4: {
        uint64_t at = address(in);

        v = take(in, 4) * (op & 16 ? 0x100000001ull : 1);
        bus_write(t->m.mmio, at, &v, op & 32 ? len : 8);
        break;
    }
    case 5:
        bus_read(t->m.mmio, address(in), &v, len);
        break;
    case 6: { /* a register of the I/O APIC, select and window in one */
        uint8_t reg = (uint8_t)take(in, 1) & 0x3f;

        test_ioapic_write(t, reg, (uint32_t)take(in, 4));
        break;
    }
    case 7:
    case 8: {
        uint64_t at = LAPIC_BASE + (take(in, 1) << 4);

        v = take(in, 4);
        irq_lapic_mmio(t->m.irq, cpu, at, &v, 4, true);
        break;
    }
    case 9: {
        uint64_t at = LAPIC_BASE + take(in, 2) % 4200;

        irq_lapic_mmio(t->m.irq, cpu, at, &v, len, op & 16);
        break;
    }
    case 10: {
        static const uint32_t others[] = {0x1b, 0x6e0, 0x840, 0x7ff};
        uint8_t i = (uint8_t)take(in, 1);
        uint32_t index = i < 0x40 ? 0x800u + i : others[i & 3];

        v = take(in, 8);
        if (i & 0x80)
            v = (v & 0xd00) | LAPIC_BASE; /* as a value for IA32_APIC_BASE */
        irq_lapic_wrmsr(t->m.irq, cpu, index, v, &fault);
        irq_lapic_rdmsr(t->m.irq, cpu, index, &v, &fault);
        break;
    }
    case 11:
        irq_line_set(&lines[take(in, 1) % LINES], op & 16);
        break;
    case 12:
        v = take(in, 4);
        msi_send(t->m.irq, LAPIC_BASE | (v & 0xffff0), (uint32_t)(v >> 16));
        break;
    case 13:
        irq_lapic_set_tpr(t->m.irq, cpu, take(in, 1));
        break;
    case 14:
        if (irq_pending(t->m.irq, cpu) && irq_acknowledge(t->m.irq, cpu) > 255)
            abort();
        break;
    case 15: {
        int64_t ns = (int64_t)(take(in, 3) & 0x3fffff);

        /* Timers: one PIT channel, three comparators, the local ones; each at most once in 20 us.
         */
        if (op & 32)
            test_clock_fire_early(t->m.clock);
        if (op & 16)
            test_clock_stall(t->m.clock, ns * 1000);
        else if (test_clock_advance(t->m.clock, ns) >
                 64 + ns / 1000000 * FIRINGS_PER_MS_MAX + FIRINGS_PER_MS_MAX)
            abort();
        break;
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    struct test_machine *t = test_machine_new(CPUS, true);
    struct irq_line lines[LINES];
    struct lapic_registers r;
    struct pit *pit;
    struct hpet *hpet;
    uint64_t base;

    if (pit_new(&pit, &t->m, NULL) < 0 || hpet_new(&hpet, &t->m, pit, NULL) < 0)
        abort();
    for (unsigned i = 0; i < LINES; i++)
        irq_line_init(&lines[i], t->m.irq, i);
    for (int i = 0; i < STEPS_MAX && in.p < in.end; i++)
        step(t, &in, lines);
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_get(irq_fabric_lapics(t->m.irq), i, &r, &base);
        if (lapic_put(irq_fabric_lapics(t->m.irq), i, &r, base) < 0)
            abort(); /* whatever state the guest made can be saved and restored */
    }
    irq_fabric_reset(t->m.irq);
    pit_reset(pit);
    hpet_reset(hpet);
    if (test_clock_armed(t->m.clock))
        abort();
    hpet_free(hpet);
    pit_free(pit);
    test_machine_free(t);
    return 0;
}

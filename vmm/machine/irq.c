/*
 * irq.c - the interrupt fabric (irq.h): lines, PIC, I/O APIC, and local APICs of ours or the
 * accelerator's.
 *
 * One lock guards lines, PIC and I/O APIC; it is taken under any device's lock and above the local
 * APICs' own locks.
 */
#include "machine/ioapic.h"
#include "machine/lapic.h"
#include "machine/pic.h"

QZ_SYSCALLS(all, "ioctl"); /* the accelerator's messages and routes */

enum { TIMER_PIN = 2 };

struct irq_fabric {
    pthread_mutex_t lock;
    struct accel_vm *accel;
    const struct irq_cpu_ops *cpu_ops;
    void *context;
    struct pic pic;
    struct ioapic ioapic;
    struct lapic_set *lapics;    /* NULL: the accelerator's */
    unsigned level[IOAPIC_PINS]; /* sources that hold the line up */
    bool pic_output;             /* atomic */
};

static void ioapic_send(void *context, const struct ioapic_message *m)
{
    msi_send(context, m->address, m->data);
}

static void ioapic_routed(void *context, unsigned pin, const struct ioapic_message *m, bool masked)
{
    struct irq_fabric *f = context;

    if (!f->lapics && f->accel && f->accel->ops->ioapic_route)
        f->accel->ops->ioapic_route(f->accel, pin, m->address, m->data, masked);
}

static const struct ioapic_ops ioapic_ops = {ioapic_send, ioapic_routed};

static void pic_changed(void *context, bool level)
{
    struct irq_fabric *f = context;

    __atomic_store_n(&f->pic_output, level, __ATOMIC_SEQ_CST);
    if (f->lapics)
        lapic_extint(f->lapics, level);
    else if (level)
        f->cpu_ops->wake(f->context, 0);
}

static void lapic_wake(void *context, unsigned cpu)
{
    struct irq_fabric *f = context;

    f->cpu_ops->wake(f->context, cpu);
}
static void lapic_nmi(void *context, unsigned cpu)
{
    struct irq_fabric *f = context;

    f->cpu_ops->nmi(f->context, cpu);
}
static void lapic_init(void *context, unsigned cpu)
{
    struct irq_fabric *f = context;

    f->cpu_ops->init(f->context, cpu);
}
static void lapic_sipi(void *context, unsigned cpu, uint8_t vector)
{
    struct irq_fabric *f = context;

    f->cpu_ops->sipi(f->context, cpu, vector);
}
static void lapic_eoi(void *context, uint8_t vector)
{
    irq_eoi(context, vector);
}

static const struct lapic_ops lapic_ops = {lapic_wake, lapic_nmi, lapic_init, lapic_sipi,
                                           lapic_eoi};

struct lapic_set *irq_fabric_lapics(struct irq_fabric *f)
{
    return f->lapics;
}

static const struct bus_ops no_access = {NULL, NULL};
static const struct bus_region lapic_page = {LAPIC_BASE, 4096, &no_access, NULL, NULL, "lapic"};

int irq_fabric_new(struct irq_fabric **out, struct accel_vm *accel, unsigned cpus, struct bus *pio,
                   struct bus *mmio, struct vm_clock *clock, const struct irq_cpu_ops *ops,
                   void *context, struct qz_error *err)
{
    struct irq_fabric *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return qz_fail(err, -ENOMEM, "interrupts: no memory");
    f->accel = accel;
    f->cpu_ops = ops;
    f->context = context;
    pthread_mutex_init(&f->lock, NULL);
    if (accel && accel->own_lapic &&
        (r = lapic_set_new(&f->lapics, cpus, clock, &lapic_ops, f)) < 0) {
        irq_fabric_free(f);
        return qz_fail(err, r, "interrupts: no memory");
    }
    if ((r = pic_init(&f->pic, pio, &f->lock, pic_changed, f)) < 0 ||
        (r = ioapic_init(&f->ioapic, mmio, &f->lock, &ioapic_ops, f)) < 0) {
        irq_fabric_free(f);
        return qz_fail(err, r, "interrupts: the controllers' addresses are taken");
    }
    /* The page belongs to each CPU's own APIC (irq_lapic_mmio); on the bus it only keeps others,
     * such as BARs, away. */
    if (f->lapics && (r = bus_add(mmio, &lapic_page)) < 0) {
        irq_fabric_free(f);
        return qz_fail(err, r, "interrupts: the local APICs' address is taken");
    }
    if (f->lapics && accel->ops->tsc_khz)
        lapic_set_tsc(f->lapics, accel->ops->tsc_khz(accel), 0);
    *out = f;
    return 0;
}

void irq_fabric_free(struct irq_fabric *f)
{
    if (!f)
        return;
    lapic_set_free(f->lapics);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void irq_fabric_reset(struct irq_fabric *f)
{
    {
        QZ_LOCKED(&f->lock);
        pic_reset(&f->pic);
        ioapic_reset(&f->ioapic);
    }
    if (f->lapics)
        lapic_set_reset(f->lapics);
}

/* ---- lines ---------------------------------------------------------------------------------- */

void irq_line_init(struct irq_line *line, struct irq_fabric *fabric, unsigned gsi)
{
    *line = (struct irq_line){fabric, (uint8_t)gsi, false};
}

/* Lock held. */
static void drive(struct irq_fabric *f, unsigned gsi, bool level)
{
    if (gsi < 16)
        pic_set(&f->pic, gsi, level);
    /* A PC's timer, ISA IRQ 0, arrives at pin 2, which GSI 2 shares; pin 0 is not connected. */
    if (gsi == 0 || gsi == TIMER_PIN)
        ioapic_set(&f->ioapic, TIMER_PIN, f->level[0] || f->level[TIMER_PIN]);
    else
        ioapic_set(&f->ioapic, gsi, level);
}

void irq_line_set(struct irq_line *line, bool level)
{
    struct irq_fabric *f = line->fabric;

    if (!f || line->gsi >= IOAPIC_PINS)
        return;
    QZ_LOCKED(&f->lock);

    if (line->level == level)
        return;
    line->level = level;
    if (level ? f->level[line->gsi]++ == 0 : --f->level[line->gsi] == 0)
        drive(f, line->gsi, level);
}

void irq_line_pulse(struct irq_line *line)
{
    irq_line_set(line, true);
    irq_line_set(line, false);
}

/* ---- messages ------------------------------------------------------------------------------- */

void msi_send(struct irq_fabric *f, uint64_t address, uint32_t data)
{
    if ((address & ~0xfffffull) != LAPIC_BASE)
        return; /* a device was told a wrong address: a write to nowhere */
    if (f->lapics)
        lapic_message(f->lapics, address, data);
    else if (f->accel && f->accel->ops->signal_msi)
        f->accel->ops->signal_msi(f->accel, address, data);
}

/* ---- the vCPU's side ------------------------------------------------------------------------ */

bool irq_pending(struct irq_fabric *f, unsigned cpu)
{
    if (f->lapics)
        return lapic_pending(f->lapics, cpu);
    return cpu == 0 && __atomic_load_n(&f->pic_output, __ATOMIC_SEQ_CST);
}

int irq_acknowledge(struct irq_fabric *f, unsigned cpu)
{
    bool extint = cpu == 0;
    int vector = f->lapics ? lapic_acknowledge(f->lapics, cpu, &extint) : -1;

    if (vector >= 0 || !extint)
        return vector;
    QZ_LOCKED(&f->lock);

    return f->pic.output ? pic_acknowledge(&f->pic) : -1;
}

void irq_eoi(struct irq_fabric *f, uint8_t vector)
{
    QZ_LOCKED(&f->lock);

    ioapic_eoi(&f->ioapic, vector);
}

bool irq_lapic_rdmsr(struct irq_fabric *f, unsigned cpu, uint32_t index, uint64_t *value,
                     bool *fault)
{
    return f->lapics && lapic_rdmsr(f->lapics, cpu, index, value, fault);
}
bool irq_lapic_wrmsr(struct irq_fabric *f, unsigned cpu, uint32_t index, uint64_t value,
                     bool *fault)
{
    return f->lapics && lapic_wrmsr(f->lapics, cpu, index, value, fault);
}
bool irq_lapic_mmio(struct irq_fabric *f, unsigned cpu, uint64_t gpa, void *data, unsigned len,
                    bool write)
{
    return f->lapics && lapic_mmio(f->lapics, cpu, gpa, data, len, write);
}
void irq_lapic_get(struct irq_fabric *f, unsigned cpu, struct lapic_registers *r, uint64_t *base)
{
    if (f->lapics)
        lapic_get(f->lapics, cpu, r, base);
}
int irq_lapic_put(struct irq_fabric *f, unsigned cpu, const struct lapic_registers *r,
                  uint64_t base)
{
    return f->lapics ? lapic_put(f->lapics, cpu, r, base) : 0;
}
uint64_t irq_lapic_get_tpr(struct irq_fabric *f, unsigned cpu)
{
    return f->lapics ? lapic_get_tpr(f->lapics, cpu) : 0;
}
void irq_lapic_set_tpr(struct irq_fabric *f, unsigned cpu, uint64_t cr8)
{
    if (f->lapics)
        lapic_set_tpr(f->lapics, cpu, cr8);
}
void irq_lapic_set_tsc(struct irq_fabric *f, uint32_t khz, uint64_t offset)
{
    if (f->lapics)
        lapic_set_tsc(f->lapics, khz, offset);
}
void irq_lapic_set_cpu_tsc(struct irq_fabric *f, unsigned cpu, uint64_t offset)
{
    if (f->lapics)
        lapic_set_cpu_tsc(f->lapics, cpu, offset);
}

/* ---- state ---------------------------------------------------------------------------------- */

void irq_line_state(struct irq_line *line, struct qz_state *s, const char *name)
{
    bool level = line->level;

    QZ_STATE(s, name, level, 1);
    if (qz_state_loading(s) && !qz_state_failed(s))
        irq_line_set(line, level);
}

/* Lock held. Pin 2 is the timer's and GSI 2's, pin 0 and PIC input 2 are nobody's (drive). */
static void check_inputs(const struct irq_fabric *f, struct qz_state *s)
{
    for (unsigned gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        const bool high = f->level[gsi], pin = f->ioapic.lines >> gsi & 1;
        const bool input = gsi < 16 && f->pic.chip[gsi >> 3].lines >> (gsi & 7) & 1;

        if (pin != (gsi == TIMER_PIN ? high || f->level[0] : gsi != 0 && high))
            qz_state_refuse(s, "the level of I/O APIC pin %u is no line's", gsi);
        if (input != (gsi < 16 && gsi != TIMER_PIN && high))
            qz_state_refuse(s, "the level of PIC input %u is no line's", gsi);
    }
}

void irq_fabric_state(struct irq_fabric *f, struct qz_state *s)
{
    QZ_LOCKED(&f->lock);

    qz_state_group(s, "interrupts");
    pic_state(&f->pic, s);
    ioapic_state(&f->ioapic, s);
    if (qz_state_loading(s))
        check_inputs(f, s);
    qz_state_end(s);
}

/*
 * hpet.c - the high precision event timer (IA-PC HPET 1.0a).
 *
 * The main counter is the machine's clock in units of 10 ns while enabled. A comparator arms a timer for the moment at which
 * the counter reaches it. FSB delivery is not announced.
 */
#include "machine/hpet.h"

enum { TIMERS = 3, TICK_NS = 10, PERIOD_FS = TICK_NS * 1000000, SIZE = 0x400 };
enum { REG_CAPABILITY = 0x000, REG_CONFIG = 0x010, REG_STATUS = 0x020, REG_COUNTER = 0x0f0, REG_TIMER0 = 0x100 };
enum { CONFIG_ENABLE = 1, CONFIG_LEGACY = 2 };

#define TN_LEVEL     (1u << 1)
#define TN_ENABLE    (1u << 2)
#define TN_PERIODIC  (1u << 3)
#define TN_CAN_REPEAT (1u << 4)
#define TN_64BIT     (1u << 5)
#define TN_SET_VALUE (1u << 6)
#define TN_32MODE    (1u << 8)
#define TN_ROUTE(c)  ((c) >> 9 & 31)
#define TN_WRITABLE  (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32MODE | 31u << 9)
#define TN_ROUTES    ((uint64_t)0x00fffffc << 32) /* which I/O APIC pins it may drive: 2 to 23 */

struct comparator {
    struct hpet *hpet;
    struct vm_timer timer;
    struct irq_line line;
    uint64_t config, compare, period;
};

struct hpet {
    struct machine *machine;
    struct pit *pit;
    pthread_mutex_t lock;
    uint64_t config, status;
    uint64_t stopped_at; /* counter while disabled */
    int64_t offset;      /* machine time at which the running counter would have been 0 */
    struct comparator timer[TIMERS];
};

static uint64_t counter(const struct hpet *h)
{
    if (!(h->config & CONFIG_ENABLE))
        return h->stopped_at;
    return (uint64_t)(vm_clock_now(h->machine->clock) - h->offset) / TICK_NS;
}

static unsigned route(const struct hpet *h, const struct comparator *t)
{
    if (h->config & CONFIG_LEGACY && t == &h->timer[0])
        return 0;
    if (h->config & CONFIG_LEGACY && t == &h->timer[1])
        return 8;
    return TN_ROUTE(t->config);
}

static void set_line(struct comparator *t, bool level)
{
    unsigned gsi = route(t->hpet, t);

    if (t->line.gsi != gsi) {
        irq_line_set(&t->line, false);
        irq_line_init(&t->line, t->hpet->machine->irq, gsi);
    }
    irq_line_set(&t->line, level);
}

/* Ticks from now to a match; the comparator is 32 or 64 bits wide. */
static uint64_t distance(const struct hpet *h, const struct comparator *t)
{
    uint64_t d = t->compare - counter(h);

    if (t->config & TN_32MODE)
        return (uint32_t)d;
    return d;
}

static void arm(struct comparator *t)
{
    struct hpet *h = t->hpet;
    uint64_t d = distance(h, t);

    if (!(h->config & CONFIG_ENABLE) || !(t->config & TN_ENABLE) || d > (uint64_t)INT64_MAX / TICK_NS / 2) {
        vm_timer_cancel(&t->timer);
        return;
    }
    vm_timer_arm(&t->timer, vm_clock_now(h->machine->clock) + (int64_t)d * TICK_NS);
}

static void on_timer(struct vm_timer *timer)
{
    struct comparator *t = QZ_CONTAINER_OF(timer, struct comparator, timer);
    struct hpet *h = t->hpet;
    uint64_t mask = t->config & TN_32MODE ? 0xffffffff : ~0ull;
    QZ_LOCKED(&h->lock);

    if (!(h->config & CONFIG_ENABLE) || !(t->config & TN_ENABLE))
        return;
    if (t->config & TN_LEVEL) {
        h->status |= 1u << (t - h->timer);
        set_line(t, true);
    } else {
        set_line(t, true);
        set_line(t, false);
    }
    if (t->config & TN_PERIODIC && t->period) {
        uint64_t behind = (counter(h) - t->compare) & mask;

        t->compare = (t->compare + (behind / t->period + 1) * t->period) & mask;
        arm(t);
    }
}

static uint64_t read_register(struct hpet *h, unsigned reg)
{
    struct comparator *t = &h->timer[(reg - REG_TIMER0) / 0x20 % TIMERS];

    switch (reg) {
    case REG_CAPABILITY:
        return (uint64_t)PERIOD_FS << 32 | HPET_BLOCK_ID;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter(h);
    }
    if (reg < REG_TIMER0 || reg >= REG_TIMER0 + TIMERS * 0x20)
        return 0;
    switch (reg & 0x1f) {
    case 0x00:
        return t->config | TN_ROUTES | TN_CAN_REPEAT | TN_64BIT;
    case 0x08:
        return t->compare;
    }
    return 0;
}

static void write_config(struct hpet *h, uint64_t v)
{
    uint64_t now = counter(h), old = h->config;

    for (int i = 0; i < TIMERS; i++)
        set_line(&h->timer[i], false); /* routes may change */
    h->config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
    if (h->config & CONFIG_ENABLE && !(old & CONFIG_ENABLE))
        h->offset = vm_clock_now(h->machine->clock) - (int64_t)(now * TICK_NS);
    else if (!(h->config & CONFIG_ENABLE))
        h->stopped_at = now;
    if ((old ^ h->config) & CONFIG_LEGACY && h->pit)
        pit_set_irq_enabled(h->pit, !(h->config & CONFIG_LEGACY));
    for (int i = 0; i < TIMERS; i++) {
        set_line(&h->timer[i], h->status >> i & 1);
        arm(&h->timer[i]);
    }
}

static void write_timer(struct comparator *t, unsigned reg, uint64_t v, uint64_t mask)
{
    struct hpet *h = t->hpet;
    uint64_t width;

    if (reg == 0x00) {
        set_line(t, false);
        t->config = ((t->config & ~mask) | (v & mask)) & TN_WRITABLE;
        if (t->config & TN_32MODE)
            t->compare = (uint32_t)t->compare;
        if (!(t->config & TN_LEVEL) || !(t->config & TN_ENABLE))
            h->status &= ~(1ull << (t - h->timer));
        set_line(t, h->status >> (t - h->timer) & 1);
        arm(t);
        return;
    }
    width = t->config & TN_32MODE ? 0xffffffff : ~0ull;
    /* In periodic mode a write sets the period, and the accumulator too right after SET_VALUE (1.0a §2.3.9.2.2). */
    if (t->config & TN_PERIODIC)
        t->period = ((t->period & ~mask) | (v & mask)) & width;
    if (!(t->config & TN_PERIODIC) || t->config & TN_SET_VALUE)
        t->compare = ((t->compare & ~mask) | (v & mask)) & width;
    if (mask >> 32 || width == 0xffffffff || mask == ~0ull)
        t->config &= ~(uint64_t)TN_SET_VALUE;
    arm(t);
}

static uint64_t hpet_read(void *device, uint64_t offset, unsigned size)
{
    struct hpet *h = device;

    return read_register(h, offset & ~7u) >> (offset & 7) * 8;
}

static void hpet_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *h = device;
    unsigned reg = offset & ~7u, shift = (offset & 7) * 8;
    uint64_t mask = (size == 8 ? ~0ull : (1ull << size * 8) - 1) << shift, v = value << shift, old;

    switch (reg) {
    case REG_CONFIG:
        write_config(h, (h->config & ~mask) | (v & mask));
        return;
    case REG_STATUS: /* write one to clear */
        h->status &= ~(v & mask);
        for (int i = 0; i < TIMERS; i++)
            if (!(h->status >> i & 1))
                set_line(&h->timer[i], false);
        return;
    case REG_COUNTER:
        old = counter(h);
        h->stopped_at = (old & ~mask) | (v & mask);
        h->offset = vm_clock_now(h->machine->clock) - (int64_t)(h->stopped_at * TICK_NS);
        for (int i = 0; i < TIMERS; i++)
            arm(&h->timer[i]);
        return;
    }
    if (reg >= REG_TIMER0 && reg < REG_TIMER0 + TIMERS * 0x20 && (reg & 0x1f) <= 8)
        write_timer(&h->timer[(reg - REG_TIMER0) / 0x20], reg & 0x1f, v, mask);
}

static const struct bus_ops ops = {hpet_read, hpet_write};

void hpet_reset(struct hpet *h)
{
    QZ_LOCKED(&h->lock);

    if (h->config & CONFIG_LEGACY && h->pit)
        pit_set_irq_enabled(h->pit, true);
    h->config = h->status = h->stopped_at = 0;
    for (int i = 0; i < TIMERS; i++) {
        struct comparator *t = &h->timer[i];

        set_line(t, false);
        t->config = t->period = 0;
        t->compare = ~0ull;
        vm_timer_cancel(&t->timer);
    }
}

int hpet_new(struct hpet **out, struct machine *m, struct pit *pit, struct qz_error *err)
{
    struct hpet *h = calloc(1, sizeof(*h));
    const struct bus_region region = {HPET_BASE, SIZE, &ops, h, h ? &h->lock : NULL, "hpet"};
    int r;

    if (!h)
        return qz_fail(err, -ENOMEM, "hpet: no memory");
    h->machine = m;
    h->pit = pit;
    pthread_mutex_init(&h->lock, NULL);
    for (int i = 0; i < TIMERS; i++) {
        h->timer[i].hpet = h;
        vm_timer_init(&h->timer[i].timer, m->clock, on_timer);
        irq_line_init(&h->timer[i].line, m->irq, 0);
    }
    hpet_reset(h);
    if ((r = bus_add(m->mmio, &region)) < 0) {
        free(h);
        return qz_fail(err, r, "hpet: its addresses are taken");
    }
    *out = h;
    return 0;
}

void hpet_free(struct hpet *h)
{
    if (!h)
        return;
    for (int i = 0; i < TIMERS; i++)
        vm_timer_cancel(&h->timer[i].timer);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/*
 * hpet.c - the high precision event timer (IA-PC HPET 1.0a).
 *
 * Theory of operation. The main counter is machine time in units of 10 ns while enabled. A
 * comparator arms a timer for the moment at which the counter reaches it; a firing first looks
 * whether that moment has really come, as the guest may have moved it meanwhile. Comparators drive
 * I/O APIC pins 20 to 23 as in ICH9 (§19.1.5), or in legacy replacement mode IRQ 0 and 8. FSB
 * delivery is not announced.
 */
#include "machine/hpet.h"

enum { TIMERS = 3, TICK_NS = 10, PERIOD_FS = TICK_NS * 1000000, SIZE = 0x400, STRIDE = 0x20 };
enum {
    REG_CAPABILITY = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMER0 = 0x100
};
enum { TIMER_CONFIG = 0x00, TIMER_COMPARE = 0x08 };
enum { CONFIG_ENABLE = 1, CONFIG_LEGACY = 2 };
/* No guest makes the clock thread busy: shorter periods are served at this one. */
enum { PERIOD_MIN_NS = 20000 };

#define TN_LEVEL      (1u << 1)
#define TN_ENABLE     (1u << 2)
#define TN_PERIODIC   (1u << 3)
#define TN_CAN_REPEAT (1u << 4)
#define TN_64BIT      (1u << 5)
#define TN_SET_VALUE  (1u << 6)
#define TN_32MODE     (1u << 8)
#define TN_ROUTE(c)   ((c) >> 9 & 31)
#define TN_ROUTE_BITS (31u << 9)
#define TN_WRITABLE   (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32MODE | TN_ROUTE_BITS)

#define ROUTES      0x00f00000u /* pins that a comparator may be told to drive */
#define NEVER_TICKS ((uint64_t)INT64_MAX / TICK_NS / 4) /* 73 years */

struct comparator {
    struct hpet *hpet;
    struct vm_timer timer;
    struct irq_line line;
    uint64_t config, compare, period;
    int64_t due; /* machine time of the match that the timer is armed for, -1: none */
};

struct hpet {
    struct machine *machine;
    struct pit *pit;
    pthread_mutex_t lock;
    uint64_t config, status;
    uint64_t base; /* counter at machine time `start`, or while disabled */
    int64_t start;
    struct comparator timer[TIMERS];
};

static unsigned number(const struct comparator *t)
{
    return (unsigned)(t - t->hpet->timer);
}

static uint64_t width(const struct comparator *t)
{
    return t->config & TN_32MODE ? 0xffffffff : ~0ull;
}

/* ---- counter -------------------------------------------------------------------------------- */

static uint64_t counter_at(const struct hpet *h, int64_t now)
{
    return h->config & CONFIG_ENABLE ? h->base + (uint64_t)(now - h->start) / TICK_NS : h->base;
}

static uint64_t counter(const struct hpet *h)
{
    return counter_at(h, vm_clock_now(h->machine->clock));
}

/* ---- interrupts ----------------------------------------------------------------------------- */

/* The pin of a comparator, -1: not connected. */
static int route(const struct comparator *t)
{
    static const int legacy[] = {0, 8};
    unsigned pin = TN_ROUTE(t->config);

    if (t->hpet->config & CONFIG_LEGACY && number(t) < QZ_ARRAY_LEN(legacy))
        return legacy[number(t)];
    return ROUTES >> pin & 1 ? (int)pin : -1;
}

static void set_line(struct comparator *t, bool level)
{
    int pin = route(t);

    if (pin != t->line.gsi) {
        irq_line_set(&t->line, false);
        if (pin >= 0)
            irq_line_init(&t->line, t->hpet->machine->irq, pin);
    }
    irq_line_set(&t->line, level && pin >= 0);
}

/* The line as status and enable bit have it. */
static void update_line(struct comparator *t)
{
    set_line(t, t->hpet->status >> number(t) & 1 && t->config & TN_ENABLE);
}

static void interrupt(struct comparator *t)
{
    if (t->config & TN_LEVEL) {
        t->hpet->status |= 1u << number(t);
        update_line(t);
    } else if (t->config & TN_ENABLE) {
        set_line(t, true);
        set_line(t, false);
    }
}

/* ---- comparators ---------------------------------------------------------------------------- */

/* fired: the counter has been seen at the comparator's value, so the next match is a whole turn
 * away. */
static void arm(struct comparator *t, bool fired)
{
    struct hpet *h = t->hpet;
    int64_t now = vm_clock_now(h->machine->clock), soonest = 0;
    uint64_t left = (t->compare - counter_at(h, now)) & width(t);

    if (fired && left == 0)
        left = t->config & TN_32MODE ? 1ull << 32 : ~0ull;
    t->due = -1;
    /* Comparators also set their status bit and step on while their interrupt is disabled. */
    if (!(h->config & CONFIG_ENABLE) || !(t->config & (TN_ENABLE | TN_LEVEL | TN_PERIODIC)) ||
        left > NEVER_TICKS) {
        vm_timer_cancel(&t->timer);
        return;
    }
    if (fired && t->config & TN_PERIODIC)
        soonest = now + PERIOD_MIN_NS;
    t->due = QZ_MAX(now - (now - h->start) % TICK_NS + (int64_t)left * TICK_NS, soonest);
    vm_timer_arm(&t->timer, t->due);
}

static void on_timer(struct vm_timer *timer)
{
    struct comparator *t = QZ_CONTAINER_OF(timer, struct comparator, timer);
    struct hpet *h = t->hpet;
    QZ_LOCKED(&h->lock);

    if (t->due < 0 || vm_clock_now(h->machine->clock) < t->due)
        return;
    interrupt(t);
    if (t->config & TN_PERIODIC && t->period) {
        uint64_t behind = (counter(h) - t->compare) & width(t);

        /* Periods that went by unseen (a paused or busy host) are one. */
        t->compare = (t->compare + (behind / t->period + 1) * t->period) & width(t);
    }
    arm(t, true);
}

static void write_timer_config(struct comparator *t, uint64_t v, uint64_t mask)
{
    uint64_t old_route = t->config & TN_ROUTE_BITS;

    set_line(t, false); /* its pin may change */
    t->config = ((t->config & ~mask) | (v & mask)) & TN_WRITABLE;
    if (!(ROUTES >> TN_ROUTE(t->config) & 1)) /* software reads back whether its choice was taken */
        t->config = (t->config & ~(uint64_t)TN_ROUTE_BITS) | old_route;
    t->compare &= width(t);
    t->period &= width(t);
    if (!(t->config & TN_LEVEL))
        t->hpet->status &= ~(1ull << number(t));
    update_line(t);
    arm(t, false);
}

/*
 * In periodic mode a write sets the period, and the comparator itself only while SET_VALUE is on,
 * which goes off with the last half that is written (1.0a §2.3.9.2.2).
 */
static void write_compare(struct comparator *t, uint64_t v, uint64_t mask)
{
    if (t->config & TN_PERIODIC)
        t->period = ((t->period & ~mask) | (v & mask)) & width(t);
    if (!(t->config & TN_PERIODIC) || t->config & TN_SET_VALUE)
        t->compare = ((t->compare & ~mask) | (v & mask)) & width(t);
    if (mask >> 32 || t->config & TN_32MODE)
        t->config &= ~(uint64_t)TN_SET_VALUE;
    arm(t, false);
}

/* ---- registers ------------------------------------------------------------------------------ */

static void write_config(struct hpet *h, uint64_t v)
{
    int64_t now = vm_clock_now(h->machine->clock);
    uint64_t old = h->config;

    h->base = counter_at(h, now);
    h->start = now;
    for (int i = 0; i < TIMERS; i++)
        set_line(&h->timer[i], false); /* routes may change */
    h->config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
    if ((old ^ h->config) & CONFIG_LEGACY && h->pit)
        pit_set_irq_enabled(h->pit, !(h->config & CONFIG_LEGACY));
    for (int i = 0; i < TIMERS; i++) {
        update_line(&h->timer[i]);
        arm(&h->timer[i], false);
    }
}

/* The comparator whose registers include this one, or NULL. */
static struct comparator *timer_of(struct hpet *h, unsigned reg)
{
    return reg >= REG_TIMER0 && reg < REG_TIMER0 + TIMERS * STRIDE
               ? &h->timer[(reg - REG_TIMER0) / STRIDE]
               : NULL;
}

static uint64_t read_register(struct hpet *h, unsigned reg)
{
    struct comparator *t = timer_of(h, reg);

    if (t && reg % STRIDE == TIMER_CONFIG)
        return (uint64_t)ROUTES << 32 | t->config | TN_CAN_REPEAT | TN_64BIT;
    if (t)
        return reg % STRIDE == TIMER_COMPARE ? t->compare : 0;
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
    return 0;
}

/* v: in place within the 64-bit register; mask: the bits that the access covers. */
static void write_register(struct hpet *h, unsigned reg, uint64_t v, uint64_t mask)
{
    struct comparator *t = timer_of(h, reg);

    if (t && reg % STRIDE == TIMER_CONFIG) {
        write_timer_config(t, v, mask);
    } else if (t && reg % STRIDE == TIMER_COMPARE) {
        write_compare(t, v, mask);
    } else if (reg == REG_CONFIG) {
        write_config(h, (h->config & ~mask) | (v & mask));
    } else if (reg == REG_STATUS) { /* a one clears */
        h->status &= ~(v & mask);
        for (int i = 0; i < TIMERS; i++)
            update_line(&h->timer[i]);
    } else if (reg == REG_COUNTER) {
        h->base = (counter(h) & ~mask) | (v & mask);
        h->start = vm_clock_now(h->machine->clock);
        for (int i = 0; i < TIMERS; i++)
            arm(&h->timer[i], false);
    }
}

/* An access that runs over the end of its 8-byte register sees nothing of the next one: the
 * specification forbids it. */
static uint64_t hpet_read(void *device, uint64_t offset, unsigned size)
{
    return read_register(device, offset & ~7u) >> (offset & 7) * 8;
}

static void hpet_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned shift = (offset & 7) * 8;
    uint64_t mask = (size == 8 ? ~0ull : (1ull << size * 8) - 1) << shift;

    write_register(device, offset & ~7u, value << shift, mask);
}

/* ---- state ---------------------------------------------------------------------------------- */

static void comparator_state(struct comparator *t, struct qz_state *s)
{
    QZ_STATE(s, "config", t->config, TN_WRITABLE);
    QZ_STATE_ANY(s, "compare", t->compare);
    QZ_STATE_ANY(s, "period", t->period);
    QZ_STATE_SIGNED(s, "due", t->due, -1, INT64_MAX);
    if (t->config & ~(uint64_t)TN_WRITABLE || t->compare > width(t) || t->period > width(t))
        qz_state_refuse(s, "what its mode does not allow");
    if (qz_state_loading(s) && !qz_state_failed(s))
        update_line(t); /* all that holds it up is status and enable bit */
    vm_timer_state(&t->timer, s, "timer");
}

void hpet_state(struct hpet *h, struct qz_state *s)
{
    QZ_LOCKED(&h->lock);

    qz_state_group(s, "hpet");
    QZ_STATE(s, "config", h->config, CONFIG_ENABLE | CONFIG_LEGACY);
    QZ_STATE(s, "status", h->status, (1 << TIMERS) - 1);
    QZ_STATE_ANY(s, "base", h->base);
    QZ_STATE_SIGNED(s, "start", h->start, 0, VM_TIME_MAX);
    for (unsigned i = 0; i < TIMERS; i++) {
        qz_state_group_at(s, "comparator", i);
        comparator_state(&h->timer[i], s);
        qz_state_end(s);
    }
    qz_state_end(s);
}

/* ---- life ----------------------------------------------------------------------------------- */

void hpet_reset(struct hpet *h)
{
    QZ_LOCKED(&h->lock);

    if (h->config & CONFIG_LEGACY && h->pit)
        pit_set_irq_enabled(h->pit, true);
    for (int i = 0; i < TIMERS; i++) {
        struct comparator *t = &h->timer[i];

        set_line(t, false);
        t->config = t->period = 0;
        t->compare = ~0ull;
        t->due = -1;
        vm_timer_cancel(&t->timer);
    }
    h->config = h->status = h->base = 0;
}

int hpet_new(struct hpet **out, struct machine *m, struct pit *pit, struct qz_error *err)
{
    static const struct bus_ops ops = {hpet_read, hpet_write};
    struct hpet *h = calloc(1, sizeof(*h));
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
    r = bus_add(m->mmio, &(struct bus_region){HPET_BASE, SIZE, &ops, h, &h->lock, "hpet"});
    if (r < 0) {
        hpet_free(h);
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

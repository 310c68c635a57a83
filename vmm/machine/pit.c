/*
 * pit.c - the 8254 interval timer (Intel 8254 data sheet; port 0x61 as in ICH9 §13.7.1).
 *
 * Theory of operation. Nothing counts: a channel remembers the tick (of 1.193182 MHz machine time)
 * at which its count was loaded, and count and output are worked out when somebody looks. Only
 * channel 0 arms a timer, for the next rising edge of its output. A low phase between two rising
 * edges is shown on the line just before the edge that ends it: IRQ 0 is edge triggered and nobody
 * sees the difference. The one tick between writing a count and its transfer is left out.
 */
#include "machine/pit.h"

enum { PIT_HZ = 1193182, CHANNELS = 3, CONTROL = 3, PORT_BASE = 0x40, PORT_B = 0x61 };
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum { ON_TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFT_STROBE, HARD_STROBE }; /* modes 0 to 5 */
enum {
    GATE2 = 1 << 0,
    PORT_B_KEPT = 0x0f,
    REFRESH_NS = 15085 /* toggles with every DRAM refresh */
};
/* No guest makes the clock thread busy: shorter periods are served at this one. */
enum { PERIOD_MIN_NS = 20000 };
/* No machine gets as old. */
#define TICKS_MAX (VM_TIME_MAX / 500)

struct channel {
    uint8_t mode, access;
    bool bcd, gate;
    bool loaded;     /* a count is in the counter, or waits for its trigger */
    bool triggered;  /* ONE_SHOT, HARD_STROBE: the gate has risen since */
    bool paused;     /* ON_TERMINAL_COUNT, SOFT_STROBE: counting stands while the gate is low */
    bool next_waits; /* `next` takes over: at tick switch_at, or with the next trigger */
    bool switch_low; /* SQUARE: it takes over for a low half */
    bool write_high, read_high;
    uint8_t low_byte; /* first half of a two-byte write */
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
    uint32_t count, next;     /* 1 to 65536 (10000 in BCD, but for digits above 9) */
    int64_t start, switch_at; /* ticks */
    int64_t passed;           /* ticks counted before the pause */
};

struct pit {
    struct machine *machine;
    pthread_mutex_t lock;
    struct irq_line line;
    struct vm_timer timer;
    int64_t edge_at; /* tick of the rising edge that the timer is armed for, -1: none */
    struct channel channel[CHANNELS];
    uint8_t port_b;
    bool irq_enabled;
};

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t now_ticks(struct pit *p)
{
    return (int64_t)((__int128)vm_clock_now(p->machine->clock) * PIT_HZ / 1000000000);
}

/* The first nanosecond that belongs to the tick. */
static int64_t ns_of(int64_t tick)
{
    return (int64_t)(((__int128)tick * 1000000000 + PIT_HZ - 1) / PIT_HZ);
}

/* ---- a channel's state at a tick ------------------------------------------------------------ */

static bool is_periodic(const struct channel *c)
{
    return c->mode == RATE || c->mode == SQUARE;
}
static bool needs_trigger(const struct channel *c)
{
    return c->mode == ONE_SHOT || c->mode == HARD_STROBE;
}

/* SQUARE: ticks of the high half; the odd one belongs to it. */
static int64_t high_half(uint32_t count)
{
    return (count + 1) / 2;
}

/* Ticks since the count was loaded, or triggered. */
static int64_t elapsed(const struct channel *c, int64_t now)
{
    return c->paused ? c->passed : now - c->start;
}

/* Takes a count that was written while the old one ran, once its time has come. */
static void catch_up(struct channel *c, int64_t now)
{
    if (!is_periodic(c) || !c->next_waits || !c->gate || now < c->switch_at)
        return;
    c->count = c->next;
    c->start = c->switch_at - (c->switch_low ? high_half(c->next) : 0);
    c->next_waits = false;
}

static uint32_t value_at(const struct channel *c, int64_t now)
{
    int64_t wrap = c->bcd ? 10000 : 65536, t = elapsed(c, now), half = high_half(c->count);

    if (!c->loaded)
        return 0;
    if (needs_trigger(c) && !c->triggered)
        return c->count;
    if (c->mode == RATE)
        return c->gate ? c->count - (uint32_t)(t % c->count) : c->count;
    if (c->mode == SQUARE) { /* down by two, twice in each period */
        t = c->gate ? t % c->count : 0;
        return (c->count & ~1u) - 2 * (uint32_t)(t < half ? t : t - half);
    }
    return (uint32_t)(((c->count - t) % wrap + wrap) % wrap); /* runs on through zero */
}

static bool output_at(const struct channel *c, int64_t now)
{
    int64_t t = elapsed(c, now);

    if (!c->loaded)
        return c->mode != ON_TERMINAL_COUNT;
    switch (c->mode) {
    case ON_TERMINAL_COUNT:
        return t >= c->count;
    case ONE_SHOT:
        return !c->triggered || t >= c->count;
    case RATE:
        return !c->gate || t % c->count != c->count - 1;
    case SQUARE:
        return !c->gate || t % c->count < high_half(c->count);
    case HARD_STROBE:
        return !c->triggered || t != c->count;
    }
    return t != c->count; /* SOFT_STROBE: one low tick at the end */
}

/* Tick of the next rising edge after now, -1: none. For channel 0, whose gate is always high. */
static int64_t next_edge(const struct channel *c, int64_t now)
{
    int64_t t = now - c->start;

    if (!c->loaded || needs_trigger(c))
        return -1;
    if (c->mode == ON_TERMINAL_COUNT)
        return t < c->count ? c->start + c->count : -1;
    if (c->mode == SOFT_STROBE)
        return t <= c->count ? c->start + c->count + 1 : -1;
    if (c->next_waits && c->switch_low)
        return c->switch_at - high_half(c->next) + c->next;
    return c->start + (t / c->count + 1) * c->count;
}

/* ---- IRQ 0 ---------------------------------------------------------------------------------- */

/* Shows channel 0's output on the line and arms the timer for its next rising edge. Lock held. */
static void update(struct pit *p)
{
    struct channel *c = &p->channel[0];
    int64_t now = now_ticks(p), when;

    catch_up(c, now);
    p->edge_at = p->irq_enabled ? next_edge(c, now) : -1;
    /* Between its edges a periodic output counts as high: see the top. */
    irq_line_set(&p->line, p->irq_enabled && (c->mode != ON_TERMINAL_COUNT || output_at(c, now)));
    if (p->edge_at < 0) {
        vm_timer_cancel(&p->timer);
        return;
    }
    when = ns_of(p->edge_at);
    if (is_periodic(c))
        when = QZ_MAX(when, vm_clock_now(p->machine->clock) + (c->count < 24 ? PERIOD_MIN_NS : 0));
    vm_timer_arm(&p->timer, when);
}

static void on_timer(struct vm_timer *timer)
{
    struct pit *p = QZ_CONTAINER_OF(timer, struct pit, timer);
    QZ_LOCKED(&p->lock);

    /* The guest may have stopped or moved the edge since this firing was decided. Missed edges are
     * one edge. */
    if (p->edge_at < 0 || now_ticks(p) < p->edge_at)
        return;
    irq_line_set(&p->line, false);
    irq_line_set(&p->line, true);
    update(p);
}

void pit_set_irq_enabled(struct pit *p, bool enabled)
{
    QZ_LOCKED(&p->lock);

    p->irq_enabled = enabled;
    update(p);
}

/* ---- counts --------------------------------------------------------------------------------- */

static uint32_t from_bcd(uint32_t v)
{
    return (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}
static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static uint32_t count_of(const struct channel *c, uint16_t value)
{
    uint32_t count = c->bcd ? from_bcd(value) : value;

    if (count == 0)
        return c->bcd ? 10000 : 65536;
    return is_periodic(c) && count == 1 ? 2 : count; /* 1 is not allowed there; 2 is the shortest */
}

static void load(struct channel *c, uint16_t value, int64_t now)
{
    uint32_t count = count_of(c, value);
    int64_t t = now - c->start;

    if (c->loaded && is_periodic(c)) {
        /* The running cycle (square wave: half) ends undisturbed. */
        int64_t cycle = c->start + t / c->count * c->count, half = high_half(c->count);

        c->switch_low = c->mode == SQUARE && t % c->count < half;
        c->switch_at = cycle + (c->switch_low ? half : c->count);
        c->next = count;
        c->next_waits = true;
        return;
    }
    if (c->loaded && needs_trigger(c)) {
        c->next = count;
        c->next_waits = true;
        return;
    }
    c->count = count;
    c->start = now;
    c->passed = 0;
    c->paused = !c->gate && (c->mode == ON_TERMINAL_COUNT || c->mode == SOFT_STROBE);
    c->loaded = true;
}

static uint16_t current(const struct channel *c, int64_t now)
{
    uint32_t v = value_at(c, now);

    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

static void latch_count(struct channel *c, int64_t now)
{
    if (c->count_latched)
        return;
    c->latch = current(c, now);
    c->count_latched = true;
}

static void latch_status(struct channel *c, int64_t now)
{
    bool null_count = !c->loaded || c->next_waits || (needs_trigger(c) && !c->triggered);

    if (c->status_latched)
        return;
    c->status = (uint8_t)(output_at(c, now) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 |
                          c->bcd);
    c->status_latched = true;
}

/* ---- ports 0x40 to 0x43 --------------------------------------------------------------------- */

static void read_back(struct pit *p, uint8_t v, int64_t now)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (!(v >> (i + 1) & 1))
            continue;
        if (!(v & 0x20))
            latch_count(&p->channel[i], now);
        if (!(v & 0x10))
            latch_status(&p->channel[i], now);
    }
}

static void write_control(struct pit *p, uint8_t v, int64_t now)
{
    struct channel *c;

    if (v >> 6 == 3) {
        read_back(p, v, now);
        return;
    }
    c = &p->channel[v >> 6];
    if ((v >> 4 & 3) == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    *c = (struct channel){.access = v >> 4 & 3, .mode = v >> 1 & 7, .bcd = v & 1, .gate = c->gate};
    if (c->mode > HARD_STROBE)
        c->mode -= 4; /* the upper bit does not count in modes 2 and 3 */
}

static void write_count(struct channel *c, uint8_t v, int64_t now)
{
    if (c->access == ACCESS_LOW) {
        load(c, v, now);
    } else if (c->access == ACCESS_HIGH) {
        load(c, (uint16_t)(v << 8), now);
    } else if (!c->write_high) {
        c->low_byte = v;
        c->write_high = true;
        if (c->mode == ON_TERMINAL_COUNT)
            c->loaded = false; /* the first byte stops counting */
    } else {
        c->write_high = false;
        load(c, (uint16_t)(v << 8 | c->low_byte), now);
    }
}

static uint8_t read_count(struct channel *c, int64_t now)
{
    uint16_t v;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    v = c->count_latched ? c->latch : current(c, now);
    high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);
    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->access != ACCESS_BOTH || high)
        c->count_latched = false;
    return (uint8_t)(high ? v >> 8 : v);
}

static int64_t all_catch_up(struct pit *p)
{
    int64_t now = now_ticks(p);

    for (unsigned i = 0; i < CHANNELS; i++)
        catch_up(&p->channel[i], now);
    return now;
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *p = device;
    int64_t now = all_catch_up(p);

    return offset == CONTROL
               ? 0xff
               : read_count(&p->channel[offset], now); /* the control word is write-only */
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = device;
    int64_t now = all_catch_up(p);

    if (offset == CONTROL)
        write_control(p, (uint8_t)value, now);
    else
        write_count(&p->channel[offset], (uint8_t)value, now);
    if (offset == 0 || (offset == CONTROL && (value >> 6 & 3) == 0 && value >> 4 & 3))
        update(p);
}

/* ---- port 0x61: channel 2's gate and output ------------------------------------------------- */

static void set_gate(struct channel *c, bool gate, int64_t now)
{
    bool rose = gate && !c->gate;

    if (gate == c->gate)
        return;
    if (c->mode == ON_TERMINAL_COUNT || c->mode == SOFT_STROBE) {
        if (rose)
            c->start = now - c->passed;
        else
            c->passed = elapsed(c, now);
        c->paused = !gate;
    } else if (rose) {
        /* A trigger: the count, or a newer one that waits, from the start. */
        if (c->next_waits)
            c->count = c->next;
        c->next_waits = false;
        c->start = now;
        c->triggered = c->loaded;
    }
    c->gate = gate;
}

static uint64_t port_b_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *p = device;
    int64_t now = all_catch_up(p);
    bool refresh = vm_clock_now(p->machine->clock) / REFRESH_NS & 1;

    return output_at(&p->channel[2], now) << 5 | refresh << 4 | p->port_b;
}

static void port_b_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = device;
    int64_t now = all_catch_up(p);

    set_gate(&p->channel[2], value & GATE2, now);
    p->port_b = value & PORT_B_KEPT;
}

/* ---- state ---------------------------------------------------------------------------------- */

static void channel_state(struct channel *c, struct qz_state *s)
{
    QZ_STATE(s, "mode", c->mode, HARD_STROBE);
    QZ_STATE(s, "access", c->access, ACCESS_BOTH);
    QZ_STATE(s, "bcd", c->bcd, 1);
    QZ_STATE(s, "gate", c->gate, 1);
    QZ_STATE(s, "loaded", c->loaded, 1);
    QZ_STATE(s, "triggered", c->triggered, 1);
    QZ_STATE(s, "paused", c->paused, 1);
    QZ_STATE(s, "next_waits", c->next_waits, 1);
    QZ_STATE(s, "switch_low", c->switch_low, 1);
    QZ_STATE(s, "write_high", c->write_high, 1);
    QZ_STATE(s, "read_high", c->read_high, 1);
    QZ_STATE_ANY(s, "low_byte", c->low_byte);
    QZ_STATE(s, "count_latched", c->count_latched, 1);
    QZ_STATE(s, "status_latched", c->status_latched, 1);
    QZ_STATE_ANY(s, "latch", c->latch);
    QZ_STATE_ANY(s, "status", c->status);
    QZ_STATE(s, "count", c->count, 65536);
    QZ_STATE(s, "next", c->next, 65536);
    QZ_STATE_SIGNED(s, "start", c->start, -TICKS_MAX, TICKS_MAX);
    QZ_STATE_SIGNED(s, "switch_at", c->switch_at, -TICKS_MAX, TICKS_MAX);
    QZ_STATE_SIGNED(s, "passed", c->passed, -TICKS_MAX, TICKS_MAX);
    if ((c->loaded && !c->count) || (c->next_waits && !c->next))
        qz_state_refuse(s, "a count of 0");
}

void pit_state(struct pit *p, struct qz_state *s)
{
    QZ_LOCKED(&p->lock);

    qz_state_group(s, "pit");
    for (unsigned i = 0; i < CHANNELS; i++) {
        qz_state_group_at(s, "channel", i);
        channel_state(&p->channel[i], s);
        if (i != 2 && !p->channel[i].gate)
            qz_state_refuse(s, "its gate is always high");
        qz_state_end(s);
    }
    QZ_STATE(s, "port_b", p->port_b, PORT_B_KEPT);
    QZ_STATE(s, "irq_enabled", p->irq_enabled, 1);
    QZ_STATE_SIGNED(s, "edge_at", p->edge_at, -1, TICKS_MAX);
    irq_line_state(&p->line, s, "line");
    vm_timer_state(&p->timer, s, "timer");
    qz_state_end(s);
}

/* ---- life ----------------------------------------------------------------------------------- */

void pit_reset(struct pit *p)
{
    QZ_LOCKED(&p->lock);

    for (unsigned i = 0; i < CHANNELS; i++)
        p->channel[i] = (struct channel){.access = ACCESS_BOTH, .mode = SQUARE, .gate = i != 2};
    p->port_b = 0;
    p->irq_enabled = true;
    p->edge_at = -1;
    irq_line_set(&p->line, false);
    vm_timer_cancel(&p->timer);
}

int pit_new(struct pit **out, struct machine *m, struct qz_error *err)
{
    static const struct bus_ops counter_ops = {pit_read, pit_write},
                                port_b_ops = {port_b_read, port_b_write};
    struct pit *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return qz_fail(err, -ENOMEM, "pit: no memory");
    p->machine = m;
    pthread_mutex_init(&p->lock, NULL);
    irq_line_init(&p->line, m->irq, 0);
    vm_timer_init(&p->timer, m->clock, on_timer);
    pit_reset(p);
    if ((r = bus_add(m->pio,
                     &(struct bus_region){PORT_BASE, 4, &counter_ops, p, &p->lock, "pit"})) < 0 ||
        (r = bus_add(m->pio, &(struct bus_region){PORT_B, 1, &port_b_ops, p, &p->lock, "port61"})) <
            0) {
        pit_free(p);
        return qz_fail(err, r, "pit: its ports are taken");
    }
    *out = p;
    return 0;
}

void pit_free(struct pit *p)
{
    if (!p)
        return;
    vm_timer_cancel(&p->timer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/*
 * pit.c - the 8254 interval timer (Intel 8254 data sheet; port 0x61 as in ICH9 §13.7.1).
 *
 * Theory of operation. Nothing counts: a channel remembers when its count was loaded, and count and output are computed
 * from the machine's clock when somebody looks. Only channel 0 arms a timer, for the next change of its output.
 */
#include "machine/pit.h"

enum { PIT_HZ = 1193182, CHANNELS = 3, CONTROL = 3, PORT_BASE = 0x40, PORT_B = 0x61 };
enum { LATCH_NONE, ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_BOTH = 3 };
enum { REFRESH_NS = 15085 }; /* port 0x61 bit 4 toggles with every DRAM refresh */

struct channel {
    uint8_t mode, access;
    bool bcd, gate, loaded, write_high, read_high, null_count;
    uint8_t low_byte;       /* first half of a two-byte write */
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
    uint32_t count;         /* 1 to 65536 (or 10000 in BCD) */
    int64_t start;          /* machine time when counting from `count` began */
};

struct pit {
    struct machine *machine;
    pthread_mutex_t lock;
    struct irq_line line;
    struct vm_timer timer;
    struct channel channel[CHANNELS];
    bool speaker, irq_enabled;
};

static int64_t ticks_to_ns(uint64_t ticks)
{
    return (int64_t)((unsigned __int128)ticks * 1000000000 / PIT_HZ);
}

static uint64_t ticks_since(struct pit *p, const struct channel *c)
{
    int64_t ns = vm_clock_now(p->machine->clock) - c->start;

    return ns > 0 ? (uint64_t)((unsigned __int128)ns * PIT_HZ / 1000000000) : 0;
}

static bool is_periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* The counter's value after `t` ticks, still binary. */
static uint32_t value_after(const struct channel *c, uint64_t t)
{
    uint32_t wrap = c->bcd ? 10000 : 65536;

    switch (c->mode) {
    case 2:
        return c->count - (uint32_t)(t % c->count);
    case 3: /* counts down by two, twice in each period */
        return c->count - (uint32_t)(2 * t % c->count);
    default: /* runs on through zero */
        return (uint32_t)((c->count + wrap - t % wrap) % wrap);
    }
}

static bool output_after(const struct channel *c, uint64_t t)
{
    if (!c->loaded)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return t >= c->count;
    case 2:
        return t % c->count != c->count - 1;
    case 3:
        return t % c->count < (c->count + 1) / 2;
    default: /* one low pulse at the end */
        return t != c->count;
    }
}

/* Ticks from t to the next change of the output; 0: never. */
static uint64_t next_change(const struct channel *c, uint64_t t)
{
    uint64_t phase = t % c->count, half = (c->count + 1) / 2;

    switch (c->mode) {
    case 0:
    case 1:
        return t < c->count ? c->count - t : 0;
    case 2:
        return phase < c->count - 1 ? c->count - 1 - phase : 1;
    case 3:
        return phase < half ? half - phase : c->count - phase;
    default:
        return t < c->count ? c->count - t : t == c->count ? 1 : 0;
    }
}

/* Shows channel 0's output on the line and arms the timer for its next change. Lock held. */
static void update(struct pit *p)
{
    struct channel *c = &p->channel[0];
    uint64_t t, next;

    if (!c->loaded || !p->irq_enabled) {
        irq_line_set(&p->line, p->irq_enabled && output_after(c, 0));
        vm_timer_cancel(&p->timer);
        return;
    }
    t = ticks_since(p, c);
    irq_line_set(&p->line, output_after(c, t));
    next = next_change(c, t);
    if (next)
        vm_timer_arm(&p->timer, c->start + ticks_to_ns(t + next) + 1);
    else
        vm_timer_cancel(&p->timer);
}

static void on_timer(struct vm_timer *timer)
{
    struct pit *p = QZ_CONTAINER_OF(timer, struct pit, timer);
    struct channel *c = &p->channel[0];
    QZ_LOCKED(&p->lock);

    /* A timer that fires late may have missed the edge between two high phases: make it seen. */
    if (c->loaded && p->irq_enabled && is_periodic(c) && p->line.level)
        irq_line_set(&p->line, false);
    update(p);
}

static uint32_t from_bcd(uint32_t v)
{
    return (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}
static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static void load(struct pit *p, struct channel *c, uint16_t value)
{
    c->count = c->bcd ? from_bcd(value) : value;
    if (c->count == 0)
        c->count = c->bcd ? 10000 : 65536;
    if (is_periodic(c) && c->count == 1)
        c->count = 2; /* not allowed; shortest there is */
    c->start = vm_clock_now(p->machine->clock);
    c->loaded = true;
    c->null_count = false;
    if (c == &p->channel[0])
        update(p);
}

static uint16_t current(struct pit *p, const struct channel *c)
{
    uint32_t v = c->loaded ? value_after(c, ticks_since(p, c)) : 0;

    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

static void latch_count(struct pit *p, struct channel *c)
{
    if (c->count_latched)
        return;
    c->latch = current(p, c);
    c->count_latched = true;
}

static void latch_status(struct pit *p, struct channel *c)
{
    if (c->status_latched)
        return;
    c->status = output_after(c, ticks_since(p, c)) << 7 | c->null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd;
    c->status_latched = true;
}

static void write_control(struct pit *p, uint8_t v)
{
    struct channel *c = &p->channel[QZ_MIN(v >> 6, CHANNELS - 1)];

    if (v >> 6 == 3) { /* read-back */
        for (unsigned i = 0; i < CHANNELS; i++) {
            if (!(v >> (i + 1) & 1))
                continue;
            if (!(v & 0x20))
                latch_count(p, &p->channel[i]);
            if (!(v & 0x10))
                latch_status(p, &p->channel[i]);
        }
        return;
    }
    if ((v >> 4 & 3) == LATCH_NONE) {
        latch_count(p, c);
        return;
    }
    c->access = v >> 4 & 3;
    c->mode = v >> 1 & 7;
    if (c->mode > 5)
        c->mode -= 4; /* bit 2 does not count in modes 2 and 3 */
    c->bcd = v & 1;
    c->loaded = c->write_high = c->read_high = c->count_latched = c->status_latched = false;
    c->null_count = true;
    if (c == &p->channel[0])
        update(p);
}

static void write_count(struct pit *p, struct channel *c, uint8_t v)
{
    if (c->access == ACCESS_LOW) {
        load(p, c, v);
    } else if (c->access == ACCESS_HIGH) {
        load(p, c, (uint16_t)(v << 8));
    } else if (!c->write_high) {
        c->low_byte = v;
        c->write_high = true;
        if (c->mode == 0)
            c->loaded = false; /* the first byte stops counting */
    } else {
        c->write_high = false;
        load(p, c, (uint16_t)(v << 8 | c->low_byte));
    }
}

static uint8_t read_count(struct pit *p, struct channel *c)
{
    uint16_t v;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    v = c->count_latched ? c->latch : current(p, c);
    high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);
    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->access != ACCESS_BOTH || high)
        c->count_latched = false;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *p = device;

    return offset == CONTROL ? 0 : read_count(p, &p->channel[offset]);
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = device;

    if (offset == CONTROL)
        write_control(p, (uint8_t)value);
    else
        write_count(p, &p->channel[offset], (uint8_t)value);
}

static uint64_t port_b_read(void *device, uint64_t offset, unsigned size)
{
    struct pit *p = device;
    struct channel *c = &p->channel[2];
    bool refresh = vm_clock_now(p->machine->clock) / REFRESH_NS & 1;

    return output_after(c, ticks_since(p, c)) << 5 | refresh << 4 | p->speaker << 1 | c->gate;
}

static void port_b_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = device;
    struct channel *c = &p->channel[2];

    if (value & 1 && !c->gate) /* a rising gate starts the count over */
        c->start = vm_clock_now(p->machine->clock);
    c->gate = value & 1;
    p->speaker = value & 2;
}

static const struct bus_ops counter_ops = {pit_read, pit_write}, port_b_ops = {port_b_read, port_b_write};

void pit_set_irq_enabled(struct pit *p, bool enabled)
{
    QZ_LOCKED(&p->lock);

    p->irq_enabled = enabled;
    update(p);
}

void pit_reset(struct pit *p)
{
    QZ_LOCKED(&p->lock);

    memset(p->channel, 0, sizeof(p->channel));
    for (unsigned i = 0; i < CHANNELS; i++) {
        p->channel[i].access = ACCESS_BOTH;
        p->channel[i].mode = 3;
        p->channel[i].gate = i != 2;
    }
    p->speaker = false;
    p->irq_enabled = true;
    irq_line_set(&p->line, false);
    vm_timer_cancel(&p->timer);
}

int pit_new(struct pit **out, struct machine *m, struct qz_error *err)
{
    struct pit *p = calloc(1, sizeof(*p));
    const struct bus_region counters = {PORT_BASE, 4, &counter_ops, p, p ? &p->lock : NULL, "pit"};
    const struct bus_region port_b = {PORT_B, 1, &port_b_ops, p, p ? &p->lock : NULL, "port61"};
    int r;

    if (!p)
        return qz_fail(err, -ENOMEM, "pit: no memory");
    p->machine = m;
    pthread_mutex_init(&p->lock, NULL);
    irq_line_init(&p->line, m->irq, 0);
    vm_timer_init(&p->timer, m->clock, on_timer);
    pit_reset(p);
    if ((r = bus_add(m->pio, &counters)) < 0 || (r = bus_add(m->pio, &port_b)) < 0) {
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

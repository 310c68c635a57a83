/*
 * rtc.c - the MC146818 real-time clock (MC146818A data sheet) with 128 bytes of CMOS.
 *
 * Theory of operation. Nothing ticks: time registers are computed from the host's clock plus the
 * offset that the guest set. Alarm, periodic and update interrupts are one timer, armed for the
 * next moment that an enabled source needs; an idle guest with all of them off costs nothing.
 * Firmware reads the memory size from CMOS bytes 0x34, 0x35 and 0x5b to 0x5d, as on every PC
 * monitor.
 */
#include "devices/rtc.h"

#include <time.h>

QZ_SYSCALLS(all, "clock_gettime");

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    A,
    B,
    C,
    D
};
enum { CENTURY = 0x32 };
enum {
    A_UIP = 0x80,
    B_SET = 0x80,
    B_PIE = 0x40,
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_BINARY = 4,
    B_24H = 2
};
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10, D_VRT = 0x80 };

#define NS_PER_S    1000000000ll
#define SECONDS_MAX (1ll << 40) /* further than any date the registers can say */

struct rtc {
    struct machine *machine;
    pthread_mutex_t lock;
    struct irq_line line;
    struct vm_timer timer;
    uint8_t index;
    uint8_t cmos[128];
    int64_t offset;      /* guest seconds minus host seconds */
    int64_t last_second; /* wall second up to which alarms and updates were seen */
    int64_t next_tick;   /* vm clock: next periodic interrupt */
};

/* The guest's wall clock. Seconds alone hold every date that the registers can say; nanoseconds
 * since 1970 do not. */
struct wall {
    int64_t sec;
    int32_t nsec;
};

static struct wall guest_wall(struct rtc *r)
{
    struct wall w;

    vm_clock_wall(r->machine->clock, &w.sec, &w.nsec);
    w.sec += r->offset;
    return w;
}

static uint8_t encode(const struct rtc *r, int v)
{
    v = v < 0 ? 0 : v % 100; /* a date before year 0 or past 9999 has no encoding */
    return r->cmos[B] & B_BINARY ? v : (v / 10) << 4 | v % 10;
}

static int decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
    if (r->cmos[B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->cmos[B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* Time into registers, unless the guest is setting them. */
static void latch_time(struct rtc *r)
{
    time_t t = guest_wall(r).sec;
    struct tm tm;

    if (r->cmos[B] & B_SET)
        return;
    gmtime_r(&t, &tm);
    r->cmos[SECONDS] = encode(r, tm.tm_sec);
    r->cmos[MINUTES] = encode(r, tm.tm_min);
    r->cmos[HOURS] = encode_hour(r, tm.tm_hour);
    r->cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
    r->cmos[DAY] = encode(r, tm.tm_mday);
    r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
    r->cmos[YEAR] = encode(r, (tm.tm_year + 1900) % 100);
    r->cmos[CENTURY] = encode(r, (tm.tm_year + 1900) / 100);
}

/* Registers into the offset. timegm() takes any field values, so nonsense dates are just other
 * dates. */
static void adopt_time(struct rtc *r)
{
    struct tm tm = {
        .tm_sec = decode(r, r->cmos[SECONDS]),
        .tm_min = decode(r, r->cmos[MINUTES]),
        .tm_hour = decode_hour(r, r->cmos[HOURS]),
        .tm_mday = decode(r, r->cmos[DAY]),
        .tm_mon = decode(r, r->cmos[MONTH]) - 1,
        .tm_year = decode(r, r->cmos[YEAR]) + (decode(r, r->cmos[CENTURY]) - 19) * 100,
    };

    int64_t second = timegm(&tm);

    r->offset += second - guest_wall(r).sec;
    r->last_second = second;
}

/* Period of register A's rate in nanoseconds, 0 for none (table 5 of the data sheet). */
static int64_t period_ns(const struct rtc *r)
{
    unsigned rate = r->cmos[A] & 15;

    if (rate == 0 || (r->cmos[A] & 0x70) != 0x20)
        return 0;
    if (rate <= 2)
        rate += 7;
    return NS_PER_S * (1 << (rate - 1)) / 32768;
}

static bool alarm_matches(const struct rtc *r, int64_t second)
{
    time_t t = second;
    struct tm tm;
    uint8_t s = r->cmos[SECONDS_ALARM], m = r->cmos[MINUTES_ALARM], h = r->cmos[HOURS_ALARM];

    gmtime_r(&t, &tm); /* 0xc0 and above: do not care */
    return (s >= 0xc0 || decode(r, s) == tm.tm_sec) && (m >= 0xc0 || decode(r, m) == tm.tm_min) &&
           (h >= 0xc0 || decode_hour(r, h) == tm.tm_hour);
}

static void update_irq(struct rtc *r)
{
    if (r->cmos[C] & r->cmos[B] & (C_PF | C_AF | C_UF))
        r->cmos[C] |= C_IRQF;
    else
        r->cmos[C] &= ~C_IRQF;
    irq_line_set(&r->line, r->cmos[C] & C_IRQF);
}

/* Sets the flags of everything that happened up to now and arms the timer for what comes next. Lock
 * held. */
static void catch_up(struct rtc *r)
{
    struct wall guest = guest_wall(r);
    int64_t now = vm_clock_now(r->machine->clock), second = guest.sec;
    int64_t period = period_ns(r), next = INT64_MAX;

    if (second > r->last_second) {
        /* A jump of more than a day cannot match any second that the last day did not. */
        int64_t from = QZ_MAX(r->last_second + 1, second - 86400);

        if (!(r->cmos[B] & B_SET)) {
            r->cmos[C] |= C_UF;
            for (int64_t s = from; s <= second && r->cmos[B] & B_AIE; s++)
                if (alarm_matches(r, s)) {
                    r->cmos[C] |= C_AF;
                    break;
                }
        }
    }
    r->last_second = second;
    if (r->cmos[B] & B_PIE && period) {
        if (r->next_tick == 0 || r->next_tick > now + period)
            r->next_tick = now + period;
        if (now >= r->next_tick) {
            r->cmos[C] |= C_PF;
            r->next_tick += (now - r->next_tick) / period * period + period;
        }
        next = r->next_tick;
    } else {
        r->next_tick = 0;
    }
    if (r->cmos[B] & (B_UIE | B_AIE))
        next = QZ_MIN(next, now + NS_PER_S - guest.nsec);
    update_irq(r);
    if (next != INT64_MAX)
        vm_timer_arm(&r->timer, next);
    else
        vm_timer_cancel(&r->timer);
}

static void on_timer(struct vm_timer *t)
{
    struct rtc *r = QZ_CONTAINER_OF(t, struct rtc, timer);
    QZ_LOCKED(&r->lock);

    catch_up(r);
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
    struct rtc *r = device;
    uint8_t v;

    if (offset == 0)
        return 0xff; /* the index register is write only */
    switch (r->index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY:
    case DAY:
    case MONTH:
    case YEAR:
    case CENTURY:
        latch_time(r);
        return r->cmos[r->index];
    case A:
        /* The last 244 us before an update are announced (data sheet, "update cycle"). */
        return r->cmos[A] |
               (guest_wall(r).nsec > NS_PER_S - 244000 && !(r->cmos[B] & B_SET) ? A_UIP : 0);
    case C:
        catch_up(r);
        v = r->cmos[C];
        r->cmos[C] = 0;
        update_irq(r);
        return v;
    case D:
        return D_VRT;
    default:
        return r->cmos[r->index];
    }
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *r = device;
    uint8_t v = (uint8_t)value;

    if (offset == 0) {
        r->index = v & 0x7f; /* bit 7 masks NMI, which nothing here raises */
        return;
    }
    switch (r->index) {
    case C:
    case D:
        return;
    case A:
        r->cmos[A] = v & 0x7f;
        r->next_tick = 0;
        break;
    case B:
        if (v & B_SET && !(r->cmos[B] & B_SET))
            latch_time(r);
        if (!(v & B_SET) && r->cmos[B] & B_SET) {
            r->cmos[B] = v;
            adopt_time(r);
        }
        r->cmos[B] = v;
        break;
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY:
    case DAY:
    case MONTH:
    case YEAR:
    case CENTURY:
        latch_time(r);
        r->cmos[r->index] = v;
        if (!(r->cmos[B] & B_SET))
            adopt_time(r);
        break;
    default:
        r->cmos[r->index] = v;
    }
    catch_up(r);
}

static const struct bus_ops ops = {rtc_read, rtc_write};

void rtc_reset(struct rtc *r)
{
    QZ_LOCKED(&r->lock);

    /* RESET clears the interrupt enables and flags and nothing else. */
    r->cmos[B] = (r->cmos[B] & ~(B_PIE | B_AIE | B_UIE | B_SET)) | B_24H;
    r->cmos[C] = 0;
    r->index = 0;
    catch_up(r);
}

void rtc_state(struct rtc *r, struct qz_state *s)
{
    QZ_LOCKED(&r->lock);

    qz_state_group(s, "rtc");
    QZ_STATE(s, "index", r->index, sizeof(r->cmos) - 1);
    qz_state_data(s, "cmos", r->cmos, sizeof(r->cmos));
    QZ_STATE_SIGNED(s, "offset", r->offset, -SECONDS_MAX, SECONDS_MAX);
    QZ_STATE_SIGNED(s, "last_second", r->last_second, -SECONDS_MAX, SECONDS_MAX);
    QZ_STATE_SIGNED(s, "next_tick", r->next_tick, 0, VM_TIME_MAX);
    irq_line_state(&r->line, s, "line");
    vm_timer_state(&r->timer, s, "timer");
    qz_state_end(s);
}

static void set_memory_size(struct rtc *r)
{
    uint64_t above_16m =
        r->machine->memory.low_size > (16 << 20) ? r->machine->memory.low_size - (16 << 20) : 0;
    uint64_t above_1m = QZ_MIN(r->machine->memory.low_size - (1 << 20), 63ull << 20) >> 10;
    uint64_t high = r->machine->memory.high_size >> 16;

    r->cmos[0x15] = 640 & 0xff;
    r->cmos[0x16] = 640 >> 8;
    r->cmos[0x17] = r->cmos[0x30] = above_1m & 0xff;
    r->cmos[0x18] = r->cmos[0x31] = above_1m >> 8;
    r->cmos[0x34] = above_16m >> 16 & 0xff;
    r->cmos[0x35] = above_16m >> 24;
    r->cmos[0x5b] = high & 0xff;
    r->cmos[0x5c] = high >> 8 & 0xff;
    r->cmos[0x5d] = high >> 16 & 0xff;
    r->cmos[0x5f] = r->machine->cpus - 1;
}

int rtc_new(struct rtc **out, struct machine *m, struct qz_error *err)
{
    struct rtc *r = calloc(1, sizeof(*r));
    struct bus_region region = {0x70, 2, &ops, r, NULL, "rtc"};
    int e;

    if (!r)
        return qz_fail(err, -ENOMEM, "rtc: no memory");
    r->machine = m;
    tzset(); /* libc reads the time zone's file once, even for UTC: now, not when confined */
    pthread_mutex_init(&r->lock, NULL);
    irq_line_init(&r->line, m->irq, 8);
    vm_timer_init(&r->timer, m->clock, on_timer);
    r->cmos[A] = 0x26;
    set_memory_size(r);
    r->last_second = guest_wall(r).sec;
    rtc_reset(r);
    region.lock = &r->lock;
    e = bus_add(m->pio, &region);
    if (e < 0) {
        free(r);
        return qz_fail(err, e, "rtc: ports 0x70 and 0x71 are taken");
    }
    *out = r;
    return 0;
}

void rtc_free(struct rtc *r)
{
    if (!r)
        return;
    vm_timer_cancel(&r->timer);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

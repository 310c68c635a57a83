/*
 * lapic_timer.c - the local APIC's timer (SDM vol 3 §11.5.4).
 *
 * Nothing counts: the APIC remembers when its count was loaded, and the current count is worked out
 * when somebody reads it. A firing looks at the state again under the lock, because the guest may
 * have stopped or moved the timer after the clock decided to fire; a firing that is early for the
 * present state does nothing, as the timer is still armed for the right moment.
 *
 * In TSC-deadline mode the deadline is turned into machine time with the TSC's frequency as far as
 * it is known. Should the timer fire before the TSC got there, it is armed again for the rest.
 */
#include <x86intrin.h>

#include "machine/lapic_internal.h"

enum {
    /* No guest makes the clock thread busy: shorter periods are served at this one. */
    PERIOD_MIN_NS = 20000,
    DEADLINE_AGAIN_NS = 50000,
};

static unsigned timer_mode(const struct lapic *a)
{
    return a->reg[LVT_TIMER] >> 17 & 3;
}

static bool in_deadline_mode(const struct lapic *a)
{
    return timer_mode(a) == TIMER_TSC_DEADLINE;
}

static unsigned divisor(const struct lapic *a)
{
    unsigned code = (a->reg[TIMER_DIVIDE] & 3) | (a->reg[TIMER_DIVIDE] >> 1 & 4);

    return code == 7 ? 1 : 2u << code;
}

static int64_t period_ns(const struct lapic *a)
{
    return (int64_t)a->reg[TIMER_INITIAL] * divisor(a);
}

static void arm(struct lapic *a, int64_t deadline)
{
    a->timer_expires = QZ_MAX(deadline, (int64_t)1); /* 0 means none */
    vm_timer_arm(&a->timer, a->timer_expires);
}

void lapic_timer_stop(struct lapic *a)
{
    a->timer_expires = 0;
    a->tsc_deadline = 0;
    vm_timer_cancel(&a->timer);
}

static void start(struct lapic *a)
{
    int64_t period = period_ns(a);

    lapic_timer_stop(a);
    if (!period || in_deadline_mode(a))
        return;
    a->timer_start = vm_clock_now(a->set->clock);
    arm(a, a->timer_start +
               (timer_mode(a) == TIMER_PERIODIC ? QZ_MAX(period, (int64_t)PERIOD_MIN_NS) : period));
}

/* ---- TSC deadline --------------------------------------------------------------------------- */

static uint64_t guest_tsc(const struct lapic *a)
{
    return vm_clock_tsc(a->set->clock) + a->tsc_offset;
}

static uint64_t tsc_khz(const struct lapic_set *s)
{
    int64_t ns = qz_now_ns() - s->ns_at_start;

    if (s->tsc_khz)
        return s->tsc_khz;
    return (uint64_t)((unsigned __int128)(__rdtsc() - s->tsc_at_start) * 1000000 /
                      (uint64_t)QZ_MAX(ns, (int64_t)1)) +
           1;
}

static void arm_deadline(struct lapic *a, int64_t at_least)
{
    uint64_t now = guest_tsc(a), ticks = a->tsc_deadline > now ? a->tsc_deadline - now : 0;
    unsigned __int128 ns = (unsigned __int128)ticks * 1000000 / tsc_khz(a->set);
    int64_t wait = ns < INT64_MAX / 2 ? (int64_t)ns : INT64_MAX / 2; /* 146 years */

    arm(a, vm_clock_now(a->set->clock) + QZ_MAX(wait, at_least));
}

void lapic_timer_write_deadline(struct lapic *a, uint64_t deadline)
{
    if (!in_deadline_mode(a))
        return; /* ignored in the other modes (§11.5.4.1) */
    lapic_timer_stop(a);
    a->tsc_deadline = deadline;
    if (deadline)
        arm_deadline(a, 0);
}

uint64_t lapic_timer_deadline(const struct lapic *a)
{
    return a->tsc_deadline;
}

void lapic_timer_tsc_changed(struct lapic *a)
{
    if (a->tsc_deadline)
        arm_deadline(a, 0);
}

/* ---- registers ------------------------------------------------------------------------------ */

void lapic_timer_write_lvt(struct lapic *a, uint32_t value)
{
    bool was_deadline = in_deadline_mode(a);

    a->reg[LVT_TIMER] = value;
    /* Going into or out of TSC-deadline mode disarms; one-shot and periodic go over into each
     * other. */
    if (in_deadline_mode(a) != was_deadline) {
        a->reg[TIMER_INITIAL] = 0;
        lapic_timer_stop(a);
    }
}

void lapic_timer_write_initial(struct lapic *a, uint32_t value)
{
    if (in_deadline_mode(a))
        return;
    a->reg[TIMER_INITIAL] = value;
    start(a);
}

void lapic_timer_write_divide(struct lapic *a, uint32_t value)
{
    a->reg[TIMER_DIVIDE] = value;
    if (a->timer_expires && !in_deadline_mode(a))
        start(a);
}

uint32_t lapic_timer_current(const struct lapic *a)
{
    int64_t period = period_ns(a), passed;

    if (!a->timer_expires || in_deadline_mode(a) || !period)
        return 0;
    passed = vm_clock_now(a->set->clock) - a->timer_start;
    if (timer_mode(a) == TIMER_PERIODIC)
        passed %= period;
    return passed < period ? (uint32_t)((period - passed) / divisor(a)) : 0;
}

void lapic_timer_restore(struct lapic *a, uint32_t current, uint64_t deadline)
{
    int64_t period = period_ns(a), left = (int64_t)current * divisor(a),
            now = vm_clock_now(a->set->clock);

    if (in_deadline_mode(a)) {
        lapic_timer_write_deadline(a, deadline);
    } else if (left && left <= period) {
        a->timer_start = now - (period - left);
        arm(a, now + left);
    } else {
        start(a); /* a periodic one at the very end of its period; a one-shot that is over has no
                     count left */
        if (timer_mode(a) != TIMER_PERIODIC)
            lapic_timer_stop(a);
    }
}

/* ---- firing --------------------------------------------------------------------------------- */

static void go_on(struct lapic *a, int64_t now)
{
    int64_t period = QZ_MAX(period_ns(a), (int64_t)PERIOD_MIN_NS);

    if (timer_mode(a) != TIMER_PERIODIC || !period_ns(a)) {
        a->timer_expires = 0;
        a->tsc_deadline = 0;
        return;
    }
    /* Periods that went by unseen (a paused or busy host) are not made up for. */
    arm(a, a->timer_expires + period * ((now - a->timer_expires) / period + 1));
}

static void on_timer(struct vm_timer *t)
{
    struct lapic *a = QZ_CONTAINER_OF(t, struct lapic, timer);

    lapic_lock(a);
    int64_t now = vm_clock_now(a->set->clock);

    if (a->timer_expires && a->timer_expires <= now) {
        if (in_deadline_mode(a) && guest_tsc(a) < a->tsc_deadline) {
            arm_deadline(a, DEADLINE_AGAIN_NS);
        } else {
            lapic_local(a, LVT_TIMER);
            go_on(a, now);
        }
    }
    lapic_unlock(a, false);
}

void lapic_timer_init(struct lapic *a)
{
    vm_timer_init(&a->timer, a->set->clock, on_timer);
}

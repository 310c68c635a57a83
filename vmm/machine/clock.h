/*
 * clock.h - the machine's time and its timers.
 *
 * vm_clock_now() counts nanoseconds since the machine was built, standing still while it is paused;
 * all guest-visible time (PM timer, HPET, PIT, RTC, own local APIC) comes from here, so that a
 * paused or restored machine sees none pass. One thread fires the timers.
 */
#ifndef VMM_CLOCK_H
#define VMM_CLOCK_H

#include <queztl/state.h>

struct vm_clock;

/* No machine gets as old: 73 years. Sums of two times do not overflow. */
#define VM_TIME_MAX (INT64_MAX / 4)

/* Seconds since 1970: what time it is when a virtual clock says 0, 1 January 2026. */
enum { DETERMINISTIC_EPOCH = 1767225600 };

/* Embedded in a device. Zero-initialise, then vm_timer_init() once. */
struct vm_timer {
    struct vm_clock *clock;
    void (*fire)(struct vm_timer
                     *t); /* clock thread, no lock of the clock held; takes the device's own lock */
    int64_t deadline;     /* vm_clock nanoseconds */
    bool armed;
    unsigned heap_index;
};

int vm_clock_new(struct vm_clock **clock,
                 struct qz_error *err); /* no thread yet; time stands at 0 */
void vm_clock_free(struct vm_clock *clock);
/*
 * The firing thread's body; the life cycle starts a thread on it and joins it after
 * vm_clock_stop(). Paused at first: vm_clock_resume() lets time run.
 */
void vm_clock_thread(struct vm_clock *clock);
void vm_clock_stop(struct vm_clock *clock);
void vm_clock_pause(struct vm_clock *clock);
void vm_clock_resume(struct vm_clock *clock);

int64_t vm_clock_now(struct vm_clock *clock); /* any thread */
/* What guests' time-stamp counters are offsets from: the host's, virtual: the nanoseconds. */
uint64_t vm_clock_tsc(struct vm_clock *clock);
/* Wall-clock seconds and nanoseconds (UTC) for the RTC: host real time, virtual: from a fixed day.
 */
void vm_clock_wall(struct vm_clock *clock, int64_t *sec, int32_t *nsec);

/*
 * Deterministic machines: time is a number that the vCPU whose turn it is moves, and timers fire on
 * its thread, in order. Before anybody reads the clock.
 */
void vm_clock_make_virtual(struct vm_clock *clock);
void vm_clock_set(struct vm_clock *clock, int64_t now); /* also of one that stands */
int64_t vm_clock_next(struct vm_clock *clock); /* the first timer's deadline; INT64_MAX: none */
void vm_clock_fire(struct vm_clock *clock);    /* every timer that is due */

void vm_timer_init(struct vm_timer *t, struct vm_clock *clock, void (*fire)(struct vm_timer *t));
/* Arms or re-arms; deadline in the past fires at once on the clock thread. Any thread, any lock
 * held. */
void vm_timer_arm(struct vm_timer *t, int64_t deadline);
/* Does not wait: a fire() in progress may still run, so fire() checks its device's state under its
 * lock. */
void vm_timer_cancel(struct vm_timer *t);

/* Time, and a timer by its name, saved or loaded; the clock stands. */
void vm_clock_state(struct vm_clock *clock, struct qz_state *s);
void vm_timer_state(struct vm_timer *t, struct qz_state *s, const char *name);

#endif

/* clock_state.c - the machine's time and timers as state (clock.h). */
#include "machine/clock.h"

void vm_clock_state(struct vm_clock *c, struct qz_state *s)
{
    int64_t now = vm_clock_now(c);

    QZ_STATE_SIGNED(s, "now", now, 0, VM_TIME_MAX);
    if (qz_state_loading(s) && !qz_state_failed(s))
        vm_clock_set(c, now);
}

void vm_timer_state(struct vm_timer *t, struct qz_state *s, const char *name)
{
    bool armed = t->armed;
    int64_t deadline = t->deadline;

    qz_state_group(s, name);
    QZ_STATE(s, "armed", armed, 1);
    QZ_STATE_SIGNED(s, "deadline", deadline, INT64_MIN, INT64_MAX);
    qz_state_end(s);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    if (armed)
        vm_timer_arm(t, deadline);
    else
        vm_timer_cancel(t);
}

/* turns.c - whose turn it is, and virtual time (turns.h). */
#include "vm/turns.h"

struct turns {
    struct vm_clock *clock;
    unsigned whose;
    int64_t over;       /* when the turn ends */
    int64_t from, till; /* of the run in progress */
    int64_t stop;
};

int turns_new(struct turns **out, struct vm_clock *clock, struct qz_error *err)
{
    struct turns *t = calloc(1, sizeof(*t));

    if (!t)
        return qz_fail(err, -ENOMEM, "vCPUs: no memory");
    t->clock = clock;
    t->over = TURN_NS;
    t->stop = INT64_MAX;
    *out = t;
    return 0;
}

void turns_free(struct turns *t)
{
    free(t);
}

unsigned turns_whose(const struct turns *t)
{
    return t->whose;
}

void turns_give(struct turns *t, unsigned cpu)
{
    t->whose = cpu;
    t->over = vm_clock_now(t->clock) + TURN_NS;
}

bool turns_is_over(const struct turns *t)
{
    return vm_clock_now(t->clock) >= t->over;
}

void turns_stop_at(struct turns *t, int64_t moment)
{
    t->stop = moment;
}

uint32_t turns_begin(struct turns *t)
{
    t->from = vm_clock_now(t->clock);
    t->till = QZ_MIN(QZ_MIN(t->over, t->stop), vm_clock_next(t->clock));
    t->till = QZ_MAX(t->till, t->from + 1);
    return (uint32_t)(t->till - t->from);
}

void turns_arrive(struct turns *t, uint32_t executed)
{
    vm_clock_set(t->clock, t->from + executed);
}

void turns_end(struct turns *t, uint32_t executed)
{
    turns_arrive(t, executed);
    vm_clock_fire(t->clock);
}

bool turns_is_late(const struct turns *t)
{
    return vm_clock_next(t->clock) < t->till;
}

bool turns_skip(struct turns *t)
{
    const int64_t next = vm_clock_next(t->clock);

    if (next == INT64_MAX)
        return false;
    vm_clock_set(t->clock, QZ_MAX(next, vm_clock_now(t->clock)));
    vm_clock_fire(t->clock);
    return true;
}

/* test_clock.c - virtual time for tests (test_clock.h). */
#include "machine/test_clock.h"

#include <x86intrin.h>

enum { TIMERS_MAX = 512, FIRE_MAX = 100000 };

struct vm_clock {
    int64_t now;
    struct vm_timer *timer[TIMERS_MAX];
    unsigned count;
};

int vm_clock_new(struct vm_clock **clock, struct qz_error *err)
{
    *clock = calloc(1, sizeof(**clock));
    return *clock ? 0 : qz_fail(err, -ENOMEM, "no memory");
}
void vm_clock_free(struct vm_clock *c)
{
    free(c);
}
void vm_clock_thread(struct vm_clock *c) {}
void vm_clock_stop(struct vm_clock *c) {}
void vm_clock_pause(struct vm_clock *c) {}
void vm_clock_resume(struct vm_clock *c) {}
int64_t vm_clock_now(struct vm_clock *c)
{
    return c->now;
}
void vm_clock_set(struct vm_clock *c, int64_t now)
{
    c->now = now;
}
uint64_t vm_clock_tsc(struct vm_clock *c)
{
    return __rdtsc();
}
void vm_clock_wall(struct vm_clock *c, int64_t *sec, int32_t *nsec)
{
    *sec = c->now / 1000000000;
    *nsec = (int32_t)(c->now % 1000000000);
}

void vm_timer_init(struct vm_timer *t, struct vm_clock *clock, void (*fire)(struct vm_timer *t))
{
    *t = (struct vm_timer){.clock = clock, .fire = fire};
}

void vm_timer_cancel(struct vm_timer *t)
{
    struct vm_clock *c = t->clock;

    if (!c || !t->armed)
        return;
    c->timer[t->heap_index] = c->timer[--c->count];
    c->timer[t->heap_index]->heap_index = t->heap_index;
    t->armed = false;
}

void vm_timer_arm(struct vm_timer *t, int64_t deadline)
{
    struct vm_clock *c = t->clock;

    vm_timer_cancel(t);
    if (c->count == TIMERS_MAX)
        abort();
    t->deadline = deadline;
    t->armed = true;
    t->heap_index = c->count;
    c->timer[c->count++] = t;
}

static struct vm_timer *first(const struct vm_clock *c)
{
    struct vm_timer *t = NULL;

    for (unsigned i = 0; i < c->count; i++)
        if (!t || c->timer[i]->deadline < t->deadline)
            t = c->timer[i];
    return t;
}

static unsigned fire(struct vm_clock *c, int64_t until)
{
    struct vm_timer *t;
    unsigned n = 0;

    while ((t = first(c)) && t->deadline <= until && n < FIRE_MAX) {
        if (t->deadline > c->now)
            c->now = t->deadline;
        vm_timer_cancel(t);
        t->fire(t);
        n++;
    }
    return n;
}

unsigned test_clock_advance(struct vm_clock *c, int64_t ns)
{
    int64_t until = c->now + ns;
    unsigned n = fire(c, until);

    c->now = until;
    return n;
}

unsigned test_clock_stall(struct vm_clock *c, int64_t ns)
{
    c->now += ns;
    return fire(c, c->now);
}

void test_clock_fire_early(struct vm_clock *c)
{
    struct vm_timer *armed[TIMERS_MAX];
    unsigned n = c->count;

    memcpy(armed, c->timer, n * sizeof(armed[0]));
    for (unsigned i = 0; i < n; i++)
        armed[i]->fire(armed[i]);
}

unsigned test_clock_armed(const struct vm_clock *c)
{
    return c->count;
}

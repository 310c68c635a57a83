/* vcpu_turns.c - vCPUs of a deterministic machine: one runs at a time (turns.h, vcpu_internal.h).
 */
#include "vm/vcpu_internal.h"

static bool can_run(const struct vcpu *v)
{
    return !v->stays && (v->wait == MP_RUNNABLE ||
                         (__atomic_load_n(&v->requests, __ATOMIC_SEQ_CST) & REQ_INSIDE));
}

/* The turn goes to the next one behind v that can run, v itself being the last. False: there is
 * none. */
static bool pass_on(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    for (unsigned n = 1; n <= g->created; n++) {
        struct vcpu *next = &g->vcpu[(v->id + n) % g->created];

        if (!can_run(next))
            continue;
        turns_give(g->turns, next->id);
        pthread_cond_signal(&next->wake);
        return true;
    }
    return false;
}

/* All halt, and no timer is set: only the world outside can go on. */
static void await_world(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    for (;;) {
        if (vcpu_requests(v) & REQ_OUTSIDE)
            return;
        for (unsigned i = 0; i < g->created; i++)
            if (can_run(&g->vcpu[i]))
                return;
        pthread_cond_wait(&v->wake, &g->lock);
    }
}

static void end_turn(struct vcpu *v)
{
    while (!pass_on(v)) {
        if (vcpu_requests(v) & REQ_OUTSIDE)
            return; /* it stays this one's */
        if (!turns_skip(v->group->turns))
            await_world(v);
    }
}

static bool await_turn(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    while (turns_whose(g->turns) != v->id && !(vcpu_requests(v) & REQ_OUTSIDE))
        pthread_cond_wait(&v->wake, &g->lock);
    return turns_whose(g->turns) == v->id;
}

static bool log_is_due(const struct vcpu_group *g)
{
    return g->log && vm_clock_now(g->machine->clock) >= state_log_next(g->log);
}

/* The others are in nothing: their states may be read from here. */
static void log_state(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    struct accel_vcpu *all[g->created];

    for (unsigned i = 0; i < g->created; i++) {
        all[i] = g->vcpu[i].accel;
        vcpu_tell_time(&g->vcpu[i]);
    }
    state_log_write(g->log, all, v->id);
    turns_stop_at(g->turns, state_log_next(g->log));
}

void vcpu_run_in_turn(struct vcpu *v)
{
    for (;;) {
        const bool mine = await_turn(v);

        if (!vcpu_serve_requests(v, mine ? ~0u : REQ_OUTSIDE))
            return;
        if (!mine)
            continue;
        vcpu_take_interrupt(v);
        if (v->wait != MP_RUNNABLE || turns_is_over(v->group->turns))
            end_turn(v);
        else if (log_is_due(v->group))
            log_state(v);
        else
            vcpu_run_once(v);
    }
}

/* A debugger lets some of them run: the turn is one of theirs. */
void vcpu_turn_without(struct vcpu_group *g, const bool *stay)
{
    unsigned whose;
    QZ_LOCKED(&g->lock);

    for (unsigned i = 0; i < g->created; i++)
        g->vcpu[i].stays = stay && stay[i];
    whose = turns_whose(g->turns);
    for (unsigned n = 0; n < g->created && g->vcpu[whose].stays; n++)
        whose = (whose + 1) % g->created;
    if (whose != turns_whose(g->turns))
        turns_give(g->turns, whose);
}

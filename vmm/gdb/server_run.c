/* server_run.c - letting the machine go on, and saying why it stopped: c C s S vCont D and ?. */
#include "gdb/server_internal.h"

enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5, SIGNAL_ABORT = 6, SIGNAL_SEGV = 11 };

/* ---- threads -----------------------------------------------------------------------------------
 */

bool gdb_get_thread(const struct gdb_server *s, struct gdb_scan *a, unsigned *cpu, bool *any)
{
    const bool all = gdb_get_word(a, "-1");
    uint64_t n = 0;

    if (!all && !gdb_get_number(a, &n))
        return false;
    *any = n == 0;
    if (n > s->target.cpus)
        return false;
    if (n > 0)
        *cpu = (unsigned)n - 1;
    return true;
}

/* ---- going on ----------------------------------------------------------------------------------
 */

/* An order that lets nobody run could never be answered. */
static void go(struct gdb_server *s)
{
    bool any = false;

    for (unsigned i = 0; i < s->target.cpus; i++)
        any |= s->action[i].kind != GDB_STAY;
    if (!any)
        return gdb_answer(s, -EINVAL);
    s->state_valid = false;
    s->running = true;
    s->target.ops->resume(s->target.context, s->action);
}

static void all_do(struct gdb_server *s, struct gdb_action action)
{
    for (unsigned i = 0; i < s->target.cpus; i++)
        s->action[i] = action;
}

static int set_rip(struct gdb_server *s, unsigned cpu, uint64_t rip)
{
    struct vcpu_state *state = gdb_state(s, cpu);

    if (!state)
        return -EIO;
    state->rip = rip;
    s->state_valid = false;
    return s->target.ops->set_registers(s->target.context, cpu, state);
}

/* c [address], s [address]; C and S signal[;address]: a machine has no signals to take. */
void gdb_continue(struct gdb_server *s, struct gdb_scan *a, bool step, bool with_signal)
{
    uint64_t value;
    int r = 0;

    if (with_signal && !gdb_get_number(a, &value))
        return gdb_answer(s, -EINVAL);
    if (with_signal && !gdb_at_end(a) && !gdb_get_char(a, ';'))
        return gdb_answer(s, -EINVAL);
    if (!gdb_at_end(a)) {
        if (!gdb_get_number(a, &value) || !gdb_at_end(a))
            return gdb_answer(s, -EINVAL);
        r = set_rip(s, s->step, value);
    }
    if (r < 0)
        return gdb_answer(s, r);
    all_do(s, (struct gdb_action){.kind = GDB_CONTINUE});
    if (step)
        s->action[s->step].kind = GDB_STEP;
    go(s);
}

static bool get_action(struct gdb_scan *a, struct gdb_action *action)
{
    uint64_t signal;

    *action = (struct gdb_action){.kind = GDB_CONTINUE};
    if (gdb_get_char(a, 'c'))
        return true;
    if (gdb_get_char(a, 'C'))
        return gdb_get_number(a, &signal);
    action->kind = GDB_STEP;
    if (gdb_get_char(a, 's'))
        return true;
    if (gdb_get_char(a, 'S'))
        return gdb_get_number(a, &signal);
    return gdb_get_char(a, 'r') && gdb_get_number(a, &action->range_start) &&
           gdb_get_char(a, ',') && gdb_get_number(a, &action->range_end) &&
           action->range_start <= action->range_end;
}

/* vCont;action[:thread];... For each thread the leftmost action that names it, or names none,
 * counts.
 */
void gdb_vcont(struct gdb_server *s, struct gdb_scan *a)
{
    if (gdb_get_char(a, '?'))
        return gdb_put_text(&s->reply, "vCont;c;C;s;S;r");
    all_do(s, (struct gdb_action){.kind = GDB_UNDECIDED});
    while (gdb_get_char(a, ';')) {
        struct gdb_action action;
        unsigned cpu = 0;
        bool any = true;

        if (!get_action(a, &action) || (gdb_get_char(a, ':') && !gdb_get_thread(s, a, &cpu, &any)))
            return gdb_answer(s, -EINVAL);
        for (unsigned i = any ? 0 : cpu; i < (any ? s->target.cpus : cpu + 1); i++)
            if (s->action[i].kind == GDB_UNDECIDED)
                s->action[i] = action;
    }
    if (!gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    for (unsigned i = 0; i < s->target.cpus; i++)
        if (s->action[i].kind == GDB_UNDECIDED)
            s->action[i].kind = GDB_STAY;
    go(s);
}

void gdb_detach(struct gdb_server *s)
{
    if (s->running)
        s->target.ops->stop(s->target.context);
    gdb_remove_all_points(s);
    all_do(s, (struct gdb_action){.kind = GDB_CONTINUE});
    go(s);
    s->over = true;
}

/* ---- stops -------------------------------------------------------------------------------------
 */

static void tell_point(struct gdb_server *s)
{
    static const char *const names[] = {
        [POINT_WRITE] = "watch", [POINT_READ] = "rwatch", [POINT_ACCESS] = "awatch"};
    const struct accel_point *p = &s->stop.point;

    if (p->kind != POINT_EXECUTE)
        gdb_printf(&s->reply, "%s:%llx;", names[p->kind], (unsigned long long)p->address);
    else if (p->hardware ? s->tell_hwbreak : s->tell_swbreak)
        gdb_printf(&s->reply, "%s:;", p->hardware ? "hwbreak" : "swbreak");
}

void gdb_tell_stop(struct gdb_server *s)
{
    static const uint8_t signals[] = {
        [GDB_STOP_POINT] = SIGNAL_TRAP,    [GDB_STOP_STEP] = SIGNAL_TRAP,
        [GDB_STOP_INTERRUPT] = SIGNAL_INT, [GDB_STOP_CRASH] = SIGNAL_SEGV,
        [GDB_STOP_PANIC] = SIGNAL_ABORT,
    };

    gdb_printf(&s->reply, "T%02xthread:%x;", signals[s->stop.kind], s->stop.cpu + 1);
    if (s->stop.kind == GDB_STOP_POINT)
        tell_point(s);
}

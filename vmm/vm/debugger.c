/*
 * debugger.c - the machine as a debugger's target (debugger.h, gdb/target.h).
 *
 * Theory of operation. A vCPU that meets something leaves a note of it and waits; the main loop
 * takes one of the notes, holds the machine and tells the debugger. What other vCPUs met at the
 * same moment they meet again when they go on, except a watched access, which is over: such a note
 * stays and is told next.
 */
#include "vm/debugger.h"

struct note {
    bool there;
    struct gdb_stop stop;
};

struct debugger {
    struct vm *vm;
    struct machine *machine;
    struct vcpu_group **vcpus;
    struct gdb_listener *listener;
    struct qz_work work;

    const struct accel_point *point; /* the server's */
    unsigned points;
    struct gdb_action *action; /* of machine->cpus; unchanged while vCPUs run */
    bool *stay;
    bool crash_told;

    pthread_mutex_t lock; /* the notes */
    struct note *note;    /* of machine->cpus */
    unsigned last;        /* whose note was taken: the others come first */
};

/* ---- notes -------------------------------------------------------------------------------------
 */

static bool take_note(struct debugger *d, struct gdb_stop *stop)
{
    QZ_LOCKED(&d->lock);

    for (unsigned i = 1; i <= d->machine->cpus; i++) {
        const unsigned cpu = (d->last + i) % d->machine->cpus;

        if (!d->note[cpu].there)
            continue;
        *stop = d->note[cpu].stop;
        d->note[cpu].there = false;
        d->last = cpu;
        return true;
    }
    return false;
}

static bool still_watched(const struct debugger *d, const struct accel_point *p)
{
    for (unsigned i = 0; i < d->points; i++)
        if (d->point[i].kind == p->kind && d->point[i].address == p->address &&
            d->point[i].len == p->len)
            return true;
    return false;
}

/* Notes of what will be met again are forgotten. True: others are left. */
static bool sort_notes(struct debugger *d)
{
    bool left = false;
    QZ_LOCKED(&d->lock);

    for (unsigned i = 0; i < d->machine->cpus; i++) {
        struct note *n = &d->note[i];

        n->there = n->there && n->stop.kind == GDB_STOP_POINT &&
                   n->stop.point.kind != POINT_EXECUTE && still_watched(d, &n->stop.point);
        left |= n->there;
    }
    return left;
}

static void tell(struct qz_work *w)
{
    struct debugger *d = QZ_CONTAINER_OF(w, struct debugger, work);
    struct gdb_stop stop;

    if (!gdb_listener_is_waiting(d->listener) || !take_note(d, &stop))
        return;
    vm_hold(d->vm);
    gdb_listener_stopped(d->listener, &stop);
}

/* Range stepping: GDB asks once for all instructions of a source line. */
static bool steps_on(const struct debugger *d, unsigned cpu, const struct vcpu_exit *exit)
{
    const struct gdb_action *a = &d->action[cpu];

    return !exit->debug.point && a->kind == GDB_STEP && exit->debug.rip >= a->range_start &&
           exit->debug.rip < a->range_end;
}

bool debugger_on_exit(struct debugger *d, unsigned cpu, const struct vcpu_exit *exit)
{
    const struct accel_point *p = exit->debug.point;

    if (steps_on(d, cpu, exit))
        return true;
    pthread_mutex_lock(&d->lock);
    d->note[cpu] = (struct note){
        .there = true,
        .stop = {.kind = p ? GDB_STOP_POINT : GDB_STOP_STEP,
                 .cpu = cpu,
                 .point = p ? *p : (struct accel_point){0}},
    };
    pthread_mutex_unlock(&d->lock);
    qz_loop_post(d->machine->main_loop, &d->work, tell);
    return false;
}

/* ---- what the target can -----------------------------------------------------------------------
 */

static int get_state(void *context, unsigned cpu, struct vcpu_state *s)
{
    return vcpu_group_get_state(*((struct debugger *)context)->vcpus, cpu, s);
}

static int set_registers(void *context, unsigned cpu, const struct vcpu_state *s)
{
    return vcpu_group_set_registers(*((struct debugger *)context)->vcpus, cpu, s);
}

static int physical(void *context, uint64_t address, void *data, size_t len, bool write)
{
    struct machine *m = ((struct debugger *)context)->machine;
    struct mem_span span;

    if (mem_span(&m->memory, gpa(address), len, &span) < 0)
        return -EFAULT;
    if (!write) {
        memcpy(data, span.data, len);
        return 0;
    }
    memcpy(span.data, data, len);
    machine_written(m, span.data, len);
    return 0;
}

static int give_debug(struct accel_vcpu *v, void *arg)
{
    return v->vm->ops->set_debug(v, arg);
}

/* The first vCPU says whether its like can do it; all are told when they go on. */
static int set_points(void *context, const struct accel_point *point, unsigned count)
{
    struct debugger *d = context;
    struct accel_debug debug = {.point = point, .points = count};

    d->point = point;
    d->points = count;
    return vcpu_group_call(*d->vcpus, 0, give_debug, &debug);
}

static void resume(void *context, const struct gdb_action *action)
{
    struct debugger *d = context;

    if (sort_notes(d)) { /* something happened already */
        qz_loop_post(d->machine->main_loop, &d->work, tell);
        return;
    }
    memcpy(d->action, action, d->machine->cpus * sizeof(d->action[0]));
    for (unsigned i = 0; i < d->machine->cpus; i++) {
        struct accel_debug debug = {d->point, d->points, action[i].kind == GDB_STEP};
        const int r = vcpu_group_call(*d->vcpus, i, give_debug, &debug);

        if (r < 0)
            qz_warn("gdb: vCPU %u runs without breakpoints: %s", i, strerror(-r));
        d->stay[i] = action[i].kind == GDB_STAY;
    }
    vm_release(d->vm, d->stay);
}

static void stop(void *context)
{
    vm_hold(((struct debugger *)context)->vm);
}

static bool is_halted(void *context, unsigned cpu)
{
    return vcpu_group_is_halted(*((struct debugger *)context)->vcpus, cpu);
}

static int reset(void *context, struct qz_error *err)
{
    return vm_reset(((struct debugger *)context)->vm, err);
}

static void kill_machine(void *context)
{
    vm_stop(((struct debugger *)context)->vm);
}

static void describe(void *context, char *text, size_t size)
{
    const struct debugger *d = context;
    const struct accel_ops *ops = d->machine->accel->ops;
    char memory[32];

    snprintf(text, size, "queztl %s, accelerator %s, %u vCPUs, %s of memory, clocks at %lld ms\n",
             QUEZTL_VERSION, ops->name, d->machine->cpus,
             qz_format_size(d->machine->memory.size, memory, sizeof(memory)),
             (long long)vm_clock_now(d->machine->clock) / 1000000);
}

static const struct gdb_target_ops target_ops = {
    .get_state = get_state,
    .set_registers = set_registers,
    .physical = physical,
    .set_points = set_points,
    .resume = resume,
    .stop = stop,
    .is_halted = is_halted,
    .reset = reset,
    .kill = kill_machine,
    .describe = describe,
};

/* ---- life --------------------------------------------------------------------------------------
 */

int debugger_new(struct debugger **out, struct vm *vm, struct machine *m, struct vcpu_group **vcpus,
                 const struct gdb_address *address, struct qz_error *err)
{
    struct debugger *d = calloc(1, sizeof(*d));
    const struct gdb_target target = {&target_ops, d, m->cpus, m->accel->ops->patches};
    int r;

    if (!d)
        return qz_fail(err, -ENOMEM, "gdb: no memory");
    d->vm = vm;
    d->machine = m;
    d->vcpus = vcpus;
    pthread_mutex_init(&d->lock, NULL);
    d->action = calloc(m->cpus, sizeof(d->action[0]));
    d->stay = calloc(m->cpus, sizeof(d->stay[0]));
    d->note = calloc(m->cpus, sizeof(d->note[0]));
    r = d->action && d->stay && d->note
            ? gdb_listener_new(&d->listener, m->main_loop, address, &target, err)
            : qz_fail(err, -ENOMEM, "gdb: no memory");
    if (r < 0) {
        debugger_free(d);
        return r;
    }
    *out = d;
    return 0;
}

void debugger_free(struct debugger *d)
{
    if (!d)
        return;
    gdb_listener_free(d->listener);
    pthread_mutex_destroy(&d->lock);
    free(d->action);
    free(d->stay);
    free(d->note);
    free(d);
}

bool debugger_look_at(struct debugger *d, enum gdb_stop_kind kind, unsigned cpu)
{
    const struct gdb_stop at = {.kind = kind, .cpu = cpu};

    if (!d || d->crash_told || !gdb_listener_is_waiting(d->listener))
        return false;
    d->crash_told = true;
    vm_hold(d->vm);
    gdb_listener_stopped(d->listener, &at);
    return true;
}

void debugger_machine_reset(struct debugger *d)
{
    if (d)
        d->crash_told = false;
}

void debugger_exited(struct debugger *d, int code)
{
    if (d)
        gdb_listener_exited(d->listener, code);
}

/*
 * vcpu_group.c - all vCPUs, for the life cycle: making, parking, resetting, calls on their threads,
 * and what interrupt controllers tell them (vcpu.h).
 */
#include "vm/vcpu_internal.h"

int vcpu_group_new(struct vcpu_group **out, struct machine *m, const struct vcpu_events *events,
                   enum confine_mode confine, struct state_log *log, struct qz_error *err)
{
    struct vcpu_group *g = calloc(1, sizeof(*g) + m->cpus * sizeof(struct vcpu));

    if (!g)
        return qz_fail(err, -ENOMEM, "vCPUs: no memory");
    g->machine = m;
    g->ops = m->accel->ops;
    g->events = *events;
    g->confine = confine;
    g->log = log;
    if (m->gate && turns_new(&g->turns, m->clock, err) < 0) {
        free(g);
        return err->code;
    }
    if (log)
        turns_stop_at(g->turns, state_log_next(log));
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    *out = g;
    for (unsigned i = 0; i < m->cpus; i++) {
        struct vcpu *v = &g->vcpu[i];
        int e;

        v->group = g;
        v->id = i;
        v->requests = REQ_PARK;
        pthread_cond_init(&v->wake, NULL);
        e = pthread_create(&v->thread, NULL, vcpu_thread, v);
        if (e)
            return qz_fail(err, -e, "vCPU %u: cannot start a thread: %s", i, strerror(e));
        g->created++;
    }
    pthread_mutex_lock(&g->lock);
    while (g->started < g->created)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    if (g->setup_error.code) {
        *err = g->setup_error;
        return err->code;
    }
    return 0;
}

void vcpu_group_stop(struct vcpu_group *g)
{
    for (unsigned i = 0; g && i < g->created; i++)
        vcpu_request(&g->vcpu[i], REQ_STOP);
    for (unsigned i = 0; g && i < g->created; i++)
        pthread_join(g->vcpu[i].thread, NULL);
}

void vcpu_group_free(struct vcpu_group *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->created; i++) {
        if (g->vcpu[i].accel)
            g->ops->vcpu_free(g->vcpu[i].accel);
        pthread_cond_destroy(&g->vcpu[i].wake);
    }
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
    turns_free(g->turns);
    free(g);
}

int vcpu_group_reset(struct vcpu_group *g, const struct vcpu_state *bsp, struct qz_error *err)
{
    struct vcpu_state *s;

    if (posix_memalign((void **)&s, 64, sizeof(*s)))
        return qz_fail(err, -ENOMEM, "vCPUs: no memory");
    for (unsigned i = 0; i < g->created; i++) {
        struct vcpu *v = &g->vcpu[i];

        if (i == 0)
            *s = *bsp;
        else
            vcpu_state_reset(s, false, i);
        v->state = s;
        vcpu_request_done(v, REQ_INIT | REQ_SIPI | REQ_NMI | REQ_IRQ);
        vcpu_request_and_wait(v, REQ_STATE);
    }
    free(s);
    return 0;
}

void vcpu_group_ask_park(struct vcpu_group *g)
{
    for (unsigned i = 0; i < g->created; i++)
        vcpu_request(&g->vcpu[i], REQ_PARK);
}

void vcpu_group_park(struct vcpu_group *g)
{
    vcpu_group_ask_park(g);
    pthread_mutex_lock(&g->lock);
    while (g->parked < g->created)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

void vcpu_group_clock_started(struct vcpu_group *g)
{
    vcpu_tell_time(&g->vcpu[0]);
    if (g->machine->accel->own_lapic)
        vcpu_tell_tsc(&g->vcpu[0]);
}

void vcpu_group_resume(struct vcpu_group *g, const bool *stay)
{
    if (g->turns)
        vcpu_turn_without(g, stay);
    for (unsigned i = 0; i < g->created; i++) {
        if (stay && stay[i])
            continue;
        vcpu_request_done(&g->vcpu[i], REQ_PARK);
        vcpu_request(&g->vcpu[i], 0);
    }
}

/* ---- calls on a parked vCPU's thread -----------------------------------------------------------
 */

static int call(struct vcpu_group *g, unsigned cpu, int (*f)(struct vcpu *v, void *arg), void *arg)
{
    struct vcpu *v = &g->vcpu[cpu];

    v->call = f;
    v->call_arg = arg;
    vcpu_request_and_wait(v, REQ_CALL);
    return v->call_result;
}

struct accel_call {
    int (*f)(struct accel_vcpu *v, void *arg);
    void *arg;
};

static int call_accel(struct vcpu *v, void *arg)
{
    const struct accel_call *c = arg;

    return c->f(v->accel, c->arg);
}

int vcpu_group_call(struct vcpu_group *g, unsigned cpu, int (*f)(struct accel_vcpu *v, void *arg),
                    void *arg)
{
    return call(g, cpu, call_accel, &(struct accel_call){f, arg});
}

/*
 * A vCPU may have parked between the parts of an instruction (KVM splits string instructions and
 * accesses to devices into exits): the rest is done first. No instruction has more parts than a
 * page has bytes.
 */
static int get_settled(struct vcpu *v, void *arg)
{
    const struct accel_ops *ops = v->group->ops;
    int r = ops->get_state(v->accel, arg);

    for (unsigned rounds = 0; r == -EAGAIN && rounds < 4096; rounds++) {
        struct vcpu_exit e;

        if ((r = ops->run(v->accel, &e)) < 0)
            return r;
        vcpu_count_exit(v, &e);
        vcpu_handle_exit(v, &e);
        r = ops->get_state(v->accel, arg);
    }
    return r;
}

int vcpu_group_get_state(struct vcpu_group *g, unsigned cpu, struct vcpu_state *s)
{
    return call(g, cpu, get_settled, s);
}

/* One that halted runs on from another place (accel.h); where its own local APIC is ours, it waits
 * here and not there. */
static int set_registers(struct vcpu *v, void *arg)
{
    QZ_AUTO_FREE struct vcpu_state *old = NULL;
    const struct vcpu_state *s = arg;
    int r;

    if (posix_memalign((void **)&old, 64, sizeof(*old)))
        return -ENOMEM;
    if ((r = get_settled(v, old)) < 0 || (r = v->group->ops->set_registers(v->accel, s)) < 0)
        return r;
    if (v->wait == MP_HALTED && s->rip != old->rip)
        v->wait = MP_RUNNABLE;
    return 0;
}

int vcpu_group_set_registers(struct vcpu_group *g, unsigned cpu, const struct vcpu_state *s)
{
    return call(g, cpu, set_registers, (void *)s);
}

/* ---- snapshots -------------------------------------------------------------------------------
 */

int vcpu_group_settle(struct vcpu_group *g)
{
    QZ_AUTO_FREE struct vcpu_state *s = NULL;
    int r = 0;

    if (posix_memalign((void **)&s, 64, sizeof(*s)))
        return -ENOMEM;
    for (unsigned i = 0; r == 0 && i < g->created; i++)
        r = call(g, i, get_settled, s);
    return r;
}

static int save(struct vcpu *v, void *arg)
{
    const struct machine *m = v->group->machine;
    struct vcpu_state *s = arg;
    int r;

    vcpu_serve_requests(v, REQ_INIT | REQ_SIPI | REQ_NMI);
    r = get_settled(v, s);
    if (r < 0 || !m->accel->own_lapic)
        return r;
    irq_lapic_get(m->irq, v->id, &s->lapic, &s->apic_base);
    if (v->wait != MP_RUNNABLE)
        s->mp_state = v->wait;
    return 0;
}

int vcpu_group_save(struct vcpu_group *g, unsigned cpu, struct vcpu_state *s)
{
    return call(g, cpu, save, s);
}

static int load(struct vcpu *v, void *arg)
{
    const struct machine *m = v->group->machine;
    const struct vcpu_state *s = arg;
    int r;

    vcpu_request_done(v, REQ_INIT | REQ_SIPI | REQ_NMI | REQ_IRQ);
    r = vcpu_set_state(v, s);
    return r < 0 ? r : irq_lapic_put(m->irq, v->id, &s->lapic, s->apic_base);
}

int vcpu_group_load(struct vcpu_group *g, unsigned cpu, const struct vcpu_state *s)
{
    return call(g, cpu, load, (void *)s);
}

bool vcpu_group_is_halted(struct vcpu_group *g, unsigned cpu)
{
    return __atomic_load_n(&g->vcpu[cpu].wait, __ATOMIC_RELAXED) != MP_RUNNABLE;
}

static void ask(void *context, unsigned cpu, unsigned bits)
{
    struct vcpu_group *g = *(struct vcpu_group **)context;

    if (g && cpu < g->created)
        vcpu_request(&g->vcpu[cpu], bits);
}

static void irq_wake(void *context, unsigned cpu)
{
    ask(context, cpu, REQ_IRQ);
}
static void irq_nmi(void *context, unsigned cpu)
{
    ask(context, cpu, REQ_NMI);
}
static void irq_init(void *context, unsigned cpu)
{
    ask(context, cpu, REQ_INIT);
}
static void irq_sipi(void *context, unsigned cpu, uint8_t vector)
{
    struct vcpu_group *g = *(struct vcpu_group **)context;

    if (g && cpu < g->created)
        g->vcpu[cpu].sipi_vector = vector;
    ask(context, cpu, REQ_SIPI);
}

const struct irq_cpu_ops vcpu_irq_ops = {irq_wake, irq_nmi, irq_init, irq_sipi};

void vcpu_group_exits(const struct vcpu_group *g, uint64_t exits[EXIT_KINDS])
{
    memset(exits, 0, EXIT_KINDS * sizeof(exits[0]));
    for (unsigned i = 0; i < g->created; i++)
        for (unsigned k = 0; k < EXIT_KINDS; k++)
            exits[k] += __atomic_load_n(&g->vcpu[i].exits[k], __ATOMIC_RELAXED);
}

/*
 * vcpu.c - the vCPU threads (vcpu.h).
 *
 * Theory of operation. A thread alternates between the accelerator's run() and its requests: bits
 * in one atomic word, set by anybody, followed by a kick (the vCPU may be in the guest) and a
 * signal on the condition (it may be parked, halted or waiting for SIPI). Requests are looked at
 * before every run, so none is lost: a bit set before run() makes the kick pending there, a bit set
 * earlier is seen here.
 */
#include "vm/vcpu.h"

#include <signal.h>

#include "cpu/vcpu_msrs.h"
#include "vm/turns.h"

QZ_SYSCALLS(vcpu, "futex rt_sigprocmask");

enum {
    REQ_STOP = 1 << 0,
    REQ_PARK = 1 << 1, /* level: stays set while parked */
    REQ_INIT = 1 << 2,
    REQ_SIPI = 1 << 3,
    REQ_NMI = 1 << 4,
    REQ_IRQ = 1 << 5, /* an interrupt controller of ours has something */
    REQ_STATE = 1 << 6,
    REQ_CALL = 1 << 7,
    /* What the life cycle asks for, and what the guest does. */
    REQ_OUTSIDE = REQ_STOP | REQ_PARK | REQ_STATE | REQ_CALL,
    REQ_INSIDE = REQ_INIT | REQ_SIPI | REQ_NMI | REQ_IRQ,
};

struct vcpu {
    struct vcpu_group *group;
    unsigned id;
    pthread_t thread;
    struct accel_vcpu *accel;
    pthread_cond_t wake;
    unsigned requests; /* atomic */
    uint8_t sipi_vector;
    bool stays;               /* parked while others run; deterministic machines only */
    enum mp_state wait;       /* own local APIC: MP_HALTED, MP_WAIT_SIPI; MP_RUNNABLE otherwise */
    struct vcpu_state *state; /* for REQ_STATE */
    int (*call)(struct vcpu *v, void *arg); /* for REQ_CALL */
    void *call_arg;
    int call_result;
    uint64_t exits[EXIT_KINDS]; /* written by the thread only */
    int setup_result;
};

struct vcpu_group {
    struct machine *machine;
    const struct accel_ops *ops;
    struct vcpu_events events;
    enum confine_mode confine;
    pthread_mutex_t lock; /* guards parked, started and the sleeps */
    pthread_cond_t changed;
    unsigned started, parked;
    unsigned created;
    bool ran; /* first_exit was reported; atomic */
    struct qz_error setup_error;
    struct state_log *log; /* NULL: none */
    struct turns *turns;   /* deterministic: one vCPU runs at a time; NULL: all do */
    struct vcpu vcpu[];
};

static void request(struct vcpu *v, unsigned bits)
{
    __atomic_or_fetch(&v->requests, bits, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&v->group->lock);
    pthread_cond_signal(&v->wake);
    if (v->group->turns) /* it may wait for anybody's */
        pthread_cond_signal(&v->group->vcpu[turns_whose(v->group->turns)].wake);
    pthread_mutex_unlock(&v->group->lock);
    if (v->accel)
        v->group->ops->kick(v->accel);
}

static unsigned requests(struct vcpu *v)
{
    return __atomic_load_n(&v->requests, __ATOMIC_SEQ_CST);
}

static void request_done(struct vcpu *v, unsigned bits)
{
    __atomic_and_fetch(&v->requests, ~bits, __ATOMIC_SEQ_CST);
}

/* Sleeps until a request of `mask` is there. */
static void sleep_for(struct vcpu *v, unsigned mask)
{
    QZ_LOCKED(&v->group->lock);

    while (!(requests(v) & mask))
        pthread_cond_wait(&v->wake, &v->group->lock);
}

static void park(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    g->parked++;
    pthread_cond_broadcast(&g->changed);
    while ((requests(v) & (REQ_PARK | REQ_STOP | REQ_STATE | REQ_CALL)) == REQ_PARK)
        pthread_cond_wait(&v->wake, &g->lock);
    g->parked--;
}

/* What the guest's TSC is ahead of the host's; false: it cannot be had. */
static bool tsc_offset(struct vcpu *v, uint64_t *offset)
{
    struct vm_clock *clock = v->group->machine->clock;
    uint64_t before = vm_clock_tsc(clock), tsc;

    if (v->group->ops->get_tsc(v->accel, &tsc) < 0)
        return false;
    *offset = tsc - (before + (vm_clock_tsc(clock) - before) / 2);
    return true;
}

/* Our local APICs fire at moments that the guest names by its TSC. The TSCs of all vCPUs run as
 * one, until a guest writes to one of them. */
static void tell_tsc(struct vcpu *v)
{
    struct machine *m = v->group->machine;
    uint64_t offset;

    if (tsc_offset(v, &offset))
        irq_lapic_set_tsc(m->irq, v->group->ops->tsc_khz(m->accel), offset);
}

static void tell_own_tsc(struct vcpu *v)
{
    uint64_t offset;

    if (tsc_offset(v, &offset))
        irq_lapic_set_cpu_tsc(v->group->machine->irq, v->id, offset);
}

/* Between two runs a vCPU of a deterministic machine only knows when its last one ended. */
static void tell_time(struct vcpu *v)
{
    if (v->group->turns)
        v->group->ops->slice(v->accel, (uint64_t)vm_clock_now(v->group->machine->clock), 0);
}

static void set_state(struct vcpu *v, const struct vcpu_state *s)
{
    int r;

    tell_time(v);
    r = v->group->ops->set_state(v->accel, s);
    v->wait = v->group->machine->accel->own_lapic && s->mp_state != MP_RUNNABLE ? s->mp_state
                                                                                : MP_RUNNABLE;
    if (r == 0 && v->group->machine->accel->own_lapic && v->id == 0)
        tell_tsc(v);
    if (r < 0) {
        char text[80];

        snprintf(text, sizeof(text), "cannot set the CPU's state: %s", strerrordesc_np(-r));
        v->group->events.failed(v->group->events.context, v->id, text);
    }
}

/* INIT and SIPI of our own local APICs (SDM vol 3 §9.4): INIT makes it wait, the SIPI after it
 * makes it run. */
static void init_cpu(struct vcpu *v, bool sipi)
{
    QZ_AUTO_FREE struct vcpu_state *s = NULL;

    if (sipi && v->wait != MP_WAIT_SIPI)
        return; /* not waiting: ignored, as hardware does */
    if (posix_memalign((void **)&s, 64, sizeof(*s)))
        return v->group->events.failed(v->group->events.context, v->id, "no memory");
    vcpu_state_init(s, v->id);
    if (sipi)
        vcpu_state_sipi(s, v->sipi_vector);
    s->mp_state = sipi ? MP_RUNNABLE : MP_WAIT_SIPI;
    set_state(v, s);
}

/* What was asked for is done: whoever waits for it goes on. */
static void finish_request(struct vcpu *v, unsigned bits)
{
    request_done(v, bits);
    pthread_mutex_lock(&v->group->lock);
    pthread_cond_broadcast(&v->group->changed);
    pthread_mutex_unlock(&v->group->lock);
}

/* Asks, and waits until it is done. */
static void request_and_wait(struct vcpu *v, unsigned bit)
{
    request(v, bit);
    pthread_mutex_lock(&v->group->lock);
    while (requests(v) & bit)
        pthread_cond_wait(&v->group->changed, &v->group->lock);
    pthread_mutex_unlock(&v->group->lock);
}

/* Of what `mask` says. False: the thread is to end. */
static bool serve_requests(struct vcpu *v, unsigned mask)
{
    unsigned bits;

    while ((bits = requests(v) & mask)) {
        if (bits & REQ_STOP)
            return false;
        if (bits & REQ_STATE) {
            set_state(v, v->state);
            finish_request(v, REQ_STATE);
        } else if (bits & REQ_CALL) {
            v->call_result = v->call(v, v->call_arg);
            finish_request(v, REQ_CALL);
        } else if (bits & REQ_PARK) {
            park(v);
        } else if (bits & REQ_INIT) {
            request_done(v, REQ_INIT);
            init_cpu(v, false);
        } else if (bits & REQ_SIPI) {
            request_done(v, REQ_SIPI);
            init_cpu(v, true);
        } else if (bits & REQ_NMI) {
            request_done(v, REQ_NMI);
            v->group->ops->inject_nmi(v->accel);
            v->wait = v->wait == MP_HALTED ? MP_RUNNABLE : v->wait;
        } else {
            request_done(v, REQ_IRQ); /* looked at by take_interrupt() */
            break;
        }
    }
    return true;
}

/* Gives the guest the interrupt that a controller of ours holds, or asks to be told when it can
 * take one. */
static void take_interrupt(struct vcpu *v)
{
    const struct accel_ops *ops = v->group->ops;
    struct irq_fabric *irq = v->group->machine->irq;
    bool own = v->group->machine->accel->own_lapic;

    if (!own && v->id != 0)
        return; /* the PIC is wired to CPU 0; everything else is the accelerator's */
    if (irq_pending(irq, v->id)) {
        if (v->wait == MP_HALTED)
            v->wait = MP_RUNNABLE;
        if (ops->can_inject(v->accel)) {
            int vector = irq_acknowledge(irq, v->id);

            if (vector >= 0)
                ops->inject(v->accel, vector);
        }
    }
    ops->request_window(v->accel, irq_pending(irq, v->id));
    if (own)
        ops->set_cr8(v->accel, irq_lapic_get_tpr(irq, v->id));
}

static void do_pio(struct vcpu *v, const struct vcpu_exit *e)
{
    struct bus *pio = v->group->machine->pio;
    uint8_t *data = e->pio.data;

    for (uint32_t i = 0; i < e->pio.count; i++, data += e->pio.size)
        if (e->pio.write)
            bus_write(pio, e->pio.port, data, e->pio.size);
        else
            bus_read(pio, e->pio.port, data, e->pio.size);
}

static void do_mmio(struct vcpu *v, const struct vcpu_exit *e)
{
    struct machine *m = v->group->machine;

    if (m->accel->own_lapic &&
        irq_lapic_mmio(m->irq, v->id, e->mmio.gpa, e->mmio.data, e->mmio.len, e->mmio.write))
        return;
    if (e->mmio.write)
        bus_write(m->mmio, e->mmio.gpa, e->mmio.data, e->mmio.len);
    else
        bus_read(m->mmio, e->mmio.gpa, e->mmio.data, e->mmio.len);
}

static void do_msr(struct vcpu *v, struct vcpu_exit *e)
{
    struct machine *m = v->group->machine;
    bool write = e->kind == EXIT_WRMSR, fault = false;

    if (m->accel->own_lapic && write && e->msr.index == MSR_TSC_DEADLINE)
        tell_own_tsc(v);
    if (m->accel->own_lapic &&
        (write ? irq_lapic_wrmsr(m->irq, v->id, e->msr.index, e->msr.value, &fault)
               : irq_lapic_rdmsr(m->irq, v->id, e->msr.index, &e->msr.value, &fault))) {
        e->msr.fault = fault;
        return;
    }
    qz_debug("vCPU %u: %s of unknown MSR 0x%x", v->id, write ? "write" : "read", e->msr.index);
    e->msr.fault = true;
}

/* Where it happened, as far as the back end still knows: AMD's processors lose the state in a
 * shutdown and KVM then shows that of a reset. */
static void report_crash(struct vcpu *v)
{
    QZ_AUTO_FREE struct vcpu_state *s = NULL;
    char text[160] = "";

    if (posix_memalign((void **)&s, 64, sizeof(*s)) == 0 &&
        v->group->ops->get_state(v->accel, s) == 0 && s->rip != 0xfff0)
        snprintf(text, sizeof(text),
                 " at cs 0x%x rip 0x%llx, rsp 0x%llx, cr0 0x%llx, cr2 0x%llx, cr3 0x%llx",
                 s->cs.selector, (unsigned long long)s->rip, (unsigned long long)s->gpr[RSP],
                 (unsigned long long)s->cr0, (unsigned long long)s->cr2,
                 (unsigned long long)s->cr3);
    v->group->events.triple_fault(v->group->events.context, v->id, text);
}

/* False: this vCPU cannot go on and waits for the life cycle. */
static bool handle_exit(struct vcpu *v, struct vcpu_exit *e)
{
    struct vcpu_group *g = v->group;

    switch (e->kind) {
    case EXIT_PIO:
        do_pio(v, e);
        return true;
    case EXIT_MMIO:
        do_mmio(v, e);
        return true;
    case EXIT_RDMSR:
    case EXIT_WRMSR:
        do_msr(v, e);
        return true;
    case EXIT_HALT:
        if (g->machine->accel->own_lapic)
            v->wait = MP_HALTED;
        return true;
    case EXIT_IOAPIC_EOI:
        irq_eoi(g->machine->irq, e->eoi.vector);
        return true;
    case EXIT_KICKED:
    case EXIT_IRQ_WINDOW:
        return true;
    case EXIT_DEBUG:
        return g->events.debug && g->events.debug(g->events.context, v->id, e);
    case EXIT_SHUTDOWN:
        report_crash(v);
        return false;
    case EXIT_FAIL:
        g->events.failed(g->events.context, v->id, e->fail.text);
        return false;
    }
    return false;
}

static void count_exit(struct vcpu *v, const struct vcpu_exit *e)
{
    struct vcpu_group *g = v->group;

    v->exits[e->kind]++;
    if (e->kind != EXIT_KICKED && !__atomic_load_n(&g->ran, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&g->ran, true, __ATOMIC_RELAXED))
        g->events.first_exit(g->events.context);
}

/*
 * The task priority may have changed on either side: CR8 in the guest, the register by the access.
 * An access to the APIC (EOI, TPR, an IPI to itself) may also let an interrupt through that was
 * held back when it came; nobody wakes a vCPU that is awake, so it asks to come out for it.
 */
void vcpu_serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct vcpu_group *g = *(struct vcpu_group **)context;
    struct vcpu *v = &g->vcpu[cpu];

    if (g->turns)
        turns_arrive(g->turns, g->ops->executed(v->accel));
    irq_lapic_set_tpr(g->machine->irq, cpu, g->ops->get_cr8(v->accel));
    count_exit(v, exit);
    handle_exit(v, exit);
    g->ops->set_cr8(v->accel, irq_lapic_get_tpr(g->machine->irq, cpu));
    if (irq_pending(g->machine->irq, cpu))
        g->ops->request_window(v->accel, true);
    if (g->turns && turns_is_late(g->turns)) /* a timer was set to fire before it would come out */
        g->ops->kick(v->accel);
}

/* Until the machine is needed, and answers. */
static void run_once(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    struct vcpu_exit e;
    int r;

    if (g->turns)
        g->ops->slice(v->accel, (uint64_t)vm_clock_now(g->machine->clock), turns_begin(g->turns));
    r = g->ops->run(v->accel, &e);
    if (g->turns)
        turns_end(g->turns, g->ops->executed(v->accel));
    if (r < 0) {
        e.kind = EXIT_FAIL;
        snprintf(e.fail.text, sizeof(e.fail.text), "%s: running failed: %s", g->ops->name,
                 strerrordesc_np(-r));
    }
    count_exit(v, &e);
    if (g->machine->accel->own_lapic)
        irq_lapic_set_tpr(g->machine->irq, v->id, g->ops->get_cr8(v->accel));
    if (!handle_exit(v, &e))
        sleep_for(v, REQ_STOP | REQ_PARK);
}

static void run(struct vcpu *v)
{
    while (serve_requests(v, ~0u)) {
        take_interrupt(v);
        if (v->wait != MP_RUNNABLE)
            sleep_for(v, ~0u);
        else
            run_once(v);
    }
}

/* ---- one after the other (turns.h) -------------------------------------------------------------
 */

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
        if (requests(v) & REQ_OUTSIDE)
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
        if (requests(v) & REQ_OUTSIDE)
            return; /* it stays this one's */
        if (!turns_skip(v->group->turns))
            await_world(v);
    }
}

static bool await_turn(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    while (turns_whose(g->turns) != v->id && !(requests(v) & REQ_OUTSIDE))
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
        tell_time(&g->vcpu[i]);
    }
    state_log_write(g->log, all, v->id);
    turns_stop_at(g->turns, state_log_next(g->log));
}

static void run_in_turn(struct vcpu *v)
{
    for (;;) {
        const bool mine = await_turn(v);

        if (!serve_requests(v, mine ? ~0u : REQ_OUTSIDE))
            return;
        if (!mine)
            continue;
        take_interrupt(v);
        if (v->wait != MP_RUNNABLE || turns_is_over(v->group->turns))
            end_turn(v);
        else if (log_is_due(v->group))
            log_state(v);
        else
            run_once(v);
    }
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    struct vcpu_group *g = v->group;
    struct qz_error err = {0};
    char name[16];
    int r;

    snprintf(name, sizeof(name), "vcpu%u", v->id);
    pthread_setname_np(pthread_self(), name);
    r = g->ops->vcpu_new(g->machine->accel, v->id, &v->accel, &err);
    if (r == 0)
        r = confine_thread(CONFINE_VCPU, g->confine, &err);
    pthread_mutex_lock(&g->lock);
    v->setup_result = r;
    if (r < 0 && g->setup_error.code == 0)
        g->setup_error = err;
    g->started++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    if (r == 0 && g->turns)
        run_in_turn(v);
    else if (r == 0)
        run(v);
    else
        sleep_for(v, REQ_STOP);
    return NULL;
}

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
        e = pthread_create(&v->thread, NULL, vcpu_main, v);
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

void vcpu_group_free(struct vcpu_group *g)
{
    if (!g)
        return;
    for (unsigned i = 0; i < g->created; i++)
        request(&g->vcpu[i], REQ_STOP);
    for (unsigned i = 0; i < g->created; i++) {
        pthread_join(g->vcpu[i].thread, NULL);
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
        request_done(v, REQ_INIT | REQ_SIPI | REQ_NMI | REQ_IRQ);
        request_and_wait(v, REQ_STATE);
    }
    free(s);
    return 0;
}

void vcpu_group_ask_park(struct vcpu_group *g)
{
    for (unsigned i = 0; i < g->created; i++)
        request(&g->vcpu[i], REQ_PARK);
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
    tell_time(&g->vcpu[0]);
    if (g->machine->accel->own_lapic)
        tell_tsc(&g->vcpu[0]);
}

/* A debugger lets some of them run: the turn is one of theirs. */
static void turn_without(struct vcpu_group *g, const bool *stay)
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

void vcpu_group_resume(struct vcpu_group *g, const bool *stay)
{
    if (g->turns)
        turn_without(g, stay);
    for (unsigned i = 0; i < g->created; i++) {
        if (stay && stay[i])
            continue;
        request_done(&g->vcpu[i], REQ_PARK);
        request(&g->vcpu[i], 0);
    }
}

/* ---- calls on a parked vCPU's thread -----------------------------------------------------------
 */

static int call(struct vcpu_group *g, unsigned cpu, int (*f)(struct vcpu *v, void *arg), void *arg)
{
    struct vcpu *v = &g->vcpu[cpu];

    v->call = f;
    v->call_arg = arg;
    request_and_wait(v, REQ_CALL);
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
        count_exit(v, &e);
        handle_exit(v, &e);
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

bool vcpu_group_is_halted(struct vcpu_group *g, unsigned cpu)
{
    return __atomic_load_n(&g->vcpu[cpu].wait, __ATOMIC_RELAXED) != MP_RUNNABLE;
}

static void ask(void *context, unsigned cpu, unsigned bits)
{
    struct vcpu_group *g = *(struct vcpu_group **)context;

    if (g && cpu < g->created)
        request(&g->vcpu[cpu], bits);
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

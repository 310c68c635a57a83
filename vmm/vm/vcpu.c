/*
 * vcpu.c - the vCPU threads (vcpu.h).
 *
 * Theory of operation. A thread alternates between the accelerator's run() and its requests: bits
 * in one atomic word, set by anybody, followed by a kick (the vCPU may be in the guest) and a
 * signal on the condition (it may be parked, halted or waiting for SIPI). Requests are looked at
 * before every run, so none is lost: a bit set before run() makes the kick pending there, a bit set
 * earlier is seen here.
 */
#include "vm/vcpu_internal.h"

#include <signal.h>

#include "cpu/vcpu_msrs.h"

QZ_SYSCALLS(vcpu, "futex rt_sigprocmask");

void vcpu_request(struct vcpu *v, unsigned bits)
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

unsigned vcpu_requests(struct vcpu *v)
{
    return __atomic_load_n(&v->requests, __ATOMIC_SEQ_CST);
}

void vcpu_request_done(struct vcpu *v, unsigned bits)
{
    __atomic_and_fetch(&v->requests, ~bits, __ATOMIC_SEQ_CST);
}

/* Sleeps until a request of `mask` is there. */
static void sleep_for(struct vcpu *v, unsigned mask)
{
    QZ_LOCKED(&v->group->lock);

    while (!(vcpu_requests(v) & mask))
        pthread_cond_wait(&v->wake, &v->group->lock);
}

static void park(struct vcpu *v)
{
    struct vcpu_group *g = v->group;
    QZ_LOCKED(&g->lock);

    g->parked++;
    pthread_cond_broadcast(&g->changed);
    while ((vcpu_requests(v) & (REQ_PARK | REQ_STOP | REQ_STATE | REQ_CALL)) == REQ_PARK)
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
void vcpu_tell_tsc(struct vcpu *v)
{
    struct machine *m = v->group->machine;
    uint64_t offset;

    if (tsc_offset(v, &offset))
        irq_lapic_set_tsc(m->irq, v->group->ops->tsc_khz(m->accel), offset);
}

void vcpu_tell_own_tsc(struct vcpu *v)
{
    uint64_t offset;

    if (tsc_offset(v, &offset))
        irq_lapic_set_cpu_tsc(v->group->machine->irq, v->id, offset);
}

void vcpu_tell_time(struct vcpu *v)
{
    if (v->group->turns)
        v->group->ops->slice(v->accel, (uint64_t)vm_clock_now(v->group->machine->clock), 0);
}

int vcpu_set_state(struct vcpu *v, const struct vcpu_state *s)
{
    const bool own_lapic = v->group->machine->accel->own_lapic;
    int r;

    vcpu_tell_time(v);
    r = v->group->ops->set_state(v->accel, s);
    v->wait = own_lapic ? s->mp_state : MP_RUNNABLE;
    if (r == 0 && own_lapic && v->id == 0)
        vcpu_tell_tsc(v);
    return r;
}

static void set_state(struct vcpu *v, const struct vcpu_state *s)
{
    const int r = vcpu_set_state(v, s);
    char text[80];

    if (r == 0)
        return;
    snprintf(text, sizeof(text), "cannot set the CPU's state: %s", strerrordesc_np(-r));
    v->group->events.failed(v->group->events.context, v->id, text);
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
    vcpu_request_done(v, bits);
    pthread_mutex_lock(&v->group->lock);
    pthread_cond_broadcast(&v->group->changed);
    pthread_mutex_unlock(&v->group->lock);
}

/* Asks, and waits until it is done. */
void vcpu_request_and_wait(struct vcpu *v, unsigned bit)
{
    vcpu_request(v, bit);
    pthread_mutex_lock(&v->group->lock);
    while (vcpu_requests(v) & bit)
        pthread_cond_wait(&v->group->changed, &v->group->lock);
    pthread_mutex_unlock(&v->group->lock);
}

/* Of what `mask` says. False: the thread is to end. */
bool vcpu_serve_requests(struct vcpu *v, unsigned mask)
{
    unsigned bits;

    while ((bits = vcpu_requests(v) & mask)) {
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
            vcpu_request_done(v, REQ_INIT);
            init_cpu(v, false);
        } else if (bits & REQ_SIPI) {
            vcpu_request_done(v, REQ_SIPI);
            init_cpu(v, true);
        } else if (bits & REQ_NMI) {
            vcpu_request_done(v, REQ_NMI);
            v->group->ops->inject_nmi(v->accel);
            v->wait = v->wait == MP_HALTED ? MP_RUNNABLE : v->wait;
        } else {
            vcpu_request_done(v, REQ_IRQ); /* looked at by vcpu_take_interrupt() */
            break;
        }
    }
    return true;
}

/* Gives the guest the interrupt that a controller of ours holds, or asks to be told when it can
 * take one. */
void vcpu_take_interrupt(struct vcpu *v)
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

/* Until the machine is needed, and answers. */
void vcpu_run_once(struct vcpu *v)
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
    vcpu_count_exit(v, &e);
    if (g->machine->accel->own_lapic)
        irq_lapic_set_tpr(g->machine->irq, v->id, g->ops->get_cr8(v->accel));
    if (!vcpu_handle_exit(v, &e))
        sleep_for(v, REQ_STOP | REQ_PARK);
}

static void run(struct vcpu *v)
{
    while (vcpu_serve_requests(v, ~0u)) {
        vcpu_take_interrupt(v);
        if (v->wait != MP_RUNNABLE)
            sleep_for(v, ~0u);
        else
            vcpu_run_once(v);
    }
}

void *vcpu_thread(void *arg)
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
        vcpu_run_in_turn(v);
    else if (r == 0)
        run(v);
    else
        sleep_for(v, REQ_STOP);
    return NULL;
}

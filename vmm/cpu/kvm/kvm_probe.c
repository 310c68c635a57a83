/*
 * kvm_probe.c - what KVM is worth on this host, found by running something.
 *
 * That /dev/kvm opens says little: there are hosts whose KVM runs user mode natively but interprets
 * every instruction of ring 0, four orders of magnitude slower, and a kernel is ring 0 from its
 * first instruction. So the probe builds a throw-away machine with the same calls as a real one,
 * enters 64-bit ring 0 and times a loop of two instructions. The payload asks for the number of
 * rounds by a port read, so that one vCPU serves all measurements:
 *
 *     next: in  eax, dx
 *     loop: dec eax
 *           jnz loop
 *           jmp next
 *
 * A timer bounds the whole: KVM_RUN returns on its signal even when KVM is interpreting. Probing
 * comes before confinement, so its system calls are not declared.
 */
#include <math.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "cpu/kvm/kvm_internal.h"

enum {
    PML4 = 0x1000, /* guest-physical addresses of the payload's pages */
    PDPT = 0x2000,
    PD = 0x3000,
    CODE = 0x4000,
    MEMORY_SIZE = 0x5000,
    ASK_PORT = 0x10,

    FIRST_ROUNDS = 200, /* under a millisecond even when interpreted at microseconds each */
    LAST_ROUNDS = 2000000,
    CLEAR_OF_BASE =
        8, /* a slice that much longer than entry and exit alone is measured well enough */
    USABLE_NS = 200, /* a round on hardware takes under 1 ns, on a simulated processor under 20 */
    SLICE_NS = 10000000, /* no slice is begun that would take longer */
    GIVE_UP_NS = 50000000,
    ATTEMPTS = 5,
    WARM_UP_NS = 900000000, /* a simulated host translates KVM itself in the first runs */
};

static const uint8_t payload[] = {0xed, 0xff, 0xc8, 0x75, 0xfc, 0xeb, 0xf9};

struct probe_machine {
    struct accel_vm *vm;
    struct accel_vcpu *vcpu;
    uint8_t *memory;
    timer_t timer;
    bool timer_there;
    struct vcpu_state state;
    struct vcpu_exit exit;
};

/* ---- the throw-away machine ------------------------------------------------------------------ */

static void enter_long_mode(struct vcpu_state *s)
{
    vcpu_state_reset(s, true, 0);
    vcpu_state_flat(s, 64);
    s->cr0 = 0x80000031; /* PG, NE, ET, PE */
    s->cr3 = PML4;
    s->cr4 = 1 << 5;            /* PAE */
    s->efer = 1 << 8 | 1 << 10; /* LME, LMA */
    s->rip = CODE;
    s->gpr[RDX] = ASK_PORT;
}

static void fill_memory(uint8_t *memory)
{
    enum { PRESENT_WRITABLE = 3, LARGE_PAGE = 1 << 7 };

    qz_store_le64(memory + PML4, PDPT | PRESENT_WRITABLE);
    qz_store_le64(memory + PDPT, PD | PRESENT_WRITABLE);
    qz_store_le64(memory + PD, LARGE_PAGE | PRESENT_WRITABLE); /* the first 2 MiB onto themselves */
    memcpy(memory + CODE, payload, sizeof(payload));
}

/* The kick signal to this thread when time is up, and again in case it came between two runs. */
static int set_timer(struct probe_machine *m, long ns)
{
    const struct itimerspec when = {.it_value = {.tv_nsec = ns},
                                    .it_interval = {.tv_nsec = SLICE_NS}};

    return timer_settime(m->timer, 0, &when, NULL) == 0 ? 0 : -errno;
}

static int start_timer(struct probe_machine *m)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_KICK_SIGNAL};

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &m->timer) != 0)
        return -errno;
    m->timer_there = true;
    return set_timer(m, WARM_UP_NS);
}

static int build(struct probe_machine *m, struct qz_error *err)
{
    const struct accel_config config = {.vcpus = 1, .model = CPU_MODEL_HOST, .topology = {1, 1, 1}};
    int r;

    m->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->memory == MAP_FAILED) {
        m->memory = NULL;
        return qz_fail(err, -ENOMEM, "out of memory");
    }
    fill_memory(m->memory);
    r = kvm_vm_new(&config, &m->vm, err);
    if (r < 0)
        return r;
    r = kvm_memory_map(m->vm, 0, MEMORY_SIZE, m->memory, false);
    if (r < 0)
        return qz_fail(err, r, "KVM does not take memory: %s", strerror(-r));
    r = kvm_vcpu_new(m->vm, 0, &m->vcpu, err);
    if (r < 0)
        return r;
    enter_long_mode(&m->state);
    r = kvm_set_state(m->vcpu, &m->state);
    if (r < 0)
        return qz_fail(err, r, "KVM does not take a 64-bit ring 0 state: %s", strerror(-r));
    r = start_timer(m);
    return r < 0 ? qz_fail(err, r, "timer: %s", strerror(-r)) : 0;
}

static void tear_down(struct probe_machine *m)
{
    if (m->timer_there)
        timer_delete(m->timer);
    if (m->vcpu)
        kvm_vcpu_free(m->vcpu);
    if (m->vm)
        kvm_vm_free(m->vm);
    if (m->memory)
        munmap(m->memory, MEMORY_SIZE);
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* Runs to the next question. 0, -ETIME when the timer was first, -EIO with the reason in *err. */
static int run_to_question(struct probe_machine *m, struct qz_error *err)
{
    struct vcpu_exit *e = &m->exit;
    const int r = kvm_vcpu_run(m->vcpu, e);

    if (r < 0)
        return qz_fail(err, -EIO, "KVM_RUN: %s", strerror(-r));
    switch (e->kind) {
    case EXIT_PIO:
        if (!e->pio.write && e->pio.port == ASK_PORT && e->pio.size == 4)
            return 0;
        return qz_fail(err, -EIO, "the test loop reached port 0x%x, which it never touches",
                       e->pio.port);
    case EXIT_KICKED:
        return -ETIME;
    case EXIT_FAIL:
        return qz_fail(err, -EIO, "%s", e->fail.text);
    default:
        return qz_fail(err, -EIO, "the test loop ended with exit %d", e->kind);
    }
}

/* Nanoseconds for `rounds` rounds with entry and exit; the vCPU stands at its question before and
 * after. */
static int time_rounds(struct probe_machine *m, uint32_t rounds, int64_t *ns, struct qz_error *err)
{
    const int64_t start = qz_now_ns();
    int r;

    memcpy(m->exit.pio.data, &rounds, sizeof(rounds));
    r = run_to_question(m, err);
    *ns = qz_now_ns() - start;
    return r;
}

/* Cut off in the middle: the counter in EAX says how far it got. */
static double interrupted_rate(struct probe_machine *m, uint32_t rounds, int64_t ns)
{
    uint32_t left = rounds;

    if (kvm_get_state(m->vcpu, &m->state) == 0)
        left = (uint32_t)m->state.gpr[RAX];
    return (double)ns / (left < rounds ? rounds - left : 1);
}

/* One measurement: longer loops until one is long enough to tell. */
static int measure_once(struct probe_machine *m, double *loop_ns, struct qz_error *err)
{
    int64_t base = 0, ns = 0;
    int r = set_timer(m, GIVE_UP_NS);

    if (r < 0)
        return qz_fail(err, -EIO, "timer: %s", strerror(-r));
    r = time_rounds(m, 1, &base, err);
    for (uint32_t rounds = FIRST_ROUNDS; r == 0 && rounds <= LAST_ROUNDS; rounds *= 10) {
        r = time_rounds(m, rounds, &ns, err);
        if (r == -ETIME) {
            *loop_ns = interrupted_rate(m, rounds, ns);
            return 0;
        }
        *loop_ns = (double)QZ_MAX(ns - base, (int64_t)1) / rounds;
        if (ns > base * CLEAR_OF_BASE || *loop_ns * rounds * 10 > SLICE_NS)
            break;
    }
    return r;
}

/* The best of a few: whatever else the host does makes a measurement slower, never quicker. */
static int measure(struct probe_machine *m, double *loop_ns, struct qz_error *err)
{
    int64_t base;
    int r = run_to_question(m, err);

    if (r == 0)
        r = time_rounds(m, 1, &base, err); /* faults everything in */
    if (r == -ETIME)
        return qz_fail(err, -EIO, "a handful of instructions took more than %d ms",
                       WARM_UP_NS / 1000000);
    *loop_ns = HUGE_VAL;
    for (int i = 0; r == 0 && i<ATTEMPTS && * loop_ns> USABLE_NS; i++) {
        double once = HUGE_VAL;

        r = measure_once(m, &once, err);
        *loop_ns = QZ_MIN(*loop_ns, once);
        if (r == 0 && m->exit.kind == EXIT_KICKED)
            break; /* cut off in the middle of a loop: there is no question to answer */
    }
    return r == -ETIME ? 0 : r;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static void judge(struct accel_probe *out)
{
    const double ns = out->ring0_loop_ns;

    out->usable = ns <= USABLE_NS;
    if (out->usable)
        snprintf(out->reason, sizeof(out->reason), "KVM runs ring 0 at %.1f ns per loop", ns);
    else
        snprintf(
            out->reason, sizeof(out->reason),
            "/dev/kvm is there but emulates ring 0 (%.1f us for a two-instruction loop): a kernel "
            "would not boot in minutes",
            ns / 1000);
}

int kvm_probe(struct accel_probe *out, bool measure_it)
{
    QZ_AUTO_FREE struct probe_machine *m = NULL;
    struct qz_error err = {0};
    sigset_t kick, before;
    int fd, r;

    memset(out, 0, sizeof(*out));
    r = kvm_open(&fd, &err);
    if (r < 0) {
        snprintf(out->reason, sizeof(out->reason), "%.230s", err.text);
        return 0;
    }
    close(fd);
    out->present = true;
    if (!measure_it) {
        snprintf(out->reason, sizeof(out->reason), "asked for, not measured");
        return 0;
    }
    m = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*m), (size_t)64));
    if (!m)
        return -ENOMEM;
    memset(m, 0, sizeof(*m));
    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, &before);
    r = build(m, &err);
    if (r == 0)
        r = measure(m, &out->ring0_loop_ns, &err);
    tear_down(m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    if (r == 0)
        judge(out);
    else
        snprintf(out->reason, sizeof(out->reason), "/dev/kvm is there but unusable: %.200s",
                 err.text);
    return 0;
}

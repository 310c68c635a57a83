/* io_gate.c - devices work while no vCPU does (io_gate.h). */
#include "machine/io_gate.h"

#include <unistd.h>

QZ_SYSCALLS(vcpu, "futex write");
QZ_SYSCALLS(io, "futex poll");

enum {
    RUNG_MAX = 4096,
    WAIT_MS = 100,     /* looks again whether something came, should a loop not say so */
    ROUNDS_MAX = 1000, /* packets may come without end: they do not keep the guest from running */
};

struct io_gate {
    struct vm_timer timer;
    struct vm_clock *clock;
    struct rung {
        struct qz_loop *loop;
        int fd;
    } rung[RUNG_MAX];
    unsigned count;
    unsigned begun; /* atomic */

    pthread_mutex_t lock; /* guards settled */
    pthread_cond_t changed;
    struct qz_loop *loop; /* that is being settled */
    struct qz_work work;
    unsigned rounds;
    bool settled;
};

static void signal_fd(int fd)
{
    uint64_t one = 1;

    /* Fails only when the counter is full: then the loop has been told often enough. */
    if (write(fd, &one, sizeof(one)) < 0)
        return;
}

/* On the loop's thread, behind everything that it had to do in this round. */
static void look(struct qz_work *w)
{
    struct io_gate *g = QZ_CONTAINER_OF(w, struct io_gate, work);
    const bool begun = __atomic_load_n(&g->begun, __ATOMIC_ACQUIRE);

    if ((qz_loop_pending(g->loop, begun ? WAIT_MS : 0) && ++g->rounds < ROUNDS_MAX) || begun) {
        qz_loop_post(g->loop, w, look);
        return;
    }
    pthread_mutex_lock(&g->lock);
    g->settled = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

void io_gate_settle(struct io_gate *g, struct qz_loop *loop)
{
    g->loop = loop;
    g->rounds = 0;
    g->settled = false;
    qz_loop_post(loop, &g->work, look);
    pthread_mutex_lock(&g->lock);
    while (!g->settled)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void on_timer(struct vm_timer *t)
{
    struct io_gate *g = QZ_CONTAINER_OF(t, struct io_gate, timer);

    for (unsigned i = 0; i < g->count; i++) {
        signal_fd(g->rung[i].fd);
        io_gate_settle(g, g->rung[i].loop);
    }
    g->count = 0;
}

void io_gate_ring(struct io_gate *g, struct qz_loop *loop, int fd)
{
    if (qz_loop_is_current(loop)) {
        signal_fd(fd);
        return;
    }
    for (unsigned i = 0; i < g->count; i++)
        if (g->rung[i].fd == fd)
            return;
    if (g->count == RUNG_MAX) { /* more queues than any machine has */
        signal_fd(fd);
        return;
    }
    if (g->count == 0)
        vm_timer_arm(&g->timer, vm_clock_now(g->clock) + IO_GATE_LATENCY_NS);
    g->rung[g->count++] = (struct rung){loop, fd};
}

void io_gate_begin(struct io_gate *g)
{
    if (g)
        __atomic_add_fetch(&g->begun, 1, __ATOMIC_RELEASE);
}

void io_gate_end(struct io_gate *g)
{
    if (g)
        __atomic_sub_fetch(&g->begun, 1, __ATOMIC_RELEASE);
}

int io_gate_new(struct io_gate **out, struct vm_clock *clock, struct qz_error *err)
{
    struct io_gate *g = calloc(1, sizeof(*g));

    if (!g)
        return qz_fail(err, -ENOMEM, "deterministic machine: no memory");
    g->clock = clock;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    vm_timer_init(&g->timer, clock, on_timer);
    *out = g;
    return 0;
}

void io_gate_free(struct io_gate *g)
{
    if (!g)
        return;
    vm_timer_cancel(&g->timer);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
    free(g);
}

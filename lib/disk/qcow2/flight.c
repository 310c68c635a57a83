/*
 * flight.c - who is inside an image: phases for giving clusters back, and the gate.
 *
 * Each request enters in the current phase and leaves it. Clusters that nobody can find any more
 * wait until the phase in which somebody may have found them is empty: the phase's low bit is
 * flipped, new requests count in the other counter, the old one drains (as in sleepable RCU).
 */
#include "internal.h"

static bool anybody_inside(struct qcow2 *i)
{
    for (unsigned n = 0; n < DISK_QUEUES_MAX; n++)
        if (atomic_load(&i->lanes[n].inside[0]) || atomic_load(&i->lanes[n].inside[1]))
            return true;
    return false;
}

/* On the drainer's own queue: it cannot go on before this has returned, so no mutex is held. */
static void wake_drainer(struct queue_work *w)
{
    struct qcow2 *i = QZ_CONTAINER_OF(w, struct qcow2, drain_work);
    struct qcow2_wait *drainer;

    pthread_mutex_lock(&i->gate_mutex);
    i->drain_posted = false;
    drainer = QZ_TAKE_PTR(i->drainer);
    pthread_mutex_unlock(&i->gate_mutex);
    if (!drainer)
        return;
    drainer->woken = true;
    task_resume(drainer->task);
}

void qcow2_left_closed(struct qcow2 *i)
{
    QZ_LOCKED(&i->gate_mutex);
    if (i->drain_queue && !i->drain_posted) {
        i->drain_posted = true;
        queue_post(i->drain_queue, &i->drain_work);
    }
}

void qcow2_sleep(struct qcow2_wait **list, pthread_mutex_t *m)
{
    struct qcow2_wait me = {.task = task_current(), .next = *list};
    bool woken;

    *list = &me;
    do {
        pthread_mutex_unlock(m);
        task_suspend();
        pthread_mutex_lock(m);
        woken = me.woken;
    } while (!woken);
    pthread_mutex_unlock(m);
}

void qcow2_wake_all(struct qcow2_wait **list)
{
    struct qcow2_wait *w = QZ_TAKE_PTR(*list);

    while (w) {
        struct qcow2_wait *next = w->next;

        /* The mutex is held: w's task cannot leave qcow2_sleep() before the resume is done. */
        w->woken = true;
        task_resume(w->task);
        w = next;
    }
}

void qcow2_gate_close(struct qcow2 *i, struct disk_queue *q)
{
    pthread_mutex_lock(&i->gate_mutex);
    while (atomic_load(&i->closed)) { /* somebody else's turn */
        qcow2_sleep(&i->at_gate, &i->gate_mutex);
        pthread_mutex_lock(&i->gate_mutex);
    }
    i->drain_queue = q;
    i->drain_work.run = wake_drainer;
    atomic_store(&i->closed, true);
    /* A posted look must have come, too: it points into the image. */
    while (anybody_inside(i) || i->drain_posted) {
        qcow2_sleep(&i->drainer, &i->gate_mutex);
        pthread_mutex_lock(&i->gate_mutex);
    }
    i->drain_queue = NULL;
    atomic_fetch_add(&i->releases, 1);
    atomic_store(&i->closing, true); /* whole again: refcounts are not put off meanwhile */
    pthread_mutex_unlock(&i->gate_mutex);
}

void qcow2_gate_open(struct qcow2 *i)
{
    QZ_LOCKED(&i->gate_mutex);
    atomic_store(&i->closing, false);
    atomic_store(&i->closed, false);
    qcow2_wake_all(&i->at_gate);
}

void qcow2_gate_wait(struct qcow2 *i)
{
    pthread_mutex_lock(&i->gate_mutex);
    if (atomic_load(&i->closed))
        qcow2_sleep(&i->at_gate, &i->gate_mutex);
    else
        pthread_mutex_unlock(&i->gate_mutex);
}

uint32_t qcow2_begin(struct qcow2 *i, struct disk_queue *q)
{
    for (;;) {
        uint32_t phase = qcow2_enter(i, q);

        if (!atomic_load(&i->closed))
            return phase;
        qcow2_leave(i, q, phase);
        qcow2_gate_wait(i);
    }
}

/* ---- the end */

void qcow2_lanes_free(struct qcow2 *i)
{
    for (unsigned n = 0; n < DISK_QUEUES_MAX; n++) {
        qcow2_leases_free(&i->lanes[n]);
        qcow2_unpacked_free(i->lanes[n].unpacked);
        while (i->lanes[n].pool) {
            struct qcow2_io *io = i->lanes[n].pool;

            i->lanes[n].pool = io->next;
            free(io);
        }
    }
}

/* vm_standstill.c - nothing moves (vm_standstill.h). */
#include "vm/vm_standstill.h"

#include <time.h>

QZ_SYSCALLS(main, "clock_nanosleep");

enum { DRAIN_STEP_NS = 100000 };

/* ---- the device loops stand ---- */

/* Parts of the present job, as long as there are some; the lock is held, but not while one is done.
 */
static void do_parts(struct standstill *all)
{
    while (all->job && all->next < all->parts) {
        const unsigned part = all->next++;

        pthread_mutex_unlock(&all->lock);
        all->job(all->context, part);
        pthread_mutex_lock(&all->lock);
        if (++all->ended == all->parts)
            pthread_cond_broadcast(&all->changed);
    }
}

static void stand(struct qz_work *w)
{
    struct standstill *all = QZ_CONTAINER_OF(w, struct standing_loop, work)->all;
    QZ_LOCKED(&all->lock);

    all->standing++;
    pthread_cond_broadcast(&all->changed);
    while (!all->over) {
        pthread_cond_wait(&all->changed, &all->lock);
        do_parts(all);
    }
    all->standing--;
    pthread_cond_broadcast(&all->changed);
}

void stop_loops(struct vm *vm, struct standstill *all)
{
    *all =
        (struct standstill){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    for (unsigned i = 0; i < vm->io_loops; i++) {
        all->loop[i].all = all;
        qz_loop_post(vm->io[i].loop, &all->loop[i].work, stand);
    }
    QZ_LOCKED(&all->lock);

    while (all->standing < vm->io_loops)
        pthread_cond_wait(&all->changed, &all->lock);
}

void start_loops(struct standstill *all)
{
    QZ_LOCKED(&all->lock);

    all->over = true;
    pthread_cond_broadcast(&all->changed);
    while (all->standing)
        pthread_cond_wait(&all->changed, &all->lock);
}

void share_job(struct standstill *all, void (*job)(void *context, unsigned part), void *context,
               unsigned parts)
{
    QZ_LOCKED(&all->lock);

    all->job = job;
    all->context = context;
    all->next = all->ended = 0;
    all->parts = parts;
    pthread_cond_broadcast(&all->changed);
    do_parts(all);
    while (all->ended < all->parts)
        pthread_cond_wait(&all->changed, &all->lock);
    all->job = NULL;
}

/* ---- nothing in flight ---- */

void hold_devices(struct vm *vm, bool hold)
{
    for (unsigned i = 0; i < vm->pc.virtio_count; i++)
        virtio_pci_hold(vm->pc.virtio[i].transport, hold);
}

static const char *busy_device(struct vm *vm)
{
    for (unsigned i = 0; i < vm->pc.virtio_count; i++)
        if (!virtio_pci_quiet(vm->pc.virtio[i].transport))
            return vm->pc.virtio[i].device->label ? vm->pc.virtio[i].device->label
                                                  : vm->pc.virtio[i].kind;
    return NULL;
}

void drain_step(void)
{
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = DRAIN_STEP_NS}, NULL);
}

int drain_devices(struct vm *vm, struct qz_error *err)
{
    const int64_t limit = qz_now_ns() + DRAIN_LIMIT_NS;
    const char *busy;

    while ((busy = busy_device(vm))) {
        if (qz_now_ns() > limit)
            return qz_fail(err, -ETIMEDOUT,
                           "%s still has requests in flight after %lld s: is its medium "
                           "alive?",
                           busy, (long long)(DRAIN_LIMIT_NS / 1000000000));
        drain_step();
    }
    return 0;
}

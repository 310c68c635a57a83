/*
 * parallel.c - a handful of jobs on a handful of threads, for the milliseconds before the guest starts (boot_internal.h).
 *
 * Threads take the next job from one counter. They are made for this call and joined before it returns, so nothing of
 * them is left when the guest runs.
 */
#include <sched.h>

#include "boot/boot_internal.h"

/* What making and ending a thread takes, for a reset after confinement. */
QZ_SYSCALLS(main, "clone set_robust_list rseq rt_sigprocmask mmap mprotect munmap madvise futex exit sched_getaffinity");

struct parallel {
    unsigned jobs, next, failed; /* next and failed: atomic */
    int (*job)(void *context, unsigned worker, unsigned i, struct qz_error *err);
    void *context;
    pthread_mutex_t lock;
    int result; /* under lock */
    struct qz_error *err;
};

struct worker {
    struct parallel *p;
    unsigned index;
    pthread_t thread;
};

static void *work(void *context)
{
    struct worker *w = context;
    struct parallel *p = w->p;
    struct qz_error err = {0};

    while (!__atomic_load_n(&p->failed, __ATOMIC_RELAXED)) {
        unsigned i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        int r;

        if (i >= p->jobs)
            break;
        r = p->job(p->context, w->index, i, &err);
        if (r < 0) {
            QZ_LOCKED(&p->lock);
            if (p->result == 0) {
                p->result = r;
                if (p->err)
                    *p->err = err;
            }
            __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

static unsigned usable_cpus(void)
{
    cpu_set_t set;

    /* More than 1024 CPUs do not fit in cpu_set_t; such a host has enough of them. */
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return errno == EINVAL ? BOOT_WORKERS_MAX : 1;
    return QZ_MAX(CPU_COUNT(&set), 1);
}

int boot_parallel(unsigned jobs, int (*job)(void *context, unsigned worker, unsigned i, struct qz_error *err),
                  void *context, struct qz_error *err)
{
    struct parallel p = {.jobs = jobs, .job = job, .context = context, .err = err};
    unsigned wanted = QZ_MIN(QZ_MIN(jobs, usable_cpus()), (unsigned)BOOT_WORKERS_MAX), workers = 1;
    struct worker worker[BOOT_WORKERS_MAX];

    pthread_mutex_init(&p.lock, NULL);
    for (; workers < wanted; workers++) {
        worker[workers] = (struct worker){&p, workers, 0};
        if (pthread_create(&worker[workers].thread, NULL, work, &worker[workers]))
            break; /* the others do its share */
    }
    worker[0] = (struct worker){&p, 0, 0};
    work(&worker[0]);
    while (--workers)
        pthread_join(worker[workers].thread, NULL);
    pthread_mutex_destroy(&p.lock);
    return p.result;
}

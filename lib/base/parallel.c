/*
 * parallel.c - jobs on a few threads (queztl/parallel.h).
 *
 * Threads take the next job from one counter. They are made for this call and joined before it
 * returns, so nothing of them is left when a guest runs.
 */
#include <sched.h>

#include <queztl/parallel.h>

/* What making and ending a thread takes, for a monitor's reset after confinement. */
QZ_SYSCALLS(main, "clone set_robust_list rseq rt_sigprocmask mmap mprotect munmap madvise futex "
                  "exit sched_getaffinity");

struct parallel {
    uint64_t jobs, next; /* next: atomic */
    bool failed;         /* atomic */
    int (*job)(void *context, unsigned worker, uint64_t i, struct qz_error *err);
    void *context;
    void (*progress)(void *context, double share);
    void *progress_context;
    pthread_mutex_t lock;
    int result; /* under lock */
    struct qz_error *err;
};

struct worker {
    struct parallel *p;
    unsigned index;
    pthread_t thread;
};

static void take_failure(struct parallel *p, int code, const struct qz_error *err)
{
    QZ_LOCKED(&p->lock);
    if (p->result == 0) {
        p->result = code;
        if (p->err)
            *p->err = *err;
    }
    __atomic_store_n(&p->failed, true, __ATOMIC_RELAXED);
}

static void *work(void *context)
{
    struct worker *w = context;
    struct parallel *p = w->p;
    struct qz_error err = {0};
    uint64_t i;

    while (!__atomic_load_n(&p->failed, __ATOMIC_RELAXED) &&
           (i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < p->jobs) {
        const int r = p->job(p->context, w->index, i, &err);

        if (r < 0)
            take_failure(p, r, &err);
        else if (w->index == 0 && p->progress)
            p->progress(p->progress_context, (double)i / (double)p->jobs);
    }
    return NULL;
}

unsigned qz_parallel_workers(void)
{
    cpu_set_t set;

    /* More than 1024 CPUs do not fit in cpu_set_t; such a host has enough of them. */
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return errno == EINVAL ? QZ_WORKERS_MAX : 1;
    return (unsigned)QZ_MIN(QZ_MAX(CPU_COUNT(&set), 1), (int)QZ_WORKERS_MAX);
}

int qz_parallel(uint64_t jobs,
                int (*job)(void *context, unsigned worker, uint64_t i, struct qz_error *err),
                void *context, void (*progress)(void *context, double share),
                void *progress_context, struct qz_error *err)
{
    struct parallel p = {.jobs = jobs,
                         .job = job,
                         .context = context,
                         .progress = progress,
                         .progress_context = progress_context,
                         .err = err};
    const unsigned wanted = (unsigned)QZ_MIN(jobs, (uint64_t)qz_parallel_workers());
    struct worker worker[QZ_WORKERS_MAX] = {{&p, 0, 0}};
    unsigned workers = 1;

    pthread_mutex_init(&p.lock, NULL);
    for (; workers < wanted; workers++) {
        worker[workers] = (struct worker){&p, workers, 0};
        if (pthread_create(&worker[workers].thread, NULL, work, &worker[workers]))
            break; /* the others do its share */
    }
    work(&worker[0]);
    while (--workers)
        pthread_join(worker[workers].thread, NULL);
    pthread_mutex_destroy(&p.lock);
    if (p.result == 0 && progress)
        progress(progress_context, 1);
    return p.result;
}

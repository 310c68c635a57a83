/* offload.c - helper threads and the work they take (offload.h). */
#include "offload.h"

#include <queztl/disk.h>
#include <signal.h>

#include "task.h"

enum { HELPERS_MAX = 16 };

struct job {
    void (*fn)(void *argument);
    void *argument;
    struct disk_queue *queue;
    struct task *task;
    struct queue_work work; /* back to the queue's thread */
    struct job *next;
    bool done; /* set and looked at there */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct job *first, *last;
    unsigned threads, idle; /* idle: less what waits in the list */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER};

static void on_done(struct queue_work *w)
{
    struct job *j = QZ_CONTAINER_OF(w, struct job, work);

    j->done = true;
    task_resume(j->task);
}

static struct job *take(void)
{
    struct job *j;
    QZ_LOCKED(&pool.lock);

    pool.idle++;
    while (!pool.first)
        pthread_cond_wait(&pool.wanted, &pool.lock);
    j = pool.first;
    pool.first = j->next;
    return j;
}

static void *helper(void *unused)
{
    for (;;) {
        struct job *j = take();

        j->fn(j->argument);
        j->work.run = on_done;
        queue_post(j->queue, &j->work); /* the job is gone from here on */
    }
    return NULL;
}

/* False: every helper has something to do. */
static bool hand_over(struct job *j)
{
    QZ_LOCKED(&pool.lock);

    if (!pool.idle)
        return false;
    pool.idle--;
    if (pool.first)
        pool.last->next = j;
    else
        pool.first = j;
    pool.last = j;
    pthread_cond_signal(&pool.wanted);
    return true;
}

void disk_offload(struct disk_queue *q, void (*fn)(void *argument), void *argument)
{
    struct job j = {.fn = fn, .argument = argument, .queue = q, .task = task_current()};

    if (!__atomic_load_n(&pool.threads, __ATOMIC_RELAXED) || !hand_over(&j)) {
        fn(argument);
        return;
    }
    while (!j.done)
        task_suspend();
}

static int start(void)
{
    sigset_t all, before;
    pthread_t thread;
    int r;

    sigfillset(&all); /* signals are for the threads that were there before */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, NULL, helper, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        pthread_detach(thread);
    return -r;
}

int qz_disk_helpers(unsigned threads, struct qz_error *err)
{
    static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    QZ_LOCKED(&starting);

    if (threads > HELPERS_MAX)
        return qz_fail(err, -ERANGE, "%u helper threads, at most %d are possible", threads,
                       HELPERS_MAX);
    while (pool.threads < threads) {
        const int r = start();

        if (r < 0)
            return qz_fail(err, r, "helper threads: %s", strerror(-r));
        __atomic_add_fetch(&pool.threads, 1, __ATOMIC_RELAXED);
    }
    return 0;
}

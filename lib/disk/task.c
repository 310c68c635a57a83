/*
 * task.c - tasks and their locks (task.h).
 *
 * A task is one mapping: a guard page, the stack, and this structure above it. When its function
 * ends it goes back to the queue's pool with its stack as it stands, and runs the next function
 * from there.
 */
#include <assert.h>
#include <sched.h>

#include "context.h"
#include "queue_internal.h"

QZ_SYSCALLS(io, "mmap munmap mprotect sched_yield");
QZ_SYSCALLS(main, "mmap munmap mprotect sched_yield");

enum { STACK_SIZE = 128 << 10, POOL_MAX = 128 };

/*
 * What others tell a task, in one word, so that they tell it at once: as soon as a task sees that
 * it was woken or granted a lock it may go on, end and be gone, and nobody may look at it again.
 */
enum wake {
    SUSPENDED = 1, /* it waits: whoever takes this bit away puts it on its queue's ready list */
    WOKEN = 2,     /* a resume that the next (or this) task_suspend() takes */
    GRANTED = 4,   /* it has the lock that it waited for */
};

struct task {
    struct context context, *caller;
    struct disk_queue *queue;
    void (*fn)(struct disk_queue *q, void *argument);
    void *argument;
    struct task *next; /* pool, ready list, or the lock that it waits for */
    bool exclusive;    /* waits for a task_rwlock to write */
    bool ended;
    int wake; /* bits of enum wake, atomic */
    struct queue_work work;
    void *mapping;
};

static _Thread_local struct task *current;
static _Thread_local struct context thread_context;

struct task *task_current(void)
{
    return current;
}

/* ---- life */

static void task_main(void *argument)
{
    struct task *t = argument;

    context_entered(&t->context);
    for (;;) {
        t->fn(t->queue, t->argument);
        t->ended = true;
        context_switch(&t->context, t->caller);
    }
}

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static struct task *task_new(struct disk_queue *q)
{
    size_t page = page_size(), size = page + STACK_SIZE;
    uint8_t *m = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t own = QZ_ALIGN_UP(sizeof(struct task), (size_t)64);
    struct task *t;

    if (m == MAP_FAILED)
        return NULL;
    if (mprotect(m + page, STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
        munmap(m, size);
        return NULL;
    }
    t = (struct task *)(m + size - own);
    t->mapping = m;
    t->queue = q;
    context_make(&t->context, m + page, STACK_SIZE - own, task_main, t);
    return t;
}

static void task_free(struct task *t)
{
    context_free(&t->context);
    munmap(t->mapping, page_size() + STACK_SIZE);
}

void task_pool_free(struct disk_queue *q)
{
    while (q->pool) {
        struct task *t = q->pool;

        q->pool = t->next;
        task_free(t);
    }
    q->pooled = 0;
}

static struct task *take(struct disk_queue *q)
{
    struct task *t = q->pool;

    if (!t)
        return task_new(q);
    q->pool = t->next;
    q->pooled--;
    return t;
}

static void give(struct task *t)
{
    struct disk_queue *q = t->queue;

    q->living--;
    if (q->pooled >= POOL_MAX) {
        task_free(t);
        return;
    }
    t->next = q->pool;
    q->pool = t;
    q->pooled++;
}

/* ---- running */

/* Goes on with t until it waits or ends. */
static void enter(struct task *t)
{
    struct task *outer = current;

    t->caller = outer ? &outer->context : &thread_context;
    current = t;
    context_switch(t->caller, &t->context);
    current = outer;
    if (t->ended)
        give(t);
}

static void run_ready(struct disk_queue *q)
{
    while (q->ready) {
        struct task *t = q->ready;

        q->ready = t->next;
        __atomic_and_fetch(&t->wake, ~WOKEN, __ATOMIC_ACQUIRE);
        enter(t);
    }
}

int task_start(struct disk_queue *q, void (*fn)(struct disk_queue *q, void *argument),
               void *argument)
{
    struct task *t = take(q);

    if (!t)
        return -ENOMEM;
    q->living++;
    t->fn = fn;
    t->argument = argument;
    t->ended = false;
    t->wake = 0;
    enter(t);
    if (!current)
        run_ready(q);
    return 0;
}

struct run {
    int (*fn)(struct disk_queue *q, void *argument);
    void *argument;
    int result;
    bool ended;
};

static void run_main(struct disk_queue *q, void *argument)
{
    struct run *r = argument;

    r->result = r->fn(q, r->argument);
    r->ended = true;
}

int task_run(struct disk_queue *q, int (*fn)(struct disk_queue *q, void *argument), void *argument)
{
    struct run run = {fn, argument, 0, false};
    int r;

    assert(!current);
    queue_kick(q); /* the queue is this thread's from here on */
    r = task_start(q, run_main, &run);
    while (r >= 0 && !run.ended)
        r = queue_wait(q);
    return r < 0 ? r : run.result;
}

void task_suspend(void)
{
    struct task *t = current;
    int was;

    assert(t);
    was = __atomic_load_n(&t->wake, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&t->wake, &was,
                                        was & WOKEN ? was & ~WOKEN : was | SUSPENDED, true,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        ;
    if (!(was & WOKEN))
        context_switch(&t->context, t->caller);
}

static void make_ready(struct task *t)
{
    struct disk_queue *q = t->queue;

    t->next = NULL;
    if (q->ready)
        q->ready_last->next = t;
    else
        q->ready = t;
    q->ready_last = t;
    if (!current)
        run_ready(q);
}

static void on_posted(struct queue_work *w)
{
    make_ready(QZ_CONTAINER_OF(w, struct task, work));
}

/* bits are set with WOKEN. t may be gone behind the exchange, unless it was suspended: then it goes
 * on only by what is done here. */
static void wake(struct task *t, int bits)
{
    int was = __atomic_load_n(&t->wake, __ATOMIC_RELAXED);

    /* Pairs with task_suspend: what the resumer wrote before is seen by the task after. */
    while (!__atomic_compare_exchange_n(&t->wake, &was, (was & ~SUSPENDED) | WOKEN | bits, true,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        ;
    if (!(was & SUSPENDED))
        return;
    if (queue_is_current(t->queue)) {
        make_ready(t);
    } else {
        t->work.run = on_posted;
        queue_post(t->queue, &t->work);
    }
}

void task_resume(struct task *t)
{
    wake(t, 0);
}

/* ---- locks */

/* Held for a few instructions, never across a switch. */
static void spin_lock(int *guard)
{
    for (unsigned n = 0; __atomic_exchange_n(guard, 1, __ATOMIC_ACQUIRE); n++)
        if (n > 100)
            sched_yield();
}

static void spin_unlock(int *guard)
{
    __atomic_store_n(guard, 0, __ATOMIC_RELEASE);
}

static void append(struct task **first, struct task **last, struct task *t)
{
    t->next = NULL;
    if (*first)
        (*last)->next = t;
    else
        *first = t;
    *last = t;
}

/* The lock's holder grants, then resumes. Whatever else resumed this task meanwhile is no grant. */
static void await_grant(struct task *t)
{
    while (!(__atomic_load_n(&t->wake, __ATOMIC_ACQUIRE) & GRANTED))
        task_suspend();
    /* A grant that came before the wait has left its wake-up. */
    __atomic_and_fetch(&t->wake, ~(GRANTED | WOKEN), __ATOMIC_ACQUIRE);
}

static void grant(struct task *t)
{
    wake(t, GRANTED);
}

void task_mutex_lock(struct task_mutex *m)
{
    struct task *t = current;

    assert(t);
    spin_lock(&m->guard);
    assert(m->owner != t);
    if (!m->owner) {
        m->owner = t;
        spin_unlock(&m->guard);
        return;
    }
    append(&m->first, &m->last, t);
    spin_unlock(&m->guard);
    await_grant(t);
}

void task_mutex_unlock(struct task_mutex *m)
{
    struct task *next;

    assert(m->owner == current);
    spin_lock(&m->guard);
    next = m->first;
    if (next)
        m->first = next->next;
    m->owner = next;
    spin_unlock(&m->guard);
    if (next)
        grant(next);
}

static void rwlock_take(struct task_rwlock *l, bool exclusive)
{
    struct task *t = current;

    assert(t);
    spin_lock(&l->guard);
    if (!l->first && !l->exclusive && !(exclusive && l->shared)) {
        l->exclusive = exclusive;
        l->shared += !exclusive;
        spin_unlock(&l->guard);
        return;
    }
    t->exclusive = exclusive;
    append(&l->first, &l->last, t);
    spin_unlock(&l->guard);
    await_grant(t);
}

void task_rwlock_shared(struct task_rwlock *l)
{
    rwlock_take(l, false);
}

void task_rwlock_exclusive(struct task_rwlock *l)
{
    rwlock_take(l, true);
}

void task_rwlock_release(struct task_rwlock *l)
{
    struct task *wake, *t;

    spin_lock(&l->guard);
    assert(l->exclusive || l->shared);
    if (l->exclusive)
        l->exclusive = false;
    else
        l->shared--;
    wake = l->first;
    if (!wake || l->shared) {
        /* Readers still in: a first waiter is a writer. */
        spin_unlock(&l->guard);
        return;
    }
    /* The first one, and the readers behind it if it is a reader. */
    t = wake;
    l->exclusive = wake->exclusive;
    l->shared = !wake->exclusive;
    while (!wake->exclusive && t->next && !t->next->exclusive) {
        t = t->next;
        l->shared++;
    }
    l->first = t->next;
    t->next = NULL;
    spin_unlock(&l->guard);
    while (wake) {
        t = wake->next; /* once granted, it may wait elsewhere */
        grant(wake);
        wake = t;
    }
}

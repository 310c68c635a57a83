/*
 * clock.c - the machine's time and its timers (clock.h).
 *
 * Theory of operation. Machine time is CLOCK_MONOTONIC minus an offset that grows by the length of
 * every pause. Armed timers are a binary heap; the firing thread sleeps on a condition until the
 * first deadline. A timer is taken off the heap before its callback runs without the lock, so a
 * callback may arm anything, itself included. Reading the time takes no lock: every vCPU does it in
 * every timer register; the offset stands under a sequence count.
 */
#include "machine/clock.h"

#include <time.h>
#include <x86intrin.h>

QZ_SYSCALLS(clock, "futex clock_gettime");

enum { TIMERS_MAX = 1024 };

struct vm_clock {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_cond_t fired;
    bool stopped, firing; /* firing: the thread is in a timer's callback */
    unsigned sequence;    /* odd while the three below change; they are atomic, and written with the
                             lock held */
    bool running;
    int64_t offset;   /* machine time = host monotonic - offset, while running */
    int64_t stood_at; /* machine time while paused; virtual: now */
    bool is_virtual;  /* since before anybody looked */
    struct vm_timer *heap[TIMERS_MAX];
    unsigned count;
};

int vm_clock_new(struct vm_clock **out, struct qz_error *err)
{
    struct vm_clock *c = calloc(1, sizeof(*c));
    pthread_condattr_t attr;

    if (!c)
        return qz_fail(err, -ENOMEM, "clock: no memory");
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_cond_init(&c->fired, NULL);
    *out = c;
    return 0;
}

void vm_clock_free(struct vm_clock *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->fired);
    free(c);
}

int64_t vm_clock_now(struct vm_clock *c)
{
    if (c->is_virtual)
        return __atomic_load_n(&c->stood_at, __ATOMIC_RELAXED);
    for (;;) {
        unsigned before = __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE);
        /* Acquire pairs with the releases in end_change(): who sees a new value also sees the
         * sequence that announced it. */
        bool running = __atomic_load_n(&c->running, __ATOMIC_ACQUIRE);
        int64_t offset = __atomic_load_n(&c->offset, __ATOMIC_ACQUIRE);
        int64_t stood_at = __atomic_load_n(&c->stood_at, __ATOMIC_ACQUIRE);
        int64_t now = running ? qz_now_ns() - offset : stood_at;

        if (!(before & 1) && __atomic_load_n(&c->sequence, __ATOMIC_RELAXED) == before)
            return now;
    }
}

/* Lock held. From here on readers wait: what time it is can be decided now, and none has read a
 * later one. */
static void begin_change(struct vm_clock *c)
{
    __atomic_store_n(&c->sequence, c->sequence + 1, __ATOMIC_SEQ_CST);
}

static void end_change(struct vm_clock *c, bool running, int64_t offset, int64_t stood_at)
{
    __atomic_store_n(&c->running, running, __ATOMIC_RELEASE);
    __atomic_store_n(&c->offset, offset, __ATOMIC_RELEASE);
    __atomic_store_n(&c->stood_at, stood_at, __ATOMIC_RELEASE);
    __atomic_store_n(&c->sequence, c->sequence + 1, __ATOMIC_RELEASE);
}

void vm_clock_wall(struct vm_clock *c, int64_t *sec, int32_t *nsec)
{
    struct timespec ts;

    if (c->is_virtual) {
        const int64_t now = vm_clock_now(c);

        *sec = DETERMINISTIC_EPOCH + now / 1000000000;
        *nsec = (int32_t)(now % 1000000000);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    *sec = ts.tv_sec;
    *nsec = (int32_t)ts.tv_nsec;
}

uint64_t vm_clock_tsc(struct vm_clock *c)
{
    return c->is_virtual ? (uint64_t)vm_clock_now(c) : __rdtsc();
}

/* ---- heap; lock held ------------------------------------------------------------------------ */

static void place(struct vm_clock *c, unsigned i, struct vm_timer *t)
{
    c->heap[i] = t;
    t->heap_index = i;
}

static void sift(struct vm_clock *c, unsigned i)
{
    struct vm_timer *t = c->heap[i];

    while (i > 0 && c->heap[(i - 1) / 2]->deadline > t->deadline) {
        place(c, i, c->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        unsigned child = 2 * i + 1;

        if (child + 1 < c->count && c->heap[child + 1]->deadline < c->heap[child]->deadline)
            child++;
        if (child >= c->count || c->heap[child]->deadline >= t->deadline)
            break;
        place(c, i, c->heap[child]);
        i = child;
    }
    place(c, i, t);
}

static void take_off(struct vm_clock *c, struct vm_timer *t)
{
    unsigned i = t->heap_index;

    t->armed = false;
    if (i == --c->count)
        return;
    place(c, i, c->heap[c->count]);
    sift(c, i);
}

/* ---- timers --------------------------------------------------------------------------------- */

void vm_timer_init(struct vm_timer *t, struct vm_clock *clock, void (*fire)(struct vm_timer *t))
{
    *t = (struct vm_timer){.clock = clock, .fire = fire};
}

void vm_timer_arm(struct vm_timer *t, int64_t deadline)
{
    struct vm_clock *c = t->clock;
    QZ_LOCKED(&c->lock);

    t->deadline = deadline;
    if (!t->armed) {
        if (c->count == TIMERS_MAX) { /* devices are counted when the machine is built: this cannot
                                         be reached */
            qz_log(QZ_LOG_ERROR, "clock: more than %d timers", TIMERS_MAX);
            return;
        }
        t->armed = true;
        place(c, c->count++, t);
    }
    sift(c, t->heap_index);
    if (c->heap[0] == t)
        pthread_cond_signal(&c->changed);
}

void vm_timer_cancel(struct vm_timer *t)
{
    if (!t->clock)
        return;
    QZ_LOCKED(&t->clock->lock);

    if (t->armed)
        take_off(t->clock, t);
}

/* ---- the firing thread ---------------------------------------------------------------------- */

/* Sleeps until something changes or machine time reaches deadline. Lock held. */
static void sleep_until(struct vm_clock *c, int64_t deadline)
{
    struct timespec ts;
    int64_t when;

    if (__builtin_add_overflow(deadline, c->offset,
                               &when)) { /* beyond all time: as good as no timer */
        pthread_cond_wait(&c->changed, &c->lock);
        return;
    }
    ts = (struct timespec){when / 1000000000, when % 1000000000};
    pthread_cond_timedwait(&c->changed, &c->lock, &ts);
}

void vm_clock_thread(struct vm_clock *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->stopped) {
        struct vm_timer *t = c->count ? c->heap[0] : NULL;

        if (c->is_virtual || !c->running || !t) {
            pthread_cond_wait(&c->changed, &c->lock);
        } else if (t->deadline > vm_clock_now(c)) {
            sleep_until(c, t->deadline);
        } else {
            take_off(c, t);
            c->firing = true;
            pthread_mutex_unlock(&c->lock);
            t->fire(t);
            pthread_mutex_lock(&c->lock);
            c->firing = false;
            pthread_cond_signal(&c->fired);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

void vm_clock_stop(struct vm_clock *c)
{
    QZ_LOCKED(&c->lock);

    c->stopped = true;
    pthread_cond_signal(&c->changed);
}

void vm_clock_pause(struct vm_clock *c)
{
    QZ_LOCKED(&c->lock);

    if (!c->running || c->is_virtual)
        return;
    begin_change(c);
    end_change(c, false, c->offset, qz_now_ns() - c->offset);
    while (c->firing)
        pthread_cond_wait(&c->fired, &c->lock);
}

void vm_clock_resume(struct vm_clock *c)
{
    QZ_LOCKED(&c->lock);

    if (!c->running && !c->is_virtual) {
        begin_change(c);
        end_change(c, true, qz_now_ns() - c->stood_at, c->stood_at);
    }
    pthread_cond_signal(&c->changed);
}

/* ---- virtual time ---------------------------------------------------------------------------- */

void vm_clock_make_virtual(struct vm_clock *c)
{
    c->is_virtual = true;
}

void vm_clock_set(struct vm_clock *c, int64_t now)
{
    if (c->is_virtual) {
        __atomic_store_n(&c->stood_at, now, __ATOMIC_RELAXED);
        return;
    }
    QZ_LOCKED(&c->lock);

    begin_change(c);
    end_change(c, false, c->offset, now);
}

int64_t vm_clock_next(struct vm_clock *c)
{
    QZ_LOCKED(&c->lock);

    return c->count ? c->heap[0]->deadline : INT64_MAX;
}

void vm_clock_fire(struct vm_clock *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->count && c->heap[0]->deadline <= c->stood_at) {
        struct vm_timer *t = c->heap[0];

        take_off(c, t);
        pthread_mutex_unlock(&c->lock);
        t->fire(t);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

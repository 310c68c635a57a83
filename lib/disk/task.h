/*
 * task.h - code that may wait: a stack of its own inside a queue's thread (a coroutine).
 *
 * A task runs until it waits; then whoever started or resumed it goes on. Tasks of one queue never
 * run at the same time, so what only one queue touches needs no lock; what several queues touch
 * is guarded by a task_mutex (which suspends the task) or, where nothing waits inside, by a
 * pthread mutex. Stacks are pooled by queue and have a guard page.
 */
#ifndef DISK_TASK_H
#define DISK_TASK_H

#include <stdbool.h>

struct disk_queue;
struct task;

/* Runs fn(argument) in a new task, at once, until it first waits. -ENOMEM: it did not begin. */
int task_start(struct disk_queue *q, void (*fn)(struct disk_queue *q, void *argument),
               void *argument);

/* From outside of tasks, on the queue's own thread: runs fn in a task and serves the queue until it
 * ended; what fn returned. For opening, creating, checking: no loop is there yet. */
int task_run(struct disk_queue *q, int (*fn)(struct disk_queue *q, void *argument), void *argument);

struct task *task_current(void); /* NULL outside of tasks */

/* Suspends the task that calls, until task_resume(). A resume that came first is not lost. */
void task_suspend(void);
/* From any thread: the task goes on on its own queue's thread; from that thread, at once or when
 * the running task next waits. */
void task_resume(struct task *t);

/* Fair; held across waits. Any queues' tasks. Zero-filled is unlocked. */
struct task_mutex {
    struct task *owner;
    struct task *first, *last; /* waiting */
    int guard;
};

void task_mutex_lock(struct task_mutex *m);
void task_mutex_unlock(struct task_mutex *m);

/* Any number of shared holders or one exclusive; first come, first served, so that writers are not
 * starved: who holds it shared must not take it again. Zero-filled is free. */
struct task_rwlock {
    unsigned shared; /* holders */
    bool exclusive;
    struct task *first, *last; /* waiting */
    int guard;
};

void task_rwlock_shared(struct task_rwlock *l);
void task_rwlock_exclusive(struct task_rwlock *l);
void task_rwlock_release(struct task_rwlock *l);

#endif

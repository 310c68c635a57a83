/*
 * vm_standstill.h - a machine whose devices do nothing, for those who save or replace its state.
 *
 * In this order: vCPUs are parked and clocks stand (vm_stop_running()); devices are held, and what
 * they have in flight ends; the loops that serve them stand. Main thread.
 */
#ifndef VMM_VM_STANDSTILL_H
#define VMM_VM_STANDSTILL_H

#include "vm/vm_internal.h"

#define DRAIN_LIMIT_NS INT64_C(30000000000)

/* Devices take nothing new from their rings, or do again. */
void hold_devices(struct vm *vm, bool hold);
/* Waits for what held devices have in flight; completions come on their own threads. -ETIMEDOUT. */
int drain_devices(struct vm *vm, struct qz_error *err);
/* A moment of waiting for another thread. */
void drain_step(void);

struct standstill {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned standing;
    bool over;
    /* What the threads that stand help with; `job` is NULL when there is nothing. */
    void (*job)(void *context, unsigned part);
    void *context;
    unsigned next, parts, ended;
    struct standing_loop {
        struct standstill *all;
        struct qz_work work;
    } loop[IO_LOOPS_MAX];
};
void stop_loops(struct vm *vm, struct standstill *all);
void start_loops(struct standstill *all);
/* The threads that stand and this one do a job together: each part once, and all are done when it
 * returns. Its system calls are to be declared for io threads, too. */
void share_job(struct standstill *all, void (*job)(void *context, unsigned part), void *context,
               unsigned parts);

#endif

/*
 * vcpu_internal.h - the parts of the vCPUs: vcpu.c (a thread and its requests), vcpu_exit.c (what
 * the guest does outside of itself), vcpu_turns.c (one vCPU after the other), vcpu_group.c (all of
 * them, for the life cycle).
 */
#ifndef VMM_VCPU_INTERNAL_H
#define VMM_VCPU_INTERNAL_H

#include "vm/turns.h"
#include "vm/vcpu.h"

enum {
    REQ_STOP = 1 << 0,
    REQ_PARK = 1 << 1, /* level: stays set while parked */
    REQ_INIT = 1 << 2,
    REQ_SIPI = 1 << 3,
    REQ_NMI = 1 << 4,
    REQ_IRQ = 1 << 5, /* an interrupt controller of ours has something */
    REQ_STATE = 1 << 6,
    REQ_CALL = 1 << 7,
    /* What the life cycle asks for, and what the guest does. */
    REQ_OUTSIDE = REQ_STOP | REQ_PARK | REQ_STATE | REQ_CALL,
    REQ_INSIDE = REQ_INIT | REQ_SIPI | REQ_NMI | REQ_IRQ,
};

struct vcpu {
    struct vcpu_group *group;
    unsigned id;
    pthread_t thread;
    struct accel_vcpu *accel;
    pthread_cond_t wake;
    unsigned requests; /* atomic */
    uint8_t sipi_vector;
    bool stays;               /* parked while others run; deterministic machines only */
    enum mp_state wait;       /* own local APIC: MP_HALTED, MP_WAIT_SIPI; MP_RUNNABLE otherwise */
    struct vcpu_state *state; /* for REQ_STATE */
    int (*call)(struct vcpu *v, void *arg); /* for REQ_CALL */
    void *call_arg;
    int call_result;
    uint64_t exits[EXIT_KINDS]; /* written by the thread only */
    int setup_result;
};

struct vcpu_group {
    struct machine *machine;
    const struct accel_ops *ops;
    struct vcpu_events events;
    enum confine_mode confine;
    pthread_mutex_t lock; /* guards parked, started and the sleeps */
    pthread_cond_t changed;
    unsigned started, parked;
    unsigned created;
    bool ran; /* first_exit was reported; atomic */
    struct qz_error setup_error;
    struct state_log *log; /* NULL: none */
    struct turns *turns;   /* deterministic: one vCPU runs at a time; NULL: all do */
    struct vcpu vcpu[];
};

/* ---- vcpu.c */
void *vcpu_thread(void *vcpu);
void vcpu_request(struct vcpu *v, unsigned bits); /* any thread */
unsigned vcpu_requests(struct vcpu *v);
void vcpu_request_done(struct vcpu *v, unsigned bits);
/* Asks, and waits until it is done. */
void vcpu_request_and_wait(struct vcpu *v, unsigned bit);
/* Those of `mask`, on the vCPU's thread; false: the thread is to end. */
bool vcpu_serve_requests(struct vcpu *v, unsigned mask);
/* On the vCPU's thread. */
int vcpu_set_state(struct vcpu *v, const struct vcpu_state *s);
/* Into the guest and back, once. */
void vcpu_run_once(struct vcpu *v);
/* Gives the guest the interrupt that a controller of ours holds, or asks to be told when it can
 * take one. */
void vcpu_take_interrupt(struct vcpu *v);
/* Between two runs a vCPU of a deterministic machine only knows when its last one ended: now. */
void vcpu_tell_time(struct vcpu *v);
/* Our local APICs fire at moments that the guest names by its TSC: what it is now. */
void vcpu_tell_tsc(struct vcpu *v);     /* of all vCPUs */
void vcpu_tell_own_tsc(struct vcpu *v); /* of this one */

/* ---- vcpu_exit.c; on the vCPU's thread */
void vcpu_count_exit(struct vcpu *v, const struct vcpu_exit *e);
/* False: this vCPU cannot go on and waits for the life cycle. */
bool vcpu_handle_exit(struct vcpu *v, struct vcpu_exit *e);

/* ---- vcpu_turns.c */
void vcpu_run_in_turn(struct vcpu *v); /* the thread's work in a deterministic machine */
void vcpu_turn_without(struct vcpu_group *g, const bool *stay);

#endif

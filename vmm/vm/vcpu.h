/*
 * vcpu.h - one virtual CPU's thread: run, answer the exit, take interrupts, park when asked.
 *
 * All functions are for the life cycle (main thread) unless said otherwise.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "machine/machine.h"
#include "vm/confine.h"
#include "vm/state_log.h"

enum { EXIT_KINDS = EXIT_FAIL + 1 };

struct vcpu_group;

/* What went wrong or was asked for on a vCPU thread; called there, must not block. */
struct vcpu_events {
    /* where: " at ..." its registers, or empty where they are lost */
    void (*triple_fault)(void *context, unsigned cpu, const char *where);
    void (*failed)(void *context, unsigned cpu, const char *text);
    /* EXIT_DEBUG; true: run on at once. NULL: nobody debugs. */
    bool (*debug)(void *context, unsigned cpu, const struct vcpu_exit *exit);
    void (*first_exit)(void *context); /* once: the guest ran and came back */
    void *context;
};

/* log: deterministic machines only, or NULL; the caller's. Threads are created parked, with their
 * vCPUs made and their seccomp filters on. */
int vcpu_group_new(struct vcpu_group **g, struct machine *m, const struct vcpu_events *events,
                   enum confine_mode confine, struct state_log *log, struct qz_error *err);
/* Ends the threads; interrupts may still come for the vCPUs, and have no effect. */
void vcpu_group_stop(struct vcpu_group *g);
/* Stopped, and nobody is left who could send an interrupt. */
void vcpu_group_free(struct vcpu_group *g);

/* Puts every vCPU into its reset state, CPU 0 into *bsp. Parked vCPUs only. */
int vcpu_group_reset(struct vcpu_group *g, const struct vcpu_state *bsp, struct qz_error *err);

/* Asks every vCPU to park and does not wait for it: one that calls this executes no further
 * instruction of the guest. Any thread. */
void vcpu_group_ask_park(struct vcpu_group *g);
/* Returns once no vCPU executes guest code or holds a device lock. */
void vcpu_group_park(struct vcpu_group *g);
/* stay: of each vCPU, whether it is to go on being parked; NULL: none. */
void vcpu_group_resume(struct vcpu_group *g, const bool *stay);
/* Runs f on the vCPU's own thread, where the accelerator's get_ and set_ calls belong; its result.
 * Parked vCPUs only. */
int vcpu_group_call(struct vcpu_group *g, unsigned cpu, int (*f)(struct accel_vcpu *v, void *arg),
                    void *arg);
/* accel_ops.get_state, at a place where the last exit's instruction is complete, and
 * accel_ops.set_registers. Parked vCPUs only. */
int vcpu_group_get_state(struct vcpu_group *g, unsigned cpu, struct vcpu_state *s);
int vcpu_group_set_registers(struct vcpu_group *g, unsigned cpu, const struct vcpu_state *s);
/*
 * All of a vCPU for a snapshot, and back: with its local APIC, whoever emulates that, and with what
 * other vCPUs asked of it (INIT, start-up). Parked vCPUs only, their clocks stand;
 * vcpu_group_settle() comes before the first vcpu_group_save(): it ends what may still make a vCPU
 * ask another one. The loader's negative errno leaves the vCPU in no state to run.
 */
int vcpu_group_settle(struct vcpu_group *g);
int vcpu_group_save(struct vcpu_group *g, unsigned cpu, struct vcpu_state *s);
int vcpu_group_load(struct vcpu_group *g, unsigned cpu, const struct vcpu_state *s);
/* It waits for an interrupt or its start-up. */
bool vcpu_group_is_halted(struct vcpu_group *g, unsigned cpu);
/* The guest's TSC was set: our own local APICs go by it. Parked vCPUs only. */
void vcpu_group_clock_started(struct vcpu_group *g);

/* For irq_fabric_new(); context is the group pointer's address (it does not exist yet then). Any
 * thread. */
extern const struct irq_cpu_ops vcpu_irq_ops;

/* accel_config.serve; serve_context is the group pointer's address. */
void vcpu_serve(void *context, unsigned cpu, struct vcpu_exit *exit);

/* Exits of all vCPUs by kind, for metrics. */
void vcpu_group_exits(const struct vcpu_group *g, uint64_t exits[EXIT_KINDS]);

#endif

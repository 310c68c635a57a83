/*
 * target.h - what the server needs of the machine that it debugs.
 *
 * All calls come from the main loop's thread. The machine is stopped as a whole (all vCPUs parked,
 * its clocks standing still) except between resume() and the next gdb_stopped().
 */
#ifndef VMM_GDB_TARGET_H
#define VMM_GDB_TARGET_H

#include "cpu/accel.h"

/* What a vCPU does when the machine goes on. */
struct gdb_action {
    enum {
        GDB_STAY,
        GDB_CONTINUE,
        GDB_STEP,
        GDB_UNDECIDED, /* within server_run.c only */
    } kind;
    uint64_t range_start, range_end; /* GDB_STEP: on while rip is in [start, end); equal: once */
};

struct gdb_target_ops {
    /* Stopped only. */
    int (*get_state)(void *context, unsigned cpu, struct vcpu_state *s);
    /* What accel_ops.set_registers takes. */
    int (*set_registers)(void *context, unsigned cpu, const struct vcpu_state *s);
    /* RAM at [gpa, gpa + len), which lies in one page. -EFAULT: something else is there. */
    int (*physical)(void *context, uint64_t gpa, void *data, size_t len, bool write);
    /* -ENOSPC: more than the accelerator can watch at once. The array stays the caller's, and stays
     * as it is until the next call. */
    int (*set_points)(void *context, const struct accel_point *point, unsigned count);
    /* Of `cpus` actions, at least one of which is not GDB_STAY. */
    void (*resume)(void *context, const struct gdb_action *action);

    /* Running only: all vCPUs are parked on return. */
    void (*stop)(void *context);

    /* At any time. */
    bool (*is_halted)(void *context, unsigned cpu);
    int (*reset)(void *context, struct qz_error *err); /* stays stopped; done when it comes to it */
    void (*kill)(void *context);
    void (*describe)(void *context, char *text, size_t size); /* lines for `monitor info` */
};

struct gdb_target {
    const struct gdb_target_ops *ops;
    void *context;
    unsigned cpus;
    /* Execution breakpoints are INT3 in guest memory, put there by the server (accel_ops.patches).
     */
    bool patches;
};

#endif

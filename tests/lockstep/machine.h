/*
 * machine.h - a deterministic machine as a child process, and the states it passes through.
 */
#ifndef LOCKSTEP_MACHINE_H
#define LOCKSTEP_MACHINE_H

#include <queztl/base.h>

#include "vm/state_log.h"

struct lock_machine {
    const char *vmm, *accel;
    char *const *args; /* more options, NULL-terminated */
    pid_t pid;         /* 0: none runs */
    int fd;            /* of its records */
};

/* From its beginning, with a record at each moment that `when` names (state_log_config without a
 * path). Ends the program where that cannot be. */
void lock_start(struct lock_machine *m, const struct state_log_config *when);
/* The next record; false: the machine ended. */
bool lock_next(struct lock_machine *m, struct state_record *r);
/* Waits at most so long for lock_next() of either to have something. False: the time is over. */
bool lock_wait(const struct lock_machine *a, const struct lock_machine *b, int64_t until_ns);
void lock_stop(struct lock_machine *m);

#endif

/*
 * confine.h - what a monitor process may still do once a guest runs.
 *
 * Order: confine_process() on the main thread when every file is open and before any other thread
 * exists (no_new_privs, capabilities, Landlock, limits: all inherited by threads), then
 * confine_thread() by each thread for itself, before the first guest instruction. The filters come
 * from the QZ_SYSCALLS declarations beside the code, by seccomp_gen at build time.
 */
#ifndef VMM_CONFINE_H
#define VMM_CONFINE_H

#include <queztl/base.h>

enum confine_thread { CONFINE_MAIN, CONFINE_IO, CONFINE_VCPU, CONFINE_CLOCK, CONFINE_LOADING };

enum confine_mode {
    CONFINE_KILL, /* a forbidden call ends the process (SIGSYS) */
    CONFINE_TRAP, /* the same, after a line that names the call: to find a missing declaration */
};

struct confine_path {
    const char *path;
    bool remove_entries; /* a directory in which files of ours (sockets) are removed at the end */
};

/*
 * Paths are what this machine may still open (read only) by name, such as its kernel.
 * *landlock_abi: what the kernel offers, 0 when it has no Landlock (said in the log; seccomp and
 * capabilities hold all the same).
 */
int confine_process(const struct confine_path *paths, unsigned count, int *landlock_abi,
                    struct qz_error *err);
int confine_thread(enum confine_thread type, enum confine_mode mode, struct qz_error *err);

#endif

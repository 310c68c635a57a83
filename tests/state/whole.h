/*
 * whole.h - a whole machine in this process, as queztl-vmm builds it but not confined, that goes on
 * from states that may be anybody's.
 *
 * Its guest is the counting one (tests/guest/snapshot). What devices are attached to is here, too:
 * a disk that is only read, libslirp, a folder for vsock. One thread; QZ_GUEST names the guest's
 * kernel.
 */
#ifndef STATE_WHOLE_H
#define STATE_WHOLE_H

#include "snapshot/state_file.h"

struct whole;

/* Builds it, lets it run until it has begun, and takes its state. Failing ends the program. */
struct whole *whole_new(const char *accel, unsigned cpus);
void whole_free(struct whole *w);

/* The sections of the state that was taken. */
const struct state_file *whole_state(const struct whole *w);
/* The machine of the beginning with this state in its place; a negative errno: it was refused, or
 * cannot run. */
int whole_load(struct whole *w, const void *bytes, size_t len, struct qz_error *err);
/* Reads what its platform's devices have in their registers, as a guest does. It stands. */
void whole_read_registers(struct whole *w);
/* It runs for about so long, as its main loop lets it; false: it has ended by itself. */
bool whole_run(struct whole *w, int64_t ns);
/* Its state now, which it must take back itself; -errno: it has none just now. */
int whole_save(struct whole *w, struct qz_error *err);
/* Instructions end in exits from the guest: how many there were. */
uint64_t whole_exits(const struct whole *w);

#endif

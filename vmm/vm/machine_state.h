/*
 * machine_state.h - everything of a machine but memory and disks, as one piece of bytes: the
 * sections of a snapshot's state (snapshot/state_file.h).
 *
 * The machine stands: vCPUs parked and settled, clocks and device loops stopped, nothing in flight.
 */
#ifndef VMM_MACHINE_STATE_H
#define VMM_MACHINE_STATE_H

#include "vm/vm_internal.h"

/* *bytes: the caller's to free. */
int machine_state_save(struct vm *vm, void **bytes, size_t *len, struct qz_error *err);
/*
 * Into a machine of the same configuration whose memory is the snapshot's already. The bytes may be
 * anybody's: a negative errno tells what does not fit and where; then the machine must not run.
 */
int machine_state_load(struct vm *vm, const void *bytes, size_t len, struct qz_error *err);
/* Whether they are the state of such a machine, as far as that can be told without loading it. */
int machine_state_check(struct vm *vm, const void *bytes, size_t len, struct qz_error *err);

#endif

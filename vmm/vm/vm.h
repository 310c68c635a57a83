/*
 * vm.h - one virtual machine: built from a configuration, run to its end on the caller's thread.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <jansson.h>
#include <queztl/loop.h>

#include "vm/config.h"
#include "vm/confine.h"

struct vm;

enum vm_state { VM_PAUSED, VM_RUNNING, VM_RESETTING, VM_ENDED };

/* Builds the machine, loads the guest, confines the process and starts all threads, the guest still
 * paused. */
int vm_new(struct vm **vm, const struct vm_config *config, enum confine_mode confine,
           struct qz_error *err);
/* Lets the guest run until it ends; the program's exit code (command.h). */
int vm_run(struct vm *vm);
void vm_free(struct vm *vm);

/* The exit code that a failure of vm_new() stands for: 3 when kernel or image is missing, else 1.
 */
int vm_exit_code(const struct qz_error *err);

/* ---- what the control socket may do; main thread ----------------------------------------------
 */

int vm_pause(struct vm *vm, struct qz_error *err);
int vm_resume(struct vm *vm, struct qz_error *err);
void vm_stop(struct vm *vm);                           /* ends at once, exit code 0 */
int vm_powerdown(struct vm *vm, struct qz_error *err); /* power button */
int vm_reset(struct vm *vm, struct qz_error *err);
/* A disk, by its path or number, has `size` bytes from now on; the guest is told. */
int vm_resize_disk(struct vm *vm, const char *name, uint64_t size, struct qz_error *err);
/* Leaves `target` bytes of memory to the guest, by the balloon. */
int vm_set_memory_target(struct vm *vm, uint64_t target, struct qz_error *err);
/*
 * A debugger holds the machine: it does not run, whoever resumes it, until vm_release(), which lets
 * it go on when it ran before (stay: of each vCPU, whether it stays parked even so; NULL: none).
 */
void vm_hold(struct vm *vm);
void vm_release(struct vm *vm, const bool *stay);
json_t *vm_info(struct vm *vm);
json_t *vm_metrics(struct vm *vm);
const struct guest_memory *vm_memory(const struct vm *vm);

#endif

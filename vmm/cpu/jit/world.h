/*
 * world.h - who executes guest code, and how everybody is stopped for a moment.
 *
 * A vCPU runs between world_enter and world_leave. While it is out (in the machine, answering a
 * device access, waiting its turn to be alone) it touches neither guest memory nor its caches of
 * translations, wherever in an instruction it may be. Who stopped the world may therefore look
 * into every vCPU's caches and change the guest-physical map.
 */
#ifndef VMM_JIT_WORLD_H
#define VMM_JIT_WORLD_H

#include "cpu/jit/cpu.h"

int world_new(struct jit_vm *vm); /* -ENOMEM */
void world_free(struct jit_vm *vm);

/* The vCPU's thread. Enter waits while the world stands, and does what was asked meanwhile of its
 * caches. */
void world_enter(struct jit_cpu *cpu);
void world_leave(struct jit_cpu *cpu);
/* Between blocks, on ATTENTION_EXCLUSIVE. */
void world_yield(struct jit_cpu *cpu);

/* A vCPU comes (or goes, NULL) that does not run. */
void world_set_cpu(struct jit_vm *vm, unsigned id, struct jit_cpu *cpu);

/* Sets attention bits of all vCPUs. Any thread. */
void world_alert(struct jit_vm *vm, unsigned bits);

/* Any thread that runs no vCPU now. Stops do not nest. */
void world_stop(struct jit_vm *vm);
void world_go(struct jit_vm *vm);

#endif

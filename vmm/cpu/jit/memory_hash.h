/*
 * memory_hash.h - a number that stands for all of guest memory, kept up as it is written.
 *
 * It is a sum over the pages, so that a look costs what was written since the last one. From the
 * first look on, pages are noted where an access for writing is translated, where the page walk
 * sets bits and where devices tell of what they wrote; each look makes the vCPUs' write entries go,
 * so that the next store of each page is seen again. Pages of zeros count nothing.
 */
#ifndef VMM_JIT_MEMORY_HASH_H
#define VMM_JIT_MEMORY_HASH_H

#include "cpu/jit/cpu.h"

/* accel_ops.memory_hash */
int memory_hash(struct accel_vm *vm, uint64_t *hash);
void memory_hash_free(struct jit_slot *s);

/* [gpa, gpa + len), which lies in the slot, may be written from now on or was. Any thread. */
void memory_hash_note(struct jit_slot *s, uint64_t gpa, uint64_t len);

#endif

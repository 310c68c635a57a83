/*
 * memory.h - guest memory as the debugger names it: by linear address in a vCPU's address space, or
 * by physical address.
 *
 * The walk changes nothing: no accessed or dirty bit is set, no right is checked, so that a
 * debugger reads and writes what the guest itself may not. What is not RAM cannot be had: a device
 * would notice.
 */
#ifndef VMM_GDB_MEMORY_H
#define VMM_GDB_MEMORY_H

#include "gdb/target.h"

/* -EFAULT: nothing is mapped there, or a table lies outside RAM. */
int gdb_translate(const struct gdb_target *t, const struct vcpu_state *s, uint64_t linear,
                  uint64_t *gpa);

/*
 * s NULL: `address` is physical. Returns the bytes that were done before the first that could not
 * be, or -EFAULT when that was the first of all.
 */
int64_t gdb_memory(const struct gdb_target *t, const struct vcpu_state *s, uint64_t address,
                   void *data, size_t len, bool write);

#endif

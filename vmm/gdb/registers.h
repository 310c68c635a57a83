/*
 * registers.h - a vCPU's registers as GDB numbers and names them.
 *
 * The target description that GDB reads (GDB manual, appendix G) is made from the same table as the
 * answers to g, G, p and P, so the two cannot disagree. Features core, sse and segments are GDB's
 * own; org.queztl.system adds what a kernel developer wants to see.
 */
#ifndef VMM_GDB_REGISTERS_H
#define VMM_GDB_REGISTERS_H

#include "cpu/vcpu_state.h"
#include "gdb/packet.h"

enum { GDB_REGISTER_BYTES_MAX = 16 };

unsigned gdb_register_count(void);
/* Bytes of register n; 0: there is none. */
unsigned gdb_register_size(unsigned n);

/* Its bytes, least significant first. */
void gdb_register_get(const struct vcpu_state *s, unsigned n,
                      uint8_t value[GDB_REGISTER_BYTES_MAX]);
/* -EPERM: only the guest itself can change this one; -EINVAL: no CPU could hold the value. */
int gdb_register_set(struct vcpu_state *s, unsigned n, const uint8_t value[GDB_REGISTER_BYTES_MAX]);

/* Bytes [offset, offset + len) of target.xml into the reply; true: there are more behind them. */
bool gdb_target_xml(struct gdb_reply *r, uint64_t offset, uint64_t len);

#endif

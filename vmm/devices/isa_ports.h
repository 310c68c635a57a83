/*
 * isa_ports.h - the single-port devices of a PC: i8042 reset line, fast A20 and reset at port 0x92,
 * panic notification (pvpanic), and the firmware's debug port 0x402.
 */
#ifndef VMM_ISA_PORTS_H
#define VMM_ISA_PORTS_H

#include "machine/machine.h"

#define PVPANIC_PORT 0x505

struct isa_ports;

/* debug_fd: where bytes written to port 0x402 go, -1 for nowhere; stays the caller's. */
int isa_ports_new(struct isa_ports **ports, struct machine *m, int debug_fd, struct qz_error *err);
void isa_ports_free(struct isa_ports *ports);
void isa_ports_reset(struct isa_ports *ports);
void isa_ports_state(struct isa_ports *ports,
                     struct qz_state *s); /* saved or loaded, the clock stands */

#endif

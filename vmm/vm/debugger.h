/*
 * debugger.h - a GDB at this machine: vmm/gdb talks, this makes the machine do it.
 *
 * The debugger holds the machine (vm_hold) while it talks: vCPUs parked, clocks standing still, and
 * the control socket cannot let it run meanwhile. Main thread, except debugger_on_exit().
 */
#ifndef VMM_DEBUGGER_H
#define VMM_DEBUGGER_H

#include "gdb/listener.h"
#include "machine/machine.h"
#include "vm/vcpu.h"
#include "vm/vm.h"

struct debugger;

/* Makes the socket; before confinement. *vcpus: the group exists when the machine runs. */
int debugger_new(struct debugger **d, struct vm *vm, struct machine *m, struct vcpu_group **vcpus,
                 const struct gdb_address *address, struct qz_error *err);
/* The vCPUs are gone. */
void debugger_free(struct debugger *d);

/* vcpu_events.debug: on the vCPU's thread. */
bool debugger_on_exit(struct debugger *d, unsigned cpu, const struct vcpu_exit *exit);

/*
 * The guest crashed (GDB_STOP_CRASH) or says so (GDB_STOP_PANIC). True: a debugger holds the
 * machine now and looks at it. It is asked once for each crash: afterwards things take their
 * course.
 */
bool debugger_look_at(struct debugger *d, enum gdb_stop_kind kind, unsigned cpu);
/* The machine starts again: a crash is a new one. */
void debugger_machine_reset(struct debugger *d);
/* The machine is ending. */
void debugger_exited(struct debugger *d, int code);

#endif

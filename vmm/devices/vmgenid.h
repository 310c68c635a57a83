/*
 * vmgenid.h - the virtual machine generation identifier: by it a guest learns that it is not alone.
 *
 * Sixteen random bytes in a page of the guest's that it cannot write. They stay as they are through
 * pauses and reboots, and are new for every machine that goes on from a moment at which another one
 * may go on, too: the guest is told, and takes new randomness before it uses what both remember
 * (Microsoft, "Virtual Machine Generation ID", 2012; Linux drivers/virt/vmgenid.c).
 */
#ifndef VMM_VMGENID_H
#define VMM_VMGENID_H

#include "machine/machine.h"

/* Behind the HPET and before the local APICs, where no window for PCI devices reaches. */
#define VMGENID_BASE 0xfed60000ull
#define VMGENID_PAGE 4096ull

struct acpi_pm;
struct vmgenid;

/* A first identifier; `pm` carries the notification. -EIO: no random bytes. */
int vmgenid_new(struct vmgenid **id, struct machine *m, struct acpi_pm *pm, struct qz_error *err);
/* Before the accelerator's VM is freed. */
void vmgenid_free(struct vmgenid *id);
/*
 * A new identifier, and the guest is told when it runs again. vCPUs are parked and the whole state
 * is loaded: interrupt controllers too. -EIO: no random bytes, and the identifier is the old one.
 */
int vmgenid_renew(struct vmgenid *id, struct qz_error *err);
void vmgenid_state(struct vmgenid *id, struct qz_state *s); /* saved or loaded */

#endif

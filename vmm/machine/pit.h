/* pit.h - the 8254 interval timer, ports 0x40 to 0x43, and port 0x61 (speaker gate, refresh
 * toggle). */
#ifndef VMM_PIT_H
#define VMM_PIT_H

#include "machine/machine.h"

struct pit;

int pit_new(struct pit **p, struct machine *m, struct qz_error *err);
void pit_free(struct pit *p);
void pit_reset(struct pit *p);
void pit_state(struct pit *p, struct qz_state *s); /* saved or loaded, the clock stands */
/* HPET legacy replacement takes IRQ 0 away from channel 0 while on. */
void pit_set_irq_enabled(struct pit *p, bool enabled);

#endif

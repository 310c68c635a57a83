/* hpet.h - the high precision event timer at 0xfed00000: three comparators, 64 bit, 100 MHz. */
#ifndef VMM_HPET_H
#define VMM_HPET_H

#include "machine/pit.h"

#define HPET_BASE     0xfed00000ull
#define HPET_BLOCK_ID 0x8086a201u /* low half of the capability register, for the ACPI table */

struct hpet;

/* In legacy replacement mode it takes IRQ 0 from the PIT (may be NULL) and drives IRQ 8. */
int hpet_new(struct hpet **h, struct machine *m, struct pit *pit, struct qz_error *err);
void hpet_free(struct hpet *h);
void hpet_reset(struct hpet *h);
void hpet_state(struct hpet *h, struct qz_state *s); /* saved or loaded, the clock stands */

#endif

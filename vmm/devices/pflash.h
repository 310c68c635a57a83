/*
 * pflash.h - firmware in flash memory: its code read-only, and the variable store it writes to.
 *
 * The code image ends at 4 GiB, so that the reset vector lies in it; the variable store lies
 * directly below. The guest programs the store by the Intel command set (JEDEC JESD68.01 CFI, Intel
 * P30 datasheet), in blocks of 4 KiB, a byte wide: what OVMF's QemuFlashFvbServicesRuntimeDxe
 * expects.
 */
#ifndef VMM_PFLASH_H
#define VMM_PFLASH_H

#include "machine/machine.h"

enum { PFLASH_BLOCK = 4096 };
#define PFLASH_SIZE_MAX (16ull << 20) /* both together: what is free below 4 GiB */

struct pflash;

/*
 * vars_path: this machine's own variable store. It is locked while in use, and what the guest
 * writes is in the file when its write returns. NULL: there is no store, and firmware keeps its
 * variables in RAM until the next reset. Both files: whole blocks. Without an accelerator (m->accel
 * NULL) all reads are served by MMIO.
 */
int pflash_new(struct pflash **flash, struct machine *m, const char *code_path,
               const char *vars_path, struct qz_error *err);
/* Before the accelerator's VM is freed. */
void pflash_free(struct pflash *flash);
void pflash_reset(struct pflash *flash); /* back to reading; the contents stay, it is flash */
void pflash_state(struct pflash *flash, struct qz_state *s); /* saved or loaded */

#endif

/*
 * guest.h - what the machine boots: a kernel (with ACPI tables placed for it) or firmware (served
 * by fw_cfg).
 */
#ifndef VMM_GUEST_H
#define VMM_GUEST_H

#include "boot/boot.h"
#include "vm/confine.h"
#include "vm/pc.h"

struct guest_source;

/* Checks that the files are there; keeps the command line and the command archive. */
int guest_source_new(struct guest_source **g, const struct vm_config *config, struct qz_error *err);
void guest_source_free(struct guest_source *g);
/* Files that a reset opens again. */
unsigned guest_source_paths(const struct guest_source *g, struct confine_path *paths, unsigned max);

/* What firmware finds besides memory, for a guest that goes on where another machine stood. */
int guest_prepare(struct guest_source *g, struct machine *m, struct pc *pc, struct qz_error *err);
/* Puts kernel or firmware data and ACPI tables in place; *bsp is in reset state and moves to the
 * entry. */
int guest_load(struct guest_source *g, struct machine *m, struct pc *pc, struct vcpu_state *bsp,
               struct boot_report *report, struct qz_error *err);

#endif

/*
 * vm_disks.h - a machine's disks in its snapshots: which image each is written to, which one it
 * goes back to, and the overlays in which it goes on either way.
 */
#ifndef VMM_VM_DISKS_H
#define VMM_VM_DISKS_H

#include "vm/vm_internal.h"

/* An image made outside, for a disk to go on in. */
struct vm_overlay {
    unsigned disk;         /* by position */
    const char *name;      /* absolute; NULL: nobody will find it again */
    int fd;                /* -1: it was taken over */
    int base;              /* what the disk goes back to, open; the caller's */
    const char *base_name; /* absolute */
};

/* Learns the images' names. The disks are open; before confinement. */
void vm_disks_learn(struct vm *vm);
void vm_disks_free(struct vm *vm);
/* [{"file": NAME or null, "format": ..., "size": bytes, "readonly": ...}], in order; NULL: no
 * memory. */
json_t *vm_disks_images(struct vm *vm);
/* The same, with what struct vm_disk has beside it. */
json_t *vm_disks_info(struct vm *vm);
/* Whether these are what a snapshot takes: one for each disk that can be written, no other. */
int vm_disks_check(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                   struct qz_error *err);
/* The same for going back. */
int vm_disks_check_rewind(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                          struct qz_error *err);
/* What the host's caches hold of disks that can be written goes to their media, while the guest
 * runs on: so that there is little left to do while it stands. */
int vm_disks_flush(struct vm *vm, struct qz_error *err);
/*
 * Each disk goes on in its overlay; what it wrote to is frozen. Nothing in flight, loops stand.
 * After a failure those that came before it have gone on in theirs: nothing is lost, and no
 * snapshot made.
 */
int vm_disks_overlay(struct vm *vm, struct vm_overlay *overlays, unsigned count,
                     struct qz_error *err);
/* Each disk goes back to its base, and on in its overlay. On failure *torn tells whether one that
 * came before has gone back. */
int vm_disks_rewind(struct vm *vm, struct vm_overlay *overlays, unsigned count, bool *torn,
                    struct qz_error *err);

#endif

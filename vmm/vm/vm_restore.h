/*
 * vm_restore.h - a machine goes on from a moment in which one was frozen: a new one in place of a
 * boot, or one that runs, which is sent back.
 */
#ifndef VMM_VM_RESTORE_H
#define VMM_VM_RESTORE_H

#include "vm/vm_disks.h"

/* What vm_snapshot() handed out. */
struct vm_moment {
    int state;  /* bytes, which may be anybody's */
    int memory; /* one sealed file of the machine's size */
};

/* In place of a boot: what the configuration names. Threads run, vCPUs are parked. */
int vm_begin_from_snapshot(struct vm *vm, struct qz_error *err);

/*
 * The machine is sent back: to `to`, or, when that is NULL, to the last snapshot that was taken of
 * it or that it began from. It runs or is paused as before. Disks that can be written go back to
 * the images that were frozen then, and on in overlays: one for each. Main thread; the descriptors
 * of `to` stay the caller's.
 *
 * -ENOENT: there is no snapshot; -EBUSY: not now; -EINVAL: it is another machine's, or the overlays
 * are not those that are needed: then all is as before. What fails later leaves nothing that could
 * run, and ends the machine.
 */
int vm_restore(struct vm *vm, const struct vm_moment *to, struct vm_overlay *overlays,
               unsigned count, struct qz_error *err);

#endif

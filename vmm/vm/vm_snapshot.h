/*
 * vm_snapshot.h - a machine is frozen in one moment. vm_restore.h: it goes on from one.
 *
 * What a snapshot is made of leaves the monitor as sealed files in memory, through the control
 * socket: the monitor itself can open and write no files. Whoever gets them may write them to a
 * folder (snapshot/snapshot_dir.h) or begin clones from them at once. Of a machine that was frozen
 * before, memory may be several files, layers, and one more says which has what.
 */
#ifndef VMM_VM_SNAPSHOT_H
#define VMM_VM_SNAPSHOT_H

#include <jansson.h>
#include <queztl/base.h>

#include "machine/memory_layers.h"

struct vm;
struct vm_overlay; /* vm_disks.h */

enum { VM_SNAPSHOT_FILES = LAYERS_MAX + 2 };

struct vm_snapshot {
    int fd[VM_SNAPSHOT_FILES]; /* the state, the layers of memory from the lowest on, and, if they
                                  are several, their table; the caller's to close */
    unsigned fds;
    int64_t paused_ns; /* how long the guest stood */
};

/*
 * Freezes the machine; it goes on as it was, running or paused, and its disks in overlays: one for
 * each that can be written. Main thread. -EBUSY: not now, -ENOTSUP: not this machine; then all is
 * as before.
 */
int vm_snapshot(struct vm *vm, struct vm_overlay *overlays, unsigned count, struct vm_snapshot *s,
                struct qz_error *err);
/* What is to be known of it: pause, sizes, and the options that make the same machine again. */
json_t *vm_snapshot_info(struct vm *vm, const struct vm_snapshot *s);
/* Gives up what vm_restore() would go back to. */
void vm_snapshot_forget(struct vm *vm);
/* ---- for vm_restore.c */

/* The machine can be sent back to this: its memory is frozen. Takes `state` and `disks` over. */
void vm_snapshot_keep(struct vm *vm, json_t *disks, void *state, size_t len);
/* Whether the present moment can be taken or left. -EBUSY: not now. */
int vm_snapshot_check_moment(struct vm *vm, struct qz_error *err);
/* What can wait of freezing memory or replacing it is done on the main loop from now on. */
void vm_snapshot_tidy(struct vm *vm);

#endif

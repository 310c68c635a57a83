/*
 * vm_snapshot.h - a machine is frozen in one moment, and machines begin from such a moment.
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
/* Back to the last snapshot that was taken of this machine, or that it began from. -ENOENT: none.
 */
int vm_revert(struct vm *vm, struct qz_error *err);
/* Gives up what vm_revert() would go back to. */
void vm_snapshot_forget(struct vm *vm);
/* In place of a boot: what the configuration names. Threads run, vCPUs are parked. */
int vm_begin_from_snapshot(struct vm *vm, struct qz_error *err);

#endif

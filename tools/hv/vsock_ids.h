/*
 * vsock_ids.h - context ids that no other machine of this user has at the moment.
 *
 * A file of each id, in $XDG_RUNTIME_DIR/queztl or /tmp/queztl-UID, is locked by the process that
 * has the id: the lock comes with the descriptor, and goes with the process, however it ends.
 */
#ifndef TOOLS_VSOCK_IDS_H
#define TOOLS_VSOCK_IDS_H

#include <queztl/base.h>

/* The first free one from *cid on. A locked file, for the machine to keep open; or a negative
 * errno. */
int vsock_id_take(uint64_t *cid, struct qz_error *err);
/* This one; -EBUSY: another machine has it. */
int vsock_id_take_exactly(uint64_t cid, struct qz_error *err);

enum { VSOCK_IDS_FIRST = 1000 }; /* below: those that people choose */

#endif

/*
 * snapshot_pager.h - the process that loads a snapshot's memory for machines that run already
 * (snapshot/pager.h).
 */
#ifndef TOOLS_SNAPSHOT_PAGER_H
#define TOOLS_SNAPSHOT_PAGER_H

#include "snapshot/snapshot_dir.h"

/*
 * memory: a file of holes as large as the snapshot's memory, which nobody else can write once this
 * is back (the file is sealed). The door at which machines knock, or a negative errno. The process
 * holds the snapshot open by itself, belongs to nobody, and ends with its last machine.
 */
int snapshot_pager_start(struct snapshot_dir *s, const char *path, int memory,
                         struct qz_error *err);

#endif

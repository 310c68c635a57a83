/* children.h - who was made upon a snapshot (snapshot_family.h). */
#ifndef VMM_SNAPSHOT_CHILDREN_H
#define VMM_SNAPSHOT_CHILDREN_H

#include "snapshot/snapshot_internal.h"

/* Notes in the parent's folder, on the medium, that a child with this id is, or will be, there. */
int child_register(int parent, const uint8_t id[SNAPSHOT_ID], const char *path,
                   struct qz_error *err);
/* Only a note of this very path goes; no such note is no failure. */
void child_unregister(int parent, const char *id, const char *path);
/* *path: one that builds upon the folder `parent`, the caller's to free, or NULL. where: the folder
 * that the parent is in. */
int child_find(int parent, const char *where, char **path, struct qz_error *err);
/* Notes those in `to`, which is to take the place of `from`, that build upon it. */
int children_copy(int from, int to, struct qz_error *err);

#endif

/*
 * working_set.h - the file `working-set` of a snapshot: which chunks a machine needed first when it
 * went on from there, in that order. Who restores lazily the next time loads those first.
 *
 * A hint, and nobody's truth: a missing one, another snapshot's or a damaged one costs time only.
 */
#ifndef VMM_WORKING_SET_H
#define VMM_WORKING_SET_H

#include "snapshot/snapshot_dir.h"

struct working_set {
    uint32_t *chunk; /* different ones, none of them zeros; owned */
    size_t count;
};

/* -ENOENT: there is none yet. -ESTALE: it is of another snapshot. Otherwise it is damaged. */
int working_set_read(const struct snapshot_dir *s, struct working_set *w, struct qz_error *err);
/* In place of the old one at one moment. -EROFS, -EACCES: this folder keeps none. */
int working_set_write(const struct snapshot_dir *s, const struct working_set *w,
                      struct qz_error *err);
void working_set_free(struct working_set *w);

#endif

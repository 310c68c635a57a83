/* draft.h - a snapshot while it is being written, beside the place where it will be. */
#ifndef VMM_SNAPSHOT_DRAFT_H
#define VMM_SNAPSHOT_DRAFT_H

#include "snapshot/snapshot_internal.h"

struct draft {
    const char *path;   /* where it will be; the caller's */
    char *where, *name; /* that, in two */
    int in;             /* the folder `where` */
    char *partial;      /* its name there until it has its own; what has this name is removed */
    int folder;         /* itself, with a shared lock */
};

/* Ended by draft_end, also when this fails. */
int draft_begin(struct draft *d, const char *path, struct qz_error *err);
/*
 * All its files, on the medium. description: complete but for "memory", which is set here. index:
 * its sizes, in_place and ids.
 */
int draft_fill(struct draft *d, json_t *description, const void *state, size_t state_len,
               const struct memory_source *from, struct memory_index *index,
               const struct snapshot_dir *parent, const struct snapshot_options *o,
               struct qz_error *err);
/* Where it will be, from the root; the caller's to free. */
char *draft_absolute_path(const struct draft *d);
/* It has its place from now on; -EEXIST: there is something. */
int draft_commit(struct draft *d, struct qz_error *err);
/* It is in the place of what was there, which draft_end removes. */
int draft_exchange(struct draft *d, struct qz_error *err);
/* Nothing is in the place of what was there, which draft_end removes; for a draft not filled. */
int draft_displace(struct draft *d, struct qz_error *err);
void draft_end(struct draft *d);

#endif

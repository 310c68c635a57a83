/*
 * snapshot_family.h - snapshots that build upon each other: who needs whom, removing, flattening,
 * clearing away what was never finished.
 *
 * A snapshot's folder has a folder `children` with one file for each snapshot made upon it: named
 * by the child's id, it holds the child's path. It is there before the child is. An entry counts
 * when the child is where it says and names this very folder as its parent; so one that was left
 * behind holds nothing. Snapshots in the same folder are looked at even without an entry.
 */
#ifndef VMM_SNAPSHOT_FAMILY_H
#define VMM_SNAPSHOT_FAMILY_H

#include "snapshot/snapshot_dir.h"

/* What snapshot.json says, checked for what every snapshot has; the caller's to release. Neither
 * the other files nor its parents are looked at. */
int snapshot_describe(const char *path, json_t **description, struct qz_error *err);

/*
 * Removes it: at one moment it is gone, whenever this process ends. -EBUSY: a snapshot builds upon
 * it, or somebody has it open. -ENOTEMPTY: there is something in the folder that is not its own.
 */
int snapshot_remove(const char *path, struct qz_error *err);

/*
 * Makes it independent of its parent, with the same name and id, for those that build upon it: at
 * one moment the whole one is in its place. 0, too, if it has no parent. -EBUSY: it is open.
 */
int snapshot_flatten(const char *path, const struct snapshot_options *o, struct qz_error *err);

/*
 * Removes what writers that are gone left unfinished in this folder; *removed: how many. What
 * somebody writes just now stays.
 */
int snapshot_collect(const char *folder, unsigned *removed, struct qz_error *err);
/* A folder of this name is an unfinished snapshot. */
bool snapshot_is_unfinished(const char *name);

/* Reads all of it and its parents and checks every checksum. */
int snapshot_verify(const char *path, const struct snapshot_options *o, struct qz_error *err);

#endif

/*
 * snapshot_words.h - how queztl-vmm is told to go on from a snapshot: its options, and its
 * descriptors.
 */
#ifndef TOOLS_SNAPSHOT_WORDS_H
#define TOOLS_SNAPSHOT_WORDS_H

#include "disk_overlays.h"
#include "machine_start.h"
#include "snapshot_source.h"

/*
 * The options of a snapshot's description, with overlays in place of the images of disks that can
 * be written. without: names ("--net") that are left out, NULL-terminated; may be NULL. -EINVAL: it
 * is no list of options.
 */
int words_add_machine(struct words *w, const json_t *options, const struct overlays *disks,
                      const char *const *without);
/* "--snapshot fd:...", as snapshot_descriptors() gives them. */
int words_add_snapshot(struct words *w, const struct snapshot_source *s,
                       const struct overlays *disks);
/* State, memory, overlays and pager, in the order in which the two above name them; how many. */
unsigned snapshot_descriptors(const struct snapshot_source *s, const struct overlays *disks,
                              int *fds);

#endif

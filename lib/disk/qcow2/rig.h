/*
 * rig.h - for tests: an image in memory beside a plain copy of what its disk must hold.
 */
#ifndef DISK_QCOW2_RIG_H
#define DISK_QCOW2_RIG_H

#include "../format.h"
#include "../memory.h"
#include "image.h"

struct rig {
    struct disk_queue *q;
    struct layer *file, *backing, *image;
    uint8_t *model; /* size bytes */
    uint64_t size, random;
    uint64_t file_max;         /* how large the file may become; 0: large */
    bool defers, records, log; /* log: with a metadata log */
};

/* Makes an image and opens it. options: as for create, NULL for none. backing: bytes of a backing
 * file with random content, 0 for none. */
void rig_open(struct rig *r, uint64_t size, const char *options, uint64_t backing);
/* Closes the image, checks that it is clean, opens it again. */
void rig_reopen(struct rig *r);
/* Closes, checks, frees everything. */
void rig_close(struct rig *r);
/* The image agrees with itself; errors are told with `what`. */
void rig_check(struct rig *r, const char *what);
/* The disk holds what the model holds. */
void rig_compare(struct rig *r, const char *what);
/* count random writes, zeroes, discards and reads, `tasks` at a time, at most max bytes each. */
void rig_storm(struct rig *r, unsigned count, unsigned tasks, uint64_t max);
uint64_t rig_random(struct rig *r);
/* Opens the image in r->file; closed and freed by the caller. */
int rig_open_layer(struct rig *r, struct layer **l, bool check, struct qz_error *err);
/* Runs a call in a task; what it returned. */
int rig_run(struct rig *r, int (*fn)(struct disk_queue *q, void *argument), void *argument);
/* Writes the image's bytes into a file, for other programs to look at. */
void rig_save(struct rig *r, const char *path);

#endif

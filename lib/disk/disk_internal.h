/* disk_internal.h - the public handles as the engine's own servers see them. */
#ifndef DISK_DISK_INTERNAL_H
#define DISK_DISK_INTERNAL_H

#include <queztl/disk.h>

#include "chain.h"
#include "lifetime.h"
#include "queue.h"
#include "task.h"

#define DISK_MEMORY_UNSAID UINT64_MAX

struct qz_disk {
    struct chain chain;
    char *label;
    struct lifetime lifetime;
    struct options inherited; /* what an overlay is opened with as well */
    uint64_t memory;          /* for all caches; relaxed atomic */
    unsigned queues;          /* atomic: living qz_disk_queues */
};

struct qz_disk_queue {
    struct qz_disk *disk;
    struct disk_queue *q;
};

static inline bool is_inside(const struct layer *l, uint64_t offset, uint64_t length)
{
    uint64_t size = __atomic_load_n(&l->info.size, __ATOMIC_RELAXED);

    return offset <= size && length <= size - offset;
}

/* Whether o may be opened with, without opening anything; takes only "file". */
int disk_keys_check(struct options *o, struct qz_error *err);
/* Adds to kept what of o holds for each image that is put on top of the disk's. -ENOMEM. */
int overlay_inherit(struct options *kept, struct options *o);
/* Runs fn in a task on a queue made for it, and waits for its end. */
int disk_run(int (*fn)(struct disk_queue *q, void *argument), void *argument, struct qz_error *err);

#endif

/* disk_internal.h - the public handles as the engine's own servers see them. */
#ifndef DISK_DISK_INTERNAL_H
#define DISK_DISK_INTERNAL_H

#include <queztl/disk.h>

#include "chain.h"
#include "lifetime.h"
#include "queue.h"
#include "task.h"

struct qz_disk {
    struct chain chain;
    char *label;
    struct lifetime lifetime;
    unsigned queues; /* atomic: living qz_disk_queues */
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
/* Runs fn in a task on a queue made for it, and waits for its end. */
int disk_run(int (*fn)(struct disk_queue *q, void *argument), void *argument, struct qz_error *err);

#endif

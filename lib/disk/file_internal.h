/* file_internal.h - between file.c, which moves bytes, file_open.c and file_lock.c. */
#ifndef DISK_FILE_INTERNAL_H
#define DISK_FILE_INTERNAL_H

#include "file.h"
#include "queue.h"

/* What may be tried on the calling thread before the ring is asked. */
enum file_inline {
    INLINE_NEVER,
    INLINE_NOWAIT, /* with RWF_NOWAIT: the kernel says when it would wait */
    INLINE_TIMED,  /* plainly, while that is quick */
    INLINE_ALWAYS, /* plainly: this never waits for a medium */
};

struct file {
    struct layer l;
    int fd;
    enum file_cache cache;
    bool is_device, no_discard, in_memory, locked;
    int inline_read, inline_write; /* enum file_inline; relaxed atomics, they only ever fall */
    int lost;                      /* a flush failed so, and no later one succeeds; relaxed */
    int64_t slow_until;            /* INLINE_TIMED: not before; relaxed */
    struct {
        uint64_t queue;
        int number; /* of the registered file; -1: none */
    } registered[DISK_QUEUES_MAX];
};

extern const struct layer_ops file_ops;

int file_lock(struct file *f, struct qz_error *err);
void file_unlock(struct file *f);
/* Of file_ops: readers are let in, writers are still kept out. */
int file_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err);
void file_thaw(struct layer *l);

#endif

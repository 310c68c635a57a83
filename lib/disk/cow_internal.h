/* cow_internal.h - between cow.c, which serves requests, and cow_image.c, which makes and opens. */
#ifndef DISK_COW_INTERNAL_H
#define DISK_COW_INTERNAL_H

#include "cow_format.h"
#include "filter.h"
#include "format.h"
#include "task.h"

struct cow {
    struct layer l;
    uint64_t data_offset;
    uint8_t *bitmap; /* atomic bytes; mapped, whole pages */
    uint8_t *dirty;  /* atomic; of each page of the bitmap: not on the medium as it is */
    struct task_mutex flushing;
    struct task_rwlock filling; /* shared: writes into granules that are not here */
};

extern const struct layer_ops cow_ops;

static inline struct cow *cow_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct cow, l);
}

/* How far from offset on all granules are here, or all are not. */
uint64_t cow_run(const struct cow *c, uint64_t offset, uint64_t length, bool *here);
/* [task] */
int cow_flush(struct cow *c, struct disk_queue *q);
void cow_free(struct layer *l);

#endif

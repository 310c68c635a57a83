/*
 * memory.h - a disk in memory, which can lose its power; and one that is nothing.
 *
 * For tests. With records on, the disk remembers every change since the last flush, and
 * memory_power_cut() makes the disk that could be found after a power cut now: what was flushed is
 * there, and of the rest any subset of its sectors.
 */
#ifndef DISK_MEMORY_H
#define DISK_MEMORY_H

#include "layer.h"

struct memory_options {
    uint64_t size, size_max; /* it can be resized up to size_max (0: size) */
    uint32_t alignment;      /* 0: 1 */
    bool records;
    bool defers; /* requests are done later, from the queue, instead of at once */
};

int memory_open(struct layer **l, const struct memory_options *o, struct qz_error *err);
/* Another disk, with the same options; which sectors survived depends on seed alone. */
int memory_power_cut(struct layer *l, uint64_t seed, struct layer **after, struct qz_error *err);
/* Changes since the last flush. */
size_t memory_unflushed(struct layer *l);
/* The bytes, size_max of them; for looking and for planting damage. */
uint8_t *memory_bytes(struct layer *l);

/* Reads zeroes, takes everything. */
int null_open(struct layer **l, uint64_t size, struct qz_error *err);

#endif

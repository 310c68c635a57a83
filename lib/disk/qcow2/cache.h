/*
 * cache.h - slices of L2 tables and refcount blocks in memory.
 *
 * A slice is min(cluster, 4 KiB) bytes of the file at a multiple of its size; its file offset is
 * its name. Slices are spread over shards by a hash, each shard with a short mutex, so that queues
 * rarely meet. There is one byte budget for all; it may change at any time.
 *
 * Dirty slices are never written one by one: commit.c takes copies of all that are dirty and
 * writes them in the order that keeps the image sound. A slice that is dirty or being written
 * stays in memory; who makes slices dirty asks qcow2_cache_crowded() and commits.
 */
#ifndef DISK_QCOW2_CACHE_H
#define DISK_QCOW2_CACHE_H

#include "../layer.h"
#include "../task.h"

struct qcow2_cache;
struct qcow2_slice;

enum qcow2_slice_class { QCOW2_SLICE_REF, QCOW2_SLICE_L2, QCOW2_SLICE_CLASSES };

/* The loader reads from `file`. unit: bytes of a slice, a power of two. */
int qcow2_cache_new(struct qcow2_cache **c, struct layer *file, uint32_t unit, uint64_t budget,
                    struct qz_error *err);
void qcow2_cache_free(struct qcow2_cache *c);
uint32_t qcow2_cache_unit(const struct qcow2_cache *c);

/* Any thread: the new budget. Clean slices go at once, dirty ones after the next commit. */
void qcow2_cache_set_budget(struct qcow2_cache *c, uint64_t bytes);
uint64_t qcow2_cache_bytes(const struct qcow2_cache *c);
uint64_t qcow2_cache_budget(const struct qcow2_cache *c);
/* More is dirty than should be: commit soon. */
bool qcow2_cache_crowded(const struct qcow2_cache *c);
bool qcow2_cache_dirty(const struct qcow2_cache *c);

/* Copies length bytes at a file offset (inside one slice) if they are in memory. Does not wait. */
bool qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset, void *out, uint32_t length);

/* [task] The slice that holds a file offset, read if need be, pinned until qcow2_cache_put(). */
int qcow2_cache_get(struct qcow2_cache *c, struct disk_queue *q, uint64_t offset,
                    enum qcow2_slice_class class, struct qcow2_slice **s);
/* The same without reading: the slice is all zeroes (whatever was there is forgotten) and dirty. */
int qcow2_cache_get_new(struct qcow2_cache *c, uint64_t offset, enum qcow2_slice_class class,
                        struct qcow2_slice **s);
void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_slice *s);

/* Copies bytes of a pinned slice out, or in (which makes it dirty); each call is atomic. */
void qcow2_slice_read(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset, void *out,
                      uint32_t length);
void qcow2_slice_write(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset,
                       const void *bytes, uint32_t length);
/* For readers whose writers are kept out by another lock: the slice's bytes as they are. */
const uint8_t *qcow2_slice_bytes(const struct qcow2_slice *s);

/* Drops the slices of [offset, offset + length), dirty or not: their cluster is no table now. */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t length);

/* Drops all slices that are clean and not pinned. */
void qcow2_cache_drop_clean(struct qcow2_cache *c);

/* ---- for the commit */
struct qcow2_copy {
    struct qcow2_slice *slice; /* pinned */
    uint64_t offset;
    uint8_t *bytes; /* unit bytes, the copy's own */
};

/* Takes all dirty slices of a class, sorted by offset, with copies of their bytes. The slices
 * are clean from now on but pinned. Returns how many, or -ENOMEM. */
int qcow2_cache_take_dirty(struct qcow2_cache *c, enum qcow2_slice_class class,
                           struct qcow2_copy **copies);
/* Gives copies back; failed: the slices are dirty again. */
void qcow2_cache_give_dirty(struct qcow2_cache *c, struct qcow2_copy *copies, unsigned count,
                            bool failed);

#endif

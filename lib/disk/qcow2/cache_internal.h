/*
 * cache_internal.h - what the cache is made of: for cache.c, which finds and loads slices,
 * cache_shard.c, which keeps them, and cache_take.c, which copies dirty ones for the commit.
 *
 * Each struct slice owns its bytes for good: slices are made in chunks when the budget allows more
 * of them, go from the free list into a shard and back. A shrinking budget takes clean slices out
 * and gives their pages to the kernel (MADV_DONTNEED) while the addresses stay for later.
 *
 * Replacement is CLOCK by shard: a hit sets a mark, the hand takes marks away and takes what has
 * none. Order of locks: a shard's, then the pool's.
 */
#ifndef DISK_QCOW2_CACHE_INTERNAL_H
#define DISK_QCOW2_CACHE_INTERNAL_H

#include "cache.h"
#include <stdatomic.h>

enum { CACHE_SHARDS = 16 };

struct cache_waiter {
    struct task *task;
    bool loaded; /* guarded by the shard's mutex */
    struct cache_waiter *next;
};

struct qcow2_slice {
    uint64_t offset;
    uint8_t *bytes;
    struct qcow2_slice *chain;         /* of the hash bucket, or of the free list */
    struct qcow2_slice *older, *newer; /* the clock's ring */
    struct cache_waiter *waiters;      /* for loading */
    unsigned pins;
    int error;
    uint8_t class;
    bool loading, dirty, marked, hashed;
};

struct cache_shard {
    _Alignas(64) pthread_mutex_t mutex;
    struct qcow2_slice **buckets;
    unsigned bucket_mask, count;
    struct qcow2_slice *hand;
};

struct cache_chunk {
    struct cache_chunk *next;
    uint8_t *bytes;
    size_t length;
    struct qcow2_slice slices[];
};

struct qcow2_cache {
    struct cache_shard shards[CACHE_SHARDS];
    struct layer *file;
    uint32_t unit, unit_bits;
    _Atomic uint64_t budget, used;                 /* bytes; used: of slices in shards */
    _Atomic uint64_t dirty;                        /* slices */
    _Atomic uint32_t classes[QCOW2_SLICE_CLASSES]; /* of them, by class */
    pthread_mutex_t pool_mutex;
    struct qcow2_slice *pool;
    struct cache_chunk *chunks;
};

static inline uint64_t cache_hash(const struct qcow2_cache *c, uint64_t offset)
{
    return (offset >> c->unit_bits) * 0x9e3779b97f4a7c15ull;
}

static inline struct cache_shard *cache_shard_of(struct qcow2_cache *c, uint64_t offset)
{
    return &c->shards[cache_hash(c, offset) >> 60];
}

/* ---- slices that hold nothing */
struct qcow2_slice *cache_pool_take(struct qcow2_cache *c);
void cache_pool_give(struct qcow2_cache *c, struct qcow2_slice *s, bool give_pages);

/* ---- one shard; its mutex is held */
struct qcow2_slice *cache_lookup(struct qcow2_cache *c, struct cache_shard *h, uint64_t offset);
void cache_insert(struct qcow2_cache *c, struct cache_shard *h, struct qcow2_slice *s);
void cache_take_out(struct qcow2_cache *c, struct cache_shard *h, struct qcow2_slice *s);

static inline void cache_count_dirty(struct qcow2_cache *c, const struct qcow2_slice *s, int delta)
{
    c->dirty += (uint64_t)(int64_t)delta;
    c->classes[s->class] += (uint32_t)delta;
}

/* Takes clean slices until at most `limit` bytes are used or none is left; no mutex is held. */
void cache_shrink(struct qcow2_cache *c, unsigned first, uint64_t limit, bool give_pages);

#endif

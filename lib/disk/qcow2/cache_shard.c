/* cache_shard.c - slices in their shards and in the pool of those that hold nothing. */
#include "cache_internal.h"
#include <sys/mman.h>

QZ_SYSCALLS(io, "mmap munmap madvise futex");
QZ_SYSCALLS(main, "madvise futex"); /* whoever sets the budget */

enum { CHUNK_BYTES = 1 << 20 };

/* ---- the pool of slices that hold nothing */

static int pool_grow(struct qcow2_cache *c)
{
    unsigned n = QZ_MAX(1u, CHUNK_BYTES / c->unit);
    struct cache_chunk *k = calloc(1, sizeof(*k) + n * sizeof(k->slices[0]));

    if (!k)
        return -ENOMEM;
    k->length = (size_t)n * c->unit;
    k->bytes = mmap(NULL, k->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (k->bytes == MAP_FAILED) {
        free(k);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < n; i++) {
        k->slices[i].bytes = k->bytes + (size_t)i * c->unit;
        k->slices[i].chain = c->pool;
        c->pool = &k->slices[i];
    }
    k->next = c->chunks;
    c->chunks = k;
    return 0;
}

struct qcow2_slice *cache_pool_take(struct qcow2_cache *c)
{
    struct qcow2_slice *s;

    QZ_LOCKED(&c->pool_mutex);
    if (!c->pool && pool_grow(c))
        return NULL;
    s = c->pool;
    c->pool = s->chain;
    return s;
}

void cache_pool_give(struct qcow2_cache *c, struct qcow2_slice *s, bool give_pages)
{
    if (give_pages && c->unit >= 4096)
        madvise(s->bytes, c->unit, MADV_DONTNEED);
    QZ_LOCKED(&c->pool_mutex);
    s->chain = c->pool;
    c->pool = s;
}

/* ---- one shard; its mutex is held */

static struct qcow2_slice **bucket_of(struct qcow2_cache *c, struct cache_shard *h, uint64_t offset)
{
    return &h->buckets[(cache_hash(c, offset) >> 20) & h->bucket_mask];
}

struct qcow2_slice *cache_lookup(struct qcow2_cache *c, struct cache_shard *h, uint64_t offset)
{
    struct qcow2_slice *s = *bucket_of(c, h, offset);

    while (s && s->offset != offset)
        s = s->chain;
    return s;
}

static void rehash(struct qcow2_cache *c, struct cache_shard *h)
{
    unsigned old = h->bucket_mask + 1;
    struct qcow2_slice **was = h->buckets, **now = calloc(old * 2, sizeof(*now));

    if (!now)
        return; /* longer chains, nothing worse */
    h->buckets = now;
    h->bucket_mask = old * 2 - 1;
    for (unsigned i = 0; i < old; i++)
        while (was[i]) {
            struct qcow2_slice *s = was[i], **b = bucket_of(c, h, s->offset);

            was[i] = s->chain;
            s->chain = *b;
            *b = s;
        }
    free(was);
}

void cache_insert(struct qcow2_cache *c, struct cache_shard *h, struct qcow2_slice *s)
{
    struct qcow2_slice **b;

    if (h->count > h->bucket_mask)
        rehash(c, h);
    b = bucket_of(c, h, s->offset);
    s->chain = *b;
    *b = s;
    s->hashed = true;
    if (h->hand) {
        s->newer = h->hand;
        s->older = h->hand->older;
        s->older->newer = s->newer->older = s;
    } else {
        h->hand = s->newer = s->older = s;
    }
    h->count++;
    c->used += c->unit;
}

void cache_take_out(struct qcow2_cache *c, struct cache_shard *h, struct qcow2_slice *s)
{
    struct qcow2_slice **b = bucket_of(c, h, s->offset);

    while (*b != s)
        b = &(*b)->chain;
    *b = s->chain;
    s->hashed = false;
    if (h->hand == s)
        h->hand = s->newer == s ? NULL : s->newer;
    s->older->newer = s->newer;
    s->newer->older = s->older;
    if (s->dirty) {
        s->dirty = false;
        cache_count_dirty(c, s, -1);
    }
    h->count--;
    c->used -= c->unit;
}

static struct qcow2_slice *victim(struct cache_shard *h)
{
    for (unsigned i = 0; i < 2 * h->count; i++) {
        struct qcow2_slice *s = h->hand;

        h->hand = s->newer;
        if (s->pins || s->dirty || s->loading)
            continue;
        if (!s->marked)
            return s;
        s->marked = false;
    }
    return NULL;
}

/* Takes clean slices until no more than `limit` bytes are used or none is left. */
void cache_shrink(struct qcow2_cache *c, unsigned first, uint64_t limit, bool give_pages)
{
    for (unsigned i = 0; i < CACHE_SHARDS && c->used > limit; i++) {
        struct cache_shard *h = &c->shards[(first + i) % CACHE_SHARDS];
        struct qcow2_slice *s;

        do {
            pthread_mutex_lock(&h->mutex);
            s = victim(h);
            if (s)
                cache_take_out(c, h, s);
            pthread_mutex_unlock(&h->mutex);
            if (s)
                cache_pool_give(c, s, give_pages);
        } while (s && c->used > limit);
    }
}

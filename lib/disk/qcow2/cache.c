/* cache.c - the cache's life, and its slices found and loaded (cache.h, cache_internal.h). */
#include "cache_internal.h"
#include <sys/mman.h>

enum { DIRTY_PERCENT = 40 };

int qcow2_cache_new(struct qcow2_cache **out, struct layer *file, uint32_t unit, uint64_t budget,
                    struct qz_error *err)
{
    struct qcow2_cache *c = aligned_alloc(64, sizeof(*c));

    if (!c)
        return qz_fail(err, -ENOMEM, "no memory for the metadata cache");
    memset(c, 0, sizeof(*c));
    c->file = file;
    c->unit = unit;
    c->unit_bits = (uint32_t)__builtin_ctz(unit);
    c->budget = budget;
    pthread_mutex_init(&c->pool_mutex, NULL);
    for (int i = 0; i < CACHE_SHARDS; i++) {
        pthread_mutex_init(&c->shards[i].mutex, NULL);
        c->shards[i].bucket_mask = 63;
        c->shards[i].buckets = calloc(64, sizeof(void *));
        if (!c->shards[i].buckets) {
            qcow2_cache_free(c);
            return qz_fail(err, -ENOMEM, "no memory for the metadata cache");
        }
    }
    *out = c;
    return 0;
}

void qcow2_cache_free(struct qcow2_cache *c)
{
    if (!c)
        return;
    for (int i = 0; i < CACHE_SHARDS; i++)
        free(c->shards[i].buckets);
    while (c->chunks) {
        struct cache_chunk *k = c->chunks;

        c->chunks = k->next;
        munmap(k->bytes, k->length);
        free(k);
    }
    free(c);
}

uint32_t qcow2_cache_unit(const struct qcow2_cache *c)
{
    return c->unit;
}

uint64_t qcow2_cache_bytes(const struct qcow2_cache *c)
{
    return c->used;
}

uint64_t qcow2_cache_budget(const struct qcow2_cache *c)
{
    return c->budget;
}

bool qcow2_cache_crowded(const struct qcow2_cache *c)
{
    return (c->dirty << c->unit_bits) > c->budget / 100 * DIRTY_PERCENT;
}

bool qcow2_cache_dirty(const struct qcow2_cache *c)
{
    return c->dirty;
}

void qcow2_cache_set_budget(struct qcow2_cache *c, uint64_t bytes)
{
    c->budget = QZ_MAX(bytes, 64ull << c->unit_bits);
    cache_shrink(c, 0, c->budget, true);
}

void qcow2_cache_drop_clean(struct qcow2_cache *c)
{
    cache_shrink(c, 0, 0, false);
}

bool qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset, void *out, uint32_t length)
{
    uint64_t start = QZ_ALIGN_DOWN(offset, c->unit);
    struct cache_shard *h = cache_shard_of(c, start);
    struct qcow2_slice *s;
    bool found;

    pthread_mutex_lock(&h->mutex);
    s = cache_lookup(c, h, start);
    found = s && !s->loading && !s->error;
    if (found) {
        memcpy(out, s->bytes + (offset - start), length);
        s->marked = true;
    }
    pthread_mutex_unlock(&h->mutex);
    return found;
}

/* The slice at `start`, pinned: the one that is there, or a new one (*made) that is loading. */
static struct qcow2_slice *pinned(struct qcow2_cache *c, struct cache_shard *h, uint64_t start,
                                  enum qcow2_slice_class class, bool *made)
{
    struct qcow2_slice *s, *fresh = NULL;

    *made = false;
    pthread_mutex_lock(&h->mutex);
    s = cache_lookup(c, h, start);
    if (!s) {
        pthread_mutex_unlock(&h->mutex);
        if (c->used + c->unit > c->budget)
            cache_shrink(c, (unsigned)(h - c->shards), c->budget - c->unit, false);
        fresh = cache_pool_take(c);
        if (!fresh)
            return NULL;
        pthread_mutex_lock(&h->mutex);
        s = cache_lookup(c, h, start); /* somebody else may have been faster */
        if (!s) {
            s = fresh;
            fresh = NULL;
            *s = (struct qcow2_slice){
                .offset = start, .bytes = s->bytes, .class = class, .loading = true};
            cache_insert(c, h, s);
            *made = true;
        }
    }
    s->pins++;
    s->marked = true;
    pthread_mutex_unlock(&h->mutex);
    if (fresh)
        cache_pool_give(c, fresh, false);
    return s;
}

static void loaded(struct cache_shard *h, struct qcow2_slice *s, int error)
{
    struct cache_waiter *w;

    pthread_mutex_lock(&h->mutex);
    s->loading = false;
    s->error = error;
    w = QZ_TAKE_PTR(s->waiters);
    while (w) {
        struct cache_waiter *next = w->next;

        /* The mutex is held: w and its task cannot leave await() before the resume is done. */
        w->loaded = true;
        task_resume(w->task);
        w = next;
    }
    pthread_mutex_unlock(&h->mutex);
}

/* Waits for somebody else's loading. */
static int await(struct cache_shard *h, struct qcow2_slice *s)
{
    struct cache_waiter me = {.task = task_current()};
    bool wait;
    int error;

    pthread_mutex_lock(&h->mutex);
    wait = s->loading;
    error = s->error;
    if (wait) {
        me.next = s->waiters;
        s->waiters = &me;
    }
    while (wait && !me.loaded) { /* whatever else resumed this task is no news of the slice */
        pthread_mutex_unlock(&h->mutex);
        task_suspend();
        pthread_mutex_lock(&h->mutex);
        error = s->error;
    }
    pthread_mutex_unlock(&h->mutex);
    return error;
}

/* Reads a slice; what the file does not have is zeroes. */
static int load(struct qcow2_cache *c, struct disk_queue *q, struct qcow2_slice *s)
{
    uint64_t size = c->file->info.size;
    uint64_t there = size > s->offset ? QZ_MIN(size - s->offset, (uint64_t)c->unit) : 0;

    memset(s->bytes + there, 0, c->unit - there);
    return there ? layer_read(c->file, q, s->offset, s->bytes, there) : 0;
}

int qcow2_cache_get(struct qcow2_cache *c, struct disk_queue *q, uint64_t offset,
                    enum qcow2_slice_class class, struct qcow2_slice **out)
{
    uint64_t start = QZ_ALIGN_DOWN(offset, c->unit);
    struct cache_shard *h = cache_shard_of(c, start);
    bool made;
    struct qcow2_slice *s = pinned(c, h, start, class, &made);
    int rc;

    if (!s)
        return -ENOMEM;
    if (made) {
        rc = load(c, q, s);
        loaded(h, s, rc);
    } else {
        rc = await(h, s);
    }
    if (rc) {
        qcow2_cache_put(c, s);
        return rc;
    }
    *out = s;
    return 0;
}

int qcow2_cache_get_new(struct qcow2_cache *c, uint64_t offset, enum qcow2_slice_class class,
                        struct qcow2_slice **out)
{
    struct cache_shard *h = cache_shard_of(c, offset);
    bool made;
    struct qcow2_slice *s = pinned(c, h, offset, class, &made);

    if (!s)
        return -ENOMEM;
    pthread_mutex_lock(&h->mutex);
    memset(s->bytes, 0, c->unit);
    if (s->dirty)
        cache_count_dirty(c, s, -1);
    s->class = class;
    s->dirty = true;
    cache_count_dirty(c, s, 1);
    pthread_mutex_unlock(&h->mutex);
    if (made)
        loaded(h, s, 0);
    *out = s;
    return 0;
}

void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_slice *s)
{
    struct cache_shard *h = cache_shard_of(c, s->offset);
    bool last;

    pthread_mutex_lock(&h->mutex);
    last = !--s->pins && (s->error || !s->hashed);
    if (last && s->hashed)
        cache_take_out(c, h, s);
    pthread_mutex_unlock(&h->mutex);
    if (last)
        cache_pool_give(c, s, false);
}

void qcow2_slice_read(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset, void *out,
                      uint32_t length)
{
    struct cache_shard *h = cache_shard_of(c, s->offset);

    pthread_mutex_lock(&h->mutex);
    memcpy(out, s->bytes + (offset - s->offset), length);
    pthread_mutex_unlock(&h->mutex);
}

void qcow2_slice_write(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset,
                       const void *bytes, uint32_t length)
{
    struct cache_shard *h = cache_shard_of(c, s->offset);

    pthread_mutex_lock(&h->mutex);
    memcpy(s->bytes + (offset - s->offset), bytes, length);
    if (!s->dirty && s->hashed) {
        s->dirty = true;
        cache_count_dirty(c, s, 1);
    }
    pthread_mutex_unlock(&h->mutex);
}

const uint8_t *qcow2_slice_bytes(const struct qcow2_slice *s)
{
    return s->bytes;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += c->unit) {
        struct cache_shard *h = cache_shard_of(c, at);
        struct qcow2_slice *s;
        bool give;

        pthread_mutex_lock(&h->mutex);
        s = cache_lookup(c, h, at);
        give = s && !s->pins;
        if (s)
            cache_take_out(c, h, s); /* a pinned one goes with its last pin */
        pthread_mutex_unlock(&h->mutex);
        if (give)
            cache_pool_give(c, s, false);
    }
}

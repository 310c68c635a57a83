/*
 * cache.c - see cache.h.
 *
 * Each struct slice owns its bytes for good: slices are made in chunks when the budget allows more
 * of them, go from the free list into a shard and back. A shrinking budget takes clean slices out
 * and gives their pages to the kernel (MADV_DONTNEED) while the addresses stay for later.
 *
 * Replacement is CLOCK by shard: a hit sets a mark, the hand takes marks away and takes what has
 * none. Order of locks: a shard's, then the pool's.
 */
#include "cache.h"
#include <stdatomic.h>
#include <sys/mman.h>

QZ_SYSCALLS(io, "mmap munmap madvise futex");
QZ_SYSCALLS(main, "madvise futex"); /* whoever sets the budget */

enum { SHARDS = 16, CHUNK_BYTES = 1 << 20, DIRTY_PERCENT = 40 };

struct waiter {
    struct task *task;
    struct waiter *next;
};

struct qcow2_slice {
    uint64_t offset;
    uint8_t *bytes;
    struct qcow2_slice *chain;         /* of the hash bucket, or of the free list */
    struct qcow2_slice *older, *newer; /* the clock's ring */
    struct waiter *waiters;            /* for loading */
    unsigned pins;
    int error;
    uint8_t class;
    bool loading, dirty, marked, hashed;
};

struct shard {
    _Alignas(64) pthread_mutex_t mutex;
    struct qcow2_slice **buckets;
    unsigned bucket_mask, count;
    struct qcow2_slice *hand;
};

struct chunk {
    struct chunk *next;
    uint8_t *bytes;
    size_t length;
    struct qcow2_slice slices[];
};

struct qcow2_cache {
    struct shard shards[SHARDS];
    struct layer *file;
    uint32_t unit, unit_bits;
    _Atomic uint64_t budget, used;                 /* bytes; used: of slices in shards */
    _Atomic uint64_t dirty;                        /* slices */
    _Atomic uint32_t classes[QCOW2_SLICE_CLASSES]; /* of them, by class */
    pthread_mutex_t pool_mutex;
    struct qcow2_slice *pool;
    struct chunk *chunks;
};

static uint64_t hash(const struct qcow2_cache *c, uint64_t offset)
{
    return (offset >> c->unit_bits) * 0x9e3779b97f4a7c15ull;
}

static struct shard *shard_of(struct qcow2_cache *c, uint64_t offset)
{
    return &c->shards[hash(c, offset) >> 60];
}

static struct qcow2_slice **bucket_of(struct qcow2_cache *c, struct shard *h, uint64_t offset)
{
    return &h->buckets[(hash(c, offset) >> 20) & h->bucket_mask];
}

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
    for (int i = 0; i < SHARDS; i++) {
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
    for (int i = 0; i < SHARDS; i++)
        free(c->shards[i].buckets);
    while (c->chunks) {
        struct chunk *k = c->chunks;

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

/* ---- the pool of slices that hold nothing */

static int pool_grow(struct qcow2_cache *c)
{
    unsigned n = QZ_MAX(1u, CHUNK_BYTES / c->unit);
    struct chunk *k = calloc(1, sizeof(*k) + n * sizeof(k->slices[0]));

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

static struct qcow2_slice *pool_take(struct qcow2_cache *c)
{
    struct qcow2_slice *s;

    QZ_LOCKED(&c->pool_mutex);
    if (!c->pool && pool_grow(c))
        return NULL;
    s = c->pool;
    c->pool = s->chain;
    return s;
}

static void pool_give(struct qcow2_cache *c, struct qcow2_slice *s, bool give_pages)
{
    if (give_pages && c->unit >= 4096)
        madvise(s->bytes, c->unit, MADV_DONTNEED);
    QZ_LOCKED(&c->pool_mutex);
    s->chain = c->pool;
    c->pool = s;
}

/* ---- one shard; its mutex is held */

static void count_dirty(struct qcow2_cache *c, const struct qcow2_slice *s, int delta)
{
    c->dirty += (uint64_t)(int64_t)delta;
    c->classes[s->class] += (uint32_t)delta;
}

static struct qcow2_slice *lookup(struct qcow2_cache *c, struct shard *h, uint64_t offset)
{
    struct qcow2_slice *s = *bucket_of(c, h, offset);

    while (s && s->offset != offset)
        s = s->chain;
    return s;
}

static void rehash(struct qcow2_cache *c, struct shard *h)
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

static void insert(struct qcow2_cache *c, struct shard *h, struct qcow2_slice *s)
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

static void take_out(struct qcow2_cache *c, struct shard *h, struct qcow2_slice *s)
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
        count_dirty(c, s, -1);
    }
    h->count--;
    c->used -= c->unit;
}

static struct qcow2_slice *victim(struct shard *h)
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
static void shrink(struct qcow2_cache *c, unsigned first, uint64_t limit, bool give_pages)
{
    for (unsigned i = 0; i < SHARDS && c->used > limit; i++) {
        struct shard *h = &c->shards[(first + i) % SHARDS];
        struct qcow2_slice *s;

        do {
            pthread_mutex_lock(&h->mutex);
            s = victim(h);
            if (s)
                take_out(c, h, s);
            pthread_mutex_unlock(&h->mutex);
            if (s)
                pool_give(c, s, give_pages);
        } while (s && c->used > limit);
    }
}

void qcow2_cache_set_budget(struct qcow2_cache *c, uint64_t bytes)
{
    c->budget = QZ_MAX(bytes, 64ull << c->unit_bits);
    shrink(c, 0, c->budget, true);
}

void qcow2_cache_drop_clean(struct qcow2_cache *c)
{
    shrink(c, 0, 0, false);
}

bool qcow2_cache_peek(struct qcow2_cache *c, uint64_t offset, void *out, uint32_t length)
{
    uint64_t start = QZ_ALIGN_DOWN(offset, c->unit);
    struct shard *h = shard_of(c, start);
    struct qcow2_slice *s;
    bool found;

    pthread_mutex_lock(&h->mutex);
    s = lookup(c, h, start);
    found = s && !s->loading && !s->error;
    if (found) {
        memcpy(out, s->bytes + (offset - start), length);
        s->marked = true;
    }
    pthread_mutex_unlock(&h->mutex);
    return found;
}

/* The slice at `start`, pinned: the one that is there, or a new one (*made) that is loading. */
static struct qcow2_slice *pinned(struct qcow2_cache *c, struct shard *h, uint64_t start,
                                  enum qcow2_slice_class class, bool *made)
{
    struct qcow2_slice *s, *fresh = NULL;

    *made = false;
    pthread_mutex_lock(&h->mutex);
    s = lookup(c, h, start);
    if (!s) {
        pthread_mutex_unlock(&h->mutex);
        if (c->used + c->unit > c->budget)
            shrink(c, (unsigned)(h - c->shards), c->budget - c->unit, false);
        fresh = pool_take(c);
        if (!fresh)
            return NULL;
        pthread_mutex_lock(&h->mutex);
        s = lookup(c, h, start); /* somebody else may have been faster */
        if (!s) {
            s = fresh;
            fresh = NULL;
            *s = (struct qcow2_slice){
                .offset = start, .bytes = s->bytes, .class = class, .loading = true};
            insert(c, h, s);
            *made = true;
        }
    }
    s->pins++;
    s->marked = true;
    pthread_mutex_unlock(&h->mutex);
    if (fresh)
        pool_give(c, fresh, false);
    return s;
}

static void loaded(struct shard *h, struct qcow2_slice *s, int error)
{
    struct waiter *w;

    pthread_mutex_lock(&h->mutex);
    s->loading = false;
    s->error = error;
    w = QZ_TAKE_PTR(s->waiters);
    pthread_mutex_unlock(&h->mutex);
    while (w) {
        struct waiter *next = w->next; /* w lives on the stack of the task that goes on */

        task_resume(w->task);
        w = next;
    }
}

/* Waits for somebody else's loading. */
static int await(struct shard *h, struct qcow2_slice *s)
{
    struct waiter me = {.task = task_current()};
    bool wait;
    int error;

    pthread_mutex_lock(&h->mutex);
    wait = s->loading;
    error = s->error;
    if (wait) {
        me.next = s->waiters;
        s->waiters = &me;
    }
    pthread_mutex_unlock(&h->mutex);
    if (!wait)
        return error;
    task_suspend();
    return s->error; /* set before the resume and final */
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
    struct shard *h = shard_of(c, start);
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
    struct shard *h = shard_of(c, offset);
    bool made;
    struct qcow2_slice *s = pinned(c, h, offset, class, &made);

    if (!s)
        return -ENOMEM;
    pthread_mutex_lock(&h->mutex);
    memset(s->bytes, 0, c->unit);
    if (s->dirty)
        count_dirty(c, s, -1);
    s->class = class;
    s->dirty = true;
    count_dirty(c, s, 1);
    pthread_mutex_unlock(&h->mutex);
    if (made)
        loaded(h, s, 0);
    *out = s;
    return 0;
}

void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_slice *s)
{
    struct shard *h = shard_of(c, s->offset);
    bool last;

    pthread_mutex_lock(&h->mutex);
    last = !--s->pins && (s->error || !s->hashed);
    if (last && s->hashed)
        take_out(c, h, s);
    pthread_mutex_unlock(&h->mutex);
    if (last)
        pool_give(c, s, false);
}

void qcow2_slice_read(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset, void *out,
                      uint32_t length)
{
    struct shard *h = shard_of(c, s->offset);

    pthread_mutex_lock(&h->mutex);
    memcpy(out, s->bytes + (offset - s->offset), length);
    pthread_mutex_unlock(&h->mutex);
}

void qcow2_slice_write(struct qcow2_cache *c, struct qcow2_slice *s, uint64_t offset,
                       const void *bytes, uint32_t length)
{
    struct shard *h = shard_of(c, s->offset);

    pthread_mutex_lock(&h->mutex);
    memcpy(s->bytes + (offset - s->offset), bytes, length);
    if (!s->dirty && s->hashed) {
        s->dirty = true;
        count_dirty(c, s, 1);
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
        struct shard *h = shard_of(c, at);
        struct qcow2_slice *s;
        bool give;

        pthread_mutex_lock(&h->mutex);
        s = lookup(c, h, at);
        give = s && !s->pins;
        if (s)
            take_out(c, h, s); /* a pinned one goes with its last pin */
        pthread_mutex_unlock(&h->mutex);
        if (give)
            pool_give(c, s, false);
    }
}

/* ---- for the commit */

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct qcow2_copy *)a)->offset, y = ((const struct qcow2_copy *)b)->offset;

    return x < y ? -1 : x > y;
}

/* The copies of one take, growing. */
struct taking {
    struct qcow2_copy *copies;
    unsigned count, room;
};

static int take_one(struct qcow2_cache *c, struct taking *t, struct qcow2_slice *s)
{
    uint8_t *bytes;

    if (t->count == t->room) {
        unsigned room = t->room ? t->room * 2 : 32;
        struct qcow2_copy *copies = realloc(t->copies, room * sizeof(*copies));

        if (!copies)
            return -ENOMEM;
        t->copies = copies;
        t->room = room;
    }
    bytes = aligned_alloc(4096, QZ_ALIGN_UP(c->unit, 4096u));
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes, s->bytes, c->unit);
    t->copies[t->count++] = (struct qcow2_copy){s, s->offset, bytes};
    s->dirty = false;
    count_dirty(c, s, -1);
    s->pins++;
    return 0;
}

/* All of a shard's, under its mutex at once: what was dirty when the take began is in it. */
static int take_shard(struct qcow2_cache *c, struct shard *h, enum qcow2_slice_class class,
                      struct taking *t)
{
    int rc = 0;

    QZ_LOCKED(&h->mutex);
    for (unsigned n = 0; !rc && n < h->count; n++) {
        struct qcow2_slice *s = h->hand;

        h->hand = s->newer;
        if (s->dirty && s->class == class)
            rc = take_one(c, t, s);
    }
    return rc;
}

int qcow2_cache_take_dirty(struct qcow2_cache *c, enum qcow2_slice_class class,
                           struct qcow2_copy **out)
{
    struct taking t = {0};
    int rc = 0;

    for (unsigned i = 0; !rc && i < SHARDS && c->classes[class]; i++)
        rc = take_shard(c, &c->shards[i], class, &t);
    if (rc) {
        qcow2_cache_give_dirty(c, t.copies, t.count, true);
        return rc;
    }
    if (t.count)
        qsort(t.copies, t.count, sizeof(*t.copies), by_offset);
    *out = t.copies;
    return (int)t.count;
}

void qcow2_cache_give_dirty(struct qcow2_cache *c, struct qcow2_copy *copies, unsigned count,
                            bool failed)
{
    for (unsigned i = 0; i < count; i++) {
        struct qcow2_slice *s = copies[i].slice;
        struct shard *h = shard_of(c, s->offset);

        pthread_mutex_lock(&h->mutex);
        if (failed && s->hashed && !s->dirty) {
            s->dirty = true;
            count_dirty(c, s, 1);
        }
        pthread_mutex_unlock(&h->mutex);
        qcow2_cache_put(c, s);
        free(copies[i].bytes);
    }
    free(copies);
    if (c->used > c->budget)
        shrink(c, 0, c->budget, true);
}

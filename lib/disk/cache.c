/*
 * cache.c - keeps blocks that were read in memory (filter.h).
 *
 * Theory of operation. Lines of 4 KiB, divided by their number between shards, so that queues
 * rarely meet. A read whose lines are all there is copied and done; any other goes down whole and
 * its lines are kept when it comes back. A change goes down too and takes its lines out, once when
 * it begins and once when it has ended: what a read brings in between is either gone again or was
 * read after. What a read brings back is not kept when a change of one of its lines began or ended
 * meanwhile: each shard counts both, by a hash of the line (`epoch`).
 *
 * A shard's lines lie in one mapping that is reserved for the largest budget and used from its
 * beginning. A smaller budget drops the lines behind it and gives their memory to the kernel at
 * once; that takes a tenth of the time in huge pages, which are asked for inside of the budget. Not
 * in a shard's first one: a huge page that is cut stays whole until the kernel lacks memory.
 */
#include "filter.h"

QZ_SYSCALLS(io, "madvise");
QZ_SYSCALLS(main, "madvise munmap");

enum { HUGE = 2 << 20, LINE = 4096, SHARDS = 16, EPOCHS = 1024, READ_MAX = 128 << 10 };
#define BUDGET_MAX (16ull << 30)

#define NONE UINT32_MAX

struct line {
    uint64_t number; /* of the disk's line */
    uint32_t next;   /* in its bucket, or free */
    bool used, recent;
};

struct shard {
    pthread_mutex_t lock;
    uint8_t *bytes;    /* of lines_max lines */
    struct line *line; /* lines_max */
    uint32_t *bucket;  /* lines_max; a power of two */
    uint32_t limit;    /* lines that may be used */
    uint32_t fresh;    /* lines below were used once */
    uint32_t free;     /* list */
    uint32_t hand;     /* of the clock that evicts */
    uint32_t epoch[EPOCHS];
} __attribute__((aligned(64)));

struct cache {
    struct layer l;
    uint32_t lines_max; /* of a shard */
    struct shard shard[SHARDS];
};

static struct cache *cache_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct cache, l);
}

static struct shard *shard_of(struct cache *c, uint64_t number)
{
    return &c->shard[number / 8 % SHARDS]; /* neighbours together */
}

static uint64_t hash(uint64_t number)
{
    return number * 0x9e3779b97f4a7c15ull >> 32;
}

static uint32_t *bucket_of(const struct cache *c, struct shard *s, uint64_t number)
{
    return &s->bucket[hash(number) & (c->lines_max - 1)];
}

static uint32_t *epoch_of(struct shard *s, uint64_t number)
{
    return &s->epoch[hash(number) >> 8 & (EPOCHS - 1)];
}

static uint8_t *bytes_of(struct shard *s, uint32_t i)
{
    return s->bytes + (size_t)i * LINE;
}

/* ---- a shard's lines; lock held */

static uint32_t find(struct cache *c, struct shard *s, uint64_t number)
{
    uint32_t i = *bucket_of(c, s, number);

    while (i != NONE && s->line[i].number != number)
        i = s->line[i].next;
    return i;
}

static void drop(struct cache *c, struct shard *s, uint32_t i)
{
    uint32_t *p = bucket_of(c, s, s->line[i].number);

    while (*p != i)
        p = &s->line[*p].next;
    *p = s->line[i].next;
    s->line[i].used = false;
    s->line[i].next = s->free;
    s->free = i;
}

/* A line to be filled, evicted if needed; NONE: the budget is nothing. */
static uint32_t take(struct cache *c, struct shard *s)
{
    uint32_t i;

    if (s->free == NONE && s->fresh < s->limit)
        return s->fresh++;
    while (s->free == NONE && s->limit) {
        s->hand = (s->hand + 1) % s->limit;
        if (s->line[s->hand].used && !s->line[s->hand].recent)
            drop(c, s, s->hand);
        s->line[s->hand].recent = false;
    }
    i = s->free;
    if (i != NONE)
        s->free = s->line[i].next;
    return i;
}

static void insert(struct cache *c, struct shard *s, uint64_t number, const struct request *r)
{
    uint32_t i = find(c, s, number), *bucket;

    if (i != NONE || (i = take(c, s)) == NONE)
        return;
    iov_to_flat(bytes_of(s, i), r->iov, r->iov_count, number * LINE - r->offset, LINE);
    bucket = bucket_of(c, s, number);
    s->line[i] = (struct line){number, *bucket, true, false};
    *bucket = i;
}

/* ---- requests */

/* A number that changes when a change of one of these lines begins or ends. */
static uint64_t epochs(struct cache *c, uint64_t first, uint64_t end)
{
    uint64_t sum = 0;

    for (uint64_t n = first; n < end; n++)
        sum += __atomic_load_n(epoch_of(shard_of(c, n), n), __ATOMIC_SEQ_CST);
    return sum;
}

static bool copy_line(struct cache *c, uint64_t number, const struct request *r)
{
    struct shard *s = shard_of(c, number);
    uint64_t start = QZ_MAX(number * LINE, r->offset),
             end = QZ_MIN((number + 1) * LINE, r->offset + r->length);
    uint32_t i;

    QZ_LOCKED(&s->lock);
    i = find(c, s, number);
    if (i == NONE)
        return false;
    s->line[i].recent = true;
    iov_from_flat(r->iov, r->iov_count, start - r->offset, bytes_of(s, i) + start % LINE,
                  end - start);
    return true;
}

/* The whole lines in the request. */
static uint64_t first_whole(const struct request *r)
{
    return (r->offset + LINE - 1) / LINE;
}

static uint64_t end_whole(const struct request *r)
{
    return (r->offset + r->length) / LINE;
}

static void on_read(struct request *r, int result)
{
    struct child *child = QZ_CONTAINER_OF(r, struct child, r);
    struct cache *c = cache_of(child->l);

    for (uint64_t n = first_whole(r); result == 0 && n < end_whole(r); n++) {
        struct shard *s = shard_of(c, n);

        QZ_LOCKED(&s->lock);
        /* Under the lock, which a change takes too before its lines go. */
        if (epochs(c, first_whole(r), end_whole(r)) == (uint64_t)child->note)
            insert(c, s, n, r);
    }
    child_end(child, result);
}

static void serve_read(struct cache *c, struct disk_queue *q, struct request *r)
{
    uint64_t n = r->offset / LINE, end = (r->offset + r->length + LINE - 1) / LINE;
    struct child *child;

    while (n < end && copy_line(c, n, r))
        n++;
    if (n == end) {
        r->done(r, 0);
        return;
    }
    child = child_new(&c->l, q, r, on_read);
    if (!child)
        return;
    child->note = (int64_t)epochs(c, first_whole(r), end_whole(r));
    layer_submit(c->l.below, q, &child->r);
}

static void forget_line(struct cache *c, uint64_t number)
{
    struct shard *s = shard_of(c, number);
    uint32_t i;

    QZ_LOCKED(&s->lock);
    __atomic_add_fetch(epoch_of(s, number), 1, __ATOMIC_SEQ_CST);
    i = find(c, s, number);
    if (i != NONE)
        drop(c, s, i);
}

/* The same for a range with more lines than a shard has room for: looks at what is there. */
static void forget_many(struct cache *c, uint64_t first, uint64_t end)
{
    for (unsigned k = 0; k < SHARDS; k++) {
        struct shard *s = &c->shard[k];

        QZ_LOCKED(&s->lock);
        for (unsigned i = 0; i < EPOCHS; i++)
            __atomic_add_fetch(&s->epoch[i], 1, __ATOMIC_SEQ_CST);
        for (uint32_t i = 0; i < s->fresh; i++)
            if (s->line[i].used && s->line[i].number >= first && s->line[i].number < end)
                drop(c, s, i);
    }
}

static void cache_forget(struct layer *l)
{
    forget_many(cache_of(l), 0, UINT64_MAX);
}

static void forget(struct cache *c, const struct request *r)
{
    uint64_t first = r->offset / LINE, end = (r->offset + r->length + LINE - 1) / LINE;

    if (end - first > c->lines_max) {
        forget_many(c, first, end);
        return;
    }
    for (uint64_t n = first; n < end; n++)
        forget_line(c, n);
}

static void on_change(struct request *r, int result)
{
    struct child *child = QZ_CONTAINER_OF(r, struct child, r);

    forget(cache_of(child->l), r);
    child_end(child, result);
}

static void cache_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct cache *c = cache_of(l);
    struct child *child;

    if (r->op == DISK_FLUSH || (r->op == DISK_READ && r->length > READ_MAX)) {
        layer_submit(l->below, q, r);
    } else if (r->op == DISK_READ) {
        serve_read(c, q, r);
    } else if ((child = child_new(l, q, r, on_change))) {
        forget(c, r);
        layer_submit(l->below, q, &child->r);
    }
}

/* ---- the budget */

static void shard_limit(struct cache *c, struct shard *s, uint32_t limit)
{
    size_t huge_end = QZ_ALIGN_DOWN((size_t)limit * LINE, (size_t)HUGE);
    uint32_t old;

    QZ_LOCKED(&s->lock);
    old = s->limit;
    s->limit = limit;
    s->hand = 0;
    if (limit > old && huge_end > HUGE)
        madvise(s->bytes + HUGE, huge_end - HUGE, MADV_HUGEPAGE);
    if (limit >= s->fresh)
        return;
    for (uint32_t i = limit; i < s->fresh; i++)
        if (s->line[i].used)
            drop(c, s, i);
    /* The free list again, without what lies behind the limit. */
    s->free = NONE;
    for (uint32_t i = 0; i < limit; i++) {
        if (!s->line[i].used) {
            s->line[i].next = s->free;
            s->free = i;
        }
    }
    s->fresh = limit;
    madvise(bytes_of(s, limit), (size_t)(old - limit) * LINE, MADV_DONTNEED);
}

static void cache_set_memory(struct layer *l, uint64_t bytes)
{
    struct cache *c = cache_of(l);
    uint32_t limit = (uint32_t)QZ_MIN(bytes / LINE / SHARDS, (uint64_t)c->lines_max);

    for (unsigned i = 0; i < SHARDS; i++)
        shard_limit(c, &c->shard[i], limit);
}

/* Begins where a huge page does. */
static void *reserve(size_t wanted)
{
    size_t bytes = QZ_ALIGN_UP(wanted, (size_t)sysconf(_SC_PAGESIZE)), alignment = HUGE, before;
    uint8_t *p = mmap(NULL, bytes + alignment, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    before = (size_t)(-(uintptr_t)p & (alignment - 1));
    if (before)
        munmap(p, before);
    munmap(p + before + bytes, alignment - before);
    return p + before;
}

static void give(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

static void cache_free(struct layer *l)
{
    struct cache *c = cache_of(l);

    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &c->shard[i];

        give(s->bytes, (size_t)c->lines_max * LINE);
        give(s->line, c->lines_max * sizeof(*s->line));
        give(s->bucket, c->lines_max * sizeof(*s->bucket));
        pthread_mutex_destroy(&s->lock);
    }
    free(c);
}

static const struct layer_ops cache_ops = {
    .name = "cache",
    .submit = cache_submit,
    .map = filter_map,
    .resize = filter_resize,
    .set_memory = cache_set_memory,
    .forget = cache_forget,
    .free = cache_free,
};

static bool make_shard(struct cache *c, struct shard *s)
{
    pthread_mutex_init(&s->lock, NULL);
    s->bytes = reserve((size_t)c->lines_max * LINE);
    s->line = reserve(c->lines_max * sizeof(*s->line));
    s->bucket = reserve(c->lines_max * sizeof(*s->bucket));
    s->free = NONE;
    if (s->bucket)
        memset(s->bucket, 0xff, c->lines_max * sizeof(*s->bucket));
    return s->bytes && s->line && s->bucket;
}

int cache_open(struct layer **l, struct layer *below, uint64_t bytes, uint64_t most,
               struct qz_error *err)
{
    struct cache *c = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*c), (size_t)64));
    uint64_t lines = QZ_MIN(QZ_MAX(bytes, most), BUDGET_MAX) / LINE / SHARDS;
    bool ok = true;

    if (!c)
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    memset(c, 0, sizeof(*c));
    filter_init(&c->l, &cache_ops, below);
    c->lines_max = 64;
    while (c->lines_max < lines)
        c->lines_max *= 2;
    for (unsigned i = 0; i < SHARDS; i++)
        ok &= make_shard(c, &c->shard[i]);
    if (!ok) {
        cache_free(&c->l);
        return qz_fail(err, -ENOMEM, "%s: no address space for a cache of %llu bytes", below->label,
                       (unsigned long long)bytes);
    }
    cache_set_memory(&c->l, bytes);
    *l = &c->l;
    return 0;
}

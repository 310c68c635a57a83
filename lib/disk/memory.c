/*
 * memory.c - disks in memory (memory.h).
 *
 * What is there now lies in one mapping, what a power cut cannot take in another. A record keeps
 * the bytes of one change; a flush moves the records' effect to the stable mapping and forgets
 * them.
 */
#include "memory.h"
#include "queue.h"

enum { SECTOR = 512 };

struct record {
    struct record *next;
    uint64_t offset, length;
    bool resize; /* offset is the new size */
    uint8_t bytes[];
};

struct memory {
    struct layer l;
    struct memory_options options;
    pthread_mutex_t lock;
    uint8_t *bytes, *stable;
    uint64_t stable_size;
    struct record *records, **last;
    size_t count;
};

/* A request that is done later; lies in its scratch. */
struct later {
    struct queue_work work;
    int64_t result;
};
_Static_assert(sizeof(struct later) <= sizeof(((struct request *)0)->scratch), "must fit");

static struct memory *memory_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct memory, l);
}

uint8_t *memory_bytes(struct layer *l)
{
    return memory_of(l)->bytes;
}

size_t memory_unflushed(struct layer *l)
{
    return memory_of(l)->count;
}

/* ---- records */

static int record(struct memory *m, uint64_t offset, uint64_t length, bool resize)
{
    struct record *r;

    if (!m->options.records)
        return 0;
    r = malloc(sizeof(*r) + length);
    if (!r)
        return -ENOMEM;
    *r = (struct record){.offset = offset, .length = length, .resize = resize};
    memcpy(r->bytes, m->bytes + offset * !resize, length);
    *m->last = r;
    m->last = &r->next;
    m->count++;
    return 0;
}

static void forget(struct memory *m)
{
    while (m->records) {
        struct record *r = m->records;

        m->records = r->next;
        free(r);
    }
    m->last = &m->records;
    m->count = 0;
}

static void flush(struct memory *m)
{
    for (struct record *r = m->records; r; r = r->next)
        memcpy(m->stable + r->offset * !r->resize, r->bytes, r->length);
    m->stable_size = m->l.info.size;
    forget(m);
}

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull); /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* How much of the unflushed survives is drawn first, so that "nearly all" and "nearly nothing"
 * come as often as the middle. */
static void survive(const struct memory *m, struct memory *after, uint64_t seed)
{
    uint64_t random = seed, share = random_next(&random) % 101, size = m->stable_size, end = 0;

    for (const struct record *r = m->records; r; r = r->next) {
        if (r->resize) {
            if (random_next(&random) % 100 < share)
                size = r->offset;
            continue;
        }
        for (uint64_t at = 0; at < r->length;) {
            uint64_t n = QZ_MIN(r->length - at, SECTOR - (r->offset + at) % SECTOR);

            if (random_next(&random) % 100 < share) {
                memcpy(after->bytes + r->offset + at, r->bytes + at, n);
                end = QZ_MAX(end, r->offset + at + n);
            }
            at += n;
        }
    }
    after->l.info.size = QZ_MAX(size, end);
}

int memory_power_cut(struct layer *l, uint64_t seed, struct layer **out, struct qz_error *err)
{
    struct memory *m = memory_of(l), *after;
    int r = memory_open(out, &m->options, err);

    if (r < 0)
        return r;
    after = memory_of(*out);
    QZ_LOCKED(&m->lock);
    memcpy(after->bytes, m->stable, m->options.size_max);
    survive(m, after, seed);
    memcpy(after->stable, after->bytes, m->options.size_max);
    after->stable_size = after->l.info.size;
    return 0;
}

/* ---- requests */

static int apply(struct memory *m, const struct request *r)
{
    if (r->op == DISK_FLUSH) {
        flush(m);
        return 0;
    }
    if (r->offset > m->l.info.size || r->length > m->l.info.size - r->offset)
        return -EINVAL;
    switch (r->op) {
    case DISK_READ:
        iov_from_flat(r->iov, r->iov_count, 0, m->bytes + r->offset, r->length);
        return 0;
    case DISK_WRITE:
        iov_to_flat(m->bytes + r->offset, r->iov, r->iov_count, 0, r->length);
        break;
    default:
        memset(m->bytes + r->offset, 0, r->length);
    }
    return record(m, r->offset, r->length, false);
}

static void on_later(struct queue_work *w)
{
    struct later *later = QZ_CONTAINER_OF(w, struct later, work);
    struct request *r = (struct request *)((char *)later - offsetof(struct request, scratch));

    r->done(r, (int)later->result);
}

static void memory_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct memory *m = memory_of(l);
    struct later *later = (struct later *)r->scratch;
    int result;

    pthread_mutex_lock(&m->lock);
    result = apply(m, r);
    if (result == 0 && r->op == DISK_WRITE && r->flags & REQUEST_FUA)
        flush(m);
    pthread_mutex_unlock(&m->lock);
    if (!m->options.defers) {
        r->done(r, result);
        return;
    }
    *later = (struct later){{.run = on_later}, result};
    queue_post(q, &later->work);
}

static int memory_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    struct memory *m = memory_of(l);

    if (size > m->options.size_max)
        return qz_fail(err, -ENOSPC, "%s: no room for %llu bytes", l->label,
                       (unsigned long long)size);
    QZ_LOCKED(&m->lock);
    if (size < l->info.size)
        memset(m->bytes + size, 0, l->info.size - size);
    __atomic_store_n(&l->info.size, size, __ATOMIC_RELAXED); /* other queues look at it */
    return record(m, size, 0, true) < 0 ? qz_fail(err, -ENOMEM, "%s: no memory", l->label) : 0;
}

static void memory_free(struct layer *l)
{
    struct memory *m = memory_of(l);

    forget(m);
    if (m->bytes)
        munmap(m->bytes, QZ_MAX(m->options.size_max, (uint64_t)1));
    if (m->stable)
        munmap(m->stable, QZ_MAX(m->options.size_max, (uint64_t)1));
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct layer_ops memory_ops = {
    .name = "memory",
    .submit = memory_submit,
    .resize = memory_resize,
    .free = memory_free,
};

static uint8_t *map_zeroes(uint64_t size)
{
    void *p = mmap(NULL, QZ_MAX(size, (uint64_t)1), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int memory_open(struct layer **out, const struct memory_options *o, struct qz_error *err)
{
    struct memory *m = calloc(1, sizeof(*m));

    if (!m)
        return qz_fail(err, -ENOMEM, "memory: no memory");
    m->options = *o;
    m->options.size_max = QZ_MAX(o->size, o->size_max);
    m->last = &m->records;
    pthread_mutex_init(&m->lock, NULL);
    m->bytes = map_zeroes(m->options.size_max);
    m->stable = map_zeroes(m->options.size_max);
    m->stable_size = o->size;
    m->l = (struct layer){
        .ops = &memory_ops,
        .label = "memory",
        .info = {.size = o->size,
                 .alignment = QZ_MAX(o->alignment, 1u),
                 .memory_alignment = 1,
                 .preferred = 4096,
                 .discard = true,
                 .write_zeroes = true},
    };
    if (!m->bytes || !m->stable) {
        memory_free(&m->l);
        return qz_fail(err, -ENOMEM, "memory: no memory for %llu bytes",
                       (unsigned long long)o->size_max);
    }
    *out = &m->l;
    return 0;
}

/* ---- nothing */

static void null_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    if (r->op == DISK_READ)
        iov_fill(r->iov, r->iov_count, 0, 0, r->length);
    r->done(r, 0);
}

static int null_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                    struct extent *e)
{
    *e = (struct extent){.length = length, .state = EXTENT_UNALLOCATED};
    return 0;
}

static void null_free(struct layer *l)
{
    free(l);
}

int null_open(struct layer **out, uint64_t size, struct qz_error *err)
{
    static const struct layer_ops ops = {
        .name = "null", .submit = null_submit, .map = null_map, .free = null_free};
    struct layer *l = calloc(1, sizeof(*l));

    if (!l)
        return qz_fail(err, -ENOMEM, "null: no memory");
    *l = (struct layer){
        .ops = &ops,
        .label = "null",
        .info = {.size = size,
                 .alignment = 1,
                 .memory_alignment = 1,
                 .preferred = 4096,
                 .discard = true,
                 .write_zeroes = true},
    };
    *out = l;
    return 0;
}

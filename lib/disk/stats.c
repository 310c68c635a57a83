/*
 * stats.c - counts requests and their latencies (filter.h).
 *
 * Each queue has counters of its own, written with plain stores by its thread and summed by whoever
 * asks. A histogram has eight buckets for every power of two, so a percentile is right to 12 %.
 */
#include "filter.h"

struct counters {
    struct stats_op op[DISK_OPS];
};

struct stats {
    struct layer l;
    struct counters *queue[DISK_QUEUES_MAX]; /* set once by the queue's thread */
};

enum { SUB = 8, SUB_BITS = 3 };

unsigned stats_bucket(uint64_t ns)
{
    unsigned top;

    if (ns < SUB)
        return (unsigned)ns;
    top = 63 - (unsigned)__builtin_clzll(ns);
    return (top - SUB_BITS + 1) * SUB + (unsigned)(ns >> (top - SUB_BITS) & (SUB - 1));
}

uint64_t stats_bucket_ns(unsigned bucket)
{
    unsigned group = bucket / SUB, sub = bucket % SUB;

    return group == 0 ? sub : (uint64_t)(SUB + sub) << (group - 1);
}

static void add(uint64_t *counter, uint64_t n)
{
    /* One writer; readers see old or new. */
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static struct counters *counters_of(struct stats *s, struct disk_queue *q)
{
    struct counters **c = &s->queue[queue_index(q)];

    if (!*c)
        __atomic_store_n(c, calloc(1, sizeof(**c)), __ATOMIC_RELEASE); /* pairs with stats_get */
    return *c;
}

static void on_done(struct request *r, int result)
{
    struct child *c = QZ_CONTAINER_OF(r, struct child, r);
    struct counters *counters = counters_of(QZ_CONTAINER_OF(c->l, struct stats, l), c->q);

    if (counters) {
        struct stats_op *op = &counters->op[r->op];
        uint64_t ns = (uint64_t)(qz_now_ns() - c->note);

        add(&op->count, 1);
        add(&op->bytes, r->length);
        add(&op->errors, result < 0);
        add(&op->total_ns, ns);
        add(&op->latency[QZ_MIN(stats_bucket(ns), STATS_BUCKETS - 1u)], 1);
    }
    child_end(c, result);
}

static void stats_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct child *c = child_new(l, q, r, on_done);

    if (!c)
        return;
    c->note = qz_now_ns();
    layer_submit(l->below, q, &c->r);
}

void stats_get(struct layer *l, enum disk_op op, struct stats_op *out)
{
    struct stats *s = QZ_CONTAINER_OF(l, struct stats, l);

    *out = (struct stats_op){0};
    for (unsigned i = 0; i < DISK_QUEUES_MAX; i++) {
        const struct counters *c = __atomic_load_n(&s->queue[i], __ATOMIC_ACQUIRE);
        const struct stats_op *from = c ? &c->op[op] : NULL;

        if (!c)
            continue;
        out->count += __atomic_load_n(&from->count, __ATOMIC_RELAXED);
        out->bytes += __atomic_load_n(&from->bytes, __ATOMIC_RELAXED);
        out->errors += __atomic_load_n(&from->errors, __ATOMIC_RELAXED);
        out->total_ns += __atomic_load_n(&from->total_ns, __ATOMIC_RELAXED);
        for (unsigned b = 0; b < STATS_BUCKETS; b++)
            out->latency[b] += __atomic_load_n(&from->latency[b], __ATOMIC_RELAXED);
    }
}

uint64_t stats_percentile(const struct stats_op *s, double share)
{
    uint64_t all = 0, seen = 0;

    for (unsigned b = 0; b < STATS_BUCKETS; b++)
        all += s->latency[b];
    for (unsigned b = 0; b < STATS_BUCKETS; b++) {
        seen += s->latency[b];
        if (seen && (double)seen >= share * (double)all)
            return stats_bucket_ns(b + 1) - 1;
    }
    return 0;
}

static void stats_free(struct layer *l)
{
    struct stats *s = QZ_CONTAINER_OF(l, struct stats, l);

    for (unsigned i = 0; i < DISK_QUEUES_MAX; i++)
        free(s->queue[i]);
    free(s);
}

static const struct layer_ops stats_ops = {
    .name = "stats",
    .submit = stats_submit,
    .map = filter_map,
    .resize = filter_resize,
    .free = stats_free,
};

int stats_open(struct layer **l, struct layer *below, struct qz_error *err)
{
    struct stats *s = calloc(1, sizeof(*s));

    if (!s)
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    filter_init(&s->l, &stats_ops, below);
    *l = &s->l;
    return 0;
}

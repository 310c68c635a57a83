/*
 * filter.h - layers that pass requests on and do something beside it.
 *
 * A filter shows what the layer below shows. One that wants to know how a request ended sends a
 * child request of its own down; one that does not hands the request itself on.
 */
#ifndef DISK_FILTER_H
#define DISK_FILTER_H

#include "layer.h"
#include "queue.h"

/* Everything as below: info, label. */
void filter_init(struct layer *l, const struct layer_ops *ops, struct layer *below);
/* The same over another layer; what the filter itself adds to its info is the caller's to add. */
void filter_put_over(struct layer *l, struct layer *below);

/* Ready-made operations. */
void filter_submit(struct layer *l, struct disk_queue *q, struct request *r);
int filter_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
               struct extent *e);
int filter_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err);

/* A copy of a request on its way down; from the queue's blocks. */
struct child {
    struct request r;
    struct request *parent;
    struct layer *l;
    struct disk_queue *q;
    struct queue_timer timer;
    int64_t note; /* the filter's own */
};
_Static_assert(sizeof(struct child) <= QUEUE_BLOCK, "must fit");

/* NULL: no memory, and the parent was told so. */
struct child *child_new(struct layer *l, struct disk_queue *q, struct request *parent,
                        void (*done)(struct request *r, int result));
/* Gives the child back, then ends its parent. */
void child_end(struct child *c, int result);

/* ---- the filters. They do not own the layer below. */

/* Takes requests of any alignment over a layer that does not (align.c). A write that ends inside
 * the last block makes the file longer, up to a whole block. */
int align_open(struct layer **l, struct layer *below, struct qz_error *err);

/* Keeps up to `bytes` of what was read; set_memory() changes that, up to `most` (cache.c). */
int cache_open(struct layer **l, struct layer *below, uint64_t bytes, uint64_t most,
               struct qz_error *err);

/* Errors and latency by rules, for tests (inject.c). */
int inject_open(struct layer **l, struct layer *below, const char *rules, struct qz_error *err);
int inject_check(const char *rules, struct qz_error *err); /* only whether the rules are rules */

/* Secure erase by overwriting in place (erase.c). */
int erase_open(struct layer **l, struct layer *below, struct qz_error *err);

/* Counts and latencies (stats.c). */
enum { STATS_BUCKETS = 64 * 8 };
struct stats_op {
    uint64_t count, bytes, errors, total_ns;
    uint64_t latency[STATS_BUCKETS]; /* bucket i: from stats_bucket_ns(i) on */
};
int stats_open(struct layer **l, struct layer *below, struct qz_error *err);
/* Sum over all queues; any thread, a little behind. */
void stats_get(struct layer *l, enum disk_op op, struct stats_op *out);
uint64_t stats_bucket_ns(unsigned bucket);
/* The latency that this share (0..1) of the requests did not exceed. */
uint64_t stats_percentile(const struct stats_op *s, double share);
/* For others that keep a histogram. */
unsigned stats_bucket(uint64_t ns);

/* Rate limits (throttle.c). 0: none. bursts: what may come at once after a pause, beyond a tenth
 * of a second's worth. */
enum throttle_kind {
    THROTTLE_OPS,
    THROTTLE_READ_OPS,
    THROTTLE_WRITE_OPS,
    THROTTLE_BYTES,
    THROTTLE_READ_BYTES,
    THROTTLE_WRITE_BYTES,
    THROTTLE_KINDS,
};
struct throttle_limits {
    uint64_t rate[THROTTLE_KINDS], burst[THROTTLE_KINDS];
};
/* group: disks of this process with the same name share one set of limits, the first one's; NULL: a
 * set of its own. */
int throttle_open(struct layer **l, struct layer *below, const struct throttle_limits *limits,
                  const char *group, struct qz_error *err);
/* From now on, for the whole group; any thread. */
void throttle_set(struct layer *l, const struct throttle_limits *limits);

#endif

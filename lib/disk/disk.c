/* disk.c - opening disks, their queues and requests (<queztl/disk.h>). */
#include <assert.h>

#include "disk_internal.h"
#include "file.h"
#include "server.h"

enum { CONTROL_DEPTH = 16 };

_Static_assert((int)QZ_DISK_OPS == (int)DISK_OPS && (int)QZ_DISK_DISCARD == (int)DISK_DISCARD &&
                   (int)QZ_DISK_WRITE_ZEROES == (int)DISK_WRITE_ZEROES,
               "the same numbers");
_Static_assert((int)QZ_DISK_FUA == (int)REQUEST_FUA &&
                   (int)QZ_DISK_MAY_UNMAP == (int)REQUEST_MAY_UNMAP &&
                   (int)QZ_DISK_NO_FALLBACK == (int)REQUEST_NO_FALLBACK &&
                   (int)QZ_DISK_SECURE == (int)REQUEST_SECURE,
               "the same bits");
_Static_assert((int)QZ_DISK_COMPRESSED == (int)EXTENT_COMPRESSED &&
                   (int)QZ_DISK_HOLE == (int)EXTENT_UNALLOCATED,
               "the same numbers");
_Static_assert(sizeof(struct request) <= sizeof(((struct qz_disk_request *)0)->internal),
               "must fit");

int disk_run(int (*fn)(struct disk_queue *q, void *argument), void *argument, struct qz_error *err)
{
    struct disk_queue *q;
    int r = queue_new(&q, CONTROL_DEPTH, err);

    if (r < 0)
        return r;
    r = task_run(q, fn, argument);
    queue_free(q);
    return r;
}

/* ---- opening */

static void disk_free(struct qz_disk *d)
{
    if (d)
        options_clear(&d->inherited);
    free(d);
}

struct open_call {
    struct qz_disk *disk;
    struct options options;
    struct qz_error *err;
};

static int open_main(struct disk_queue *q, void *argument)
{
    struct open_call *c = argument;

    return chain_open(&c->disk->chain, &c->options, false, q, c->err);
}

static void learn_lifetime(struct qz_disk *d)
{
    struct stat st;

    d->lifetime = (struct lifetime){-1, -1};
    if (file_stat(layer_lowest(d->chain.top), &st))
        lifetime_open(&d->lifetime, "/sys", &st);
}

int qz_disk_open(struct qz_disk **out, const char *options, struct qz_error *err)
{
    struct open_call c = {.err = err};
    uint64_t memory = 0;
    int r = options_parse(&c.options, options, "file", err);

    if (r < 0)
        return r;
    if ((r = disk_keys_check(&c.options, err)) < 0) {
        options_clear(&c.options);
        return r;
    }
    c.disk = calloc(1, sizeof(*c.disk));
    if (!c.disk)
        r = qz_fail(err, -ENOMEM, "disk: no memory");
    else if (overlay_inherit(&c.disk->inherited, &c.options) < 0)
        r = qz_fail(err, -ENOMEM, "disk: no memory");
    else if ((r = options_size(&c.options, "memory", &memory, err)) == 0)
        r = disk_run(open_main, &c, err);
    options_clear(&c.options);
    if (r < 0) {
        disk_free(c.disk);
        return r;
    }
    learn_lifetime(c.disk);
    c.disk->memory = DISK_MEMORY_UNSAID;
    c.disk->label = c.disk->chain.top->label;
    if (memory)
        qz_disk_set_memory(c.disk, memory);
    *out = c.disk;
    return 0;
}

static int close_main(struct disk_queue *q, void *argument)
{
    struct open_call *c = argument;

    return chain_close(&c->disk->chain, q, c->err);
}

int qz_disk_close(struct qz_disk *d, struct qz_error *err)
{
    struct open_call c = {.disk = d, .err = err};
    int r;

    if (!d)
        return 0;
    assert(!__atomic_load_n(&d->queues, __ATOMIC_ACQUIRE));
    r = disk_run(close_main, &c, err);
    lifetime_close(&d->lifetime);
    disk_free(d);
    return r;
}

void qz_disk_get_info(struct qz_disk *d, struct qz_disk_info *info)
{
    const struct layer *top = d->chain.top;

    *info = (struct qz_disk_info){
        .size = __atomic_load_n(&top->info.size, __ATOMIC_RELAXED),
        .block_size = top->info.preferred,
        .readonly = top->info.readonly,
        .discard = top->info.discard,
        .write_zeroes = top->info.write_zeroes,
        .is_rotational = top->info.is_rotational,
        .secure_erase = top->info.secure_erase,
        .format = d->chain.format ? d->chain.format->name : "raw",
        .label = d->label,
    };
}

int qz_disk_get_backing(struct qz_disk *d, struct qz_disk_backing *b)
{
    const struct chain *c = &d->chain, *under = c->backing;

    if (!under)
        return -ENOENT;
    *b = (struct qz_disk_backing){
        .label = under->format_layer->label,
        .format = under->format ? under->format->name : "raw",
        .size = under->format_layer->info.size,
        .untouched = c->format->is_empty && c->format->is_empty(c->format_layer),
    };
    return 0;
}

int qz_disk_get_lifetime(struct qz_disk *d, struct qz_disk_lifetime *l)
{
    return lifetime_read(&d->lifetime, l);
}

void qz_disk_set_memory(struct qz_disk *d, uint64_t bytes)
{
    __atomic_store_n(&d->memory, bytes, __ATOMIC_RELAXED);
    chain_set_memory(&d->chain, bytes);
}

/* ---- queues and requests */

int qz_disk_queue_new(struct qz_disk_queue **out, struct qz_disk *d, unsigned depth,
                      struct qz_error *err)
{
    struct qz_disk_queue *q = calloc(1, sizeof(*q));
    int r;

    if (!q)
        return qz_fail(err, -ENOMEM, "%s: no memory", d->label);
    r = queue_new(&q->q, depth, err);
    if (r < 0) {
        free(q);
        return r;
    }
    q->disk = d;
    __atomic_add_fetch(&d->queues, 1, __ATOMIC_RELEASE);
    *out = q;
    return 0;
}

void qz_disk_queue_free(struct qz_disk_queue *q)
{
    if (!q)
        return;
    queue_free(q->q);
    __atomic_sub_fetch(&q->disk->queues, 1, __ATOMIC_RELEASE);
    free(q);
}

static void on_done(struct request *r, int result)
{
    struct qz_disk_request *p =
        (struct qz_disk_request *)((char *)r - offsetof(struct qz_disk_request, internal));

    p->done(p, result);
}

void qz_disk_submit(struct qz_disk_queue *q, struct qz_disk_request *p)
{
    struct layer *top = q->disk->chain.top;
    struct request *r = (struct request *)p->internal;

    if (p->op == QZ_DISK_FLUSH) {
        p->offset = p->length = 0;
    } else if (!is_inside(top, p->offset, p->length)) {
        p->done(p, -EINVAL);
        return;
    } else if (p->op != QZ_DISK_READ && top->info.readonly) {
        p->done(p, -EROFS);
        return;
    } else if (!p->length) {
        p->done(p, 0);
        return;
    } else if (p->flags & QZ_DISK_SECURE && !top->info.secure_erase) {
        p->done(p, -ENOTSUP);
        return;
    }
    r->op = (enum disk_op)p->op;
    r->flags = p->flags;
    r->offset = p->offset;
    r->length = p->length;
    r->iov = p->iov;
    r->iov_count = p->iov_count;
    r->done = on_done;
    r->next = NULL;
    layer_submit(top, q->q, r);
}

void qz_disk_kick(struct qz_disk_queue *q)
{
    layer_kick(q->disk->chain.top, q->q);
    queue_kick(q->q);
}

int qz_disk_fd(struct qz_disk_queue *q, struct qz_error *err)
{
    return queue_fd(q->q, err);
}

int qz_disk_poll(struct qz_disk_queue *q)
{
    int n = queue_poll(q->q);

    layer_kick(q->disk->chain.top, q->q);
    return n;
}

int qz_disk_wait(struct qz_disk_queue *q)
{
    layer_kick(q->disk->chain.top, q->q);
    return queue_wait(q->q);
}

/* ---- limits and statistics */

int qz_disk_set_limits(struct qz_disk *d, const struct qz_disk_limits *limits)
{
    struct throttle_limits t = {0};

    if (!d->chain.throttle)
        return -ENOTSUP;
    for (unsigned i = 0; i < 3; i++) {
        t.rate[THROTTLE_OPS + i] = limits->iops[i];
        t.burst[THROTTLE_OPS + i] = limits->iops_burst[i];
        t.rate[THROTTLE_BYTES + i] = limits->bps[i];
        t.burst[THROTTLE_BYTES + i] = limits->bps_burst[i];
    }
    throttle_set(d->chain.throttle, &t);
    return 0;
}

int qz_disk_get_stats(struct qz_disk *d, struct qz_disk_stats *out)
{
    QZ_AUTO_FREE struct stats_op *s = malloc(sizeof(*s));

    if (!d->chain.stats)
        return -ENOTSUP;
    if (!s)
        return -ENOMEM;
    for (unsigned i = 0; i < QZ_DISK_OPS; i++) {
        stats_get(d->chain.stats, (enum disk_op)i, s);
        out->op[i].count = s->count;
        out->op[i].bytes = s->bytes;
        out->op[i].errors = s->errors;
        out->op[i].total_ns = s->total_ns;
        out->op[i].p50_ns = stats_percentile(s, 0.5);
        out->op[i].p90_ns = stats_percentile(s, 0.9);
        out->op[i].p99_ns = stats_percentile(s, 0.99);
        out->op[i].p999_ns = stats_percentile(s, 0.999);
        out->op[i].max_ns = stats_percentile(s, 1);
    }
    return 0;
}

void qz_disk_server_stop(struct qz_disk_server *s)
{
    if (s)
        s->stop(s);
}

/*
 * throttle.c - rate limits (filter.h).
 *
 * Theory of operation. A limit is a clock that runs ahead: each request moves it on by the time
 * that its share of the rate takes, and may go when the clock is no further ahead of the true time
 * than the burst allows (the "virtual scheduling" form of a leaky bucket, ITU-T I.371 annex A). So
 * a request's turn is known when it arrives, nobody is asked twice, and all queues and disks of a
 * group are served in the order of arrival.
 */
#include "filter.h"

struct group {
    struct group *next;
    char *name; /* NULL: of one disk */
    unsigned users;
    pthread_mutex_t lock;
    struct throttle_limits limits;
    int64_t ahead[THROTTLE_KINDS]; /* the clocks */
};

struct throttle {
    struct layer l;
    struct group *g;
};

static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
static struct group *groups;

/* ---- turns */

static bool applies(enum throttle_kind k, enum disk_op op)
{
    bool write = op == DISK_WRITE || op == DISK_WRITE_ZEROES;

    switch (k) {
    case THROTTLE_READ_OPS:
    case THROTTLE_READ_BYTES:
        return op == DISK_READ;
    case THROTTLE_WRITE_OPS:
    case THROTTLE_WRITE_BYTES:
        return write;
    default:
        return true;
    }
}

static uint64_t cost(enum throttle_kind k, const struct request *r)
{
    if (k < THROTTLE_BYTES)
        return 1;
    return r->op == DISK_READ || r->op == DISK_WRITE ? r->length : 0;
}

static int64_t nanoseconds(uint64_t amount, uint64_t rate)
{
    return (int64_t)((double)amount * 1e9 / (double)rate);
}

/* Takes the request's share; when its turn is. */
static int64_t take_turn(struct group *g, const struct request *r, int64_t now)
{
    int64_t turn = now;

    QZ_LOCKED(&g->lock);
    for (enum throttle_kind k = 0; k < THROTTLE_KINDS; k++) {
        uint64_t rate = g->limits.rate[k];
        int64_t tolerance;

        if (!rate || !applies(k, r->op))
            continue;
        tolerance = nanoseconds(g->limits.burst[k], rate) + 100000000;
        turn = QZ_MAX(turn, g->ahead[k] - tolerance);
        g->ahead[k] = QZ_MAX(g->ahead[k], now) + nanoseconds(cost(k, r), rate);
    }
    return turn;
}

static void on_done(struct request *r, int result)
{
    child_end(QZ_CONTAINER_OF(r, struct child, r), result);
}

static void on_turn(struct queue_io *io, int result)
{
    struct child *c = QZ_CONTAINER_OF(io, struct child, timer.io);

    layer_submit(c->l->below, c->q, &c->r);
}

static void throttle_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct throttle *t = QZ_CONTAINER_OF(l, struct throttle, l);
    int64_t now = qz_now_ns(), turn = r->op == DISK_FLUSH ? now : take_turn(t->g, r, now);
    struct child *c;

    if (turn <= now) {
        layer_submit(l->below, q, r);
        return;
    }
    c = child_new(l, q, r, on_done);
    if (c)
        queue_timer(q, &c->timer, turn, on_turn);
}

/* ---- groups */

static struct group *group_new(const struct throttle_limits *limits, const char *name)
{
    struct group *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    if (name && !(g->name = strdup(name))) {
        free(g);
        return NULL;
    }
    g->users = 1;
    g->limits = *limits;
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

static struct group *group_get(const struct throttle_limits *limits, const char *name)
{
    struct group *g;

    QZ_LOCKED(&groups_lock);
    for (g = groups; name && g; g = g->next) {
        if (!strcmp(g->name, name)) {
            g->users++;
            return g;
        }
    }
    g = group_new(limits, name);
    if (g && name) {
        g->next = groups;
        groups = g;
    }
    return g;
}

static void group_put(struct group *g)
{
    QZ_LOCKED(&groups_lock);

    if (--g->users)
        return;
    for (struct group **p = &groups; *p; p = &(*p)->next) {
        if (*p == g) {
            *p = g->next;
            break;
        }
    }
    pthread_mutex_destroy(&g->lock);
    free(g->name);
    free(g);
}

void throttle_set(struct layer *l, const struct throttle_limits *limits)
{
    struct group *g = QZ_CONTAINER_OF(l, struct throttle, l)->g;

    QZ_LOCKED(&g->lock);
    g->limits = *limits;
    memset(g->ahead, 0, sizeof(g->ahead));
}

static void throttle_free(struct layer *l)
{
    struct throttle *t = QZ_CONTAINER_OF(l, struct throttle, l);

    group_put(t->g);
    free(t);
}

static const struct layer_ops throttle_ops = {
    .name = "throttle",
    .submit = throttle_submit,
    .map = filter_map,
    .resize = filter_resize,
    .free = throttle_free,
};

int throttle_open(struct layer **l, struct layer *below, const struct throttle_limits *limits,
                  const char *group, struct qz_error *err)
{
    struct throttle *t = calloc(1, sizeof(*t));
    struct group *g = t ? group_get(limits, group) : NULL;

    if (!g) {
        free(t);
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    }
    filter_init(&t->l, &throttle_ops, below);
    t->g = g;
    *l = &t->l;
    return 0;
}

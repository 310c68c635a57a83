/* filter.c - what filters have in common (filter.h). */
#include "filter.h"

void filter_init(struct layer *l, const struct layer_ops *ops, struct layer *below)
{
    *l = (struct layer){.ops = ops};
    filter_put_over(l, below);
}

void filter_put_over(struct layer *l, struct layer *below)
{
    l->below = below;
    l->info = below->info;
    l->label = below->label;
}

void filter_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    layer_submit(l->below, q, r);
}

int filter_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
               struct extent *e)
{
    int r = layer_map(l->below, q, offset, length, e);

    e->has_offset = r == 0 && e->state == EXTENT_DATA && e->depth == 0;
    e->offset = offset;
    return r;
}

int filter_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    int r = layer_resize(l->below, q, size, err);

    if (r == 0) /* others look at it meanwhile, without a lock */
        __atomic_store_n(&l->info.size, __atomic_load_n(&l->below->info.size, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
    return r;
}

struct child *child_new(struct layer *l, struct disk_queue *q, struct request *parent,
                        void (*done)(struct request *r, int result))
{
    struct child *c = queue_take(q);

    if (!c) {
        parent->done(parent, -ENOMEM);
        return NULL;
    }
    c->r.op = parent->op;
    c->r.flags = parent->flags;
    c->r.offset = parent->offset;
    c->r.length = parent->length;
    c->r.iov = parent->iov;
    c->r.iov_count = parent->iov_count;
    c->r.done = done;
    c->r.next = NULL;
    c->parent = parent;
    c->l = l;
    c->q = q;
    return c;
}

void child_end(struct child *c, int result)
{
    struct request *parent = c->parent;

    queue_give(c->q, c);
    parent->done(parent, result);
}

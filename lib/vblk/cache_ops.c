/*
 * cache_ops.c - the cache's own requests: filling lines, writing dirty ones back, flushing in
 * order.
 *
 * While a FLUSH waits, only what was dirtied before it is written, so that writers cannot keep it
 * waiting for ever.
 */
#include "cache.h"

enum { BLOCK = VBLK_CACHE_BLOCK, BLOCK_SECTORS = BLOCK / VBLK_SECTOR_SIZE };

void request_append(struct request_list *list, struct vblk_request *r)
{
    r->next = NULL;
    if (list->head)
        list->tail->next = r;
    else
        list->head = r;
    list->tail = r;
}

void request_end(struct vblk_cache *c, struct vblk_request *r, int status)
{
    r->status = status;
    request_append(&c->ready, r);
}

static struct cache_op *op_take(struct vblk_cache *c, enum op_kind kind)
{
    struct cache_op *op = c->free_op;

    c->free_op = op->next;
    c->free_ops--;
    op->kind = kind;
    op->next = NULL;
    op->sent = false;
    return op;
}

void op_free(struct vblk_cache *c, struct cache_op *op)
{
    op->next = c->free_op;
    c->free_op = op;
    c->free_ops++;
}

/* Gives an operation to the queue; one that it refuses has failed. */
static void op_send(struct vblk_cache *c, struct cache_op *op)
{
    struct vblk_request *r = &op->request;

    op->sent = true;
    if (qz_vblk_submit(c->queue, &r, 1) == 1)
        return;
    r->status = r->status < 0 ? r->status : -VBLK_EIO;
    op_done(c, op);
}

void op_send_lines(struct vblk_cache *c, enum op_kind kind, struct line *const *lines, unsigned n)
{
    struct cache_op *op = op_take(c, kind);

    op->request = (struct vblk_request){.op = kind == OP_FILL ? VBLK_OP_READ : VBLK_OP_WRITE,
                                        .count = n,
                                        .priority = VBLK_PRIO_NORMAL,
                                        .sector = lines[0]->block * BLOCK_SECTORS};
    for (unsigned i = 0; i < n; i++) {
        op->lines[i] = lines[i];
        op->segments[i] = (struct vblk_segment){lines[i]->data, BLOCK};
        lines[i]->state = kind == OP_FILL ? LINE_FILLING : LINE_WRITING;
    }
    if (n == 1)
        op->request.segment = op->segments[0];
    else
        op->request.segments = op->segments;
    if (kind == OP_FILL) {
        c->stats.device_reads++;
    } else {
        c->stats.device_writes++;
        c->stats.blocks_written += n;
        c->writing += n;
    }
    op_send(c, op);
}

/* ---- write-back ---- */

static bool may_write(const struct line *l, uint64_t until)
{
    return l && l->dirty && l->state == LINE_VALID && l->order <= until;
}

bool write_back_one(struct vblk_cache *c, uint64_t until)
{
    struct line *run[CACHE_MERGE_MAX], *first = c->dirty.head, *l;
    unsigned n = 0;

    if (!may_write(first, until) || !c->free_ops)
        return false;
    for (unsigned i = 1; i < c->merge && first->block; i++) {
        l = line_find(c, first->block - 1);
        if (!may_write(l, until))
            break;
        first = l;
    }
    for (uint64_t block = first->block; n < c->merge; block++) {
        l = line_find(c, block);
        if (!may_write(l, until))
            break;
        list_remove(&c->dirty, l);
        run[n++] = l;
    }
    op_send_lines(c, OP_WRITE, run, n);
    return true;
}

static void write_done(struct vblk_cache *c, struct cache_op *op)
{
    int status = op->request.status;

    for (unsigned i = op->request.count; i-- > 0;) {
        struct line *l = op->lines[i];

        c->writing--;
        l->state = LINE_VALID;
        if (status < 0) {
            l->order = 0; /* older than any FLUSH, so that every one has to do with it */
            list_prepend(&c->dirty, l);
            continue;
        }
        l->dirty = false;
        line_settle(c, l);
    }
    if (status < 0) {
        c->write_error = status;
        c->stats.write_errors++;
    }
}

/* ---- flush ---- */

void flush_start(struct vblk_cache *c, struct vblk_request *r)
{
    struct cache_op *op = op_take(c, OP_FLUSH), **at = &c->flushes;

    op->request = *r;
    op->owner = r;
    op->order = c->order;
    while (*at)
        at = &(*at)->next;
    *at = op;
}

static void flush_end(struct vblk_cache *c, struct cache_op *op, int status)
{
    struct cache_op **at = &c->flushes;

    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    request_end(c, op->owner, status);
    op_free(c, op);
}

bool flush_step(struct vblk_cache *c)
{
    struct cache_op *op = c->flushes;
    int error;

    if (!op || op->sent)
        return false;
    while (!c->write_error && write_back_one(c, op->order))
        continue;
    if (c->writing)
        return false;
    error = c->write_error;
    if (error) {
        c->write_error = 0; /* told once; the next FLUSH tries again */
        flush_end(c, op, error);
        return true;
    }
    if (!c->dirty.head || c->dirty.head->order > op->order)
        op_send(c, op);
    return c->flushes != op;
}

/* ---- completions of the cache's own requests ---- */

void op_done(struct vblk_cache *c, struct cache_op *op)
{
    if (op->kind == OP_FLUSH) {
        flush_end(c, op, op->request.status);
        return;
    }
    if (op->kind == OP_WRITE)
        write_done(c, op);
    for (unsigned i = 0; op->kind == OP_FILL && i < op->request.count; i++) {
        op->lines[i]->state = op->request.status < 0 ? LINE_FAILED : LINE_VALID;
        line_settle(c, op->lines[i]);
    }
    op_free(c, op);
}

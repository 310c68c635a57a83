/*
 * align.c - makes a layer that wants aligned requests (O_DIRECT) take any (filter.h).
 *
 * What is aligned passes. The rest goes through one of a few bounce buffers in a task, a piece at a
 * time; a write that covers a block in part reads the block first, and such writes take turns, so
 * that two of them in one block do not undo each other. The buffers are fixed in number and size:
 * how much memory this takes is not for who sends requests to say.
 */
#include "filter.h"
#include "task.h"

enum { SLOTS = 16, PIECE = 256 << 10 };

struct slot {
    struct task_mutex lock;
    uint8_t *bytes;
};

struct align {
    struct layer l;
    uint32_t block, memory;
    struct task_mutex partial; /* writes of parts of blocks */
    unsigned next_slot;        /* atomic */
    struct slot slot[SLOTS];
};

static struct align *align_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct align, l);
}

static bool is_aligned(const struct align *a, const struct request *r)
{
    if ((r->offset | r->length) & (a->block - 1))
        return false;
    for (unsigned i = 0; i < r->iov_count; i++)
        if (((uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len) & (a->memory - 1))
            return false;
    return true;
}

static int read_piece(struct align *a, struct disk_queue *q, const struct request *r, uint64_t at,
                      uint64_t n, uint8_t *bounce)
{
    uint64_t first = QZ_ALIGN_DOWN(at, a->block), end = QZ_ALIGN_UP(at + n, a->block);
    int e = layer_read(a->l.below, q, first, bounce, end - first);

    if (e == 0)
        iov_from_flat(r->iov, r->iov_count, at - r->offset, bounce + (at - first), n);
    return e;
}

/* The blocks at both ends, where they are written in part. */
static int read_edges(struct align *a, struct disk_queue *q, uint64_t at, uint64_t n,
                      uint8_t *bounce)
{
    uint64_t first = QZ_ALIGN_DOWN(at, a->block), last = QZ_ALIGN_DOWN(at + n - 1, a->block);
    int e = 0;

    if (at != first || (first == last && (at + n) % a->block))
        e = layer_read(a->l.below, q, first, bounce, a->block);
    if (e == 0 && last != first && (at + n) % a->block)
        e = layer_read(a->l.below, q, last, bounce + (last - first), a->block);
    return e;
}

static int write_piece(struct align *a, struct disk_queue *q, const struct request *r, uint64_t at,
                       uint64_t n, uint8_t *bounce)
{
    uint64_t first = QZ_ALIGN_DOWN(at, a->block), end = QZ_ALIGN_UP(at + n, a->block);
    bool partial = first != at || end != at + n;
    int e = 0;

    if (partial) {
        task_mutex_lock(&a->partial);
        e = read_edges(a, q, at, n, bounce);
    }
    if (r->op == DISK_WRITE)
        iov_to_flat(bounce + (at - first), r->iov, r->iov_count, at - r->offset, n);
    else
        memset(bounce + (at - first), 0, n);
    if (e == 0)
        e = layer_write(a->l.below, q, first, bounce, end - first);
    if (partial)
        task_mutex_unlock(&a->partial);
    return e;
}

static int move(struct align *a, struct disk_queue *q, const struct request *r, uint8_t *bounce)
{
    uint64_t end = r->offset + r->length, n;
    int e = 0;

    for (uint64_t at = r->offset; at < end && e == 0; at += n) {
        n = QZ_MIN(end - at, PIECE - at % a->block);
        e = r->op == DISK_READ ? read_piece(a, q, r, at, n, bounce)
                               : write_piece(a, q, r, at, n, bounce);
    }
    if (e == 0 && r->flags & REQUEST_FUA)
        e = layer_flush(a->l.below, q);
    return e;
}

/* Whole blocks as they are, the parts at both ends written. */
static int zero(struct align *a, struct disk_queue *q, const struct request *r, uint8_t *bounce)
{
    uint64_t end = r->offset + r->length, first = QZ_ALIGN_UP(r->offset, a->block),
             last = QZ_ALIGN_DOWN(end, a->block);
    int e;

    if (first >= last)
        return write_piece(a, q, r, r->offset, r->length, bounce);
    e = layer_write_zeroes(a->l.below, q, first, last - first, r->flags);
    if (e == 0 && first > r->offset)
        e = write_piece(a, q, r, r->offset, first - r->offset, bounce);
    if (e == 0 && end > last)
        e = write_piece(a, q, r, last, end - last, bounce);
    return e;
}

static void bounce_main(struct disk_queue *q, void *argument)
{
    struct child *c = argument;
    struct align *a = align_of(c->l);
    struct slot *s =
        &a->slot[__atomic_fetch_add(&a->next_slot, 1, __ATOMIC_RELAXED) % QZ_ARRAY_LEN(a->slot)];
    int e = 0;

    task_mutex_lock(&s->lock);
    if (!s->bytes && posix_memalign((void **)&s->bytes, QZ_MAX(a->memory, 4096u), PIECE)) {
        s->bytes = NULL;
        e = -ENOMEM;
    }
    if (e == 0)
        e = c->r.op == DISK_WRITE_ZEROES ? zero(a, q, &c->r, s->bytes)
                                         : move(a, q, &c->r, s->bytes);
    task_mutex_unlock(&s->lock);
    child_end(c, e);
}

static void bounce(struct align *a, struct disk_queue *q, struct request *r)
{
    struct child *c = child_new(&a->l, q, r, NULL);

    if (c && task_start(q, bounce_main, c) < 0)
        child_end(c, -ENOMEM);
}

static void align_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct align *a = align_of(l);

    if (r->op == DISK_FLUSH || is_aligned(a, r)) {
        layer_submit(l->below, q, r);
    } else if (r->op == DISK_DISCARD) {
        /* Advice: the whole blocks inside. */
        uint64_t end = QZ_ALIGN_DOWN(r->offset + r->length, a->block);

        r->offset = QZ_ALIGN_UP(r->offset, a->block);
        r->length = end > r->offset ? end - r->offset : 0;
        if (r->length)
            layer_submit(l->below, q, r);
        else
            r->done(r, 0);
    } else {
        bounce(a, q, r);
    }
}

static void align_free(struct layer *l)
{
    struct align *a = align_of(l);

    for (unsigned i = 0; i < SLOTS; i++)
        free(a->slot[i].bytes);
    free(a);
}

static const struct layer_ops align_ops = {
    .name = "align",
    .submit = align_submit,
    .map = filter_map,
    .resize = filter_resize,
    .free = align_free,
};

int align_open(struct layer **l, struct layer *below, struct qz_error *err)
{
    struct align *a = calloc(1, sizeof(*a));

    if (!a)
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    filter_init(&a->l, &align_ops, below);
    a->block = below->info.alignment;
    a->memory = below->info.memory_alignment;
    a->l.info.preferred = QZ_MAX(a->l.info.preferred, a->block);
    a->l.info.alignment = a->l.info.memory_alignment = 1;
    *l = &a->l;
    return 0;
}

/*
 * erase.c - secure erase by overwriting (filter.h): what was stored is written over with zeroes in
 * its place, flushed, and only then given back.
 *
 * That is as good as the medium below is: one that writes elsewhere and keeps the old bytes
 * (copy-on-write file systems, wear levelling) keeps them here, too.
 */
#include "filter.h"
#include "task.h"

enum { PIECE = 1 << 20 };

struct erase {
    struct layer l;
    uint8_t *zeroes; /* PIECE bytes, never written to; fit for O_DIRECT */
};

static int overwrite(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length)
{
    const struct erase *e = QZ_CONTAINER_OF(l, struct erase, l);
    int r = 0;

    for (uint64_t at = 0, n; r == 0 && at < length; at += n) {
        n = QZ_MIN(length - at, (uint64_t)PIECE);
        r = layer_write(l->below, q, offset + at, e->zeroes, n);
    }
    return r;
}

static void erase_main(struct disk_queue *q, void *argument)
{
    struct child *c = argument;
    struct layer *l = c->l;
    int r = overwrite(l, q, c->r.offset, c->r.length);

    if (r == 0)
        r = layer_flush(l->below, q);
    if (r == 0 && l->info.discard)
        r = layer_discard(l->below, q, c->r.offset, c->r.length);
    child_end(c, r);
}

static void erase_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct child *c;

    if (r->op != DISK_WRITE_ZEROES || !(r->flags & REQUEST_SECURE))
        layer_submit(l->below, q, r);
    else if ((c = child_new(l, q, r, NULL)) && task_start(q, erase_main, c) < 0)
        child_end(c, -ENOMEM);
}

static void erase_free(struct layer *l)
{
    struct erase *e = QZ_CONTAINER_OF(l, struct erase, l);

    free(e->zeroes);
    free(e);
}

static const struct layer_ops erase_ops = {
    .name = "erase",
    .submit = erase_submit,
    .map = filter_map,
    .resize = filter_resize,
    .free = erase_free,
};

int erase_open(struct layer **l, struct layer *below, struct qz_error *err)
{
    struct erase *e = calloc(1, sizeof(*e));

    if (!e || posix_memalign((void **)&e->zeroes, 4096, PIECE)) {
        free(e);
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    }
    memset(e->zeroes, 0, PIECE);
    filter_init(&e->l, &erase_ops, below);
    e->l.info.secure_erase = true;
    *l = &e->l;
    return 0;
}

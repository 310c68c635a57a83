/* cache_take.c - copies of all that is dirty, for the commit. */
#include "cache_internal.h"

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct qcow2_copy *)a)->offset, y = ((const struct qcow2_copy *)b)->offset;

    return x < y ? -1 : x > y;
}

/* The copies of one take, growing. */
struct taking {
    struct qcow2_copy *copies;
    unsigned count, room;
};

static int take_one(struct qcow2_cache *c, struct taking *t, struct qcow2_slice *s)
{
    uint8_t *bytes;

    if (t->count == t->room) {
        unsigned room = t->room ? t->room * 2 : 32;
        struct qcow2_copy *copies = realloc(t->copies, room * sizeof(*copies));

        if (!copies)
            return -ENOMEM;
        t->copies = copies;
        t->room = room;
    }
    bytes = aligned_alloc(4096, QZ_ALIGN_UP(c->unit, 4096u));
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes, s->bytes, c->unit);
    t->copies[t->count++] = (struct qcow2_copy){s, s->offset, bytes};
    s->dirty = false;
    cache_count_dirty(c, s, -1);
    s->pins++;
    return 0;
}

/* All of a shard's, under its mutex at once: what was dirty when the take began is in it. */
static int take_shard(struct qcow2_cache *c, struct cache_shard *h, enum qcow2_slice_class class,
                      struct taking *t)
{
    int rc = 0;

    QZ_LOCKED(&h->mutex);
    for (unsigned n = 0; !rc && n < h->count; n++) {
        struct qcow2_slice *s = h->hand;

        h->hand = s->newer;
        if (s->dirty && s->class == class)
            rc = take_one(c, t, s);
    }
    return rc;
}

int qcow2_cache_take_dirty(struct qcow2_cache *c, enum qcow2_slice_class class,
                           struct qcow2_copy **out)
{
    struct taking t = {0};
    int rc = 0;

    for (unsigned i = 0; !rc && i < CACHE_SHARDS && c->classes[class]; i++)
        rc = take_shard(c, &c->shards[i], class, &t);
    if (rc) {
        qcow2_cache_give_dirty(c, t.copies, t.count, true);
        return rc;
    }
    if (t.count)
        qsort(t.copies, t.count, sizeof(*t.copies), by_offset);
    *out = t.copies;
    return (int)t.count;
}

void qcow2_cache_give_dirty(struct qcow2_cache *c, struct qcow2_copy *copies, unsigned count,
                            bool failed)
{
    for (unsigned i = 0; i < count; i++) {
        struct qcow2_slice *s = copies[i].slice;
        struct cache_shard *h = cache_shard_of(c, s->offset);

        pthread_mutex_lock(&h->mutex);
        if (failed && s->hashed && !s->dirty) {
            s->dirty = true;
            cache_count_dirty(c, s, 1);
        }
        pthread_mutex_unlock(&h->mutex);
        qcow2_cache_put(c, s);
        free(copies[i].bytes);
    }
    free(copies);
    if (c->used > c->budget)
        cache_shrink(c, 0, c->budget, true);
}

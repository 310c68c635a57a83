/* qcow2_top.c - L1 and refcount table: whole in memory, written in pieces of 64 entries. */
#include "qcow2_internal.h"

enum { PIECE = 64 };

int qcow2_top_init(struct qcow2_top *t, uint64_t offset, uint32_t count)
{
    *t = (struct qcow2_top){.count = count, .offset = offset};
    pthread_mutex_init(&t->mutex, NULL);
    t->entries = calloc(QZ_MAX(count, 1u), sizeof(*t->entries));
    t->dirty = calloc(count / PIECE + 1, 1);
    if (t->entries && t->dirty)
        return 0;
    qcow2_top_clear(t);
    return -ENOMEM;
}

void qcow2_top_clear(struct qcow2_top *t)
{
    free((void *)t->entries);
    free(t->dirty);
    t->entries = NULL;
    t->dirty = NULL;
}

void qcow2_top_set(struct qcow2_top *t, uint32_t index, uint64_t value)
{
    QZ_LOCKED(&t->mutex);
    atomic_store_explicit(&t->entries[index], value, memory_order_release);
    t->dirty[index / PIECE] = 1;
    t->any_dirty = true;
}

int qcow2_top_take_dirty(struct qcow2_top *t, struct qcow2_top_copy **out)
{
    unsigned n = 0, want = 0;
    struct qcow2_top_copy *copies;

    *out = NULL;
    QZ_LOCKED(&t->mutex);
    if (!t->any_dirty)
        return 0;
    for (uint32_t p = 0; p <= (t->count - 1) / PIECE; p++)
        want += t->dirty[p];
    copies = malloc(QZ_MAX(want, 1u) * sizeof(*copies));
    if (!copies)
        return -ENOMEM;
    for (uint32_t p = 0; n < want; p++) {
        struct qcow2_top_copy *c = &copies[n];

        if (!t->dirty[p])
            continue;
        t->dirty[p] = 0;
        c->first = p * PIECE;
        c->count = QZ_MIN(t->count - c->first, (uint32_t)PIECE);
        c->offset = t->offset + c->first * 8ull;
        memset(c->bytes, 0, sizeof(c->bytes));
        for (uint32_t k = 0; k < c->count; k++)
            qz_store_be64(c->bytes + k * 8, qcow2_top_get(t, c->first + k));
        n++;
    }
    t->any_dirty = false;
    *out = copies;
    return (int)n;
}

void qcow2_top_give_dirty(struct qcow2_top *t, struct qcow2_top_copy *copies, unsigned count,
                          bool failed)
{
    if (failed) {
        QZ_LOCKED(&t->mutex);
        for (unsigned n = 0; n < count; n++)
            t->dirty[copies[n].first / PIECE] = 1;
        t->any_dirty |= count > 0;
    }
    free(copies);
}

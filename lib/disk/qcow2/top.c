/* top.c - L1 and refcount table: whole in memory, written in pieces of up to 4 KiB. */
#include "internal.h"

int qcow2_top_init(struct qcow2_top *t, uint64_t offset, uint32_t count, uint32_t cluster)
{
    *t = (struct qcow2_top){.count = count, .offset = offset, .piece = QZ_MIN(cluster, 4096u) / 8};
    pthread_mutex_init(&t->mutex, NULL);
    t->entries = calloc(QZ_MAX(count, 1u), sizeof(*t->entries));
    t->dirty = calloc(count / t->piece + 1, 1);
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
    t->dirty[index / t->piece] = 1;
    atomic_store(&t->any_dirty, true);
}

int qcow2_top_take_dirty(struct qcow2_top *t, struct qcow2_top_copy **out)
{
    unsigned n = 0, want = 0;
    struct qcow2_top_copy *copies;
    size_t head;

    *out = NULL;
    QZ_LOCKED(&t->mutex);
    if (!t->any_dirty)
        return 0;
    for (uint32_t p = 0; p <= (t->count - 1) / t->piece; p++)
        want += t->dirty[p];
    head = QZ_ALIGN_UP(QZ_MAX(want, 1u) * sizeof(*copies), 4096);
    copies = qcow2_buffer(head + want * t->piece * 8);
    if (!copies)
        return -ENOMEM;
    for (uint32_t p = 0; n < want; p++) {
        struct qcow2_top_copy *c = &copies[n];

        if (!t->dirty[p])
            continue;
        t->dirty[p] = 0;
        c->first = p * t->piece;
        c->count = QZ_MIN(t->count - c->first, t->piece);
        c->offset = t->offset + c->first * 8ull;
        c->length = t->piece * 8;
        c->bytes = (uint8_t *)copies + head + (size_t)n * c->length;
        memset(c->bytes, 0, c->length);
        for (uint32_t k = 0; k < c->count; k++)
            qz_store_be64(c->bytes + k * 8, qcow2_top_get(t, c->first + k));
        n++;
    }
    atomic_store(&t->any_dirty, false);
    *out = copies;
    return (int)n;
}

void qcow2_top_give_dirty(struct qcow2_top *t, struct qcow2_top_copy *copies, unsigned count,
                          bool failed)
{
    if (failed) {
        QZ_LOCKED(&t->mutex);
        for (unsigned n = 0; n < count; n++)
            t->dirty[copies[n].first / t->piece] = 1;
        if (count)
            atomic_store(&t->any_dirty, true);
    }
    free(copies);
}

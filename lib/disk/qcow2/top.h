/* top.h - tables of 64-bit offsets that are whole in memory: L1 and refcount table. */
#ifndef DISK_QCOW2_TOP_H
#define DISK_QCOW2_TOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct qcow2_top {
    _Atomic uint64_t *entries; /* host byte order */
    uint32_t count;
    uint64_t offset;       /* in the file */
    uint8_t *dirty;        /* for each 64 entries */
    pthread_mutex_t mutex; /* guards dirty */
    _Atomic bool any_dirty;
    uint32_t piece; /* entries that are written together */
};

/* What take_dirty gave: big-endian bytes to be written at offset. */
struct qcow2_top_copy {
    uint32_t first, count;
    uint64_t offset;
    uint32_t length;
    uint8_t *bytes; /* behind the copies */
};

int qcow2_top_init(struct qcow2_top *t, uint64_t offset, uint32_t count, uint32_t cluster);
void qcow2_top_clear(struct qcow2_top *t);
void qcow2_top_set(struct qcow2_top *t, uint32_t index, uint64_t value);
int qcow2_top_take_dirty(struct qcow2_top *t, struct qcow2_top_copy **copies);
void qcow2_top_give_dirty(struct qcow2_top *t, struct qcow2_top_copy *copies, unsigned count,
                          bool failed);

static inline uint64_t qcow2_top_get(const struct qcow2_top *t, uint32_t index)
{
    return atomic_load_explicit(&t->entries[index], memory_order_acquire);
}

#endif

/*
 * buffers.c - memory for bytes on their way, kept by each queue: allocating tens of KiB for each
 * request, and giving them back to the kernel, costs more page faults than copying them.
 */
#include "internal.h"

enum { KEPT_BYTES = 2 << 20 }; /* by each queue */

/* A buffer that nobody uses. */
struct kept {
    struct kept *next;
};

void *qcow2_buffer(size_t length)
{
    return aligned_alloc(4096, QZ_ALIGN_UP(QZ_MAX(length, (size_t)1), (size_t)4096));
}

/* A cluster, and what a file's alignment adds around it. */
static size_t kept_bytes(const struct qcow2 *i)
{
    return i->cluster_size + 8192;
}

void *qcow2_lease(struct qcow2 *i, struct disk_queue *q, size_t length)
{
    struct qcow2_lane *lane = &i->lanes[queue_index(q)];
    struct kept *k = lane->buffers;

    if (length > kept_bytes(i))
        return qcow2_buffer(length);
    if (!k)
        return qcow2_buffer(kept_bytes(i));
    lane->buffers = k->next;
    lane->buffers_kept--;
    return k;
}

void qcow2_lease_end(struct qcow2 *i, struct disk_queue *q, void *bytes, size_t length)
{
    struct qcow2_lane *lane = &i->lanes[queue_index(q)];
    struct kept *k = bytes;

    if (!k)
        return;
    if (length > kept_bytes(i) || (lane->buffers_kept + 1) * kept_bytes(i) > KEPT_BYTES) {
        free(k);
        return;
    }
    k->next = lane->buffers;
    lane->buffers = k;
    lane->buffers_kept++;
}

void qcow2_leases_free(struct qcow2_lane *lane)
{
    while (lane->buffers) {
        struct kept *k = lane->buffers;

        lane->buffers = k->next;
        free(k);
    }
}

/*
 * unpacked.c - the last compressed clusters that a queue read.
 *
 * Guests read less than a cluster at a time. The first read of a cluster unpacks as far as it must,
 * a second one unpacks all of it, and those after it find it here. A slot is for an L2 entry, and
 * for nothing once any cluster was released since: its place may have other bytes now.
 */
#include "compress.h"
#include "internal.h"

enum { SLOTS = 8, BYTES_MAX = 1 << 20 }; /* by each queue */

struct qcow2_unpacked {
    unsigned count, next;
    struct {
        uint64_t entry, releases;
        size_t valid; /* bytes from the cluster's beginning */
        uint8_t *bytes;
    } slots[SLOTS];
};

static struct qcow2_unpacked *of_queue(struct qcow2 *i, struct disk_queue *q)
{
    struct qcow2_lane *lane = &i->lanes[queue_index(q)];
    struct qcow2_unpacked *u = lane->unpacked;

    if (u)
        return u;
    u = calloc(1, sizeof(*u));
    if (!u)
        return NULL;
    u->count = (unsigned)QZ_MIN(QZ_MAX(BYTES_MAX >> i->cluster_bits, 1), (int)SLOTS);
    for (unsigned n = 0; n < u->count; n++)
        u->slots[n].bytes = qcow2_buffer(i->cluster_size);
    lane->unpacked = u;
    return u;
}

static int find(const struct qcow2 *i, const struct qcow2_unpacked *u, uint64_t entry)
{
    uint64_t releases = atomic_load(&i->releases);

    for (unsigned n = 0; n < u->count; n++)
        if (u->slots[n].valid && u->slots[n].entry == entry && u->slots[n].releases == releases)
            return (int)n;
    return -1;
}

const uint8_t *qcow2_unpacked_find(struct qcow2 *i, struct disk_queue *q, uint64_t entry,
                                   size_t end)
{
    struct qcow2_unpacked *u = of_queue(i, q);
    int n = u ? find(i, u, entry) : -1;

    return n >= 0 && u->slots[n].valid >= end ? u->slots[n].bytes : NULL;
}

int qcow2_unpacked_make(struct qcow2 *i, struct disk_queue *q, uint64_t entry, uint64_t releases,
                        const void *packed, size_t length, size_t end, const uint8_t **out)
{
    struct qcow2_unpacked *u = of_queue(i, q);
    int n = u ? find(i, u, entry) : -1, rc;

    if (!u)
        return -ENOMEM;
    if (n >= 0)
        end = i->cluster_size;
    else
        n = (int)(u->next++ % u->count);
    if (!u->slots[n].bytes)
        return -ENOMEM;
    u->slots[n].valid = 0;
    rc = qcow2_inflate(i->header.compression, packed, length, u->slots[n].bytes, end);
    if (rc)
        return rc;
    u->slots[n].entry = entry;
    u->slots[n].releases = releases;
    u->slots[n].valid = end;
    *out = u->slots[n].bytes;
    return 0;
}

void qcow2_unpacked_free(struct qcow2_unpacked *u)
{
    for (unsigned n = 0; u && n < u->count; n++)
        free(u->slots[n].bytes);
    free(u);
}

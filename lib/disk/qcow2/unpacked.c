/*
 * unpacked.c - the last compressed clusters that a queue read.
 *
 * Guests read less than a cluster at a time. The first read of a cluster unpacks as far as it must,
 * a second one unpacks all of it, and those after it find it here. A slot is for an L2 entry, and
 * for nothing once any cluster was released since: its place may have other bytes now.
 */
#include "compress.h"
#include "internal.h"
#include "offload.h"

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

struct unpacking {
    enum qcow2_compression how;
    const void *packed;
    size_t length, end;
    uint8_t *bytes;
    int result;
};

static void unpack(void *argument)
{
    struct unpacking *p = argument;

    p->result = qcow2_inflate(p->how, p->packed, p->length, p->bytes, p->end);
}

/* The bytes become a slot's, whose old ones are returned. Others of this queue may have been here
 * while they were unpacked. */
static uint8_t *keep(const struct qcow2 *i, struct qcow2_unpacked *u, uint64_t entry,
                     uint64_t releases, uint8_t *bytes, size_t end)
{
    const int found = find(i, u, entry);
    const unsigned n = found >= 0 ? (unsigned)found : u->next++ % u->count;
    uint8_t *old = u->slots[n].bytes;

    u->slots[n].entry = entry;
    u->slots[n].releases = releases;
    u->slots[n].valid = end;
    u->slots[n].bytes = bytes;
    return old;
}

int qcow2_unpacked_make(struct qcow2 *i, struct disk_queue *q, uint64_t entry, uint64_t releases,
                        const void *packed, size_t length, size_t end, const uint8_t **out)
{
    struct qcow2_unpacked *u = of_queue(i, q);
    struct unpacking p = {i->header.compression, packed, length, end};

    if (!u)
        return -ENOMEM;
    if (find(i, u, entry) >= 0)
        p.end = i->cluster_size;
    p.bytes = qcow2_lease(i, q, i->cluster_size);
    if (!p.bytes)
        return -ENOMEM;
    disk_offload(q, unpack, &p);
    if (p.result == 0) {
        *out = p.bytes;
        p.bytes = keep(i, u, entry, releases, p.bytes, p.end);
    }
    qcow2_lease_end(i, q, p.bytes, i->cluster_size);
    return p.result;
}

void qcow2_unpacked_free(struct qcow2_unpacked *u)
{
    for (unsigned n = 0; u && n < u->count; n++)
        free(u->slots[n].bytes);
    free(u);
}

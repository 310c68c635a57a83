/*
 * request.h - what a request asks of the device, and how it is laid out for it (VirtIO 1.3 §5.2.6).
 */
#ifndef VBLK_REQUEST_H
#define VBLK_REQUEST_H

#include "ring.h"

/* Which way the data of a request goes. */
enum data_kind { DATA_NONE, DATA_IN, DATA_OUT, DATA_RANGES, DATA_INVALID };

static inline enum data_kind data_kind(uint32_t op)
{
    switch (op) {
    case VBLK_OP_READ:
    case VBLK_OP_GET_ID:
    case VBLK_OP_GET_LIFETIME:
    case VBLK_OP_ZONE_REPORT:
        return DATA_IN;
    case VBLK_OP_WRITE:
    case VBLK_OP_ZONE_APPEND:
        return DATA_OUT;
    case VBLK_OP_DISCARD:
    case VBLK_OP_WRITE_ZEROES:
    case VBLK_OP_SECURE_ERASE:
        return DATA_RANGES;
    case VBLK_OP_FLUSH:
    case VBLK_OP_ZONE_OPEN:
    case VBLK_OP_ZONE_CLOSE:
    case VBLK_OP_ZONE_FINISH:
    case VBLK_OP_ZONE_RESET:
    case VBLK_OP_ZONE_RESET_ALL:
        return DATA_NONE;
    default:
        return DATA_INVALID;
    }
}

static inline const struct vblk_segment *request_segments(const struct vblk_request *r)
{
    return r->count == 1 ? &r->segment : r->segments;
}

/* A read or write of one piece with which nothing is wrong: most requests, found out cheaply. */
static inline bool request_is_plain(const struct vblk_queue *q, const struct vblk_request *r)
{
    const struct vblk_info *info = &q->dev->info;
    uint32_t len = r->segment.len, block = info->block_size; /* a power of two */

    return r->op <= VBLK_OP_WRITE && r->count == 1 && r->priority < VBLK_PRIO_COUNT && len &&
           !(len & (block - 1)) && !(r->sector & (block / VBLK_SECTOR_SIZE - 1)) &&
           len <= info->size_max && len <= info->bytes_max && r->sector <= info->sectors &&
           len / VBLK_SECTOR_SIZE <= info->sectors - r->sector &&
           !(info->read_only && r->op == VBLK_OP_WRITE);
}

/* 0, or why the device cannot be asked this. Looks at nothing that the device can write. */
int request_check(const struct vblk_queue *q, const struct vblk_request *r);
/* Bytes of data, of a request with segments. */
uint64_t request_bytes(const struct vblk_request *r);
/* Ring descriptors that it needs. */
unsigned request_descs(const struct vblk_queue *q, const struct vblk_request *r);
/* Puts a checked request into the ring, unpublished; the caller knows that there is room. Negative
 * when the platform cannot translate a buffer. */
int request_put(struct vblk_queue *q, struct vblk_request *r);
/* Puts the queue's n pieces into the ring as one chain under a slot, in a table where the ring has
 * them. */
void request_push_pieces(struct vblk_queue *q, unsigned slot, unsigned n);
/* Status of a request whose slot the device has used, and what else it brought back. */
int request_result(struct vblk_queue *q, unsigned slot, struct vblk_request *r);
/* Header, table and status entries that never change, written once for every slot. */
void frames_init(struct vblk_queue *q);

#endif

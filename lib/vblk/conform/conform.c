/*
 * conform.c - the checks. They write to the first and to the last 64 KiB of the device.
 *
 * Requests go into the ring past the driver's own checks, since many a demand is about what a
 * device has to refuse.
 */
#include "conform.h"

enum {
    WAIT_NS = 2000000000,
    BLOCK = 4096,
    BLOCK_SECTORS = BLOCK / VBLK_SECTOR_SIZE,
    UNKNOWN_OP = 0x7ab
};
enum { UNKNOWN_FLAG = 1 << 30 };

static bool has(const struct conform *c, unsigned feature)
{
    return c->dev->info.features & VBLK_BIT(feature);
}

static enum conform_result fail(struct conform *c, const char *why)
{
    c->why = why;
    return CONFORM_FAILED;
}

static enum conform_result verdict(struct conform *c, bool good, const char *why)
{
    return good ? CONFORM_PASSED : fail(c, why);
}

/* Rings the doorbell and waits for the one request that is in the ring. False: no answer. */
static bool wait_used(struct conform *c, struct vblk_queue *q, unsigned slot)
{
    const struct vblk_platform *p = c->dev->platform;
    uint64_t until = p->now_ns(p->ctx) + WAIT_NS;
    struct used u;
    int rc = 0;

    if (ring_publish(q))
        c->dev->transport->ops->notify(c->dev->transport, q->index, ring_notification(q));
    while (rc == 0 && p->now_ns(p->ctx) < until) {
        int limit = q->packed ? 0 : split_used_limit(q);

        rc = limit < 0 ? limit : q->packed ? packed_pop(q, &u) : split_pop(q, (uint16_t)limit, &u);
    }
    if (rc != 1 || u.slot != slot)
        return false;
    c->status = q->statuses[slot];
    c->len = u.len;
    slot_release(q, slot);
    q->in_flight--;
    return true;
}

static bool raw(struct conform *c, struct vblk_request *r)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);

    return request_put(q, r) == 0 && wait_used(c, q, q->last_slot);
}

static bool move(struct conform *c, uint32_t op, uint64_t sector, uint32_t len)
{
    return raw(c, &(struct vblk_request){
                      .op = op, .count = 1, .sector = sector, .segment = {c->data, len}});
}

static void fill(struct conform *c, uint8_t with, unsigned len)
{
    __builtin_memset(c->data, with, len);
}

static bool holds(const struct conform *c, uint8_t what, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (c->data[i] != what)
            return false;
    return true;
}

static enum conform_result unknown_type(struct conform *c)
{
    if (!raw(c, &(struct vblk_request){.op = UNKNOWN_OP}))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "an unknown type did not end with UNSUPP");
}

static enum conform_result write_then_read(struct conform *c)
{
    fill(c, 0xc3, BLOCK);
    if (!move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
        return fail(c, "a write failed");
    fill(c, 0, BLOCK);
    if (!move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
        return fail(c, "a read failed");
    return verdict(c, holds(c, 0xc3, BLOCK), "what was read is not what was written");
}

static enum conform_result used_length(struct conform *c)
{
    if (!move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "no answer");
    if (c->len > BLOCK + 1)
        return fail(c, "a read claims more bytes than it was given");
    if (!move(c, VBLK_OP_WRITE, 0, BLOCK))
        return fail(c, "no answer");
    return verdict(c, c->len <= 1, "a write claims to have written data to the driver");
}

static enum conform_result read_past_end(struct conform *c)
{
    if (!move(c, VBLK_OP_READ, c->dev->info.sectors, BLOCK))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_IOERR, "a read past the end did not end with IOERR");
}

static enum conform_result write_across_end(struct conform *c)
{
    uint64_t last = c->dev->info.sectors - BLOCK_SECTORS;

    fill(c, 0x11, BLOCK);
    if (!move(c, VBLK_OP_WRITE, last, BLOCK) || c->status)
        return fail(c, "the last block cannot be written");
    fill(c, 0x22, 2 * BLOCK);
    if (!move(c, VBLK_OP_WRITE, last, 2 * BLOCK) || c->status != BLK_S_IOERR)
        return fail(c, "a write across the end did not end with IOERR");
    if (!move(c, VBLK_OP_WRITE, UINT64_MAX - 7, BLOCK) || c->status != BLK_S_IOERR)
        return fail(c, "a sector near 2^64 did not end with IOERR");
    return CONFORM_PASSED;
}

/* The driver lays the message out as it likes: header in two, data in odd pieces. */
static enum conform_result any_framing(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ};
    struct piece *p = q->pieces;
    uint64_t addr, header;
    unsigned slot;

    if (!q->indirect || c->dev->info.segments_max < 4)
        return CONFORM_SKIPPED;
    if (q->platform->dma_translate &&
        q->platform->dma_translate(q->platform->ctx, c->data, BLOCK, &addr))
        return fail(c, "the data cannot be reached");
    if (!q->platform->dma_translate)
        addr = (uintptr_t)c->data + q->platform->dma_offset;
    fill(c, 0x5d, BLOCK);
    if (!move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
        return fail(c, "a write failed");
    fill(c, 0, BLOCK);
    slot = slot_take(q, 1);
    header = q->frames_addr + slot * sizeof(struct frame);
    q->frames[slot].header = (struct virtio_blk_header){.type = le32(VBLK_OP_READ)};
    p[0] = (struct piece){header, 5, false};
    p[1] = (struct piece){header + 5, 11, false};
    p[2] = (struct piece){addr, 1, true};
    p[3] = (struct piece){addr + 1, 700, true};
    p[4] = (struct piece){addr + 701, BLOCK - 701, true};
    p[5] = (struct piece){q->statuses_addr + slot, 1, true};
    q->statuses[slot] = BLK_S_UNWRITTEN;
    q->slots[slot].request = &r;
    q->in_flight++;
    request_push_pieces(q, slot, 6);
    if (!wait_used(c, q, slot))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_OK && holds(c, 0x5d, BLOCK),
                   "a header in two descriptors, or odd pieces of data, were not understood");
}

/* A range with flags that the driver's own interface does not let through. */
static bool ranges(struct conform *c, uint32_t op, uint32_t flags)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_range range = {.sector = 0, .sectors = BLOCK_SECTORS};
    struct vblk_request r = {.op = op, .count = 1, .ranges = &range};
    struct virtio_blk_range *at;

    if (request_put(q, &r) < 0)
        return false;
    at = (void *)(q->extents + (size_t)q->last_slot * q->extent_stride + sizeof(struct tail));
    at->flags = le32(flags);
    return wait_used(c, q, q->last_slot);
}

static enum conform_result discard_unmap(struct conform *c)
{
    if (!has(c, VBLK_F_DISCARD))
        return CONFORM_SKIPPED;
    if (!ranges(c, VBLK_OP_DISCARD, RANGE_UNMAP))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "discard with unmap did not end with UNSUPP");
}

static enum conform_result discard_flags(struct conform *c)
{
    if (!has(c, VBLK_F_DISCARD))
        return CONFORM_SKIPPED;
    if (!ranges(c, VBLK_OP_DISCARD, UNKNOWN_FLAG))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "an unknown flag did not end with UNSUPP");
}

static enum conform_result zeroes_flags(struct conform *c)
{
    if (!has(c, VBLK_F_WRITE_ZEROES))
        return CONFORM_SKIPPED;
    if (!ranges(c, VBLK_OP_WRITE_ZEROES, UNKNOWN_FLAG))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "an unknown flag did not end with UNSUPP");
}

static enum conform_result zeroes_are_zero(struct conform *c)
{
    if (!has(c, VBLK_F_WRITE_ZEROES))
        return CONFORM_SKIPPED;
    fill(c, 0x99, BLOCK);
    if (!move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
        return fail(c, "a write failed");
    if (!ranges(c, VBLK_OP_WRITE_ZEROES, RANGE_UNMAP) || c->status)
        return fail(c, "write zeroes failed");
    if (!move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
        return fail(c, "a read failed");
    return verdict(c, holds(c, 0, BLOCK), "zeroed sectors do not read as zeroes");
}

static enum conform_result flush_works(struct conform *c)
{
    if (!has(c, VBLK_F_FLUSH))
        return CONFORM_SKIPPED;
    if (!raw(c, &(struct vblk_request){.op = VBLK_OP_FLUSH}))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_OK, "FLUSH failed");
}

/* QEMU writes the string and leaves the rest of the 20 bytes alone; no demand says that it must
 * not. */
static enum conform_result id_is_short(struct conform *c)
{
    fill(c, 0xee, VBLK_ID_BYTES + 1);
    if (!move(c, VBLK_OP_GET_ID, 0, VBLK_ID_BYTES))
        return fail(c, "no answer");
    if (c->status == BLK_S_UNSUPP)
        return CONFORM_SKIPPED;
    return verdict(c, c->len <= VBLK_ID_BYTES + 1 && c->data[VBLK_ID_BYTES] == 0xee,
                   "more than 20 bytes were written");
}

static enum conform_result writeback_field(struct conform *c)
{
    uint8_t value = 0xee;
    struct vblk_transport *t = c->dev->transport;

    if (!has(c, VBLK_F_CONFIG_WCE))
        return CONFORM_SKIPPED;
    if (t->ops->config_read(t, offsetof(struct virtio_blk_config, writeback), &value, 1) < 0)
        return fail(c, "the configuration cannot be read");
    return verdict(c, value <= 1, "writeback is neither 0 nor 1");
}

static enum conform_result reset_stops(struct conform *c)
{
    if (qz_vblk_recover(c->dev) < 0)
        return fail(c, "the device did not come back from a reset");
    return write_then_read(c);
}

const struct conform_check conform_checks[] = {
    {"5.2.6", "what was written is read", write_then_read},
    {"5.2.6.2", "an unknown type ends with UNSUPP", unknown_type},
    {"5.2.6.2", "reading past the end is an error", read_past_end},
    {"5.2.6.2", "writing across the end is an error", write_across_end},
    {"2.7.8.2", "the used length is no more than what was written", used_length},
    {"2.7.4.1", "no assumption about the framing of a message", any_framing},
    {"5.2.6.2", "discard refuses unmap", discard_unmap},
    {"5.2.6.2", "discard refuses unknown flags", discard_flags},
    {"5.2.6.2", "write zeroes refuses unknown flags", zeroes_flags},
    {"5.2.6.2", "zeroed sectors read as zeroes", zeroes_are_zero},
    {"5.2.6.2", "FLUSH works where it was negotiated", flush_works},
    {"5.2.6", "the identifier has 20 bytes at most", id_is_short},
    {"5.2.5", "writeback is 0 or 1", writeback_field},
    {"2.1.2", "a reset, and it works again", reset_stops},
};
const unsigned conform_check_count = sizeof(conform_checks) / sizeof(conform_checks[0]);

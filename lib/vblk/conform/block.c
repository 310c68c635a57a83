/*
 * block.c - checks of §5.2, block devices.
 */
#include "checks.h"

enum { UNKNOWN_OP = 0x7ab, UNKNOWN_FLAG = 1 << 30 };

enum conform_result check_data(struct conform *c)
{
    if (c->dev->info.read_only)
        return CONFORM_SKIPPED;
    conform_fill(c, 0xc3, BLOCK);
    if (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
        return fail(c, "a write failed");
    conform_fill(c, 0, BLOCK);
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
        return fail(c, "a read failed");
    return verdict(c, conform_holds(c, 0xc3, BLOCK), "what was read is not what was written");
}

static uint8_t config_byte(struct conform *c, unsigned offset)
{
    struct vblk_transport *t = c->dev->transport;
    uint8_t value = 0xee;

    return t->ops->config_read(t, offset, &value, 1) < 0 ? 0xee : value;
}

enum conform_result check_flush_offered(struct conform *c)
{
    uint64_t offered = c->dev->info.offered;

    if (!(offered & VBLK_BIT(VBLK_F_CONFIG_WCE)))
        return CONFORM_SKIPPED;
    return verdict(c, offered & VBLK_BIT(VBLK_F_FLUSH), "CONFIG_WCE is offered without FLUSH");
}

enum conform_result check_writeback_zero(struct conform *c)
{
    if (!has(c, VBLK_F_CONFIG_WCE))
        return CONFORM_SKIPPED;
    if (!conform_restart(c, VBLK_BIT(VBLK_F_FLUSH)))
        return fail(c, "it does not start without FLUSH");
    return verdict(c, config_byte(c, offsetof(struct virtio_blk_config, writeback)) == 0,
                   "writeback is not 0 where FLUSH was not negotiated");
}

enum conform_result check_padding(struct conform *c)
{
    unsigned at = offsetof(struct virtio_blk_config, unused1);

    if (has(c, VBLK_F_MQ) && config_byte(c, offsetof(struct virtio_blk_config, unused0)))
        return fail(c, "unused0 is not 0");
    for (unsigned i = 0; has(c, VBLK_F_WRITE_ZEROES) && i < 3; i++)
        if (config_byte(c, at + i))
            return fail(c, "unused1 is not 0");
    return CONFORM_PASSED;
}

enum conform_result check_writeback(struct conform *c)
{
    if (!has(c, VBLK_F_CONFIG_WCE))
        return CONFORM_SKIPPED;
    return verdict(c, config_byte(c, offsetof(struct virtio_blk_config, writeback)) <= 1,
                   "writeback is neither 0 nor 1");
}

enum conform_result check_read_only(struct conform *c)
{
    uint8_t *before = c->data + BLOCK;

    if (!has(c, VBLK_F_RO))
        return CONFORM_SKIPPED;
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
        return fail(c, "a read failed");
    __builtin_memcpy(before, c->data, BLOCK);
    conform_fill(c, (uint8_t)~before[0], BLOCK);
    if (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status != BLK_S_IOERR)
        return fail(c, "a write to a read-only device did not end with IOERR");
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
        return fail(c, "a read failed");
    return verdict(c, __builtin_memcmp(before, c->data, BLOCK) == 0, "data was written");
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
    return conform_wait(c, q, q->last_slot);
}

static enum conform_result refused(struct conform *c, unsigned feature, uint32_t op, uint32_t flags)
{
    if (!has(c, feature) || c->dev->info.read_only)
        return CONFORM_SKIPPED;
    if (!ranges(c, op, flags))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "it did not end with UNSUPP");
}

enum conform_result check_discard_unmap(struct conform *c)
{
    return refused(c, VBLK_F_DISCARD, VBLK_OP_DISCARD, RANGE_UNMAP);
}
enum conform_result check_discard_flags(struct conform *c)
{
    return refused(c, VBLK_F_DISCARD, VBLK_OP_DISCARD, UNKNOWN_FLAG);
}
enum conform_result check_zeroes_flags(struct conform *c)
{
    return refused(c, VBLK_F_WRITE_ZEROES, VBLK_OP_WRITE_ZEROES, UNKNOWN_FLAG);
}
enum conform_result check_erase_flags(struct conform *c)
{
    return refused(c, VBLK_F_SECURE_ERASE, VBLK_OP_SECURE_ERASE, UNKNOWN_FLAG);
}

enum conform_result check_zeroes(struct conform *c)
{
    if (!has(c, VBLK_F_WRITE_ZEROES) || c->dev->info.read_only)
        return CONFORM_SKIPPED;
    for (uint32_t flags = 0; flags <= RANGE_UNMAP; flags += RANGE_UNMAP) {
        conform_fill(c, 0x99, BLOCK);
        if (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
            return fail(c, "a write failed");
        if (!ranges(c, VBLK_OP_WRITE_ZEROES, flags) || c->status)
            return fail(c, "write zeroes failed");
        if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
            return fail(c, "a read failed");
        if (!conform_holds(c, 0, BLOCK))
            return fail(c, "zeroed sectors do not read as zeroes");
    }
    return CONFORM_PASSED;
}

/* struct virtio_blk_lifetime: pre-EOL 0 to 3, two estimates of 0 to 11. */
enum conform_result check_lifetime(struct conform *c)
{
    if (!has(c, VBLK_F_LIFETIME))
        return CONFORM_SKIPPED;
    if (!conform_move(c, VBLK_OP_GET_LIFETIME, 0, 8) || c->status)
        return fail(c, "no answer");
    return verdict(c,
                   c->data[0] <= 3 && c->data[2] <= 11 && c->data[4] <= 11 &&
                       !(c->data[1] | c->data[3] | c->data[5]),
                   "a reserved value");
}

enum conform_result check_zones_refused(struct conform *c)
{
    static const uint32_t ops[] = {VBLK_OP_ZONE_REPORT, VBLK_OP_ZONE_OPEN,  VBLK_OP_ZONE_CLOSE,
                                   VBLK_OP_ZONE_FINISH, VBLK_OP_ZONE_RESET, VBLK_OP_ZONE_RESET_ALL,
                                   VBLK_OP_ZONE_APPEND};

    if (has(c, VBLK_F_ZONED))
        return CONFORM_SKIPPED;
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        bool data = data_kind(ops[i]) != DATA_NONE;
        struct vblk_request r = {.op = ops[i], .count = data, .segment = {c->data, BLOCK}};

        if (!conform_raw(c, &r))
            return fail(c, "no answer");
        if (c->status != BLK_S_UNSUPP)
            return fail(c, "a zone command did not end with UNSUPP");
    }
    return CONFORM_PASSED;
}

/* ---- what §5.2.6 says without a "MUST" ---- */

enum conform_result check_unknown_type(struct conform *c)
{
    if (!conform_raw(c, &(struct vblk_request){.op = UNKNOWN_OP}))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_UNSUPP, "an unknown type did not end with UNSUPP");
}

enum conform_result check_past_end(struct conform *c)
{
    if (!conform_move(c, VBLK_OP_READ, c->dev->info.sectors, BLOCK))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_IOERR, "a read past the end did not end with IOERR");
}

enum conform_result check_across_end(struct conform *c)
{
    uint64_t last = c->dev->info.sectors - BLOCK_SECTORS;

    if (c->dev->info.read_only)
        return CONFORM_SKIPPED;
    conform_fill(c, 0x11, BLOCK);
    if (!conform_move(c, VBLK_OP_WRITE, last, BLOCK) || c->status)
        return fail(c, "the last block cannot be written");
    conform_fill(c, 0x22, 2 * BLOCK);
    if (!conform_move(c, VBLK_OP_WRITE, last, 2 * BLOCK) || c->status != BLK_S_IOERR)
        return fail(c, "a write across the end did not end with IOERR");
    if (!conform_move(c, VBLK_OP_WRITE, UINT64_MAX - 7, BLOCK) || c->status != BLK_S_IOERR)
        return fail(c, "a sector near 2^64 did not end with IOERR");
    return CONFORM_PASSED;
}

enum conform_result check_flush(struct conform *c)
{
    if (!has(c, VBLK_F_FLUSH))
        return CONFORM_SKIPPED;
    if (!conform_raw(c, &(struct vblk_request){.op = VBLK_OP_FLUSH}))
        return fail(c, "no answer");
    return verdict(c, c->status == BLK_S_OK, "FLUSH failed");
}

/* QEMU writes the string and leaves the rest of the 20 bytes alone; no demand says that it must
 * not. */
enum conform_result check_id(struct conform *c)
{
    conform_fill(c, 0xee, VBLK_ID_BYTES + 1);
    if (!conform_move(c, VBLK_OP_GET_ID, 0, VBLK_ID_BYTES))
        return fail(c, "no answer");
    if (c->status == BLK_S_UNSUPP)
        return CONFORM_SKIPPED;
    return verdict(c, c->len <= VBLK_ID_BYTES + 1 && c->data[VBLK_ID_BYTES] == 0xee,
                   "more than 20 bytes were written");
}

/*
 * ring.c - checks of §2.7 and §2.8, split and packed rings.
 */
#include "checks.h"

#define NOTIFIED_NS UINT64_C(5000000000)
enum { MARK = 0x5d };

/* A block of MARK on the disk, and none of it in memory. */
static bool prepare(struct conform *c)
{
    conform_fill(c, MARK, BLOCK);
    if (!c->dev->info.read_only && (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status))
        return false;
    conform_fill(c, 0, BLOCK);
    return true;
}

static bool read_back(const struct conform *c)
{
    return c->status == BLK_S_OK && (c->dev->info.read_only || conform_holds(c, MARK, BLOCK));
}

/* The queue's n pieces as one request under a slot that was taken. */
static void begin(struct conform *c, struct vblk_queue *q, unsigned slot, struct vblk_request *r)
{
    q->frames[slot].header =
        (struct virtio_blk_header){.type = le32(r->op), .sector = le64(r->sector)};
    q->statuses[slot] = BLK_S_UNWRITTEN;
    q->slots[slot].request = r;
    q->in_flight++;
}

static uint64_t header_of(const struct vblk_queue *q, unsigned slot)
{
    return q->frames_addr + slot * sizeof(struct frame);
}

/* The driver lays the message out as it likes: header in two, data in odd pieces. */
enum conform_result check_framing(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ};
    struct piece *p = q->pieces;
    uint64_t addr, header;
    unsigned slot;

    if (c->dev->info.segments_max < 4 || !conform_address(c, &addr))
        return CONFORM_SKIPPED;
    if (!prepare(c))
        return fail(c, "a write failed");
    slot = slot_take(q, q->indirect ? 1 : 6);
    header = header_of(q, slot);
    p[0] = (struct piece){header, 5, false};
    p[1] = (struct piece){header + 5, 11, false};
    p[2] = (struct piece){addr, 1, true};
    p[3] = (struct piece){addr + 1, 700, true};
    p[4] = (struct piece){addr + 701, BLOCK - 701, true};
    p[5] = (struct piece){q->statuses_addr + slot, 1, true};
    begin(c, q, slot, &r);
    request_push_pieces(q, slot, 6);
    if (!conform_wait(c, q, slot))
        return fail(c, "no answer");
    return verdict(c, read_back(c),
                   "a header in two descriptors, or odd pieces of data, were not understood");
}

/* Without tables, so that the ring's own descriptors are a chain. */
enum conform_result check_chain_order(struct conform *c)
{
    if (!conform_restart(c, VBLK_BIT(VBLK_F_INDIRECT_DESC)))
        return fail(c, "it does not start without INDIRECT_DESC");
    return check_framing(c);
}

enum conform_result check_readable_kept(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct frame before;

    if (c->dev->info.read_only)
        return CONFORM_SKIPPED;
    conform_fill(c, MARK, BLOCK);
    if (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK) || c->status)
        return fail(c, "a write failed");
    before = q->frames[q->last_slot];
    if (le32(before.header.type) != VBLK_OP_WRITE || before.header.sector)
        return fail(c, "the header was changed");
    return verdict(c, conform_holds(c, MARK, BLOCK), "the data to be written was changed");
}

enum conform_result check_table_kept(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ, .count = 1, .segment = {c->data, BLOCK}};
    unsigned bytes = q->size * sizeof(struct vring_desc);

    if (q->packed || bytes > CONFORM_DATA / 2)
        return CONFORM_SKIPPED;
    if (request_put(q, &r) < 0)
        return fail(c, "no request");
    __builtin_memcpy(c->data + CONFORM_DATA / 2, q->split.desc, bytes);
    if (!conform_wait(c, q, q->last_slot))
        return fail(c, "no answer");
    return verdict(c, __builtin_memcmp(c->data + CONFORM_DATA / 2, q->split.desc, bytes) == 0,
                   "the descriptor table was written to");
}

enum conform_result check_write_flag(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ, .count = 1, .segment = {c->data, BLOCK}};

    if (!q->indirect)
        return CONFORM_SKIPPED;
    if (!prepare(c) || request_put(q, &r) < 0)
        return fail(c, "a write failed");
    if (q->packed)
        q->ring.head_flags |= DESC_WRITE;
    else
        q->split.desc[q->last_slot].flags |= le16(DESC_WRITE);
    if (!conform_wait(c, q, q->last_slot))
        return fail(c, "no answer");
    return verdict(c, read_back(c), "WRITE beside INDIRECT changed the request");
}

/* The header in a descriptor of the ring, data and status in a table behind it. */
enum conform_result check_mixed_chain(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ};
    uint64_t addr, table[2][2];
    unsigned slot, next;

    if (q->packed || !q->indirect || q->in_order || !conform_address(c, &addr))
        return CONFORM_SKIPPED;
    if (!prepare(c))
        return fail(c, "a write failed");
    slot = slot_take(q, 2);
    next = q->free_slot;
    q->free_slot = q->slots[next].next;
    q->slots[slot].descs = 2;
    begin(c, q, slot, &r);
    table[0][0] = le64(addr);
    table[0][1] = desc_word_split(BLOCK, DESC_WRITE | DESC_NEXT, 1);
    table[1][0] = le64(q->statuses_addr + slot);
    table[1][1] = desc_word_split(1, DESC_WRITE, 0);
    __builtin_memcpy(q->extents + (size_t)slot * q->extent_stride + q->extent_table, table,
                     sizeof(table));
    q->split.desc[slot] =
        (struct vring_desc){le64(header_of(q, slot)), le32(sizeof(struct virtio_blk_header)),
                            le16(DESC_NEXT), le16((uint16_t)next)};
    q->split.desc[next] = (struct vring_desc){
        le64(q->extents_addr + (uint64_t)slot * q->extent_stride + q->extent_table),
        le32(sizeof(table)), le16(DESC_INDIRECT), 0};
    split_avail(q, slot);
    if (!conform_wait(c, q, slot))
        return fail(c, "no answer");
    return verdict(c, read_back(c), "a chain that ends in a table was not understood");
}

/* ---- notifications ---- */

static bool notified_soon(struct conform *c)
{
    const struct vblk_platform *p = c->dev->platform;
    uint64_t until = p->now_ns(p->ctx) + NOTIFIED_NS;

    while (!c->notified(c))
        if (p->now_ns(p->ctx) > until)
            return false;
    return true;
}

/* A few times, since the notifications of before must not answer for those of now. */
static enum conform_result notified(struct conform *c, void (*wish)(struct vblk_queue *q))
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);

    for (unsigned i = 0; i < 3; i++) {
        while (c->notified(c))
            continue;
        wish(q);
        if (!conform_move(c, VBLK_OP_READ, 0, BLOCK))
            return fail(c, "no answer");
        if (!notified_soon(c))
            return fail(c, "no notification came");
    }
    ring_disarm(q);
    return CONFORM_PASSED;
}

static void wish_plain(struct vblk_queue *q)
{
    ring_arm(q, 1);
}

/* Nothing depends on used_event here: it says "much later". */
static void wish_misleading(struct vblk_queue *q)
{
    ring_arm(q, 1);
    if (!q->packed)
        shared_store16(&q->split.avail->ring[q->size], q->split.used_next + 0x4000);
}

/* The lower bit of flags says no, used_event says yes. */
static void wish_event(struct vblk_queue *q)
{
    ring_arm(q, 1);
    if (!q->packed)
        shared_store16(&q->split.avail->flags, AVAIL_NO_INTERRUPT);
}

enum conform_result check_notified(struct conform *c)
{
    if (!c->notified)
        return CONFORM_SKIPPED;
    if (!conform_restart(c, VBLK_BIT(VBLK_F_EVENT_IDX)))
        return fail(c, "it does not start without EVENT_IDX");
    return notified(c, wish_plain);
}

enum conform_result check_used_event_ignored(struct conform *c)
{
    if (!c->notified || qz_vblk_queue(c->dev, 0)->packed)
        return CONFORM_SKIPPED;
    if (!conform_restart(c, VBLK_BIT(VBLK_F_EVENT_IDX)))
        return fail(c, "it does not start without EVENT_IDX");
    return notified(c, wish_misleading);
}

enum conform_result check_notified_event(struct conform *c)
{
    if (!c->notified || !has(c, VBLK_F_EVENT_IDX))
        return CONFORM_SKIPPED;
    return notified(c, wish_event);
}

enum conform_result check_used_flags(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);

    if (q->packed)
        return CONFORM_SKIPPED;
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "no answer");
    if (q->event_idx && shared_load16(&q->split.used->flags))
        return fail(c, "flags of the used ring are not 0 with EVENT_IDX");
    if (!conform_restart(c, VBLK_BIT(VBLK_F_EVENT_IDX)) || !conform_move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "it does not work without EVENT_IDX");
    return verdict(c, shared_load16(&q->split.used->flags) <= 1,
                   "flags of the used ring are neither 0 nor 1");
}

enum conform_result check_spurious(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_transport *t = c->dev->transport;

    for (unsigned i = 0; i < 16; i++)
        t->ops->notify(t, 0, ring_notification(q));
    conform_quiet(c);
    return verdict(c, conform_move(c, VBLK_OP_READ, 0, BLOCK) && c->status == BLK_S_OK,
                   "a doorbell for nothing stopped the queue");
}

/* ---- used buffers ---- */

enum conform_result check_used_len(struct conform *c)
{
    if (!prepare(c) || !conform_move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "no answer");
    if (c->len > BLOCK + 1)
        return fail(c, "a read claims more bytes than it was given");
    if (!c->dev->info.read_only && !conform_holds(c, MARK, c->len < BLOCK ? c->len : BLOCK))
        return fail(c, "a read claims bytes that it did not write");
    if (c->dev->info.read_only)
        return CONFORM_PASSED;
    if (!conform_move(c, VBLK_OP_WRITE, 0, BLOCK))
        return fail(c, "no answer");
    return verdict(c, c->len <= 1, "a write claims to have written data to the driver");
}

/* ---- packed ---- */

enum conform_result check_available_only(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = {.op = VBLK_OP_READ, .count = 1, .segment = {c->data, BLOCK}};
    struct vblk_transport *t = c->dev->transport;

    if (!q->packed)
        return CONFORM_SKIPPED;
    conform_fill(c, 0x77, BLOCK);
    if (request_put(q, &r) < 0)
        return fail(c, "no request");
    t->ops->notify(t, 0, ring_notification(q)); /* not published: its flags are the old ones */
    conform_quiet(c);
    if (conform_used(q) || !conform_holds(c, 0x77, BLOCK))
        return fail(c, "a descriptor was used that is not available");
    return verdict(c, conform_wait(c, q, q->last_slot), "no answer");
}

enum conform_result check_used_kept(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct packed_desc before;
    const struct packed_desc *at;

    if (!q->packed)
        return CONFORM_SKIPPED;
    at = &q->ring.desc[q->ring.used_next];
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "no answer");
    before = *at;
    for (unsigned i = 0; i < 3; i++)
        if (!conform_move(c, VBLK_OP_READ, 0, BLOCK))
            return fail(c, "no answer");
    return verdict(c, __builtin_memcmp(&before, at, sizeof(before)) == 0,
                   "a used descriptor was changed later");
}

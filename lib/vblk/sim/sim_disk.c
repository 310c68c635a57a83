/*
 * sim_disk.c - the simulated device's disk: configuration, requests, faults (VirtIO 1.3 §5.2).
 */
#include "sim_disk.h"

#include <queztl/base.h>

enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

void sim_config(const struct sim *s, uint8_t space[SIM_CONFIG_BYTES])
{
    memset(space, 0, SIM_CONFIG_BYTES);
    qz_store_le64(space, s->sectors);
    qz_store_le32(space + 8, s->o.size_max);
    qz_store_le32(space + 12, s->o.seg_max);
    qz_store_le32(space + 20, s->o.block_size);
    space[32] = s->writeback;
    qz_store_le16(space + 34, (uint16_t)s->o.queues);
    qz_store_le32(space + 36, 1024); /* discard: sectors, ranges, alignment */
    qz_store_le32(space + 40, 4);
    qz_store_le32(space + 44, 1);
    qz_store_le32(space + 48, 2048); /* write zeroes */
    qz_store_le32(space + 52, 2);
    space[56] = 1;
    qz_store_le32(space + 60, 512); /* secure erase */
    qz_store_le32(space + 64, 1);
    qz_store_le32(space + 68, 1);
    qz_store_le32(space + 72, SIM_ZONE_SECTORS);
    qz_store_le32(space + 76, 4);
    qz_store_le32(space + 80, 8);
    qz_store_le32(space + 84, 64);
    qz_store_le32(space + 88, 512);
    space[92] = s->o.features & VBLK_BIT(VBLK_F_ZONED) ? 1 : 0;
}

/* Copies between the chain's data (after the header, without the last `tail` bytes) and buf. */
static uint64_t data_move(const struct dev_chain *c, bool write, uint8_t *buf, uint64_t max)
{
    uint64_t at = 0;

    for (unsigned i = 1; i < c->count; i++) {
        uint64_t len = QZ_MIN((uint64_t)c->pieces[i].len, max - at);

        if (c->pieces[i].write != write)
            continue;
        if (write)
            memcpy(c->pieces[i].at, buf + at, len);
        else
            memcpy(buf + at, c->pieces[i].at, len);
        at += len;
    }
    return at;
}

static uint64_t data_len(const struct dev_chain *c, bool write)
{
    uint64_t n = 0;

    for (unsigned i = 1; i < c->count; i++)
        n += c->pieces[i].write == write ? c->pieces[i].len : 0;
    return n;
}

static bool inside(const struct sim *s, uint64_t sector, uint64_t sectors)
{
    return sector <= s->sectors && sectors <= s->sectors - sector;
}

static uint8_t do_ranges(struct sim *s, const struct dev_chain *c, uint32_t op)
{
    uint8_t ranges[16 * 64];
    uint64_t len = data_move(c, false, ranges, sizeof(ranges));

    if (len == 0 || len % 16)
        return S_IOERR;
    for (uint64_t i = 0; i < len; i += 16) {
        uint64_t sector = qz_load_le64(ranges + i);
        uint32_t n = qz_load_le32(ranges + i + 8), flags = qz_load_le32(ranges + i + 12);

        if (flags & ~1u || (flags && op == VBLK_OP_DISCARD)) /* §5.2.6.2 */
            return S_UNSUPP;
        if (!inside(s, sector, n))
            return S_IOERR;
        memset(s->disk + sector * VBLK_SECTOR_SIZE, 0, (uint64_t)n * VBLK_SECTOR_SIZE);
    }
    return S_OK;
}

static uint8_t do_move(struct sim *s, const struct dev_chain *c, uint64_t sector, bool read,
                       uint64_t len)
{
    uint8_t *at = s->disk + sector * VBLK_SECTOR_SIZE;

    if (len % VBLK_SECTOR_SIZE || !inside(s, sector, len / VBLK_SECTOR_SIZE))
        return S_IOERR;
    data_move(c, read, at, len);
    return S_OK;
}

/* Appends go one behind the other, in the one zone that tests use; the tail says where.
 */
static uint8_t do_append(struct sim *s, const struct dev_chain *c, uint64_t zone)
{
    const struct dev_piece *tail = &c->pieces[c->count - 1];
    uint64_t len = data_len(c, false);

    if (tail->len < 9 || zone % SIM_ZONE_SECTORS)
        return S_IOERR;
    qz_store_le64(tail->at, zone + s->appended % SIM_ZONE_SECTORS);
    s->appended += len / VBLK_SECTOR_SIZE;
    return do_move(s, c, qz_load_le64(tail->at), false, len);
}

static uint8_t execute(struct sim *s, const struct dev_chain *c)
{
    static uint8_t id[VBLK_ID_BYTES + 1] = "queztl-simulated-dsk";
    static uint8_t lifetime[8] = {1, 0, 2, 0, 3}; /* pre-EOL, two estimates */
    uint64_t sector = qz_load_le64(c->pieces[0].at + 8);

    switch (qz_load_le32(c->pieces[0].at)) {
    case VBLK_OP_READ:
        return do_move(s, c, sector, true, data_len(c, true) - 1);
    case VBLK_OP_WRITE:
        return do_move(s, c, sector, false, data_len(c, false));
    case VBLK_OP_FLUSH:
    case VBLK_OP_ZONE_OPEN:
    case VBLK_OP_ZONE_CLOSE:
    case VBLK_OP_ZONE_FINISH:
    case VBLK_OP_ZONE_RESET:
    case VBLK_OP_ZONE_RESET_ALL:
        return S_OK;
    case VBLK_OP_GET_ID:
        data_move(c, true, id, VBLK_ID_BYTES);
        return S_OK;
    case VBLK_OP_GET_LIFETIME:
        data_move(c, true, lifetime, 8);
        return S_OK;
    case VBLK_OP_DISCARD:
    case VBLK_OP_WRITE_ZEROES:
    case VBLK_OP_SECURE_ERASE:
        return do_ranges(s, c, qz_load_le32(c->pieces[0].at));
    case VBLK_OP_ZONE_APPEND:
        return do_append(s, c, sector);
    default:
        return S_UNSUPP;
    }
}

/* The same chain with its header in one piece of its own: the driver frames messages as it likes
 * (§2.7.4.1). False when header or status are missing. */
static bool frame(const struct dev_chain *c, struct dev_chain *framed, uint8_t header[16])
{
    uint32_t n = 0;

    *framed = (struct dev_chain){.id = c->id, .descs = c->descs, .order = c->order, .count = 1};
    framed->pieces[0] = (struct dev_piece){header, 16, false};
    for (unsigned i = 0; i < c->count; i++) {
        struct dev_piece p = c->pieces[i];
        uint32_t take = p.write ? 0 : QZ_MIN(p.len, 16 - n);

        memcpy(header + n, p.at, take);
        n += take;
        p.at += take;
        p.len -= take;
        if (p.len == 0)
            continue;
        if (framed->count == DEV_CHAIN_MAX)
            return false;
        framed->pieces[framed->count++] = p;
    }
    return n == 16 && framed->count >= 2 && framed->pieces[framed->count - 1].write;
}

static bool strikes(struct sim *s)
{
    if (s->fault == SIM_FAULT_NONE)
        return false;
    if (s->fault_after) {
        s->fault_after--;
        return false;
    }
    return true;
}

/* Serves one chain; false when it stays with the device. */
static bool serve(struct sim *s, struct sim_queue *q, const struct dev_chain *c)
{
    const struct dev_piece *last = &c->pieces[c->count - 1];
    struct dev_chain framed;
    uint8_t header[16];
    enum sim_fault fault = strikes(s) ? s->fault : SIM_FAULT_NONE;
    uint32_t len = 0;
    uint8_t status;

    for (unsigned i = 0; i < c->count; i++)
        len += c->pieces[i].write ? c->pieces[i].len : 0;
    if (fault == SIM_FAULT_STALL)
        return false;
    if (fault == SIM_FAULT_NEEDS_RESET) {
        s->status |= 64;
        return false;
    }
    if (!frame(c, &framed, header)) {
        q->ring.violations++;
        q->ring.violation = "a request without header or status (5.2.6)";
        return false;
    }
    status = fault == SIM_FAULT_IO ? S_IOERR : execute(s, &framed);
    if (fault != SIM_FAULT_NO_STATUS)
        last->at[last->len - 1] = status;
    q->served++;
    switch (fault) {
    case SIM_FAULT_ID_HIGH:
        dev_ring_push(&q->ring, &(struct dev_chain){.id = 0xfff0, .descs = c->descs}, len);
        return true;
    case SIM_FAULT_ID_UNKNOWN:
        dev_ring_push(&q->ring,
                      &(struct dev_chain){.id = (c->id + 1u) % q->ring.size, .descs = c->descs},
                      len);
        return true;
    case SIM_FAULT_LENGTH:
        dev_ring_push(&q->ring, c, len + 1);
        return true;
    case SIM_FAULT_RUNAWAY:
        dev_ring_push(&q->ring, c, len);
        if (!q->ring.packed)
            q->ring.next_used += 3 * q->ring.size;
        return true;
    case SIM_FAULT_TWICE:
        dev_ring_push(&q->ring, c, len);
        q->ring.in_device++;
        dev_ring_push(&q->ring, c, len);
        return true;
    default:
        dev_ring_push(&q->ring, c, len);
        return true;
    }
}

/* Takes what is there, until a doorbell is needed again. */
static void take(struct sim_queue *q)
{
    while (q->kicked && q->held < SIM_CHAINS_MAX) {
        int rc = dev_ring_pop(&q->ring, q->chains[q->held]);

        if (rc > 0)
            q->held++;
        else if (rc < 0 || !dev_ring_want_doorbell(&q->ring))
            q->kicked = false;
    }
}

static unsigned choose(struct sim *s, const struct sim_queue *q)
{
    return s->o.reorder && !q->ring.in_order ? sim_random(s) % q->held : 0;
}

/* The device is done with its i-th request; the storage goes behind those that it holds. */
static void drop(struct sim_queue *q, unsigned i)
{
    struct dev_chain *c = q->chains[i];

    q->held--;
    memmove(&q->chains[i], &q->chains[i + 1], (q->held - i) * sizeof(q->chains[0]));
    q->chains[q->held] = c;
}

/* In order, one used entry for up to four requests: the last one's, at the first one's place. */
static unsigned serve_batch(struct sim *s, struct sim_queue *q, unsigned max)
{
    unsigned n = QZ_MIN(QZ_MIN(q->held, max), 1 + (unsigned)(sim_random(s) % 4)), descs = 0;
    const struct dev_chain *last = q->chains[n - 1];

    for (unsigned i = 0; i < n; i++) {
        const struct dev_piece *status = &q->chains[i]->pieces[q->chains[i]->count - 1];

        status->at[status->len - 1] = execute(s, q->chains[i]);
        descs += q->chains[i]->descs;
    }
    dev_ring_push(&q->ring, &(struct dev_chain){.id = last->id, .descs = (uint16_t)descs},
                  (uint32_t)data_len(last, true));
    q->ring.in_device -= n - 1;
    if (!q->ring.packed)
        q->ring.next_used += n - 1;
    q->served += n;
    for (unsigned i = 0; i < n; i++)
        drop(q, 0);
    return n;
}

static unsigned run_queue(struct sim *s, struct sim_queue *q, unsigned vector, unsigned max)
{
    unsigned done = 0;

    take(q);
    while (q->held && done < max) {
        unsigned i = choose(s, q);

        if (s->o.batch_used && q->ring.in_order && s->fault == SIM_FAULT_NONE) {
            done += serve_batch(s, q, max - done);
            continue;
        }
        if (!serve(s, q, q->chains[i]))
            break;
        drop(q, i);
        done++;
    }
    if (dev_ring_flush(&q->ring) && q->interrupts && s->handlers[vector]) {
        q->interrupts_raised++;
        s->handlers[vector](s->handler_args[vector]);
    }
    s->violations += q->ring.violations;
    if (q->ring.violations)
        s->violation = q->ring.violation;
    q->ring.violations = 0;
    return done;
}

unsigned sim_run(struct sim *s, unsigned max)
{
    unsigned done = 0;

    for (unsigned i = 0; i < s->o.queues; i++)
        if (s->q[i].enabled && !(s->status & 64))
            done += run_queue(s, &s->q[i], 1 + i, max);
    return done;
}

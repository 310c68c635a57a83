/*
 * request.c - checking requests and laying them out for the device.
 *
 * A request whose data is one piece (or none) fits into its slot's frame: three indirect entries of
 * which two were written when the queue was built. Everything else is first listed as pieces and
 * then becomes a table in the slot's extent, or, without indirect descriptors, a chain in the ring.
 */
#include "request.h"

/* The feature without which an operation must not be sent (§5.2.6.1); VERSION_1 stands for none. */
static unsigned op_feature(uint32_t op)
{
    switch (op) {
    case VBLK_OP_FLUSH:
        return VBLK_F_FLUSH;
    case VBLK_OP_DISCARD:
        return VBLK_F_DISCARD;
    case VBLK_OP_WRITE_ZEROES:
        return VBLK_F_WRITE_ZEROES;
    case VBLK_OP_SECURE_ERASE:
        return VBLK_F_SECURE_ERASE;
    case VBLK_OP_GET_LIFETIME:
        return VBLK_F_LIFETIME;
    case VBLK_OP_ZONE_APPEND:
    case VBLK_OP_ZONE_REPORT:
    case VBLK_OP_ZONE_OPEN:
    case VBLK_OP_ZONE_CLOSE:
    case VBLK_OP_ZONE_FINISH:
    case VBLK_OP_ZONE_RESET:
    case VBLK_OP_ZONE_RESET_ALL:
        return VBLK_F_ZONED;
    default:
        return VBLK_F_VERSION_1;
    }
}

static bool op_writes(uint32_t op)
{
    return op != VBLK_OP_READ && op != VBLK_OP_FLUSH && op != VBLK_OP_GET_ID &&
           op != VBLK_OP_GET_LIFETIME && op != VBLK_OP_ZONE_REPORT;
}

uint64_t request_bytes(const struct vblk_request *r)
{
    const struct vblk_segment *s = request_segments(r);
    uint64_t bytes = 0;

    for (unsigned i = 0; i < r->count; i++)
        bytes += s[i].len;
    return bytes;
}

static int check_ranges(const struct vblk_info *info, const struct vblk_request *r)
{
    uint32_t most = info->discard_sectors_max, count = info->discard_ranges_max;
    bool unmap_allowed = r->op == VBLK_OP_WRITE_ZEROES;

    if (r->op == VBLK_OP_WRITE_ZEROES) {
        most = info->zeroes_sectors_max;
        count = info->zeroes_ranges_max;
    } else if (r->op == VBLK_OP_SECURE_ERASE) {
        most = info->erase_sectors_max;
        count = info->erase_ranges_max;
    }
    if (r->count == 0 || r->count > count)
        return -VBLK_EINVAL;
    for (unsigned i = 0; i < r->count; i++) {
        const struct vblk_range *g = &r->ranges[i];

        if (g->sectors == 0 || g->sectors > most || (g->unmap && !unmap_allowed))
            return -VBLK_EINVAL;
        if (g->sector > info->sectors || g->sectors > info->sectors - g->sector)
            return -VBLK_ENOSPC;
    }
    return 0;
}

static int check_segments(const struct vblk_info *info, const struct vblk_request *r)
{
    const struct vblk_segment *s = request_segments(r);
    uint64_t bytes = 0;

    if (r->count == 0 || r->count > info->segments_max)
        return -VBLK_EINVAL;
    for (unsigned i = 0; i < r->count; i++) {
        if (s[i].len == 0 || s[i].len > info->size_max)
            return -VBLK_EINVAL;
        bytes += s[i].len;
    }
    return bytes > info->bytes_max ? -VBLK_EINVAL : 0;
}

/* Reads and writes: whole blocks, inside the device. */
static int check_place(const struct vblk_info *info, const struct vblk_request *r)
{
    uint64_t bytes = request_bytes(r), sectors = bytes / VBLK_SECTOR_SIZE;

    if (bytes % info->block_size || r->sector % (info->block_size / VBLK_SECTOR_SIZE))
        return -VBLK_EINVAL;
    if (r->op == VBLK_OP_ZONE_APPEND && sectors > info->append_sectors_max)
        return -VBLK_EINVAL;
    if (r->sector > info->sectors || sectors > info->sectors - r->sector)
        return -VBLK_ENOSPC;
    return 0;
}

int request_check(const struct vblk_queue *q, const struct vblk_request *r)
{
    const struct vblk_info *info = &q->dev->info;
    enum data_kind kind = data_kind(r->op);
    int rc;

    if (kind == DATA_INVALID || r->priority >= VBLK_PRIO_COUNT)
        return -VBLK_EINVAL;
    if (!(info->features & VBLK_BIT(op_feature(r->op))))
        return -VBLK_ENOTSUP;
    if (info->read_only && op_writes(r->op))
        return -VBLK_EROFS;
    if (kind == DATA_RANGES)
        return check_ranges(info, r);
    if (kind == DATA_NONE) {
        if (r->count)
            return -VBLK_EINVAL;
        return r->op != VBLK_OP_FLUSH && r->sector >= info->sectors ? -VBLK_ENOSPC : 0;
    }
    rc = check_segments(info, r);
    if (rc < 0)
        return rc;
    switch (r->op) {
    case VBLK_OP_GET_ID:
        return request_bytes(r) == VBLK_ID_BYTES ? 0 : -VBLK_EINVAL;
    case VBLK_OP_GET_LIFETIME: /* struct virtio_blk_lifetime, §5.2.6 */
        return request_bytes(r) == 8 ? 0 : -VBLK_EINVAL;
    case VBLK_OP_ZONE_REPORT:
        return r->sector < info->sectors ? 0 : -VBLK_ENOSPC;
    default:
        return check_place(info, r);
    }
}

unsigned request_descs(const struct vblk_queue *q, const struct vblk_request *r)
{
    if (q->indirect)
        return 1;
    if (r->count == 0)
        return 2;
    return data_kind(r->op) == DATA_RANGES || q->bounces ? 3 : r->count + 2u;
}

static inline int translate(const struct vblk_queue *q, const void *buffer, size_t len,
                            uint64_t *addr)
{
    const struct vblk_platform *p = q->platform;

    if (!p->dma_translate) {
        *addr = (uintptr_t)buffer + p->dma_offset;
        return 0;
    }
    return p->dma_translate(p->ctx, buffer, len, addr) == 0 ? 0 : -VBLK_EINVAL;
}

static uint64_t status_addr(const struct vblk_queue *q, unsigned slot)
{
    return q->statuses_addr + slot;
}

static void desc_words(const struct vblk_queue *q, uint64_t entry[2], const struct piece *p,
                       bool last, unsigned next)
{
    uint16_t flags = p->write ? DESC_WRITE : 0;

    entry[0] = le64(p->addr);
    /* In a packed table the order is the order of the entries: no NEXT there (§2.8.7). */
    entry[1] = q->packed ? desc_word_packed(p->len, 0, flags)
                         : desc_word_split(p->len, flags | (last ? 0 : DESC_NEXT), last ? 0 : next);
}

void frames_init(struct vblk_queue *q)
{
    for (unsigned i = 0; i < q->size; i++) {
        struct frame *f = &q->frames[i];
        uint64_t addr = q->frames_addr + i * sizeof(*f);
        struct piece header = {addr, sizeof(f->header), false};
        struct piece status = {status_addr(q, i), 1, true};

        desc_words(q, f->table[0], &header, false, 1);
        desc_words(q, f->table[2], &status, true, 0);
        f->header.ioprio = 0;
    }
}

static uint64_t frame_table(const struct vblk_queue *q, unsigned slot)
{
    return q->frames_addr + slot * sizeof(struct frame) + offsetof(struct frame, table);
}

static inline void slot_begin(struct vblk_queue *q, unsigned slot, struct vblk_request *r,
                              uint32_t writable)
{
    struct frame *f = &q->frames[slot];

    f->header.type = le32(r->op);
    f->header.sector = le64(data_kind(r->op) == DATA_RANGES ? 0 : r->sector);
    q->last_slot = slot;
    q->statuses[slot] = BLK_S_UNWRITTEN;
    q->slots[slot].request = r;
    q->slots[slot].writable = writable;
}

/* One piece of data or none: the frame is enough. */
static int put_short(struct vblk_queue *q, struct vblk_request *r)
{
    struct piece data = {.len = 1, .write = true};
    unsigned slot, entries = 2;
    uint32_t writable = 1;

    if (r->count) {
        data.len = r->segment.len;
        data.write = data_kind(r->op) == DATA_IN;
        if (translate(q, r->segment.base, data.len, &data.addr) < 0)
            return -VBLK_EINVAL;
        writable += data.write ? data.len : 0;
        entries = 3;
    }
    slot = slot_take(q, 1);
    if (entries == 2)
        data.addr = status_addr(q, slot);
    desc_words(q, q->frames[slot].table[1], &data, entries == 2, 2);
    slot_begin(q, slot, r, writable);
    ring_push_indirect(q, slot, frame_table(q, slot), entries);
    return 0;
}

static uint8_t *extent_of(const struct vblk_queue *q, unsigned slot)
{
    return q->extents + (size_t)slot * q->extent_stride;
}

static uint64_t extent_addr(const struct vblk_queue *q, unsigned slot)
{
    return q->extents_addr + (uint64_t)slot * q->extent_stride;
}

/* The ranges of a discard, as the device reads them, behind the tail of the slot's extent. */
static void put_ranges(struct vblk_queue *q, unsigned slot, const struct vblk_request *r,
                       struct piece *p)
{
    struct virtio_blk_range *to = (void *)(extent_of(q, slot) + sizeof(struct tail));

    for (unsigned i = 0; i < r->count; i++)
        to[i] = (struct virtio_blk_range){.sector = le64(r->ranges[i].sector),
                                          .sectors = le32(r->ranges[i].sectors),
                                          .flags = le32(r->ranges[i].unmap ? RANGE_UNMAP : 0)};
    *p = (struct piece){extent_addr(q, slot) + sizeof(struct tail),
                        (uint32_t)(r->count * sizeof(*to)), false};
}

static void put_bounce(struct vblk_queue *q, unsigned slot, const struct vblk_request *r,
                       struct piece *p)
{
    uint64_t at = (uint64_t)slot * q->dev->config.bounce_bytes;
    const struct vblk_segment *s = request_segments(r);
    uint8_t *to = q->bounces + at;
    bool in = data_kind(r->op) == DATA_IN;

    *p = (struct piece){q->bounces_addr + at, (uint32_t)request_bytes(r), in};
    for (unsigned i = 0; i < r->count && !in; i++) {
        __builtin_memcpy(to, s[i].base, s[i].len);
        to += s[i].len;
    }
}

void request_push_pieces(struct vblk_queue *q, unsigned slot, unsigned n)
{
    uint8_t *table = extent_of(q, slot) + q->extent_table;

    if (!q->indirect) {
        ring_push_direct(q, slot, q->pieces, n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t entry[2];

        desc_words(q, entry, &q->pieces[i], i + 1 == n, i + 1);
        __builtin_memcpy(table + i * sizeof(entry), entry, sizeof(entry));
    }
    ring_push_indirect(q, slot, extent_addr(q, slot) + q->extent_table, n);
}

static int put_long(struct vblk_queue *q, struct vblk_request *r)
{
    enum data_kind kind = data_kind(r->op);
    bool append = r->op == VBLK_OP_ZONE_APPEND, own = kind == DATA_RANGES || q->bounces;
    struct piece *p = q->pieces;
    uint64_t writable = append ? offsetof(struct tail, unused) : 1;
    unsigned slot, n = 1;

    if (r->count && !own) {
        const struct vblk_segment *s = request_segments(r);

        for (unsigned i = 0; i < r->count; i++, n++) {
            p[n] = (struct piece){0, s[i].len, kind == DATA_IN};
            if (translate(q, s[i].base, s[i].len, &p[n].addr) < 0)
                return -VBLK_EINVAL;
        }
    }
    slot = slot_take(q, request_descs(q, r));
    p[0] = (struct piece){q->frames_addr + slot * sizeof(struct frame),
                          sizeof(struct virtio_blk_header), false};
    if (kind == DATA_RANGES)
        put_ranges(q, slot, r, &p[n++]);
    else if (r->count && own)
        put_bounce(q, slot, r, &p[n++]);
    p[n++] = append ? (struct piece){extent_addr(q, slot), offsetof(struct tail, unused), true}
                    : (struct piece){status_addr(q, slot), 1, true};
    if (append)
        ((struct tail *)extent_of(q, slot))->status = BLK_S_UNWRITTEN;
    if (kind == DATA_IN)
        writable += request_bytes(r);
    slot_begin(q, slot, r, writable > UINT32_MAX ? UINT32_MAX : (uint32_t)writable);
    request_push_pieces(q, slot, n);
    return 0;
}

int request_put(struct vblk_queue *q, struct vblk_request *r)
{
    bool is_short =
        q->fast && r->count <= 1 && r->op != VBLK_OP_ZONE_APPEND && data_kind(r->op) != DATA_RANGES;
    int rc = is_short ? put_short(q, r) : put_long(q, r);

    if (rc == 0) {
        q->in_flight++;
        r->attempts += r->attempts < UINT8_MAX;
    }
    return rc;
}

static int status_error(uint8_t status)
{
    switch (status) {
    case BLK_S_OK:
        return 0;
    case BLK_S_UNSUPP:
        return -VBLK_ENOTSUP;
    default: /* an error, a zone's own code (the caller looks at device_status), or no status at all
              */
        return -VBLK_EIO;
    }
}

int request_result(struct vblk_queue *q, unsigned slot, struct vblk_request *r)
{
    bool append = r->op == VBLK_OP_ZONE_APPEND;
    const struct tail *tail = append ? (const void *)extent_of(q, slot) : NULL;
    const uint8_t *at = append ? &tail->status : &q->statuses[slot];
    uint8_t status = __atomic_load_n(at, __ATOMIC_RELAXED);

    r->device_status = status;
    if (status != BLK_S_OK)
        return status_error(status);
    if (append)
        r->sector = le64(__atomic_load_n(&tail->append_sector, __ATOMIC_RELAXED));
    if (q->bounces && r->count && data_kind(r->op) == DATA_IN) {
        const struct vblk_segment *s = request_segments(r);
        const uint8_t *from = q->bounces + (uint64_t)slot * q->dev->config.bounce_bytes;

        for (unsigned i = 0; i < r->count; i++) {
            __builtin_memcpy(s[i].base, from, s[i].len);
            from += s[i].len;
        }
    }
    return 0;
}

/*
 * blk.c - virtio-blk requests (VirtIO 1.3 §5.2.6) on a disk.
 *
 * A request is 16 bytes of header, data, and one status byte, the last that the device may write.
 */
#include <linux/virtio_blk.h>

#include "vhost.h"

enum { HEADER = 16, SECTOR = 512, RANGES_MAX = 32, SEG_MAX = 126 };
/* What one range of a discard or write zeroes may cover, in sectors. */
#define RANGE_SECTORS_MAX 0x400000u

/* ---- what the device is */

uint64_t blk_features(const struct vhost *v)
{
    const struct layer_info *i = &v->top->info;

    return QZ_BIT(VIRTIO_BLK_F_SEG_MAX) | QZ_BIT(VIRTIO_BLK_F_BLK_SIZE) |
           QZ_BIT(VIRTIO_BLK_F_TOPOLOGY) | QZ_BIT(VIRTIO_BLK_F_FLUSH) |
           QZ_BIT(VIRTIO_BLK_F_CONFIG_WCE) | QZ_BIT(VIRTIO_BLK_F_MQ) |
           (i->readonly ? QZ_BIT(VIRTIO_BLK_F_RO) : 0) |
           (i->discard ? QZ_BIT(VIRTIO_BLK_F_DISCARD) : 0) |
           (i->write_zeroes ? QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
}

void blk_config(const struct vhost *v, struct blk_config *c)
{
    const struct layer_info *i = &v->top->info;
    uint32_t block = QZ_MIN(QZ_MAX(i->preferred, (uint32_t)SECTOR), 64u << 10);

    *c = (struct blk_config){
        .capacity = __atomic_load_n(&i->size, __ATOMIC_RELAXED) / SECTOR,
        .seg_max = SEG_MAX,
        .blk_size = SECTOR,
        .physical_block_exp = (uint8_t)__builtin_ctz(block / SECTOR),
        .min_io_size = 1,
        .wce = __atomic_load_n(&v->wce, __ATOMIC_RELAXED),
        .num_queues = (uint16_t)v->lane_count,
        .max_discard_sectors = RANGE_SECTORS_MAX,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = block / SECTOR,
        .max_write_zeroes_sectors = RANGE_SECTORS_MAX,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
}

/* ---- requests */

static void submit(struct slot *s)
{
    layer_submit(s->lane->v->top, s->lane->q, &s->r);
}

static bool next_range(struct slot *s)
{
    if (s->next_range >= s->ranges)
        return false;
    s->r.offset = s->range[s->next_range].offset;
    s->r.length = s->range[s->next_range].length;
    s->r.flags = s->range[s->next_range].flags;
    s->next_range++;
    return true;
}

static void forget_ranges(struct slot *s)
{
    free(s->range);
    s->range = NULL;
    s->ranges = s->next_range = 0;
}

static void on_done(struct request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, r);

    if (__builtin_expect(s->ranges, 0)) {
        if (result == 0 && next_range(s)) {
            submit(s);
            return;
        }
        /* Zeroes are a write like any other (§5.2.6.2). */
        if (result == 0 && r->op == DISK_WRITE_ZEROES &&
            !__atomic_load_n(&s->lane->v->wce, __ATOMIC_RELAXED)) {
            forget_ranges(s);
            r->op = DISK_FLUSH;
            submit(s);
            return;
        }
        forget_ranges(s);
    }
    lane_finish(s, result == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR,
                r->op == DISK_READ && result == 0 ? (uint32_t)r->length : 0);
}

static void issue(struct slot *s, enum disk_op op, unsigned flags)
{
    s->r.op = op;
    s->r.flags = flags;
    s->r.done = on_done;
    s->r.next = NULL;
    submit(s);
}

static bool in_capacity(const struct slot *s, uint64_t sector, uint64_t bytes)
{
    uint64_t sectors = __atomic_load_n(&s->lane->v->top->info.size, __ATOMIC_RELAXED) / SECTOR;

    return bytes % SECTOR == 0 && sector <= sectors && bytes / SECTOR <= sectors - sector;
}

/* Cuts n bytes off the front of the vectors. */
static void skip(struct iovec **iov, unsigned *count, size_t n)
{
    while (*count && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (n) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static void move(struct slot *s, bool write, uint64_t sector)
{
    struct ring_chain *c = &s->chain;
    uint64_t bytes = write ? c->out_bytes - HEADER : c->in_bytes - 1;
    struct iovec *iov = write ? c->iov : c->iov + c->out_count;
    unsigned count = write ? c->out_count : c->in_count;

    if (!in_capacity(s, sector, bytes) || (write && s->lane->v->top->info.readonly)) {
        lane_finish(s, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    if (bytes == 0) {
        lane_finish(s, VIRTIO_BLK_S_OK, 0);
        return;
    }
    if (write)
        skip(&iov, &count, HEADER);
    else if (--iov[count - 1].iov_len == 0) /* the status byte */
        count--;
    s->r.offset = sector * SECTOR;
    s->r.length = bytes;
    s->r.iov = iov;
    s->r.iov_count = count;
    issue(s, write ? DISK_WRITE : DISK_READ,
          write && !__atomic_load_n(&s->lane->v->wce, __ATOMIC_RELAXED) ? REQUEST_FUA : 0);
}

/* All ranges are checked before the first is touched. */
static uint8_t read_ranges(struct slot *s, enum disk_op op, unsigned n)
{
    struct virtio_blk_discard_write_zeroes wire[RANGES_MAX];
    uint32_t allowed = op == DISK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

    iov_to_flat(wire, s->chain.iov, s->chain.out_count, HEADER, n * sizeof(wire[0]));
    s->range = calloc(n, sizeof(*s->range));
    if (!s->range)
        return VIRTIO_BLK_S_IOERR;
    for (unsigned i = 0; i < n; i++) {
        uint64_t sector = qz_load_le64(&wire[i].sector);
        uint32_t sectors = qz_load_le32(&wire[i].num_sectors), flags = qz_load_le32(&wire[i].flags);

        if (flags & ~allowed)
            return VIRTIO_BLK_S_UNSUPP;
        if (!sectors || sectors > RANGE_SECTORS_MAX ||
            !in_capacity(s, sector, (uint64_t)sectors * SECTOR))
            return VIRTIO_BLK_S_IOERR;
        s->range[i].offset = sector * SECTOR;
        s->range[i].length = (uint64_t)sectors * SECTOR;
        s->range[i].flags = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ? REQUEST_MAY_UNMAP : 0;
    }
    return VIRTIO_BLK_S_OK;
}

static void ranges(struct slot *s, enum disk_op op)
{
    const struct layer_info *info = &s->lane->v->top->info;
    uint64_t bytes = s->chain.out_bytes - HEADER;
    unsigned n = (unsigned)(bytes / sizeof(struct virtio_blk_discard_write_zeroes));
    uint8_t status;

    if (info->readonly || bytes == 0 || n > RANGES_MAX ||
        bytes % sizeof(struct virtio_blk_discard_write_zeroes)) {
        lane_finish(s, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    if (!(op == DISK_DISCARD ? info->discard : info->write_zeroes)) {
        lane_finish(s, VIRTIO_BLK_S_UNSUPP, 0);
        return;
    }
    status = read_ranges(s, op, n);
    if (status != VIRTIO_BLK_S_OK) {
        forget_ranges(s);
        lane_finish(s, status, 0);
        return;
    }
    s->ranges = (uint8_t)n;
    next_range(s);
    issue(s, op, s->r.flags);
}

static void get_id(struct slot *s)
{
    uint64_t n = QZ_MIN((uint64_t)sizeof(s->lane->v->serial), s->chain.in_bytes - 1);

    iov_from_flat(s->chain.iov + s->chain.out_count, s->chain.in_count, 0, s->lane->v->serial, n);
    lane_finish(s, VIRTIO_BLK_S_OK, (uint32_t)n);
}

void blk_take(struct slot *s)
{
    struct ring_chain *c = &s->chain;
    struct iovec *last = &c->iov[c->out_count + c->in_count - 1];
    uint8_t header[HEADER];

    if (c->out_bytes < HEADER || c->in_bytes < 1) {
        lane_break(s, "a request without header or status byte");
        return;
    }
    iov_to_flat(header, c->iov, c->out_count, 0, HEADER);
    s->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    s->ranges = s->next_range = 0;
    switch (qz_load_le32(header)) {
    case VIRTIO_BLK_T_IN:
        move(s, false, qz_load_le64(header + 8));
        return;
    case VIRTIO_BLK_T_OUT:
        move(s, true, qz_load_le64(header + 8));
        return;
    case VIRTIO_BLK_T_FLUSH:
        s->r.offset = s->r.length = 0;
        issue(s, DISK_FLUSH, 0);
        return;
    case VIRTIO_BLK_T_GET_ID:
        get_id(s);
        return;
    case VIRTIO_BLK_T_DISCARD:
        ranges(s, DISK_DISCARD);
        return;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        ranges(s, DISK_WRITE_ZEROES);
        return;
    }
    lane_finish(s, VIRTIO_BLK_S_UNSUPP, 0);
}

/*
 * virtio_blk.c - the block device (VirtIO 1.3 §5.2) over a block backend.
 *
 * Theory of operation. A request is a chain: 16 bytes of header, data, one status byte as the very
 * last writable byte. Each queue has as many request slots as its ring has descriptors, so nothing
 * is allocated on the I/O path. A slot belongs to the backend until its completion; a reset waits
 * for all of them, and their chains are then forgotten, not returned.
 */
#include <linux/virtio_blk.h>

#include "devices/virtio/block_backend.h"
#include "devices/virtio/devices.h"
#include "machine/io_gate.h"

enum {
    QUEUES_MAX = 16,
    QUEUE_SIZE_DEFAULT = 256,
    SEGMENTS_MAX = 126,
    HEADER = 16,
    SECTOR = 512,
    RANGES_MAX = 32
};
enum { CHAIN_SEGMENTS = SEGMENTS_MAX + 2, ID_BYTES = 20 };
/* One range of discard or write zeroes may cover this much; in sectors. */
#define RANGE_SECTORS_MAX 0x400000u

struct blk;

struct slot {
    struct blk *blk;
    unsigned queue;
    struct slot *next; /* free list */
    struct block_request request;
    struct virtqueue_chain chain;
    struct iovec iov[CHAIN_SEGMENTS];
    struct iovec data[CHAIN_SEGMENTS]; /* the chain without header and status */
    bool flush_after; /* write-through: the write is done when it is on the medium */
    struct virtio_blk_discard_write_zeroes range[RANGES_MAX];
    unsigned ranges, next_range;
};

struct blk_queue {
    struct slot *slots, *free;
    unsigned in_flight;
    bool resetting;
};

struct blk {
    struct virtio_device d;
    struct block_backend *backend;
    const struct block_info *info;
    struct virtio_blk_config_space {
        uint64_t capacity;
        uint32_t size_max, seg_max;
        struct {
            uint16_t cylinders;
            uint8_t heads, sectors;
        } geometry;
        uint32_t blk_size;
        uint8_t physical_block_exp, alignment_offset;
        uint16_t min_io_size;
        uint32_t opt_io_size;
        uint8_t wce, unused0;
        uint16_t num_queues;
        uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
        uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
        uint8_t write_zeroes_may_unmap, unused1[3];
    } config;
    char serial[ID_BYTES];
    bool resetting;
    bool locked; /* the loop's thread is in here with the lock held: a completion may come from
                    inside submit() */
    struct blk_queue queue[QUEUES_MAX];
    struct virtio_blk_stats stats;
};
_Static_assert(sizeof(struct virtio_blk_config_space) == 64, "VirtIO 1.3 §5.2.4");

static struct blk *blk_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct blk, d);
}

/* ---- ending a request
 * ------------------------------------------------------------------------------- */

static void release(struct slot *s)
{
    struct blk_queue *q = &s->blk->queue[s->queue];

    s->next = q->free;
    q->free = s;
}

static bool drained(const struct blk *b)
{
    for (unsigned i = 0; i < b->d.queue_count; i++)
        if (b->queue[i].in_flight)
            return false;
    return true;
}

/* written: bytes before the status byte. */
static void answer(struct slot *s, uint8_t status, uint64_t written)
{
    struct virtqueue *vq = &s->blk->d.queue[s->queue];

    if (status != VIRTIO_BLK_S_OK)
        s->blk->stats.errors++;
    virtqueue_write(&s->chain, s->chain.in_bytes - 1, &status, 1);
    virtqueue_push(vq, &s->chain, (uint32_t)(status == VIRTIO_BLK_S_OK ? written + 1 : 1));
    release(s);
}

static bool next_range(struct slot *s);

/* The next part of a request that is done so far: another range, or the flush of a write-through.
 */
static bool has_next(struct slot *s)
{
    if (next_range(s))
        return true;
    if (!s->flush_after)
        return false;
    s->flush_after = false;
    s->request.op = BLOCK_FLUSH;
    return true;
}

static void end_reset(struct blk *b, unsigned queue)
{
    struct blk_queue *q = &b->queue[queue];

    if (q->resetting && !q->in_flight) {
        q->resetting = false;
        virtio_queue_reset_done(&b->d, queue);
    }
    if (b->resetting && drained(b)) {
        b->resetting = false;
        virtio_reset_done(&b->d);
    }
}

static void left_flight(struct slot *s)
{
    s->blk->queue[s->queue].in_flight--;
    io_gate_end(s->blk->d.machine->gate);
}

/* Lock held. */
static void request_done(struct slot *s, int result)
{
    struct blk *b = s->blk;
    struct blk_queue *q = &b->queue[s->queue];

    if (b->resetting ||
        q->resetting) { /* the ring is the driver's again: nothing is written to it */
        left_flight(s);
        release(s);
        end_reset(b, s->queue);
    } else if (result == 0 && has_next(s)) {
        b->backend->ops->queue(b->backend, &s->request);
        b->backend->ops->submit(b->backend);
    } else {
        left_flight(s);
        answer(s, result == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR,
               s->request.op == BLOCK_READ ? s->request.length : 0);
        virtqueue_interrupt(&b->d.queue[s->queue]);
        if (b->d.machine->gate) /* the next one */
            virtio_queue_again(&b->d, s->queue);
    }
}

/* Completions come on the device's loop: from the ring, or from inside one of our own calls of the
 * backend. */
static void on_done(struct block_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, request);
    struct blk *b = s->blk;

    if (b->locked) {
        request_done(s, result);
        return;
    }
    QZ_LOCKED(&b->d.lock);
    b->locked = true;
    request_done(s, result);
    b->locked = false;
}

/* ---- taking a request
 * ------------------------------------------------------------------------------- */

static void issue(struct slot *s, enum block_op op, uint64_t offset, uint64_t length)
{
    struct blk *b = s->blk;

    s->request.op = op;
    s->request.offset = offset;
    s->request.length = length;
    s->request.done = on_done;
    b->queue[s->queue].in_flight++;
    io_gate_begin(b->d.machine->gate);
    b->backend->ops->queue(b->backend, &s->request);
}

/* The chain's data: `skip` bytes from the front and `tail` from the end left out. */
static unsigned cut(const struct iovec *in, unsigned n, size_t skip, size_t tail, struct iovec *out)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++) {
        struct iovec v = in[i];
        size_t drop = QZ_MIN(skip, v.iov_len);

        skip -= drop;
        v.iov_base = (uint8_t *)v.iov_base + drop;
        v.iov_len -= drop;
        if (v.iov_len)
            out[count++] = v;
    }
    while (count && tail) {
        size_t drop = QZ_MIN(tail, out[count - 1].iov_len);

        tail -= drop;
        out[count - 1].iov_len -= drop;
        if (!out[count - 1].iov_len)
            count--;
    }
    return count;
}

static bool in_capacity(const struct blk *b, uint64_t sector, uint64_t bytes)
{
    uint64_t sectors = b->config.capacity;

    return bytes % SECTOR == 0 && sector <= sectors && bytes / SECTOR <= sectors - sector;
}

static void read_or_write(struct slot *s, bool write, uint64_t sector)
{
    struct blk *b = s->blk;
    struct virtqueue_chain *c = &s->chain;
    uint64_t bytes = write ? c->out_bytes - HEADER : c->in_bytes - 1;

    if (!in_capacity(b, sector, bytes) || (write && b->info->readonly)) {
        answer(s, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    if (bytes == 0) {
        answer(s, VIRTIO_BLK_S_OK, 0);
        return;
    }
    s->request.iov = s->data;
    s->request.iov_count = write ? cut(c->iov, c->out_count, HEADER, 0, s->data)
                                 : cut(c->iov + c->out_count, c->in_count, 0, 1, s->data);
    s->flush_after = write && !b->config.wce;
    if (write) {
        b->stats.writes++;
        b->stats.written_bytes += bytes;
    } else {
        b->stats.reads++;
        b->stats.read_bytes += bytes;
    }
    issue(s, write ? BLOCK_WRITE : BLOCK_READ, sector * SECTOR, bytes);
}

/* Sets the request up for the next range of a discard or write zeroes; false when there is none. */
static bool next_range(struct slot *s)
{
    const struct virtio_blk_discard_write_zeroes *r = &s->range[s->next_range];

    if (s->next_range >= s->ranges)
        return false;
    s->next_range++;
    s->request.offset = qz_load_le64(&r->sector) * SECTOR;
    s->request.length = (uint64_t)qz_load_le32(&r->num_sectors) * SECTOR;
    s->request.may_unmap = qz_load_le32(&r->flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    return true;
}

/* Discard and write zeroes (§5.2.6): an array of ranges, all checked before the first is touched.
 */
static void ranges(struct slot *s, enum block_op op)
{
    struct blk *b = s->blk;
    uint64_t bytes = s->chain.out_bytes - HEADER;
    uint32_t allowed = op == BLOCK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

    if (!b->info->readonly && !(op == BLOCK_DISCARD ? b->info->discard : b->info->write_zeroes)) {
        answer(s, VIRTIO_BLK_S_UNSUPP, 0);
        return;
    }
    s->ranges = (unsigned)(bytes / sizeof(s->range[0]));
    if (b->info->readonly || bytes == 0 || bytes % sizeof(s->range[0]) ||
        bytes > sizeof(s->range)) {
        answer(s, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    virtqueue_read(&s->chain, HEADER, s->range, bytes);
    for (unsigned i = 0; i < s->ranges; i++) {
        uint32_t sectors = qz_load_le32(&s->range[i].num_sectors),
                 flags = qz_load_le32(&s->range[i].flags);
        bool bad_flags = flags & ~allowed;

        if (bad_flags || sectors == 0 || sectors > RANGE_SECTORS_MAX ||
            !in_capacity(b, qz_load_le64(&s->range[i].sector), (uint64_t)sectors * SECTOR)) {
            answer(s, bad_flags ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR, 0);
            return;
        }
    }
    s->next_range = 0;
    s->flush_after = op == BLOCK_WRITE_ZEROES &&
                     !b->config.wce; /* zeros are a write like any other (§5.2.6.2) */
    next_range(s);
    b->stats.discards++;
    issue(s, op, s->request.offset, s->request.length);
}

static void take(struct slot *s)
{
    struct blk *b = s->blk;
    uint8_t header[HEADER];
    uint32_t type;
    uint64_t sector;

    if (virtqueue_read(&s->chain, 0, header, HEADER) != HEADER || s->chain.in_bytes < 1) {
        virtqueue_fail(&b->d.queue[s->queue], "request without a %s",
                       s->chain.in_bytes ? "whole header" : "status byte");
        release(s);
        return;
    }
    type = qz_load_le32(header);
    sector = qz_load_le64(header + 8);
    s->flush_after = false;
    s->ranges = s->next_range = 0;
    switch (type) {
    case VIRTIO_BLK_T_IN:
        read_or_write(s, false, sector);
        return;
    case VIRTIO_BLK_T_OUT:
        read_or_write(s, true, sector);
        return;
    case VIRTIO_BLK_T_FLUSH:
        b->stats.flushes++;
        issue(s, BLOCK_FLUSH, 0, 0);
        return;
    case VIRTIO_BLK_T_GET_ID:
        virtqueue_write(&s->chain, 0, b->serial, QZ_MIN((uint64_t)ID_BYTES, s->chain.in_bytes - 1));
        answer(s, VIRTIO_BLK_S_OK, QZ_MIN((uint64_t)ID_BYTES, s->chain.in_bytes - 1));
        return;
    case VIRTIO_BLK_T_DISCARD:
        ranges(s, BLOCK_DISCARD);
        return;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        ranges(s, BLOCK_WRITE_ZEROES);
        return;
    }
    answer(s, VIRTIO_BLK_S_UNSUPP, 0);
}

/* A deterministic machine's requests are done one by one: the host may end them in any order. */
static bool must_wait(const struct blk *b, unsigned q)
{
    return b->d.machine->gate && b->queue[q].in_flight;
}

/* Takes one request; false when there is none, or no slot for it. */
static bool take_next(struct blk *b, unsigned q)
{
    struct slot *s = b->queue[q].free;

    if (!s || must_wait(b, q))
        return false;
    s->chain.iov = s->iov;
    s->chain.capacity = CHAIN_SEGMENTS;
    if (virtqueue_pop(&b->d.queue[q], &s->chain) != 1)
        return false;
    b->queue[q].free = s->next;
    take(s);
    return true;
}

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct blk *b = blk_of(d);
    struct virtqueue *vq = &d->queue[q];
    unsigned left =
        vq->size; /* a ring's worth for each round: what answers at once must not keep the thread */

    b->locked = true;
    for (;;) {
        virtqueue_notify_disable(vq);
        while (left && take_next(b, q))
            left--;
        b->backend->ops->submit(b->backend);
        if (must_wait(b, q))
            break; /* request_done() comes here again */
        if (!left) {
            virtio_queue_again(d, q);
            break;
        }
        if (!virtqueue_notify_enable(vq))
            break;
        /* As many slots as ring entries: all taken and more to come means that an entry was given
         * twice. */
        if (!b->queue[q].free) {
            virtqueue_fail(vq, "more requests than the ring of %u has entries", vq->size);
            break;
        }
    }
    virtqueue_interrupt(vq);
    b->locked = false;
}

/* ---- device
 * --------------------------------------------------------------------------------------------- */

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&blk_of(d)->config + offset, len);
}

static void on_config_write(struct virtio_device *d, unsigned offset, const void *buf, unsigned len)
{
    const unsigned wce = offsetof(struct virtio_blk_config_space, wce);

    if (virtio_has(d, VIRTIO_BLK_F_CONFIG_WCE) && offset <= wce && wce < offset + len)
        blk_of(d)->config.wce = ((const uint8_t *)buf)[wce - offset] & 1;
}

static void on_activate(struct virtio_device *d)
{
    /* A driver that knows no flush gets write-through, with CONFIG_WCE too (§5.2.5.2). */
    if (!virtio_has(d, VIRTIO_BLK_F_FLUSH))
        blk_of(d)->config.wce = 0;
}

static void on_reset(struct virtio_device *d)
{
    struct blk *b = blk_of(d);

    b->config.wce = 1;
    if (drained(b))
        virtio_reset_done(d);
    else
        b->resetting = true;
}

static void on_queue_reset(struct virtio_device *d, unsigned q)
{
    struct blk *b = blk_of(d);

    if (b->queue[q].in_flight)
        b->queue[q].resetting = true;
    else
        virtio_queue_reset_done(d, q);
}

static void on_free(struct virtio_device *d)
{
    struct blk *b = blk_of(d);

    if (b->backend)
        b->backend->ops->free(b->backend);
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        free(b->queue[i].slots);
    free(b);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-blk",
    .device_id = VIRTIO_ID_BLOCK,
    .config_read = on_config_read,
    .config_write = on_config_write,
    .activate = on_activate,
    .notify = on_notify,
    .reset = on_reset,
    .queue_reset = on_queue_reset,
    .free = on_free,
};

static void fill_config(struct blk *b, unsigned queues)
{
    b->config.capacity = b->info->capacity / SECTOR;
    b->config.seg_max = SEGMENTS_MAX;
    b->config.blk_size = SECTOR;
    b->config.physical_block_exp =
        (uint8_t)__builtin_ctz(QZ_MAX(b->info->block_size, (uint32_t)SECTOR) / SECTOR);
    b->config.min_io_size = 1;
    b->config.wce = 1;
    b->config.num_queues = (uint16_t)queues;
    b->config.max_discard_sectors = b->config.max_write_zeroes_sectors = RANGE_SECTORS_MAX;
    b->config.max_discard_seg = b->config.max_write_zeroes_seg = RANGES_MAX;
    b->config.discard_sector_alignment = QZ_MAX(b->info->block_size, (uint32_t)SECTOR) / SECTOR;
    b->config.write_zeroes_may_unmap = 1;
    b->d.offered = QZ_BIT(VIRTIO_BLK_F_SEG_MAX) | QZ_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                   QZ_BIT(VIRTIO_BLK_F_TOPOLOGY) | QZ_BIT(VIRTIO_BLK_F_FLUSH) |
                   QZ_BIT(VIRTIO_BLK_F_CONFIG_WCE) | QZ_BIT(VIRTIO_BLK_F_MQ) |
                   (b->info->readonly ? QZ_BIT(VIRTIO_BLK_F_RO) : 0) |
                   (b->info->discard ? QZ_BIT(VIRTIO_BLK_F_DISCARD) : 0) |
                   (b->info->write_zeroes ? QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
}

static int make_slots(struct blk *b, unsigned queues, unsigned size)
{
    for (unsigned q = 0; q < queues; q++) {
        b->queue[q].slots = calloc(size, sizeof(struct slot));
        if (!b->queue[q].slots)
            return -ENOMEM;
        for (unsigned i = size; i-- > 0;) {
            struct slot *s = &b->queue[q].slots[i];

            s->blk = b;
            s->queue = q;
            release(s);
        }
    }
    return 0;
}

int virtio_blk_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                   const struct virtio_blk_options *config, struct qz_error *err)
{
    struct blk *b = calloc(1, sizeof(*b));
    unsigned queues = QZ_MIN(QZ_MAX(config->queues, 1u), (unsigned)QUEUES_MAX);
    uint16_t size = config->queue_size ? config->queue_size : QUEUE_SIZE_DEFAULT;
    int r;

    if (!b || (r = make_slots(b, queues, size)) < 0) {
        config->backend->ops->free(config->backend);
        if (b)
            on_free(&b->d);
        return qz_fail(err, -ENOMEM, "disk %s: no memory", config->label);
    }
    b->backend = config->backend;
    b->info = b->backend->ops->info(b->backend);
    memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    b->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .no_packed = config->no_packed,
        .config_size = sizeof(b->config),
        .queue_count = queues,
        .queue_size_max = size,
        .label = config->label,
    };
    fill_config(b, queues);
    r = b->backend->ops->attach(b->backend, loop);
    if (r < 0) {
        on_free(&b->d);
        return qz_fail(err, r, "disk %s: %s", config->label, strerror(-r));
    }
    *out = &b->d;
    return 0;
}

void virtio_blk_get_stats(struct virtio_device *d, struct virtio_blk_stats *stats)
{
    QZ_LOCKED(&d->lock);

    *stats = blk_of(d)->stats;
}

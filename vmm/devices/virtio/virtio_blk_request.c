/*
 * virtio_blk_request.c - the block device's requests (VirtIO 1.3 §5.2.6), from the ring to the
 * backend and back (virtio_blk_internal.h).
 */
#include "devices/virtio/virtio_blk_internal.h"
#include "machine/io_gate.h"

/* ---- ending a request
 * ------------------------------------------------------------------------------- */

void blk_release(struct slot *s)
{
    struct blk_queue *q = &s->blk->queue[s->queue];

    s->next = q->free;
    q->free = s;
}

bool blk_drained(const struct blk *b)
{
    for (unsigned i = 0; i < b->d.queue_count; i++)
        if (b->queue[i].in_flight)
            return false;
    return true;
}

static void to_backend(struct slot *s)
{
    struct block_backend *backend = s->blk->backend;

    s->request.lane = lane_of(s->blk, s->queue)->index;
    io_gate_begin(s->blk->d.machine->gate);
    backend->ops->queue(backend, &s->request);
}

/* written: bytes before the status byte. */
static void answer(struct slot *s, uint8_t status, uint64_t written)
{
    struct virtqueue *vq = &s->blk->d.queue[s->queue];

    if (status != VIRTIO_BLK_S_OK)
        s->blk->queue[s->queue].stats.errors++;
    virtqueue_write(&s->chain, s->chain.in_bytes - 1, &status, 1);
    virtqueue_push(vq, &s->chain, (uint32_t)(status == VIRTIO_BLK_S_OK ? written + 1 : 1));
    blk_release(s);
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

/* All locks held. */
static void end_resets(struct blk *b)
{
    for (unsigned i = 0; i < b->d.queue_count; i++)
        if (b->queue[i].resetting && !b->queue[i].in_flight) {
            b->queue[i].resetting = false;
            virtio_queue_reset_done(&b->d, i);
        }
    if (b->resetting && blk_drained(b)) {
        b->resetting = false;
        virtio_reset_done(&b->d);
    }
}

static void on_reset_ended(struct qz_work *w)
{
    struct blk *b = QZ_CONTAINER_OF(w, struct blk_lane, reset_ended)->blk;

    virtio_lock(&b->d);
    end_resets(b);
    virtio_unlock(&b->d);
}

static bool is_resetting(const struct slot *s)
{
    return s->blk->resetting || s->blk->queue[s->queue].resetting;
}

/* Lane's lock held. */
static void request_done(struct slot *s, int result)
{
    struct blk *b = s->blk;
    struct blk_queue *q = &b->queue[s->queue];
    enum blk_verdict verdict = BLK_IGNORE;

    io_gate_end(b->d.machine->gate);
    if (is_resetting(s)) { /* the ring is the driver's again: nothing is written to it */
        q->in_flight--;
        blk_release(s);
        return;
    }
    if (result < 0 && (verdict = blk_judge(s, result)) == BLK_KEEP)
        return;
    if (verdict == BLK_IGNORE && has_next(s)) {
        to_backend(s);
        b->backend->ops->submit(b->backend, s->request.lane);
        return;
    }
    q->in_flight--;
    answer(s, verdict == BLK_IGNORE ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR,
           s->request.op == BLOCK_READ ? s->request.length : 0);
    virtqueue_interrupt(&b->d.queue[s->queue]);
    if (b->d.machine->gate) /* the next one */
        virtio_queue_again(&b->d, s->queue);
}

/* Completions come on the lane's loop: from the ring, or from inside one of our own calls of the
 * backend. */
static void on_done(struct block_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, request);
    struct blk *b = s->blk;
    struct blk_lane *lane = lane_of(b, s->queue);
    pthread_mutex_t *lock = virtio_queue_lock(&b->d, s->queue);
    bool reset;

    if (lane->locked) {
        reset = is_resetting(s);
        request_done(s, result);
        if (reset) /* the locks that its end takes are not to be had in here */
            qz_loop_post(b->loops[lane->index], &lane->reset_ended, on_reset_ended);
        return;
    }
    pthread_mutex_lock(lock);
    lane->locked = true;
    reset = is_resetting(s);
    request_done(s, result);
    lane->locked = false;
    pthread_mutex_unlock(lock);
    if (reset)
        on_reset_ended(&lane->reset_ended);
}

void blk_again(struct slot *s)
{
    to_backend(s);
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
    to_backend(s);
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
    struct virtio_blk_stats *stats = &b->queue[s->queue].stats;
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
        stats->writes++;
        stats->written_bytes += bytes;
    } else {
        stats->reads++;
        stats->read_bytes += bytes;
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

static bool can_do(const struct block_info *info, enum block_op op)
{
    return op == BLOCK_DISCARD        ? info->discard
           : op == BLOCK_WRITE_ZEROES ? info->write_zeroes
                                      : info->secure_erase;
}

/* Discard, write zeroes and secure erase (§5.2.6): an array of ranges, all checked before the first
 * is touched. */
static void ranges(struct slot *s, enum block_op op)
{
    struct blk *b = s->blk;
    uint64_t bytes = s->chain.out_bytes - HEADER;
    uint32_t allowed = op == BLOCK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

    if (!b->info->readonly && !can_do(b->info, op)) {
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
    s->flush_after =
        op != BLOCK_DISCARD && !b->config.wce; /* zeros are a write like any other (§5.2.6.2) */
    next_range(s);
    b->queue[s->queue].stats.discards++;
    issue(s, op, s->request.offset, s->request.length);
}

/* §5.2.6: struct virtio_blk_lifetime. */
static void get_lifetime(struct slot *s)
{
    struct blk *b = s->blk;
    struct qz_disk_lifetime worn;
    uint8_t bytes[6];
    uint64_t room = s->chain.in_bytes - 1;

    if (!b->info->lifetime || b->backend->ops->lifetime(b->backend, &worn) < 0) {
        answer(s, VIRTIO_BLK_S_UNSUPP, 0);
        return;
    }
    qz_store_le16(bytes, worn.pre_eol_info);
    qz_store_le16(bytes + 2, worn.typ_a);
    qz_store_le16(bytes + 4, worn.typ_b);
    virtqueue_write(&s->chain, 0, bytes, QZ_MIN(room, (uint64_t)sizeof(bytes)));
    answer(s, VIRTIO_BLK_S_OK, QZ_MIN(room, (uint64_t)sizeof(bytes)));
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
        blk_release(s);
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
        b->queue[s->queue].stats.flushes++;
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
    case VIRTIO_BLK_T_SECURE_ERASE:
        ranges(s, BLOCK_SECURE_ERASE);
        return;
    case BLK_T_GET_LIFETIME:
        get_lifetime(s);
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

void blk_notify(struct virtio_device *d, unsigned q)
{
    struct blk *b = blk_of(d);
    struct blk_lane *lane = lane_of(b, q);
    struct virtqueue *vq = &d->queue[q];
    unsigned left =
        vq->size; /* a ring's worth for each round: what answers at once must not keep the thread */

    lane->locked = true;
    for (;;) {
        virtqueue_notify_disable(vq);
        while (left && take_next(b, q))
            left--;
        b->backend->ops->submit(b->backend, lane->index);
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
    lane->locked = false;
}

/*
 * virtio_blk.c - the block device (VirtIO 1.3 §5.2) over a block backend.
 *
 * Theory of operation. A request is a chain: 16 bytes of header, data, one status byte as the very
 * last writable byte. Each queue has as many request slots as its ring has descriptors, so nothing
 * is allocated on the I/O path. A slot belongs to the backend until its completion; a reset waits
 * for all of them, and their chains are then forgotten, not returned. Queues may be served by
 * several threads: see virtio_blk_internal.h for what guards what.
 */
#include "devices/virtio/virtio_blk_internal.h"

enum { QUEUE_SIZE_DEFAULT = 256 };

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
    for (unsigned i = 0; i < d->queue_count; i++)
        blk_forget_kept(b, i);
    if (blk_drained(b))
        virtio_reset_done(d);
    else
        b->resetting = true;
}

static void on_queue_reset(struct virtio_device *d, unsigned q)
{
    struct blk *b = blk_of(d);

    blk_forget_kept(b, q);
    if (b->queue[q].in_flight)
        b->queue[q].resetting = true;
    else
        virtio_queue_reset_done(d, q);
}

static bool on_quiet(struct virtio_device *d)
{
    return blk_drained(blk_of(d));
}

static void on_state(struct virtio_device *d, struct qz_state *s)
{
    QZ_STATE(s, "wce", blk_of(d)->config.wce, 1);
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
    .notify = blk_notify,
    .reset = on_reset,
    .queue_reset = on_queue_reset,
    .quiet = on_quiet,
    .state = on_state,
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
    b->config.max_secure_erase_sectors = RANGE_SECTORS_MAX;
    b->config.max_secure_erase_seg = RANGES_MAX;
    b->config.secure_erase_sector_alignment = b->config.discard_sector_alignment;
    b->d.offered = QZ_BIT(VIRTIO_BLK_F_SEG_MAX) | QZ_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                   QZ_BIT(VIRTIO_BLK_F_TOPOLOGY) | QZ_BIT(VIRTIO_BLK_F_FLUSH) |
                   QZ_BIT(VIRTIO_BLK_F_CONFIG_WCE) | QZ_BIT(VIRTIO_BLK_F_MQ) |
                   (b->info->readonly ? QZ_BIT(VIRTIO_BLK_F_RO) : 0) |
                   (b->info->secure_erase ? QZ_BIT(VIRTIO_BLK_F_SECURE_ERASE) : 0) |
                   (b->info->lifetime ? QZ_BIT(BLK_F_LIFETIME) : 0) |
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
            blk_release(s);
        }
    }
    return 0;
}

static void make_lanes(struct blk *b, struct qz_loop *loop, const struct virtio_blk_options *o)
{
    b->lanes =
        QZ_MIN(QZ_MAX(o->loop_count, 1u), QZ_MIN(b->d.queue_count, (unsigned)BLOCK_LANES_MAX));
    for (unsigned i = 0; i < b->lanes; i++) {
        b->loops[i] = o->loops ? o->loops[i] : loop;
        b->lane[i] = (struct blk_lane){.blk = b, .index = i};
    }
    if (b->lanes > 1) {
        b->d.lane_loop = b->loops;
        b->d.lanes = b->lanes;
    }
}

static int attach(struct blk *b)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < b->lanes; i++)
        r = b->backend->ops->attach(b->backend, i, b->loops[i]);
    return r;
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
    b->on_error = config->on_error;
    b->stopped = config->stopped;
    b->context = config->context;
    memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    b->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = config->loops ? config->loops[0] : loop,
        .no_packed = config->no_packed,
        .config_size = sizeof(b->config),
        .queue_count = queues,
        .queue_size_max = size,
        .label = config->label,
    };
    fill_config(b, queues);
    make_lanes(b, b->d.loop, config);
    r = attach(b);
    if (r < 0) {
        on_free(&b->d);
        return qz_fail(err, r, "disk %s: %s", config->label, strerror(-r));
    }
    *out = &b->d;
    return 0;
}

void virtio_blk_get_stats(struct virtio_device *d, struct virtio_blk_stats *out)
{
    struct blk *b = blk_of(d);

    *out = (struct virtio_blk_stats){0};
    for (unsigned i = 0; i < d->queue_count; i++) {
        const struct virtio_blk_stats *s = &b->queue[i].stats;
        QZ_LOCKED(virtio_queue_lock(d, i));

        out->reads += s->reads;
        out->writes += s->writes;
        out->flushes += s->flushes;
        out->discards += s->discards;
        out->errors += s->errors;
        out->read_bytes += s->read_bytes;
        out->written_bytes += s->written_bytes;
        out->ignored += s->ignored;
        out->stops += s->stops;
    }
}

uint64_t virtio_blk_capacity(struct virtio_device *d)
{
    return __atomic_load_n(&blk_of(d)->info->capacity, __ATOMIC_RELAXED);
}

/* ---- resizing */

/* Something for lane 0's thread, which owns the queue that waits for it. */
struct lane_call {
    struct qz_work work;
    struct blk *blk;
    int (*f)(struct blk *b, struct lane_call *c);
    uint64_t capacity;
    struct qz_error *err;
    int result;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t ended;
};

static void run_call(struct qz_work *w)
{
    struct lane_call *c = QZ_CONTAINER_OF(w, struct lane_call, work);
    int r = c->f(c->blk, c);
    QZ_LOCKED(&c->lock);

    c->result = r;
    c->done = true;
    pthread_cond_signal(&c->ended);
}

static int call_lane(struct lane_call *c)
{
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->ended, NULL);
    qz_loop_post(c->blk->loops[0], &c->work, run_call);
    pthread_mutex_lock(&c->lock);
    while (!c->done)
        pthread_cond_wait(&c->ended, &c->lock);
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&c->ended);
    pthread_mutex_destroy(&c->lock);
    return c->result;
}

static int flush(struct blk *b, struct lane_call *c)
{
    return b->backend->ops->flush ? b->backend->ops->flush(b->backend) : 0;
}

int virtio_blk_flush(struct virtio_device *d)
{
    return call_lane(&(struct lane_call){.blk = blk_of(d), .f = flush});
}

static int resize(struct blk *b, struct lane_call *c)
{
    int r = b->backend->ops->resize(b->backend, c->capacity, c->err);

    if (r < 0)
        return r;
    virtio_lock(&b->d);
    b->config.capacity = c->capacity / SECTOR;
    virtio_config_changed(&b->d); /* §5.2.5: the driver reads the capacity again */
    virtio_unlock(&b->d);
    return 0;
}

int virtio_blk_resize(struct virtio_device *d, uint64_t capacity, struct qz_error *err)
{
    struct blk *b = blk_of(d);
    struct lane_call c = {.blk = b, .f = resize, .capacity = capacity, .err = err};
    uint64_t now = virtio_blk_capacity(d);

    if (b->info->readonly)
        return qz_fail(err, -EROFS, "disk %s: it is readonly", d->label);
    if (capacity % SECTOR)
        return qz_fail(err, -EINVAL, "disk %s: %llu bytes is no whole number of 512 byte sectors",
                       d->label, (unsigned long long)capacity);
    if (capacity < now)
        return qz_fail(err, -EINVAL,
                       "disk %s: a disk in use only grows, and it has %llu bytes: shrink its file "
                       "system in the guest, "
                       "then the image by queztl-disk resize",
                       d->label, (unsigned long long)now);
    return call_lane(&c);
}

static const struct blk *const_blk_of(const struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct blk, d);
}

bool virtio_blk_readonly(const struct virtio_device *d)
{
    return const_blk_of(d)->info->readonly;
}

const char *virtio_blk_format(const struct virtio_device *d)
{
    return const_blk_of(d)->info->format;
}

int virtio_blk_overlay(struct virtio_device *d, int fd, const char *name, struct qz_error *err)
{
    struct block_backend *b = blk_of(d)->backend;

    if (!b->ops->overlay)
        return qz_fail(err, -ENOTSUP, "disk %s: it cannot go on in another image", d->label);
    return b->ops->overlay(b, fd, name, err);
}

int virtio_blk_rewind(struct virtio_device *d, int base, int fd, const char *name,
                      struct qz_error *err)
{
    struct block_backend *b = blk_of(d)->backend;

    if (!b->ops->rewind)
        return qz_fail(err, -ENOTSUP, "disk %s: it cannot go back to another image", d->label);
    return b->ops->rewind(b, base, fd, name, err);
}

int virtio_blk_backing(struct virtio_device *d, struct qz_disk_backing *to)
{
    struct block_backend *b = blk_of(d)->backend;

    return b->ops->backing ? b->ops->backing(b, to) : -ENOENT;
}

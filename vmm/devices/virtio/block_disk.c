/*
 * block_disk.c - disks of the disk engine (<queztl/disk.h>) under virtio-blk (block_backend.h).
 *
 * The loop watches the descriptor of the disk's queue. A request carries the engine's
 * own request inside, so nothing is allocated or copied on the way but its fields.
 */
#include <queztl/disk.h>

#include "devices/virtio/block_backend.h"

enum { DEPTH = 256, SECTOR = 512 };

struct disk_lane {
    struct qz_disk_queue *queue;
    struct qz_watch watch;
};

struct disk_backend {
    struct block_backend b;
    struct block_info info;
    struct qz_disk *disk;
    struct disk_lane lane[BLOCK_LANES_MAX];
};

static struct disk_backend *backend_of(struct block_backend *b)
{
    return QZ_CONTAINER_OF(b, struct disk_backend, b);
}

static void on_done(struct qz_disk_request *p, int result)
{
    struct block_request *r = QZ_CONTAINER_OF(p, struct block_request, disk);

    r->done(r, result);
}

static void queue(struct block_backend *b, struct block_request *r)
{
    static const enum qz_disk_op ops[] = {
        [BLOCK_READ] = QZ_DISK_READ,
        [BLOCK_WRITE] = QZ_DISK_WRITE,
        [BLOCK_FLUSH] = QZ_DISK_FLUSH,
        [BLOCK_DISCARD] = QZ_DISK_DISCARD,
        [BLOCK_WRITE_ZEROES] = QZ_DISK_WRITE_ZEROES,
        [BLOCK_SECURE_ERASE] = QZ_DISK_WRITE_ZEROES,
    };
    struct qz_disk_request *p = &r->disk;

    p->op = ops[r->op];
    p->flags = r->op == BLOCK_SECURE_ERASE                   ? QZ_DISK_SECURE
               : r->op == BLOCK_WRITE_ZEROES && r->may_unmap ? QZ_DISK_MAY_UNMAP
                                                             : 0;
    p->offset = r->offset;
    p->length = r->length;
    p->iov = r->iov;
    p->iov_count = r->iov_count;
    p->done = on_done;
    qz_disk_submit(backend_of(b)->lane[r->lane].queue, p);
}

static void submit(struct block_backend *b, unsigned lane)
{
    qz_disk_kick(backend_of(b)->lane[lane].queue);
}

static void on_ready(struct qz_watch *watch, uint32_t events)
{
    qz_disk_poll(QZ_CONTAINER_OF(watch, struct disk_lane, watch)->queue);
}

static const struct block_info *info(struct block_backend *b)
{
    return &backend_of(b)->info;
}

static int attach(struct block_backend *b, unsigned lane, struct qz_loop *loop)
{
    struct disk_backend *d = backend_of(b);
    struct disk_lane *l = &d->lane[lane];
    struct qz_error err = {0};
    int r = l->queue ? 0 : qz_disk_queue_new(&l->queue, d->disk, DEPTH, &err), fd;

    if (r < 0) {
        qz_error_log("%s", err.text);
        return r;
    }
    fd = qz_disk_fd(l->queue, NULL);
    return fd < 0 ? fd : qz_loop_add(loop, &l->watch, fd, EPOLLIN, on_ready);
}

static int lifetime(struct block_backend *b, struct qz_disk_lifetime *l)
{
    return qz_disk_get_lifetime(backend_of(b)->disk, l);
}

static int resize(struct block_backend *b, uint64_t capacity, struct qz_error *err)
{
    struct disk_backend *d = backend_of(b);
    struct qz_disk_info i;
    int r = qz_disk_queue_resize(d->lane[0].queue, capacity, err);

    qz_disk_get_info(d->disk, &i);
    __atomic_store_n(&d->info.capacity, i.size / SECTOR * SECTOR, __ATOMIC_RELAXED);
    return r;
}

static int flush(struct block_backend *b)
{
    return qz_disk_flush(backend_of(b)->lane[0].queue);
}

static int overlay(struct block_backend *b, int fd, const char *name, struct qz_error *err)
{
    struct disk_backend *d = backend_of(b);
    struct qz_disk_info i;
    int r = qz_disk_overlay(d->disk, fd, name, err);

    qz_disk_get_info(d->disk, &i);
    d->info.format = i.format;
    return r;
}

static int rewind_to(struct block_backend *b, int base, int fd, const char *name,
                     struct qz_error *err)
{
    struct disk_backend *d = backend_of(b);
    struct qz_disk_info i;
    int r = qz_disk_rewind(d->disk, base, fd, name, err);

    qz_disk_get_info(d->disk, &i);
    d->info.format = i.format;
    __atomic_store_n(&d->info.capacity, i.size / SECTOR * SECTOR, __ATOMIC_RELAXED);
    return r;
}

static int backing(struct block_backend *b, struct qz_disk_backing *to)
{
    return qz_disk_get_backing(backend_of(b)->disk, to);
}

static void disk_free(struct block_backend *b)
{
    struct disk_backend *d = backend_of(b);
    struct qz_error err = {0};

    for (unsigned i = 0; i < BLOCK_LANES_MAX; i++) {
        qz_loop_remove(&d->lane[i].watch);
        qz_disk_queue_free(d->lane[i].queue);
    }
    if (qz_disk_close(d->disk, &err) < 0)
        qz_error_log("%s", err.text);
    free(d);
}

static const struct block_backend_ops ops = {info,  attach,  queue,     submit,  lifetime, resize,
                                             flush, overlay, rewind_to, backing, disk_free};

static int learn(struct disk_backend *d, struct qz_error *err)
{
    struct qz_disk_lifetime worn;
    struct qz_disk_info i;

    qz_disk_get_info(d->disk, &i);
    if (i.size == 0 || i.size % SECTOR)
        return qz_fail(err, -EINVAL,
                       "disk %s: %llu bytes is no whole number of 512 byte sectors: truncate -s "
                       "%%512 %s",
                       i.label, (unsigned long long)i.size, i.label);
    d->info = (struct block_info){
        .capacity = i.size,
        .block_size = QZ_MAX(i.block_size, (uint32_t)SECTOR),
        .readonly = i.readonly,
        .discard = i.discard,
        .write_zeroes = i.write_zeroes,
        .secure_erase = i.secure_erase,
        .lifetime = qz_disk_get_lifetime(d->disk, &worn) == 0,
        .format = i.format,
    };
    return 0;
}

int block_disk_open(struct block_backend **b, const char *options, struct qz_error *err)
{
    struct disk_backend *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return qz_fail(err, -ENOMEM, "disk %s: no memory", options);
    d->b.ops = &ops;
    if ((r = qz_disk_open(&d->disk, options, err)) < 0 || (r = learn(d, err)) < 0 ||
        (r = qz_disk_queue_new(&d->lane[0].queue, d->disk, DEPTH, err)) < 0) {
        qz_disk_close(d->disk, NULL);
        free(d);
        return r;
    }
    *b = &d->b;
    return 0;
}

int block_raw_open(struct block_backend **b, const char *path, bool readonly, bool direct,
                   struct qz_error *err)
{
    char options[8300] = "file=";
    size_t n = strlen(options);

    for (; *path && n < sizeof(options) - 64; path++) {
        options[n++] = *path;
        if (*path == ',') /* a comma in a value is written twice */
            options[n++] = ',';
    }
    if (*path)
        return qz_fail(err, -ENAMETOOLONG, "disk: a path of more than 4000 characters");
    snprintf(options + n, sizeof(options) - n, ",format=raw%s%s", readonly ? ",readonly" : "",
             direct ? ",cache=none" : "");
    return block_disk_open(b, options, err);
}

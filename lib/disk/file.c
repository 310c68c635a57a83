/*
 * file.c - a file or block device as a layer (file.h).
 *
 * Theory of operation. What the page cache can answer is done on the calling thread: a read that
 * hits, with RWF_NOWAIT, and a write into the cache. That is several times faster than io_uring,
 * which gives buffered I/O of many file systems to worker threads (tmpfs knows no RWF_NOWAIT at
 * all; it never waits for a medium, so it gets plain calls). A file system that knows no RWF_NOWAIT
 * for writes gets plain ones while they are quick; one slow write (the kernel holds writers back
 * when too much is dirty) and they go through the ring for a while. Everything else, and all of
 * O_DIRECT, goes through the queue's ring.
 *
 * A request's own scratch space holds its state: nothing is allocated but for the rare transfer
 * that the kernel cut short.
 */
#include <assert.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "file_internal.h"

QZ_SYSCALLS(io, "preadv2 pwritev2 lseek ftruncate");
QZ_SYSCALLS(main, "preadv2 pwritev2 lseek ftruncate fcntl");

enum { ZEROES = 256 << 10, ZERO_VECTORS = 64, SLOW_NS = 10000000, SLOW_PAUSE_NS = 30000000 };

static const uint8_t zeroes[ZEROES] __attribute__((aligned(4096)));

/* The state of a request on the ring; lies in its scratch. */
struct ride {
    struct queue_io io;
    struct file *f;
    struct disk_queue *q;
    uint64_t progress;
};
_Static_assert(sizeof(struct ride) <= sizeof(((struct request *)0)->scratch), "must fit");

static struct file *file_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct file, l);
}

static struct ride *ride_of(struct request *r)
{
    return (struct ride *)r->scratch;
}

/* Where a transfer goes on after a short one: its own copy of the vectors, kept in r->next. */
static struct iovec *rest_of(struct request *r)
{
    return (struct iovec *)r->next;
}

static void finish(struct request *r, int result)
{
    free(rest_of(r));
    r->next = NULL;
    r->done(r, result);
}

static bool moves(const struct request *r)
{
    return r->op == DISK_READ || r->op == DISK_WRITE;
}

/* ---- the ring */

static int registered_number(struct file *f, struct disk_queue *q)
{
    unsigned i = queue_index(q);

    if (f->registered[i].queue != queue_id(q)) {
        f->registered[i].queue = queue_id(q);
        f->registered[i].number = queue_register_file(q, f->fd);
    }
    return f->registered[i].number;
}

static void on_ring(struct queue_io *io, int result);

static int write_flags(const struct file *f, const struct request *r)
{
    return r->op == DISK_WRITE && (r->flags & REQUEST_FUA || f->cache == FILE_WRITETHROUGH) &&
                   f->cache != FILE_UNSAFE
               ? RWF_DSYNC
               : 0;
}

/* The vectors of zeroes that the next write of a DISK_WRITE_ZEROES by hand takes. */
static unsigned zero_vectors(struct iovec *iov, uint64_t left)
{
    unsigned n = 0;

    for (; n < ZERO_VECTORS && left; n++) {
        iov[n] = (struct iovec){(void *)(uintptr_t)zeroes, QZ_MIN(left, (uint64_t)ZEROES)};
        left -= iov[n].iov_len;
    }
    return n;
}

/* rest_of(r) tells whether zeroes are written by hand. */
static void prepare_zeroes(const struct file *f, struct request *r, struct io_uring_sqe *sqe,
                           uint64_t at, uint64_t left)
{
    int mode = FALLOC_FL_KEEP_SIZE;

    if (rest_of(r)) {
        io_uring_prep_writev(sqe, f->fd, rest_of(r), zero_vectors(rest_of(r), left), at);
        return;
    }
    if (r->op == DISK_DISCARD || (r->flags & REQUEST_MAY_UNMAP && !f->no_discard))
        mode |= FALLOC_FL_PUNCH_HOLE;
    else
        mode |= FALLOC_FL_ZERO_RANGE;
    io_uring_prep_fallocate(sqe, f->fd, mode, (off_t)at, (off_t)left);
}

static void put_on_ring(struct file *f, struct disk_queue *q, struct request *r)
{
    struct ride *ride = ride_of(r);
    uint64_t at = r->offset + ride->progress, left = r->length - ride->progress;
    struct io_uring_sqe *sqe = queue_sqe(q, &ride->io);
    const struct iovec *iov = r->iov;
    unsigned n = r->iov_count;
    int number = registered_number(f, q);

    if (moves(r) && rest_of(r)) {
        iov = rest_of(r);
        n = iov_slice(rest_of(r), r->iov, r->iov_count, ride->progress, left);
        n = QZ_MIN(n, (unsigned)IOV_MAX);
    }
    switch (r->op) {
    case DISK_READ:
        io_uring_prep_readv(sqe, f->fd, iov, n, at);
        break;
    case DISK_WRITE:
        io_uring_prep_writev2(sqe, f->fd, iov, n, at, write_flags(f, r));
        break;
    case DISK_FLUSH:
        io_uring_prep_fsync(sqe, f->fd, IORING_FSYNC_DATASYNC);
        break;
    default:
        prepare_zeroes(f, r, sqe, at, left);
    }
    if (number >= 0) {
        sqe->fd = number;
        sqe->flags |= IOSQE_FIXED_FILE;
    }
}

static void ride_ring(struct file *f, struct disk_queue *q, struct request *r, uint64_t progress)
{
    *ride_of(r) = (struct ride){{on_ring}, f, q, progress};
    put_on_ring(f, q, r);
}

/* Goes on behind what was moved. */
static void move_rest(struct file *f, struct disk_queue *q, struct request *r, uint64_t progress)
{
    if (!rest_of(r)) {
        struct iovec *rest = calloc(r->iov_count, sizeof(*rest));

        if (!rest) {
            finish(r, -ENOMEM);
            return;
        }
        r->next = (struct request *)rest;
    }
    ride_ring(f, q, r, progress);
}

static void moved(struct file *f, struct disk_queue *q, struct request *r, uint64_t before,
                  size_t n)
{
    uint64_t progress = before + n, size = __atomic_load_n(&f->l.info.size, __ATOMIC_RELAXED);

    if (progress >= r->length) {
        finish(r, 0);
    } else if (r->op == DISK_READ && r->offset + progress >= size) {
        /* The part of the last block behind the end of the file. */
        iov_fill(r->iov, r->iov_count, progress, 0, r->length - progress);
        finish(r, 0);
    } else if (n == 0) { /* the file became shorter under us */
        finish(r, -EIO);
    } else {
        move_rest(f, q, r, progress);
    }
}

static void finish_zeroes(struct file *f, struct request *r, int result)
{
    struct ride *ride = ride_of(r);

    if (rest_of(r)) { /* by hand */
        if (result <= 0) {
            finish(r, result ? result : -EIO);
            return;
        }
        ride->progress += (unsigned)result;
        if (ride->progress >= r->length)
            finish(r, 0);
        else
            put_on_ring(f, ride->q, r);
        return;
    }
    if (result != -EOPNOTSUPP && result != -ENODEV) {
        finish(r, result);
    } else if (r->op == DISK_DISCARD) {
        finish(r, 0); /* advice that this medium has no use for */
    } else if (r->flags & REQUEST_NO_FALLBACK) {
        finish(r, -ENOTSUP);
    } else {
        struct iovec *rest = calloc(ZERO_VECTORS, sizeof(*rest));

        r->next = (struct request *)rest;
        if (rest)
            put_on_ring(f, ride->q, r);
        else
            finish(r, -ENOMEM);
    }
}

/*
 * A flush that failed has left the page cache with pages that count as clean and are on no medium
 * (Linux reports a failed write-back once): a second try would succeed and be a lie.
 */
static void finish_flush(struct file *f, struct request *r, int result)
{
    if (result < 0 && f->cache != FILE_DIRECT)
        __atomic_store_n(&f->lost, result, __ATOMIC_RELAXED);
    finish(r, QZ_MIN(result, 0));
}

static void on_ring(struct queue_io *io, int result)
{
    struct ride *ride = QZ_CONTAINER_OF(io, struct ride, io);
    struct request *r = (struct request *)((char *)ride - offsetof(struct request, scratch));
    struct file *f = ride->f;

    if (result == -EINTR || result == -EAGAIN)
        put_on_ring(f, ride->q, r);
    else if (r->op == DISK_DISCARD || r->op == DISK_WRITE_ZEROES)
        finish_zeroes(f, r, result);
    else if (r->op == DISK_FLUSH)
        finish_flush(f, r, result);
    else if (result < 0)
        finish(r, result);
    else
        moved(f, ride->q, r, ride->progress, (size_t)result);
}

/* ---- on the calling thread */

static ssize_t transfer(const struct file *f, const struct request *r, int flags)
{
    ssize_t n = r->op == DISK_READ
                    ? preadv2(f->fd, r->iov, (int)r->iov_count, (off_t)r->offset, flags)
                    : pwritev2(f->fd, r->iov, (int)r->iov_count, (off_t)r->offset, flags);

    return n < 0 ? -errno : n;
}

static ssize_t transfer_timed(struct file *f, const struct request *r)
{
    int64_t start = qz_now_ns(), end;
    ssize_t n;

    if (start < __atomic_load_n(&f->slow_until, __ATOMIC_RELAXED))
        return -EAGAIN;
    n = transfer(f, r, 0);
    end = qz_now_ns();
    if (end - start > SLOW_NS)
        __atomic_store_n(&f->slow_until, end + SLOW_PAUSE_NS, __ATOMIC_RELAXED);
    return n;
}

/* Moved bytes, or -EAGAIN when the ring shall do it. */
static ssize_t try_inline(struct file *f, const struct request *r)
{
    int *kind = r->op == DISK_READ ? &f->inline_read : &f->inline_write;
    ssize_t n;

    switch (__atomic_load_n(kind, __ATOMIC_RELAXED)) {
    case INLINE_ALWAYS:
        return transfer(f, r, 0);
    case INLINE_TIMED:
        return transfer_timed(f, r);
    case INLINE_NOWAIT:
        n = transfer(f, r, RWF_NOWAIT);
        if (n != -EOPNOTSUPP)
            return n;
        __atomic_store_n(kind, r->op == DISK_READ ? INLINE_NEVER : INLINE_TIMED, __ATOMIC_RELAXED);
        return r->op == DISK_READ ? -EAGAIN : transfer_timed(f, r);
    }
    return -EAGAIN;
}

static void submit_transfer(struct file *f, struct disk_queue *q, struct request *r)
{
    ssize_t n;

    if (r->iov_count > IOV_MAX) {
        move_rest(f, q, r, 0); /* in pieces, like a transfer that was cut short */
        return;
    }
    n = write_flags(f, r) ? -EAGAIN : try_inline(f, r);
    if (n == (ssize_t)r->length)
        r->done(r, 0);
    else if (n == -EAGAIN || n == -EINTR)
        ride_ring(f, q, r, 0);
    else if (n < 0)
        finish(r, (int)n);
    else
        moved(f, q, r, 0, (size_t)n);
}

static void file_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct file *f = file_of(l);

    r->next = NULL;
    if (r->op != DISK_READ && r->op != DISK_FLUSH && l->info.readonly)
        finish(r, -EROFS);
    else if (moves(r))
        submit_transfer(f, q, r);
    else if (r->op == DISK_FLUSH && (f->cache == FILE_UNSAFE || f->in_memory || l->info.readonly))
        finish(r, 0);
    else if (r->op == DISK_DISCARD && f->no_discard)
        finish(r, 0);
    else if (r->op == DISK_FLUSH && __atomic_load_n(&f->lost, __ATOMIC_RELAXED))
        finish(r, __atomic_load_n(&f->lost, __ATOMIC_RELAXED));
    else
        ride_ring(f, q, r, 0);
}

/* ---- the rest */

static int file_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                    struct extent *e)
{
    struct file *f = file_of(l);
    off_t data, hole;

    *e = (struct extent){
        .length = length, .state = EXTENT_DATA, .has_offset = true, .offset = offset};
    if (f->is_device)
        return 0;
    data = lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == EINVAL)
        return 0; /* this file system cannot tell */
    if (data < 0 && errno != ENXIO)
        return -errno;
    if (data < 0 || (uint64_t)data > offset) {
        e->state = EXTENT_UNALLOCATED;
        e->has_offset = false;
        e->length = data < 0 ? length : QZ_MIN(length, (uint64_t)data - offset);
        return 0;
    }
    hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (hole < 0)
        return -errno;
    /* The file may change meanwhile: never nothing. */
    if ((uint64_t)hole > offset)
        e->length = QZ_MIN(length, (uint64_t)hole - offset);
    return 0;
}

static int file_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    struct file *f = file_of(l);

    if (f->is_device)
        return qz_fail(err, -ENOTSUP, "%s: a block device has the size that it has", l->label);
    if (size > INT64_MAX)
        return qz_fail(err, -EFBIG, "%s: no file can have %llu bytes", l->label,
                       (unsigned long long)size);
    if (ftruncate(f->fd, (off_t)size) < 0)
        return qz_fail(err, -errno, "%s: cannot make it %llu bytes: %s", l->label,
                       (unsigned long long)size, strerror(errno));
    __atomic_store_n(&l->info.size, size, __ATOMIC_RELAXED);
    return 0;
}

static int file_close(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int r = l->info.readonly ? 0 : layer_flush(l, q);

    return r < 0 ? qz_fail(err, r, "%s: cannot flush it: %s", l->label, strerror(-r)) : 0;
}

static void file_free(struct layer *l)
{
    struct file *f = file_of(l);

    if (f->fd >= 0) {
        file_unlock(f); /* a ring may hold the file a little longer */
        close(f->fd);
    }
    free(l->label);
    free(f);
}

const struct layer_ops file_ops = {
    .name = "file",
    .submit = file_submit,
    .map = file_map,
    .resize = file_resize,
    .freeze = file_freeze,
    .thaw = file_thaw,
    .close = file_close,
    .free = file_free,
};

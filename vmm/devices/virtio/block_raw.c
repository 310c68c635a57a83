/*
 * block_raw.c - raw disk images and block devices on io_uring (block_backend.h).
 *
 * Theory of operation. One ring; its descriptor is watched by the loop, so completions need no
 * eventfd. Requests beyond the ring's size wait in a list. A short transfer is continued where it
 * stopped; the file is never mapped, so a file that shrinks or vanishes is an error of the request
 * and nothing else. With O_DIRECT, buffers that are not aligned to the medium's blocks go through a
 * bounce buffer, a piece of bounded size at a time: how much memory that takes is not the guest's
 * to say.
 */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "devices/virtio/block_backend.h"

QZ_SYSCALLS(io, "io_uring_enter");

enum { RING_SIZE = 256, ALIGN = 4096, BOUNCE_MAX = 256 << 10 };

struct raw {
    struct block_backend b;
    struct block_info info;
    int fd;
    bool direct;
    struct io_uring ring;
    bool ring_made;
    struct qz_watch watch;
    unsigned in_ring;
    struct block_request *waiting, **waiting_end;
};

/* A request on its way: the part that is left, and the bounce buffer if one is needed. */
struct flight {
    struct block_request *request;
    void *bounce;
    unsigned iov_count;
    struct iovec iov[];
};

static void start(struct raw *w, struct block_request *r);

static void finish(struct flight *f, int result)
{
    struct block_request *r = f->request;

    free(f->bounce);
    free(f);
    r->done(r, result);
}

/* Copies n bytes between the request's vectors, from `offset` on, and flat memory. */
static void copy(const struct block_request *r, uint64_t offset, uint8_t *flat, size_t n,
                 bool to_request)
{
    for (unsigned i = 0; i < r->iov_count && n; i++) {
        size_t part;

        if (offset >= r->iov[i].iov_len) {
            offset -= r->iov[i].iov_len;
            continue;
        }
        part = QZ_MIN(n, (size_t)(r->iov[i].iov_len - offset));
        if (to_request)
            memcpy((uint8_t *)r->iov[i].iov_base + offset, flat, part);
        else
            memcpy(flat, (const uint8_t *)r->iov[i].iov_base + offset, part);
        flat += part;
        n -= part;
        offset = 0;
    }
}

/* The next piece through the bounce buffer. */
static void fill_bounce(struct flight *f)
{
    const struct block_request *r = f->request;
    size_t n = QZ_MIN(r->length - r->progress, (uint64_t)BOUNCE_MAX);

    if (r->op == BLOCK_WRITE)
        copy(r, r->progress, f->bounce, n, false);
    f->iov_count = 1;
    f->iov[0] = (struct iovec){f->bounce, n};
}

static bool aligned(const struct raw *w, const struct block_request *r)
{
    if (!w->direct)
        return true;
    for (unsigned i = 0; i < r->iov_count; i++)
        if ((uintptr_t)r->iov[i].iov_base % w->info.block_size ||
            r->iov[i].iov_len % w->info.block_size)
            return false;
    return true;
}

/* The request's vectors, or one over a bounce buffer. */
static struct flight *prepare(struct raw *w, struct block_request *r)
{
    bool moves = r->op == BLOCK_READ || r->op == BLOCK_WRITE, direct = moves && aligned(w, r);
    struct flight *f = calloc(1, sizeof(*f) + (direct ? r->iov_count : 1) * sizeof(struct iovec));

    if (!f)
        return NULL;
    f->request = r;
    if (direct) {
        f->iov_count = r->iov_count;
        memcpy(f->iov, r->iov, r->iov_count * sizeof(struct iovec));
    } else if (moves) {
        if (posix_memalign(&f->bounce, ALIGN, BOUNCE_MAX)) {
            free(f);
            return NULL;
        }
        fill_bounce(f);
    }
    return f;
}

static void put_on_ring(struct raw *w, struct flight *f)
{
    struct block_request *r = f->request;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring); /* in_ring < RING_SIZE: there is one */
    uint64_t at = r->offset + r->progress, left = r->length - r->progress;

    switch (r->op) {
    case BLOCK_READ:
        io_uring_prep_readv(sqe, 0, f->iov, f->iov_count, at);
        break;
    case BLOCK_WRITE:
        io_uring_prep_writev(sqe, 0, f->iov, f->iov_count, at);
        break;
    case BLOCK_FLUSH:
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
        break;
    case BLOCK_DISCARD:
        io_uring_prep_fallocate(sqe, 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, left);
        break;
    case BLOCK_WRITE_ZEROES:
        if (f->bounce)
            io_uring_prep_write(sqe, 0, f->bounce, (unsigned)QZ_MIN(left, (uint64_t)BOUNCE_MAX),
                                at);
        else
            io_uring_prep_fallocate(
                sqe, 0,
                FALLOC_FL_KEEP_SIZE | (r->may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
                at, left);
        break;
    }
    sqe->flags |= IOSQE_FIXED_FILE; /* the file is registered as number 0 */
    io_uring_sqe_set_data(sqe, f);
    w->in_ring++;
}

static void start(struct raw *w, struct block_request *r)
{
    struct flight *f = prepare(w, r);

    if (f)
        put_on_ring(w, f);
    else
        r->done(r, -ENOMEM);
}

static void queue(struct block_backend *b, struct block_request *r)
{
    struct raw *w = QZ_CONTAINER_OF(b, struct raw, b);

    r->progress = 0;
    r->next = NULL;
    if (w->in_ring < RING_SIZE && !w->waiting) {
        start(w, r);
        return;
    }
    *w->waiting_end = r;
    w->waiting_end = &r->next;
}

static void submit(struct block_backend *b)
{
    struct raw *w = QZ_CONTAINER_OF(b, struct raw, b);

    /* EAGAIN and EBUSY leave the entries in the ring; the next completion submits them again. */
    io_uring_submit(&w->ring);
}

/* Drops the first n bytes of the vectors. */
static void advance(struct flight *f, size_t n)
{
    unsigned i = 0;

    while (i < f->iov_count && n >= f->iov[i].iov_len)
        n -= f->iov[i++].iov_len;
    memmove(f->iov, f->iov + i, (f->iov_count - i) * sizeof(struct iovec));
    f->iov_count -= i;
    if (f->iov_count) {
        f->iov[0].iov_base = (uint8_t *)f->iov[0].iov_base + n;
        f->iov[0].iov_len -= n;
    }
}

/* Where the file system cannot zero a range, plain zeros are written, a piece at a time. */
static bool write_zeros_by_hand(struct raw *w, struct flight *f)
{
    if (!f->bounce) {
        if (posix_memalign(&f->bounce, ALIGN, BOUNCE_MAX))
            return false;
        memset(f->bounce, 0, BOUNCE_MAX);
    }
    put_on_ring(w, f);
    return true;
}

/* Zeros that the medium could not make by itself: result is that of the attempt, or of the last
 * write. */
static void complete_zeroes(struct raw *w, struct flight *f, int result)
{
    struct block_request *r = f->request;

    if (result == 0 && f->bounce) { /* a write that moves nothing would be tried for ever */
        finish(f, -EIO);
        return;
    }
    r->progress += result > 0 ? result : 0;
    if (r->progress >= r->length)
        finish(f, 0);
    else if (!write_zeros_by_hand(w, f))
        finish(f, -ENOMEM);
}

static void complete_move(struct raw *w, struct flight *f, int result)
{
    struct block_request *r = f->request;

    if (f->bounce && r->op == BLOCK_READ)
        copy(r, r->progress, f->bounce, result, true);
    r->progress += result;
    if (r->progress >= r->length) {
        finish(f, 0);
    } else if (result == 0) { /* the end of the file moved in front of us */
        finish(f, -EIO);
    } else {
        if (f->bounce)
            fill_bounce(f);
        else
            advance(f, result);
        put_on_ring(w, f);
    }
}

static void complete(struct raw *w, struct flight *f, int result)
{
    struct block_request *r = f->request;

    w->in_ring--;
    if (result == -EINTR || result == -EAGAIN)
        put_on_ring(w, f);
    else if (r->op == BLOCK_DISCARD && result == -EOPNOTSUPP)
        finish(f, 0); /* advice that this medium has no use for (VirtIO 1.3 §5.2.6.2: it may keep
                         the sectors) */
    else if (r->op == BLOCK_WRITE_ZEROES && (f->bounce ? result >= 0 : result == -EOPNOTSUPP))
        complete_zeroes(w, f, result);
    else if (result < 0)
        finish(f, result);
    else if (r->op == BLOCK_READ || r->op == BLOCK_WRITE)
        complete_move(w, f, result);
    else
        finish(f, 0);
}

static void on_completions(struct qz_watch *watch, uint32_t events)
{
    struct raw *w = QZ_CONTAINER_OF(watch, struct raw, watch);
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&w->ring, &cqe) == 0) {
        struct flight *f = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&w->ring, cqe);
        complete(w, f, result);
        while (w->waiting && w->in_ring < RING_SIZE) {
            struct block_request *r = w->waiting;

            w->waiting = r->next;
            if (!w->waiting)
                w->waiting_end = &w->waiting;
            start(w, r);
        }
    }
    if (io_uring_sq_ready(&w->ring))
        io_uring_submit(&w->ring);
}

static const struct block_info *info(struct block_backend *b)
{
    return &QZ_CONTAINER_OF(b, struct raw, b)->info;
}

static int attach(struct block_backend *b, struct qz_loop *loop)
{
    struct raw *w = QZ_CONTAINER_OF(b, struct raw, b);

    return qz_loop_add(loop, &w->watch, w->ring.ring_fd, EPOLLIN, on_completions);
}

static void raw_free(struct block_backend *b)
{
    struct raw *w = QZ_CONTAINER_OF(b, struct raw, b);

    qz_loop_remove(&w->watch);
    if (w->ring_made)
        io_uring_queue_exit(&w->ring);
    if (w->fd >= 0)
        close(w->fd);
    free(w);
}

static const struct block_backend_ops ops = {info, attach, queue, submit, raw_free};

static int open_file(struct raw *w, const char *path, struct qz_error *err)
{
    struct flock lock = {.l_type = w->info.readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    w->fd = open(path, (w->info.readonly ? O_RDONLY : O_RDWR) | (w->direct ? O_DIRECT : 0) |
                           O_CLOEXEC | O_NONBLOCK);
    if (w->fd < 0)
        return qz_fail(err, -errno, "disk %s: cannot open: %s%s", path, strerror(errno),
                       errno == EROFS || errno == EACCES ? " (readonly may do)"
                       : errno == EINVAL && w->direct
                           ? " (this file system has no O_DIRECT: use cache=writeback)"
                           : "");
    if (fcntl(w->fd, F_OFD_SETLK, &lock) < 0)
        return qz_fail(err, -EBUSY, "disk %s: another machine has it open%s", path,
                       w->info.readonly ? " for writing"
                                        : "; give both of them readonly, or a copy each");
    return 0;
}

static int find_size(struct raw *w, const char *path, struct qz_error *err)
{
    struct stat st;
    int sector = 512;

    if (fstat(w->fd, &st) < 0)
        return qz_fail(err, -errno, "disk %s: %s", path, strerror(errno));
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(w->fd, BLKGETSIZE64, &w->info.capacity) < 0 ||
            ioctl(w->fd, BLKSSZGET, &sector) < 0)
            return qz_fail(err, -errno, "disk %s: cannot ask the device for its size: %s", path,
                           strerror(errno));
        w->info.block_size = sector;
    } else if (S_ISREG(st.st_mode)) {
        w->info.capacity = st.st_size;
        w->info.block_size = w->direct ? ALIGN : 512;
        if (w->direct && st.st_size % ALIGN)
            w->info.block_size = 512;
    } else {
        return qz_fail(err, -EINVAL, "disk %s: neither a file nor a block device", path);
    }
    if (w->info.capacity == 0 || w->info.capacity % 512)
        return qz_fail(
            err, -EINVAL,
            "disk %s: %llu bytes is no whole number of 512 byte sectors: truncate -s %%512 %s",
            path, (unsigned long long)w->info.capacity, path);
    return 0;
}

static int make_ring(struct raw *w, const char *path, struct qz_error *err)
{
    int r = io_uring_queue_init(RING_SIZE, &w->ring, 0);

    if (r < 0)
        return qz_fail(err, r, "disk %s: io_uring: %s%s", path, strerror(-r),
                       r == -EPERM
                           ? " (sysctl kernel.io_uring_disabled=0, or a looser container profile)"
                       : r == -ENOMEM ? " (raise ulimit -l)"
                                      : "");
    w->ring_made = true;
    r = io_uring_register_files(&w->ring, &w->fd, 1);
    return r < 0 ? qz_fail(err, r, "disk %s: io_uring: cannot register the file: %s", path,
                           strerror(-r))
                 : 0;
}

int block_raw_open(struct block_backend **out, const char *path, bool readonly, bool direct,
                   struct qz_error *err)
{
    struct raw *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return qz_fail(err, -ENOMEM, "disk %s: no memory", path);
    w->b.ops = &ops;
    w->fd = -1;
    w->direct = direct;
    w->info.readonly = readonly;
    w->waiting_end = &w->waiting;
    if ((r = open_file(w, path, err)) < 0 || (r = find_size(w, path, err)) < 0 ||
        (r = make_ring(w, path, err)) < 0) {
        raw_free(&w->b);
        return r;
    }
    /* It kept open() from waiting for a FIFO's other end; on io_uring it would mean EAGAIN instead
     * of waiting. */
    if (fcntl(w->fd, F_SETFL, direct ? O_DIRECT : 0) < 0) {
        r = qz_fail(err, -errno, "disk %s: %s", path, strerror(errno));
        raw_free(&w->b);
        return r;
    }
    w->info.discard = w->info.write_zeroes = !readonly;
    *out = &w->b;
    return 0;
}

/* file_open.c - opening and creating files and block devices (file.h). */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>

#include "file_internal.h"

QZ_SYSCALLS(main, "fcntl fstat newfstatat fstatfs statx ioctl close"); /* by a descriptor */

/* ---- what the file is */

/* Its flags are those of whoever opened it: appending would undo our offsets. */
static int take_fd(struct file *f, const struct file_options *o, struct qz_error *err)
{
    int flags = fcntl(o->fd, F_GETFL), wanted = o->cache == FILE_DIRECT ? O_DIRECT : 0, access;

    if (flags < 0)
        return qz_fail(err, -errno, "%s: descriptor %d: %s", o->path, o->fd, strerror(errno));
    access = flags & O_ACCMODE;
    if (flags & O_PATH || access == O_WRONLY || (access == O_RDONLY && !o->readonly))
        return qz_fail(err, -EACCES, "%s: descriptor %d is not open for reading%s", o->path, o->fd,
                       o->readonly ? "" : " and writing (readonly may do)");
    f->fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 0);
    if (f->fd < 0)
        return qz_fail(err, -errno, "%s: descriptor %d: %s", o->path, o->fd, strerror(errno));
    if ((flags & (O_APPEND | O_DIRECT | O_NONBLOCK)) != wanted && fcntl(f->fd, F_SETFL, wanted) < 0)
        return qz_fail(err, -errno, "%s: cannot change how descriptor %d is open: %s%s", o->path,
                       o->fd, strerror(errno),
                       errno == EINVAL && wanted ? " (no O_DIRECT here: use cache=writeback)" : "");
    return 0;
}

static int open_path(struct file *f, const struct file_options *o, struct qz_error *err)
{
    struct stat st;
    int flags = (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK |
                (o->cache == FILE_DIRECT ? O_DIRECT : 0);

    /* A device that is mounted must not be written beside its file system. */
    if (!o->readonly && !o->no_lock && stat(o->path, &st) == 0 && S_ISBLK(st.st_mode))
        flags |= O_EXCL;
    f->fd = open(o->path, flags);
    if (f->fd < 0)
        return qz_fail(err, -errno, "%s: cannot open: %s%s", o->path, strerror(errno),
                       errno == EROFS || errno == EACCES ? " (readonly may do)"
                       : errno == EINVAL && o->cache == FILE_DIRECT
                           ? " (this file system has no O_DIRECT: use cache=writeback)"
                       : errno == EBUSY ? " (the device is mounted or used by another)"
                                        : "");
    /* O_NONBLOCK kept open() from waiting for a FIFO's other end; on io_uring it would mean EAGAIN
     * instead of waiting. */
    if (fcntl(f->fd, F_SETFL, o->cache == FILE_DIRECT ? O_DIRECT : 0) < 0)
        return qz_fail(err, -errno, "%s: %s", o->path, strerror(errno));
    return 0;
}

static int ask_device(struct file *f, struct qz_error *err)
{
    int sector = 512;
    unsigned physical = 4096;
    unsigned short rotational = 0;

    if (ioctl(f->fd, BLKGETSIZE64, &f->l.info.size) < 0 || ioctl(f->fd, BLKSSZGET, &sector) < 0)
        return qz_fail(err, -errno, "%s: cannot ask the device for its size: %s", f->l.label,
                       strerror(errno));
    ioctl(f->fd, BLKPBSZGET, &physical);
    ioctl(f->fd, BLKROTATIONAL, &rotational);
    f->is_device = true;
    f->l.info.preferred = physical;
    f->l.info.is_rotational = rotational;
    if (f->cache == FILE_DIRECT)
        f->l.info.alignment = f->l.info.memory_alignment = (uint32_t)sector;
    return 0;
}

/* What O_DIRECT wants of a regular file (statx, Linux 6.1); where nobody tells, a page. */
static void ask_direct(struct file *f)
{
    uint32_t memory = 4096, offset = 4096;
#ifdef STATX_DIOALIGN
    struct statx sx;

    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && sx.stx_mask & STATX_DIOALIGN &&
        sx.stx_dio_offset_align) {
        memory = QZ_MAX(sx.stx_dio_mem_align, 1u);
        offset = sx.stx_dio_offset_align;
    }
#endif
    f->l.info.alignment = offset;
    f->l.info.memory_alignment = memory;
}

static int ask_file(struct file *f, struct qz_error *err)
{
    struct layer_info *info = &f->l.info;
    struct statfs fs;
    struct stat st;

    if (fstat(f->fd, &st) < 0 || fstatfs(f->fd, &fs) < 0)
        return qz_fail(err, -errno, "%s: %s", f->l.label, strerror(errno));
    info->alignment = info->memory_alignment = 1;
    info->preferred = 4096;
    info->discard = !info->readonly && !f->no_discard;
    info->write_zeroes = !info->readonly;
    if (S_ISBLK(st.st_mode))
        return ask_device(f, err);
    if (!S_ISREG(st.st_mode))
        return qz_fail(err, -EINVAL, "%s: neither a file nor a block device", f->l.label);
    info->size = (uint64_t)st.st_size;
    f->in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
    if (f->cache == FILE_DIRECT)
        ask_direct(f);
    return 0;
}

static void choose_inline(struct file *f)
{
    if (f->cache == FILE_DIRECT)
        f->inline_read = f->inline_write = INLINE_NEVER;
    else if (f->in_memory)
        f->inline_read = f->inline_write = INLINE_ALWAYS;
    else
        f->inline_read = f->inline_write = INLINE_NOWAIT;
}

int file_open(struct layer **out, const struct file_options *o, struct qz_error *err)
{
    struct file *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return qz_fail(err, -ENOMEM, "%s: no memory", o->path);
    f->l.ops = &file_ops;
    f->fd = -1;
    f->cache = o->cache;
    f->no_discard = o->no_discard;
    f->l.info.readonly = o->readonly;
    f->l.label = strdup(o->path);
    if (!f->l.label)
        r = qz_fail(err, -ENOMEM, "%s: no memory", o->path);
    else if ((r = o->by_fd ? take_fd(f, o, err) : open_path(f, o, err)) == 0 &&
             (r = ask_file(f, err)) == 0 && !o->no_lock && !f->is_device)
        r = file_lock(f, err);
    if (r < 0) {
        file_ops.free(&f->l);
        return r;
    }
    choose_inline(f);
    *out = &f->l;
    return 0;
}

bool file_stat(const struct layer *l, struct stat *st)
{
    return l->ops == &file_ops && fstat(QZ_CONTAINER_OF(l, struct file, l)->fd, st) == 0;
}

/* ---- creating */

static int write_zeroes_whole(int fd, uint64_t size)
{
    static const uint8_t zeroes[256 << 10];

    for (uint64_t at = 0; at < size;) {
        ssize_t n = pwrite(fd, zeroes, QZ_MIN(size - at, (uint64_t)sizeof(zeroes)), (off_t)at);

        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

static int give_size(struct file *f, uint64_t size, enum file_preallocation p)
{
    if (ftruncate(f->fd, 0) < 0 || ftruncate(f->fd, (off_t)size) < 0)
        return -errno;
    if (size == 0 || p == FILE_SPARSE)
        return 0;
    if (p == FILE_FALLOC)
        return fallocate(f->fd, 0, 0, (off_t)size) < 0 ? -errno : 0;
    return write_zeroes_whole(f->fd, size);
}

int file_create(const char *path, uint64_t size, enum file_preallocation p, bool overwrite,
                struct qz_error *err)
{
    struct file f = {.l.label = (char *)(uintptr_t)path};
    QZ_AUTO_FD int fd = -1;
    struct stat st;
    int r;

    if (size > INT64_MAX)
        return qz_fail(err, -EFBIG, "%s: no file can have %llu bytes", path,
                       (unsigned long long)size);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | (overwrite ? 0 : O_EXCL), 0644);
    if (fd < 0)
        return qz_fail(err, -errno, "%s: cannot create: %s%s", path, strerror(errno),
                       errno == EEXIST ? " (--force overwrites it)" : "");
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return qz_fail(err, -EINVAL, "%s: not a regular file", path);
    f.fd = fd;
    r = file_lock(&f, err); /* closing the descriptor gives it back */
    if (r < 0)
        return r;
    r = give_size(&f, size, p);
    return r < 0 ? qz_fail(err, r, "%s: cannot make it %llu bytes: %s", path,
                           (unsigned long long)size, strerror(-r))
                 : 0;
}

/*
 * file_lock.c - locks that keep programs from each other's files, in the way of QEMU (file.h).
 *
 * QEMU's locking protocol (its block/file-posix.c): who uses a permission holds a read lock on byte
 * 100 + its number, who does not share one a read lock on byte 200 + its number. First one takes
 * one's own locks, then one looks whether others hold those that contradict. Read locks never
 * collide, so two that come at once both see each other.
 */
#include <fcntl.h>

#include "file_internal.h"

QZ_SYSCALLS(main, "fcntl"); /* disks that go on in another file */

enum { LOCK_USES = 100, LOCK_DENIES = 200 };
enum { PERM_READ, PERM_WRITE, PERM_WRITE_UNCHANGED, PERM_RESIZE, PERMS };

static int ofd_lock(int fd, int command, short type, off_t byte, struct flock *out)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    if (fcntl(fd, command, &l) < 0)
        return -errno;
    if (out)
        *out = l;
    return 0;
}

static bool uses(const struct file *f, unsigned perm)
{
    return perm == PERM_READ ||
           (!f->l.info.readonly && (perm == PERM_WRITE || perm == PERM_RESIZE));
}

static bool denies(unsigned perm)
{
    return perm == PERM_WRITE || perm == PERM_RESIZE;
}

/* -EBUSY: somebody holds the byte. */
static int look(const struct file *f, off_t byte)
{
    struct flock held = {0};
    int r = ofd_lock(f->fd, F_OFD_GETLK, F_WRLCK, byte, &held);

    return r < 0 ? r : held.l_type == F_UNLCK ? 0 : -EBUSY;
}

static int take_locks(struct file *f)
{
    int r = 0;

    for (unsigned p = 0; p < PERMS && r == 0; p++) {
        if (uses(f, p))
            r = ofd_lock(f->fd, F_OFD_SETLK, F_RDLCK, LOCK_USES + p, NULL);
        if (r == 0 && denies(p))
            r = ofd_lock(f->fd, F_OFD_SETLK, F_RDLCK, LOCK_DENIES + p, NULL);
    }
    for (unsigned p = 0; p < PERMS && r == 0; p++) {
        if (uses(f, p))
            r = look(f, LOCK_DENIES + p);
        if (r == 0 && denies(p))
            r = look(f, LOCK_USES + p);
    }
    return r;
}

void file_unlock(struct file *f)
{
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    if (f->locked)
        fcntl(f->fd, F_OFD_SETLK, &l);
    f->locked = false;
}

int file_lock(struct file *f, struct qz_error *err)
{
    int r;

    f->locked = true;
    r = take_locks(f);
    if (r == 0)
        return 0;
    file_unlock(f);
    if (r == -EBUSY || r == -EAGAIN || r == -EACCES)
        return qz_fail(err, -EBUSY, "%s: in use: another program has it open%s", f->l.label,
                       f->l.info.readonly ? " for writing" : "; open it readonly, or a copy");
    return qz_fail(err, r, "%s: cannot lock it: %s (locking=off if nobody else uses it)",
                   f->l.label, strerror(-r));
}

/* ---- a file that is written no more */

static int set_writer(const struct file *f, short type)
{
    int r = ofd_lock(f->fd, F_OFD_SETLK, type, LOCK_USES + PERM_WRITE, NULL);

    return r < 0 ? r : ofd_lock(f->fd, F_OFD_SETLK, type, LOCK_USES + PERM_RESIZE, NULL);
}

int file_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    struct file *f = QZ_CONTAINER_OF(l, struct file, l);
    int r = f->locked ? set_writer(f, F_UNLCK) : 0;

    if (r == 0)
        return 0;
    set_writer(f, F_RDLCK);
    return qz_fail(err, r, "%s: cannot let others read it: %s", l->label, strerror(-r));
}

/* Nobody can have become a writer meanwhile: that is denied all the time. */
void file_thaw(struct layer *l)
{
    struct file *f = QZ_CONTAINER_OF(l, struct file, l);
    int r = f->locked ? set_writer(f, F_RDLCK) : 0;

    if (r < 0)
        qz_error_log("%s: it is written without a lock from now on: %s", l->label, strerror(-r));
}

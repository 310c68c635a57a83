/* lifetime.h - how worn the medium under a file is. */
#ifndef DISK_LIFETIME_H
#define DISK_LIFETIME_H

#include <queztl/disk.h>
#include <sys/stat.h>

struct lifetime {
    int wear_fd,
        end_fd; /* -1: the kernel does not tell; kept, for a process that may open nothing later */
};

/* Of a file or block device: the medium. */
static inline dev_t lifetime_device(const struct stat *st)
{
    return S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
}

/* st: of a file or block device. sysfs: where that is mounted. */
void lifetime_open(struct lifetime *l, const char *sysfs, const struct stat *st);
void lifetime_close(struct lifetime *l);
/* -ENOTSUP: not known. */
int lifetime_read(const struct lifetime *l, struct qz_disk_lifetime *out);

#endif

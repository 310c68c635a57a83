/*
 * lifetime.c - how worn the medium under a file is, where the kernel tells: eMMC by JEDEC's
 * registers, in /sys/dev/block/MAJOR:MINOR/device/{life_time,pre_eol_info} (lifetime.h).
 */
#include "lifetime.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

QZ_SYSCALLS(io, "pread64");

/* Of the device, or of the whole device that a partition belongs to. */
static int open_fact(const char *sysfs, dev_t device, const char *name)
{
    static const char *const places[] = {"device", "../device"};
    char path[200];
    int fd = -1;

    for (unsigned i = 0; fd < 0 && i < QZ_ARRAY_LEN(places); i++) {
        snprintf(path, sizeof(path), "%s/dev/block/%u:%u/%s/%s", sysfs, major(device),
                 minor(device), places[i], name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    return fd;
}

void lifetime_open(struct lifetime *l, const char *sysfs, const struct stat *st)
{
    dev_t device = lifetime_device(st);

    l->wear_fd = open_fact(sysfs, device, "life_time");
    l->end_fd = open_fact(sysfs, device, "pre_eol_info");
}

void lifetime_close(struct lifetime *l)
{
    if (l->wear_fd >= 0)
        close(l->wear_fd);
    if (l->end_fd >= 0)
        close(l->end_fd);
    l->wear_fd = l->end_fd = -1;
}

/* One or two hexadecimal numbers. The kernel makes the text anew for each read at 0. */
static int read_numbers(int fd, unsigned *a, unsigned *b)
{
    char text[32];
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return -ENOTSUP;
    text[n] = 0;
    return sscanf(text, "%x %x", a, b) >= (b ? 2 : 1) ? 0 : -ENOTSUP;
}

int lifetime_read(const struct lifetime *l, struct qz_disk_lifetime *out)
{
    unsigned end = 0, a, b;

    if (read_numbers(l->wear_fd, &a, &b) < 0 || a > 0xffff || b > 0xffff)
        return -ENOTSUP;
    if (read_numbers(l->end_fd, &end, NULL) < 0 || end > 0xffff)
        end = 0; /* not defined (VirtIO 1.3 §5.2.6) */
    *out = (struct qz_disk_lifetime){(uint16_t)end, (uint16_t)a, (uint16_t)b};
    return 0;
}

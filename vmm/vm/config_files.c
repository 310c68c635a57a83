/*
 * config_files.c - what the files of a configuration can tell before anything is built (config.h).
 *
 * A missing kernel shall be told as that on every host, also on one whose accelerators do not work,
 * and before a second is spent on measuring them. Only what is cheap is looked at: whether files
 * are there, the kernel's headers, sizes. Whoever uses a file later checks it in full.
 */
#include <fcntl.h>
#include <queztl/disk.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "boot/kernel_image.h"
#include "vm/config.h"

/* Opens a regular file for reading; a descriptor, or a negative errno. cure: what to do instead. */
static int open_regular(const char *what, const char *path, const char *cure, struct stat *st,
                        struct qz_error *err)
{
    QZ_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, st) < 0)
        return qz_fail(err, -errno, "%s \"%s\": %s: %s", what, path, strerror(errno), cure);
    if (!S_ISREG(st->st_mode))
        return qz_fail(err, -EINVAL, "%s \"%s\": not a regular file: %s", what, path, cure);
    if (!st->st_size)
        return qz_fail(err, -EINVAL, "%s \"%s\": an empty file: %s", what, path, cure);
    return QZ_TAKE_FD(fd);
}

static int check_kernel(const char *path, struct qz_error *err)
{
    struct stat st;
    static const char cure[] = "--kernel takes a bzImage or ELF vmlinux, such as /boot/vmlinuz-*";
    QZ_AUTO_FD int fd = open_regular("kernel", path, cure, &st, err);
    struct qz_error cause;
    char name[256];
    struct elf_kernel elf = {0};
    struct bzimage bz;
    void *image;
    int r;

    if (fd < 0)
        return fd;
    image = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (image == MAP_FAILED)
        return qz_fail(err, -errno, "kernel \"%s\": cannot map: %s", path, strerror(errno));
    snprintf(name, sizeof(name), "kernel \"%s\"", path);
    if (!elf_is(image, st.st_size))
        r = bzimage_parse(name, image, st.st_size, &bz, &cause);
    else
        r = elf_kernel_parse(name, image, QZ_MIN((size_t)st.st_size, (size_t)ELF_HEAD_MAX), &elf,
                             &cause);
    if (r == 0 && elf.file_end > (uint64_t)st.st_size)
        r = qz_fail(&cause, -ENOEXEC, "%s: cut short: %llu bytes of %llu", name,
                    (unsigned long long)st.st_size, (unsigned long long)elf.file_end);
    munmap(image, st.st_size);
    return r < 0 ? qz_fail(err, r, "%s: %s", cause.text, cure) : 0;
}

static int check_initrd(const char *path, uint64_t memory, struct qz_error *err)
{
    struct stat st;
    QZ_AUTO_FD int fd =
        open_regular("initrd", path, "--initrd takes a cpio archive; or leave it out", &st, err);
    char size[16], have[16];

    if (fd < 0)
        return fd;
    if ((uint64_t)st.st_size < memory)
        return 0;
    return qz_fail(err, -E2BIG,
                   "initrd \"%s\" (%s) does not fit in %s of memory: give the machine more by "
                   "--memory, or make a smaller one",
                   path, qz_format_size(st.st_size, size, sizeof(size)),
                   qz_format_size(memory, have, sizeof(have)));
}

static int check_socket(const char *path, struct qz_error *err)
{
    const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

    if (strlen(path) <= max)
        return 0;
    return qz_fail(err, -ENAMETOOLONG,
                   "control socket %s: %zu characters, but a socket's path has at most %zu: choose "
                   "a shorter one",
                   path, strlen(path), max);
}

/* "file:PATH" is PATH whatever it looks like. */
static const char *local_path(const char *path)
{
    return strncmp(path, "file:", 5) ? path : path + 5;
}

int vm_config_check_files(const struct vm_config *c, struct qz_error *err)
{
    struct stat st;
    int r = 0;

    if (c->kernel)
        r = check_kernel(c->kernel, err);
    if (r == 0 && c->initrd)
        r = check_initrd(c->initrd, c->memory, err);
    if (r == 0 && c->firmware) {
        QZ_AUTO_FD int fd = open_regular(
            "firmware", c->firmware, "--firmware takes OVMF_CODE*.fd (apt install ovmf)", &st, err);

        r = fd < 0 ? fd : 0;
    }
    for (unsigned i = 0; r == 0 && i < c->disks; i++)
        if (!c->disk[i].by_descriptor && qz_disk_is_local_file(c->disk[i].path) &&
            stat(local_path(c->disk[i].path), &st) < 0)
            r = qz_fail(err, -errno,
                        "disk \"%s\": %s: correct the path, or make one by truncate -s 10G FILE",
                        c->disk[i].path, strerror(errno));
    if (r == 0 && c->control)
        r = check_socket(c->control, err);
    return r;
}

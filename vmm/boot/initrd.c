/*
 * initrd.c - the initial RAM disk: file and second archive, read straight into guest RAM (boot_internal.h).
 *
 * The kernel takes any number of cpio archives one after the other, each beginning at a multiple of 4 bytes from the start of
 * the whole (Documentation/driver-api/early-userspace/buffer-format.rst), zeros between them.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "boot/boot_internal.h"

QZ_SYSCALLS(main, "openat newfstatat fstat pread64 close");

enum { PAGE = 4096 };
#define MIB (1ull << 20)

int initrd_open(struct initrd *rd, const struct guest_memory *m, const struct boot_kernel *kernel, struct qz_error *err)
{
    struct stat st;

    *rd = (struct initrd){
        .path = kernel->initrd_path ? kernel->initrd_path : "second initrd",
        .fd = -1,
        .extra = kernel->extra_initrd,
        .extra_size = kernel->extra_initrd ? kernel->extra_initrd_size : 0,
    };
    if (kernel->initrd_path) {
        rd->fd = open(kernel->initrd_path, O_RDONLY | O_CLOEXEC);
        if (rd->fd < 0 || fstat(rd->fd, &st) < 0)
            return qz_fail(err, -errno, "initrd %s: %s", rd->path, strerror(errno));
        if (!S_ISREG(st.st_mode))
            return qz_fail(err, -EINVAL, "initrd %s: not a regular file", rd->path);
        rd->file_size = st.st_size;
    }
    /* Sizes of a file and of an object in memory: their sum does not wrap 64 bits. */
    rd->size = rd->extra_size ? QZ_ALIGN_UP(rd->file_size, 4) + rd->extra_size : rd->file_size;
    return 0;
}

static int does_not_fit(const struct initrd *rd, const struct guest_memory *m, uint64_t kernel_end, struct qz_error *err)
{
    /* The largest RAM below 4 GiB is what limits an initrd in the end, whatever the machine's size. */
    uint64_t room = LOW_RAM_MAX - BOOT_ACPI_SIZE - QZ_MIN(kernel_end, LOW_RAM_MAX - BOOT_ACPI_SIZE), needed;
    char size[16], have[16], cure[16];

    qz_format_size(rd->size, size, sizeof(size));
    if (rd->size > room)
        return qz_fail(err, -E2BIG, "initrd %s (%s) is too large: at most %s fit below 2 GiB beside this kernel", rd->path,
                       size, qz_format_size(QZ_ALIGN_DOWN(room, PAGE), cure, sizeof(cure)));
    needed = QZ_ALIGN_UP(kernel_end + rd->size + PAGE + BOOT_ACPI_SIZE, 2 * MIB);
    return qz_fail(err, -E2BIG, "initrd %s (%s) does not fit in %s of memory: give the machine at least %s", rd->path, size,
                   qz_format_size(m->size, have, sizeof(have)), qz_format_size(needed, cure, sizeof(cure)));
}

int initrd_place(struct initrd *rd, const struct guest_memory *m, uint64_t address_max, struct qz_error *err)
{
    uint64_t end = m->low_size - BOOT_ACPI_SIZE;

    if (address_max < end)
        end = address_max + 1;
    if (!rd->size)
        return 0;
    if (rd->size > end || QZ_ALIGN_DOWN(end - rd->size, PAGE) < BOOT_KERNEL_MIN)
        return does_not_fit(rd, m, BOOT_KERNEL_MIN, err);
    rd->gpa = QZ_ALIGN_DOWN(end - rd->size, PAGE);
    return 0;
}

int initrd_check(const struct initrd *rd, const struct guest_memory *m, uint64_t kernel_end, struct qz_error *err)
{
    return rd->size && rd->gpa < kernel_end ? does_not_fit(rd, m, kernel_end, err) : 0;
}

int initrd_read(const struct initrd *rd, struct ram_writer *w, struct qz_error *err)
{
    struct mem_span span;
    uint64_t done = 0;

    if (!rd->size)
        return 0;
    if (mem_span(w->memory, gpa(rd->gpa), rd->size, &span) < 0)
        return qz_fail(err, -E2BIG, "initrd %s: its place in memory is not RAM", rd->path);
    ram_writer_prepare(w, rd->gpa, rd->size);
    while (done < rd->file_size) {
        ssize_t n = pread(rd->fd, span.data + done, rd->file_size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qz_fail(err, n < 0 ? -errno : -EIO, "initrd %s: %s", rd->path,
                           n < 0 ? strerror(errno) : "the file became shorter while it was read");
        done += n;
    }
    if (rd->extra_size)
        memcpy(span.data + (rd->size - rd->extra_size), rd->extra, rd->extra_size);
    return 0;
}

void initrd_close(struct initrd *rd)
{
    if (rd->fd >= 0)
        close(rd->fd);
    rd->fd = -1;
}

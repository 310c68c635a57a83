/* firmware_store.c - copies of variable stores (firmware_store.h). */
#include "firmware_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { STORE_MAX = 16 << 20 }; /* with the firmware's code, below 4 GiB */

static int open_store(const char *path, off_t *size, struct qz_error *err)
{
    QZ_AUTO_FD int fd = -1;
    struct stat st;

    if (!strncmp(path, "/proc/", 6))
        return qz_fail(err, -ENOTSUP,
                       "the firmware's variables are in a file without a name: give the machine "
                       "one by --firmware-vars");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return qz_fail(err, -errno, "firmware variables %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > STORE_MAX)
        return qz_fail(err, -EINVAL, "firmware variables %s: no file of at most %d MiB", path,
                       STORE_MAX >> 20);
    *size = st.st_size;
    return QZ_TAKE_FD(fd);
}

static int copy_bytes(int from, int to, off_t left)
{
    while (left > 0) {
        const ssize_t n = sendfile(to, from, NULL, (size_t)left);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        left -= n;
    }
    return 0;
}

int firmware_store_copy(const char *from, const char *to, struct qz_error *err)
{
    off_t size;
    QZ_AUTO_FD int in = open_store(from, &size, err);
    QZ_AUTO_FD int out = -1;
    int r;

    if (in < 0)
        return in;
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return qz_fail(err, -errno, "%s: cannot make the firmware's variable store: %s", to,
                       strerror(errno));
    r = copy_bytes(in, out, size);
    if (r < 0) {
        unlink(to);
        return qz_fail(err, r, "%s: cannot write: %s", to, strerror(-r));
    }
    return 0;
}

int firmware_store_unnamed(const char *from, struct qz_error *err)
{
    off_t size;
    QZ_AUTO_FD int in = open_store(from, &size, err);
    QZ_AUTO_FD int out = -1;
    int r;

    if (in < 0)
        return in;
    out = memfd_create("queztl-vars", MFD_CLOEXEC);
    r = out < 0 ? -errno : copy_bytes(in, out, size);
    return r < 0
               ? qz_fail(err, r, "no file in memory for the firmware's variables: %s", strerror(-r))
               : QZ_TAKE_FD(out);
}

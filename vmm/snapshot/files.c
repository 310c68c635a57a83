/* files.c - a snapshot's files: opened without following links, read and written whole. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "snapshot/snapshot_internal.h"

int open_regular(int folder, const char *name, uint64_t *size)
{
    /* O_NONBLOCK: a pipe with nobody at its other end is not waited for. */
    QZ_AUTO_FD int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *size = (uint64_t)st.st_size;
    return QZ_TAKE_FD(fd);
}

int read_all(int fd, void *to, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = pread(fd, (char *)to + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        done += (size_t)n;
    }
    return 0;
}

int write_all(int fd, const void *from, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        const ssize_t n = pwrite(fd, (const char *)from + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

int write_file(int folder, const char *name, const void *data, size_t len, struct qz_error *err)
{
    QZ_AUTO_FD int fd =
        openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : write_all(fd, data, len, 0);

    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r < 0 ? qz_fail(err, r, "%s: cannot be written: %s", name, strerror(-r)) : 0;
}

int read_file(int folder, const char *name, size_t max, void **data, size_t *len,
              struct qz_error *err)
{
    QZ_AUTO_FREE char *bytes = NULL;
    uint64_t size = 0;
    QZ_AUTO_FD int fd = open_regular(folder, name, &size);
    int r;

    if (fd == -EINVAL || fd == -ELOOP)
        return qz_fail(err, fd, "%s: not a regular file", name);
    if (fd < 0)
        return qz_fail(err, fd, "%s: cannot be opened: %s", name, strerror(-fd));
    if (size > max)
        return qz_fail(err, -EFBIG, "%s: %llu bytes, at most %zu are possible", name,
                       (unsigned long long)size, max);
    bytes = malloc(size + 1);
    if (!bytes)
        return qz_fail(err, -ENOMEM, "%s: no memory for %llu bytes", name,
                       (unsigned long long)size);
    r = read_all(fd, bytes, size, 0);
    if (r < 0)
        return qz_fail(err, r, "%s: cannot be read: %s", name, strerror(-r));
    bytes[size] = 0;
    *data = QZ_TAKE_PTR(bytes);
    *len = size;
    return 0;
}

static void empty_children(int folder)
{
    const int fd =
        openat(folder, SNAPSHOT_CHILDREN, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((e = readdir(d)))
        unlinkat(fd, e->d_name, 0);
    closedir(d);
}

static const char *const files[] = {SNAPSHOT_JSON,
                                    SNAPSHOT_STATE,
                                    SNAPSHOT_MEMORY,
                                    SNAPSHOT_INDEX,
                                    SNAPSHOT_INDEX ".new",
                                    SNAPSHOT_WORKING_SET,
                                    SNAPSHOT_WORKING_SET ".new"};

bool is_snapshot_file(const char *name)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(files); i++)
        if (!strcmp(name, files[i]))
            return true;
    return !strcmp(name, SNAPSHOT_CHILDREN) || !strcmp(name, ".") || !strcmp(name, "..");
}

int remove_snapshot_files(int parent, const char *name)
{
    QZ_AUTO_FD int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (folder < 0)
        return -errno;
    for (size_t i = 0; i < QZ_ARRAY_LEN(files); i++)
        if (unlinkat(folder, files[i], 0) < 0 && errno != ENOENT)
            return -errno;
    empty_children(folder);
    if (unlinkat(folder, SNAPSHOT_CHILDREN, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return -errno;
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* file.c - reading whole files with a bound. */
#include <fcntl.h>
#include <queztl/base.h>
#include <sys/stat.h>

int qz_read_file(const char *path, size_t max, void **data, size_t *len, struct qz_error *err)
{
    QZ_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    QZ_AUTO_FREE char *buf = NULL;
    struct stat st;
    size_t got = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return qz_fail(err, -errno, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return qz_fail(err, -EINVAL, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > max)
        return qz_fail(err, -EFBIG, "%s: %lld bytes, more than the %zu allowed here", path,
                       (long long)st.st_size, max);
    buf = malloc(st.st_size + 1);
    if (!buf)
        return qz_fail(err, -ENOMEM, "%s: no memory for %lld bytes", path, (long long)st.st_size);
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, buf + got, st.st_size - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qz_fail(err, -errno, "%s: cannot read: %s", path, strerror(errno));
        if (n == 0)
            break; /* the file shrank under us: what is there is the file */
        got += n;
    }
    buf[got] = '\0';
    *data = QZ_TAKE_PTR(buf);
    *len = got;
    return 0;
}

/* hostname.c - see hostname.h. */
#include "hostname.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

static bool file_says(const char *file, const char *name)
{
    QZ_AUTO_FD int fd = open(file, O_RDONLY | O_CLOEXEC);
    char text[QZ_AGENT_HOSTNAME_MAX + 2];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

    if (n < 0)
        return false;
    if (n && text[n - 1] == '\n')
        n--;
    return (size_t)n == strlen(name) && !memcmp(text, name, (size_t)n);
}

static int write_new(const char *path, mode_t mode, const char *name)
{
    QZ_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 || fchmod(fd, mode) < 0 || dprintf(fd, "%s\n", name) < 0 || fsync(fd) < 0 ? -errno
                                                                                            : 0;
}

/* A symbolic link stays one; a reader sees the old name or the new one. */
static int write_file(const char *file, const char *name, struct qz_error *err)
{
    char target[PATH_MAX], fresh[PATH_MAX + 16];
    struct stat st;
    int r;

    if (!realpath(file, target) || stat(target, &st) < 0)
        return qz_fail(err, -errno, "%s: %s", file, strerror(errno));
    snprintf(fresh, sizeof(fresh), "%s.queztl", target);
    r = write_new(fresh, st.st_mode & 0777, name);
    if (r == 0 && rename(fresh, target) < 0)
        r = -errno;
    if (r < 0) {
        unlink(fresh);
        return qz_fail(err, r, "%s: %s", file, strerror(-r));
    }
    return 0;
}

int hostname_change(const char *name, const char *file, struct qz_error *err)
{
    char now[HOST_NAME_MAX + 1] = "";
    const bool has_file = access(file, F_OK) == 0;
    bool same;

    gethostname(now, sizeof(now) - 1);
    same = !strcmp(now, name);
    if (same && (!has_file || file_says(file, name)))
        return CHANGE_ALREADY;
    if (!same && sethostname(name, strlen(name)) < 0)
        return qz_fail(err, -errno, "%s", strerror(errno));
    if (has_file && !file_says(file, name) && write_file(file, name, err) < 0)
        return err->code;
    return CHANGE_DONE;
}

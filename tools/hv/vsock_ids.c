/* vsock_ids.c - see vsock_ids.h. */
#include "vsock_ids.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { TRIES_MAX = 100000 };

/* Ours, and nobody else can put anything there. */
static int open_folder(struct qz_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[4096];
    QZ_AUTO_FD int fd = -1;
    struct stat st;

    if (runtime && *runtime == '/')
        snprintf(path, sizeof(path), "%s/queztl", runtime);
    else
        snprintf(path, sizeof(path), "/tmp/queztl-%u", (unsigned)getuid());
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return qz_fail(err, -errno, "%s: %s", path, strerror(errno));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return qz_fail(err, -errno, "%s: %s", path, strerror(errno));
    if (st.st_uid != getuid() || st.st_mode & 022)
        return qz_fail(err, -EPERM, "%s belongs to somebody else: remove it", path);
    return QZ_TAKE_FD(fd);
}

static int try_id(int folder, uint64_t cid)
{
    char name[32];
    QZ_AUTO_FD int fd = -1;

    snprintf(name, sizeof(name), "vsock-%llu", (unsigned long long)cid);
    fd = openat(folder, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    return QZ_TAKE_FD(fd);
}

int vsock_id_take(uint64_t *cid, struct qz_error *err)
{
    QZ_AUTO_FD int folder = open_folder(err);
    int fd = folder < 0 ? folder : -EBUSY;

    for (unsigned i = 0; fd == -EBUSY && i < TRIES_MAX; i++) {
        fd = try_id(folder, *cid);
        *cid += fd == -EBUSY;
    }
    if (folder >= 0 && fd < 0)
        qz_fail(err, fd, "no context id for vsock: %s", strerror(-fd));
    return fd;
}

int vsock_id_take_exactly(uint64_t cid, struct qz_error *err)
{
    QZ_AUTO_FD int folder = open_folder(err);
    const int fd = folder < 0 ? folder : try_id(folder, cid);

    if (folder >= 0 && fd < 0)
        qz_fail(err, fd, "context id %llu: %s", (unsigned long long)cid,
                fd == -EBUSY ? "another machine has it" : strerror(-fd));
    return fd;
}

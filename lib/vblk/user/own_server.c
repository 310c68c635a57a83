/*
 * own_server.c - see the header. The socket listens before the fork, so that whoever connects
 * right away waits for the server instead of finding none.
 */
#include "own_server.h"

#include <fcntl.h>
#include <queztl/disk.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum { LOCKED_MS = 5000 };

static void serve(const struct own_server *o, int listener)
{
    const struct qz_disk_vhost_options options = {.queues = o->queues, .serial = "queztl-own"};
    struct qz_disk_server *server;
    struct qz_error err = {0};
    struct qz_disk *disk;
    int64_t until = qz_now_ns() + LOCKED_MS * INT64_C(1000000);
    int rc;

    /* A killed server's locks go when the kernel has taken its io_uring apart, a moment later. */
    while ((rc = qz_disk_open(&disk, o->disk, &err)) == -EBUSY && qz_now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (rc == 0)
        rc = qz_disk_serve_vhost_user(&server, disk, listener, &options, &err);
    if (rc < 0) {
        fprintf(stderr, "own server: %s\n", err.text);
        _exit(1);
    }
    for (;;)
        pause();
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 4) < 0)
        return -errno;
    return QZ_TAKE_FD(fd);
}

int own_server_restart(struct own_server *o, struct qz_error *err)
{
    QZ_AUTO_FD int listener = listen_at(o->socket);

    if (listener < 0)
        return qz_fail(err, listener, "%s: %s", o->socket, strerror(-listener));
    o->pid = fork();
    if (o->pid < 0)
        return qz_fail(err, -errno, "own server: %s", strerror(errno));
    if (o->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        serve(o, listener);
    }
    return 0;
}

int own_server_start(struct own_server *o, uint64_t image_bytes, unsigned queues,
                     const char *options, struct qz_error *err)
{
    *o = (struct own_server){.queues = queues};
    snprintf(o->dir, sizeof(o->dir), "/tmp/vblk-own-XXXXXX");
    if (!mkdtemp(o->dir))
        return qz_fail(err, -errno, "%s: %s", o->dir, strerror(errno));
    snprintf(o->socket, sizeof(o->socket), "%s/s", o->dir);
    snprintf(o->disk, sizeof(o->disk), "memory:256MiB");
    if (image_bytes) {
        QZ_AUTO_FD int fd = -1;

        snprintf(o->image, sizeof(o->image), "%s/disk", o->dir);
        snprintf(o->disk, sizeof(o->disk), "file=%s,format=raw%s", o->image, options);
        fd = open(o->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)image_bytes) < 0)
            return qz_fail(err, -errno, "%s: %s", o->image, strerror(errno));
    }
    return own_server_restart(o, err);
}

void own_server_kill(struct own_server *o)
{
    if (o->pid <= 0)
        return;
    kill(o->pid, SIGKILL);
    waitpid(o->pid, NULL, 0);
    o->pid = 0;
}

void own_server_end(struct own_server *o)
{
    own_server_kill(o);
    unlink(o->socket);
    if (o->image[0])
        unlink(o->image);
    rmdir(o->dir);
}

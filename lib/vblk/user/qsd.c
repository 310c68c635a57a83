/*
 * qsd.c - see the header.
 */
#include "qsd.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum { START_MS = 20000, LOOK_NS = 5000000 };

static bool answers(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

int qsd_restart(struct qsd *q, struct qz_error *err)
{
    char blockdev[256], export[256];
    char *argv[] = {"qemu-storage-daemon",
                    "--object",
                    "iothread,id=io0",
                    "--blockdev",
                    blockdev,
                    "--export",
                    export,
                    NULL};
    int64_t until = qz_now_ns() + START_MS * INT64_C(1000000);

    if (q->image[0])
        snprintf(blockdev, sizeof(blockdev),
                 "driver=file,node-name=n,filename=%s,cache.direct=off,aio=threads", q->image);
    else
        snprintf(blockdev, sizeof(blockdev),
                 "driver=null-co,node-name=n,size=1073741824,read-zeroes=off");
    snprintf(export, sizeof(export),
             "type=vhost-user-blk,id=e,node-name=n,iothread=io0,writable=on,num-queues=%u,"
             "addr.type=unix,addr.path=%s",
             q->queues, q->socket);
    unlink(q->socket);
    q->pid = fork();
    if (q->pid < 0)
        return qz_fail(err, -errno, "qemu-storage-daemon: %s", strerror(errno));
    if (q->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        execvp(argv[0], argv);
        _exit(127);
    }
    while (!answers(q->socket)) {
        if (waitpid(q->pid, NULL, WNOHANG) == q->pid) {
            q->pid = 0;
            return qz_fail(err, -EIO, "qemu-storage-daemon does not start; install qemu-utils");
        }
        if (qz_now_ns() > until)
            return qz_fail(err, -ETIMEDOUT, "qemu-storage-daemon does not open its socket");
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
    return 0;
}

int qsd_start(struct qsd *q, uint64_t image_bytes, unsigned queues, struct qz_error *err)
{
    *q = (struct qsd){.queues = queues};
    snprintf(q->dir, sizeof(q->dir), "/tmp/vblk-qsd-XXXXXX");
    if (!mkdtemp(q->dir))
        return qz_fail(err, -errno, "%s: %s", q->dir, strerror(errno));
    snprintf(q->socket, sizeof(q->socket), "%s/s", q->dir);
    if (image_bytes) {
        QZ_AUTO_FD int fd = -1;

        snprintf(q->image, sizeof(q->image), "%s/disk", q->dir);
        fd = open(q->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)image_bytes) < 0)
            return qz_fail(err, -errno, "%s: %s", q->image, strerror(errno));
    }
    return qsd_restart(q, err);
}

void qsd_kill(struct qsd *q)
{
    if (q->pid <= 0)
        return;
    kill(q->pid, SIGKILL);
    waitpid(q->pid, NULL, 0);
    q->pid = 0;
}

void qsd_end(struct qsd *q)
{
    qsd_kill(q);
    unlink(q->socket);
    if (q->image[0])
        unlink(q->image);
    rmdir(q->dir);
}

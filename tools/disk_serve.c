/* disk_serve.c - queztl-disk serve: a disk for others, by vhost-user-blk or NBD. */
#include <netdb.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "disk_tool.h"

struct config {
    const char *vhost_user, *nbd, *serial, *name;
    uint64_t queues, threads;
};

static int set_vhost_user(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->vhost_user = value;
    return 0;
}

static int set_serial(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->serial = value;
    return strlen(value) <= 20 ? 0 : qz_fail(err, -EINVAL, "at most 20 characters");
}

static int set_queues(void *target, const char *value, struct qz_error *err)
{
    return qz_parse_u64(value, "queues", 1, 64, &((struct config *)target)->queues, err);
}

const struct qz_option serve_options[] = {
    {"vhost-user", "SOCKET", "serve virtual machines: QEMU, cloud-hypervisor, Queztl",
     set_vhost_user},
    {"queues", "N", "vhost-user: how many, each with a thread (default 1)", set_queues},
    {"serial", "TEXT", "vhost-user: the serial number that the guest sees", set_serial},
    {0},
};

/* A socket file that nobody listens on is replaced; one that is in use is not. */
static int remove_stale(const struct sockaddr_un *a, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (stat(a->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return qz_fail(err, -EEXIST, "%s: something that is no socket has this name", a->sun_path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
        return qz_fail(err, -EBUSY, "%s: another server listens there", a->sun_path);
    unlink(a->sun_path);
    return 0;
}

static int listen_unix(const char *path, struct qz_error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r;

    if (strlen(path) >= sizeof(a.sun_path))
        return qz_fail(err, -ENAMETOOLONG, "%s: longer than the name of a socket may be", path);
    memcpy(a.sun_path, path, strlen(path) + 1);
    if ((r = remove_stale(&a, err)) < 0)
        return r;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
        return qz_fail(err, -errno, "%s: cannot listen: %s", path, strerror(errno));
    return QZ_TAKE_FD(fd);
}

static int wait_for_signal(void)
{
    sigset_t set;
    QZ_AUTO_FD int fd = -1;
    struct signalfd_siginfo info;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    fd = signalfd(-1, &set, SFD_CLOEXEC);
    while (fd >= 0 && read(fd, &info, sizeof(info)) < 0 && errno == EINTR)
        ;
    return fd < 0 ? -errno : 0;
}

static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread is there */
    signal(SIGPIPE, SIG_IGN);
}

static int serve(const struct config *c, struct qz_disk *d, struct qz_error *err)
{
    struct qz_disk_vhost_options vhost = {.queues = (unsigned)c->queues};
    struct qz_disk_server *s;
    QZ_AUTO_FD int fd = listen_unix(c->vhost_user, err);
    int r;

    if (fd < 0)
        return fd;
    if (c->serial)
        memcpy(vhost.serial, c->serial, strlen(c->serial));
    r = qz_disk_serve_vhost_user(&s, d, fd, &vhost, err);
    if (r == 0) {
        r = wait_for_signal();
        qz_disk_server_stop(s);
    }
    unlink(c->vhost_user);
    return r;
}

int disk_serve(int argc, char **argv)
{
    struct config config = {.queues = 1};
    struct qz_error err = {0};
    struct qz_disk *d;
    int i = disk_parse(serve_options, argc, argv, &config, 1, 1), r, c;

    if (i < 0)
        return QZ_EXIT_USAGE;
    if (!config.vhost_user) {
        qz_fail(&err, -EINVAL, "serve: say --vhost-user SOCKET");
        return qz_complain("queztl-disk", QZ_EXIT_USAGE, &err);
    }
    block_signals();
    if (qz_disk_open(&d, argv[i], &err) < 0)
        return disk_failed(&err);
    r = serve(&config, d, &err);
    c = qz_disk_close(d, r < 0 ? NULL : &err);
    return r < 0 || c < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

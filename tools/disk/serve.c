/* serve.c - queztl-disk serve: a disk for others, by vhost-user-blk or NBD. */
#include <netdb.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "disk_tool.h"

struct config {
    const char *vhost_user, *nbd, *serial, *name;
    uint64_t queues;
};

static int set_vhost_user(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->vhost_user = value;
    return 0;
}

static int set_nbd(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->nbd = value;
    return 0;
}

static int set_name(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->name = value;
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
    {"nbd", "SOCKET|HOST:PORT", "serve NBD clients, on a unix socket or by TCP", set_nbd},
    {"name", "TEXT", "NBD: of the export (default: empty)", set_name},
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

static int listen_tcp(const char *text, struct qz_error *err)
{
    QZ_AUTO_FREE char *host = strdup(text);
    char *colon = host ? strrchr(host, ':') : NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    int one = 1, r, saved = 0;

    if (!colon)
        return qz_fail(err, -EINVAL, "%s: HOST:PORT or the name of a socket with a slash", text);
    *colon = 0;
    r = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
    if (r)
        return qz_fail(err, -EINVAL, "%s: %s", text, gai_strerror(r));
    r = -1;
    for (struct addrinfo *a = list; a && r < 0; a = a->ai_next) {
        QZ_AUTO_FD int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 64) == 0)
            r = QZ_TAKE_FD(fd);
        else
            saved = errno;
    }
    freeaddrinfo(list);
    return r < 0 ? qz_fail(err, -saved, "%s: cannot listen: %s", text, strerror(saved)) : r;
}

static bool is_path(const char *text)
{
    return strchr(text, '/') || !strchr(text, ':');
}

static int start_vhost_user(const struct config *c, struct qz_disk *d, struct qz_disk_server **s,
                            struct qz_error *err)
{
    struct qz_disk_vhost_options o = {.queues = (unsigned)c->queues};
    QZ_AUTO_FD int fd = listen_unix(c->vhost_user, err);

    if (fd < 0)
        return fd;
    if (c->serial)
        memcpy(o.serial, c->serial, strlen(c->serial));
    return qz_disk_serve_vhost_user(s, d, fd, &o, err);
}

static int start_nbd(const struct config *c, struct qz_disk *d, struct qz_disk_server **s,
                     struct qz_error *err)
{
    struct qz_disk_nbd_options o = {.export_name = c->name};
    QZ_AUTO_FD int fd = is_path(c->nbd) ? listen_unix(c->nbd, err) : listen_tcp(c->nbd, err);

    return fd < 0 ? fd : qz_disk_serve_nbd(s, d, fd, &o, err);
}

static int serve(const struct config *c, struct qz_disk *d, struct qz_error *err)
{
    struct qz_disk_server *vhost = NULL, *nbd = NULL;
    int r = c->vhost_user ? start_vhost_user(c, d, &vhost, err) : 0;

    if (r == 0 && c->nbd)
        r = start_nbd(c, d, &nbd, err);
    if (r == 0)
        r = wait_for_signal();
    if (vhost)
        unlink(c->vhost_user);
    if (nbd && is_path(c->nbd))
        unlink(c->nbd);
    qz_disk_server_stop(vhost);
    qz_disk_server_stop(nbd);
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
    if (!config.vhost_user && !config.nbd) {
        qz_fail(&err, -EINVAL, "serve: say --vhost-user SOCKET or --nbd SOCKET");
        return qz_complain("queztl-disk", QZ_EXIT_USAGE, &err);
    }
    block_signals();
    disk_start_helpers();
    if (qz_disk_open(&d, argv[i], &err) < 0)
        return disk_failed(&err);
    r = serve(&config, d, &err);
    c = qz_disk_close(d, r < 0 ? NULL : &err);
    return r < 0 || c < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

/*
 * vsock_host.c - the host's end of vsock: unix sockets (vsock.h).
 *
 * The convention is Firecracker's. A program of the host connects to PATH, sends "CONNECT 52\n" and
 * gets "OK 1073741824\n" when something in the guest listens on port 52; else its connection is
 * closed. A program of the guest that connects to port 52 of the host (CID 2) reaches who listens
 * on PATH_52.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "devices/virtio/vsock.h"

QZ_SYSCALLS(io, "socket connect accept4 recvfrom sendto shutdown close unlink");

enum { LINE_MAX_BYTES = 32, ACCEPTS_PER_ROUND = 16, BACKLOG = 64 };

static void on_connect(struct qz_watch *w, uint32_t events)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, listener);
    QZ_LOCKED(&v->d.lock);

    for (unsigned i = 0; i < ACCEPTS_PER_ROUND; i++) {
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct vsock_connection *c;

        if (fd < 0)
            return;
        if (!v->d.active) { /* no driver: nobody could answer */
            close(fd);
            continue;
        }
        c = vsock_connection_new(v, fd, VSOCK_HANDSHAKE);
        if (c)
            vsock_connection_watch(c);
    }
}

/* Somebody else's socket, or the rest of a machine that was killed? */
static int remove_stale(const struct sockaddr_un *a)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat st;

    if (lstat(a->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
        return -EADDRINUSE;
    return unlink(a->sun_path) < 0 ? -errno : 0;
}

int vsock_host_listen(struct vsock *v, const char *path, struct qz_error *err)
{
    const size_t room = sizeof(v->address.sun_path) - sizeof("_4294967295");
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    v->address.sun_family = AF_UNIX;
    if (strlen(path) > room)
        return qz_fail(err, -ENAMETOOLONG, "vsock %s: a path of at most %zu characters is needed",
                       path, room);
    strcpy(v->address.sun_path, path);
    r = fd < 0 ? -errno : remove_stale(&v->address);
    if (r == 0 && bind(fd, (const struct sockaddr *)&v->address, sizeof(v->address)) < 0)
        r = -errno;
    if (r < 0)
        return qz_fail(err, r, "vsock %s: cannot listen there: %s%s", path, strerror(-r),
                       r == -EADDRINUSE ? "; another machine does" : "");
    v->bound = true;
    if (chmod(path, 0600) < 0 || listen(fd, BACKLOG) < 0 ||
        (r = qz_loop_add(v->d.loop, &v->listener, fd, EPOLLIN, on_connect)) < 0)
        return qz_fail(err, r < 0 ? r : -errno, "vsock %s: cannot listen there: %s", path,
                       strerror(r < 0 ? -r : errno));
    fd = -1; /* the watch has it */
    return 0;
}

void vsock_host_close(struct vsock *v)
{
    if (v->listener.fd >= 0) {
        qz_loop_remove(&v->listener);
        close(v->listener.fd);
        v->listener.fd = -1;
    }
    if (v->bound)
        unlink(v->address.sun_path);
    v->bound = false;
}

int vsock_host_connect(struct vsock *v, uint32_t port)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd, r;

    snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", v->address.sun_path, port);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    r = -errno;
    close(fd);
    return r;
}

/* The port of "CONNECT 52", 0 when it is none. */
static uint32_t parse_connect(const char *line)
{
    char *end;
    unsigned long port;

    if (strncmp(line, "CONNECT ", 8) || line[8] < '0' || line[8] > '9')
        return 0;
    port = strtoul(line + 8, &end, 10);
    return *end == 0 && port <= UINT32_MAX ? (uint32_t)port : 0;
}

static uint32_t free_host_port(struct vsock *v, uint32_t guest_port)
{
    uint32_t port;

    do {
        port = v->next_host_port++;
        if (v->next_host_port < VSOCK_FIRST_HOST_PORT)
            v->next_host_port = VSOCK_FIRST_HOST_PORT;
    } while (vsock_connection_find(v, guest_port, port));
    return port;
}

void vsock_host_handshake(struct vsock_connection *c)
{
    char line[LINE_MAX_BYTES + 1];
    ssize_t n = recv(c->watch.fd, line, LINE_MAX_BYTES, MSG_PEEK);
    char *end = n > 0 ? memchr(line, '\n', n) : NULL;
    uint32_t port = 0;

    if ((n < 0 && errno == EAGAIN) || (n > 0 && !end && n < LINE_MAX_BYTES))
        return vsock_connection_watch(c);
    if (end && recv(c->watch.fd, line, end - line + 1, 0) == end - line + 1) {
        *end = 0;
        port = parse_connect(line);
    }
    if (!port)
        return vsock_connection_free(c);
    vsock_connection_name(c, port, free_host_port(c->vsock, port));
    c->state = VSOCK_REQUESTED;
    c->owes |= OWES_REQUEST;
    vsock_connection_watch(c);
    vsock_ready(c);
}

void vsock_host_accepted(struct vsock_connection *c)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

    c->state = VSOCK_OPEN;
    if (send(c->watch.fd, line, n, MSG_NOSIGNAL) != n) /* an empty socket takes a line */
        return vsock_connection_reset(c);
    vsock_connection_watch(c);
}

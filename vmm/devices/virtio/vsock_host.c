/*
 * vsock_host.c - how host programs and the guest meet: unix sockets by name.
 *
 * The guest connects to port P: whoever listens on the unix socket PATH_P gets the connection. A
 * host program connects to PATH, writes "CONNECT P\n" and reads "OK N\n" when the guest's port P
 * has accepted (N is the host's port that the guest sees), or the end of the file when it has not.
 * What follows is the stream, in both cases.
 */
#include <sys/socket.h>
#include <sys/stat.h>

#include "devices/virtio/vsock_internal.h"

QZ_SYSCALLS(io, "accept4 socket connect recvfrom sendto close");
QZ_SYSCALLS(main, "unlink");

enum { BACKLOG = 128, ACCEPTS = 16, PORT_DIGITS = 10 };
#define HOST_PORTS 0x40000000u /* ports of connecting host programs count from here */

/* ---- guest to host
 * --------------------------------------------------------------------------------- */

int vsock_connect(struct vsock *v, uint32_t port)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", v->path, port);
    /* Never "in progress": a local socket is connected, or refused, or its queue is full. */
    if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
        return -errno;
    return QZ_TAKE_FD(fd);
}

/* ---- host to guest
 * --------------------------------------------------------------------------------- */

/* Host ports go round; the pair with the guest's port must be free. */
static uint32_t take_port(struct vsock *v, uint32_t guest_port)
{
    uint32_t port;

    do {
        port = v->next_port;
        v->next_port = port == UINT32_MAX - 1 ? HOST_PORTS : port + 1;
    } while (vsock_connection_find(v, port, guest_port));
    return port;
}

static void begin(struct vsock_connection *c)
{
    static const char verb[] = "CONNECT ";
    uint64_t port;

    c->line[c->line_len - 1] = '\0';
    if (strncmp(c->line, verb, sizeof(verb) - 1) ||
        qz_parse_u64(c->line + sizeof(verb) - 1, "port", 0, UINT32_MAX - 1, &port, NULL) < 0) {
        vsock_connection_kill(c);
        return;
    }
    c->guest_port = (uint32_t)port;
    c->host_port = take_port(c->vsock, c->guest_port);
    c->state = VSOCK_CONNECTING;
    c->owed = OWE_REQUEST;
    vsock_connection_hash(c);
    vsock_connection_set_deadline(c);
}

void vsock_handshake(struct vsock_connection *c)
{
    char seen[sizeof(c->line)], *end;
    size_t room = sizeof(c->line) - c->line_len;
    ssize_t n = recv(c->fd, seen, room, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        vsock_connection_kill(c);
        return;
    }
    /* No byte behind the line is taken: it belongs to the stream. */
    end = memchr(seen, '\n', (size_t)n);
    if (end)
        n = end + 1 - seen;
    n = recv(c->fd, c->line + c->line_len, (size_t)n, MSG_DONTWAIT);
    if (n > 0)
        c->line_len += (unsigned)n;
    if (c->line_len && c->line[c->line_len - 1] == '\n')
        begin(c);
    else if (n <= 0 || c->line_len == sizeof(c->line))
        vsock_connection_kill(c);
}

bool vsock_handshake_done(struct vsock_connection *c)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

    /* The first bytes on this socket: they fit, unless the program has gone. */
    return send(c->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

static void on_connect(struct qz_watch *w, uint32_t events)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, listener);
    QZ_LOCKED(&v->d.lock);

    if (vsock_held(v)) {
        qz_loop_remove(w);
        vsock_timer_arm(v); /* or as soon as the guest is ready */
        return;
    }
    for (unsigned i = 0; i < ACCEPTS; i++) {
        struct vsock_connection *c;
        int fd;

        if (v->connections >= v->connections_max) {
            qz_loop_remove(w); /* until one has ended */
            return;
        }
        fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            qz_warn("vsock: no descriptor for a connection: %s; trying again", strerror(errno));
            qz_loop_remove(w);
            vsock_timer_arm(v);
        }
        if (fd < 0)
            return;
        if (!v->d.active) { /* no driver: nobody to connect to */
            close(fd);
            continue;
        }
        c = vsock_connection_new(v, fd);
        if (!c)
            continue;
        c->state = VSOCK_HANDSHAKE;
        vsock_connection_set_deadline(c);
        vsock_connection_settle(c);
    }
}

void vsock_listener_resume(struct vsock *v)
{
    if (v->listener.loop || v->listen_fd < 0 || v->connections >= v->connections_max)
        return;
    if (qz_loop_add(v->d.loop, &v->listener, v->listen_fd, EPOLLIN, on_connect) < 0)
        vsock_timer_arm(v);
}

/* ---- the socket PATH
 * ------------------------------------------------------------------------------- */

/* A socket file that nobody listens on was left behind by a killed machine; one that answers is in
 * use. */
static int remove_stale(const struct sockaddr_un *a, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (lstat(a->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return qz_fail(err, -EEXIST, "vsock %s: there is something else of that name", a->sun_path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno != ECONNREFUSED)
        return qz_fail(err, -EADDRINUSE, "vsock %s: another machine listens there", a->sun_path);
    unlink(a->sun_path);
    return 0;
}

int vsock_listen(struct vsock *v, const char *path, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const size_t most =
        sizeof(a.sun_path) - 1 - 1 - PORT_DIGITS; /* "_" and a port are added, and the end */
    mode_t mask;
    int r;

    if (fd < 0)
        return qz_fail(err, -errno, "vsock: %s", strerror(errno));
    if (!*path || strlen(path) > most)
        return qz_fail(
            err, -ENAMETOOLONG,
            "vsock %s: the path has %zu characters, 1 to %zu are possible: take a shorter one",
            path, strlen(path), most);
    strcpy(a.sun_path, path);
    r = remove_stale(&a, err);
    if (r < 0)
        return r;
    mask = umask(0177);
    r = bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
    umask(mask);
    if (r < 0)
        return qz_fail(err, r, "vsock %s: %s", path, strerror(-r));
    v->bound = true;
    if (listen(fd, BACKLOG) < 0)
        return qz_fail(err, -errno, "vsock %s: %s", path, strerror(errno));
    v->next_port = HOST_PORTS;
    v->listen_fd = fd;
    r = qz_loop_add(v->d.loop, &v->listener, fd, EPOLLIN, on_connect);
    (void)QZ_TAKE_FD(fd);
    return r < 0 ? qz_fail(err, r, "vsock %s: %s", path, strerror(-r)) : 0;
}

void vsock_unlisten(struct vsock *v)
{
    qz_loop_remove(&v->listener);
    if (v->listen_fd >= 0)
        close(v->listen_fd);
    v->listen_fd = -1;
    if (v->bound)
        unlink(v->path);
    v->bound = false;
}

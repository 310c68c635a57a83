/* listener.c - the socket and the connection (listener.h). */
#include "gdb/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

QZ_SYSCALLS(main, "accept4 recvfrom sendto getsockopt setsockopt unlink");

enum { INPUT_MAX = 4096 };

struct gdb_listener {
    struct qz_loop *loop;
    struct gdb_address address;
    struct gdb_target target;
    uid_t owner;
    struct qz_watch socket, client;
    struct gdb_server *server; /* of the client; NULL: nobody is connected */
    uint8_t input[INPUT_MAX];
    size_t input_len, input_at;
};

/* ---- the connection ----------------------------------------------------------------------------
 */

static void hang_up(struct gdb_listener *l)
{
    struct gdb_server *s = l->server;

    l->server = NULL; /* first: letting the machine run may have it stop at once */
    qz_loop_remove(&l->client);
    close(l->client.fd);
    gdb_server_detach(s);
    gdb_server_free(s);
}

/* False: the peer is gone. */
static bool send_output(struct gdb_listener *l)
{
    for (;;) {
        size_t len;
        const uint8_t *data = gdb_server_output(l->server, &len);
        ssize_t n;

        if (len == 0)
            return true;
        n = send(l->client.fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        gdb_server_sent(l->server, (size_t)n);
    }
}

static bool has_output(const struct gdb_listener *l)
{
    size_t len;

    gdb_server_output(l->server, &len);
    return len > 0;
}

/* Answers what came, as long as the answers are taken. False: it is over. */
static bool pump(struct gdb_listener *l)
{
    for (;;) {
        if (!send_output(l))
            return false;
        if (has_output(l))
            return true;
        if (gdb_server_is_over(l->server))
            return false;
        if (l->input_at == l->input_len)
            return true;
        l->input_at +=
            gdb_server_input(l->server, l->input + l->input_at, l->input_len - l->input_at);
    }
}

static void pump_or_hang_up(struct gdb_listener *l)
{
    if (!pump(l) || qz_loop_modify(&l->client, has_output(l) ? EPOLLOUT : EPOLLIN) < 0)
        hang_up(l);
}

static void on_client(struct qz_watch *w, uint32_t events)
{
    struct gdb_listener *l = QZ_CONTAINER_OF(w, struct gdb_listener, client);

    if (l->input_at == l->input_len && !has_output(l)) {
        const ssize_t n = recv(w->fd, l->input, sizeof(l->input), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return hang_up(l);
        l->input_at = 0;
        l->input_len = n > 0 ? (size_t)n : 0;
    }
    pump_or_hang_up(l);
}

/* ---- the socket --------------------------------------------------------------------------------
 */

static bool is_local(const struct gdb_listener *l)
{
    return gdb_address_path(&l->address) != NULL;
}

static bool peer_allowed(const struct gdb_listener *l, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return !is_local(l) || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
                            (peer.uid == l->owner || peer.uid == 0));
}

static void on_connection(struct qz_watch *w, uint32_t events)
{
    struct gdb_listener *l = QZ_CONTAINER_OF(w, struct gdb_listener, socket);
    QZ_AUTO_FD int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 || !peer_allowed(l, fd))
        return;
    if (l->server) {
        qz_warn("gdb: one debugger is connected already; another was refused");
        return;
    }
    if (!is_local(l)) /* small packets, each waited for */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (gdb_server_new(&l->server, &l->target) < 0) {
        qz_warn("gdb: no memory for a debugger");
        return;
    }
    l->input_at = l->input_len = 0;
    if (qz_loop_add(l->loop, &l->client, fd, EPOLLIN, on_client) < 0) {
        gdb_server_free(l->server);
        l->server = NULL;
        return;
    }
    (void)QZ_TAKE_FD(fd);
    l->target.ops->stop(l->target.context);
}

/* A socket file that nobody listens on is a left-over of a killed machine. */
static int remove_stale(const struct gdb_address *a, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *path = gdb_address_path(a);
    struct stat st;

    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return qz_fail(err, -EEXIST, "gdb socket %s: there is something else of that name", path);
    if (fd >= 0 && connect(fd, &a->any, a->len) == 0)
        return qz_fail(err, -EADDRINUSE, "gdb socket %s: another machine listens there", path);
    unlink(path);
    return 0;
}

static int bind_socket(const struct gdb_address *a, int fd, struct qz_error *err)
{
    const char *path = gdb_address_path(a);
    mode_t mask;
    int r = path ? remove_stale(a, err) : 0;

    if (r < 0)
        return r;
    if (!path)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    mask = umask(0177);
    r = bind(fd, &a->any, a->len) < 0 || listen(fd, 1) < 0 ? -errno : 0;
    umask(mask);
    return r < 0 ? qz_fail(err, r, "gdb socket %s: %s", path ? path : "", strerror(-r)) : 0;
}

static bool is_loopback(const struct gdb_address *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->storage;

    return a->any.sa_family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == 127
                                       : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

int gdb_listener_new(struct gdb_listener **out, struct qz_loop *loop,
                     const struct gdb_address *address, const struct gdb_target *target,
                     struct qz_error *err)
{
    QZ_AUTO_FREE struct gdb_listener *l = calloc(1, sizeof(*l));
    QZ_AUTO_FD int fd =
        socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    if (!l || fd < 0)
        return qz_fail(err, -ENOMEM, "gdb socket: no memory");
    l->loop = loop;
    l->address = *address;
    l->target = *target;
    l->owner = getuid();
    if ((r = bind_socket(address, fd, err)) < 0)
        return r;
    if ((r = qz_loop_add(loop, &l->socket, fd, EPOLLIN, on_connection)) < 0)
        return qz_fail(err, r, "gdb socket: %s", strerror(-r));
    if (!is_local(l) && !is_loopback(address))
        qz_warn("gdb: whoever reaches this port owns the guest: nothing is asked of a debugger");
    (void)QZ_TAKE_FD(fd);
    *out = QZ_TAKE_PTR(l);
    return 0;
}

void gdb_listener_free(struct gdb_listener *l)
{
    if (!l)
        return;
    if (l->server) {
        qz_loop_remove(&l->client);
        close(l->client.fd);
        gdb_server_free(l->server);
    }
    qz_loop_remove(&l->socket);
    close(l->socket.fd);
    if (is_local(l))
        unlink(gdb_address_path(&l->address));
    free(l);
}

/* ---- the machine's side ------------------------------------------------------------------------
 */

bool gdb_listener_is_waiting(const struct gdb_listener *l)
{
    return l->server && gdb_server_is_running(l->server) && !gdb_server_is_over(l->server);
}

void gdb_listener_stopped(struct gdb_listener *l, const struct gdb_stop *stop)
{
    if (!gdb_listener_is_waiting(l))
        return;
    gdb_server_stopped(l->server, stop);
    pump_or_hang_up(l);
}

void gdb_listener_exited(struct gdb_listener *l, int code)
{
    if (!gdb_listener_is_waiting(l))
        return;
    gdb_server_exited(l->server, code);
    send_output(l); /* the last that is sent; a peer that does not take it sees the end anyway */
}

/* server.c - the life of an NBD server: accepts, a thread for each connection, the end. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../server.h"
#include "nbd.h"

enum { CONNECTIONS_MAX = 128, QUEUE_DEPTH = 128 };

struct server {
    struct qz_disk_server public;
    struct nbd_server s;
};

static void *connection_main(void *argument)
{
    struct nbd_connection *c = argument;
    int r = nbd_negotiate(c);

    if (r == 0)
        nbd_transmit(c);
    else if (r != -ESHUTDOWN && r != -ECONNRESET)
        qz_info("nbd: a client was turned away: %s", strerror(-r));
    shutdown(c->fd, SHUT_RDWR);
    __atomic_store_n(&c->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

static void connection_free(struct nbd_connection *c)
{
    pthread_join(c->thread, NULL);
    queue_free(c->q);
    close(c->fd);
    c->server->count--;
    free(c);
}

/* Joins those that ended; all: waits for the others too. */
static void reap(struct nbd_server *s, bool all)
{
    for (struct nbd_connection **p = &s->connections; *p;) {
        struct nbd_connection *c = *p;

        if (!all && !__atomic_load_n(&c->ended, __ATOMIC_ACQUIRE)) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        connection_free(c);
    }
}

static int connection_new(struct nbd_server *s, int fd, struct qz_error *err)
{
    struct nbd_connection *c = calloc(1, sizeof(*c));
    int one = 1, r;

    if (!c)
        return qz_fail(err, -ENOMEM, "nbd: no memory");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
               sizeof(one)); /* of no meaning for unix sockets */
    c->server = s;
    c->fd = fd;
    r = queue_new(&c->q, QUEUE_DEPTH, err);
    if (r == 0 && (r = -pthread_create(&c->thread, NULL, connection_main, c)) < 0) {
        qz_fail(err, r, "nbd: cannot start a thread: %s", strerror(-r));
        queue_free(c->q);
    }
    if (r < 0) {
        free(c);
        return r;
    }
    c->next = s->connections;
    s->connections = c;
    s->count++;
    return 0;
}

static void accept_one(struct nbd_server *s)
{
    struct qz_error err = {0};
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    reap(s, false);
    if (s->count >= CONNECTIONS_MAX)
        qz_fail(&err, -EBUSY, "nbd: %d connections are enough", CONNECTIONS_MAX);
    if (err.code || connection_new(s, fd, &err) < 0) {
        qz_warn("%s", err.text);
        close(fd);
    }
}

static void *accept_main(void *argument)
{
    struct nbd_server *s = argument;

    for (;;) {
        struct pollfd p[2] = {{s->listen_fd, POLLIN, 0}, {s->stop_fd, POLLIN, 0}};

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents)
            break;
        if (p[0].revents & POLLIN)
            accept_one(s);
    }
    reap(s, true);
    return NULL;
}

static void end(struct server *s)
{
    if (s->s.stop_fd >= 0)
        close(s->s.stop_fd);
    if (s->s.listen_fd >= 0)
        close(s->s.listen_fd);
    __atomic_sub_fetch(&s->s.disk->queues, 1, __ATOMIC_RELEASE);
    free(s->s.name);
    free(s);
}

static void stop(struct qz_disk_server *public)
{
    struct server *s = QZ_CONTAINER_OF(public, struct server, public);
    static const uint64_t one = 1;

    if (write(s->s.stop_fd, &one, sizeof(one)) != sizeof(one))
        qz_error_log("nbd: cannot stop the server: %s", strerror(errno));
    pthread_join(s->s.thread, NULL);
    end(s);
}

int qz_disk_serve_nbd(struct qz_disk_server **out, struct qz_disk *d, int listening_fd,
                      const struct qz_disk_nbd_options *o, struct qz_error *err)
{
    struct server *s = calloc(1, sizeof(*s));
    int r = 0;

    if (!s)
        return qz_fail(err, -ENOMEM, "nbd: no memory");
    s->public.stop = stop;
    s->s.disk = d;
    s->s.top = d->chain.top;
    s->s.name = strdup(o->export_name ? o->export_name : "");
    s->s.listen_fd = fcntl(listening_fd, F_DUPFD_CLOEXEC, 0);
    s->s.stop_fd = eventfd(0, EFD_CLOEXEC);
    __atomic_add_fetch(&d->queues, 1, __ATOMIC_RELEASE);
    if (!s->s.name || s->s.listen_fd < 0 || s->s.stop_fd < 0)
        r = qz_fail(err, -errno, "nbd: %s", strerror(errno));
    else if ((r = -pthread_create(&s->s.thread, NULL, accept_main, &s->s)) < 0)
        qz_fail(err, r, "nbd: cannot start a thread: %s", strerror(-r));
    if (r < 0) {
        end(s);
        return r;
    }
    *out = &s->public;
    return 0;
}

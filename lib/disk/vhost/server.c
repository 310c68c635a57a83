/* server.c - the life of a vhost-user server: its threads, one connection after another. */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../server.h"
#include "vhost.h"

struct vhost_server {
    struct qz_disk_server server;
    struct vhost v;
};

/* -1: time to stop. */
static int next_connection(struct vhost *v)
{
    for (;;) {
        struct pollfd p[2] = {{v->listen_fd, POLLIN, 0}, {v->stop_fd, POLLIN, 0}};
        int fd;

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return -1;
        if (p[1].revents)
            return -1;
        if (!(p[0].revents & POLLIN))
            continue;
        fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
}

static void *control_main(void *argument)
{
    struct vhost *v = argument;

    while ((v->connection = next_connection(v)) >= 0) {
        user_serve(v);
        close(v->connection);
    }
    return NULL;
}

static void end(struct vhost_server *s)
{
    for (unsigned i = 0; i < s->v.lane_count; i++)
        lane_end(&s->v.lane[i]);
    if (s->v.stop_fd >= 0)
        close(s->v.stop_fd);
    if (s->v.listen_fd >= 0)
        close(s->v.listen_fd);
    __atomic_sub_fetch(&s->v.disk->queues, 1, __ATOMIC_RELEASE);
    free(s);
}

static void stop(struct qz_disk_server *server)
{
    struct vhost_server *s = QZ_CONTAINER_OF(server, struct vhost_server, server);
    static const uint64_t one = 1;

    if (write(s->v.stop_fd, &one, sizeof(one)) != sizeof(one))
        qz_error_log("vhost-user: cannot stop the server: %s", strerror(errno));
    pthread_join(s->v.thread, NULL);
    end(s);
}

static int start(struct vhost_server *s, unsigned queues, struct qz_error *err)
{
    struct vhost *v = &s->v;
    int r;

    v->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (v->stop_fd < 0)
        return qz_fail(err, -errno, "vhost-user: eventfd: %s", strerror(errno));
    for (unsigned i = 0; i < queues; i++) {
        r = lane_init(&v->lane[i], v, i, err);
        if (r < 0 && !v->lane[i].q)
            return r;
        v->lane_count++;
        if (r < 0)
            return r;
    }
    r = pthread_create(&v->thread, NULL, control_main, v);
    return r ? qz_fail(err, -r, "vhost-user: cannot start a thread: %s", strerror(r)) : 0;
}

int qz_disk_serve_vhost_user(struct qz_disk_server **out, struct qz_disk *d, int listening_fd,
                             const struct qz_disk_vhost_options *o, struct qz_error *err)
{
    unsigned queues = QZ_MAX(o->queues, 1u);
    struct vhost_server *s;
    int r;

    if (queues > LANES_MAX)
        return qz_fail(err, -EINVAL, "vhost-user: at most %d queues", LANES_MAX);
    if (d->chain.top->info.size % 512)
        return qz_fail(err, -EINVAL, "%s: %llu bytes are no whole number of 512-byte sectors",
                       d->label, (unsigned long long)d->chain.top->info.size);
    s = calloc(1, sizeof(*s));
    if (!s)
        return qz_fail(err, -ENOMEM, "vhost-user: no memory");
    s->server.stop = stop;
    s->v.disk = d;
    s->v.top = d->chain.top;
    s->v.listen_fd = fcntl(listening_fd, F_DUPFD_CLOEXEC, 0);
    s->v.stop_fd = s->v.connection = s->v.backend_fd = -1;
    memcpy(s->v.serial, o->serial, sizeof(s->v.serial));
    __atomic_add_fetch(&d->queues, 1, __ATOMIC_RELEASE);
    r = s->v.listen_fd < 0 ? qz_fail(err, -errno, "vhost-user: %s", strerror(errno))
                           : start(s, queues, err);
    if (r < 0) {
        end(s);
        return r;
    }
    *out = &s->server;
    return 0;
}

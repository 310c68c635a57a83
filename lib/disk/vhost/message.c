/* message.c - messages of vhost-user on the socket (message.h). */
#include "message.h"

#include <poll.h>
#include <sys/socket.h>

/* 1: readable; 0: time to stop; -EAGAIN: RESIZE_POLL_MS passed. */
static int wait_readable(struct vhost *v)
{
    struct pollfd p[2] = {{v->connection, POLLIN, 0}, {v->stop_fd, POLLIN, 0}};
    int r;

    do
        r = poll(p, 2, v->backend_fd >= 0 ? RESIZE_POLL_MS : -1);
    while (r < 0 && errno == EINTR);
    return r == 0 ? -EAGAIN : p[1].revents ? 0 : 1;
}

static void take_fds(struct message *m, struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (m->fd_count < FDS_MAX)
                m->fds[m->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

/* Reads length bytes; 0 or a negative errno. */
static int receive(struct vhost *v, struct message *m, void *bytes, size_t length)
{
    size_t got = 0;

    while (got < length) {
        union {
            struct cmsghdr h;
            char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control;
        struct iovec iov = {(uint8_t *)bytes + got, length - got};
        struct msghdr h = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control)};
        int ready = wait_readable(v);
        ssize_t n;

        if (ready == -EAGAIN && got == 0 && length == HEADER)
            return -EAGAIN;
        if (ready == -EAGAIN)
            continue;
        if (ready == 0)
            return -ESHUTDOWN;
        n = recvmsg(v->connection, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return -errno;
        take_fds(m, &h);
        if (n == 0)
            return -ECONNRESET;
        got += (size_t)n;
    }
    return 0;
}

int message_receive(struct vhost *v, struct message *m)
{
    int r;

    memset(m, 0, sizeof(*m));
    r = receive(v, m, m, HEADER);
    if (r < 0)
        return r;
    if ((m->flags & 3) != VERSION || m->size > PAYLOAD_MAX) {
        qz_warn("vhost-user: message %u: version %u, %u bytes", m->request, m->flags & 3, m->size);
        return -EPROTO;
    }
    return receive(v, m, &m->p, m->size);
}

int message_send(int socket, struct message *m, int fd)
{
    union {
        struct cmsghdr h;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov[2] = {{m, HEADER}, {&m->p, m->size}};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t sent;

    if (fd >= 0) {
        h.msg_control = &control;
        h.msg_controllen = sizeof(control);
        control.h = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.h), &fd, sizeof(fd));
    }
    /* A few bytes: they fit the socket's buffer, or the frontend does not read. */
    do
        sent = sendmsg(socket, &h, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)(HEADER + m->size) ? 0 : -EIO;
}

int message_reply(struct vhost *v, struct message *m, uint32_t size, int fd)
{
    m->flags = VERSION | FLAG_REPLY;
    m->size = size;
    return message_send(v->connection, m, fd);
}

int message_reply_u64(struct vhost *v, struct message *m, uint64_t value)
{
    m->p.u64 = value;
    return message_reply(v, m, sizeof(value), -1);
}

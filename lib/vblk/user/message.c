/*
 * message.c - sending vhost-user messages and waiting for answers, each with a bound in time.
 */
#include "message.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { FLAG_VERSION = 1, FLAG_VERSION_MASK = 3, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8, FDS_MAX = 8 };

struct header {
    uint32_t request, flags, size;
};

int channel_connect(struct channel *c, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    QZ_AUTO_FD int fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno;
    c->fd = QZ_TAKE_FD(fd);
    c->reply_ack = false;
    return 0;
}

void channel_close(struct channel *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static int send_message(struct channel *c, const struct header *h, const void *payload, int fd)
{
    struct iovec iov[2] = {{(void *)h, sizeof(*h)}, {(void *)payload, h->size}};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n;

    if (fd >= 0) {
        struct cmsghdr *cm;

        m.msg_control = control.space;
        m.msg_controllen = sizeof(control.space);
        cm = CMSG_FIRSTHDR(&m);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cm), &fd, sizeof(int));
    }
    do
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EPIPE ? -ECONNRESET : -errno;
    /* Messages are far smaller than a socket's buffer: one that is not taken whole has no reader.
     */
    return (size_t)n == sizeof(*h) + h->size ? 0 : -EPROTO;
}

/* recv() that keeps the first descriptor which comes along in *fd and closes every other. */
static ssize_t receive_some(struct channel *c, void *to, size_t len, int *fd)
{
    union {
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {to, len};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return n;
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(&m); cm; cm = CMSG_NXTHDR(&m, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= cm->cmsg_len; i++) {
            int got;

            memcpy(&got, CMSG_DATA(cm) + i * sizeof(int), sizeof(got));
            if (*fd < 0)
                *fd = got;
            else
                close(got);
        }
    }
    return n;
}

static int receive(struct channel *c, void *to, size_t len, int64_t until_ns, int *fd)
{
    uint8_t *at = to;

    while (len) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int64_t left = until_ns - qz_now_ns();
        ssize_t n;

        if (left <= 0)
            return -ETIMEDOUT;
        if (poll(&p, 1, (int)(left / 1000000) + 1) < 0 && errno != EINTR)
            return -errno;
        n = receive_some(c, at, len, fd);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int receive_reply(struct channel *c, enum message_request request, void *reply, size_t len,
                         int *fd)
{
    int64_t until = qz_now_ns() + (int64_t)c->reply_ms * 1000000;
    struct header h;
    int rc = receive(c, &h, sizeof(h), until, fd);

    if (rc < 0)
        return rc;
    if (h.request != request || !(h.flags & FLAG_REPLY) ||
        (h.flags & FLAG_VERSION_MASK) != FLAG_VERSION || h.size != len)
        return -EPROTO;
    return receive(c, reply, len, until, fd);
}

/* An answer to which no descriptor belongs. */
static int receive_without_fd(struct channel *c, enum message_request request, void *reply,
                              size_t len)
{
    QZ_AUTO_FD int fd = -1;

    return receive_reply(c, request, reply, len, &fd);
}

int channel_send(struct channel *c, enum message_request request, const void *payload, size_t len,
                 int fd)
{
    struct header h = {request, FLAG_VERSION | (c->reply_ack ? FLAG_NEED_REPLY : 0), (uint32_t)len};
    uint64_t refused = 0;
    int rc;

    if (c->fd < 0)
        return -ENOTCONN;
    rc = send_message(c, &h, payload, fd);
    if (rc == 0 && c->reply_ack)
        rc = receive_without_fd(c, request, &refused, sizeof(refused));
    return rc < 0 ? rc : refused ? -EIO : 0;
}

int channel_ask(struct channel *c, enum message_request request, const void *payload, size_t len,
                void *reply, size_t reply_len)
{
    struct header h = {request, FLAG_VERSION, (uint32_t)len};
    int rc;

    if (c->fd < 0)
        return -ENOTCONN;
    rc = send_message(c, &h, payload, -1);
    return rc < 0 ? rc : receive_without_fd(c, request, reply, reply_len);
}

int channel_ask_fd(struct channel *c, enum message_request request, const void *payload, size_t len,
                   void *reply, size_t reply_len, int *out)
{
    struct header h = {request, FLAG_VERSION, (uint32_t)len};
    QZ_AUTO_FD int fd = -1;
    int rc;

    *out = -1;
    if (c->fd < 0)
        return -ENOTCONN;
    rc = send_message(c, &h, payload, -1);
    if (rc == 0)
        rc = receive_reply(c, request, reply, reply_len, &fd);
    if (rc == 0)
        *out = QZ_TAKE_FD(fd);
    return rc;
}

int channel_send_u64(struct channel *c, enum message_request request, uint64_t value, int fd)
{
    return channel_send(c, request, &value, sizeof(value), fd);
}

int channel_ask_u64(struct channel *c, enum message_request request, uint64_t *value)
{
    return channel_ask(c, request, NULL, 0, value, sizeof(*value));
}

bool channel_lost(const struct channel *c)
{
    char byte;

    return c->fd < 0 || recv(c->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

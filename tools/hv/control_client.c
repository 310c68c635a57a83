/* control_client.c - one request, one line in answer, and the descriptors with it
 * (control_client.h). */
#include "control_client.h"

#include <sys/socket.h>
#include <sys/un.h>

enum { ANSWER_MAX = 1 << 20 };

static int connect_to(const char *path, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(a.sun_path))
        return qz_fail(err, -ENAMETOOLONG, "control socket %s: the path is too long for a socket",
                       path);
    strcpy(a.sun_path, path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
        return qz_fail(err, -errno,
                       "control socket %s: %s: name the socket that a machine was given by "
                       "--control",
                       path, strerror(errno));
    return QZ_TAKE_FD(fd);
}

/* The descriptors go with the first bytes. */
static ssize_t send_some(int fd, const char *line, size_t len, const int *fds, unsigned count)
{
    struct iovec v = {(char *)line, len};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(CONTROL_GIVEN_MAX * sizeof(int))];
    } rights = {0};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

    if (count) {
        m.msg_control = rights.room;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        rights.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&rights.head), fds, count * sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

static int send_line(int fd, const json_t *request, const int *fds, unsigned count)
{
    QZ_AUTO_FREE char *line = json_dumps(request, JSON_COMPACT);
    const size_t len = line ? strlen(line) + 1 : 0;

    if (!line)
        return -ENOMEM;
    line[len - 1] = '\n'; /* in the terminating zero's place */
    for (size_t done = 0; done < len;) {
        const ssize_t n = send_some(fd, line + done, len - done, fds, done ? 0 : count);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void take_descriptors(struct msghdr *m, struct control_answer *a)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int fd[CONTROL_DESCRIPTORS_MAX];

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            count > CONTROL_DESCRIPTORS_MAX)
            continue;
        memcpy(fd, CMSG_DATA(c), count * sizeof(int));
        for (size_t i = 0; i < count; i++) {
            if (a->fds < CONTROL_DESCRIPTORS_MAX)
                a->fd[a->fds++] = fd[i];
            else
                close(fd[i]);
        }
    }
}

static ssize_t receive_some(int fd, char *to, size_t room, struct control_answer *a)
{
    struct iovec v = {to, room};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(a->fd))];
    } rights;
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = rights.room,
                       .msg_controllen = sizeof(rights.room)};
    const ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);

    if (n > 0)
        take_descriptors(&m, a);
    return n;
}

/* One line; its length without the end, or a negative errno. */
static ssize_t receive_line(int fd, char *line, struct control_answer *a)
{
    size_t len = 0;

    while (len < ANSWER_MAX) {
        const ssize_t n = receive_some(fd, line + len, ANSWER_MAX - len, a);
        const char *end;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        end = memchr(line + len, '\n', (size_t)n);
        if (end)
            return end - line;
        len += (size_t)n;
    }
    return -EMSGSIZE;
}

static int understand(const char *line, size_t len, struct control_answer *a, struct qz_error *err)
{
    json_t *answer = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    const char *why = json_string_value(json_object_get(answer, "error"));
    int r = 0;

    if (!json_is_true(json_object_get(answer, "ok")))
        r = qz_fail(err, -EREMOTEIO, "%s", why ? why : "the machine's answer is not understood");
    else
        a->data = json_incref(json_object_get(answer, "data"));
    json_decref(answer);
    return r;
}

int control_ask(const char *socket_path, const json_t *request, const int *fds, unsigned count,
                struct control_answer *a, struct qz_error *err)
{
    QZ_AUTO_FD int fd = connect_to(socket_path, err);
    QZ_AUTO_FREE char *line = malloc(ANSWER_MAX);
    ssize_t n;
    int r;

    *a = (struct control_answer){0};
    if (fd < 0)
        return fd;
    r = line ? send_line(fd, request, fds, count) : -ENOMEM;
    n = r < 0 ? r : receive_line(fd, line, a);
    if (n < 0)
        r = qz_fail(err, (int)n, "control socket %s: no answer: %s", socket_path,
                    strerror((int)-n));
    else
        r = understand(line, (size_t)n, a, err);
    if (r < 0)
        control_answer_free(a);
    return r;
}

void control_answer_free(struct control_answer *a)
{
    while (a->fds)
        close(a->fd[--a->fds]);
    json_decref(a->data);
    a->data = NULL;
}

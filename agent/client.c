/* client.c - see client.h. */
#include "client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

static char *as_line(json_t *answer)
{
    char *text = json_dumps(answer, JSON_COMPACT), *line;

    json_decref(answer);
    if (!text || asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

char *client_refusal(const char *text)
{
    return as_line(json_pack("{s:b,s:s}", "ok", 0, "error", text));
}

static json_t *ping(void)
{
    QZ_AUTO_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    struct timespec up;
    char id[37] = "";

    clock_gettime(CLOCK_BOOTTIME, &up);
    if (fd < 0 || read(fd, id, sizeof(id) - 1) < 0)
        id[0] = '\0';
    return json_pack("{s:s,s:I,s:s}", "agent", QUEZTL_VERSION, "uptime_s", (json_int_t)up.tv_sec,
                     "boot_id", id);
}

/* Clients are processes: the lock ends with its owner. */
static json_t *take_identity(const struct agent *a, const struct identity *i)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    json_t *data;

    while (fcntl(a->lock_fd, F_SETLKW, &lock) < 0 && errno == EINTR)
        ;
    data = identity_take(i, &a->places);
    lock.l_type = F_UNLCK;
    fcntl(a->lock_fd, F_SETLK, &lock);
    return data;
}

char *client_answer(const struct agent *a, const char *line, size_t len)
{
    struct request r;
    struct qz_error err = {0};
    json_t *data;

    if (request_parse(&r, line, len, &err) < 0)
        return client_refusal(err.text);
    data = r.verb == REQUEST_PING ? ping() : take_identity(a, &r.identity);
    return as_line(json_pack("{s:b,s:o}", "ok", 1, "data", data));
}

static bool say(int fd, const char *text)
{
    size_t left = text ? strlen(text) : 0;

    while (left) {
        const ssize_t n = send(fd, text, left, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        text += n;
        left -= (size_t)n;
    }
    return text;
}

/* Answers the lines that are whole, and moves the rest to the beginning. */
static bool answer_lines(const struct agent *a, int fd, char *buf, size_t *have)
{
    char *begin = buf, *end;

    while ((end = memchr(begin, '\n', *have - (size_t)(begin - buf)))) {
        QZ_AUTO_FREE char *answer = client_answer(a, begin, (size_t)(end - begin));

        if (!say(fd, answer))
            return false;
        begin = end + 1;
    }
    *have -= (size_t)(begin - buf);
    memmove(buf, begin, *have);
    return true;
}

static bool wait_readable(int fd, int64_t idle_ns)
{
    struct pollfd p = {fd, POLLIN, 0};
    int r;

    while ((r = poll(&p, 1, (int)(idle_ns / 1000000))) < 0 && errno == EINTR)
        ;
    return r > 0;
}

void client_serve(const struct agent *a, int fd)
{
    const struct timeval patience = {.tv_sec = a->idle_ns / 1000000000};
    char buf[QZ_AGENT_LINE_MAX];
    size_t have = 0;

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    while (wait_readable(fd, a->idle_ns)) {
        const ssize_t n = recv(fd, buf + have, sizeof(buf) - have, MSG_DONTWAIT);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return;
        have += (size_t)n;
        if (!answer_lines(a, fd, buf, &have))
            return;
        if (have == sizeof(buf)) {
            QZ_AUTO_FREE char *refusal = client_refusal("the line is too long");

            say(fd, refusal);
            return;
        }
    }
}

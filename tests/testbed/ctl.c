/*
 * ctl.c - the test scripts' hand on unix sockets.
 *
 *     ctl SOCKET LINE          sends a line, prints the line that comes back (the control socket's
 * way) ctl --stream SOCKET      standard input to the socket, what comes back to standard output,
 * until the peer closes ctl --echo SOCKET        makes the socket, says "listening", serves one
 * connection: sends back what it reads
 *
 * Exit code 0, or 1 with the cause on standard error. A connection that is refused or not there yet
 * is tried again for 10 s.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECT_TRIES = 500,
    CONNECT_STEP_NS = 20000000,
    ANSWER_MAX = 1 << 16,
    ANSWER_WAIT_MS = 60000
};

static int fail(const char *what)
{
    fprintf(stderr, "ctl: %s: %s\n", what, strerror(errno));
    return 1;
}

static int open_socket(const char *path, struct sockaddr_un *a)
{
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(a->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(a->sun_path, path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {0};
    int fd = open_socket(path, &a);

    for (int i = 0; fd >= 0 && i < CONNECT_TRIES; i++) {
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
            return fd;
        if (errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN)
            break;
        nanosleep(&(struct timespec){.tv_nsec = CONNECT_STEP_NS}, NULL);
    }
    return -1;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);

        if (n < 0)
            return false;
        data += n;
        len -= n;
    }
    return true;
}

static int request(const char *path, const char *line)
{
    static char answer[ANSWER_MAX];
    size_t len = 0;
    int fd = connect_to(path);

    if (fd < 0)
        return fail(path);
    if (!write_all(fd, line, strlen(line)) || !write_all(fd, "\n", 1))
        return fail("send");
    while (len < sizeof(answer) && !memchr(answer, '\n', len)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (poll(&p, 1, ANSWER_WAIT_MS) <= 0) {
            errno = ETIMEDOUT;
            return fail("no answer");
        }
        n = read(fd, answer + len, sizeof(answer) - len);
        if (n < 0)
            return fail("receive");
        if (n == 0)
            break;
        len += n;
    }
    return write_all(STDOUT_FILENO, answer, len) && len && answer[len - 1] == '\n' ? 0 : 1;
}

/* Copies what is there; false at the end of the input. */
static bool copy(int from, int to)
{
    char buf[65536];
    ssize_t n = read(from, buf, sizeof(buf));

    return n > 0 && write_all(to, buf, n);
}

/* Each way has a process of its own: one that is blocked on a full socket still has to empty the
 * other way, for an echo waits for that. */
static int stream(const char *path)
{
    int fd = connect_to(path);
    pid_t sender = fd < 0 ? -1 : fork();

    if (sender < 0)
        return fail(path);
    if (sender == 0) {
        while (copy(STDIN_FILENO, fd))
            ;
        shutdown(fd, SHUT_WR);
        _exit(0);
    }
    while (copy(fd, STDOUT_FILENO))
        ;
    waitpid(sender, NULL, 0);
    return 0;
}

static int echo(const char *path)
{
    struct sockaddr_un a = {0};
    int fd = open_socket(path, &a), peer;

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
        return fail(path);
    puts("listening");
    fflush(stdout);
    peer = accept(fd, NULL, NULL);
    if (peer < 0)
        return fail("accept");
    while (copy(peer, peer))
        ;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--stream"))
        return stream(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "--echo"))
        return echo(argv[2]);
    if (argc == 3)
        return request(argv[1], argv[2]);
    fprintf(stderr, "usage: ctl SOCKET LINE | ctl --stream SOCKET | ctl --echo SOCKET\n");
    return 2;
}

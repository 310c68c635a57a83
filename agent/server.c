/* server.c - see server.h. */
#include "server.h"

#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { BACKLOG = 16, CHILDREN_STEP_MS = 1000, BREATH_MS = 100 };

int server_listen(unsigned port, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const struct sockaddr_vm a = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};

    if (fd < 0)
        return qz_fail(err, -errno,
                       "vsock: %s: is the machine run with --vsock, and the module "
                       "vmw_vsock_virtio_transport loaded?",
                       strerror(errno));
    if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, BACKLOG) < 0)
        return qz_fail(err, -errno, "vsock port %u: %s", port, strerror(errno));
    return QZ_TAKE_FD(fd);
}

static void reap(struct server *s)
{
    for (unsigned i = 0; i < QZ_AGENT_CLIENTS_MAX; i++)
        if (s->client[i] && waitpid(s->client[i], NULL, WNOHANG) != 0)
            s->client[i] = 0;
}

static pid_t *free_place(struct server *s)
{
    for (unsigned i = 0; i < QZ_AGENT_CLIENTS_MAX; i++)
        if (!s->client[i])
            return &s->client[i];
    return NULL;
}

/* Nobody in the guest: of context ids only the host's has an agent's word. */
static bool from_host(const struct sockaddr_vm *peer)
{
    return peer->svm_family != AF_VSOCK || peer->svm_cid == VMADDR_CID_HOST;
}

static void refuse(int fd, const char *text)
{
    QZ_AUTO_FREE char *line = client_refusal(text);

    if (line)
        (void)!send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void begin(struct server *s, int fd)
{
    pid_t *place = free_place(s);
    const pid_t pid = place ? fork() : -1;

    if (pid < 0)
        return refuse(fd, place ? "no process for another client" : "too many clients");
    if (pid == 0) {
        close(s->listener);
        client_serve(s->agent, fd);
        _exit(0);
    }
    *place = pid;
}

/* What is wrong with one connection, or passes with time, is no end of the socket. */
static bool passes(int error)
{
    return error == EAGAIN || error == EINTR || error == ECONNABORTED || error == ECONNRESET ||
           error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

int server_accept(struct server *s, struct qz_error *err)
{
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof(peer);
    QZ_AUTO_FD int fd =
        accept4(s->listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

    reap(s);
    if (fd < 0 && !passes(errno))
        return qz_fail(err, -errno, "accept: %s", strerror(errno));
    if (fd < 0 && errno != EAGAIN)
        poll(NULL, 0, BREATH_MS); /* descriptors come back when clients end */
    if (fd >= 0 && from_host(&peer))
        begin(s, fd);
    return 0;
}

int server_run(const struct agent *a, int listener, struct qz_error *err)
{
    struct server s = {.agent = a, .listener = listener};
    int r = 0;

    while (r == 0) {
        struct pollfd p = {listener, POLLIN, 0};

        poll(&p, 1, CHILDREN_STEP_MS);
        r = server_accept(&s, err);
    }
    return r;
}

/*
 * control.c - see the header.
 */
#include "control.h"

#include "commands.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { LINE_MAX_LEN = 128, CLIENT_MS = 5000 };

struct vblk_control {
    struct vblk_session *session;
    int listener, client; /* one client at a time; the others wait in the backlog */
    char *path, line[LINE_MAX_LEN];
    size_t len;
    int64_t until_ns; /* a client that says nothing is let go */
    struct vblk_request flush;
    bool flushing, removed;
};

int control_open(struct vblk_control **out, const char *path, struct vblk_session *s,
                 struct qz_error *err)
{
    struct vblk_control *c = calloc(1, sizeof(*c));
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    mode_t mask;
    int rc;

    if (!c || !(c->path = strdup(path)) || strlen(path) >= sizeof(addr.sun_path)) {
        if (c)
            free(c->path);
        free(c);
        return qz_fail(err, -EINVAL, "%s: the control socket's name is too long", path);
    }
    c->session = s;
    c->client = -1;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mask = umask(0077);
    rc = c->listener < 0 || bind(c->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
                 listen(c->listener, 8) < 0
             ? -errno
             : 0;
    umask(mask);
    if (rc < 0) {
        if (c->listener >= 0)
            close(c->listener);
        free(c->path);
        free(c);
        return qz_fail(err, rc, "%s: cannot listen: %s; remove a stale socket", path,
                       strerror(-rc));
    }
    *out = c;
    return 0;
}

void control_close(struct vblk_control *c)
{
    if (!c)
        return;
    if (c->client >= 0)
        close(c->client);
    close(c->listener);
    unlink(c->path);
    free(c->path);
    free(c);
}

static void hang_up(struct vblk_control *c)
{
    close(c->client);
    c->client = -1;
    c->len = 0;
}

/* An answer fits into the socket's buffer; a client that does not take it loses it. */
static void answer(struct vblk_control *c, json_t *reply)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

    if (text && c->client >= 0 &&
        send(c->client, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        qz_debug("%s: an answer was not taken: %s", c->path, strerror(errno));
    free(text);
    json_decref(reply);
    if (c->client >= 0)
        hang_up(c);
}

static void run(struct vblk_control *c)
{
    struct vblk_request *r = &c->flush;
    unsigned queue = 0;
    bool flush;
    json_t *reply = command_run(c->session, c->line, &flush, &queue);

    c->removed |= !strncmp(c->line, "device-remove", 13) && !json_object_get(reply, "error");
    if (!flush) {
        answer(c, reply);
        return;
    }
    *r = (struct vblk_request){.op = VBLK_OP_FLUSH};
    if (session_submit(c->session, queue, &r, 1) == 1)
        c->flushing = true;
    else
        answer(c, command_error(r->status, r->status == -ENOTSUP ? "the device has no FLUSH"
                                                                 : "queue-flush was refused"));
}

bool control_owns(struct vblk_control *c, const struct vblk_request *r)
{
    if (!c || r != &c->flush)
        return false;
    c->flushing = false;
    answer(c, r->status ? command_error(r->status, strerror(-r->status))
                        : command_done("queue-flush"));
    return true;
}

bool control_step(struct vblk_control *c)
{
    ssize_t n;

    if (c->flushing)
        return c->removed;
    if (c->client < 0) {
        c->client = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        c->until_ns = qz_now_ns() + CLIENT_MS * INT64_C(1000000);
        if (c->client < 0)
            return c->removed;
    }
    n = recv(c->client, c->line + c->len, sizeof(c->line) - 1 - c->len, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN) || qz_now_ns() > c->until_ns) {
        hang_up(c);
        return c->removed;
    }
    if (n > 0) {
        c->len += (size_t)n;
        c->line[c->len] = 0;
        if (strchr(c->line, '\n'))
            run(c);
        else if (c->len == sizeof(c->line) - 1)
            answer(c, command_error(-EINVAL, "the command is too long"));
    }
    return c->removed;
}

/*
 * control.c - the control socket (control.h).
 *
 * Theory of operation. A few clients at a time, each with a bounded line buffer and a bounded
 * answer buffer: a line that is too long, or a client that does not read its answers, is cut off.
 * All on the main loop.
 */
#include "vm/control.h"
#include "vm/driver_mailbox.h"
#include "vm/vm_restore.h"
#include "vm/vm_snapshot.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

QZ_SYSCALLS(main, "accept4 recvmsg sendmsg getsockopt unlink");

enum {
    CLIENTS_MAX = 8,
    LINE_MAX_BYTES = 16384,
    DESCRIPTORS_MAX = VM_SNAPSHOT_FILES, /* with an answer */
    GIVEN_MAX = 2 * VM_DISKS_MAX + 2,    /* with a request */
};

/*
 * What came with a request, and what an answer has beside "ok"; its descriptors go along with its
 * first byte and are closed then.
 */
struct reply {
    int *given; /* -1: taken over */
    unsigned givens;
    json_t *data;
    int fd[DESCRIPTORS_MAX];
    unsigned fds;
};

struct client {
    struct control *control;
    struct qz_watch watch;
    bool used;
    char line[LINE_MAX_BYTES];
    size_t line_len;
    char *answer; /* not yet sent; NULL when nothing waits */
    size_t answer_len, answer_sent;
    int fd[DESCRIPTORS_MAX]; /* the answer's, until its first byte is out */
    unsigned fds;
    int given[GIVEN_MAX]; /* came with the line that is not complete yet */
    unsigned givens;
};

struct control {
    struct vm *vm;
    struct qz_loop *loop;
    struct qz_watch listener;
    struct sockaddr_un address;
    uid_t owner; /* the only user, beside root, who may connect */
    struct client client[CLIENTS_MAX];
};

static void close_descriptors(struct client *c)
{
    while (c->fds)
        close(c->fd[--c->fds]);
}

static void close_given(struct client *c)
{
    while (c->givens)
        if (c->given[--c->givens] >= 0)
            close(c->given[c->givens]);
}

static void client_close(struct client *c)
{
    close_descriptors(c);
    close_given(c);
    qz_loop_remove(&c->watch);
    close(c->watch.fd);
    free(c->answer);
    c->answer = NULL;
    c->used = false;
}

/* ---- commands -------------------------------------------------------------------------------- */

static int cmd_pause(struct vm *vm, const json_t *request, struct reply *reply,
                     struct qz_error *err)
{
    return vm_pause(vm, err);
}
static int cmd_resume(struct vm *vm, const json_t *request, struct reply *reply,
                      struct qz_error *err)
{
    return vm_resume(vm, err);
}
static int cmd_info(struct vm *vm, const json_t *request, struct reply *reply, struct qz_error *err)
{
    reply->data = vm_info(vm);
    return 0;
}
static int cmd_metrics(struct vm *vm, const json_t *request, struct reply *reply,
                       struct qz_error *err)
{
    reply->data = vm_metrics(vm);
    return 0;
}
static int cmd_stop(struct vm *vm, const json_t *request, struct reply *reply, struct qz_error *err)
{
    vm_stop(vm);
    return 0;
}
static int cmd_powerdown(struct vm *vm, const json_t *request, struct reply *reply,
                         struct qz_error *err)
{
    return vm_powerdown(vm, err);
}
static int cmd_reset(struct vm *vm, const json_t *request, struct reply *reply,
                     struct qz_error *err)
{
    return vm_reset(vm, err);
}

static int cmd_balloon(struct vm *vm, const json_t *request, struct reply *reply,
                       struct qz_error *err)
{
    const json_t *target = json_object_get(request, "target");
    uint64_t bytes;
    int r = 0;

    if (json_is_string(target))
        r = qz_parse_size(json_string_value(target), &bytes, err);
    else if (json_is_integer(target) && json_integer_value(target) >= 0)
        bytes = json_integer_value(target);
    else
        r = qz_fail(
            err, -EINVAL,
            "balloon: \"target\" is missing: the memory to leave to the guest, such as \"256M\"");
    return r < 0 ? r : vm_set_memory_target(vm, bytes, err);
}

static int cmd_driver(struct vm *vm, const json_t *request, struct reply *reply,
                      struct qz_error *err)
{
    const char *line = json_string_value(json_object_get(request, "ask"));

    return line ? driver_ask(vm_memory(vm), line, err)
                : driver_answer(vm_memory(vm), &reply->data, err);
}

static int cmd_resize(struct vm *vm, const json_t *request, struct reply *reply,
                      struct qz_error *err)
{
    const char *disk = json_string_value(json_object_get(request, "disk"));
    const json_t *size = json_object_get(request, "size");
    uint64_t bytes;
    int r = 0;

    if (!disk)
        return qz_fail(err, -EINVAL,
                       "resize: \"disk\" is missing: the disk's path, or \"0\" for the first");
    if (json_is_string(size))
        r = qz_parse_size(json_string_value(size), &bytes, err);
    else if (json_is_integer(size) && json_integer_value(size) > 0)
        bytes = json_integer_value(size);
    else
        r = qz_fail(err, -EINVAL,
                    "resize: \"size\" is missing: the disk's new size, such as \"20GiB\"");
    return r < 0 ? r : vm_resize_disk(vm, disk, bytes, err);
}

/* "overlays": [[disk, name], ...], for each its descriptor, in this order. */
static int read_overlays(const json_t *list, const struct reply *reply, struct vm_overlay *overlays,
                         struct qz_error *err)
{
    const size_t count = json_array_size(list);

    if (count > VM_DISKS_MAX || count > reply->givens)
        return qz_fail(err, -EINVAL, "%zu overlays and %u descriptors", count, reply->givens);
    for (unsigned i = 0; i < count; i++) {
        const json_t *one = json_array_get(list, i), *disk = json_array_get(one, 0);

        if (!json_is_integer(disk) || json_integer_value(disk) < 0 ||
            json_integer_value(disk) >= VM_DISKS_MAX)
            return qz_fail(err, -EINVAL,
                           "an overlay is [number of the disk, name], and for restore the name of "
                           "what it goes back to");
        overlays[i] = (struct vm_overlay){
            .disk = (unsigned)json_integer_value(disk),
            .name = json_string_value(json_array_get(one, 1)),
            .fd = reply->given[i],
            .base = -1,
            .base_name = json_string_value(json_array_get(one, 2)),
        };
    }
    return 0;
}

static void note_taken(struct reply *reply, const struct vm_overlay *overlays, size_t count)
{
    for (size_t i = 0; i < count; i++)
        reply->given[i] = overlays[i].fd;
}

/* What it consists of comes along as descriptors (vm_snapshot.h). */
static int cmd_snapshot(struct vm *vm, const json_t *request, struct reply *reply,
                        struct qz_error *err)
{
    const json_t *list = json_object_get(request, "overlays");
    struct vm_overlay overlays[VM_DISKS_MAX];
    struct vm_snapshot s = {0};
    int r = read_overlays(list, reply, overlays, err);

    if (r == 0 && json_array_size(list) != reply->givens)
        r = qz_fail(err, -EINVAL, "snapshot: %zu overlays and %u descriptors",
                    json_array_size(list), reply->givens);
    if (r < 0)
        return r;
    r = vm_snapshot(vm, overlays, reply->givens, &s, err);
    note_taken(reply, overlays, reply->givens);
    memcpy(reply->fd, s.fd, s.fds * sizeof(s.fd[0]));
    reply->fds = s.fds;
    if (r == 0)
        reply->data = vm_snapshot_info(vm, &s);
    return r;
}

/* Descriptors: overlays, what they lie upon, and, unless it is the last snapshot, state and memory.
 */
static int cmd_restore(struct vm *vm, const json_t *request, struct reply *reply,
                       struct qz_error *err)
{
    const json_t *list = json_object_get(request, "overlays");
    const unsigned count = (unsigned)json_array_size(list), rest = reply->givens - 2 * count;
    struct vm_overlay overlays[VM_DISKS_MAX];
    struct vm_moment to;
    int r = read_overlays(list, reply, overlays, err);

    if (r < 0)
        return r;
    if (reply->givens < 2 * count || (rest != 0 && rest != 2))
        return qz_fail(err, -EINVAL, "restore: %u overlays and %u descriptors", count,
                       reply->givens);
    for (unsigned i = 0; i < count; i++) {
        if (!overlays[i].base_name)
            return qz_fail(err, -EINVAL,
                           "restore: disk %u: the third word is missing: the name of "
                           "what it goes back to",
                           overlays[i].disk);
        overlays[i].base = reply->given[count + i];
    }
    if (rest)
        to = (struct vm_moment){reply->given[2 * count], reply->given[2 * count + 1]};
    r = vm_restore(vm, rest ? &to : NULL, overlays, count, err);
    note_taken(reply, overlays, count);
    return r;
}

static const struct {
    const char *name;
    int (*run)(struct vm *vm, const json_t *request, struct reply *reply, struct qz_error *err);
} commands[] = {
    {"pause", cmd_pause},     {"resume", cmd_resume},       {"info", cmd_info},
    {"stop", cmd_stop},       {"powerdown", cmd_powerdown}, {"reset", cmd_reset},
    {"balloon", cmd_balloon}, {"metrics", cmd_metrics},     {"resize", cmd_resize},
    {"driver", cmd_driver},   {"snapshot", cmd_snapshot},   {"restore", cmd_restore},
};

static json_t *execute(struct vm *vm, const char *line, size_t len, struct reply *reply)
{
    json_error_t where;
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where), *answer;
    const char *name = json_string_value(json_object_get(request, "cmd"));
    struct qz_error err = {0};
    int r = -EINVAL;

    if (!request)
        qz_fail(&err, -EINVAL, "not JSON: %s (column %d)", where.text, where.column);
    else if (!name)
        qz_fail(&err, -EINVAL, "a request is an object with \"cmd\"");
    else
        qz_fail(
            &err, -EINVAL,
            "no command \"%.64s\" (pause, resume, info, stop, powerdown, reset, balloon, metrics, "
            "resize, driver, snapshot, restore)",
            name);
    for (size_t i = 0; name && i < QZ_ARRAY_LEN(commands); i++)
        if (!strcmp(name, commands[i].name))
            r = commands[i].run(vm, request, reply, &err);
    json_decref(request);
    if (r < 0)
        return json_pack("{s:b,s:s}", "ok", 0, "error", err.text);
    answer = json_pack("{s:b}", "ok", 1);
    if (reply->data)
        json_object_set_new(answer, "data", reply->data);
    return answer;
}

/* ---- connections ----------------------------------------------------------------------------- */

static void client_ready(struct qz_watch *w, uint32_t events);

static ssize_t send_some(struct client *c)
{
    struct iovec rest = {c->answer + c->answer_sent, c->answer_len - c->answer_sent};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(c->fd))];
    } rights = {0};
    struct msghdr m = {.msg_iov = &rest, .msg_iovlen = 1};

    if (c->fds) {
        m.msg_control = rights.room;
        m.msg_controllen = CMSG_SPACE(c->fds * sizeof(c->fd[0]));
        rights.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(c->fds * sizeof(c->fd[0])),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&rights.head), c->fd, c->fds * sizeof(c->fd[0]));
    }
    return sendmsg(c->watch.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* False: the client is gone. */
static bool send_answer(struct client *c)
{
    while (c->answer) {
        ssize_t n = send_some(c);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        close_descriptors(c);
        c->answer_sent += n;
        if (c->answer_sent == c->answer_len) {
            free(c->answer);
            c->answer = NULL;
        }
    }
    return true;
}

static void answer_line(struct client *c, size_t len)
{
    struct reply reply = {.given = c->given, .givens = c->givens};
    json_t *answer = execute(c->control->vm, c->line, len, &reply);

    close_given(c);
    c->fds = reply.fds;
    memcpy(c->fd, reply.fd, sizeof(c->fd));
    c->answer = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    json_decref(answer);
    c->answer_len = c->answer ? strlen(c->answer) : 0;
    c->answer_sent = 0;
    if (c->answer)
        c->answer[c->answer_len++] =
            '\n'; /* in the terminating zero's place: the length rules from here */
}

/* Serves whole lines in the buffer, one at a time: the next one only when its answer was taken. */
static bool serve_lines(struct client *c)
{
    while (!c->answer) {
        char *end = memchr(c->line, '\n', c->line_len);
        size_t len = end ? (size_t)(end - c->line) : 0;

        if (!end)
            return c->line_len < LINE_MAX_BYTES;
        if (len)
            answer_line(c, len);
        c->line_len -= len + 1;
        memmove(c->line, end + 1, c->line_len);
        if (!send_answer(c))
            return false;
    }
    return true;
}

/* More descriptors than any request has are closed. */
static void take_given(struct client *c, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        const size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
            if (c->givens < GIVEN_MAX)
                c->given[c->givens++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t receive_some(struct client *c)
{
    struct iovec rest = {c->line + c->line_len, LINE_MAX_BYTES - c->line_len};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(c->given))];
    } rights;
    struct msghdr m = {.msg_iov = &rest,
                       .msg_iovlen = 1,
                       .msg_control = rights.room,
                       .msg_controllen = sizeof(rights.room)};
    const ssize_t n = recvmsg(c->watch.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n > 0)
        take_given(c, &m);
    return n;
}

static void client_ready(struct qz_watch *w, uint32_t events)
{
    struct client *c = QZ_CONTAINER_OF(w, struct client, watch);

    if (events & EPOLLOUT && !send_answer(c))
        return client_close(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->answer) {
        ssize_t n = receive_some(c);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return client_close(c);
        if (n > 0)
            c->line_len += n;
    }
    if (!serve_lines(c))
        return client_close(c);
    if (qz_loop_modify(w, c->answer ? EPOLLOUT : EPOLLIN) < 0)
        client_close(c);
}

static bool peer_allowed(const struct control *c, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == c->owner || peer.uid == 0);
}

static void on_connection(struct qz_watch *w, uint32_t events)
{
    struct control *control = QZ_CONTAINER_OF(w, struct control, listener);
    QZ_AUTO_FD int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 || !peer_allowed(control, fd))
        return;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &control->client[i];

        if (c->used)
            continue;
        memset(c, 0, sizeof(*c));
        c->control = control;
        if (qz_loop_add(control->loop, &c->watch, fd, EPOLLIN, client_ready) == 0) {
            c->used = true;
            (void)QZ_TAKE_FD(fd);
        }
        return;
    }
    qz_warn("control socket: more than %d clients; one was refused", CLIENTS_MAX);
}

/* A socket file that nobody listens on is a left-over of a killed machine; one that answers is in
 * use. */
static int remove_stale(const struct sockaddr_un *a, struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (lstat(a->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return qz_fail(err, -EEXIST, "control socket %s: there is something else of that name",
                       a->sun_path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
        return qz_fail(err, -EADDRINUSE, "control socket %s: another machine listens there",
                       a->sun_path);
    unlink(a->sun_path);
    return 0;
}

int control_new(struct control **out, struct qz_loop *loop, struct vm *vm, const char *path,
                struct qz_error *err)
{
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    QZ_AUTO_FREE struct control *c = calloc(1, sizeof(*c));
    mode_t mask;
    int r;

    if (!c || fd < 0)
        return qz_fail(err, -ENOMEM, "control socket: no memory");
    c->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(c->address.sun_path))
        return qz_fail(err, -ENAMETOOLONG,
                       "control socket %s: a path of at most %zu characters is needed", path,
                       sizeof(c->address.sun_path) - 1);
    strcpy(c->address.sun_path, path);
    json_object_seed(
        0); /* reads /dev/urandom and the clock now: the first object comes after confinement */
    r = remove_stale(&c->address, err);
    if (r < 0)
        return r;
    mask = umask(0177);
    r = bind(fd, (struct sockaddr *)&c->address, sizeof(c->address));
    umask(mask);
    if (r < 0 || listen(fd, CLIENTS_MAX) < 0 ||
        qz_loop_add(loop, &c->listener, fd, EPOLLIN, on_connection) < 0)
        return qz_fail(err, -errno, "control socket %s: %s", path, strerror(errno));
    c->vm = vm;
    c->loop = loop;
    c->owner = getuid();
    (void)QZ_TAKE_FD(fd);
    *out = QZ_TAKE_PTR(c);
    return 0;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (c->client[i].used)
            client_close(&c->client[i]);
    qz_loop_remove(&c->listener);
    close(c->listener.fd);
    unlink(c->address.sun_path);
    free(c);
}

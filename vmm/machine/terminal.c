/*
 * terminal.c - the host's end of a guest console (terminal.h).
 *
 * Theory of operation. Output goes to the descriptor at once, and into a fixed ring when the
 * descriptor would block; the loop drains the ring. Input is read by the loop only while the
 * focused client has room, so that typed or piped bytes wait in the kernel, not here. One mutex
 * guards ring and client list; clients' callbacks run without it.
 */
#include "machine/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

QZ_SYSCALLS(all, "read write writev poll epoll_ctl futex");

enum { OUTPUT_RING = 64 << 10, INPUT_BUFFER = 4096, CTRL_A = 1, WAIT_MS = 100 };

struct terminal {
    struct qz_loop *loop;
    int in_fd, out_fd;
    bool in_polls,
        out_polls; /* regular files cannot be watched by epoll; they never block either */
    struct qz_watch in, out;
    struct qz_work pull, drain;
    pthread_mutex_t lock;
    struct terminal_client *clients, *focus;
    uint8_t ring[OUTPUT_RING];
    size_t ring_head, ring_len;
    bool out_broken;
    bool lossless;               /* atomic */
    void (*quit)(void *context); /* set: Ctrl-A is an escape */
    void *quit_context;
    bool escaped;
    uint8_t input[INPUT_BUFFER]; /* loop thread only: read, not yet taken by the client */
    size_t input_at, input_len;
};

static bool can_poll(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* Writes ring contents out; lock held. */
static void drain_ring(struct terminal *t)
{
    while (t->ring_len) {
        size_t n = QZ_MIN(t->ring_len, OUTPUT_RING - t->ring_head);
        ssize_t done = write(t->out_fd, t->ring + t->ring_head, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno != EAGAIN)
            t->out_broken = true; /* the reader is gone: the guest goes on without a console */
        if (done <= 0)
            break;
        t->ring_head = (t->ring_head + done) % OUTPUT_RING;
        t->ring_len -= done;
    }
    if (t->out_broken)
        t->ring_len = 0;
}

static void tell_writable(struct terminal *t)
{
    struct terminal_client *c;

    for (;;) {
        pthread_mutex_lock(&t->lock);
        for (c = t->clients; c && !c->waiting; c = c->next)
            ;
        if (c)
            c->waiting = false;
        pthread_mutex_unlock(&t->lock);
        if (!c)
            return;
        if (c->writable)
            c->writable(c);
    }
}

static void out_ready(struct qz_watch *w, uint32_t events)
{
    struct terminal *t = QZ_CONTAINER_OF(w, struct terminal, out);
    bool room;

    pthread_mutex_lock(&t->lock);
    if (events & EPOLLERR)
        t->out_broken = true;
    drain_ring(t);
    room = t->ring_len < OUTPUT_RING / 2;
    if (t->ring_len == 0 && t->out.loop)
        qz_loop_remove(&t->out);
    pthread_mutex_unlock(&t->lock);
    if (room)
        tell_writable(t);
}

static void start_draining(struct qz_work *w)
{
    struct terminal *t = QZ_CONTAINER_OF(w, struct terminal, drain);

    pthread_mutex_lock(&t->lock);
    if (t->ring_len && !t->out.loop && t->out_polls)
        qz_loop_add(t->loop, &t->out, t->out_fd, EPOLLOUT, out_ready);
    pthread_mutex_unlock(&t->lock);
}

static void pull_input(struct qz_work *w);

/* Lock held. */
static void focus(struct terminal *t, struct terminal_client *c)
{
    t->focus = c;
    qz_loop_post(t->loop, &t->pull, pull_input);
}

/* Whoever writes waits for room. */
static bool waits(const struct terminal *t)
{
    return __atomic_load_n(&t->lossless, __ATOMIC_RELAXED);
}

static size_t write_some(struct terminal_client *c, const void *data, size_t len)
{
    struct terminal *t = c->terminal;
    const uint8_t *p = data;
    size_t taken = 0;
    QZ_LOCKED(&t->lock);

    if (c->listening && t->focus != c)
        focus(t, c);
    if (t->out_fd < 0 || t->out_broken)
        return len;
    while (t->ring_len == 0 && taken < len) {
        ssize_t n = write(t->out_fd, p + taken, len - taken);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            t->out_broken = true;
            return len;
        }
        if (n <= 0)
            break;
        taken += n;
    }
    while (taken < len && t->ring_len < OUTPUT_RING) {
        size_t tail = (t->ring_head + t->ring_len) % OUTPUT_RING;
        size_t n = QZ_MIN(len - taken, QZ_MIN(OUTPUT_RING - t->ring_len, OUTPUT_RING - tail));

        memcpy(t->ring + tail, p + taken, n);
        t->ring_len += n;
        taken += n;
    }
    if (taken < len && !waits(t))
        c->waiting = true;
    if (t->ring_len)
        qz_loop_post(t->loop, &t->drain, start_draining);
    return taken;
}

size_t terminal_write(struct terminal_client *c, const void *data, size_t len)
{
    struct terminal *t = c->terminal;
    size_t taken = write_some(c, data, len);

    while (taken < len && waits(t)) {
        struct pollfd out = {.fd = t->out_fd, .events = POLLOUT};

        poll(&out, 1, WAIT_MS);
        pthread_mutex_lock(&t->lock);
        drain_ring(t);
        pthread_mutex_unlock(&t->lock);
        taken += write_some(c, (const uint8_t *)data + taken, len - taken);
    }
    return taken;
}

static void in_ready(struct qz_watch *w, uint32_t events);

/* Offers what was read to the focused client; loop thread. False when the client is full. */
static bool deliver(struct terminal *t)
{
    struct terminal_client *c;

    while (t->input_at < t->input_len) {
        size_t n;

        pthread_mutex_lock(&t->lock);
        c = t->focus;
        pthread_mutex_unlock(&t->lock);
        n = c ? c->receive(c, t->input + t->input_at, t->input_len - t->input_at) : 0;
        if (n == 0)
            return false;
        t->input_at += n;
    }
    return true;
}

/* Takes the escape sequences out of what was read. */
static void filter_escapes(struct terminal *t)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->input_len; i++) {
        uint8_t c = t->input[i];

        if (!t->escaped && c == CTRL_A) {
            t->escaped = true;
            continue;
        }
        if (t->escaped && (c == 'x' || c == 'X'))
            t->quit(t->quit_context);
        else
            t->input[kept++] = c; /* also a second Ctrl-A, and any other key after the first */
        t->escaped = false;
    }
    t->input_len = kept;
}

/* Reads once; false at end of input. */
static bool read_input(struct terminal *t)
{
    ssize_t n = read(t->in_fd, t->input, INPUT_BUFFER);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    t->input_at = 0;
    t->input_len = n;
    if (t->quit)
        filter_escapes(t);
    return true;
}

static void in_ready(struct qz_watch *w, uint32_t events)
{
    struct terminal *t = QZ_CONTAINER_OF(w, struct terminal, in);

    if (deliver(t) && !read_input(t)) {
        qz_loop_remove(&t->in);
        t->in_fd = -1;
        return;
    }
    /* A full client stops the reading; terminal_pull() starts it again. */
    if (!deliver(t))
        qz_loop_remove(&t->in);
}

static void pull_input(struct qz_work *w)
{
    struct terminal *t = QZ_CONTAINER_OF(w, struct terminal, pull);

    if (!deliver(t) || t->in_fd < 0)
        return;
    if (t->in_polls) {
        if (!t->in.loop)
            qz_loop_add(t->loop, &t->in, t->in_fd, EPOLLIN, in_ready);
        return;
    }
    /* A regular file: read until the client is full or the file ends. */
    while (deliver(t)) {
        if (!read_input(t)) {
            t->in_fd = -1;
            return;
        }
    }
}

int terminal_new(struct terminal **out, struct qz_loop *loop, int in_fd, int out_fd,
                 struct qz_error *err)
{
    struct terminal *t = calloc(1, sizeof(*t));

    if (!t)
        return qz_fail(err, -ENOMEM, "console: no memory");
    t->loop = loop;
    t->in_fd = in_fd;
    t->out_fd = out_fd;
    t->in_polls = can_poll(in_fd);
    t->out_polls = can_poll(out_fd);
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return 0;
}

void terminal_wait_for_reader(struct terminal *t, bool on)
{
    __atomic_store_n(&t->lossless, on, __ATOMIC_RELAXED);
}

void terminal_free(struct terminal *t)
{
    if (!t)
        return;
    drain_ring(t);
    qz_loop_remove(&t->in);
    qz_loop_remove(&t->out);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void terminal_attach(struct terminal *t, struct terminal_client *c)
{
    QZ_LOCKED(&t->lock);

    c->terminal = t;
    c->next = t->clients;
    t->clients = c;
    if (!t->focus)
        t->focus = c;
    qz_loop_post(t->loop, &t->pull, pull_input);
}

void terminal_focus(struct terminal_client *c)
{
    QZ_LOCKED(&c->terminal->lock);

    focus(c->terminal, c);
}

void terminal_listen(struct terminal_client *c, bool listening)
{
    struct terminal *t = c->terminal;
    struct terminal_client *other = t->clients;
    QZ_LOCKED(&t->lock);

    c->listening = listening;
    if (listening && !t->focus->listening)
        focus(t, c);
    while (other && !other->listening)
        other = other->next;
    if (other && !t->focus->listening)
        focus(t, other);
}

void terminal_pull(struct terminal_client *c)
{
    qz_loop_post(c->terminal->loop, &c->terminal->pull, pull_input);
}

void terminal_set_escape(struct terminal *t, void (*quit)(void *context), void *context)
{
    t->quit = quit;
    t->quit_context = context;
}

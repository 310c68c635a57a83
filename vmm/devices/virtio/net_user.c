/*
 * net_user.c - a network for the guest without privileges, by libslirp (net_backend.h).
 *
 * Theory of operation. libslirp wants to be polled: it names the descriptors that it waits for
 * (slirp_pollfds_fill), then is told what happened to them (slirp_pollfds_poll). Each descriptor
 * that it names has an entry in a table indexed by the descriptor, with a watch on the loop. An
 * event is noted in the entry, and one piece of posted work per round of the loop tells libslirp
 * everything at once, asks again what to wait for, brings the watches in line and sets the timer.
 * Frames from the guest ask for that work too, for they open and feed sockets.
 *
 * libslirp hands us frames at times of its choosing, so they wait in a ring of bounded size. When
 * that is half full the sockets are no longer watched: the host's side of each connection fills
 * up, and TCP does the rest. What still comes when it is full is dropped, as by a wire.
 *
 * libslirp itself bounds neither descriptors nor fragments that wait for their rest. Near the
 * limit, frames that could open another socket are dropped here, and so are fragments beyond an
 * allowance. Only ARP and IPv4 get through at all.
 *
 * Everything is on the loop's thread.
 */
#include "devices/virtio/net_backend.h"

#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <sys/resource.h>
#include <sys/socket.h>

QZ_SYSCALLS(io, "socket connect bind listen accept accept4 sendto recvfrom sendmsg recvmsg shutdown "
                "setsockopt getsockopt getsockname getpeername ioctl fcntl close "
                "openat newfstatat fstat lseek"); /* the last line: /etc/resolv.conf */

enum {
    FRAME_MAX = 1600,  /* of libslirp's own */
    RING = 128,        /* frames to the guest */
    RING_HIGH = 64,    /* sockets are left alone from here on */
    RING_LOW = 16,     /* and watched again from here */
    SOCKETS_MAX = 1024,
    ROOM = 64,         /* sockets that one batch of frames may open before they are counted */
    FRAGMENT_PERIOD_S = 32, /* libslirp gives up on the rest of a datagram after 30 s */
    INPUT_MAX = 65536 + 14,
    ETHERNET = 14,
    ETHERNET_MIN = 60,
    IPV4_MIN = 20,
    IDLE_MS = 1000,    /* what libslirp answers when it needs no timer */
};
#define FRAGMENT_BYTES (64u << 20)

struct user_fd {
    struct qz_watch watch;
    struct user *user;
    int wanted;   /* SLIRP_POLL_*, as of the last fill */
    int happened; /* since the last fill */
};

struct frame {
    uint16_t len;
    uint8_t data[FRAME_MAX];
};

struct user {
    struct net_backend b;
    struct net_client *client;
    struct qz_loop *loop;
    struct qz_work work;
    struct qz_timer timer;
    Slirp *slirp;
    bool running, paused, deaf; /* deaf: the ring is too full to listen to sockets */
    bool readable;              /* frames came since the client was told */

    struct user_fd **fd; /* by descriptor */
    int fds;
    unsigned known; /* entries in it */
    unsigned limit;
    unsigned input_since_fill;

    int64_t fragment_since_ns;
    size_t fragment_bytes;

    struct frame *ring; /* RING of them */
    unsigned head, count;
    uint8_t *input; /* INPUT_MAX: a frame of the guest in one piece */
    struct in_addr vnetwork;
};

/* A timer of libslirp's, on the loop. */
struct user_timer {
    struct qz_timer timer;
    struct user *user;
    SlirpTimerCb fire;
    void *context;
};

static struct user *user_of(struct net_backend *b)
{
    return QZ_CONTAINER_OF(b, struct user, b);
}

static void work_run(struct qz_work *w);

static void poll_soon(struct user *u)
{
    if (u->running)
        qz_loop_post(u->loop, &u->work, work_run);
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static struct user_fd *fd_entry(struct user *u, int fd)
{
    if (fd < 0)
        return NULL;
    if (fd >= u->fds) {
        int n = QZ_MAX(fd + 1, QZ_MAX(u->fds * 2, 64));
        struct user_fd **table = realloc(u->fd, (size_t)n * sizeof(*table));

        if (!table)
            return NULL;
        memset(table + u->fds, 0, (size_t)(n - u->fds) * sizeof(*table));
        u->fd = table;
        u->fds = n;
    }
    if (!u->fd[fd]) {
        u->fd[fd] = calloc(1, sizeof(struct user_fd));
        if (!u->fd[fd])
            return NULL;
        u->fd[fd]->user = u;
        u->known++;
    }
    return u->fd[fd];
}

static void fd_forget(struct user *u, int fd)
{
    if (fd < 0 || fd >= u->fds || !u->fd[fd])
        return;
    qz_loop_remove(&u->fd[fd]->watch);
    free(u->fd[fd]);
    u->fd[fd] = NULL;
    u->known--;
}

static void on_fd_ready(struct qz_watch *w, uint32_t events)
{
    struct user_fd *f = QZ_CONTAINER_OF(w, struct user_fd, watch);

    f->happened |= from_epoll(events);
    poll_soon(f->user);
}

/* Brings one watch in line with what is wanted. */
static void fd_sync(struct user *u, int fd)
{
    struct user_fd *f = u->fd[fd];
    uint32_t events = to_epoll(f->wanted);
    int r = 0;

    /* A watch of no events still reports hang-ups, for ever: it must go. */
    if (!events || u->deaf || !u->running)
        qz_loop_remove(&f->watch);
    else if (f->watch.loop)
        r = qz_loop_modify(&f->watch, events);
    else
        r = qz_loop_add(u->loop, &f->watch, fd, events, on_fd_ready);
    if (r < 0)
        qz_guest_warn("user network: cannot wait for a socket: %s", strerror(-r));
}

static void fds_sync(struct user *u)
{
    for (int fd = 0; fd < u->fds; fd++)
        if (u->fd[fd])
            fd_sync(u, fd);
}

static int add_poll(int fd, int events, void *opaque)
{
    struct user_fd *f = fd_entry(opaque, fd);

    if (!f)
        return -1;
    f->wanted = events;
    return fd;
}

static int get_events(int index, void *opaque)
{
    struct user *u = opaque;

    return index >= 0 && index < u->fds && u->fd[index] ? u->fd[index]->happened : 0;
}

/* ---- the round -------------------------------------------------------------------------------
 */

static void timer_fired(struct qz_timer *t)
{
    poll_soon(QZ_CONTAINER_OF(t, struct user, timer));
}

static void fill(struct user *u)
{
    uint32_t timeout = UINT32_MAX;

    for (int fd = 0; fd < u->fds; fd++)
        if (u->fd[fd])
            u->fd[fd]->wanted = u->fd[fd]->happened = 0;
    slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
    u->input_since_fill = 0;
    fds_sync(u);
    if (timeout < IDLE_MS)
        qz_timer_arm(u->loop, &u->timer, qz_now_ns() + (int64_t)timeout * 1000000, timer_fired);
    else
        qz_timer_cancel(&u->timer);
}

static void work_run(struct qz_work *w)
{
    struct user *u = QZ_CONTAINER_OF(w, struct user, work);

    if (!u->running)
        return;
    if (!u->deaf) {
        slirp_pollfds_poll(u->slirp, 0, get_events, u);
        u->deaf = u->count >= RING_HIGH;
        fill(u);
    }
    if (u->readable && u->count && !u->paused) {
        u->readable = false;
        u->client->readable(u->client);
    }
}

/* ---- libslirp's callbacks --------------------------------------------------------------------
 */

static ssize_t slirp_send_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = opaque;
    struct frame *f = &u->ring[(u->head + u->count) % RING];

    if (!u->running || u->count == RING || len > sizeof(f->data))
        return (ssize_t)len; /* lost, as on a wire; an error would only be logged */
    memcpy(f->data, buf, len);
    f->len = (uint16_t)len;
    u->count++;
    u->readable = true;
    poll_soon(u);
    return (ssize_t)len;
}

static void slirp_guest_error(const char *message, void *opaque)
{
    qz_guest_warn("user network: %s", message);
}

static int64_t slirp_clock(void *opaque)
{
    return qz_now_ns();
}

static void slirp_timer_fired(struct qz_timer *t)
{
    struct user_timer *ut = QZ_CONTAINER_OF(t, struct user_timer, timer);

    ut->fire(ut->context);
    poll_soon(ut->user);
}

static void *slirp_timer_new(SlirpTimerCb fire, void *context, void *opaque)
{
    struct user_timer *t = calloc(1, sizeof(*t));

    if (t)
        *t = (struct user_timer){.user = opaque, .fire = fire, .context = context};
    return t;
}

static void slirp_timer_free(void *timer, void *opaque)
{
    struct user_timer *t = timer;

    if (t)
        qz_timer_cancel(&t->timer);
    free(t);
}

static void slirp_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user_timer *t = timer;
    struct user *u = opaque;

    if (t && u->loop)
        qz_timer_arm(u->loop, &t->timer, expire_ms * 1000000, slirp_timer_fired);
}

static void slirp_register(int fd, void *opaque)
{
    fd_entry(opaque, fd); /* counted from now on; watched when asked for */
}

static void slirp_unregister(int fd, void *opaque)
{
    fd_forget(opaque, fd);
}

static void slirp_notify(void *opaque)
{
    poll_soon(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = slirp_send_packet,
    .guest_error = slirp_guest_error,
    .clock_get_ns = slirp_clock,
    .timer_new = slirp_timer_new,
    .timer_free = slirp_timer_free,
    .timer_mod = slirp_timer_mod,
    .register_poll_fd = slirp_register,
    .unregister_poll_fd = slirp_unregister,
    .notify = slirp_notify,
};

/* ---- frames of the guest ---------------------------------------------------------------------
 */

/* Whether this IPv4 packet could make libslirp open a socket. */
static bool may_open(const uint8_t *ip, size_t len)
{
    size_t header = (size_t)(ip[0] & 15) * 4;

    if (ip[9] != IPPROTO_TCP)
        return true; /* UDP and ICMP: no telling a new flow from an old one here */
    /* SYN without ACK. */
    return header + 14 > len || (ip[header + 13] & 0x12) == 0x02;
}

static bool fragment_allowed(struct user *u, size_t len)
{
    int64_t now = qz_now_ns();

    if (now - u->fragment_since_ns > FRAGMENT_PERIOD_S * 1000000000ll) {
        u->fragment_since_ns = now;
        u->fragment_bytes = 0;
    }
    u->fragment_bytes += QZ_MAX(len, (size_t)FRAME_MAX); /* libslirp's buffers are no smaller */
    return u->fragment_bytes <= FRAGMENT_BYTES;
}

static bool acceptable(struct user *u, const uint8_t *frame, size_t len)
{
    uint16_t type = qz_load_be16(frame + 12);
    const uint8_t *ip = frame + ETHERNET;

    if (type == 0x0806)
        return true;
    if (type != 0x0800 || len < ETHERNET + IPV4_MIN)
        return false;
    len -= ETHERNET;
    if (qz_load_be16(ip + 6) & 0x3fff && !fragment_allowed(u, len)) /* offset or more to come */
        return false;
    if (u->known + u->input_since_fill < u->limit || !may_open(ip, len)) {
        u->input_since_fill += may_open(ip, len);
        return true;
    }
    qz_guest_warn("user network: the guest has %u connections open; more are refused", u->known);
    return false;
}

static int on_send(struct net_backend *b, const struct iovec *iov, unsigned count, size_t bytes)
{
    struct user *u = user_of(b);
    size_t skip = NET_HEADER, len = 0;

    if (bytes - NET_HEADER > INPUT_MAX)
        return -EMSGSIZE;
    for (unsigned i = 0; i < count; i++) {
        size_t cut = QZ_MIN(skip, iov[i].iov_len), n = iov[i].iov_len - cut;

        skip -= cut;
        n = QZ_MIN(n, INPUT_MAX - len);
        memcpy(u->input + len, (const uint8_t *)iov[i].iov_base + cut, n);
        len += n;
    }
    if (len < ETHERNET_MIN) { /* padded, as by a wire: libslirp need not look at lengths */
        memset(u->input + len, 0, ETHERNET_MIN - len);
        len = ETHERNET_MIN;
    }
    if (!acceptable(u, u->input, len))
        return -EPERM;
    slirp_input(u->slirp, u->input, (int)len);
    return 1;
}

static void on_flush(struct net_backend *b)
{
    poll_soon(user_of(b));
}

static ssize_t on_receive(struct net_backend *b, const struct iovec *iov, unsigned count)
{
    struct user *u = user_of(b);
    const struct frame *f = &u->ring[u->head];
    static const uint8_t header[NET_HEADER]; /* no offloads */
    size_t at = 0, total;

    if (!u->count)
        return 0;
    total = NET_HEADER + f->len;
    for (unsigned i = 0; i < count && at < total; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t room = iov[i].iov_len;

        while (room && at < total) {
            const uint8_t *from = at < NET_HEADER ? header + at : f->data + (at - NET_HEADER);
            size_t n = QZ_MIN(room, at < NET_HEADER ? NET_HEADER - at : total - at);

            memcpy(to, from, n);
            to += n;
            room -= n;
            at += n;
        }
    }
    u->head = (u->head + 1) % RING;
    u->count--;
    if (u->deaf && u->count <= RING_LOW) {
        u->deaf = false;
        poll_soon(u);
    }
    return (ssize_t)total;
}

/* ---- life ------------------------------------------------------------------------------------
 */

static int on_attach(struct net_backend *b, struct qz_loop *loop, struct net_client *client,
                     struct qz_error *err)
{
    user_of(b)->loop = loop;
    user_of(b)->client = client;
    return 0;
}

static void on_start(struct net_backend *b, uint64_t features)
{
    struct user *u = user_of(b);

    u->running = true;
    u->paused = u->deaf = u->readable = false;
    u->head = u->count = 0;
    poll_soon(u); /* listening sockets */
}

static void on_stop(struct net_backend *b)
{
    struct user *u = user_of(b);

    u->running = false;
    u->head = u->count = 0;
    fds_sync(u); /* removes every watch */
    qz_timer_cancel(&u->timer);
}

static void on_pause(struct net_backend *b, bool paused)
{
    struct user *u = user_of(b);

    u->paused = paused;
    if (paused || !u->count)
        return;
    u->readable = true; /* the client comes by itself now; this is for what it leaves */
    poll_soon(u);
}

static void on_free(struct net_backend *b)
{
    struct user *u = user_of(b);

    u->running = false;
    if (u->slirp)
        slirp_cleanup(u->slirp); /* closes its sockets, and says so by slirp_unregister() */
    for (int fd = 0; fd < u->fds; fd++)
        fd_forget(u, fd);
    qz_timer_cancel(&u->timer);
    free(u->fd);
    free(u->ring);
    free(u->input);
    free(u);
}

static const struct net_backend_ops user_ops = {
    .attach = on_attach,
    .start = on_start,
    .stop = on_stop,
    .send = on_send,
    .flush = on_flush,
    .receive = on_receive,
    .pause = on_pause,
    .free = on_free,
};

static int add_forward(struct user *u, const struct net_user_forward *f, struct qz_error *err)
{
    struct in_addr host = f->host, guest = {0}; /* 0: the first address that DHCP gives */
    char text[INET_ADDRSTRLEN];
    int code;

    if (!host.s_addr)
        host.s_addr = htonl(INADDR_LOOPBACK);
    if (!f->host_port || !f->guest_port)
        return qz_fail(err, -EINVAL, "user network: a port to forward is 1 to 65535");
    errno = 0;
    if (slirp_add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port) == 0)
        return 0;
    code = errno ? -errno : -EIO;
    inet_ntop(AF_INET, &host, text, sizeof(text));
    return qz_fail(err, code, "user network: cannot listen on %s port %u (%s) for the guest's port %u: %s%s",
                   text, f->host_port, f->udp ? "udp" : "tcp", f->guest_port, strerror(-code),
                   code == -EADDRINUSE ? "; choose another port"
                   : code == -EACCES   ? "; ports below 1024 need privileges, choose a higher one"
                                       : "");
}

static unsigned socket_limit(void)
{
    struct rlimit files;
    unsigned limit = SOCKETS_MAX;

    /* Half of the process's descriptors at most; a batch of frames may still add some. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / 2 < limit)
        limit = (unsigned)files.rlim_cur / 2;
    return limit;
}

static void start_slirp(struct user *u, const struct net_user_options *o)
{
    SlirpConfig config = {
        .version = 4,
        .restricted = o->restricted,
        .in_enabled = true,
        .vhostname = o->hostname,
        .disable_host_loopback = o->no_host_loopback,
    };

    inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &config.vhost);
    inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
    u->slirp = slirp_new(&config, &callbacks, u);
}

int net_user_open(struct net_backend **out, const struct net_user_options *options,
                  struct qz_error *err)
{
    struct user *u = calloc(1, sizeof(*u));
    int r = 0;

    if (!u)
        return qz_fail(err, -ENOMEM, "user network: no memory");
    u->b = (struct net_backend){&user_ops, 0, "user network"};
    u->limit = socket_limit();
    u->ring = calloc(RING, sizeof(*u->ring));
    u->input = malloc(INPUT_MAX);
    if (u->ring && u->input)
        start_slirp(u, options);
    if (!u->slirp)
        r = qz_fail(err, -ENOMEM, "user network: libslirp could not be started");
    for (unsigned i = 0; r == 0 && i < options->forwards; i++)
        r = add_forward(u, &options->forward[i], err);
    if (r < 0) {
        on_free(&u->b);
        return r;
    }
    *out = &u->b;
    return 0;
}

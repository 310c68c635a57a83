/*
 * net_user.c - a network for the guest without privileges, by libslirp (net_backend.h).
 *
 * Theory of operation. Frames from the guest go into libslirp at once; they open and feed sockets,
 * which net_user_poll.c watches. libslirp hands us frames at times of its choosing, so they wait in
 * a ring of bounded size. When that is half full the sockets are no longer watched: the host's side
 * of each connection fills up, and TCP does the rest. What still comes when it is full is dropped,
 * as by a wire.
 *
 * libslirp itself bounds neither descriptors nor fragments that wait for their rest. Near the
 * limit, frames that could open another socket are dropped here, and so are fragments beyond an
 * allowance. Only ARP and IPv4 get through at all.
 *
 * Everything is on the loop's thread.
 */
#include "devices/virtio/net_backend.h"

#include <arpa/inet.h>
#include <glib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "devices/virtio/net_user_poll.h"

/* Ports are bound when the network is opened; the second list is for /etc/resolv.conf. */
QZ_SYSCALLS(io, "socket connect accept accept4 sendto recvfrom recvmsg shutdown setsockopt "
                "getsockopt getpeername ioctl fcntl close");
QZ_SYSCALLS(io, "openat newfstatat fstat read lseek close");

#define LOG_DOMAIN "Slirp" /* libslirp's, in GLib */

enum {
    FRAME_MAX = 1600, /* of libslirp's own */
    RING = 128,       /* frames to the guest */
    RING_HIGH = 64,   /* sockets are left alone from here on */
    RING_LOW = 16,    /* and watched again from here */
    SOCKETS_MAX = 1024,
    FRAGMENT_PERIOD_S = 32, /* libslirp gives up on the rest of a datagram after 30 s */
    FRAGMENT_BYTES = 16 << 20,
    ETHERNET = 14,
    ETHERNET_MIN = 60,
    INPUT_MAX = 65536 + ETHERNET,
    IPV4_MIN = 20,
};

struct frame {
    uint16_t len;
    uint8_t data[FRAME_MAX];
};

struct user {
    struct net_backend b;
    struct net_client *client;
    struct user_poll poll;
    bool paused;
    bool readable; /* frames came since the client was told */

    SlirpCb callbacks;
    guint log_handler;
    unsigned opened; /* frames since the last round that may each have opened a socket */
    int64_t fragment_since_ns;
    size_t fragment_bytes;

    struct frame *ring; /* RING of them */
    unsigned head, count;
    uint8_t *input; /* INPUT_MAX: a frame of the guest in one piece */
};

static struct user *user_of(struct net_backend *b)
{
    return QZ_CONTAINER_OF(b, struct user, b);
}

/* ---- frames for the guest ------------------------------------------------------------------- */

static ssize_t slirp_send_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = QZ_CONTAINER_OF(opaque, struct user, poll);
    struct frame *f = &u->ring[(u->head + u->count) % RING];

    if (!u->poll.running || u->count == RING || len > sizeof(f->data))
        return (ssize_t)len; /* lost, as on a wire; an error would only be logged */
    memcpy(f->data, buf, len);
    f->len = (uint16_t)len;
    u->count++;
    u->readable = true;
    if (u->count >= RING_HIGH)
        user_poll_set_deaf(&u->poll, true);
    user_poll_soon(&u->poll);
    return (ssize_t)len;
}

static void on_round_done(struct user_poll *p)
{
    struct user *u = QZ_CONTAINER_OF(p, struct user, poll);

    u->opened = 0;
    if (!u->readable || !u->count || u->paused)
        return;
    u->readable = false;
    u->client->readable(u->client);
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
    if (u->count <= RING_LOW)
        user_poll_set_deaf(&u->poll, false);
    return (ssize_t)total;
}

static void on_pause(struct net_backend *b, bool paused)
{
    struct user *u = user_of(b);

    u->paused = paused;
    if (paused || !u->count)
        return;
    u->readable = true; /* the client comes by itself now; this is for what it leaves */
    user_poll_soon(&u->poll);
}

/* ---- frames of the guest -------------------------------------------------------------------- */

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

/* frame: ETHERNET_MIN bytes at least. */
static bool acceptable(struct user *u, const uint8_t *frame, size_t len)
{
    uint16_t type = qz_load_be16(frame + 12);
    const uint8_t *ip = frame + ETHERNET;

    if (type == 0x0806) /* ARP */
        return true;
    if (type != 0x0800) /* IPv4 */
        return false;
    len -= ETHERNET;
    if (qz_load_be16(ip + 6) & 0x3fff && !fragment_allowed(u, len)) /* offset or more to come */
        return false;
    if (!may_open(ip, len))
        return true;
    if (u->poll.known + u->opened >= u->poll.limit) {
        qz_guest_warn("user network: the guest has %u connections open; more are refused",
                      u->poll.known);
        return false;
    }
    u->opened++;
    return true;
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
        memcpy(u->input + len, (const uint8_t *)iov[i].iov_base + cut, n);
        len += n;
    }
    if (len < ETHERNET_MIN) { /* padded, as by a wire: libslirp need not look at lengths */
        memset(u->input + len, 0, ETHERNET_MIN - len);
        len = ETHERNET_MIN;
    }
    if (!acceptable(u, u->input, len))
        return -EPERM;
    user_poll_now(&u->poll);
    slirp_input(u->poll.slirp, u->input, (int)len);
    return 1;
}

static void on_flush(struct net_backend *b)
{
    user_poll_soon(&user_of(b)->poll);
}

/* ---- life ----------------------------------------------------------------------------------- */

static int on_attach(struct net_backend *b, struct qz_loop *loop, struct net_client *client,
                     struct qz_error *err)
{
    user_of(b)->poll.loop = loop;
    user_of(b)->client = client;
    return 0;
}

static void on_start(struct net_backend *b, uint64_t features)
{
    struct user *u = user_of(b);

    u->paused = u->readable = false;
    u->head = u->count = u->opened = 0;
    user_poll_start(&u->poll);
}

static void on_stop(struct net_backend *b)
{
    struct user *u = user_of(b);

    u->head = u->count = 0;
    user_poll_stop(&u->poll);
}

static void on_free(struct net_backend *b)
{
    struct user *u = user_of(b);

    u->poll.running = false;
    if (u->poll.slirp)
        slirp_cleanup(u->poll.slirp); /* closes its sockets, and says so */
    if (u->log_handler)
        g_log_remove_handler(LOG_DOMAIN, u->log_handler);
    user_poll_free(&u->poll);
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

/* ---- opening -------------------------------------------------------------------------------- */

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
    if (slirp_add_hostfwd(u->poll.slirp, f->udp, host, f->host_port, guest, f->guest_port) == 0)
        return 0;
    code = errno ? -errno : -EIO;
    inet_ntop(AF_INET, &host, text, sizeof(text));
    return qz_fail(err, code,
                   "user network: cannot listen on %s port %u (%s) for the guest's port %u: %s%s",
                   text, f->host_port, f->udp ? "udp" : "tcp", f->guest_port, strerror(-code),
                   code == -EADDRINUSE ? "; choose another port"
                   : code == -EACCES   ? "; ports below 1024 need privileges, choose a higher one"
                                       : "");
}

static unsigned socket_limit(void)
{
    struct rlimit files;
    unsigned limit = SOCKETS_MAX;

    /* Half of the process's descriptors at most; the rest is for the machine. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / 2 < limit)
        limit = (unsigned)files.rlim_cur / 2;
    return limit;
}

static void slirp_guest_error(const char *message, void *opaque)
{
    qz_guest_warn("user network: %s", message);
}

/* GLib's own handler would make system calls that a confined thread may not, and without bound. */
static void on_log(const gchar *domain, GLogLevelFlags level, const gchar *message,
                   gpointer context)
{
    qz_guest_warn("user network: %s", message);
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
    u->callbacks.send_packet = slirp_send_packet;
    u->callbacks.guest_error = slirp_guest_error;
    user_poll_callbacks(&u->callbacks);
    u->log_handler = g_log_set_handler(LOG_DOMAIN, G_LOG_LEVEL_MASK, on_log, NULL);
    u->poll.slirp = slirp_new(&config, &u->callbacks, &u->poll);
}

int net_user_open(struct net_backend **out, const struct net_user_options *options,
                  struct qz_error *err)
{
    struct user *u = calloc(1, sizeof(*u));
    int r = 0;

    if (!u)
        return qz_fail(err, -ENOMEM, "user network: no memory");
    u->b = (struct net_backend){&user_ops, 0, "user network"};
    u->poll.round_done = on_round_done;
    u->poll.limit = socket_limit();
    u->ring = calloc(RING, sizeof(*u->ring));
    u->input = malloc(INPUT_MAX);
    if (u->ring && u->input)
        start_slirp(u, options);
    if (!u->poll.slirp)
        r = qz_fail(err, -ENOMEM, "user network: libslirp could not be started");
    for (unsigned i = 0; r == 0 && i < options->forwards; i++)
        r = add_forward(u, &options->forward[i], err);
    if (r == 0)
        user_poll_listeners(&u->poll);
    if (r < 0) {
        on_free(&u->b);
        return r;
    }
    *out = &u->b;
    return 0;
}

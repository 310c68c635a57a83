/*
 * net_tap.c - frames to and from a TAP device of the host (net_backend.h).
 *
 * Theory of operation. With IFF_VNET_HDR a TAP device speaks virtio_net_hdr itself, so that a frame
 * goes between guest buffers and the kernel with one readv() or writev() and nothing in between;
 * checksums and segmentation are left to whoever must do them at last (TUNSETOFFLOAD tells the
 * kernel what this guest takes unfinished). The kernel checks the header's offsets.
 *
 * The descriptor is watched for EPOLLIN while the guest has buffers, and for EPOLLOUT while a frame
 * waits.
 *
 * Read beside: Linux Documentation/networking/tuntap.rst; VirtIO 1.3 §5.1.6.
 */
#include "devices/virtio/net_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include "devices/virtio/net_features.h"

QZ_SYSCALLS(io, "read readv writev ioctl"); /* ioctl: TUNSETOFFLOAD, at start() */

/* In kernels since 6.2; the headers here may be older. */
#define OFFLOAD_USO4 0x20
#define OFFLOAD_USO6 0x40

enum { STALE_MAX = 4096 }; /* frames dropped at start(), more than a TAP's queue ever holds */

struct tap {
    struct net_backend b;
    struct net_client *client;
    struct qz_loop *loop;
    struct qz_watch watch;
    int fd;
    bool paused, blocked, gone;
    char label[IFNAMSIZ + 8];
};

static struct tap *tap_of(struct net_backend *b)
{
    return QZ_CONTAINER_OF(b, struct tap, b);
}

static void watch_update(struct tap *t)
{
    uint32_t events = (t->paused ? 0 : EPOLLIN) | (t->blocked ? EPOLLOUT : 0);

    if (t->watch.loop && qz_loop_modify(&t->watch, events) < 0)
        qz_warn("%s: cannot change what is waited for: %s", t->label, strerror(errno));
}

static void on_ready(struct qz_watch *w, uint32_t events)
{
    struct tap *t = QZ_CONTAINER_OF(w, struct tap, watch);

    if (events & (EPOLLERR | EPOLLHUP)) { /* stays true for ever: do not spin */
        qz_warn("%s: the device is gone; the guest has no network from here on", t->label);
        t->gone = true;
        qz_loop_remove(w);
        return;
    }
    if (events & EPOLLOUT && t->blocked) {
        t->blocked = false;
        watch_update(t);
        t->client->writable(t->client);
    }
    /* The first callback may have stopped us. */
    if (events & EPOLLIN && t->watch.loop && !t->paused)
        t->client->readable(t->client);
}

static int on_attach(struct net_backend *b, struct qz_loop *loop, struct net_client *client,
                     struct qz_error *err)
{
    tap_of(b)->loop = loop;
    tap_of(b)->client = client;
    return 0;
}

static void on_start(struct net_backend *b, uint64_t features)
{
    struct tap *t = tap_of(b);
    unsigned offloads = 0;
    uint8_t cut[NET_HEADER];
    int r;

    if (features & QZ_BIT(VIRTIO_NET_F_GUEST_CSUM)) {
        offloads |= TUN_F_CSUM;
        offloads |= features & QZ_BIT(VIRTIO_NET_F_GUEST_TSO4) ? TUN_F_TSO4 : 0;
        offloads |= features & QZ_BIT(VIRTIO_NET_F_GUEST_TSO6) ? TUN_F_TSO6 : 0;
        if (offloads & (TUN_F_TSO4 | TUN_F_TSO6))
            offloads |= features & QZ_BIT(VIRTIO_NET_F_GUEST_ECN) ? TUN_F_TSO_ECN : 0;
        offloads |= features & QZ_BIT(VIRTIO_NET_F_GUEST_UFO) ? TUN_F_UFO : 0;
        /* The kernel takes both or neither (net/tun: set_offload). */
        if (features & QZ_BIT(NET_F_GUEST_USO4) && features & QZ_BIT(NET_F_GUEST_USO6))
            offloads |= OFFLOAD_USO4 | OFFLOAD_USO6;
    }
    if (ioctl(t->fd, TUNSETOFFLOAD, offloads) < 0)
        qz_warn("%s: the kernel refused offloads 0x%x: %s", t->label, offloads, strerror(errno));
    /* What waits was made for the offloads of a driver before this one. A short read drops the
     * rest. */
    for (unsigned i = 0; i < STALE_MAX && read(t->fd, cut, sizeof(cut)) > 0; i++)
        continue;
    t->paused = t->blocked = false;
    r = t->gone || t->watch.loop ? 0 : qz_loop_add(t->loop, &t->watch, t->fd, EPOLLIN, on_ready);
    if (r < 0)
        qz_warn("%s: cannot wait for frames: %s", t->label, strerror(-r));
}

static void on_stop(struct net_backend *b)
{
    qz_loop_remove(&tap_of(b)->watch);
}

static int on_send(struct net_backend *b, const struct iovec *iov, unsigned count, size_t bytes)
{
    struct tap *t = tap_of(b);

    if (writev(t->fd, iov, (int)count) >= 0)
        return 1;
    if (errno != EAGAIN)
        return -errno; /* EIO: the link is down; EINVAL: a header or frame that the kernel refused
                        */
    if (t->gone)
        return -ENODEV;
    t->blocked = true;
    watch_update(t);
    return 0;
}

static ssize_t on_receive(struct net_backend *b, const struct iovec *iov, unsigned count)
{
    ssize_t n = readv(tap_of(b)->fd, iov, (int)count);

    return n >= 0                                                                 ? n
           : errno == EAGAIN || errno == EINTR || errno == EIO || errno == EBADFD ? 0
                                                                                  : -errno;
}

static void on_pause(struct net_backend *b, bool paused)
{
    tap_of(b)->paused = paused;
    watch_update(tap_of(b));
}

static void on_free(struct net_backend *b)
{
    struct tap *t = tap_of(b);

    qz_loop_remove(&t->watch);
    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

static const struct net_backend_ops tap_ops = {
    .attach = on_attach,
    .start = on_start,
    .stop = on_stop,
    .send = on_send,
    .receive = on_receive,
    .pause = on_pause,
    .free = on_free,
};

/* ---- opening -------------------------------------------------------------------------------- */

static int open_tun(struct qz_error *err)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK), code = -errno;

    if (fd >= 0)
        return fd;
    if (code == -EACCES || code == -EPERM)
        return qz_fail(
            err, code,
            "/dev/net/tun: %s; let this user read and write it (sudo chmod 666 /dev/net/tun)",
            strerror(-code));
    if (code == -ENOENT || code == -ENODEV || code == -ENXIO)
        return qz_fail(err, code, "/dev/net/tun: %s; load the driver with: sudo modprobe tun",
                       strerror(-code));
    return qz_fail(err, code, "/dev/net/tun: %s", strerror(-code));
}

static int refused(const char *name, int code, struct qz_error *err)
{
    switch (code) {
    case -EPERM:
    case -EACCES:
        return qz_fail(
            err, code,
            "tap %s: it belongs to another user; give it to yours: sudo ip tuntap del %s "
            "mode tap && sudo ip tuntap add %s mode tap user $USER",
            name, name, name);
    case -EBUSY:
        return qz_fail(err, code, "tap %s: another program uses it", name);
    case -EINVAL:
        return qz_fail(err, code, "tap %s: this network device is not a TAP device", name);
    default:
        return qz_fail(err, code, "tap %s: %s", name, strerror(-code));
    }
}

static int bind_name(int fd, const char *name, struct qz_error *err)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    unsigned features = 0;
    int header = NET_HEADER, r;

    if (ioctl(fd, TUNGETFEATURES, &features) < 0 || !(features & IFF_VNET_HDR))
        return qz_fail(err, -ENOTSUP, "tap %s: this kernel's TAP devices have no virtio header",
                       name);
    strcpy(ifr.ifr_name, name); /* its length was checked */
    r = ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
    if (r == -EINVAL) { /* made with multi_queue: it wants to be opened like that */
        ifr.ifr_flags |= IFF_MULTI_QUEUE;
        r = ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
    }
    if (r < 0)
        return refused(name, r, err);
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        return qz_fail(err, -errno, "tap %s: a header of %d bytes was refused: %s", name, header,
                       strerror(errno));
    return 0;
}

/* What this kernel's TAP takes; tried out, for there is no way to ask. */
static uint64_t probe_features(int fd)
{
    const unsigned base = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    uint64_t features = 0;

    if (ioctl(fd, TUNSETOFFLOAD, base) == 0) {
        features |= QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_HOST_TSO4) |
                    QZ_BIT(VIRTIO_NET_F_HOST_TSO6) | QZ_BIT(VIRTIO_NET_F_HOST_ECN) |
                    QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_TSO4) |
                    QZ_BIT(VIRTIO_NET_F_GUEST_TSO6) | QZ_BIT(VIRTIO_NET_F_GUEST_ECN);
        if (ioctl(fd, TUNSETOFFLOAD, base | TUN_F_UFO) == 0)
            features |= QZ_BIT(VIRTIO_NET_F_HOST_UFO) | QZ_BIT(VIRTIO_NET_F_GUEST_UFO);
        if (ioctl(fd, TUNSETOFFLOAD, base | OFFLOAD_USO4 | OFFLOAD_USO6) == 0)
            features |=
                QZ_BIT(NET_F_HOST_USO) | QZ_BIT(NET_F_GUEST_USO4) | QZ_BIT(NET_F_GUEST_USO6);
    }
    if (ioctl(fd, TUNSETOFFLOAD, 0) < 0)
        return 0;
    return features;
}

int net_tap_open(struct net_backend **out, const char *name, struct qz_error *err)
{
    QZ_AUTO_FREE struct tap *t = calloc(1, sizeof(*t));
    QZ_AUTO_FD int fd = -1;
    int r;

    if (!t)
        return qz_fail(err, -ENOMEM, "tap %s: no memory", name);
    if (!*name || strlen(name) >= IFNAMSIZ)
        return qz_fail(err, -EINVAL, "tap \"%s\": a name of 1 to %d characters is needed", name,
                       IFNAMSIZ - 1);
    fd = open_tun(err);
    if (fd < 0)
        return fd;
    /* TUNSETIFF would make a device for a privileged caller, one that nobody has set up. */
    if (!if_nametoindex(name))
        return qz_fail(
            err, -ENODEV,
            "tap %s: no such network device; make it with: sudo ip tuntap add %s mode tap "
            "user $USER && sudo ip link set %s up",
            name, name, name);
    r = bind_name(fd, name, err);
    if (r < 0)
        return r;
    snprintf(t->label, sizeof(t->label), "tap %s", name);
    t->b = (struct net_backend){&tap_ops, probe_features(fd), t->label};
    t->fd = QZ_TAKE_FD(fd);
    *out = &QZ_TAKE_PTR(t)->b;
    return 0;
}

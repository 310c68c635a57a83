/*
 * virtio_net.c - the network device (VirtIO 1.3 §5.1) on a backend that moves frames
 * (net_backend.h).
 *
 * Theory of operation. Nothing is ever in flight: a frame is handed to the backend, or taken from
 * it, between pop and push, under the device's lock on the loop's thread. So reset is immediate; the
 * backend is told on the loop's thread, as soon as that comes by (sync_backend()).
 *
 * Receiving. Buffers are staged first, as many as the last frame took, and the backend writes right
 * into them; behind them lies a host buffer, `hold`, that catches the rest of a frame that is larger
 * than expected. Then more buffers are popped for the rest, what is not needed is put back, and the
 * header is completed. When the guest's buffers do not suffice the whole frame waits in `hold`; the
 * backend is paused until the driver rings.
 *
 * Sending. The header is copied once and checked against what was negotiated; the frame itself goes
 * from guest memory to the backend. A frame that the backend cannot take goes back into the ring,
 * and the ring is left alone until the backend is writable.
 *
 * Both directions serve a bounded batch and then let the loop serve others.
 *
 * There is one pair of queues. Statistics and backend are the only things that pairs would share.
 */
#include <linux/virtio_net.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/net_backend.h"
#include "devices/virtio/net_features.h"

enum {
    RXQ = 0,
    TXQ = 1,
    CTRLQ = 2,
    QUEUES = 3,
    QUEUE_SIZE = 256,
    CHAIN_MAX = 128,    /* buffers in one request: Linux uses up to 19 */
    STAGE_CHAINS = 256, /* buffers merged into one frame */
    STAGE_IOV = 768,    /* with hold, below the 1024 of readv() */
    RX_BATCH = 64,
    TX_BATCH = 256,
    CTRL_BATCH = 64,
    STAGE_BYTES_MIN = 2048,
    MTU_MIN = 68,
    ETHERNET_HEADER = 14,
    SPEED_MBIT = 10000,
    HDR_FLAGS = 0, /* offsets in struct virtio_net_hdr_v1 */
    HDR_BUFFERS = 10,
    CONFIG_SIZE = offsetof(struct virtio_net_config, duplex) + 1,
};
_Static_assert(sizeof(struct virtio_net_hdr_v1) == NET_HEADER, "VirtIO 1.3 §5.1.6");

/* Every offload bit: the backend's choice. */
#define OFFLOADS                                                                                   \
    (QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) |                                 \
     QZ_BIT(VIRTIO_NET_F_GUEST_TSO4) | QZ_BIT(VIRTIO_NET_F_GUEST_TSO6) |                           \
     QZ_BIT(VIRTIO_NET_F_GUEST_ECN) | QZ_BIT(VIRTIO_NET_F_GUEST_UFO) |                             \
     QZ_BIT(VIRTIO_NET_F_HOST_TSO4) | QZ_BIT(VIRTIO_NET_F_HOST_TSO6) |                             \
     QZ_BIT(VIRTIO_NET_F_HOST_ECN) | QZ_BIT(VIRTIO_NET_F_HOST_UFO) | QZ_BIT(NET_F_GUEST_USO4) |    \
     QZ_BIT(NET_F_GUEST_USO6) | QZ_BIT(NET_F_HOST_USO))

struct net {
    struct virtio_device d;
    struct net_client client;
    struct net_backend *backend;
    struct qz_work again, sync;
    bool started;  /* the backend was told of this driver */
    bool restart;  /* a reset happened that the backend was not told of */
    bool rx_again, tx_again;
    bool rx_starved, tx_blocked;

    /* Receive buffers popped for the frame at hand; empty between frames. */
    unsigned staged, staged_iov;
    size_t staged_bytes, expect;
    struct virtqueue_chain chain[STAGE_CHAINS];
    struct iovec iov[STAGE_IOV + 1];
    uint8_t *hold; /* NET_BYTES_MAX */
    size_t hold_len;

    struct iovec tx_iov[CHAIN_MAX + 1];
    uint8_t mac[6]; /* as given; the driver may set another one until a reset */
    struct virtio_net_config config;
    struct virtio_net_stats stats;
};

static struct net *net_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct net, d);
}

static void iov_put(const struct iovec *iov, unsigned count, size_t offset, const uint8_t *data,
                    size_t len)
{
    for (unsigned i = 0; i < count && len; i++) {
        size_t n;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        n = QZ_MIN(iov[i].iov_len - offset, len);
        memcpy((uint8_t *)iov[i].iov_base + offset, data, n);
        data += n;
        len -= n;
        offset = 0;
    }
}

static void iov_get(const struct iovec *iov, unsigned count, uint8_t *data, size_t len)
{
    for (unsigned i = 0; i < count && len; i++) {
        size_t n = QZ_MIN(iov[i].iov_len, len);

        memcpy(data, iov[i].iov_base, n);
        data += n;
        len -= n;
    }
}

/* ---- backend and driver, kept in step ----------------------------------------------------------
 */

/* Loop's thread, lock held. False: no driver to serve. */
static bool sync_backend(struct net *n)
{
    if (n->started && (n->restart || !n->d.active)) {
        n->backend->ops->stop(n->backend);
        n->started = false;
    }
    n->restart = false;
    if (n->d.active && !n->started) {
        n->hold_len = 0;
        n->expect = STAGE_BYTES_MIN;
        n->rx_starved = n->tx_blocked = n->rx_again = n->tx_again = false;
        n->started = true;
        n->backend->ops->start(n->backend, n->d.negotiated);
    }
    return n->started;
}

static void on_sync(struct qz_work *w)
{
    struct net *n = QZ_CONTAINER_OF(w, struct net, sync);
    QZ_LOCKED(&n->d.lock);

    sync_backend(n);
}

static void run_again(struct qz_work *w);

static void post_again(struct net *n, bool *what)
{
    *what = true;
    qz_loop_post(n->d.loop, &n->again, run_again);
}

/* ---- receive ------------------------------------------------------------------------------------
 */

enum rx_result {
    RX_MORE,    /* go on */
    RX_NONE,    /* the backend has no frame */
    RX_STARVED, /* the guest has no buffers */
};

static void unstage(struct net *n, unsigned keep)
{
    while (n->staged > keep)
        virtqueue_unpop(&n->d.queue[RXQ], &n->chain[--n->staged]);
    n->staged = n->staged_iov = 0;
    n->staged_bytes = 0;
}

/* Pops one more receive buffer. 1: done, 0: the driver has none, -ENOSPC: no more for one frame. */
static int stage(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[RXQ];
    struct virtqueue_chain *c;

    if (n->staged && !virtio_has(&n->d, VIRTIO_NET_F_MRG_RXBUF))
        return -ENOSPC;
    if (n->staged == STAGE_CHAINS || STAGE_IOV - n->staged_iov < CHAIN_MAX)
        return -ENOSPC;
    c = &n->chain[n->staged];
    c->iov = n->iov + n->staged_iov;
    c->capacity = CHAIN_MAX;
    if (virtqueue_pop(vq, c) != 1)
        /* All of the ring's buffers do not hold this frame: waiting for more would be for ever. */
        return n->staged && n->staged == vq->size ? -ENOSPC : 0;
    if (c->out_count || (!n->staged && c->in_bytes < NET_HEADER)) {
        virtqueue_fail(vq, "a receive buffer %s",
                       c->out_count ? "that the device may not write"
                                    : "too small for the header of a frame");
        virtqueue_unpop(vq, c);
        return 0;
    }
    n->staged++;
    n->staged_iov += c->in_count;
    n->staged_bytes += c->in_bytes;
    return 1;
}

/* Completes the frame of `len` bytes that lies in the staged buffers and returns them. */
static void commit(struct net *n, size_t len)
{
    struct virtqueue *vq = &n->d.queue[RXQ];
    size_t left = len, covered = 0;
    uint8_t buffers[2];
    unsigned used = 0;

    while (covered < len)
        covered += n->chain[used++].in_bytes;
    qz_store_le16(buffers, (uint16_t)used);
    virtqueue_write(&n->chain[0], HDR_BUFFERS, buffers, sizeof(buffers));
    if (!virtio_has(&n->d, VIRTIO_NET_F_GUEST_CSUM)) /* §5.1.6.4.1: then no flag may be set */
        virtqueue_write(&n->chain[0], HDR_FLAGS, &(uint8_t){0}, 1);
    unstage(n, used);
    for (unsigned i = 0; i < used; i++) {
        uint32_t written = (uint32_t)QZ_MIN((uint64_t)left, n->chain[i].in_bytes);

        virtqueue_push(vq, &n->chain[i], written);
        left -= written;
    }
    n->stats.rx_frames++;
    n->stats.rx_bytes += len - NET_HEADER;
}

/* Stages until `bytes` fit: as stage(). */
static int stage_until(struct net *n, size_t bytes)
{
    int r = 1;

    while (n->staged_bytes < bytes && (r = stage(n)) == 1)
        continue;
    return n->staged_bytes >= bytes ? 1 : r;
}

static enum rx_result drop(struct net *n)
{
    unstage(n, 0);
    n->hold_len = 0;
    n->stats.rx_dropped++;
    return RX_MORE;
}

/* The frame that waits in hold. */
static enum rx_result receive_held(struct net *n)
{
    size_t len = n->hold_len;
    int r = stage_until(n, len);

    if (r == 0) {
        unstage(n, 0);
        return RX_STARVED;
    }
    if (r < 0)
        return drop(n);
    iov_put(n->iov, n->staged_iov, 0, n->hold, len);
    n->hold_len = 0;
    commit(n, len);
    return RX_MORE;
}

/* A frame from the backend. */
static enum rx_result receive_frame(struct net *n)
{
    size_t direct, len;
    ssize_t got;
    unsigned count;
    int r;

    stage_until(n, n->expect);
    if (!n->staged)
        return RX_STARVED;
    direct = QZ_MIN(n->staged_bytes, (size_t)NET_BYTES_MAX);
    count = n->staged_iov;
    if (direct < NET_BYTES_MAX)
        n->iov[count++] =
            (struct iovec){.iov_base = n->hold + direct, .iov_len = NET_BYTES_MAX - direct};
    got = n->backend->ops->receive(n->backend, n->iov, count);
    if (got == 0) {
        unstage(n, 0);
        return RX_NONE;
    }
    if (got < NET_HEADER || got > NET_BYTES_MAX)
        return drop(n);
    len = (size_t)got;
    n->expect = QZ_MAX(len, (size_t)STAGE_BYTES_MIN);
    if (len > direct) {
        /* hold's part of the list is overwritten by what is staged next; the bytes stay. */
        r = stage_until(n, len);
        if (r < 0)
            return drop(n);
        if (r == 0) {
            iov_get(n->iov, n->staged_iov, n->hold, direct);
            n->hold_len = len;
            unstage(n, 0);
            return RX_STARVED;
        }
        iov_put(n->iov, n->staged_iov, direct, n->hold + direct, len - direct);
    }
    commit(n, len);
    return RX_MORE;
}

/* Loop's thread, lock held, started. */
static void receive(struct net *n)
{
    enum rx_result r = RX_MORE;

    for (int i = 0; i < RX_BATCH && r == RX_MORE; i++)
        r = n->hold_len ? receive_held(n) : receive_frame(n);
    virtqueue_interrupt(&n->d.queue[RXQ]);
    if (r == RX_MORE)
        post_again(n, &n->rx_again);
    if (r == RX_STARVED && !n->rx_starved) {
        n->rx_starved = true;
        n->stats.rx_stalls++;
        n->backend->ops->pause(n->backend, true);
    }
}

static void on_readable(struct net_client *c)
{
    struct net *n = QZ_CONTAINER_OF(c, struct net, client);
    QZ_LOCKED(&n->d.lock);

    if (sync_backend(n) && !n->rx_starved)
        receive(n);
}

/* The driver has new receive buffers. */
static void buffers_arrived(struct net *n)
{
    if (!n->rx_starved)
        return;
    n->rx_starved = false;
    n->backend->ops->pause(n->backend, false);
    receive(n);
}

/* ---- send ---------------------------------------------------------------------------------------
 */

/* Whether the driver may ask for this (§5.1.6.2); NULL, or what is wrong. */
static const char *header_error(const struct virtio_device *d, const uint8_t header[NET_HEADER])
{
    bool checksum = header[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    uint8_t type = header[1] & ~VIRTIO_NET_HDR_GSO_ECN;
    unsigned feature;

    if (checksum && !virtio_has(d, VIRTIO_NET_F_CSUM))
        return "a frame without its checksum, but that was not negotiated";
    switch (type) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return NULL;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        feature = VIRTIO_NET_F_HOST_TSO4;
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        feature = VIRTIO_NET_F_HOST_TSO6;
        break;
    case VIRTIO_NET_HDR_GSO_UDP:
        feature = VIRTIO_NET_F_HOST_UFO;
        break;
    case NET_HDR_GSO_UDP_L4:
        feature = NET_F_HOST_USO;
        break;
    default:
        return "a frame of unknown segmentation type";
    }
    if (!virtio_has(d, feature) ||
        (header[1] & VIRTIO_NET_HDR_GSO_ECN && !virtio_has(d, VIRTIO_NET_F_HOST_ECN)))
        return "a frame to segment in a way that was not negotiated";
    return checksum ? NULL : "a frame to segment that has its checksum already";
}

/* 1: done with, 0: the backend is full, -EPROTO: the queue was failed. */
static int send_chain(struct net *n, const struct virtqueue_chain *c)
{
    struct virtqueue *vq = &n->d.queue[TXQ];
    struct virtio_net_hdr_v1 header; /* our copy: what was checked is what is used */
    unsigned count = 1, skip = NET_HEADER;
    const char *wrong;
    int r;

    if (c->in_count || c->out_bytes < NET_HEADER || c->out_bytes > NET_BYTES_MAX) {
        virtqueue_fail(vq, "a frame to send of %llu bytes, %llu of them to be written",
                       (unsigned long long)(c->out_bytes + c->in_bytes),
                       (unsigned long long)c->in_bytes);
        return -EPROTO;
    }
    virtqueue_read(c, 0, &header, sizeof(header));
    wrong = header_error(&n->d, (const uint8_t *)&header);
    if (wrong) {
        virtqueue_fail(vq, "%s", wrong);
        return -EPROTO;
    }
    header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM; /* the others are for the other direction */
    header.num_buffers = 0;
    if (c->out_bytes < NET_HEADER + ETHERNET_HEADER) {
        n->stats.tx_dropped++;
        return 1;
    }
    n->tx_iov[0] = (struct iovec){.iov_base = &header, .iov_len = sizeof(header)};
    for (unsigned i = 0; i < c->out_count; i++) {
        struct iovec part = c->iov[i];
        size_t cut = QZ_MIN((size_t)skip, part.iov_len);

        skip -= cut;
        part.iov_base = (uint8_t *)part.iov_base + cut;
        part.iov_len -= cut;
        if (part.iov_len)
            n->tx_iov[count++] = part;
    }
    r = n->backend->ops->send(n->backend, n->tx_iov, count, c->out_bytes);
    if (r == 0)
        return 0;
    if (r < 0) {
        n->stats.tx_dropped++;
    } else {
        n->stats.tx_frames++;
        n->stats.tx_bytes += c->out_bytes - NET_HEADER;
    }
    return 1;
}

/* Loop's thread, lock held, started. */
static void transmit(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[TXQ];
    struct iovec iov[CHAIN_MAX];
    struct virtqueue_chain c = {.iov = iov, .capacity = CHAIN_MAX};
    unsigned sent = 0;

    if (n->tx_blocked)
        return;
    do {
        virtqueue_notify_disable(vq);
        while (sent < TX_BATCH && virtqueue_pop(vq, &c) == 1) {
            int r = send_chain(n, &c);

            if (r <= 0) {
                virtqueue_unpop(vq, &c);
                n->tx_blocked = r == 0;
                break;
            }
            virtqueue_push(vq, &c, 0);
            sent++;
        }
    } while (!n->tx_blocked && sent < TX_BATCH && virtqueue_notify_enable(vq));
    if (sent && n->backend->ops->flush)
        n->backend->ops->flush(n->backend);
    virtqueue_interrupt(vq);
    if (n->tx_blocked)
        n->stats.tx_stalls++;
    else if (sent >= TX_BATCH)
        post_again(n, &n->tx_again);
}

static void on_writable(struct net_client *c)
{
    struct net *n = QZ_CONTAINER_OF(c, struct net, client);
    QZ_LOCKED(&n->d.lock);

    if (!sync_backend(n))
        return;
    n->tx_blocked = false;
    transmit(n);
}

static void run_again(struct qz_work *w)
{
    struct net *n = QZ_CONTAINER_OF(w, struct net, again);
    QZ_LOCKED(&n->d.lock);

    if (!sync_backend(n))
        return;
    if (n->tx_again) {
        n->tx_again = false;
        transmit(n);
    }
    if (n->rx_again) {
        n->rx_again = false;
        if (!n->rx_starved)
            receive(n);
    }
}

/* ---- control ------------------------------------------------------------------------------------
 */

/* Two counted lists of addresses that fill the command exactly (§5.1.6.5.2). */
static bool mac_table_valid(const struct virtqueue_chain *c)
{
    uint64_t at = sizeof(struct virtio_net_ctrl_hdr);

    for (int list = 0; list < 2; list++) {
        uint8_t entries[4];

        if (virtqueue_read(c, at, entries, sizeof(entries)) != sizeof(entries))
            return false;
        at += sizeof(entries) + 6ull * qz_load_le32(entries);
    }
    return at == c->out_bytes;
}

/* §5.1.6.5: carries out one command; false: refused. */
static bool command(struct net *n, const struct virtqueue_chain *c, uint8_t class, uint8_t cmd)
{
    uint64_t data = c->out_bytes - sizeof(struct virtio_net_ctrl_hdr);
    uint8_t mac[6];

    switch (class) {
    case VIRTIO_NET_CTRL_RX:
        /* Modes are wishes to filter less; we filter nothing, as §5.1.6.5.1 lets us. */
        if (!virtio_has(&n->d, VIRTIO_NET_F_CTRL_RX) || data != 1)
            return false;
        return cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI ||
               (cmd <= VIRTIO_NET_CTRL_RX_NOBCAST &&
                virtio_has(&n->d, VIRTIO_NET_F_CTRL_RX_EXTRA));
    case VIRTIO_NET_CTRL_MAC:
        if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET)
            return virtio_has(&n->d, VIRTIO_NET_F_CTRL_RX) && mac_table_valid(c);
        if (cmd != VIRTIO_NET_CTRL_MAC_ADDR_SET ||
            !virtio_has(&n->d, VIRTIO_NET_F_CTRL_MAC_ADDR) || data != sizeof(mac))
            return false;
        virtqueue_read(c, sizeof(struct virtio_net_ctrl_hdr), mac, sizeof(mac));
        if (mac[0] & 1) /* a group is nobody's address */
            return false;
        memcpy(n->config.mac, mac, sizeof(mac));
        return true;
    default:
        return false;
    }
}

static void control(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[CTRLQ];
    struct iovec iov[CHAIN_MAX];
    struct virtqueue_chain c = {.iov = iov, .capacity = CHAIN_MAX};

    /* A queue's worth at most; a driver that keeps it filled rings again for each. */
    for (int i = 0; i < CTRL_BATCH && virtqueue_pop(vq, &c) == 1; i++) {
        struct virtio_net_ctrl_hdr header;
        uint8_t ack;

        if (virtqueue_read(&c, 0, &header, sizeof(header)) != sizeof(header) || !c.in_bytes) {
            virtqueue_fail(vq, "a command without %s",
                           c.in_bytes ? "its class and number" : "room for the answer");
            virtqueue_unpop(vq, &c);
            break;
        }
        ack = command(n, &c, header.class, header.cmd) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        virtqueue_write(&c, 0, &ack, sizeof(ack));
        virtqueue_push(vq, &c, sizeof(ack));
    }
    virtqueue_interrupt(vq);
}

/* ---- device -------------------------------------------------------------------------------------
 */

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct net *n = net_of(d);

    if (!sync_backend(n))
        return;
    if (q == RXQ)
        buffers_arrived(n);
    else if (q == TXQ)
        transmit(n);
    else
        control(n);
}

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&net_of(d)->config + offset, len);
}

static void on_reset(struct virtio_device *d)
{
    struct net *n = net_of(d);

    n->restart = true;
    n->hold_len = 0;
    memcpy(n->config.mac, n->mac, sizeof(n->mac));
    qz_loop_post(d->loop, &n->sync, on_sync); /* the backend belongs to the loop's thread */
    virtio_reset_done(d);
}

static void on_queue_reset(struct virtio_device *d, unsigned q)
{
    virtio_queue_reset_done(d, q); /* nothing is in flight; an empty queue until it is enabled again */
}

static void on_free(struct virtio_device *d)
{
    struct net *n = net_of(d);

    n->backend->ops->free(n->backend);
    free(n->hold);
    free(n);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-net",
    .device_id = VIRTIO_ID_NET,
    .config_read = on_config_read,
    .notify = on_notify,
    .reset = on_reset,
    .queue_reset = on_queue_reset,
    .free = on_free,
};

static uint64_t offered(const struct net_backend *b, uint16_t mtu)
{
    return QZ_BIT(VIRTIO_NET_F_MAC) | QZ_BIT(VIRTIO_NET_F_STATUS) |
           QZ_BIT(VIRTIO_NET_F_MRG_RXBUF) | QZ_BIT(VIRTIO_NET_F_CTRL_VQ) |
           QZ_BIT(VIRTIO_NET_F_CTRL_RX) | QZ_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
           QZ_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | QZ_BIT(NET_F_SPEED_DUPLEX) |
           (mtu ? QZ_BIT(VIRTIO_NET_F_MTU) : 0) | (b->features & OFFLOADS);
}

int virtio_net_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                   const struct virtio_net_options *config, struct qz_error *err)
{
    struct net_backend *b = config->backend;
    struct net *n = calloc(1, sizeof(*n));
    int r = 0;

    if (n)
        n->hold = malloc(NET_BYTES_MAX);
    if (!n || !n->hold)
        r = qz_fail(err, -ENOMEM, "network %s: no memory", b->label);
    else if (config->mac[0] & 1)
        r = qz_fail(err, -EINVAL, "network %s: its MAC address is a multicast address", b->label);
    else if (config->mtu && config->mtu < MTU_MIN)
        r = qz_fail(err, -EINVAL, "network %s: an MTU of %u, %d is the least", b->label,
                    config->mtu, MTU_MIN);
    if (r < 0) {
        b->ops->free(b);
        free(n ? n->hold : NULL);
        free(n);
        return r;
    }
    n->backend = b;
    n->client = (struct net_client){on_readable, on_writable};
    memcpy(n->mac, config->mac, sizeof(n->mac));
    memcpy(n->config.mac, config->mac, sizeof(n->mac));
    n->config.status = VIRTIO_NET_S_LINK_UP;
    n->config.max_virtqueue_pairs = 1;
    n->config.mtu = config->mtu;
    n->config.speed = SPEED_MBIT;
    n->config.duplex = 1; /* full */
    n->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .offered = offered(b, config->mtu),
        .config_size = CONFIG_SIZE,
        .queue_count = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .label = b->label,
    };
    r = b->ops->attach(b, loop, &n->client, err);
    if (r < 0) {
        on_free(&n->d);
        return r;
    }
    *out = &n->d;
    return 0;
}

void virtio_net_get_stats(struct virtio_device *d, struct virtio_net_stats *stats)
{
    QZ_LOCKED(&d->lock);

    *stats = net_of(d)->stats;
}

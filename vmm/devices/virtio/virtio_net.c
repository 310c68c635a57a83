/*
 * virtio_net.c - the network device (VirtIO 1.3 §5.1) on a backend that moves frames
 * (net_backend.h).
 *
 * Theory of operation. Nothing is ever in flight: a frame is handed to the backend, or taken from
 * it, between pop and push, under the device's lock on the loop's thread. So reset is immediate;
 * the backend is told on the loop's thread, as soon as that comes by (sync_backend()).
 *
 * Frames move in virtio_net_rx.c and virtio_net_tx.c. Each queue serves a bounded batch and then
 * lets the loop serve others.
 *
 * There is one pair of queues. Statistics and backend are the only things that pairs would share.
 */
#include "devices/virtio/virtio_net.h"

enum {
    QUEUE_SIZE = 256,
    CTRL_BATCH = 64,
    MTU_MIN = 68, /* §5.1.4.1 */
    SPEED_MBIT = 10000,
    FULL_DUPLEX = 1,
    CONFIG_SIZE = offsetof(struct virtio_net_config, duplex) + 1,
};

/* Every offload bit: the backend's choice. */
#define OFFLOADS                                                                                   \
    (QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) |                                 \
     QZ_BIT(VIRTIO_NET_F_GUEST_TSO4) | QZ_BIT(VIRTIO_NET_F_GUEST_TSO6) |                           \
     QZ_BIT(VIRTIO_NET_F_GUEST_ECN) | QZ_BIT(VIRTIO_NET_F_GUEST_UFO) |                             \
     QZ_BIT(VIRTIO_NET_F_HOST_TSO4) | QZ_BIT(VIRTIO_NET_F_HOST_TSO6) |                             \
     QZ_BIT(VIRTIO_NET_F_HOST_ECN) | QZ_BIT(VIRTIO_NET_F_HOST_UFO) | QZ_BIT(NET_F_GUEST_USO4) |    \
     QZ_BIT(NET_F_GUEST_USO6) | QZ_BIT(NET_F_HOST_USO))

static struct net *net_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct net, d);
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
        net_rx_start(n);
        n->tx.blocked = false;
        n->again_queues = 0;
        n->started = true;
        n->backend->ops->start(n->backend, n->d.negotiated);
    }
    return n->started;
}

/* The driver of a state that was loaded learns what is new here, now that interrupts reach it. */
static void tell_news(struct net *n)
{
    if (n->news && n->d.active)
        virtio_config_changed(&n->d);
    n->news = false;
}

static void on_sync(struct qz_work *w)
{
    struct net *n = QZ_CONTAINER_OF(w, struct net, sync);
    QZ_LOCKED(&n->d.lock);

    sync_backend(n);
    tell_news(n);
}

static void control(struct net *n);

static void run_again(struct qz_work *w)
{
    struct net *n = QZ_CONTAINER_OF(w, struct net, again);
    unsigned queues;
    QZ_LOCKED(&n->d.lock);

    if (!sync_backend(n))
        return;
    queues = n->again_queues;
    n->again_queues = 0;
    if (queues & 1u << RXQ)
        net_receive(n);
    if (queues & 1u << TXQ)
        net_transmit(n);
    if (queues & 1u << CTRLQ)
        control(n);
}

void net_again(struct net *n, unsigned q)
{
    n->again_queues |= 1u << q;
    qz_loop_post(n->d.loop, &n->again, run_again);
}

static void on_readable(struct net_client *c)
{
    struct net *n = QZ_CONTAINER_OF(c, struct net, client);
    QZ_LOCKED(&n->d.lock);

    if (sync_backend(n))
        net_receive(n);
}

static void on_writable(struct net_client *c)
{
    struct net *n = QZ_CONTAINER_OF(c, struct net, client);
    QZ_LOCKED(&n->d.lock);

    if (!sync_backend(n))
        return;
    n->tx.blocked = false;
    net_transmit(n);
}

/* ---- control ------------------------------------------------------------------------------------
 */

/* An address that one station can have: no group's, and not nobody's. */
static bool mac_valid(const uint8_t mac[6])
{
    static const uint8_t nobody[6];

    return !(mac[0] & 1) && memcmp(mac, nobody, sizeof(nobody));
}

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
               (cmd <= VIRTIO_NET_CTRL_RX_NOBCAST && virtio_has(&n->d, VIRTIO_NET_F_CTRL_RX_EXTRA));
    case VIRTIO_NET_CTRL_MAC:
        if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET)
            return virtio_has(&n->d, VIRTIO_NET_F_CTRL_RX) && mac_table_valid(c);
        if (cmd != VIRTIO_NET_CTRL_MAC_ADDR_SET || !virtio_has(&n->d, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
            data != sizeof(mac))
            return false;
        virtqueue_read(c, sizeof(struct virtio_net_ctrl_hdr), mac, sizeof(mac));
        if (!mac_valid(mac))
            return false;
        memcpy(n->config.mac, mac, sizeof(mac));
        return true;
    case VIRTIO_NET_CTRL_ANNOUNCE: /* §5.1.6.5.4: it did */
        if (cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
            !virtio_has(&n->d, VIRTIO_NET_F_GUEST_ANNOUNCE) || data)
            return false;
        n->config.status &= ~VIRTIO_NET_S_ANNOUNCE;
        return true;
    default:
        return false;
    }
}

static void control(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[CTRLQ];
    struct iovec iov[NET_CHAIN_MAX];
    struct virtqueue_chain c = {.iov = iov, .capacity = NET_CHAIN_MAX};
    unsigned done = 0;

    for (; done < CTRL_BATCH && virtqueue_pop(vq, &c) == 1; done++) {
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
    if (done == CTRL_BATCH)
        net_again(n, CTRLQ);
}

/* ---- device -------------------------------------------------------------------------------------
 */

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct net *n = net_of(d);

    if (!sync_backend(n))
        return;
    if (q == RXQ)
        net_refilled(n);
    else if (q == TXQ)
        net_transmit(n);
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
    n->news = false;
    n->rx.hold_len = 0;
    n->config.status &= ~VIRTIO_NET_S_ANNOUNCE;
    memcpy(n->config.mac, n->mac, sizeof(n->mac));
    memcpy(n->former, n->mac, sizeof(n->mac));
    qz_loop_post(d->loop, &n->sync, on_sync); /* the backend belongs to the loop's thread */
    virtio_reset_done(d);
}

static void on_queue_reset(struct virtio_device *d, unsigned q)
{
    virtio_queue_reset_done(d,
                            q); /* nothing is in flight; an empty queue until it is enabled again */
}

/*
 * A driver that goes on with its address has come to another place of the network, and announces
 * itself there. One that is to have another address does not: the machine that it was a moment ago
 * may well be there too, with the same IP address. It keeps its old one until somebody in the guest
 * changes it (nothing filters frames by it), and finds the new one in the configuration.
 */
static void go_on_as(struct net *n, const uint8_t own[6])
{
    const bool another = n->mac_given && memcmp(n->mac, own, sizeof(n->mac));

    memcpy(n->former, n->config.mac, sizeof(n->former));
    memcpy(another ? n->config.mac : n->mac, another ? n->mac : own, sizeof(n->mac));
    n->config.status &= ~VIRTIO_NET_S_ANNOUNCE;
    if (!another && n->d.active && virtio_has(&n->d, VIRTIO_NET_F_GUEST_ANNOUNCE))
        n->config.status |= VIRTIO_NET_S_ANNOUNCE;
    n->news = another || n->config.status & VIRTIO_NET_S_ANNOUNCE;
}

/* The backend starts with the next notification, as after a reset. */
static void on_state(struct virtio_device *d, struct qz_state *s)
{
    struct net *n = net_of(d);
    uint8_t own[6];

    memcpy(own, n->mac, sizeof(own));
    qz_state_data(s, "mac", n->config.mac, sizeof(n->config.mac));
    qz_state_data(s, "own_mac", own, sizeof(own));
    qz_state_data_of(s, "frame", n->rx.hold, &n->rx.hold_len, NET_BYTES_MAX);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    if (!mac_valid(n->config.mac) || !mac_valid(own))
        return qz_state_refuse(s, "its MAC address is zero or a group's");
    go_on_as(n, own);
    n->restart = true;
    qz_loop_post(d->loop, &n->sync, on_sync); /* interrupt controllers are loaded by then */
}

static void on_free(struct virtio_device *d)
{
    struct net *n = net_of(d);

    n->backend->ops->free(n->backend);
    free(n->rx.hold);
    free(n);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-net",
    .device_id = VIRTIO_ID_NET,
    .config_read = on_config_read,
    .notify = on_notify,
    .reset = on_reset,
    .queue_reset = on_queue_reset,
    .state = on_state,
    .free = on_free,
};

static uint64_t offered(const struct net_backend *b, uint16_t mtu)
{
    return QZ_BIT(VIRTIO_NET_F_MAC) | QZ_BIT(VIRTIO_NET_F_STATUS) | QZ_BIT(VIRTIO_NET_F_MRG_RXBUF) |
           QZ_BIT(VIRTIO_NET_F_CTRL_VQ) | QZ_BIT(VIRTIO_NET_F_CTRL_RX) |
           QZ_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | QZ_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
           QZ_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) | QZ_BIT(NET_F_SPEED_DUPLEX) |
           (mtu ? QZ_BIT(VIRTIO_NET_F_MTU) : 0) | (b->features & OFFLOADS);
}

int virtio_net_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                   const struct virtio_net_options *config, struct qz_error *err)
{
    struct net_backend *b = config->backend;
    struct net *n = calloc(1, sizeof(*n));
    int r = 0;

    if (n)
        n->rx.hold = malloc(NET_BYTES_MAX);
    if (!n || !n->rx.hold)
        r = qz_fail(err, -ENOMEM, "network %s: no memory", b->label);
    else if (!mac_valid(config->mac))
        r = qz_fail(
            err, -EINVAL,
            "network %s: its MAC address is zero or a group's; use one like 52:54:00:12:34:56",
            b->label);
    else if (config->mtu && config->mtu < MTU_MIN)
        r = qz_fail(err, -EINVAL, "network %s: an MTU of %u, %d is the least", b->label,
                    config->mtu, MTU_MIN);
    if (r < 0) {
        b->ops->free(b);
        free(n ? n->rx.hold : NULL);
        free(n);
        return r;
    }
    n->backend = b;
    n->client = (struct net_client){on_readable, on_writable};
    memcpy(n->mac, config->mac, sizeof(n->mac));
    memcpy(n->config.mac, config->mac, sizeof(n->mac));
    memcpy(n->former, config->mac, sizeof(n->mac));
    n->mac_given = config->mac_given;
    n->config.status = VIRTIO_NET_S_LINK_UP;
    n->config.max_virtqueue_pairs = 1;
    n->config.mtu = config->mtu;
    n->config.speed = SPEED_MBIT;
    n->config.duplex = FULL_DUPLEX;
    n->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .offered = offered(b, config->mtu),
        .config_size = CONFIG_SIZE,
        .queue_count = NET_QUEUES,
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

void virtio_net_get_mac(struct virtio_device *d, uint8_t mac[6])
{
    QZ_LOCKED(&d->lock);

    memcpy(mac, net_of(d)->config.mac, sizeof(net_of(d)->config.mac));
}

void virtio_net_get_former_mac(struct virtio_device *d, uint8_t mac[6])
{
    QZ_LOCKED(&d->lock);

    memcpy(mac, net_of(d)->former, sizeof(net_of(d)->former));
}

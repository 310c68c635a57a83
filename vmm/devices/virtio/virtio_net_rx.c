/*
 * virtio_net_rx.c - frames from the backend into the guest's buffers (VirtIO 1.3 §5.1.6.3,
 * §5.1.6.4).
 *
 * Theory of operation. Buffers are staged first, as many as the last frame took, and the backend
 * writes right into them; behind them lies a host buffer, `hold`, that catches the rest of a frame
 * that is larger than expected. Then more buffers are popped for the rest, what is not needed is
 * put back, and the header is completed. When the guest's buffers do not suffice the whole frame
 * waits in `hold`; the backend is paused until the driver rings.
 */
#include "devices/virtio/virtio_net.h"

enum {
    BATCH = 64,
    EXPECT_MIN = 2048,
    VLAN_TAG = 4,
    HDR_FLAGS = offsetof(struct virtio_net_hdr_v1, flags),
    HDR_BUFFERS = offsetof(struct virtio_net_hdr_v1, num_buffers),
};

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

enum rx_result {
    RX_MORE,    /* go on */
    RX_NONE,    /* the backend has no frame */
    RX_STARVED, /* the guest has no buffers */
};

static void unstage(struct net *n, unsigned keep)
{
    while (n->rx.staged > keep)
        virtqueue_unpop(&n->d.queue[RXQ], &n->rx.chain[--n->rx.staged]);
    n->rx.staged = n->rx.staged_iov = 0;
    n->rx.staged_bytes = 0;
}

/* Pops one more receive buffer. 1: done, 0: the driver has none, -ENOSPC: no more for one frame. */
static int stage(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[RXQ];
    struct virtqueue_chain *c;

    if (n->rx.staged && !virtio_has(&n->d, VIRTIO_NET_F_MRG_RXBUF))
        return -ENOSPC;
    if (n->rx.staged == RX_STAGE_CHAINS || RX_STAGE_IOV - n->rx.staged_iov < NET_CHAIN_MAX)
        return -ENOSPC;
    c = &n->rx.chain[n->rx.staged];
    c->iov = n->rx.iov + n->rx.staged_iov;
    c->capacity = NET_CHAIN_MAX;
    if (virtqueue_pop(vq, c) != 1)
        /* All of the ring's buffers do not hold this frame: waiting for more would be for ever. */
        return n->rx.staged && n->rx.staged == vq->size ? -ENOSPC : 0;
    if (c->out_count || (!n->rx.staged && c->in_bytes < NET_HEADER)) {
        virtqueue_fail(vq, "a receive buffer %s",
                       c->out_count ? "that the device may not write"
                                    : "too small for the header of a frame");
        virtqueue_unpop(vq, c);
        return 0;
    }
    n->rx.staged++;
    n->rx.staged_iov += c->in_count;
    n->rx.staged_bytes += c->in_bytes;
    return 1;
}

/*
 * Whether a frame of `len` bytes, its header first in iov, is one that a driver was promised not to
 * see: past the MTU and not to be cut (§5.1.4.1). A VLAN tag is allowed for.
 */
static bool past_mtu(const struct net *n, size_t len)
{
    struct virtio_net_hdr_v1 header;

    if (!virtio_has(&n->d, VIRTIO_NET_F_MTU) ||
        len <= NET_HEADER + ETHERNET_HEADER + VLAN_TAG + (size_t)n->config.mtu)
        return false;
    iov_get(n->rx.iov, n->rx.staged_iov, (uint8_t *)&header, sizeof(header));
    return !(header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN);
}

/* Completes the frame of `len` bytes that lies in the staged buffers and returns them. */
static void commit(struct net *n, size_t len)
{
    struct virtqueue *vq = &n->d.queue[RXQ];
    size_t left = len, covered = 0;
    uint8_t buffers[2];
    unsigned used = 0;

    while (covered < len)
        covered += n->rx.chain[used++].in_bytes;
    qz_store_le16(buffers, (uint16_t)used);
    virtqueue_write(&n->rx.chain[0], HDR_BUFFERS, buffers, sizeof(buffers));
    if (!virtio_has(&n->d, VIRTIO_NET_F_GUEST_CSUM)) /* §5.1.6.4.1: then no flag may be set */
        virtqueue_write(&n->rx.chain[0], HDR_FLAGS, &(uint8_t){0}, 1);
    unstage(n, used);
    for (unsigned i = 0; i < used; i++) {
        uint32_t written = (uint32_t)QZ_MIN((uint64_t)left, n->rx.chain[i].in_bytes);

        virtqueue_push(vq, &n->rx.chain[i], written);
        left -= written;
    }
    n->stats.rx_frames++;
    n->stats.rx_bytes += len - NET_HEADER;
}

/* Stages until `bytes` fit: as stage(). */
static int stage_until(struct net *n, size_t bytes)
{
    int r = 1;

    while (n->rx.staged_bytes < bytes && (r = stage(n)) == 1)
        continue;
    return n->rx.staged_bytes >= bytes ? 1 : r;
}

static enum rx_result drop(struct net *n)
{
    unstage(n, 0);
    n->rx.hold_len = 0;
    n->stats.rx_dropped++;
    return RX_MORE;
}

/* The frame that waits in hold. */
static enum rx_result receive_held(struct net *n)
{
    size_t len = n->rx.hold_len;
    int r = stage_until(n, len);

    if (r == 0) {
        unstage(n, 0);
        return RX_STARVED;
    }
    if (r < 0)
        return drop(n);
    iov_put(n->rx.iov, n->rx.staged_iov, 0, n->rx.hold, len);
    n->rx.hold_len = 0;
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

    stage_until(n, n->rx.expect);
    if (!n->rx.staged)
        return RX_STARVED;
    direct = QZ_MIN(n->rx.staged_bytes, (size_t)NET_BYTES_MAX);
    count = n->rx.staged_iov;
    if (direct < NET_BYTES_MAX)
        n->rx.iov[count++] =
            (struct iovec){.iov_base = n->rx.hold + direct, .iov_len = NET_BYTES_MAX - direct};
    got = n->backend->ops->receive(n->backend, n->rx.iov, count);
    if (got == 0) {
        unstage(n, 0);
        return RX_NONE;
    }
    if (got < NET_HEADER || got > NET_BYTES_MAX)
        return drop(n);
    len = (size_t)got;
    if (past_mtu(n, len))
        return drop(n);
    n->rx.expect = QZ_MAX(len, (size_t)EXPECT_MIN);
    if (len > direct) {
        /* hold's part of the list is overwritten by what is staged next; the bytes stay. */
        r = stage_until(n, len);
        if (r < 0)
            return drop(n);
        if (r == 0) {
            iov_get(n->rx.iov, n->rx.staged_iov, n->rx.hold, direct);
            n->rx.hold_len = len;
            unstage(n, 0);
            return RX_STARVED;
        }
        iov_put(n->rx.iov, n->rx.staged_iov, direct, n->rx.hold + direct, len - direct);
    }
    commit(n, len);
    return RX_MORE;
}

void net_rx_start(struct net *n)
{
    n->rx.hold_len = 0;
    n->rx.expect = EXPECT_MIN;
    n->rx.starved = false;
}

void net_receive(struct net *n)
{
    enum rx_result r = RX_MORE;

    if (n->rx.starved)
        return;
    for (int i = 0; i < BATCH && r == RX_MORE; i++)
        r = n->rx.hold_len ? receive_held(n) : receive_frame(n);
    virtqueue_interrupt(&n->d.queue[RXQ]);
    if (r == RX_MORE)
        net_again(n, RXQ);
    if (r == RX_STARVED) {
        n->rx.starved = true;
        n->stats.rx_stalls++;
        n->backend->ops->pause(n->backend, true);
    }
}

void net_refilled(struct net *n)
{
    if (!n->rx.starved)
        return;
    n->rx.starved = false;
    n->backend->ops->pause(n->backend, false);
    net_receive(n);
}

/*
 * virtio_net_tx.c - frames of the guest to the backend (VirtIO 1.3 §5.1.6.1, §5.1.6.2).
 *
 * Theory of operation. The header is copied once and checked against what was negotiated; the frame
 * itself goes from guest memory to the backend. A frame that the backend cannot take goes back into
 * the ring, and the ring is left alone until the backend is writable.
 */
#include "devices/virtio/virtio_net.h"

enum { BATCH = 256 };

/* Whether the driver may ask for this (§5.1.6.2); NULL, or what is wrong. */
static const char *header_error(const struct virtio_device *d, const uint8_t header[NET_HEADER])
{
    bool checksum = header[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    uint8_t type = header[1] & ~VIRTIO_NET_HDR_GSO_ECN;
    unsigned feature;

    if (checksum && !virtio_has(d, VIRTIO_NET_F_CSUM))
        return "a frame without its checksum, but that was not negotiated";
    if (header[1] == VIRTIO_NET_HDR_GSO_NONE)
        return NULL;
    switch (type) {
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
    n->tx.iov[0] = (struct iovec){.iov_base = &header, .iov_len = sizeof(header)};
    for (unsigned i = 0; i < c->out_count; i++) {
        struct iovec part = c->iov[i];
        size_t cut = QZ_MIN((size_t)skip, part.iov_len);

        skip -= cut;
        part.iov_base = (uint8_t *)part.iov_base + cut;
        part.iov_len -= cut;
        if (part.iov_len)
            n->tx.iov[count++] = part;
    }
    r = n->backend->ops->send(n->backend, n->tx.iov, count, c->out_bytes);
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

void net_transmit(struct net *n)
{
    struct virtqueue *vq = &n->d.queue[TXQ];
    struct iovec iov[NET_CHAIN_MAX];
    struct virtqueue_chain c = {.iov = iov, .capacity = NET_CHAIN_MAX};
    unsigned sent = 0;

    if (n->tx.blocked)
        return;
    do {
        virtqueue_notify_disable(vq);
        while (sent < BATCH && virtqueue_pop(vq, &c) == 1) {
            int r = send_chain(n, &c);

            if (r <= 0) {
                virtqueue_unpop(vq, &c);
                n->tx.blocked = r == 0;
                break;
            }
            virtqueue_push(vq, &c, 0);
            sent++;
        }
    } while (!n->tx.blocked && sent < BATCH && virtqueue_notify_enable(vq));
    if (sent && n->backend->ops->flush)
        n->backend->ops->flush(n->backend);
    virtqueue_interrupt(vq);
    if (n->tx.blocked)
        n->stats.tx_stalls++;
    else if (sent >= BATCH)
        net_again(n, TXQ);
}

/*
 * virtio_vsock.c - the vsock device: packets between the guest's queues and the connections
 * (vsock.h; VirtIO 1.3 §5.10).
 *
 * Queues: 0 to the guest, 1 from it, 2 events (used when a machine is restored). Connections that
 * have something for the guest stand in a list and are asked in turn, one packet each, while the
 * guest has buffers. The guest is not listened to while resets for unknown connections wait:
 * nothing that it says makes anything here grow.
 */
#include "devices/virtio/vsock.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };
enum { QUEUE_SIZE = 256, SEGMENTS = 64, ROUND_MAX = 64 };

static struct vsock *vsock_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct vsock, d);
}

/* ---- to the guest
 * ------------------------------------------------------------------------------------------- */

static void pump(struct qz_work *w);

void vsock_ready(struct vsock_connection *c)
{
    struct vsock *v = c->vsock;

    if (!c->ready) {
        c->ready = true;
        c->ready_next = NULL;
        *v->ready_tail = c;
        v->ready_tail = &c->ready_next;
    }
    qz_loop_post(v->d.loop, &v->pump, pump);
}

static struct vsock_connection *take_ready(struct vsock *v)
{
    struct vsock_connection *c = v->ready_head;

    v->ready_head = c->ready_next;
    if (!v->ready_head)
        v->ready_tail = &v->ready_head;
    c->ready = false;
    return c;
}

static size_t fill_reply(struct vsock *v, const struct virtqueue_chain *chain)
{
    const size_t n = virtqueue_write(chain, 0, &v->reply[v->reply_head], sizeof(v->reply[0]));

    v->reply_head = (v->reply_head + 1) % VSOCK_REPLIES_MAX;
    v->replies--;
    return n;
}

static size_t fill_from_ready(struct vsock *v, const struct virtqueue_chain *chain)
{
    while (v->ready_head) {
        struct vsock_connection *c = take_ready(v);
        bool again = false, gone;
        const size_t n = vsock_connection_fill(c, chain, &again, &gone);

        if (!gone && again)
            vsock_ready(c);
        if (n)
            return n;
    }
    return 0;
}

static void serve_rx(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[QUEUE_RX];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = SEGMENTS};
    unsigned served = 0;

    while ((v->replies || v->ready_head) && served < ROUND_MAX && virtqueue_pop(vq, &chain) == 1) {
        size_t n;

        if (chain.in_bytes <= sizeof(struct virtio_vsock_hdr)) {
            virtqueue_fail(vq, "a receive buffer of %llu bytes",
                           (unsigned long long)chain.in_bytes);
            return;
        }
        n = v->replies ? fill_reply(v, &chain) : fill_from_ready(v, &chain);
        if (!n) {
            virtqueue_unpop(vq, &chain);
            break;
        }
        virtqueue_push(vq, &chain, (uint32_t)n);
        served++;
    }
    virtqueue_interrupt(vq);
    if (served == ROUND_MAX)
        qz_loop_post(v->d.loop, &v->pump, pump);
}

/* ---- from the guest
 * ----------------------------------------------------------------------------------------- */

static void refuse(struct vsock *v, const struct virtio_vsock_hdr *h)
{
    if (le16toh(h->op) == VIRTIO_VSOCK_OP_RST)
        return; /* never a reset for a reset */
    v->reply[(v->reply_head + v->replies++) % VSOCK_REPLIES_MAX] = (struct virtio_vsock_hdr){
        .src_cid = h->dst_cid,
        .dst_cid = h->src_cid,
        .src_port = h->dst_port,
        .dst_port = h->src_port,
        .type = h->type,
        .op = htole16(VIRTIO_VSOCK_OP_RST),
    };
}

static void open_connection(struct vsock *v, const struct virtio_vsock_hdr *h)
{
    const int fd = vsock_host_connect(v, le32toh(h->dst_port));
    struct vsock_connection *c = fd < 0 ? NULL : vsock_connection_new(v, fd, VSOCK_OPEN);

    if (!c)
        return refuse(v, h);
    vsock_connection_name(c, le32toh(h->src_port), le32toh(h->dst_port));
    c->peer_room = le32toh(h->buf_alloc);
    c->peer_forwarded = le32toh(h->fwd_cnt);
    c->owes = OWES_RESPONSE;
    vsock_connection_watch(c);
    vsock_ready(c);
}

static void handle_packet(struct vsock *v, const struct virtio_vsock_hdr *h,
                          const struct virtqueue_chain *chain)
{
    struct vsock_connection *c;

    if (le64toh(h->src_cid) != v->cid || le64toh(h->dst_cid) != VSOCK_CID_HOST ||
        le16toh(h->type) != VIRTIO_VSOCK_TYPE_STREAM)
        return refuse(v, h);
    c = vsock_connection_find(v, le32toh(h->src_port), le32toh(h->dst_port));
    if (c)
        vsock_connection_packet(c, h, chain);
    else if (le16toh(h->op) == VIRTIO_VSOCK_OP_REQUEST)
        open_connection(v, h);
    else
        refuse(v, h);
}

static void serve_tx(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[QUEUE_TX];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = SEGMENTS};
    struct virtio_vsock_hdr h;
    unsigned served = 0;

    while (v->replies < VSOCK_REPLIES_MAX && served < ROUND_MAX && virtqueue_pop(vq, &chain) == 1) {
        if (virtqueue_read(&chain, 0, &h, sizeof(h)) != sizeof(h) ||
            le32toh(h.len) > chain.out_bytes - sizeof(h)) {
            virtqueue_fail(vq, "a packet of %llu bytes that says it has more",
                           (unsigned long long)chain.out_bytes);
            return;
        }
        handle_packet(v, &h, &chain);
        virtqueue_push(vq, &chain, 0);
        served++;
    }
    virtqueue_interrupt(vq);
    if (served == ROUND_MAX)
        qz_loop_post(v->d.loop, &v->pump, pump);
}

static void serve(struct vsock *v)
{
    const unsigned waiting = v->replies;

    serve_rx(v);
    serve_tx(v);
    if (v->replies || v->ready_head)
        serve_rx(v);
    if (waiting == VSOCK_REPLIES_MAX && v->replies < waiting) /* it is listened to again */
        qz_loop_post(v->d.loop, &v->pump, pump);
}

static void pump(struct qz_work *w)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, pump);
    QZ_LOCKED(&v->d.lock);

    if (v->d.active)
        serve(v);
}

/* ---- life
 * ---------------------------------------------------------------------------------------------------
 */

static void on_notify(struct virtio_device *d, unsigned q)
{
    if (q != QUEUE_EVENT)
        serve(vsock_of(d));
}

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&vsock_of(d)->config + offset, len);
}

static void drop_connections(struct vsock *v)
{
    while (v->all)
        vsock_connection_free(v->all);
    v->replies = 0;
}

/* The sockets belong to the loop's thread. */
static void finish_reset(struct qz_work *w)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, ending);
    QZ_LOCKED(&v->d.lock);

    drop_connections(v);
    virtio_reset_done(&v->d);
}

static void on_reset(struct virtio_device *d)
{
    qz_loop_post(d->loop, &vsock_of(d)->ending, finish_reset);
}

static void on_free(struct virtio_device *d)
{
    struct vsock *v = vsock_of(d);

    drop_connections(v);
    vsock_host_close(v);
    free(v);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .config_read = on_config_read,
    .notify = on_notify,
    .reset = on_reset,
    .free = on_free,
};

int virtio_vsock_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                     uint64_t cid, const char *path, struct qz_error *err)
{
    struct vsock *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return qz_fail(err, -ENOMEM, "vsock: no memory");
    v->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .config_size = sizeof(v->config),
        .queue_count = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .label = "vsock",
    };
    v->cid = cid;
    v->config.guest_cid = htole64(cid);
    v->listener.fd = -1;
    v->next_host_port = VSOCK_FIRST_HOST_PORT;
    v->ready_tail = &v->ready_head;
    r = vsock_host_listen(v, path, err);
    if (r < 0) {
        vsock_host_close(v);
        free(v);
        return r;
    }
    *out = &v->d;
    return 0;
}

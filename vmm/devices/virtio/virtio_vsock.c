/*
 * virtio_vsock.c - stream sockets between guest and host (VirtIO 1.3 §5.10).
 *
 * Theory of operation. The guest's packets are taken from its transmit queue and given to
 * vsock_packet.c; what connections have for the guest is collected by vsock_flush(), one packet of
 * each ready connection in turn, so that none starves. Both work in rounds, between which the loop
 * serves others. A packet that belongs to no connection is owed a reset; while as many are owed as
 * can be remembered, no packet is taken, so a guest that takes no answers is not listened to
 * either, and nothing grows (§5.10.6.1).
 *
 * Locks and threads: everything runs on the device's loop, under the device's lock. A reset comes
 * from elsewhere and is carried out on the loop, because sockets belong to it.
 */
#include <sys/resource.h>

#include "devices/virtio/vsock_internal.h"

enum { Q_RX, Q_TX, Q_EVENT, QUEUES };
enum { QUEUE_SIZE = 256, ROUND_PACKETS = 64, ROUND_BYTES = 1 << 20 };
#define HOLD_NS INT64_C(3000000000)

static struct vsock *vsock_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct vsock, d);
}

unsigned vsock_slice(const struct iovec *in, unsigned count, size_t skip, size_t limit,
                     struct iovec *out)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count && limit; i++) {
        size_t drop = QZ_MIN(skip, in[i].iov_len), len = QZ_MIN(in[i].iov_len - drop, limit);

        skip -= drop;
        limit -= len;
        if (len)
            out[n++] = (struct iovec){(uint8_t *)in[i].iov_base + drop, len};
    }
    return n;
}

/* ---- packets as bytes
 * ------------------------------------------------------------------------------ */

static void encode(const struct vsock_packet *p, uint8_t *h)
{
    qz_store_le64(h + offsetof(struct virtio_vsock_hdr, src_cid), p->src_cid);
    qz_store_le64(h + offsetof(struct virtio_vsock_hdr, dst_cid), p->dst_cid);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, src_port), p->src_port);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, dst_port), p->dst_port);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, len), p->len);
    qz_store_le16(h + offsetof(struct virtio_vsock_hdr, type), p->type);
    qz_store_le16(h + offsetof(struct virtio_vsock_hdr, op), p->op);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, flags), p->flags);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, buf_alloc), p->buf_alloc);
    qz_store_le32(h + offsetof(struct virtio_vsock_hdr, fwd_cnt), p->fwd_cnt);
}

static void decode(const uint8_t *h, struct vsock_packet *p)
{
    p->src_cid = qz_load_le64(h + offsetof(struct virtio_vsock_hdr, src_cid));
    p->dst_cid = qz_load_le64(h + offsetof(struct virtio_vsock_hdr, dst_cid));
    p->src_port = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, src_port));
    p->dst_port = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, dst_port));
    p->len = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, len));
    p->type = qz_load_le16(h + offsetof(struct virtio_vsock_hdr, type));
    p->op = qz_load_le16(h + offsetof(struct virtio_vsock_hdr, op));
    p->flags = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, flags));
    p->buf_alloc = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, buf_alloc));
    p->fwd_cnt = qz_load_le32(h + offsetof(struct virtio_vsock_hdr, fwd_cnt));
}

/* ---- to the guest
 * ---------------------------------------------------------------------------------- */

static void take_stray(struct vsock *v, struct vsock_packet *p)
{
    const struct vsock_stray *s = &v->stray[v->stray_head];

    *p = (struct vsock_packet){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = v->config.guest_cid,
        .src_port = s->host_port,
        .dst_port = s->guest_port,
        .type = s->type,
        .op = VIRTIO_VSOCK_OP_RST,
    };
    v->stray_head = (v->stray_head + 1) % VSOCK_STRAYS_MAX;
    v->stray_count--;
}

/* The next packet into the guest's buffer. False: there is none after all. */
static bool fill(struct vsock *v, const struct virtqueue_chain *chain, struct vsock_packet *p)
{
    struct vsock_connection *c = TAILQ_FIRST(&v->ready);
    struct iovec data[VSOCK_SEGMENTS];
    unsigned count;
    bool made;

    if (v->stray_count) {
        take_stray(v, p);
        return true;
    }
    count = vsock_slice(chain->iov + chain->out_count, chain->in_count, VSOCK_HEADER,
                        VSOCK_DATA_MAX, data);
    TAILQ_REMOVE(&v->ready, c, ready);
    c->queued = false;
    made = vsock_packet_to_guest(c, p, data, count, chain->in_bytes - VSOCK_HEADER);
    vsock_connection_settle(c); /* at the end of the line, if there is more */
    return made;
}

static void again(struct qz_work *w);

void vsock_flush(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[Q_RX];
    struct iovec iov[VSOCK_SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VSOCK_SEGMENTS};
    bool listening = v->stray_count < VSOCK_STRAYS_MAX;
    size_t packets = 0, bytes = 0;

    while (v->d.active && (v->stray_count || !TAILQ_EMPTY(&v->ready))) {
        uint8_t header[VSOCK_HEADER];
        struct vsock_packet p;

        if (packets++ == ROUND_PACKETS || bytes >= ROUND_BYTES) {
            qz_loop_post(v->d.loop, &v->again, again);
            break;
        }
        if (!virtqueue_pop(vq, &chain))
            break;
        if (chain.in_bytes <= VSOCK_HEADER) {
            virtqueue_fail(vq, "a receive buffer of %llu bytes, of which %d are header",
                           (unsigned long long)chain.in_bytes, VSOCK_HEADER);
            break;
        }
        if (!fill(v, &chain, &p)) {
            virtqueue_unpop(vq, &chain);
            continue;
        }
        encode(&p, header);
        virtqueue_write(&chain, 0, header, sizeof(header));
        virtqueue_push(vq, &chain, VSOCK_HEADER + p.len);
        bytes += p.len;
    }
    virtqueue_interrupt(vq);
    if (!listening && v->stray_count < VSOCK_STRAYS_MAX)
        qz_loop_post(v->d.loop, &v->again, again);
}

/* ---- from the guest
 * -------------------------------------------------------------------------------- */

static void take_packet(struct vsock *v, const struct virtqueue_chain *chain, size_t *bytes)
{
    uint8_t header[VSOCK_HEADER];
    struct iovec data[VSOCK_SEGMENTS];
    struct vsock_packet p;

    if (virtqueue_read(chain, 0, header, sizeof(header)) < sizeof(header)) {
        qz_guest_warn("vsock: the guest sends a packet of %llu bytes",
                      (unsigned long long)chain->out_bytes);
        return;
    }
    decode(header, &p);
    /* Data that is not there: the rest of the stream could not be trusted, so the operation becomes
     * an unknown one. */
    if (p.len > chain->out_bytes - VSOCK_HEADER) {
        p.len = 0;
        if (p.op != VIRTIO_VSOCK_OP_RST)
            p.op = VIRTIO_VSOCK_OP_INVALID;
    }
    *bytes += p.len;
    vsock_packet_from_guest(v, &p, data,
                            vsock_slice(chain->iov, chain->out_count, VSOCK_HEADER, p.len, data));
}

static void serve_tx(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[Q_TX];
    struct iovec iov[VSOCK_SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VSOCK_SEGMENTS};
    size_t packets = 0, bytes = 0;

    while (v->stray_count < VSOCK_STRAYS_MAX) {
        if (packets++ == ROUND_PACKETS || bytes >= ROUND_BYTES) {
            qz_loop_post(v->d.loop, &v->again, again);
            break;
        }
        if (!virtqueue_pop(vq, &chain))
            break;
        take_packet(v, &chain, &bytes);
        virtqueue_push(vq, &chain, 0);
    }
    virtqueue_interrupt(vq);
}

static void again(struct qz_work *w)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, again);
    QZ_LOCKED(&v->d.lock);

    if (!v->d.active)
        return;
    serve_tx(v);
    vsock_flush(v);
}

/* ---- events
 * ---------------------------------------------------------------------------------------- */

/*
 * A guest that is told that all connections are gone ends those that it has when it gets to it,
 * without a word to us: one that was made meanwhile would stay half open. So host programs wait
 * until the guest has given the event's buffer back, but not for a guest that never does.
 */
static void hold(struct vsock *v)
{
    v->tell_reset = v->d.active;
    v->held_until = v->d.active ? qz_now_ns() + HOLD_NS : 0;
}

bool vsock_held(const struct vsock *v)
{
    return v->held_until && qz_now_ns() < v->held_until;
}

/* How many buffers wait for events; the guest tells when it adds one. */
static unsigned count_event_buffers(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[Q_EVENT];
    struct iovec iov[VSOCK_SEGMENTS];
    static _Thread_local struct virtqueue_chain chain[QUEUE_SIZE];
    unsigned n = 0, left;

    for (; n < QUEUE_SIZE; n++) {
        chain[n] = (struct virtqueue_chain){.iov = iov, .capacity = VSOCK_SEGMENTS};
        if (!virtqueue_pop(vq, &chain[n]))
            break;
    }
    for (left = n; left; left--)
        virtqueue_unpop(vq, &chain[left - 1]);
    return n;
}

static void tell(struct vsock *v)
{
    struct virtqueue *vq = &v->d.queue[Q_EVENT];
    struct iovec iov[VSOCK_SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VSOCK_SEGMENTS};
    uint8_t event[sizeof(struct virtio_vsock_event)];

    if (!virtqueue_pop(vq, &chain))
        return;
    qz_store_le32(event, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
    virtqueue_push(vq, &chain, (uint32_t)virtqueue_write(&chain, 0, event, sizeof(event)));
    v->event_buffers = count_event_buffers(v); /* before it can be seen */
    virtqueue_interrupt(vq);
    v->tell_reset = false;
}

static void serve_event(struct vsock *v)
{
    if (!v->d.active)
        return;
    if (v->tell_reset) {
        tell(v);
    } else if (v->held_until && count_event_buffers(v) > v->event_buffers) {
        v->held_until = 0;
        vsock_listener_resume(v);
    }
}

static void forget_all(struct vsock *v)
{
    while (!LIST_EMPTY(&v->all))
        vsock_connection_free(LIST_FIRST(&v->all));
    v->stray_count = 0;
}

static void disconnect(struct qz_work *w)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, disconnect_work);
    QZ_LOCKED(&v->d.lock);

    forget_all(v);
    hold(v);
    serve_event(v);
    vsock_listener_resume(v);
}

void virtio_vsock_disconnect(struct virtio_device *d)
{
    qz_loop_post(d->loop, &vsock_of(d)->disconnect_work, disconnect);
}

/* ---- device
 * ---------------------------------------------------------------------------------------- */

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct vsock *v = vsock_of(d);

    if (q == Q_EVENT) {
        serve_event(v);
        return;
    }
    if (q == Q_TX)
        serve_tx(v);
    vsock_flush(v);
}

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&vsock_of(d)->config + offset, len);
}

static void finish_reset(struct vsock *v)
{
    v->resetting = v->tell_reset = false;
    v->held_until = 0;
    v->known_cid = v->config.guest_cid;
    forget_all(v);
    virtio_reset_done(&v->d);
}

static void carry_out_reset(struct qz_work *w)
{
    struct vsock *v = QZ_CONTAINER_OF(w, struct vsock, reset_work);
    QZ_LOCKED(&v->d.lock);

    if (!v->resetting)
        return;
    finish_reset(v);
    vsock_listener_resume(v);
}

/* On any thread: only the loop may end connections, and there are some only while the driver is
 * active. */
static void on_reset(struct virtio_device *d)
{
    struct vsock *v = vsock_of(d);

    v->resetting = true;
    if (LIST_EMPTY(&v->all))
        finish_reset(v);
    else
        qz_loop_post(d->loop, &v->reset_work, carry_out_reset);
}

/*
 * Connections are this host's sockets and stay here: a driver that goes on from a state is told
 * that they are gone, and reads its context id again. Until then it is understood under the one
 * that it had.
 */
static void on_state(struct virtio_device *d, struct qz_state *s)
{
    struct vsock *v = vsock_of(d);

    QZ_STATE(s, "cid", v->known_cid, UINT32_MAX - 1);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    if (v->known_cid <= VSOCK_HOST_CID)
        return qz_state_refuse(s, "context id %llu is no guest's",
                               (unsigned long long)v->known_cid);
    hold(v);
}

static void on_free(struct virtio_device *d)
{
    struct vsock *v = vsock_of(d);

    forget_all(v);
    qz_timer_cancel(&v->timer);
    vsock_unlisten(v);
    free(v->path);
    free(v);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .config_read = on_config_read,
    .notify = on_notify,
    .reset = on_reset,
    .state = on_state,
    .free = on_free,
};

/* Half of the descriptors that the process may have: disks and clients of the control socket need
 * some too. */
static unsigned connections_max(void)
{
    struct rlimit r;

    return getrlimit(RLIMIT_NOFILE, &r) < 0
               ? VSOCK_CONNECTIONS_MAX / 4
               : (unsigned)QZ_MIN(r.rlim_cur / 2, (rlim_t)VSOCK_CONNECTIONS_MAX);
}

int virtio_vsock_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                     uint64_t cid, const char *path, struct qz_error *err)
{
    struct vsock *v;
    int r;

    if (cid <= VSOCK_HOST_CID || cid >= UINT32_MAX)
        return qz_fail(err, -EINVAL, "vsock: context id %llu: 3 to 4294967294 are for guests",
                       (unsigned long long)cid);
    v = calloc(1, sizeof(*v));
    if (!v || !(v->path = strdup(path))) {
        free(v);
        return qz_fail(err, -ENOMEM, "vsock: no memory");
    }
    v->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .config_size = sizeof(v->config),
        .queue_count = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .label = "vsock",
    };
    v->config.guest_cid = v->known_cid = cid;
    v->connections_max = connections_max();
    v->listen_fd = -1;
    LIST_INIT(&v->all);
    for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
        LIST_INIT(&v->bucket[i]);
    TAILQ_INIT(&v->ready);
    r = vsock_listen(v, path, err);
    if (r < 0) {
        on_free(&v->d);
        return r;
    }
    *out = &v->d;
    return 0;
}

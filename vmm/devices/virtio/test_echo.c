/*
 * test_echo.c - see test_echo.h.
 */
#include "devices/virtio/test_echo.h"

static struct echo *echo_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct echo, d);
}

static void answer(struct virtqueue *vq, struct virtqueue_chain *c)
{
    uint8_t buf[512];
    uint64_t at = 0;
    size_t n, w;

    while ((n = virtqueue_read(c, at, buf, sizeof(buf)))) {
        w = virtqueue_write(c, at, buf, n);
        at += w;
        if (w < n)
            break;
    }
    virtqueue_push(vq, c, (uint32_t)at);
}

static void echo_notify(struct virtio_device *d, unsigned q)
{
    struct echo *e = echo_of(d);
    struct virtqueue *vq = &d->queue[q];
    struct iovec iov[ECHO_SEGMENTS];
    struct virtqueue_chain c = {.iov = iov, .capacity = ECHO_SEGMENTS};

    e->notified++;
    do {
        if (e->suppress)
            virtqueue_notify_disable(vq);
        while (e->held < VIRTQUEUE_SIZE_MAX && virtqueue_pop(vq, &c)) {
            if (!e->hold) {
                answer(vq, &c);
                continue;
            }
            e->chain[e->held] = c;
            e->chain[e->held].iov = calloc(ECHO_SEGMENTS, sizeof(*iov));
            if (!e->chain[e->held].iov)
                abort();
            memcpy(e->chain[e->held].iov, iov, sizeof(iov));
            e->chain_queue[e->held++] = q;
        }
        if (e->interrupt)
            virtqueue_interrupt(vq);
    } while (e->suppress && virtqueue_notify_enable(vq));
}

static void finish_reset(struct echo *e)
{
    if (e->resetting && !e->held) {
        e->resetting = false;
        virtio_reset_done(&e->d);
    }
    if (e->queue_resetting >= 0) {
        unsigned q = (unsigned)e->queue_resetting;

        for (unsigned i = 0; i < e->held; i++)
            if (e->chain_queue[i] == q)
                return;
        e->queue_resetting = -1;
        virtio_queue_reset_done(&e->d, q);
    }
}

void echo_release(struct echo *e)
{
    QZ_LOCKED(&e->d.lock);

    for (unsigned i = 0; i < e->held; i++) {
        answer(&e->d.queue[e->chain_queue[i]], &e->chain[i]);
        free(e->chain[i].iov);
    }
    e->held = 0;
    for (unsigned q = 0; q < ECHO_QUEUES; q++)
        virtqueue_interrupt(&e->d.queue[q]);
    finish_reset(e);
}

static void echo_activate(struct virtio_device *d)
{
    echo_of(d)->activated++;
}

static void echo_reset(struct virtio_device *d)
{
    echo_of(d)->resets++;
    echo_of(d)->resetting = true;
    echo_of(d)->queue_resetting = -1;
    finish_reset(echo_of(d));
}

static void echo_queue_reset(struct virtio_device *d, unsigned q)
{
    echo_of(d)->queue_resetting = (int)q;
    finish_reset(echo_of(d));
}

static void echo_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, echo_of(d)->config + offset, len);
}

static void echo_config_write(struct virtio_device *d, unsigned offset, const void *buf,
                              unsigned len)
{
    memcpy(echo_of(d)->config + offset, buf, len);
    echo_of(d)->config_writes++;
}

static void echo_free(struct virtio_device *d)
{
    echo_of(d)->freed++;
}

static const struct virtio_device_ops echo_ops = {
    .name = "virtio-echo",
    .device_id = ECHO_ID,
    .config_read = echo_config_read,
    .config_write = echo_config_write,
    .activate = echo_activate,
    .notify = echo_notify,
    .reset = echo_reset,
    .queue_reset = echo_queue_reset,
    .free = echo_free,
};

void echo_init(struct echo *e, struct machine *m, struct qz_loop *loop)
{
    memset(e, 0, sizeof(*e));
    e->d.ops = &echo_ops;
    e->d.machine = m;
    e->d.loop = loop;
    e->d.offered = QZ_BIT(ECHO_FEATURE);
    e->d.config_size = ECHO_CONFIG;
    e->d.queue_count = ECHO_QUEUES;
    e->d.queue_size_max = 256;
    e->interrupt = true;
    e->queue_resetting = -1;
    for (unsigned i = 0; i < ECHO_CONFIG; i++)
        e->config[i] = (uint8_t)(0x10 + i);
}

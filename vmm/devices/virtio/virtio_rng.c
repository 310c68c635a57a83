/*
 * virtio_rng.c - entropy for the guest (VirtIO 1.3 §5.4): fills buffers from the host's
 * getrandom().
 *
 * A round serves a bounded number of bytes and then lets the loop serve others, so that a guest
 * that asks for ever more cannot keep the thread to itself.
 */
#include <sys/random.h>

#include "devices/virtio/devices.h"

QZ_SYSCALLS(io, "getrandom");

enum { QUEUE_SIZE = 64, SEGMENTS = 64, REQUEST_MAX = 64 << 10, ROUND_MAX = 256 << 10 };

/* Fills at most `limit` bytes of the writable part. */
static uint32_t fill(struct machine *m, const struct virtqueue_chain *c, size_t limit)
{
    uint32_t done = 0;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count && done < limit; i++) {
        size_t want = QZ_MIN(c->iov[i].iov_len, limit - done), got = 0;

        while (got < want) {
            ssize_t n = machine_random(m, (uint8_t *)c->iov[i].iov_base + got, want - got);

            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return done + (uint32_t)got;
            got += n;
        }
        done += (uint32_t)got;
    }
    return done;
}

static void serve(struct virtio_device *d, unsigned q)
{
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain c = {.iov = iov, .capacity = SEGMENTS};
    struct virtqueue *vq = &d->queue[q];
    unsigned chains = vq->size;
    size_t left = ROUND_MAX;

    for (; chains && left && virtqueue_pop(vq, &c) == 1; chains--) {
        uint32_t n = fill(d->machine, &c, QZ_MIN((size_t)REQUEST_MAX, left));

        virtqueue_push(vq, &c, n);
        left -= n;
    }
    virtqueue_interrupt(vq);
    if (!chains || !left)
        virtio_queue_again(d, q);
}

static void on_reset(struct virtio_device *d)
{
    virtio_reset_done(d);
}

static void on_free(struct virtio_device *d)
{
    free(d);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-rng",
    .device_id = VIRTIO_ID_RNG,
    .notify = serve,
    .reset = on_reset,
    .free = on_free,
};

int virtio_rng_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                   struct qz_error *err)
{
    struct virtio_device *d = calloc(1, sizeof(*d));

    if (!d)
        return qz_fail(err, -ENOMEM, "rng: no memory");
    *d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .queue_count = 1,
        .queue_size_max = QUEUE_SIZE,
        .label = "rng",
    };
    *out = d;
    return 0;
}

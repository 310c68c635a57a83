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

struct rng {
    struct virtio_device d;
    struct qz_work again;
};

/* Fills at most `limit` bytes of the writable part. */
static uint32_t fill(const struct virtqueue_chain *c, size_t limit)
{
    uint32_t done = 0;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count && done < limit; i++) {
        size_t want = QZ_MIN(c->iov[i].iov_len, limit - done), got = 0;

        while (got < want) {
            ssize_t n = getrandom((uint8_t *)c->iov[i].iov_base + got, want - got, 0);

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

static void serve(struct virtio_device *d, unsigned q);

static void serve_again(struct qz_work *w)
{
    struct rng *r = QZ_CONTAINER_OF(w, struct rng, again);
    QZ_LOCKED(&r->d.lock);

    if (r->d.active)
        serve(&r->d, 0);
}

static void serve(struct virtio_device *d, unsigned q)
{
    struct rng *r = QZ_CONTAINER_OF(d, struct rng, d);
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain c = {.iov = iov, .capacity = SEGMENTS};
    struct virtqueue *vq = &d->queue[q];
    size_t served = 0;

    while (served < ROUND_MAX && virtqueue_pop(vq, &c) == 1) {
        uint32_t n = fill(&c, REQUEST_MAX);

        virtqueue_push(vq, &c, n);
        served += n + 1;
    }
    virtqueue_interrupt(vq);
    if (served >= ROUND_MAX)
        qz_loop_post(d->loop, &r->again, serve_again);
}

static void on_reset(struct virtio_device *d)
{
    virtio_reset_done(d);
}

static void on_free(struct virtio_device *d)
{
    free(QZ_CONTAINER_OF(d, struct rng, d));
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
    struct rng *r = calloc(1, sizeof(*r));

    if (!r)
        return qz_fail(err, -ENOMEM, "rng: no memory");
    r->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .queue_count = 1,
        .queue_size_max = QUEUE_SIZE,
        .label = "rng",
    };
    *out = &r->d;
    return 0;
}

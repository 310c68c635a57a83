/*
 * virtio_net_fuzz.c - a driver that writes anything into the rings, buffers and headers of the
 * network device, at any time, while frames of any size come from the network.
 *
 * The input is four bytes of parameters, then steps of eight bytes. Descriptors are mostly
 * plausible (in memory, next to each other), so that frames do get through; everything else about
 * them is the input's. The fake network aborts when the device breaks the contract of
 * net_backend.h, the sanitizers when it leaves guest memory, which is allocated exactly.
 */
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAM = 128 << 10, QUEUES = 3, RINGS = 0x4000, DATA = 3 * RINGS, ROUNDS_MAX = 64 };

struct fuzz {
    struct machine m;
    struct fake_net fake;
    struct virtio_device *d;
    struct virtqueue queue[QUEUES];
    bool resetting;
};

static void on_interrupt(struct virtio_device *d, uint16_t vector) {}

static void on_event(struct virtio_device *d) {}

static void on_reset_done(struct virtio_device *d)
{
    struct fuzz *f = d->transport_data;

    for (unsigned q = 0; q < QUEUES; q++)
        virtqueue_stop(&f->queue[q]);
    d->status = 0;
    f->resetting = false;
}

static void on_queue_reset_done(struct virtio_device *d, unsigned q)
{
    virtqueue_stop(&((struct fuzz *)d->transport_data)->queue[q]);
}

static const struct virtio_transport_ops transport = {
    .queue_interrupt = on_interrupt,
    .config_changed = on_event,
    .status_changed = on_event,
    .reset_done = on_reset_done,
    .queue_reset_done = on_queue_reset_done,
};

static void start_queue(struct fuzz *f, unsigned q)
{
    struct virtqueue *vq = &f->queue[q];
    uint8_t *rings = f->m.memory.low + q * RINGS;

    memset(rings, 0, RINGS);
    *vq = (struct virtqueue){.device = f->d,
                             .memory = &f->m.memory,
                             .index = (uint16_t)q,
                             .size = vq->size,
                             .enabled = true,
                             .desc = gpa(q * RINGS),
                             .driver = gpa(q * RINGS + 0x1000),
                             .device_area = gpa(q * RINGS + 0x2000)};
    if (virtqueue_start(vq, f->d->negotiated, NULL) < 0)
        abort();
}

static void driver_ok(struct fuzz *f, const uint8_t *parameters)
{
    uint64_t features = f->d->offered | QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC);

    if (parameters[0] & 1)
        features |= QZ_BIT(VIRTIO_F_RING_PACKED);
    if (parameters[0] & 2)
        features |= QZ_BIT(VIRTIO_RING_F_EVENT_IDX);
    if (parameters[0] & 4)
        features &= ~QZ_BIT(VIRTIO_NET_F_MRG_RXBUF);
    if (parameters[0] & 8)
        features &= ~(QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_CSUM));
    if (parameters[0] & 16)
        features &= ~QZ_BIT(VIRTIO_NET_F_MTU);
    f->d->negotiated = features;
    for (unsigned q = 0; q < QUEUES; q++) {
        f->queue[q].size = (uint16_t)(1u << (parameters[1 + q] & 7));
        start_queue(f, q);
    }
    f->d->active = true;
}

static void put(uint8_t *table, unsigned slot, uint64_t address, uint32_t len, uint16_t third,
                uint16_t fourth)
{
    qz_store_le64(table + slot * 16, address);
    qz_store_le32(table + slot * 16 + 8, len);
    qz_store_le16(table + slot * 16 + 12, third);
    qz_store_le16(table + slot * 16 + 14, fourth);
}

/*
 * Makes one descriptor available. b: step, queue, flags, index, address (16 bits, in units of 8),
 * length (16 bits).
 */
static void offer(struct fuzz *f, unsigned q, const uint8_t *b)
{
    struct virtqueue *vq = &f->queue[q];
    uint8_t *low = f->m.memory.low, *desc = low + vq->desc.v, *avail = low + vq->driver.v;
    uint16_t flags = b[2] & 7, slot = b[3] % vq->size, idx;
    uint32_t len = qz_load_le16(b + 6);
    uint64_t address = DATA + qz_load_le16(b + 4) % ((RAM - DATA) / 8) * 8;

    if (!vq->desc_span.data)
        return;
    if (b[2] & 8) /* what this queue's buffers should look like */
        flags = q == 0 ? VRING_DESC_F_WRITE : 0;
    if (!(b[2] & 16))
        len %= 2048;
    if (flags & VRING_DESC_F_INDIRECT)
        len &= ~15u;
    if (vq->packed) {
        slot = vq->last_avail;
        flags |= vq->avail_wrap ? 0x80 : 0x8000;
    }
    put(desc, slot, address, len, vq->packed ? slot : flags,
        vq->packed ? flags : (slot + 1) % vq->size);
    if (vq->packed)
        return;
    idx = qz_load_le16(avail + 2);
    qz_store_le16(avail + 4 + 2 * (idx & (vq->size - 1)), slot);
    qz_store_le16(avail + 2, idx + 1);
}

/* A command of the right shape: class, number, length and the counts in it are the input's. */
static void offer_command(struct fuzz *f, const uint8_t *b)
{
    struct virtqueue *vq = &f->queue[2];
    uint8_t *low = f->m.memory.low, *desc = low + vq->desc.v, *avail = low + vq->driver.v;
    uint8_t *bytes = low + DATA;
    uint16_t idx, slot = b[1] % vq->size, next = (slot + 1) % vq->size;

    if (vq->size < 2 || !vq->desc_span.data)
        return;
    bytes[0] = b[2] % 4;
    bytes[1] = b[3] % 7;
    memcpy(bytes + 2, b + 4, 4);
    if (b[2] & 16)
        qz_store_le32(bytes + 2, b[4] % 4); /* and the second count is 0 where memory is */
    if (vq->packed) {
        uint16_t first = vq->avail_wrap ? 0x80 : 0x8000;

        slot = vq->last_avail;
        next = (slot + 1) % vq->size;
        put(desc, next, DATA + 0x800, 1, slot,
            VRING_DESC_F_WRITE | (next ? first : first ^ 0x8080));
        put(desc, slot, DATA, 1u + b[5] % 32, slot, VRING_DESC_F_NEXT | first);
        return;
    }
    put(desc, slot, DATA, 1u + b[5] % 32, VRING_DESC_F_NEXT, next);
    put(desc, next, DATA + 0x800, 1, VRING_DESC_F_WRITE, 0);
    idx = qz_load_le16(avail + 2);
    qz_store_le16(avail + 4 + 2 * (idx & (vq->size - 1)), slot);
    qz_store_le16(avail + 2, idx + 1);
}

static void notify(struct fuzz *f, unsigned q)
{
    pthread_mutex_lock(&f->d->lock);
    if (f->d->active)
        f->d->ops->notify(f->d, q);
    pthread_mutex_unlock(&f->d->lock);
}

static void run_loop(struct fuzz *f)
{
    for (unsigned i = 0; i < ROUNDS_MAX; i++)
        if (qz_loop_once(f->m.main_loop, 0) == 0)
            return;
    abort(); /* the device keeps itself busy with nothing */
}

static void step(struct fuzz *f, const uint8_t *parameters, const uint8_t *b)
{
    static const uint8_t frame[NET_FRAME_MAX];
    unsigned q = b[1] % QUEUES;
    uint16_t operand = qz_load_le16(b + 4);

    switch (b[0] % 12) {
    default:
        offer(f, q, b);
        break;
    case 3:
        offer_command(f, b);
        break;
    case 4:
    case 5:
        notify(f, q);
        break;
    case 6: /* something in the rings or buffers changes; headers above all */
        memcpy(f->m.memory.low + (b[1] & 1 ? operand : DATA + operand % (RAM - DATA - 4)), b + 4,
               4);
        break;
    case 7:
    case 8: /* b + 2: flags and segmentation type */
        if (f->fake.started && f->fake.rx_count < 16) {
            uint8_t header[NET_HEADER] = {b[2], b[3]};

            fake_net_arrives(&f->fake, header, frame,
                             b[1] & 1 ? operand : QZ_MIN(operand % 3000u, sizeof(frame)));
        }
        break;
    case 9:
        fake_net_takes(&f->fake, b[1] & 1 ? UINT32_MAX : b[2] % 4);
        f->fake.refuses = b[1] & 6 ? 0 : -EIO;
        f->fake.rx_error = b[3] & 7 ? 0 : -EIO;
        break;
    case 10:
        pthread_mutex_lock(&f->d->lock);
        if (b[1] & 1) {
            f->d->ops->queue_reset(f->d, q);
            start_queue(f, q);
        } else if (!(b[2] & 7)) {
            f->d->active = false;
            f->resetting = true;
            f->d->ops->reset(f->d);
            if (f->resetting)
                abort();
            driver_ok(f, b[3] & 1 ? b + 4 : parameters);
        }
        pthread_mutex_unlock(&f->d->lock);
        break;
    case 11:
        run_loop(f);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz *f = calloc(1, sizeof(*f));
    struct virtio_net_options options = {.mac = {2}, .mtu = 1500};
    uint8_t parameters[4] = {0};
    struct qz_error err;

    if (!f)
        return 0;
    f->m.memory = (struct guest_memory){
        .fd = -1, .size = RAM, .low_size = RAM, .low = aligned_alloc(4096, RAM)};
    fake_net_init(&f->fake, QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) |
                                QZ_BIT(VIRTIO_NET_F_HOST_TSO4) | QZ_BIT(VIRTIO_NET_F_GUEST_TSO4));
    options.backend = &f->fake.b;
    if (!f->m.memory.low || qz_loop_new(&f->m.main_loop, &err) < 0 ||
        virtio_net_new(&f->d, &f->m, f->m.main_loop, &options, &err) < 0)
        abort();
    memset(f->m.memory.low, 0, RAM);
    pthread_mutex_init(&f->d->lock, NULL);
    f->d->queue = f->queue;
    f->d->transport = &transport;
    f->d->transport_data = f;
    memcpy(parameters, data, QZ_MIN(size, sizeof(parameters)));
    driver_ok(f, parameters);
    notify(f, 0);
    for (size_t at = sizeof(parameters); at + 8 <= size; at += 8)
        step(f, parameters, data + at);
    run_loop(f);
    for (unsigned q = 0; q < QUEUES; q++) {
        if (f->queue[q].in_flight) /* between frames the device holds nothing */
            abort();
        virtqueue_stop(&f->queue[q]);
    }
    f->d->active = false;
    f->d->ops->free(f->d);
    qz_loop_free(f->m.main_loop);
    free(f->m.memory.low);
    free(f);
    return 0;
}

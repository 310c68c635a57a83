/*
 * virtqueue_fuzz.c - a driver that writes anything into its rings, at any time.
 *
 * The input is 16 bytes of parameters, then guest memory (64 KiB, exactly allocated, so that the
 * sanitizer sees a step outside), then what is done: pops, pushes in any order, unpops, interrupts,
 * and more bytes written into the rings meanwhile. Aborts when a chain points outside memory, when
 * books do not balance, or when more is in flight than the ring has.
 */
#include <linux/virtio_ring.h>

#include "devices/virtio/virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAM = 65536, SEGMENTS = 32, HELD = 64 };

static unsigned fails;

static void on_interrupt(struct virtio_device *d, uint16_t vector) {}

static void on_status(struct virtio_device *d)
{
    fails++;
}

static const struct virtio_transport_ops transport = {.queue_interrupt = on_interrupt,
                                                      .status_changed = on_status};
static const struct virtio_device_ops ops = {.name = "fuzz"};

static void check(const struct guest_memory *m, const struct virtqueue *vq,
                  const struct virtqueue_chain *c)
{
    uint64_t out = 0, in = 0;

    if (c->out_count + c->in_count > SEGMENTS || c->out_count + c->in_count == 0 ||
        !vq->in_flight || vq->in_flight > vq->size || vq->slots_in_flight > vq->size)
        abort();
    for (unsigned i = 0; i < c->out_count + c->in_count; i++) {
        const uint8_t *p = c->iov[i].iov_base;

        if (!c->iov[i].iov_len || p < m->low || c->iov[i].iov_len > (size_t)(m->low + RAM - p))
            abort();
        *(i < c->out_count ? &out : &in) += c->iov[i].iov_len;
    }
    if (out != c->out_bytes || in != c->in_bytes)
        abort();
}

/*
 * Writes one descriptor, mostly plausible, and perhaps makes it available. b: 8 bytes: operation,
 * how, index, flags, address (16 bits, in units of 4), length, next or id.
 */
static void offer(const struct guest_memory *m, const struct virtqueue *vq, const uint8_t *b)
{
    bool table = b[1] & 1;
    uint64_t ring = table ? 0x4000 : vq->desc.v;
    uint16_t flags = b[3] & 7;
    unsigned slots = table ? 8 : vq->size, i = b[2] % slots;
    uint8_t *d;

    if (!table && vq->packed)
        i = vq->last_avail;
    d = m->low + ring + i * 16;
    qz_store_le64(d, flags & VRING_DESC_F_INDIRECT ? 0x4000
                                                   : qz_load_le16(b + 4) * (b[1] & 2 ? 4u : 1u));
    qz_store_le32(d + 8, flags & VRING_DESC_F_INDIRECT ? (b[6] % 10) * 16 : b[6]);
    if (vq->packed) {
        qz_store_le16(d + 12, b[7]);
        qz_store_le16(d + 14, flags | (vq->avail_wrap ? 0x80 : 0x8000));
        return;
    }
    qz_store_le16(d + 12, flags);
    qz_store_le16(d + 14, b[7] % (slots + (b[1] & 4 ? 1 : 0)));
    if (!table && b[1] & 8) {
        uint8_t *avail = m->low + vq->driver.v;
        uint16_t idx = qz_load_le16(avail + 2);

        qz_store_le16(avail + 4 + 2 * (idx & (vq->size - 1)), (uint16_t)i);
        qz_store_le16(avail + 2, idx + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t parameters[16] = {0};
    struct guest_memory m = {
        .fd = -1, .size = RAM, .low_size = RAM, .low = aligned_alloc(4096, RAM)};
    struct machine machine = {0}; /* without an accelerator */
    struct virtio_device d = {.ops = &ops, .transport = &transport, .machine = &machine};
    struct virtqueue vq = {.device = &d, .memory = &m};
    static struct iovec iov[HELD][SEGMENTS];
    struct virtqueue_chain held[HELD];
    unsigned n_held = 0;
    uint64_t features;
    size_t at, fill;

    if (!m.low)
        return 0;
    memcpy(parameters, data, QZ_MIN(size, sizeof(parameters)));
    memset(m.low, 0, RAM);
    features = (parameters[0] & 1 ? QZ_BIT(VIRTIO_F_RING_PACKED) : 0) |
               (parameters[0] & 2 ? QZ_BIT(VIRTIO_RING_F_EVENT_IDX) : 0) |
               (parameters[0] & 4 ? 0 : QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    vq.size = parameters[0] & 8 ? (uint16_t)(qz_load_le16(parameters + 2) & 1023)
                                : (uint16_t)(1u << (parameters[2] & 7));
    /* Often a layout that starts, with everything near the front where the input's bytes are. */
    vq.desc = gpa(parameters[0] & 16 ? qz_load_le32(parameters + 4) & 0x1fff0 : 0x40);
    vq.driver = gpa(parameters[0] & 32 ? qz_load_le32(parameters + 8) & 0x1fffc : 0);
    vq.device_area = gpa(parameters[0] & 64 ? qz_load_le32(parameters + 12) & 0x1fffc : 0x8000);
    at = QZ_MIN(size, sizeof(parameters));
    fill = parameters[1] & 6 ? 0 : QZ_MIN((size - at) / 2, (size_t)RAM);
    memcpy(m.low, data + at, fill);
    at += fill;
    if (virtqueue_start(&vq, features, NULL) < 0) {
        free(m.low);
        return 0;
    }
    if (parameters[1] & 1 && !(features & QZ_BIT(VIRTIO_F_RING_PACKED))) /* let the walk begin */
        qz_store_le16(m.low + vq.driver.v + 2, parameters[3] % (vq.size + 1u));
    for (; at + 8 <= size; at += 8) {
        uint16_t operand = qz_load_le16(data + at + 2);
        unsigned pick = n_held ? operand % n_held : 0;
        struct virtqueue_chain last;

        switch (data[at] % 12) {
        case 0:
        case 1:
            if (n_held == HELD)
                break;
            held[n_held] = (struct virtqueue_chain){.iov = iov[n_held],
                                                    .capacity = 1u + data[at + 1] % SEGMENTS};
            if (!virtqueue_pop(&vq, &held[n_held]))
                break;
            check(&m, &vq, &held[n_held]);
            if (data[at + 1] & 128) { /* put it back, take it again */
                last = held[n_held];
                virtqueue_unpop(&vq, &last);
                break;
            }
            /* Write all of it: AddressSanitizer judges the spans; then read through the helper. */
            virtqueue_write(&held[n_held], operand, parameters, sizeof(parameters));
            virtqueue_read(&held[n_held], operand, parameters, sizeof(parameters));
            n_held++;
            break;
        case 2:
        case 3:
            if (!n_held)
                break;
            virtqueue_push(&vq, &held[pick], operand);
            /* Chains carry pointers to their iov slot; keep both together. */
            memcpy(iov[pick], iov[n_held - 1], sizeof(iov[0]));
            held[pick] = held[n_held - 1];
            held[pick].iov = iov[pick];
            n_held--;
            break;
        case 4:
            virtqueue_interrupt(&vq);
            break;
        case 5:
            virtqueue_notify_disable(&vq);
            break;
        case 6:
            virtqueue_notify_enable(&vq);
            break;
        case 7:
        case 8:
        case 9:
        case 10: /* the driver goes on */
            offer(&m, &vq, data + at);
            break;
        default:
            m.low[operand] = data[at + 1];
        }
        if (vq.in_flight != n_held || vq.slots_in_flight > vq.size)
            abort();
    }
    while (n_held)
        virtqueue_push(&vq, &held[--n_held], 1);
    if (vq.in_flight || vq.slots_in_flight)
        abort();
    virtqueue_stop(&vq);
    free(m.low);
    return 0;
}

/*
 * mmio.c - the virtio-mmio transport, version 2 (VirtIO 1.3 §4.2).
 */
#include "internal.h"

enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080, /* low half; the high half follows */
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_QUEUE_RESET = 0x0c0,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

enum { MAGIC = 0x74726976, VERSION = 2, RESET_TRIES = 100000 };

static struct vblk_mmio *of(struct vblk_transport *t)
{
    return (struct vblk_mmio *)(void *)((char *)t - offsetof(struct vblk_mmio, t));
}

static uint32_t get(const struct vblk_mmio *m, unsigned reg)
{
    const struct vblk_platform *p = m->t.platform;

    return (uint32_t)p->reg_read(p->ctx, m->base + reg, 4);
}

static void put(const struct vblk_mmio *m, unsigned reg, uint32_t value)
{
    const struct vblk_platform *p = m->t.platform;

    p->reg_write(p->ctx, m->base + reg, 4, value);
}

static void put64(const struct vblk_mmio *m, unsigned reg, uint64_t value)
{
    put(m, reg, (uint32_t)value);
    put(m, reg + 4, (uint32_t)(value >> 32));
}

static uint64_t get_features(struct vblk_transport *t)
{
    struct vblk_mmio *m = of(t);
    uint64_t high;

    put(m, REG_DEVICE_FEATURES_SEL, 1);
    high = get(m, REG_DEVICE_FEATURES);
    put(m, REG_DEVICE_FEATURES_SEL, 0);
    return high << 32 | get(m, REG_DEVICE_FEATURES);
}

static int set_features(struct vblk_transport *t, uint64_t features)
{
    struct vblk_mmio *m = of(t);

    put(m, REG_DRIVER_FEATURES_SEL, 1);
    put(m, REG_DRIVER_FEATURES, (uint32_t)(features >> 32));
    put(m, REG_DRIVER_FEATURES_SEL, 0);
    put(m, REG_DRIVER_FEATURES, (uint32_t)features);
    return 0;
}

static uint8_t get_status(struct vblk_transport *t)
{
    return (uint8_t)get(of(t), REG_STATUS);
}

/* Waits, bounded, until a register reads 0. */
static int wait_zero(const struct vblk_mmio *m, unsigned reg)
{
    const struct vblk_platform *p = m->t.platform;

    for (unsigned i = 0; i < RESET_TRIES; i++) {
        if (get(m, reg) == 0)
            return 0;
        if (p->relax)
            p->relax(p->ctx);
    }
    return -VBLK_ETIMEDOUT;
}

static int set_status(struct vblk_transport *t, uint8_t status)
{
    put(of(t), REG_STATUS, status);
    return status ? 0 : wait_zero(of(t), REG_STATUS);
}

/* Each field is read with its own width (§4.2.2.2); the layout of §5.2.4 allows 4, 2 and 1. */
static int config_read(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    const struct vblk_platform *p = t->platform;
    uint64_t base = of(t)->base + REG_CONFIG;
    uint8_t *at = to;

    while (len) {
        unsigned width = offset % 4 == 0 && len >= 4 ? 4 : 1;
        uint32_t v = (uint32_t)p->reg_read(p->ctx, base + offset, width);

        for (unsigned i = 0; i < width; i++)
            *at++ = (uint8_t)(v >> 8 * i);
        offset += width;
        len -= width;
    }
    return 0;
}

static int config_write(struct vblk_transport *t, unsigned offset, const void *from, unsigned len)
{
    const struct vblk_platform *p = t->platform;
    const uint8_t *at = from;

    for (unsigned i = 0; i < len; i++)
        p->reg_write(p->ctx, of(t)->base + REG_CONFIG + offset + i, 1, at[i]);
    return 0;
}

static uint32_t config_generation(struct vblk_transport *t)
{
    return get(of(t), REG_CONFIG_GENERATION);
}

static unsigned queue_depth_max(struct vblk_transport *t, unsigned queue)
{
    struct vblk_mmio *m = of(t);

    put(m, REG_QUEUE_SEL, queue);
    if (get(m, REG_QUEUE_READY)) /* someone else's: it was not reset */
        return 0;
    return get(m, REG_QUEUE_NUM_MAX);
}

static int queue_enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                        const struct vblk_ring_addresses *a, bool interrupts)
{
    struct vblk_mmio *m = of(t);

    put(m, REG_QUEUE_SEL, queue);
    put(m, REG_QUEUE_NUM, depth);
    put64(m, REG_QUEUE_DESC, a->desc);
    put64(m, REG_QUEUE_DRIVER, a->driver);
    put64(m, REG_QUEUE_DEVICE, a->device);
    put(m, REG_QUEUE_READY, 1);
    return get(m, REG_QUEUE_READY) == 1 ? 0 : -VBLK_EIO;
}

static int queue_reset(struct vblk_transport *t, unsigned queue)
{
    struct vblk_mmio *m = of(t);

    put(m, REG_QUEUE_SEL, queue);
    put(m, REG_QUEUE_RESET, 1);
    if (wait_zero(m, REG_QUEUE_RESET) < 0)
        return -VBLK_ETIMEDOUT;
    /* QEMU 7.2 offers RING_RESET here without having the register: the queue is still ready then.
     */
    return get(m, REG_QUEUE_READY) ? -VBLK_ENOTSUP : 0;
}

static void notify(struct vblk_transport *t, unsigned queue, uint32_t data)
{
    const struct vblk_platform *p = t->platform;

    p->reg_write(p->ctx, of(t)->notify, 4, data);
}

static uint32_t interrupt_status(struct vblk_transport *t)
{
    struct vblk_mmio *m = of(t);
    uint32_t why = get(m, REG_INTERRUPT_STATUS);

    put(m, REG_INTERRUPT_ACK, why & 3);
    return why & 3;
}

static const struct vblk_transport_ops ops = {
    .name = "mmio",
    .get_features = get_features,
    .set_features = set_features,
    .get_status = get_status,
    .set_status = set_status,
    .config_read = config_read,
    .config_write = config_write,
    .config_generation = config_generation,
    .queue_depth_max = queue_depth_max,
    .queue_enable = queue_enable,
    .queue_reset = queue_reset,
    .notify = notify,
    .interrupt_status = interrupt_status,
};

int qz_vblk_mmio_init(struct vblk_mmio *m, const struct vblk_platform *p, uint64_t base)
{
    *m = (struct vblk_mmio){.t = {&ops, p}, .base = base, .notify = base + REG_QUEUE_NOTIFY};
    if (get(m, REG_MAGIC) != MAGIC || get(m, REG_VERSION) != VERSION ||
        get(m, REG_DEVICE_ID) != VIRTIO_ID_BLOCK)
        return -VBLK_ENODEV;
    return 0;
}

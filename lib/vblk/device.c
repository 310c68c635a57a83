/*
 * device.c - a device: creating, negotiating (VirtIO 1.3 §3.1), starting and stopping.
 */
#include "device.h"

static const uint64_t features_known =
    VBLK_BIT(VBLK_F_SIZE_MAX) | VBLK_BIT(VBLK_F_SEG_MAX) | VBLK_BIT(VBLK_F_RO) |
    VBLK_BIT(VBLK_F_BLK_SIZE) | VBLK_BIT(VBLK_F_FLUSH) | VBLK_BIT(VBLK_F_CONFIG_WCE) |
    VBLK_BIT(VBLK_F_MQ) | VBLK_BIT(VBLK_F_DISCARD) | VBLK_BIT(VBLK_F_WRITE_ZEROES) |
    VBLK_BIT(VBLK_F_LIFETIME) | VBLK_BIT(VBLK_F_SECURE_ERASE) | VBLK_BIT(VBLK_F_ZONED) |
    VBLK_BIT(VBLK_F_INDIRECT_DESC) | VBLK_BIT(VBLK_F_EVENT_IDX) | VBLK_BIT(VBLK_F_VERSION_1) |
    VBLK_BIT(VBLK_F_ACCESS_PLATFORM) | VBLK_BIT(VBLK_F_RING_PACKED) | VBLK_BIT(VBLK_F_IN_ORDER) |
    VBLK_BIT(VBLK_F_NOTIFICATION_DATA) | VBLK_BIT(VBLK_F_RING_RESET);

void qz_vblk_config_default(struct vblk_config *c)
{
    *c = (struct vblk_config){.queue_count = 1,
                              .queue_depth = 128,
                              .segments_max = 32,
                              .ranges_max = 16,
                              .batch = true,
                              .zero_copy = true,
                              .bounce_bytes = 64 << 10,
                              .coalesce_threshold = 16,
                              .coalesce_time_us = 50};
}

static bool config_valid(const struct vblk_config *c)
{
    return c->queue_count >= 1 && c->queue_count <= VBLK_QUEUES_MAX && c->queue_depth >= 4 &&
           c->queue_depth <= VBLK_DEPTH_MAX && c->segments_max >= 1 &&
           c->segments_max <= VBLK_SEGMENTS_MAX && c->ranges_max >= 1 &&
           c->ranges_max <= VBLK_RANGES_MAX && c->scheduler <= VBLK_SCHED_DEADLINE &&
           c->recovery <= VBLK_RECOVER_FAIL &&
           (c->zero_copy || (c->bounce_bytes >= VBLK_SECTOR_SIZE && c->bounce_bytes <= 16 << 20 &&
                             c->bounce_bytes % VBLK_SECTOR_SIZE == 0));
}

static size_t device_part(const struct vblk_config *c)
{
    size_t n = sizeof(struct vblk_device);

    n = (n + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
    return n + c->queue_count * sizeof(struct vblk_queue);
}

size_t qz_vblk_memory_size(const struct vblk_config *c)
{
    return config_valid(c) ? device_part(c) + c->queue_count * queue_private_size(c) : 0;
}

int qz_vblk_create(void *memory, size_t size, struct vblk_transport *t, const struct vblk_config *c,
                   struct vblk_device **out)
{
    size_t need = qz_vblk_memory_size(c);
    struct vblk_device *dev = memory;
    uint8_t *at = memory;

    if (need == 0 || size < need || (uintptr_t)memory % CACHE_LINE)
        return -VBLK_EINVAL;
    *dev = (struct vblk_device){.transport = t, .platform = t->platform, .config = *c};
    dev->queues = (void *)(at + device_part(c) - c->queue_count * sizeof(struct vblk_queue));
    at += device_part(c);
    for (unsigned i = 0; i < c->queue_count; i++)
        queue_init(&dev->queues[i], dev, i, at + i * queue_private_size(c));
    *out = dev;
    return 0;
}

int device_reset(struct vblk_device *dev)
{
    struct vblk_transport *t = dev->transport;
    int rc = t->ops->set_status(t, 0);

    for (unsigned i = 0; i < dev->config.queue_count; i++)
        dev->queues[i].running = false;
    dev->info.queues = 0;
    if (rc == 0 && t->ops->get_status(t) != 0)
        rc = -VBLK_ETIMEDOUT;
    if (rc < 0)
        note(dev->platform, VBLK_LOG_ERROR, "vblk: the device does not reset (error, status)",
             (uint64_t)-rc, t->ops->get_status(t));
    return rc;
}

static int status_add(struct vblk_device *dev, uint8_t *status, uint8_t bit)
{
    struct vblk_transport *t = dev->transport;

    *status |= bit;
    return t->ops->set_status(t, *status);
}

static int negotiate(struct vblk_device *dev, uint8_t *status)
{
    struct vblk_transport *t = dev->transport;
    uint64_t wanted = features_known & ~dev->config.features_off;
    int rc;

    if (dev->platform->barrier)
        wanted |= VBLK_BIT(VBLK_F_ORDER_PLATFORM);
    if (!t->ops->queue_reset)
        wanted &= ~VBLK_BIT(VBLK_F_RING_RESET);
    dev->info.offered = t->ops->get_features(t);
    dev->info.features = dev->info.offered & wanted;
    if (!(dev->info.features & VBLK_BIT(VBLK_F_VERSION_1))) {
        note(dev->platform, VBLK_LOG_ERROR, "vblk: the device has no VIRTIO_F_VERSION_1 (features)",
             dev->info.offered, 0);
        return -VBLK_ENOTSUP;
    }
    rc = t->ops->set_features(t, dev->info.features);
    if (rc == 0)
        rc = status_add(dev, status, STATUS_FEATURES_OK);
    if (rc < 0)
        return rc;
    if (!(t->ops->get_status(t) & STATUS_FEATURES_OK)) {
        note(dev->platform, VBLK_LOG_ERROR,
             "vblk: the device refuses the features (wanted, offered)", dev->info.features,
             dev->info.offered);
        return -VBLK_ENOTSUP;
    }
    return 0;
}

static unsigned power_of_two_below(unsigned n)
{
    return n ? 1u << (31 - __builtin_clz(n)) : 0;
}

/* A chain may not be longer than the ring, with or without indirection (§2.7.5.3.1, §2.8.19). */
static unsigned depth_of(struct vblk_device *dev, unsigned index)
{
    struct vblk_transport *t = dev->transport;
    unsigned most = t->ops->queue_depth_max(t, index);

    return power_of_two_below(most < dev->config.queue_depth ? most : dev->config.queue_depth);
}

static int queues_start(struct vblk_device *dev)
{
    struct vblk_transport *t = dev->transport;
    unsigned want = dev->config.queue_count, depth = 0;
    int rc = 0;

    if (want > dev->info.queues_offered)
        want = dev->info.queues_offered;
    for (unsigned i = 0; i < want && i < dev->config.queue_count; i++) {
        struct vblk_queue *q = &dev->queues[i];
        unsigned d = depth_of(dev, i);

        if (d < 4) {
            rc = -VBLK_ENODEV;
            break;
        }
        if (i == 0) {
            depth = d;
            if (dev->info.segments_max > d - 2)
                dev->info.segments_max = d - 2;
        } else if (d < depth) { /* limits were made for the first */
            rc = -VBLK_ENODEV;
            break;
        }
        rc = queue_build(q, depth);
        if (rc == 0)
            rc = t->ops->queue_enable(t, i, depth, &q->addresses, dev->config.interrupts);
        if (rc < 0)
            break;
        dev->info.queues++;
    }
    dev->info.depth = depth;
    if (dev->info.queues == 0) {
        note(dev->platform, VBLK_LOG_ERROR, "vblk: no queue can be used (offered, error)",
             dev->info.queues_offered, (uint64_t)-rc);
        return rc < 0 ? rc : -VBLK_ENODEV;
    }
    if (dev->info.queues < want)
        note(dev->platform, VBLK_LOG_WARN,
             "vblk: degraded, fewer queues run than wanted (run, wanted)", dev->info.queues, want);
    return 0;
}

int device_bring_up(struct vblk_device *dev)
{
    uint8_t status = 0;
    int rc;

    rc = status_add(dev, &status, STATUS_ACKNOWLEDGE);
    if (rc == 0)
        rc = status_add(dev, &status, STATUS_DRIVER);
    if (rc == 0)
        rc = negotiate(dev, &status);
    if (rc == 0)
        rc = config_read(dev);
    if (rc == 0)
        rc = queues_start(dev);
    if (rc == 0)
        rc = status_add(dev, &status, STATUS_DRIVER_OK);
    if (rc < 0) {
        status_add(dev, &status, STATUS_FAILED);
        return rc;
    }
    for (unsigned i = 0; i < dev->info.queues; i++)
        dev->queues[i].running = true;
    return 0;
}

static void on_interrupt(void *arg)
{
    struct vblk_queue *q = arg;
    struct vblk_device *dev = q->dev;

    q->stats.interrupts++;
    if (dev->config.event)
        dev->config.event(dev->config.event_arg, q->index);
}

/* The configuration's vector, and the only one of a device that has a single interrupt. */
static void on_device_interrupt(void *arg)
{
    struct vblk_device *dev = arg;
    struct vblk_transport *t = dev->transport;
    uint32_t why = t->ops->interrupt_status ? t->ops->interrupt_status(t) : 2;

    for (unsigned i = 0; why & 1 && i < dev->info.queues; i++)
        on_interrupt(&dev->queues[i]);
    if (why & 2 && dev->config.event)
        dev->config.event(dev->config.event_arg, VBLK_CONFIG_CHANGED);
}

static int interrupts_attach(struct vblk_device *dev, bool on)
{
    const struct vblk_platform *p = dev->platform;
    int rc = 0;

    if (!dev->config.interrupts || !p->irq_attach)
        return 0;
    rc = p->irq_attach(p->ctx, 0, on ? on_device_interrupt : NULL, dev);
    for (unsigned i = 0; rc == 0 && i < dev->config.queue_count; i++)
        rc = p->irq_attach(p->ctx, 1 + i, on ? on_interrupt : NULL, &dev->queues[i]);
    return rc;
}

/* A device that did not reset may still write to its memory: then nobody else gets that. */
static void free_dma(struct vblk_device *dev, int reset_rc)
{
    for (unsigned i = 0; reset_rc == 0 && i < dev->config.queue_count; i++)
        queue_free_dma(&dev->queues[i]);
}

int qz_vblk_start(struct vblk_device *dev)
{
    int rc;

    if (dev->started)
        return -VBLK_EBUSY;
    rc = interrupts_attach(dev, true);
    if (rc < 0)
        return rc;
    rc = device_reset(dev);
    if (rc == 0)
        rc = device_bring_up(dev);
    if (rc < 0) {
        free_dma(dev, device_reset(dev));
        interrupts_attach(dev, false);
        return rc;
    }
    dev->started = true;
    return 0;
}

int qz_vblk_stop(struct vblk_device *dev)
{
    int rc;

    if (!dev->started)
        return 0;
    rc = device_reset(dev);
    interrupts_attach(dev, false);
    for (unsigned i = 0; i < dev->config.queue_count; i++) {
        struct vblk_queue *q = &dev->queues[i];
        struct vblk_request *r, *next;

        for (r = queue_take_in_flight(q); r; r = next) {
            next = r->next;
            queue_fail(q, r, -VBLK_ECANCELED);
        }
        for (r = waiting_take(&q->waiting, dev->config.scheduler, true, 0); r; r = next) {
            next = r->next;
            queue_fail(q, r, -VBLK_ECANCELED);
        }
        q->broken = false;
    }
    free_dma(dev, rc);
    dev->started = false;
    return rc;
}

void qz_vblk_get_info(const struct vblk_device *dev, struct vblk_info *info)
{
    *info = dev->info;
}

struct vblk_queue *qz_vblk_queue(struct vblk_device *dev, unsigned index)
{
    return index < dev->config.queue_count ? &dev->queues[index] : NULL;
}

void qz_vblk_get_queue_info(const struct vblk_queue *q, struct vblk_queue_info *info)
{
    *info = (struct vblk_queue_info){.running = q->running,
                                     .broken = q->broken,
                                     .packed = q->packed,
                                     .indirect = q->indirect,
                                     .event_idx = q->event_idx,
                                     .in_order = q->in_order,
                                     .depth = q->size,
                                     .in_flight = q->in_flight,
                                     .waiting = q->waiting.count,
                                     .dma_bytes = q->dma ? q->dma_size : 0};
}

int qz_vblk_set_feature(struct vblk_device *dev, unsigned bit, bool on)
{
    if (!qz_vblk_feature_name(bit) || bit == VBLK_F_VERSION_1)
        return -VBLK_EINVAL;
    if (on)
        dev->config.features_off &= ~VBLK_BIT(bit);
    else
        dev->config.features_off |= VBLK_BIT(bit);
    return dev->started ? qz_vblk_recover(dev) : 0;
}

/*
 * device.c - checks of §2.1 to §2.6 and §6.2: status, features, reset, configuration, queue reset.
 */
#include "checks.h"

/* vhost-user has no device status of its own: whether rings run is its own matter. */
static bool has_status(const struct conform *c)
{
    return c->dev->transport->ops->name[0] != 'v';
}

static struct vblk_request read_of(struct conform *c)
{
    return (struct vblk_request){.op = VBLK_OP_READ, .count = 1, .segment = {c->data, BLOCK}};
}

/* The device with its rings built and enabled, all but DRIVER_OK. */
static bool almost_started(struct conform *c, struct vblk_queue *q)
{
    struct vblk_device *dev = c->dev;
    struct vblk_transport *t = dev->transport;
    unsigned depth = q->size;
    uint8_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

    queue_take_in_flight(q);
    return device_reset(dev) == 0 && t->ops->set_status(t, STATUS_ACKNOWLEDGE) == 0 &&
           t->ops->set_status(t, status) == 0 && t->ops->set_features(t, dev->info.features) == 0 &&
           t->ops->set_status(t, status | STATUS_FEATURES_OK) == 0 && queue_build(q, depth) == 0 &&
           t->ops->queue_enable(t, q->index, depth, &q->addresses, false) == 0;
}

enum conform_result check_driver_ok(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_transport *t = c->dev->transport;
    struct vblk_request r = read_of(c);

    if (!has_status(c))
        return CONFORM_SKIPPED;
    if (!almost_started(c, q) || request_put(q, &r) < 0)
        return fail(c, "it cannot be started");
    ring_publish(q);
    conform_quiet(c);
    if (conform_used(q))
        return fail(c, "a buffer was used before DRIVER_OK");
    t->ops->set_status(t,
                       STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    t->ops->notify(t, q->index, ring_notification(q));
    return verdict(c, conform_wait(c, q, q->last_slot), "no answer after DRIVER_OK");
}

enum conform_result check_version_1(struct conform *c)
{
    return verdict(c, c->dev->info.offered & VBLK_BIT(VBLK_F_VERSION_1),
                   "VERSION_1 is not offered");
}

enum conform_result check_undescribed(struct conform *c)
{
    /* Block devices: bits 0 to 17 but for 3 and 8 (§5.2.3, with the legacy ones); all devices: 24,
     * 27 to 30 and 32 to 41. vhost-user's own: 26 and, told apart by the transport, 30. */
    uint64_t known = 0x3ffff ^ (1 << 3 | 1 << 8);

    for (unsigned bit = 24; bit <= 41; bit++)
        if (bit != 25 && bit != 31 && (bit != 26 || !has_status(c)))
            known |= VBLK_BIT(bit);
    return verdict(c, !(c->dev->info.offered & ~known), "a bit that the specification reserves");
}

enum conform_result check_subsets(struct conform *c)
{
    static const unsigned each[] = {VBLK_F_INDIRECT_DESC, VBLK_F_EVENT_IDX, VBLK_F_RING_PACKED,
                                    VBLK_F_FLUSH,         VBLK_F_MQ,        VBLK_F_SEG_MAX};

    for (unsigned i = 0; i <= sizeof(each) / sizeof(each[0]); i++) {
        uint64_t off = c->dev->config.features_off, less;

        less = i < sizeof(each) / sizeof(each[0]) ? VBLK_BIT(each[i]) : ~VBLK_BIT(VBLK_F_VERSION_1);
        if (!conform_restart(c, less))
            return fail(c, "a subset of the features is refused");
        c->dev->config.features_off = off;
        if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
            return fail(c, "a read failed with a subset of the features");
    }
    return CONFORM_PASSED;
}

enum conform_result check_status_zero(struct conform *c)
{
    struct vblk_transport *t = c->dev->transport;

    if (!has_status(c))
        return CONFORM_SKIPPED;
    return verdict(c, t->ops->set_status(t, 0) == 0 && t->ops->get_status(t) == 0,
                   "the status is not 0 after a reset");
}

enum conform_result check_reset_quiet(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_request r = read_of(c);

    if (device_reset(c->dev) < 0)
        return fail(c, "it does not reset");
    conform_fill(c, 0x77, BLOCK);
    if (request_put(q, &r) < 0)
        return fail(c, "no request");
    ring_publish(q);
    conform_quiet(c);
    return verdict(c, !conform_used(q) && conform_holds(c, 0x77, BLOCK),
                   "a queue was served after the reset");
}

enum conform_result check_config_early(struct conform *c)
{
    enum { LEN = offsetof(struct virtio_blk_config, max_secure_erase_sectors) };
    struct vblk_transport *t = c->dev->transport;
    uint8_t before[LEN] = {0}, early[LEN] = {0};
    unsigned len = has(c, VBLK_F_WRITE_ZEROES) ? LEN : offsetof(struct virtio_blk_config, geometry);

    if (t->ops->config_read(t, 0, before, len) < 0)
        return fail(c, "the configuration cannot be read");
    if (device_reset(c->dev) < 0 || t->ops->set_status(t, STATUS_ACKNOWLEDGE) < 0 ||
        t->ops->set_status(t, STATUS_ACKNOWLEDGE | STATUS_DRIVER) < 0 ||
        t->ops->config_read(t, 0, early, len) < 0)
        return fail(c, "it cannot be read before FEATURES_OK");
    return verdict(c, __builtin_memcmp(before, early, len) == 0,
                   "fields differ before and after FEATURES_OK");
}

enum conform_result check_queue_reset(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_transport *t = c->dev->transport;
    struct vblk_request r = read_of(c);
    int rc = has(c, VBLK_F_RING_RESET) ? t->ops->queue_reset(t, 0) : -VBLK_ENOTSUP;

    if (rc == -VBLK_ENOTSUP) /* QEMU's virtio-mmio offers the feature without its register */
        return CONFORM_SKIPPED;
    if (rc < 0)
        return fail(c, "the queue does not reset");
    conform_fill(c, 0x77, BLOCK);
    if (request_put(q, &r) < 0)
        return fail(c, "no request");
    ring_publish(q);
    conform_quiet(c);
    return verdict(c, !conform_used(q) && conform_holds(c, 0x77, BLOCK),
                   "the queue was served after its reset");
}

/* With half the depth: three laps tell that the device begins at the beginning and knows the end.
 */
enum conform_result check_queue_reenable(struct conform *c)
{
    struct vblk_queue *q = qz_vblk_queue(c->dev, 0);
    struct vblk_transport *t = c->dev->transport;
    unsigned depth = q->size / 2;
    int rc;

    if (!has(c, VBLK_F_RING_RESET))
        return CONFORM_SKIPPED;
    if (!conform_move(c, VBLK_OP_READ, 0, BLOCK))
        return fail(c, "no answer");
    rc = t->ops->queue_reset(t, 0);
    if (rc == -VBLK_ENOTSUP)
        return CONFORM_SKIPPED;
    if (rc < 0 || queue_build(q, depth) < 0 ||
        t->ops->queue_enable(t, 0, depth, &q->addresses, false) < 0)
        return fail(c, "the queue does not come back");
    for (unsigned i = 0; i < 3 * depth; i++)
        if (!conform_move(c, VBLK_OP_READ, 0, BLOCK) || c->status)
            return fail(c, "a read failed on the queue with another depth");
    return CONFORM_PASSED;
}

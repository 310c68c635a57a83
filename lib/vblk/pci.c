/*
 * pci.c - the modern virtio-pci transport (VirtIO 1.3 §4.1).
 *
 * The capabilities of the function say where its four structures are. Each is held against the size
 * of its BAR before anything is read there.
 */
#include "internal.h"

enum { PCI_VENDOR = 0, PCI_COMMAND = 4, PCI_STATUS = 6, PCI_CAPABILITIES = 0x34 };
enum { VENDOR_VIRTIO = 0x1af4, DEVICE_MODERN = 0x1042, DEVICE_TRANSITIONAL = 0x1001 };
enum { COMMAND_MEMORY = 2, COMMAND_MASTER = 4, STATUS_CAPS = 0x10 };
enum { CAP_VENDOR = 9, CAP_MSIX = 0x11, CAPS_MAX = 48, BARS = 6 };
enum { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4 };
enum { NO_VECTOR = 0xffff, RESET_TRIES = 100000 };

/* §4.1.4.3 struct virtio_pci_common_cfg */
enum {
    C_DEVICE_FEATURE_SELECT = 0,
    C_DEVICE_FEATURE = 4,
    C_DRIVER_FEATURE_SELECT = 8,
    C_DRIVER_FEATURE = 12,
    C_CONFIG_VECTOR = 16,
    C_NUM_QUEUES = 18,
    C_STATUS = 20,
    C_GENERATION = 21,
    C_QUEUE_SELECT = 22,
    C_QUEUE_SIZE = 24,
    C_QUEUE_VECTOR = 26,
    C_QUEUE_ENABLE = 28,
    C_QUEUE_NOTIFY_OFF = 30,
    C_QUEUE_DESC = 32,
    C_QUEUE_DRIVER = 40,
    C_QUEUE_DEVICE = 48,
    C_QUEUE_RESET = 58,
    C_LEN = 56,       /* without what later versions added */
    C_LEN_RESET = 60, /* with queue_reset */
};

static struct vblk_pci *of(struct vblk_transport *t)
{
    return (struct vblk_pci *)(void *)((char *)t - offsetof(struct vblk_pci, t));
}

static uint64_t get(const struct vblk_pci *d, unsigned reg, unsigned width)
{
    const struct vblk_platform *p = d->t.platform;

    return p->reg_read(p->ctx, d->common.address + reg, width);
}

static void put(const struct vblk_pci *d, unsigned reg, unsigned width, uint64_t value)
{
    const struct vblk_platform *p = d->t.platform;

    p->reg_write(p->ctx, d->common.address + reg, width, value);
}

/* 64-bit fields are written as two halves (§4.1.3.1). */
static void put64(const struct vblk_pci *d, unsigned reg, uint64_t value)
{
    put(d, reg, 4, (uint32_t)value);
    put(d, reg + 4, 4, value >> 32);
}

static uint32_t conf(const struct vblk_pci *d, unsigned offset, unsigned width)
{
    const struct vblk_platform *p = d->t.platform;

    return p->pci_read(p->ctx, d->function, offset, width);
}

static uint64_t get_features(struct vblk_transport *t)
{
    struct vblk_pci *d = of(t);
    uint64_t high;

    put(d, C_DEVICE_FEATURE_SELECT, 4, 1);
    high = get(d, C_DEVICE_FEATURE, 4);
    put(d, C_DEVICE_FEATURE_SELECT, 4, 0);
    return high << 32 | get(d, C_DEVICE_FEATURE, 4);
}

static int set_features(struct vblk_transport *t, uint64_t features)
{
    struct vblk_pci *d = of(t);

    if (features & VBLK_BIT(VBLK_F_RING_RESET) && d->common.len < C_LEN_RESET)
        return -VBLK_ENOTSUP;
    /* The platform has switched MSI-X on where it attached vectors. */
    d->msix = d->msix_capability && conf(d, d->msix_capability + 2, 2) & 0x8000;
    d->notification_data = features & VBLK_BIT(VBLK_F_NOTIFICATION_DATA);
    put(d, C_DRIVER_FEATURE_SELECT, 4, 1);
    put(d, C_DRIVER_FEATURE, 4, features >> 32);
    put(d, C_DRIVER_FEATURE_SELECT, 4, 0);
    put(d, C_DRIVER_FEATURE, 4, (uint32_t)features);
    return 0;
}

static uint8_t get_status(struct vblk_transport *t)
{
    return (uint8_t)get(of(t), C_STATUS, 1);
}

static int wait_zero(const struct vblk_pci *d, unsigned reg, unsigned width)
{
    const struct vblk_platform *p = d->t.platform;

    for (unsigned i = 0; i < RESET_TRIES; i++) {
        if (get(d, reg, width) == 0)
            return 0;
        if (p->relax)
            p->relax(p->ctx);
    }
    return -VBLK_ETIMEDOUT;
}

static int set_status(struct vblk_transport *t, uint8_t status)
{
    put(of(t), C_STATUS, 1, status);
    return status ? 0 : wait_zero(of(t), C_STATUS, 1); /* §4.1.4.3.2 */
}

static int config_read(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    const struct vblk_pci *d = of(t);
    const struct vblk_platform *p = t->platform;
    uint8_t *at = to;

    if (offset > d->device.len || len > d->device.len - offset)
        return -VBLK_EPROTO;
    while (len) {
        unsigned width = offset % 4 == 0 && len >= 4 ? 4 : 1;
        uint32_t v = (uint32_t)p->reg_read(p->ctx, d->device.address + offset, width);

        for (unsigned i = 0; i < width; i++)
            *at++ = (uint8_t)(v >> 8 * i);
        offset += width;
        len -= width;
    }
    return 0;
}

static int config_write(struct vblk_transport *t, unsigned offset, const void *from, unsigned len)
{
    const struct vblk_pci *d = of(t);
    const struct vblk_platform *p = t->platform;
    const uint8_t *at = from;

    if (offset > d->device.len || len > d->device.len - offset)
        return -VBLK_EPROTO;
    for (unsigned i = 0; i < len; i++)
        p->reg_write(p->ctx, d->device.address + offset + i, 1, at[i]);
    return 0;
}

static uint32_t config_generation(struct vblk_transport *t)
{
    return (uint32_t)get(of(t), C_GENERATION, 1);
}

static unsigned queue_depth_max(struct vblk_transport *t, unsigned queue)
{
    struct vblk_pci *d = of(t);

    if (queue >= VBLK_QUEUES_MAX || queue >= get(d, C_NUM_QUEUES, 2))
        return 0;
    put(d, C_QUEUE_SELECT, 2, queue);
    return (unsigned)get(d, C_QUEUE_SIZE, 2);
}

/* A vector reads back as NO_VECTOR when the device could not map it (§4.1.5.1.2.2). */
static int set_vector(const struct vblk_pci *d, unsigned reg, unsigned vector)
{
    put(d, reg, 2, vector);
    return get(d, reg, 2) == vector ? 0 : -VBLK_ENOSPC;
}

static int queue_enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                        const struct vblk_ring_addresses *a, bool interrupts)
{
    struct vblk_pci *d = of(t);
    bool vectors = interrupts && d->msix;
    uint64_t at;

    put(d, C_QUEUE_SELECT, 2, queue);
    at = get(d, C_QUEUE_NOTIFY_OFF, 2) * d->notify_multiplier;
    if (at > d->notify.len || d->notify.len - at < (d->notification_data ? 4 : 2))
        return -VBLK_EPROTO;
    d->doorbell[queue] = d->notify.address + at;
    if (d->msix && (set_vector(d, C_CONFIG_VECTOR, vectors ? 0 : NO_VECTOR) < 0 ||
                    set_vector(d, C_QUEUE_VECTOR, vectors ? 1 + queue : NO_VECTOR) < 0))
        return -VBLK_ENOSPC;
    put(d, C_QUEUE_SIZE, 2, depth);
    put64(d, C_QUEUE_DESC, a->desc);
    put64(d, C_QUEUE_DRIVER, a->driver);
    put64(d, C_QUEUE_DEVICE, a->device);
    put(d, C_QUEUE_ENABLE, 2, 1);
    return 0;
}

static int queue_reset(struct vblk_transport *t, unsigned queue)
{
    struct vblk_pci *d = of(t);

    put(d, C_QUEUE_SELECT, 2, queue);
    put(d, C_QUEUE_RESET, 2, 1);
    return wait_zero(d, C_QUEUE_RESET, 2); /* §4.1.4.3.2: 0 when the reset is done */
}

static void notify(struct vblk_transport *t, unsigned queue, uint32_t data)
{
    const struct vblk_pci *d = of(t);
    const struct vblk_platform *p = t->platform;

    p->reg_write(p->ctx, d->doorbell[queue], d->notification_data ? 4 : 2, data);
}

static uint32_t interrupt_status(struct vblk_transport *t)
{
    const struct vblk_pci *d = of(t);
    const struct vblk_platform *p = t->platform;

    /* With MSI-X vector 0 is the configuration's alone; otherwise the ISR tells, and reading
     * clears. */
    return d->msix ? 2 : (uint32_t)p->reg_read(p->ctx, d->isr.address, 1) & 3;
}

static const struct vblk_transport_ops ops = {
    .name = "pci",
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

/* One virtio capability (§4.1.4) at `at`, when it is one of those wanted and the first of its type.
 */
static int take_capability(struct vblk_pci *d, unsigned at)
{
    struct vblk_pci_window *windows[] = {&d->common, &d->notify, &d->isr, &d->device};
    const struct vblk_platform *p = d->t.platform;
    unsigned type = conf(d, at + 3, 1), bar = conf(d, at + 4, 1);
    uint32_t offset = conf(d, at + 8, 4), len = conf(d, at + 12, 4);
    uint64_t size = 0, base;

    if (type < CFG_COMMON || type > CFG_DEVICE || bar >= BARS || windows[type - 1]->len)
        return 0;
    base = p->pci_map(p->ctx, d->function, bar, &size);
    if (!base || offset > size || len > size - offset || len == 0) {
        note(p, VBLK_LOG_ERROR, "vblk: a structure lies outside of its BAR (offset, BAR's size)",
             offset, size);
        return -VBLK_EPROTO;
    }
    *windows[type - 1] = (struct vblk_pci_window){base + offset, len};
    if (type == CFG_NOTIFY)
        d->notify_multiplier = conf(d, at + 16, 4);
    return 0;
}

int qz_vblk_pci_init(struct vblk_pci *d, const struct vblk_platform *p, uint32_t function)
{
    unsigned at, id;
    int rc = 0;

    *d = (struct vblk_pci){.t = {&ops, p}, .function = function};
    id = conf(d, PCI_VENDOR + 2, 2);
    if (conf(d, PCI_VENDOR, 2) != VENDOR_VIRTIO ||
        (id != DEVICE_MODERN && id != DEVICE_TRANSITIONAL) ||
        !(conf(d, PCI_STATUS, 2) & STATUS_CAPS))
        return -VBLK_ENODEV;
    p->pci_write(p->ctx, function, PCI_COMMAND, 2,
                 conf(d, PCI_COMMAND, 2) | COMMAND_MEMORY | COMMAND_MASTER);
    at = conf(d, PCI_CAPABILITIES, 1) & ~3u;
    for (unsigned i = 0; at && i < CAPS_MAX && rc == 0; i++) {
        unsigned cap = conf(d, at, 1);

        if (cap == CAP_VENDOR)
            rc = take_capability(d, at);
        else if (cap == CAP_MSIX)
            d->msix_capability = at;
        at = conf(d, at + 1, 1) & ~3u;
    }
    if (rc < 0)
        return rc;
    if (d->common.len < C_LEN || !d->notify.len || !d->isr.len || !d->device.len) {
        note(p, VBLK_LOG_ERROR, "vblk: the function has no modern interface (common, notify)",
             d->common.len, d->notify.len);
        return -VBLK_ENODEV;
    }
    return 0;
}

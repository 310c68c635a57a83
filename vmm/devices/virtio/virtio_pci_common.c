/*
 * virtio_pci_common.c - the common configuration of the PCI transport (VirtIO 1.3 §4.1.4.3): reset,
 * status, features and queues.
 *
 * Status. Writing 0 begins a reset: the device stops being active, ops->reset lets what is in
 * flight end, and until virtio_reset_done() status reads as before and nothing else can be written
 * (§4.1.4.3.1: the driver waits for 0). Bits are only ever added; FEATURES_OK is refused when the
 * driver wants what was not offered, DRIVER_OK without FEATURES_OK is ignored.
 */
#include <linux/virtio_ring.h>

#include "devices/virtio/virtio_pci_internal.h"

enum {
    COMMON_SIZE = 60, /* up to and with queue_reset */
    QUEUE_NOTIFY_DATA = 56,
    QUEUE_RESET = 58,
};

/* ---- reset --------------------------------------------------------------------------------------
 */

void vp_queue_defaults(struct virtio_device *d, unsigned i)
{
    struct virtqueue *vq = &d->queue[i];

    virtqueue_stop(vq);
    vq->device = d;
    vq->memory = &d->machine->memory;
    vq->index = (uint16_t)i;
    vq->size = d->queue_size_max;
    vq->enabled = false;
    vq->desc = vq->driver = vq->device_area = gpa(0);
    vq->msix_vector = NO_VECTOR;
    vp_of(d)->q[i].resetting = false;
}

void vp_reset_done(struct virtio_device *d)
{
    struct virtio_pci *vp = vp_of(d);

    if (!vp->resetting)
        return;
    for (unsigned i = 0; i < d->queue_count; i++)
        vp_queue_defaults(d, i);
    vp->driver_features = d->negotiated = 0;
    vp->device_feature_select = vp->driver_feature_select = 0;
    vp->queue_select = 0;
    vp->config_vector = NO_VECTOR;
    vp_isr_take(vp);
    d->status = 0;
    vp->resetting = false;
}

void vp_queue_reset_done(struct virtio_device *d, unsigned i)
{
    if (i < d->queue_count && vp_of(d)->q[i].resetting && !vp_of(d)->resetting)
        vp_queue_defaults(d, i);
}

void vp_reset_begin(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;
    const bool was_active = d->active;

    if (vp->resetting)
        return;
    vp->resetting = true;
    d->active = false;
    vp_doorbells_update(vp);
    /* A device that never began has nothing to end; its driver, who reads 0 at once, goes on at
     * once. */
    if (was_active && d->ops->reset)
        d->ops->reset(d);
    else
        vp_reset_done(d);
}

/* ---- status and queues --------------------------------------------------------------------------
 */

static bool start_queue(struct virtio_device *d, unsigned i)
{
    struct qz_error err;

    if (virtqueue_start(&d->queue[i], d->negotiated, &err) == 0)
        return true;
    qz_guest_warn("%s: %s; the device waits for a reset", d->label ? d->label : d->ops->name,
                  err.text);
    virtio_fail(d);
    return false;
}

static void driver_ok(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;

    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].enabled && !start_queue(d, i))
            return; /* not active: nothing will be served before a reset */
    d->active = true;
    if (d->ops->activate)
        d->ops->activate(d);
    vp_doorbells_update(vp);
    /* What the driver made available before now may have been kicked before now. */
    for (unsigned i = 0; i < d->queue_count; i++)
        if (d->queue[i].enabled)
            vp_ring(&vp->q[i]);
}

static void write_status(struct virtio_pci *vp, uint8_t value)
{
    struct virtio_device *d = vp->d;
    uint8_t added = value & ~d->status;

    if (!value) {
        vp_reset_begin(vp);
        return;
    }
    d->status |=
        added & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED);
    if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
        if (vp->driver_features & ~vp->offered ||
            !(vp->driver_features & QZ_BIT(VIRTIO_F_VERSION_1)))
            return; /* the driver reads back that it was refused (§3.1.1 step 6) */
        d->negotiated = vp->driver_features;
        d->status |= VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (added & VIRTIO_CONFIG_S_DRIVER_OK && d->status & VIRTIO_CONFIG_S_FEATURES_OK) {
        d->status |= VIRTIO_CONFIG_S_DRIVER_OK;
        driver_ok(vp);
    }
}

/* The selected queue, or NULL. */
static struct virtqueue *selected(struct virtio_pci *vp)
{
    return vp->queue_select < vp->d->queue_count ? &vp->d->queue[vp->queue_select] : NULL;
}

/* The selected queue if its registers may change: neither enabled nor, but for a queue that was
 * reset, running. */
static struct virtqueue *settable(struct virtio_pci *vp)
{
    struct virtqueue *vq = selected(vp);
    struct virtio_device *d = vp->d;

    if (!vq || vq->enabled ||
        (d->status & VIRTIO_CONFIG_S_DRIVER_OK && !virtio_has(d, VIRTIO_F_RING_RESET)))
        return NULL;
    return vq;
}

static void enable_queue(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;
    struct virtqueue *vq = settable(vp);

    if (!vq)
        return;
    vq->enabled = true;
    if (!d->active || !start_queue(d, vq->index)) /* not active: started at DRIVER_OK */
        return;
    vp_ring(&vp->q[vq->index]);
}

static void reset_queue(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;
    struct virtqueue *vq = selected(vp);

    if (!vq || !virtio_has(d, VIRTIO_F_RING_RESET) || !d->active || !vq->enabled ||
        vp->q[vq->index].resetting)
        return;
    vp->q[vq->index].resetting = true;
    d->ops->queue_reset(d, vq->index);
}

/* ---- common configuration (§4.1.4.3)
 * ------------------------------------------------------------- */

static void common_image(struct virtio_pci *vp, uint8_t image[COMMON_SIZE + 8])
{
    struct virtio_device *d = vp->d;
    const struct virtqueue *vq = selected(vp);

    memset(image, 0, COMMON_SIZE + 8);
    qz_store_le32(image + VIRTIO_PCI_COMMON_DFSELECT, vp->device_feature_select);
    if (vp->device_feature_select < 2)
        qz_store_le32(image + VIRTIO_PCI_COMMON_DF,
                      (uint32_t)(vp->offered >> 32 * vp->device_feature_select));
    qz_store_le32(image + VIRTIO_PCI_COMMON_GFSELECT, vp->driver_feature_select);
    if (vp->driver_feature_select < 2)
        qz_store_le32(image + VIRTIO_PCI_COMMON_GF,
                      (uint32_t)(vp->driver_features >> 32 * vp->driver_feature_select));
    qz_store_le16(image + VIRTIO_PCI_COMMON_MSIX, vp->config_vector);
    qz_store_le16(image + VIRTIO_PCI_COMMON_NUMQ, (uint16_t)d->queue_count);
    image[VIRTIO_PCI_COMMON_STATUS] = __atomic_load_n(&d->status, __ATOMIC_RELAXED);
    image[VIRTIO_PCI_COMMON_CFGGENERATION] = vp->generation;
    qz_store_le16(image + VIRTIO_PCI_COMMON_Q_SELECT, vp->queue_select);
    if (!vq)
        return; /* size 0: no such queue */
    qz_store_le16(image + VIRTIO_PCI_COMMON_Q_SIZE, vq->size);
    qz_store_le16(image + VIRTIO_PCI_COMMON_Q_MSIX, vq->msix_vector);
    qz_store_le16(image + VIRTIO_PCI_COMMON_Q_ENABLE, vq->enabled);
    qz_store_le16(image + VIRTIO_PCI_COMMON_Q_NOFF, vq->index);
    qz_store_le64(image + VIRTIO_PCI_COMMON_Q_DESCLO, vq->desc.v);
    qz_store_le64(image + VIRTIO_PCI_COMMON_Q_AVAILLO, vq->driver.v);
    qz_store_le64(image + VIRTIO_PCI_COMMON_Q_USEDLO, vq->device_area.v);
    qz_store_le16(image + QUEUE_RESET, vp->q[vq->index].resetting);
}

uint64_t vp_common_read(struct virtio_pci *vp, unsigned offset, unsigned size)
{
    uint8_t image[COMMON_SIZE + 8];
    uint64_t value = 0;

    if (offset >= COMMON_SIZE)
        return 0;
    common_image(vp, image);
    memcpy(&value, image + offset, size);
    return value;
}

uint16_t vp_checked_vector(const struct virtio_pci *vp, uint16_t vector)
{
    return vector < vp->pci.msix_vectors ? vector : NO_VECTOR;
}

static void set_half(gpa_t *a, bool high, uint32_t value)
{
    a->v =
        high ? (a->v & UINT32_MAX) | (uint64_t)value << 32 : (a->v & ~(uint64_t)UINT32_MAX) | value;
}

/* Queue addresses: 64 bits at once, or either half. */
static void write_address(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value)
{
    struct virtqueue *vq = settable(vp);
    unsigned reg = offset & ~7u;
    gpa_t *a;

    if (!vq)
        return;
    a = reg == VIRTIO_PCI_COMMON_Q_DESCLO    ? &vq->desc
        : reg == VIRTIO_PCI_COMMON_Q_AVAILLO ? &vq->driver
                                             : &vq->device_area;
    if (size == 8 && offset == reg)
        *a = gpa(value);
    else if (size == 4 && !(offset & 3))
        set_half(a, offset & 4, (uint32_t)value);
}

#define FIELD(offset, size) ((offset) << 4 | (size))

/* A write changes a register only when it is exactly that register's; anything else is ignored. */
void vp_common_write(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value)
{
    struct virtio_device *d = vp->d;
    struct virtqueue *vq;

    if (vp->resetting)
        return;
    if (offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset < QUEUE_NOTIFY_DATA) {
        write_address(vp, offset, size, value);
        return;
    }
    switch (FIELD(offset, size)) {
    case FIELD(VIRTIO_PCI_COMMON_DFSELECT, 4):
        vp->device_feature_select = (uint32_t)value;
        break;
    case FIELD(VIRTIO_PCI_COMMON_GFSELECT, 4):
        vp->driver_feature_select = (uint32_t)value;
        break;
    case FIELD(VIRTIO_PCI_COMMON_GF, 4):
        if (d->status & VIRTIO_CONFIG_S_FEATURES_OK || vp->driver_feature_select > 1)
            break;
        vp->driver_features &= ~((uint64_t)UINT32_MAX << 32 * vp->driver_feature_select);
        vp->driver_features |= (uint64_t)(uint32_t)value << 32 * vp->driver_feature_select;
        break;
    case FIELD(VIRTIO_PCI_COMMON_MSIX, 2):
        vp->config_vector = vp_checked_vector(vp, (uint16_t)value);
        break;
    case FIELD(VIRTIO_PCI_COMMON_STATUS, 1):
        write_status(vp, (uint8_t)value);
        break;
    case FIELD(VIRTIO_PCI_COMMON_Q_SELECT, 2):
        vp->queue_select = (uint16_t)value;
        break;
    case FIELD(VIRTIO_PCI_COMMON_Q_SIZE, 2):
        vq = settable(vp);
        if (vq && value && value <= d->queue_size_max)
            vq->size = (uint16_t)value;
        break;
    case FIELD(VIRTIO_PCI_COMMON_Q_MSIX,
               2): /* not frozen: it is read only when an interrupt is due */
        vq = selected(vp);
        if (vq)
            vq->msix_vector = vp_checked_vector(vp, (uint16_t)value);
        break;
    case FIELD(VIRTIO_PCI_COMMON_Q_ENABLE, 2):
        if (value == 1)
            enable_queue(vp);
        break;
    case FIELD(QUEUE_RESET, 2):
        if (value == 1)
            reset_queue(vp);
        break;
    default:
        break;
    }
}

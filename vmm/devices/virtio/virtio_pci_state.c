/* virtio_pci_state.c - the transport, its queues and its device, saved and loaded. */
#include "devices/virtio/virtio_pci_internal.h"

enum {
    STATUS_BITS = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |
                  VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET |
                  VIRTIO_CONFIG_S_FAILED,
};

static void registers_state(struct virtio_pci *vp, struct qz_state *s)
{
    QZ_STATE(s, "status", vp->d->status, STATUS_BITS);
    QZ_STATE(s, "active", vp->d->active, 1);
    QZ_STATE_ANY(s, "features", vp->driver_features);
    QZ_STATE_ANY(s, "device_feature_select", vp->device_feature_select);
    QZ_STATE_ANY(s, "driver_feature_select", vp->driver_feature_select);
    QZ_STATE_ANY(s, "queue_select", vp->queue_select);
    QZ_STATE_ANY(s, "config_vector", vp->config_vector);
    QZ_STATE_ANY(s, "generation", vp->generation);
    QZ_STATE(s, "isr", vp->isr, ISR_QUEUE | ISR_CONFIG);
}

/* What the registers say after loading is what a driver could have brought them to. */
static void check_registers(struct virtio_pci *vp, struct qz_state *s)
{
    struct virtio_device *d = vp->d;
    const bool features_ok = d->status & VIRTIO_CONFIG_S_FEATURES_OK;

    if (d->status & ~STATUS_BITS || (d->status & VIRTIO_CONFIG_S_DRIVER_OK && !features_ok) ||
        (d->active && !(d->status & VIRTIO_CONFIG_S_DRIVER_OK)))
        qz_state_refuse(s, "status 0x%x", d->status);
    if (features_ok &&
        (vp->driver_features & ~vp->offered || !(vp->driver_features & QZ_BIT(VIRTIO_F_VERSION_1))))
        qz_state_refuse(s, "features 0x%llx, but this machine's device offers 0x%llx",
                        (unsigned long long)vp->driver_features, (unsigned long long)vp->offered);
    d->negotiated = features_ok ? vp->driver_features : 0;
    vp->config_vector = vp_checked_vector(vp, vp->config_vector);
}

void virtio_pci_state(struct virtio_pci *vp, struct qz_state *s)
{
    struct virtio_device *d = vp->d;

    virtio_lock(d);
    qz_state_group(s, d->ops->name);
    if (vp->resetting)
        qz_state_refuse(s, "a reset is under way");
    if (d->active && d->ops->let_go)
        d->ops->let_go(d);
    registers_state(vp, s);
    if (qz_state_loading(s) && !qz_state_failed(s))
        check_registers(vp, s);
    for (unsigned i = 0; i < d->queue_count && !qz_state_failed(s); i++) {
        qz_state_group_at(s, "queue", i);
        virtqueue_state(&d->queue[i], s, d->active, d->negotiated);
        d->queue[i].msix_vector = vp_checked_vector(vp, d->queue[i].msix_vector);
        qz_state_end(s);
    }
    if (d->ops->state)
        d->ops->state(d, s);
    qz_state_end(s);
    if (qz_state_loading(s) && qz_state_failed(s))
        d->active = false;
    if (qz_state_loading(s))
        vp_doorbells_update(vp);
    /* What was let go, or kicked and not seen before the state was saved, is looked at again. */
    for (unsigned i = 0; d->active && i < d->queue_count; i++)
        if (d->queue[i].enabled)
            vp_ring(&vp->q[i]);
    virtio_unlock(d);
}

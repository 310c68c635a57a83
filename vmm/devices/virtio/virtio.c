/*
 * virtio.c - what a virtio device may say to its transport, whichever that is (virtio.h).
 */
#include "devices/virtio/virtio.h"

void virtio_fail(struct virtio_device *d)
{
    if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    d->transport->status_changed(d);
}

void virtio_config_changed(struct virtio_device *d)
{
    d->transport->config_changed(d);
}

void virtio_reset_done(struct virtio_device *d)
{
    d->transport->reset_done(d);
}

void virtio_queue_reset_done(struct virtio_device *d, unsigned q)
{
    d->transport->queue_reset_done(d, q);
}

void virtio_queue_again(struct virtio_device *d, unsigned q)
{
    d->transport->queue_again(d, q);
}

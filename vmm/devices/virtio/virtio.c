/*
 * virtio.c - what a virtio device may say to its transport, whichever that is (virtio.h).
 */
#include "devices/virtio/virtio.h"

void virtio_lock(struct virtio_device *d)
{
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; d->lane_lock && i < d->lanes; i++)
        pthread_mutex_lock(&d->lane_lock[i]);
}

void virtio_unlock(struct virtio_device *d)
{
    for (unsigned i = 0; d->lane_lock && i < d->lanes; i++)
        pthread_mutex_unlock(&d->lane_lock[i]);
    pthread_mutex_unlock(&d->lock);
}

void virtio_fail(struct virtio_device *d)
{
    /* Two queues may fail at once. */
    if (!(__atomic_fetch_or(&d->status, VIRTIO_CONFIG_S_NEEDS_RESET, __ATOMIC_RELAXED) &
          VIRTIO_CONFIG_S_NEEDS_RESET))
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

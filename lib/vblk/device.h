/*
 * device.h - between the files of the device: negotiation, limits, starting.
 */
#ifndef VBLK_DEVICE_H
#define VBLK_DEVICE_H

#include "queue.h"

/* A request that was in the ring at so many resets is given up: it may be what kills the device. */
enum { ATTEMPTS_MAX = 8 };

/* Reads the configuration space as one consistent whole (§2.5.1) and checks it. */
int config_read(struct vblk_device *dev);
/* After a reset: negotiation, queues, DRIVER_OK; the rings are empty then. */
int device_bring_up(struct vblk_device *dev);
int device_reset(struct vblk_device *dev);

#endif

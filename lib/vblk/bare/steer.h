/*
 * steer.h - what virtioctl asks of a driver on a bare machine, through the mailbox.
 */
#ifndef BARE_STEER_H
#define BARE_STEER_H

#include <queztl/vblk.h>

/* A driver that can be asked from now on. */
void steer_begin(struct vblk_device *dev, const struct vblk_platform *p);
/* Answers a question, if there is one; called between batches. True: the device was removed, and
 * the driver's user ends its work. */
bool steer_step(void);
/* A request that poll returned may be steer's own: true, and it is dealt with. */
bool steer_owns(const struct vblk_request *r);

#endif

/*
 * control.h - lets virtioctl ask a running driver: a socket that the driver's own thread serves
 * between batches, without locks and without ever blocking.
 *
 * One connection is one command: a line, answered by JSON and the end of the connection.
 */
#ifndef VBLK_CONTROL_H
#define VBLK_CONTROL_H

#include "session.h"

struct vblk_control;

/* Listens on a socket at path, for its owner's user only. */
int control_open(struct vblk_control **c, const char *path, struct vblk_session *s,
                 struct qz_error *err);
void control_close(struct vblk_control *c);
/* Serves what is there. True when the device was removed: the driver's thread ends its work. */
bool control_step(struct vblk_control *c);
/* A request that poll returned may be the control's own: true, and it is dealt with. */
bool control_owns(struct vblk_control *c, const struct vblk_request *r);

#endif

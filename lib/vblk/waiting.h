/*
 * waiting.h - requests that wait for room in a ring, in the order of the scheduler: first come
 * first served, classes with ageing, or earliest deadline first. Intrusive: nothing is allocated.
 */
#ifndef VBLK_WAITING_H
#define VBLK_WAITING_H

#include "internal.h"

void waiting_push(struct waiting *w, enum vblk_scheduler by, struct vblk_request *r);
/* The next one to go, without taking it; NULL when none waits. */
struct vblk_request *waiting_peek(struct waiting *w, enum vblk_scheduler by);
/* Takes what waiting_peek showed. */
struct vblk_request *waiting_pop(struct waiting *w, enum vblk_scheduler by);
/* Takes out all (everything) or all whose deadline is before now, linked by next. */
struct vblk_request *waiting_take(struct waiting *w, enum vblk_scheduler by, bool everything,
                                  uint64_t now);

#endif

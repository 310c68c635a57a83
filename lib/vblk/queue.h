/*
 * queue.h - one queue's life, for the device and for recovery; its I/O path is public.
 */
#ifndef VBLK_QUEUE_H
#define VBLK_QUEUE_H

#include "request.h"
#include "waiting.h"

/* Private memory of one queue: slots, pieces, times. */
size_t queue_private_size(const struct vblk_config *c);
/* Hands the queue its private memory, which is queue_private_size() bytes. */
void queue_init(struct vblk_queue *q, struct vblk_device *dev, unsigned index, void *memory);
/* Device memory for the negotiated features and a ring of `depth`. */
int queue_build(struct vblk_queue *q, unsigned depth);
void queue_free_dma(struct vblk_queue *q);
/* Marks it broken and says why, once. */
void queue_break(struct vblk_queue *q, const char *why, uint64_t a, uint64_t b);
/* Ends a request without the device; the next poll hands it out. */
void queue_fail(struct vblk_queue *q, struct vblk_request *r, int status);
/* What the device has finished, before a reset: the next poll hands it out. */
void queue_harvest(struct vblk_queue *q);
/* Takes all requests out of the ring (the device no longer has them), linked by next. */
struct vblk_request *queue_take_in_flight(struct vblk_queue *q);
/* Moves waiting requests into the ring and rings the doorbell. */
void queue_dispatch(struct vblk_queue *q);

#endif

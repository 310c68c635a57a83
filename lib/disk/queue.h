/*
 * queue.h - a thread's way into a disk: its io_uring, its tasks, its free requests.
 *
 * Everything on a queue happens on one thread. Completions are delivered by queue_poll() or
 * queue_wait(); a thread with an event loop watches queue_fd() and calls queue_poll().
 */
#ifndef DISK_QUEUE_H
#define DISK_QUEUE_H

#include <queztl/base.h>

struct disk_queue;
struct io_uring;

int queue_new(struct disk_queue **q, unsigned depth, struct qz_error *err);
void queue_free(struct disk_queue *q); /* nothing in flight, no task left */

int queue_fd(struct disk_queue *q);   /* readable: completions or resumed tasks wait */
int queue_poll(struct disk_queue *q); /* serves what is there; how many */
int queue_wait(
    struct disk_queue *q); /* sends what was gathered, blocks until at least one; how many */
void queue_kick(struct disk_queue *q); /* sends what was gathered */

/* For protocol layers. An entry of io_uring whose completion calls done(context, res). NULL never:
 * a full ring is sent first. */
struct queue_io {
    void (*done)(struct queue_io *io, int result);
};
struct io_uring_sqe *queue_sqe(struct disk_queue *q, struct queue_io *io);

#endif

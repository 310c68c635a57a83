/*
 * queue.h - a thread's way into a disk: its io_uring, its tasks, what other threads hand it.
 *
 * Everything on a queue happens on one thread: the first that uses it after queue_new().
 * Completions are delivered by queue_poll() or queue_wait(); a thread with an event loop watches
 * queue_fd() and calls queue_poll().
 */
#ifndef DISK_QUEUE_H
#define DISK_QUEUE_H

#include <queztl/base.h>

struct disk_queue;
struct io_uring_sqe;

/* Living queues of a process have different indexes below this, so that a layer can keep something
 * for each queue in an array. */
enum { DISK_QUEUES_MAX = 256 };

/* depth: entries of the ring; more may be in flight. */
int queue_new(struct disk_queue **q, unsigned depth, struct qz_error *err);
void queue_free(struct disk_queue *q); /* nothing in flight, no task left */
unsigned queue_index(const struct disk_queue *q);
uint64_t queue_id(const struct disk_queue *q); /* never used again; not 0 */

/* For an event loop: readable when completions or work from other threads wait; or a negative
 * errno. Asked for by the queue's thread, or before it has one. */
int queue_fd(struct disk_queue *q, struct qz_error *err);
int queue_poll(struct disk_queue *q); /* serves what is there, sends what that gathered; how many */
/* Sends what was gathered and serves what is there, but at least one; how many, or a negative
 * errno. */
int queue_wait(struct disk_queue *q);
void queue_kick(struct disk_queue *q); /* sends what was gathered */
/* Whether queue_poll() would find something: a few loads, for who waits actively. */
bool queue_pending(const struct disk_queue *q);

/* A block of QUEUE_BLOCK bytes, undefined, from the queue's own free list, for what a layer keeps
 * of a request on its way. NULL: no memory. */
enum { QUEUE_BLOCK = 256 };
void *queue_take(struct disk_queue *q);
void queue_give(struct disk_queue *q, void *block);

/* ---- for protocol layers */

/* An entry of io_uring; done(io, res) when it completed. */
struct queue_io {
    void (*done)(struct queue_io *io, int result);
};
/* Never NULL: a full ring is sent first. io may be NULL when nobody cares. */
struct io_uring_sqe *queue_sqe(struct disk_queue *q, struct queue_io *io);
/* Registers fd with the queue's ring: the number to use with IOSQE_FIXED_FILE, or -1 when the table
 * is full or the kernel has none. The file stays referenced until queue_free(). */
int queue_register_file(struct disk_queue *q, int fd);

/* done(io, -ETIME) once CLOCK_MONOTONIC has reached deadline_ns. */
struct queue_timer {
    struct queue_io io;
    int64_t deadline_ns;
    struct {
        int64_t seconds;
        long long nanoseconds;
    } at; /* what the kernel reads */
};
void queue_timer(struct disk_queue *q, struct queue_timer *t, int64_t deadline_ns,
                 void (*done)(struct queue_io *io, int result));

/* ---- from other threads */

/* Runs run(work) on the queue's own thread from queue_poll() or queue_wait(). Any thread. The queue
 * must not be freed before. */
struct queue_work {
    void (*run)(struct queue_work *w);
    struct queue_work *next;
};
void queue_post(struct disk_queue *q, struct queue_work *w);
/* True on the queue's own thread. */
bool queue_is_current(const struct disk_queue *q);

#endif

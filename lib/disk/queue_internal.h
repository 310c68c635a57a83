/* queue_internal.h - what queue.c and task.c know of each other. */
#ifndef DISK_QUEUE_INTERNAL_H
#define DISK_QUEUE_INTERNAL_H

#include <liburing.h>

#include "queue.h"
#include "task.h"

struct queue_block {
    struct queue_block *next;
};

struct disk_queue {
    struct io_uring ring;
    pthread_t owner;
    bool bound;       /* owner is known, the ring runs */
    bool files_ready; /* the table of registered files exists */
    uint64_t id;
    unsigned index, files;

    /* Work from other threads: a stack, pushed with compare-and-swap, taken whole. */
    int event_fd;
    bool event_armed;
    bool watched;         /* by an event loop: the ring signals event_fd too */
    uint64_t event_count; /* where the ring's read of event_fd goes */
    struct queue_io event_io;
    struct queue_work *posted;
    unsigned posting; /* threads inside queue_post() */

    struct queue_block *blocks; /* free ones */

    /* task.c */
    struct task *ready, *ready_last; /* resumed while another one ran */
    struct task *pool;
    unsigned pooled, living;
};

/* Frees the pooled tasks. */
void task_pool_free(struct disk_queue *q);

#endif

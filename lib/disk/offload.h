/*
 * offload.h - work that only computes, on helper threads, while the task that wants it waits.
 *
 * The helpers are the process's, started by qz_disk_helpers(); without them, or while they are all
 * busy, the work is done where it is asked for, so that a queue's own thread is never idle for want
 * of a helper.
 */
#ifndef DISK_OFFLOAD_H
#define DISK_OFFLOAD_H

#include "queue.h"

/* [task] Returns when fn(argument) has run, on any thread. Other tasks of the queue run meanwhile.
 */
void disk_offload(struct disk_queue *q, void (*fn)(void *argument), void *argument);

#endif

/* lane_internal.h - what lane.c, a lane's thread, and lane_control.c, its start and stop, know of
 * each other. */
#ifndef DISK_VHOST_LANE_INTERNAL_H
#define DISK_VHOST_LANE_INTERNAL_H

#include "vhost.h"

enum { POLL_MAX_NS = 30000 };

/* Something that the control thread wants done on the lane's thread, and waits for. */
struct lane_call {
    struct queue_work work;
    struct lane *lane;
    void (*fn)(struct lane_call *c); /* ends with lane_call_done(), then or later */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    int argument;
    int result;
};

void lane_call_done(struct lane_call *c);

/* ---- lane.c; on the lane's thread */
void *lane_main(void *lane);
/* Tells the driver of answers, if it wants to know. */
void lane_call_driver(struct lane *l);
/* What a server that died before us has left. */
void lane_serve_left(struct lane *l);

#endif

/*
 * balloon_auto.h - `--balloon auto`: the host's memory pressure, the guest's reports and the policy
 * (balloon_policy.h), together on the main loop. It wakes up only while there is pressure or the
 * balloon has something.
 */
#ifndef VMM_BALLOON_AUTO_H
#define VMM_BALLOON_AUTO_H

#include <jansson.h>
#include <queztl/loop.h>

#include "devices/virtio/devices.h"

struct balloon_auto;

struct balloon_auto_options {
    uint64_t memory, min; /* the machine's; the least that is left to it */
    unsigned pressure;    /* percent of time that tasks of the host stand for memory */
};

/* Before confinement; the balloon outlives it. */
int balloon_auto_new(struct balloon_auto **out, struct qz_loop *loop, struct virtio_device *balloon,
                     const struct balloon_auto_options *options, struct qz_error *err);
void balloon_auto_free(struct balloon_auto *a); /* NULL is fine, here and below */
/* The machine runs from now on, perhaps with what the balloon had when it was frozen. */
void balloon_auto_resumed(struct balloon_auto *a);
/* It begins anew: nothing is taken from it. */
void balloon_auto_reset(struct balloon_auto *a);
/* Adds what it does, and why, to the balloon's figures. */
void balloon_auto_report(const struct balloon_auto *a, json_t *figures);

#endif

/*
 * test_io.h - what the driver's tests share: a device over the simulated platform, and random I/O
 * that is checked against a copy of the disk.
 */
#ifndef VBLK_TEST_IO_H
#define VBLK_TEST_IO_H

#include "sim.h"

struct rig {
    struct sim *sim;
    void *memory;
    struct vblk_device *dev;
};

/* Features that the simulated device can offer all together. */
uint64_t rig_all_features(void);
struct sim_options rig_options(uint64_t features);
/* Starts a driver on a new device; start_rc is what qz_vblk_start() has to return. */
void rig_open(struct rig *r, const struct sim_options *o, const struct vblk_config *c,
              int start_rc);
/* Stops, checks that no memory is left behind and that the driver broke no rule. */
void rig_close(struct rig *r);
/* Submits one request on queue 0, runs the device, waits for it; returns its status. */
int rig_do(struct rig *r, struct vblk_request *q);
/* Reads and writes at random places with up to `depth` in flight on every queue, and checks. */
void rig_random_io(struct rig *r, unsigned requests, unsigned depth);

#endif

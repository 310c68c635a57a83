/*
 * conform.h - does a virtio block device do what VirtIO 1.3 demands of it?
 *
 * demands.c lists every "MUST" that the specification puts on a device's rings (§2.7, §2.8), on its
 * status, features, reset and configuration (§2.1 to §2.6, §6.2) and on block devices (§5.2), each
 * with its check or with the reason why there is none.
 */
#ifndef VBLK_CONFORM_H
#define VBLK_CONFORM_H

#include "../device.h"

enum conform_result {
    CONFORM_PASSED,
    CONFORM_FAILED,
    CONFORM_SKIPPED, /* the device lacks the feature, or the transport what is looked at */
    CONFORM_UNCHECKED,
    CONFORM_RESULTS,
};

struct conform {
    struct vblk_device *dev; /* started; split or packed; nothing else runs on it */
    uint8_t *data;           /* CONFORM_DATA bytes that the device reaches */
    /* Has queue 0 notified the driver since the last call? NULL: nobody can tell. */
    bool (*notified)(struct conform *c);
    void *arg;
    const char *why; /* of a failure or of no check */
    uint8_t status;  /* of the last request */
    uint32_t len;    /* that the device said it wrote */
};

enum { CONFORM_DATA = 64 << 10 };

struct conform_demand {
    const char *section, *text;
    enum conform_result (*check)(struct conform *c);
    const char *unchecked; /* why, where check is NULL */
};

extern const struct conform_demand conform_demands[];
extern const unsigned conform_demand_count;

/* One demand; the device is afterwards as it was before, negotiated anew where need be. */
enum conform_result conform_run(struct conform *c, const struct conform_demand *d);

#endif

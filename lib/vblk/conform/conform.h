/*
 * conform.h - does a virtio block device do what VirtIO 1.3 demands of it? One check for each
 * demand.
 */
#ifndef VBLK_CONFORM_H
#define VBLK_CONFORM_H

#include "../request.h"

enum conform_result {
    CONFORM_PASSED,
    CONFORM_FAILED,
    CONFORM_SKIPPED /* the device lacks the feature */
};

struct conform {
    struct vblk_device *dev; /* started; split or packed; nothing else runs on it */
    uint8_t *data;           /* CONFORM_DATA bytes that the device reaches */
    const char *why;         /* of a failure */
    uint8_t status;          /* of the last request */
    uint32_t len;            /* that the device said it wrote */
};

enum { CONFORM_DATA = 64 << 10 };

struct conform_check {
    const char *section, *demand;
    enum conform_result (*run)(struct conform *c);
};

extern const struct conform_check conform_checks[];
extern const unsigned conform_check_count;

#endif

/* test_driver_internal.h - what the two halves of the in-process guest share: its machine
 * (test_driver_machine.c) and its driver (test_driver.c). */
#ifndef VMM_VIRTIO_TEST_DRIVER_INTERNAL_H
#define VMM_VIRTIO_TEST_DRIVER_INTERNAL_H

#include "devices/virtio/test_driver.h"

enum { SLICE_MS = 50 }; /* of vtest_run() between two looks */

struct vtest_doorbell {
    uint64_t gpa;
    unsigned len;
    int fd;
};

/* A mistake of the test itself: says so and ends the process. */
__attribute__((format(printf, 1, 2), noreturn)) void vtest_die(const char *fmt, ...);
/* What was allocated; without memory a test cannot go on. */
void *vtest_need(void *p);

#endif

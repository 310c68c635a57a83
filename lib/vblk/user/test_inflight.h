/*
 * test_inflight.h - a test server's notes about what it has taken and not answered, in the shared
 * buffer of vhost-user ("Inflight I/O tracking"), written from that document for both formats.
 *
 * One request is taken or answered at a time. taken() follows dev_ring_pop(); pushing() comes
 * before dev_ring_push(), pushed() after dev_ring_flush().
 */
#ifndef VBLK_TEST_INFLIGHT_H
#define VBLK_TEST_INFLIGHT_H

#include "../sim/dev_ring.h"

#include <queztl/base.h>

struct test_inflight {
    uint8_t *region; /* NULL: nothing is kept */
    unsigned size;   /* of the ring */
    uint64_t counter;
    uint16_t entry[VBLK_DEPTH_MAX]; /* packed: by buffer id */
};

/* Of one ring, and of a buffer for many. */
size_t test_inflight_bytes(unsigned size);
void test_inflight_taken(struct test_inflight *f, const struct dev_ring *r,
                         const struct dev_chain *c, unsigned place);
void test_inflight_pushing(struct test_inflight *f, const struct dev_ring *r,
                           const struct dev_chain *c);
void test_inflight_pushed(struct test_inflight *f, const struct dev_ring *r,
                          const struct dev_chain *c);
/*
 * At the start of a ring, whose position is the front end's so far: what an earlier server left, in
 * its order, and the ring where that one stood. How many chains; negative when they make no sense.
 */
int test_inflight_left(struct test_inflight *f, struct dev_ring *r, struct dev_chain *chains,
                       unsigned max);

#endif

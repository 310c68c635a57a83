/*
 * test_state.h - for tests: a device's state comes back as it was, and a spoilt one does no harm.
 */
#ifndef QZ_TEST_STATE_H
#define QZ_TEST_STATE_H

#include <queztl/state.h>

typedef void test_state_fn(void *device, struct qz_state *s);

/*
 * Saves, lets `spoil` change the device (a reset, say), loads, and saves again: the bytes are the
 * same. Every shorter state is refused; states with one byte changed are refused or loaded, and
 * after each of them the good one still loads.
 */
void test_state_kept(void *device, test_state_fn *state, void (*spoil)(void *device));
#define TEST_STATE_KEPT(device, state, spoil)                                                      \
    test_state_kept(device, (test_state_fn *)(state), (void (*)(void *))(spoil))

#endif

/*
 * test_clock.h - a clock for tests and fuzz targets that moves only when told to.
 *
 * Linking test_clock.c takes the place of clock.c: the same functions, but time is a number and
 * timers fire inside test_clock_advance(), in order, on the caller's thread. Device tests are exact
 * and never wait.
 */
#ifndef VMM_TEST_CLOCK_H
#define VMM_TEST_CLOCK_H

#include "machine/clock.h"

/* Moves time on by ns, firing what falls due. Returns how many timers fired (it stops at 100000).
 */
unsigned test_clock_advance(struct vm_clock *c, int64_t ns);
/* Jumps without firing what lies between, as a stalled host would; the timers fire late, at the new
 * time. */
unsigned test_clock_stall(struct vm_clock *c, int64_t ns);
/* Fires all armed timers now, as if each had just been moved after the clock decided to fire it;
 * they stay armed. */
void test_clock_fire_early(struct vm_clock *c);
unsigned test_clock_armed(const struct vm_clock *c);

#endif

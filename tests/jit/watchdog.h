/* watchdog.h - who hangs or crashes says where. */
#ifndef TESTS_JIT_WATCHDOG_H
#define TESTS_JIT_WATCHDOG_H

#include <stdint.h>

/* Sequence `number` and what follows have to be done within `seconds`, until the next call. 0 ends
 * it. */
void watchdog(uint64_t number, unsigned seconds);

#endif

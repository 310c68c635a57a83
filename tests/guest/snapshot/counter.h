/* counter.h - how the counting guest says that something is not as it was left (counter.c). */
#ifndef SNAPSHOT_COUNTER_H
#define SNAPSHOT_COUNTER_H

#include <stdint.h>

/* Says it, and stops for good. */
_Noreturn void fail(const char *what, uint64_t wanted, uint64_t got);
void expect(const char *what, uint64_t wanted, uint64_t got);

#endif

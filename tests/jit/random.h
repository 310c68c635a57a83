/* random.h - reproducible random values, many of them where things happen. */
#ifndef TESTS_JIT_RANDOM_H
#define TESTS_JIT_RANDOM_H

#include <queztl/base.h>

struct random {
    uint64_t state;
};

/* splitmix64: every state gives a full-period sequence, so any seed is a good one. */
static inline uint64_t random_next(struct random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline unsigned random_below(struct random *r, unsigned n)
{
    return (unsigned)((random_next(r) >> 32) * n >> 32);
}

static inline bool random_percent(struct random *r, unsigned percent)
{
    return random_below(r, 100) < percent;
}

/* Boundaries of every operand size, few bits, small numbers, all bits. */
static inline uint64_t random_value(struct random *r)
{
    const uint64_t bit = 1ull << random_below(r, 64);

    switch (random_below(r, 8)) {
    case 0:
        return random_below(r, 256);
    case 1:
        return bit;
    case 2:
        return bit - 1;
    case 3:
        return ~bit;
    case 4:
        return -(uint64_t)random_below(r, 256);
    case 5:
        return (uint32_t)random_next(r);
    default:
        return random_next(r);
    }
}

#endif

/*
 * datagram.h - what the counting guest sends to its host, and gets back as it was: a count that
 * goes up by one with each of them, and whose life it is of.
 *
 * A life is what has one generation identifier (vmm/devices/vmgenid.h): a machine that goes on from
 * a snapshot, or is sent back to one, begins another life with the same memory.
 */
#ifndef SNAPSHOT_DATAGRAM_H
#define SNAPSHOT_DATAGRAM_H

#include <stdbool.h>
#include <stdint.h>

enum {
    DATAGRAM_FILL = 57,      /* words */
    DATAGRAMS_PER_LINE = 3,  /* the guest sends so many before it says a line (stream.h) */
    DATAGRAMS_IN_FLIGHT = 16 /* at most so many are in its ring */
};
#define DATAGRAM_MAGIC UINT64_C(0x31544e554f435a51)

struct datagram {
    uint64_t magic, generation[2];
    uint64_t count;  /* DATAGRAMS_PER_LINE times the line that comes next, and 0, 1, ... */
    uint64_t echoes; /* how many have come back to the guest */
    uint64_t fill[DATAGRAM_FILL];
    uint64_t sum;
};

/* FNV-1a of all words before the sum. */
static inline uint64_t datagram_sum(const struct datagram *d)
{
    const uint64_t *word = &d->magic;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (unsigned i = 0; i < sizeof(*d) / sizeof(*word) - 1; i++)
        sum = (sum ^ word[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static inline uint64_t datagram_word(const struct datagram *d, unsigned i)
{
    return (d->count + i) * UINT64_C(0x9e3779b97f4a7c15) ^ d->generation[i % 2];
}

/* Everything that follows from its first words. */
static inline void datagram_complete(struct datagram *d)
{
    d->magic = DATAGRAM_MAGIC;
    for (unsigned i = 0; i < DATAGRAM_FILL; i++)
        d->fill[i] = datagram_word(d, i);
    d->sum = datagram_sum(d);
}

static inline bool datagram_is_whole(const struct datagram *d)
{
    for (unsigned i = 0; i < DATAGRAM_FILL; i++)
        if (d->fill[i] != datagram_word(d, i))
            return false;
    return d->magic == DATAGRAM_MAGIC && d->sum == datagram_sum(d);
}

#endif

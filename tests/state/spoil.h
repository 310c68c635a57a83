/*
 * spoil.h - a machine's state with things in it changed, as somebody would who knows the format:
 * checksums and the table of sections are right, what they say is not.
 */
#ifndef STATE_SPOIL_H
#define STATE_SPOIL_H

#include "snapshot/state_file.h"

/* Bytes that decide; they end in zeroes. */
struct choices {
    const uint8_t *data;
    size_t len, at;
};
uint64_t choose(struct choices *c, unsigned bytes);

/*
 * The sections of `whole` with some changes that *c decides: numbers, bytes and their lengths,
 * items and sections that are gone, twice there, or others'. The caller's to free; NULL: the
 * changes cannot be put into a file.
 */
void *state_spoil(const struct state_file *whole, struct choices *c, size_t *len);

/*
 * The same file but for the n-th number of this name (from 0) in a section, which is `value`. NULL:
 * there is none.
 */
void *state_with_number(const struct state_file *whole, const char *section, const char *name,
                        unsigned n, uint64_t value, size_t *len);

#endif

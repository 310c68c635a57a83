/*
 * stream.h - what the counting guest (tests/guest/snapshot/counter.c) says, and what a machine's
 * console has of it.
 *
 * The guest's output is one fixed stream of bytes: any piece of it tells at which byte it begins. A
 * machine that goes on from a snapshot begins at the byte where the first one stood in that moment,
 * on no other one; one that was sent back jumps there.
 */
#ifndef SNAPSHOT_STREAM_H
#define SNAPSHOT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STREAM_LINE = 16 };

/* The byte at `position`. */
char stream_byte(uint64_t position);

/* Where a moment can have been: the positions from low to high, both included. */
struct moment {
    uint64_t low, high;
};

/* What both say, into *a; false: they contradict each other. */
bool moment_narrow(struct moment *a, struct moment b);

/*
 * How many of the n bytes are the stream from `position` on. n: all of them.
 */
size_t stream_follow(const char *bytes, size_t n, uint64_t position);

/*
 * The bytes follow the stream from `position` on, and then, once, from another position on: where
 * that can be, since both may agree on some bytes. next: the position after the last byte. False:
 * they do not, or too few bytes have come to tell.
 */
bool stream_jump(const char *bytes, size_t n, uint64_t position, struct moment *to, uint64_t *next);

/* The position of the first of the n bytes, none of which may be foreign. False: it is no piece of
 * the stream, or it holds no whole line. */
bool stream_find(const char *bytes, size_t n, uint64_t *position);

#endif

/*
 * arena.h - one shared mapping, handed out in pieces: first fit, neighbours merged when freed.
 */
#ifndef VBLK_ARENA_H
#define VBLK_ARENA_H

#include <queztl/base.h>

struct arena_hole {
    uint64_t at, len;
};

struct arena {
    uint8_t *base;
    uint64_t size, used;
    int fd;
    struct arena_hole *holes; /* by address */
    unsigned count, room;
};

int arena_open(struct arena *a, uint64_t size, bool huge, struct qz_error *err);
void arena_close(struct arena *a);
void *arena_alloc(struct arena *a, size_t size, size_t align);
void arena_free(struct arena *a, void *memory, size_t size);

#endif

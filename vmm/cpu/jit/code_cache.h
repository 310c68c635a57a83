/*
 * code_cache.h - where translated code lives: one memfd seen twice, writable and executable, never
 * both in one view.
 *
 * Space is handed out upwards and taken back all at once (code_cache_reset), when no vCPU is inside
 * it. The first part holds the routines, which stay.
 */
#ifndef VMM_JIT_CODE_CACHE_H
#define VMM_JIT_CODE_CACHE_H

#include "cpu/jit/emit.h"

/* Beside the code stands data about it, which is only in the writable view. */
struct code_cache {
    int fd;
    uint8_t *write, *run;
    size_t size, used, kept; /* of the code; kept: what a reset leaves */
    uint8_t *data;
    size_t data_size, data_used;
};

/*
 * Bytes, page aligned. -errno where the host forbids executable memory: the caller interprets then.
 */
int code_cache_new(struct code_cache *c, size_t code, size_t data);
void code_cache_free(struct code_cache *c);

/* An emitter for at most `most` bytes at the end of what is used; false when there is not as much
 * space left. */
bool code_cache_begin(struct code_cache *c, struct emitter *e, size_t most);
/* What was emitted stays; returns its first address in the executable view. */
uint8_t *code_cache_commit(struct code_cache *c, const struct emitter *e);
/* Data that lives until the next reset, aligned to 8 bytes; NULL when there is no space left. */
void *code_cache_data(struct code_cache *c, size_t bytes);
void code_cache_keep(struct code_cache *c); /* everything up to here survives resets */
void code_cache_reset(struct code_cache *c);

#endif

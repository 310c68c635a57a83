/*
 * block_store.h - the memory of blocks.
 *
 * A block is a header and a body. Headers come from one array and are never anything else, so a
 * pointer to one may be old but not wild: whoever kept it looks at what it says. Bodies, the
 * decoded instructions, live in regions that are filled one after the other; the oldest is emptied
 * as a whole. A block with translated code does without its body.
 *
 * The caller has the lock of the block cache; emptying and sweeping also need the world to stand.
 */
#ifndef VMM_JIT_BLOCK_STORE_H
#define VMM_JIT_BLOCK_STORE_H

#include "cpu/jit/block.h"

struct block_body;

struct block_store {
    struct jit_block *headers, *free, *dead; /* lists by hash_next */
    unsigned headers_used;
    uint8_t *bodies;
    size_t region_size, *used; /* bytes of each region */
    unsigned regions, filling;
};

/* A few regions more than vCPUs: one whose instructions somebody is executing is passed over. */
int block_store_new(struct block_store *s, size_t bytes, unsigned vcpus); /* -ENOMEM */
void block_store_free(struct block_store *s);

/* A zeroed header; NULL: there are too many blocks. */
struct jit_block *block_store_header(struct block_store *s);
/* Gives the block its instructions. Others may be looking at it. False: the region is full. */
bool block_store_body(struct block_store *s, struct jit_block *b, const struct insn *insn);

/* Nobody finds the block any more; it may still be executing. */
void block_store_bury(struct block_store *s, struct jit_block *b);
/* Buried headers may be used again, but for those that in_use() names. */
void block_store_sweep(struct block_store *s, bool (*in_use)(void *, const struct jit_block *),
                       void *context);

/* Goes to the next region whose instructions in_use() does not name, and calls gone() for each
 * block that has its body there. */
void block_store_empty_next(struct block_store *s,
                            bool (*in_use)(void *, const uint8_t *base, size_t size),
                            void (*gone)(void *, struct jit_block *), void *context);

#endif

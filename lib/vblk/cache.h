/*
 * cache.h - the cache's lines, between cache_lines.c (which line is where) and cache.c (what is
 * done).
 */
#ifndef VBLK_CACHE_INTERNAL_H
#define VBLK_CACHE_INTERNAL_H

#include "request.h"

#include <queztl/vblk_cache.h>

enum { CACHE_OPS = 32, CACHE_MERGE_MAX = 64, CACHE_LINES_MIN = 64 };

enum line_state {
    LINE_EMPTY,
    LINE_FILLING, /* the device is reading into it */
    LINE_VALID,
    LINE_WRITING, /* valid, and the device is writing it out */
    LINE_FAILED,  /* could not be read; until those who wait for it know */
};

/* A line is in the hash unless EMPTY; in the list of free lines when nobody needs it (EMPTY, or
 * VALID, clean and unpinned: least recently used first); in the list of dirty ones in the order of
 * dirtying. */
struct line {
    struct line *hash_next, *prev, *next;
    uint64_t block, order; /* of dirtying */
    uint8_t *data;
    uint16_t pins; /* reads that wait for it or for its neighbours */
    uint8_t state; /* enum line_state */
    bool dirty, stale, listed;
};

struct line_list {
    struct line *head, *tail;
    unsigned count;
};

enum op_kind { OP_FILL, OP_WRITE, OP_FLUSH };

/* A request of the cache's own. */
struct cache_op {
    struct vblk_request request;
    struct vblk_segment segments[CACHE_MERGE_MAX];
    struct line *lines[CACHE_MERGE_MAX];
    struct vblk_request *owner; /* the FLUSH that it serves */
    uint64_t order;             /* of a FLUSH: everything dirtied until then */
    struct cache_op *next;
    enum op_kind kind;
    bool sent;
};

struct request_list {
    struct vblk_request *head, *tail;
};

struct vblk_cache {
    struct vblk_queue *queue;
    struct vblk_cache_config config;
    struct line *lines, **hash;
    unsigned line_count, hash_mask, merge, dirty_max;
    struct line_list free, dirty;
    struct cache_op ops[CACHE_OPS], *free_op, *flushes; /* flushes: oldest first */
    unsigned free_ops, writing;
    uint64_t order, blocks; /* blocks: of the device, whole ones */
    struct request_list parked, ready;
    bool drain; /* someone waits for dirty lines to be written */
    int write_error;
    uint64_t read_next, window,
        ahead; /* a sequential reader: where it goes on, blocks, fetched until */
    uint8_t *data;
    uint64_t data_addr;
    struct vblk_cache_stats stats;
};

struct line *line_find(const struct vblk_cache *c, uint64_t block);
/* Takes the longest unused free line for a block, or NULL. */
struct line *line_take(struct vblk_cache *c, uint64_t block);
/* Out of the hash, empty, first in the free list. */
void line_drop(struct vblk_cache *c, struct line *l);
void line_pin(struct vblk_cache *c, struct line *l);
/* Puts a line that nobody needs any more where it belongs. */
void line_unpin(struct vblk_cache *c, struct line *l);
void line_settle(struct vblk_cache *c, struct line *l);
void line_dirty(struct vblk_cache *c, struct line *l);
void list_remove(struct line_list *list, struct line *l);
void list_prepend(struct line_list *list, struct line *l);

/* ---- cache_ops.c ---- */

void request_append(struct request_list *list, struct vblk_request *r);
/* Ends a caller's request: the next poll hands it out. */
void request_end(struct vblk_cache *c, struct vblk_request *r, int status);
void op_free(struct vblk_cache *c, struct cache_op *op);
/* Reads or writes n lines of consecutive blocks with one request; an operation is free. */
void op_send_lines(struct vblk_cache *c, enum op_kind kind, struct line *const *lines, unsigned n);
/* Takes in what the queue has finished. */
void op_done(struct vblk_cache *c, struct cache_op *op);
/* Writes the oldest dirty block and its dirty neighbours, up to the order `until`. False: nothing
 * to write, or no operation free. */
bool write_back_one(struct vblk_cache *c, uint64_t until);
/* Takes on a FLUSH; an operation is free. */
void flush_start(struct vblk_cache *c, struct vblk_request *r);
/* The oldest FLUSH: writes what it covers, then flushes the device. True when it has ended. */
bool flush_step(struct vblk_cache *c);

#endif

/*
 * memory_fold.h - several layers become one, little by little, while whoever has them goes on.
 *
 * What is folded does not change any more, so that nobody has to stand meanwhile. Main thread, or a
 * program that has got layers and wants one file.
 */
#ifndef VMM_MEMORY_FOLD_H
#define VMM_MEMORY_FOLD_H

#include "machine/memory_layers.h"

struct memory_fold {
    struct memory_layers *of;
    unsigned from; /* this layer and all above it; 0: everything */
    int fd;
    size_t next;   /* chunk to copy; of->chunks: done */
    size_t moved;  /* chunks before this one have the new file in their table */
    uint8_t as;    /* its number there; 0: none yet */
    uint64_t cost; /* of mapping it all from the new file */
    uint8_t *room; /* for bytes on their way */
    size_t room_size;
};

/* NULL: no memory or no descriptor. */
struct memory_fold *fold_new(struct memory_layers *of, unsigned from);
void fold_free(struct memory_fold *f); /* NULL is fine */
/* Copies about `bytes`. 1: there is more to do, 0: done, the file is sealed; -errno. */
int fold_step(struct memory_fold *f, uint64_t bytes);
static inline bool fold_is_done(const struct memory_fold *f)
{
    return f->next == f->of->chunks;
}
/* When it is done and was all of it: a set of the one new file. NULL: no memory or no descriptor.
 */
struct memory_layers *fold_result(const struct memory_fold *f);
/*
 * When it is done: `now`, which has grown out of the layers that were folded, with more chunks in
 * the new file, for which it sets moved[]: as many as `cost` allows, of f->cost in all. When these
 * are the last ones, the layers that were folded are gone, and *end is of->chunks; otherwise call
 * it for the set that comes next with *end in f->moved and *as in f->as. NULL: no memory or no
 * descriptor. now->count < LAYERS_MAX.
 */
struct memory_layers *fold_apply(const struct memory_fold *f, const struct memory_layers *now,
                                 uint64_t cost, uint8_t *moved, size_t *end, uint8_t *as);

#endif

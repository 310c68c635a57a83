/*
 * memory_layers.h - what frozen memory consists of: a few files that nobody writes any more, and a
 * table that says for each chunk of memory which of them has it.
 *
 * Layers lie upon each other: the lowest has all of memory as it was once, each further one what
 * was written until the next time that memory was frozen. Every file is as long as memory, and a
 * chunk lies at its own place in it: the rest are holes. A set of layers never changes; whoever
 * goes on holds a reference. Main thread.
 */
#ifndef VMM_MEMORY_LAYERS_H
#define VMM_MEMORY_LAYERS_H

#include <queztl/base.h>

enum {
    LAYERS_MAX = 24,
    LAYER_ZERO = 0xff, /* in the table: the chunk is zeroes, and in no file */
    LAYER_CHUNK_MIN = 4 << 10,
    LAYER_CHUNKS_MAX = 1 << 20, /* larger machines have larger chunks */
};

struct memory_layers {
    unsigned references, count;
    int fd[LAYERS_MAX]; /* [0] is the lowest */
    uint64_t size, chunk;
    size_t chunks;
    uint8_t table[]; /* for each chunk its layer, or LAYER_ZERO */
};

/* A memfd of this size that keeps it; a negative errno. */
int ram_file_new(uint64_t size);
/* Nobody writes it any more. A shared mapping that is there already still could. */
int ram_file_seal(int fd);
/* Whether it is such a file, and of this size. */
bool ram_file_is_sealed(int fd);
/* The pages of `from` that are not zero, at `offset` of the file: how many bytes, or -errno. */
int64_t ram_file_write(int fd, const uint8_t *from, size_t len, uint64_t offset);
/* What the file takes in memory. */
uint64_t ram_file_bytes(int fd);

/* The bytes of a chunk of a machine with that much memory; a power of two. */
uint64_t layers_chunk(uint64_t size);
/* No layers yet, all zeroes; one reference. NULL: no memory. */
struct memory_layers *layers_new(uint64_t size);
/* One layer that has everything; takes `fd` over, also when there is no memory. */
struct memory_layers *layers_of_file(int fd, uint64_t size);
/* Another file on top, which has no chunk yet; its number. It is taken over. count < LAYERS_MAX. */
uint8_t layers_add(struct memory_layers *l, int fd);
/* The same file as another set has. -errno: no descriptor. */
int layers_add_again(struct memory_layers *l, int fd);
/* Another set of the same. NULL: no memory or no descriptor. */
struct memory_layers *layers_copy(const struct memory_layers *l);
struct memory_layers *layers_hold(struct memory_layers *l);
void layers_drop(struct memory_layers *l); /* NULL is fine */

static inline uint64_t layers_end_of(const struct memory_layers *l, size_t chunk)
{
    return QZ_MIN((chunk + 1) * l->chunk, l->size);
}
/* How many mappings it takes. */
size_t layers_runs(const struct memory_layers *l);
#endif

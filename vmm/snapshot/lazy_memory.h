/*
 * lazy_memory.h - a machine's memory that a snapshot's chunks come into one by one, while machines
 * already read it.
 *
 * Theory of operation. The memory is a memfd of holes. Machines map it privately and have the
 * kernel stop whoever touches a page that is not there (userfaultfd, missing pages). A page comes
 * into the file whole and checked or not at all: it is copied through a mapping that is shared and
 * is registered with a userfaultfd of its own (UFFDIO_COPY), because a page that were written in
 * the usual ways would be there for readers before its bytes are. Then whoever was stopped is woken
 * and finds the page in the file.
 *
 * This holds where the file has small pages (userfault_check()): a huge one would make neighbours
 * appear as zeros.
 *
 * Chunks that are zeros stay holes. One thread.
 */
#ifndef VMM_LAZY_MEMORY_H
#define VMM_LAZY_MEMORY_H

#include "snapshot/snapshot_dir.h"
#include "snapshot/working_set.h"

struct lazy_memory;

/* A part of memory that has chunks to load, and perhaps short runs of zeros between them. */
struct lazy_range {
    uint64_t offset, len;
};
enum { LAZY_RANGES_MAX = 256 };

/*
 * `to`: the file, memory_size bytes, mapped shared by this process. first: what to load before all
 * else; may be empty, and may not go before this does. The snapshot stays open that long, too.
 */
int lazy_memory_new(struct lazy_memory **m, const struct snapshot_dir *s, void *to,
                    const struct working_set *first, struct qz_error *err);
void lazy_memory_free(struct lazy_memory *m); /* NULL is nothing */

/* The chunk that has the byte at `offset` is in the file; *begin and *len: it. */
int lazy_memory_need(struct lazy_memory *m, uint64_t offset, uint64_t *begin, uint64_t *len,
                     struct qz_error *err);
/* One more chunk of what is to be loaded first is there. 1: or there was none left. */
int lazy_memory_load_first(struct lazy_memory *m, struct qz_error *err);
/* One more chunk is there, in their order. 1: or there was none left. */
int lazy_memory_load_next(struct lazy_memory *m, struct qz_error *err);
bool lazy_memory_is_whole(const struct lazy_memory *m);
/* Bytes that are there, and that there are, without zeros. */
void lazy_memory_progress(const struct lazy_memory *m, uint64_t *done, uint64_t *of);

/* What to stop machines at. */
const struct lazy_range *lazy_memory_ranges(const struct lazy_memory *m, size_t *count);
/* What lazy_memory_need() had to load, in order; the memory's. */
const struct working_set *lazy_memory_needed(const struct lazy_memory *m);

#endif

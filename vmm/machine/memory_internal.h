/* memory_internal.h - what the files of guest memory share (memory.h). */
#ifndef VMM_MEMORY_INTERNAL_H
#define VMM_MEMORY_INTERNAL_H

#include <fcntl.h>
#include <sys/mman.h>

#include "machine/memory.h"
#include "machine/memory_layers.h"

/* What is known of a chunk since memory was frozen. */
enum chunk_change {
    CHUNK_AS_FROZEN, /* or written, which memory_find_written() tells */
    CHUNK_CHANGED,
    CHUNK_GIVEN_BACK, /* zeroes are mapped, in which something may have been written since */
};

/* The file in place of what is mapped; MAP_SHARED or MAP_PRIVATE. */
int memory_map_file(const struct guest_memory *m, int fd, int sharing);
/* An address range of this process that nobody can use, aligned for huge pages; NULL: no room. */
uint8_t *memory_reserve(uint64_t size);
uint8_t *memory_reserve_aligned(uint64_t size, uint64_t align);

/* ---- memory_pages.c */

/* Whether this host has what the options need. */
int memory_check_options(const struct memory_options *o, uint64_t size, struct qz_error *err);
/* A file for memory of that size, as ram_file_new(), on pages of that kind. */
int memory_file_new(uint64_t size, enum memory_pages pages);
/* What to tell somebody whose pages could not be reserved: -ENOMEM. */
int memory_too_few_pages(uint64_t size, enum memory_pages pages, struct qz_error *err);
/* Tells the kernel which pages are wanted at this new mapping; it is right without, too. */
int memory_advise(const struct guest_memory *m, uint8_t *at, uint64_t len);
/* Zeroes over all of memory, private to this process, and layers that say so. */
int memory_begin_private(struct guest_memory *m);
/* All bytes become zero, and no page is given up. */
int memory_zero_in_place(const struct guest_memory *m);

/* ---- memory_base.c */

/* Zeroes mapped at [at, at + len), private. */
int memory_map_zeroes(const struct guest_memory *m, uint8_t *at, uint64_t len);
/* Zeroes instead of [offset, offset + len) of RAM, which is frozen; whole pages. Any thread. */
int memory_forget(const struct guest_memory *m, uint64_t offset, uint64_t len);
/* Sets changed[] of each chunk with a page that was written since it was mapped from a layer.
 * threads: NULL: this one alone. */
void memory_find_written(const struct guest_memory *m, uint8_t *changed,
                         const struct memory_threads *threads);
/* Gives up what guest_memory_tidy() would have done. */
void memory_leave_untidied(struct guest_memory *m);

#endif

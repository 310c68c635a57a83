/* memory_internal.h - what memory.c and memory_base.c share. */
#ifndef VMM_MEMORY_INTERNAL_H
#define VMM_MEMORY_INTERNAL_H

#include <fcntl.h>
#include <sys/mman.h>

#include "machine/memory.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

/* F_SEAL_WRITE would look at every page; this one asks only that no new writer comes, and with the
 * shared mappings the old ones are gone. */
enum { SEAL_BASE = F_SEAL_FUTURE_WRITE, BASE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | SEAL_BASE };

/* A memfd of this size that keeps it; a negative errno. */
int memory_file_new(uint64_t size);
/* The file in place of what is mapped; MAP_SHARED or MAP_PRIVATE. */
int memory_map_file(const struct guest_memory *m, int fd, int sharing);
/* Zeroes instead of [offset, offset + len) of RAM, which is frozen; whole pages. Any thread. */
int memory_forget(const struct guest_memory *m, uint64_t offset, uint64_t len);

#endif

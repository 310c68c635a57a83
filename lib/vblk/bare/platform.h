/*
 * platform.h - the driver's platform on a bare x86-64 machine with one CPU, memory mapped one to
 * one.
 */
#ifndef BARE_PLATFORM_H
#define BARE_PLATFORM_H

#include <queztl/vblk.h>

extern const struct vblk_platform bare_platform;

/* Zeroed memory that is never given back; NULL when it is used up. */
void *bare_alloc(size_t size, size_t align);
/* All of bare_alloc() and of the platform's memory is free again. */
void bare_alloc_reset(void);
/* Is this one of the words of the kernel's command line (PVH)? */
bool bare_word(const char *word);
void bare_print(const char *text);
void bare_print_number(uint64_t n);

#endif

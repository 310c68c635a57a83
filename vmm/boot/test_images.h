/*
 * test_images.h - makes small kernel files for tests and as seeds for fuzzing: an ELF image, packed
 * into a bzImage.
 *
 * No part of the monitor. Functions end the process when memory runs out.
 */
#ifndef VMM_TEST_IMAGES_H
#define VMM_TEST_IMAGES_H

#include "boot/decompress.h"

struct image {
    uint8_t *data;
    size_t len;
};

struct test_segment {
    uint64_t paddr, memsz;
    size_t size;    /* bytes in the file */
    unsigned fill;  /* seed of pseudo-random bytes, 0: all zeros */
    size_t padding; /* bytes of file left unused before it */
};

struct test_elf {
    uint64_t entry;
    uint64_t pvh_entry; /* 0: no note */
    unsigned segments;
    struct test_segment segment[8];
    size_t tail; /* bytes behind the last segment, as symbols and relocations are */
};

/* The byte at offset i of a segment with this fill. Compresses by about a half. */
uint8_t test_fill(unsigned fill, size_t i);

struct image test_elf_make(const struct test_elf *e);
/* Boot protocol 2.15. For a format that is not supported, its magic and some bytes stand for the
 * payload. */
struct image test_bzimage_make(const struct image *elf, enum compression c);
void test_image_free(struct image *i);

#endif

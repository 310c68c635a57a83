/*
 * state_file.h - named sections of bytes in one file: a snapshot's state.
 *
 * Layout, little-endian: 8 bytes "QZSTATE\n"; format version (4 bytes, 1); number of sections (4
 * bytes); for each section its name (32 bytes, padded with zeros), offset (8), length (8) and
 * CRC-32 (4, and 4 of zeros); CRC-32 of all of that (4). Sections follow in this order without
 * gaps, and the file ends with the last one.
 *
 * A file is written beside its final name and renamed when it is on the medium: who opens it finds
 * the old one, or the new one whole. A file that is read may be anybody's: every number in it is
 * checked before it is used, and nothing larger than STATE_FILE_MAX is taken into memory.
 */
#ifndef VMM_STATE_FILE_H
#define VMM_STATE_FILE_H

#include <queztl/base.h>

enum { STATE_FILE_SECTIONS = 512, STATE_FILE_NAME = 32, STATE_FILE_MAX = 64 << 20 };

struct state_section {
    char name[STATE_FILE_NAME]; /* 1 to 31 characters */
    const void *data;
    size_t len;
};

/* Names are different. -errno with the file's name in the text; then the old file is as it was. */
int state_file_write(int folder, const char *name, const struct state_section *section,
                     unsigned count, struct qz_error *err);

/* The same as bytes in memory, the caller's to free. */
int state_file_pack(const struct state_section *section, unsigned count, void **bytes, size_t *len,
                    struct qz_error *err);

/* The sections of a file, whose data is *bytes, the caller's to free. */
struct state_file {
    struct state_section section[STATE_FILE_SECTIONS];
    unsigned count;
    void *bytes;
};
int state_file_read(int folder, const char *name, struct state_file *file, struct qz_error *err);
/* The same for bytes in memory, which stay the caller's (file->bytes is NULL). */
int state_file_parse(const void *bytes, size_t len, struct state_file *file, struct qz_error *err);
void state_file_free(struct state_file *file);
/* NULL: there is none of that name. */
const struct state_section *state_file_find(const struct state_file *file, const char *name);

#endif

/* snapshot_test_kit.h - what the tests of snapshots share: a folder to be in, memory, files. */
#ifndef VMM_SNAPSHOT_TEST_KIT_H
#define VMM_SNAPSHOT_TEST_KIT_H

#include <setjmp.h>
#include <stdarg.h>

#include "snapshot/snapshot_dir.h"

#include <cmocka.h>

/* The current folder is a new one, for the whole group; then it is removed with all in it. */
int kit_setup(void **state);
int kit_teardown(void **state);

/* 100 chunks, the last one of 5 pages. */
enum { KIT_CHUNK = 64 << 10, KIT_MEMORY = 99 * KIT_CHUNK + 5 * 4096 };

/* A memfd of KIT_MEMORY bytes: zeros, but for some chunks of noise, text, and single bytes. */
int kit_memory(uint64_t seed);
/* Another byte at this place. */
void kit_change(int memory, uint64_t at);

/* A machine's state, the caller's to free. */
void kit_state(void **state, size_t *len);
/* Writes a snapshot with that state; fails the test if that fails. */
void kit_write(const char *path, int memory, const char *parent, bool compress);
/* It opens, its state is right, and its memory is that of the memfd, read whole and by chunks. */
void kit_expect(const char *path, int memory);
/* It does not open, or its memory cannot be read, with this code and text. */
void kit_expect_bad(const char *path, int code, const char *text);

void kit_put(const char *path, const void *data, size_t len);
/* Copies a snapshot's files, but not who builds upon it. */
void kit_copy(const char *from, const char *to);
/* Removes a folder and what is in it. */
void kit_remove(const char *path);
/* How many names in this folder contain the text. */
unsigned kit_names_with(const char *folder, const char *text);

#endif

/*
 * files.h - a snapshot's files: opened without following links, read and written whole. What is
 * read may be anybody's.
 */
#ifndef VMM_SNAPSHOT_FILES_H
#define VMM_SNAPSHOT_FILES_H

#include <queztl/base.h>

/* Opened for reading only when it is a regular file and no link. */
int open_regular(int folder, const char *name, uint64_t *size);
int read_all(int fd, void *to, size_t len, uint64_t offset);
int write_all(int fd, const void *from, size_t len, uint64_t offset);
/* A whole new file, on the medium. */
int write_file(int folder, const char *name, const void *data, size_t len, struct qz_error *err);
/* At most `max` bytes of a file; a zero byte behind them. */
int read_file(int folder, const char *name, size_t max, void **data, size_t *len,
              struct qz_error *err);
/* What may be in a snapshot's folder, "." and ".." too. */
bool is_snapshot_file(const char *name);
/* The folder with all a snapshot's files; other things in it keep it (-ENOTEMPTY). */
int remove_snapshot_files(int parent, const char *name);

#endif

/* file.h - the protocol layer over a file or block device. */
#ifndef DISK_FILE_H
#define DISK_FILE_H

#include "layer.h"
#include <sys/stat.h>

enum file_cache {
    FILE_WRITEBACK,    /* page cache; a flush makes it durable */
    FILE_WRITETHROUGH, /* page cache; every write is durable when done */
    FILE_DIRECT,       /* O_DIRECT */
    FILE_UNSAFE,       /* page cache; flushes do nothing: for what may be lost */
};

struct file_options {
    const char *path;
    bool by_fd; /* path is only its name, for messages */
    int fd;     /* duplicated; open for what is asked, regular file or block device */
    bool readonly, no_lock;
    bool no_discard; /* discards are dropped and zeroes are written */
    enum file_cache cache;
};

/* Locks the file against whoever writes it, or when we write, against everybody, in the way of
 * QEMU, so that both see each other. */
int file_open(struct layer **l, const struct file_options *o, struct qz_error *err);

/* False: the layer is no file. */
bool file_stat(const struct layer *l, struct stat *st);

enum file_preallocation {
    FILE_SPARSE,
    FILE_FALLOC, /* blocks are reserved */
    FILE_FULL,   /* zeroes are written */
};

/* A new regular file; -EEXIST when something has the name, unless overwrite (which cuts a regular
 * file to nothing, once nobody else has it open). */
int file_create(const char *path, uint64_t size, enum file_preallocation p, bool overwrite,
                struct qz_error *err);

#endif

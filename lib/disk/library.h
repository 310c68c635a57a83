/*
 * library.h - libraries that only some disks need, opened when one does.
 *
 * What a process never uses it shall not hold: libcrypto costs 1.2 MiB, libnbd with its TLS and XML
 * parts more. A process that confines itself opens its disks before, and with them these libraries:
 * afterwards none can be opened.
 */
#ifndef DISK_LIBRARY_H
#define DISK_LIBRARY_H

#include <queztl/base.h>

struct library_function {
    const char *library, *name; /* "libnbd.so.0", "nbd_create" */
    void **function;
};

/* Opens the library for good and fills those of the functions that are its own. package: Debian's,
 * for the message. */
int library_open(const char *library, const char *package, const struct library_function *f,
                 size_t count, struct qz_error *err);

#endif

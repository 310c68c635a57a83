/*
 * firmware_store.h - a machine's own variable store for its firmware: a small file, which the
 * monitor locks and writes.
 */
#ifndef TOOLS_FIRMWARE_STORE_H
#define TOOLS_FIRMWARE_STORE_H

#include <queztl/base.h>

/* A copy of `from` that is called `to`. -EEXIST: there is one. */
int firmware_store_copy(const char *from, const char *to, struct qz_error *err);
/* A copy without a name, which is gone with the machine: a descriptor. -errno. */
int firmware_store_unnamed(const char *from, struct qz_error *err);

#endif

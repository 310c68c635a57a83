/* compress.h - one cluster, compressed or not: zlib (raw deflate) or zstd. Any thread. */
#ifndef DISK_QCOW2_COMPRESS_H
#define DISK_QCOW2_COMPRESS_H

#include "layout.h"
#include <stddef.h>
#include <stdint.h>

/* The compressed bytes' length, 0: they would not be fewer than the cluster, or a negative errno.
 * `out` has room for length bytes. level: 1 (quick) to 9 (small); 0: the default, quick. */
int64_t qcow2_deflate(enum qcow2_compression how, int level, const void *in, size_t length,
                      void *out);
/* The first out_length bytes of a cluster, or -EIO. `in` may go on past the compressed data. */
int qcow2_inflate(enum qcow2_compression how, const void *in, size_t in_length, void *out,
                  size_t out_length);

#endif

/*
 * decompress.h - unpacking a kernel's payload.
 *
 * The unpacked image is handed out in pieces, with no copy of the whole: see struct unpack_sink. The compressed bytes are hostile; what
 * comes out is bounded by a limit, whatever the size recorded in the payload says.
 */
#ifndef VMM_DECOMPRESS_H
#define VMM_DECOMPRESS_H

#include <queztl/base.h>

enum compression {
    COMPRESSION_NONE, /* an ELF image as it is */
    COMPRESSION_GZIP,
    COMPRESSION_XZ,
    COMPRESSION_ZSTD,
    COMPRESSION_LZ4, /* legacy frame: independent blocks of 8 MiB */
    /* Known to kernels, left to their own decompressor: */
    COMPRESSION_BZIP2,
    COMPRESSION_LZMA,
    COMPRESSION_LZO,
    COMPRESSION_UNKNOWN,
};

enum compression compression_detect(const uint8_t *data, size_t len);
const char *compression_name(enum compression c);
bool compression_supported(enum compression c);

/* Where the unpacked image goes. Callbacks return 0 or a negative errno with *err filled, which ends the unpacking. */
struct unpack_sink {
    /* First of all, once: the first bytes of the image, at least UNPACK_HEAD of them unless it is shorter. */
    int (*head)(void *context, const uint8_t *data, size_t len, struct qz_error *err);
    /*
     * Bytes [offset, offset+len) of the image. Every byte comes once; in any order, and from several
     * threads at once.
     */
    int (*piece)(void *context, uint64_t offset, const uint8_t *data, size_t len, struct qz_error *err);
    void *context;
};

enum { UNPACK_HEAD = 65536 };

/*
 * Unpacks in[0..len), which may have up to 4 bytes of recorded size behind the compressed data. limit: most
 * bytes the image may have; more is -E2BIG. *total is its length. Errors begin with name.
 */
int unpack(const char *name, enum compression c, const uint8_t *in, size_t len, uint64_t limit,
           const struct unpack_sink *sink, uint64_t *total, struct qz_error *err);

#endif

/*
 * decompress.c - unpacking a kernel's payload (decompress.h).
 *
 * Theory of operation. LZ4 is the format of kernels that should start fast: its legacy frame
 * consists of independent blocks of 8 MiB, so several threads unpack them: a block that belongs to
 * one place goes right there, others into a scratch area that stays in the CPU's caches and from
 * which the sink copies. The other formats are streams: they are unpacked into one anonymous
 * mapping, of which only what is used becomes memory, and handed on from there.
 *
 * Formats: RFC 1952 (gzip), the .xz file format 1.1.0, RFC 8878 (zstd), LZ4 Frame Format "Legacy
 * frame". What the kernel's build adds: scripts/Makefile.lib (a 32-bit size behind all but gzip,
 * whose own trailer ends in it).
 */
#include <queztl/parallel.h>

#include "boot/decompress.h"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "boot/boot_internal.h"

QZ_SYSCALLS(main, "mmap munmap madvise");

enum {
    XZ_MEMORY_MAX = 256 << 20
}; /* for the decoder; the kernel's build uses a 32 MiB dictionary at most */
#define PIECE_SIZE ((size_t)8 << 20)

static const struct {
    const char *name;
    uint8_t magic_len;
    uint8_t magic[6];
} formats[] = {
    [COMPRESSION_NONE] = {"none", 4, {0x7f, 'E', 'L', 'F'}},
    [COMPRESSION_GZIP] = {"gzip", 2, {0x1f, 0x8b}},
    [COMPRESSION_XZ] = {"xz", 6, {0xfd, '7', 'z', 'X', 'Z', 0}},
    [COMPRESSION_ZSTD] = {"zstd", 4, {0x28, 0xb5, 0x2f, 0xfd}},
    [COMPRESSION_LZ4] = {"lz4", 4, {0x02, 0x21, 0x4c, 0x18}},
    [COMPRESSION_BZIP2] = {"bzip2", 3, {'B', 'Z', 'h'}},
    [COMPRESSION_LZMA] = {"lzma", 3, {0x5d, 0, 0}},
    [COMPRESSION_LZO] = {"lzo", 4, {0x89, 'L', 'Z', 'O'}},
    [COMPRESSION_UNKNOWN] = {"unknown", 0, {0}},
};

enum compression compression_detect(const uint8_t *data, size_t len)
{
    unsigned c = 0;

    while (c < COMPRESSION_UNKNOWN &&
           (len < formats[c].magic_len || memcmp(data, formats[c].magic, formats[c].magic_len)))
        c++;
    return c;
}

const char *compression_name(enum compression c)
{
    return formats[c].name;
}

bool compression_supported(enum compression c)
{
    return c <= COMPRESSION_LZ4;
}

/* ---- anonymous memory
 * --------------------------------------------------------------------------------- */

struct area {
    uint8_t *data;
    size_t len;
};

static void area_unmap(struct area *a)
{
    if (a->data)
        munmap(a->data, a->len);
}

static int area_map(struct area *a, uint64_t len, struct qz_error *err)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return qz_fail(err, -ENOMEM, "no memory to unpack the kernel");
    *a = (struct area){p, len};
    madvise(p, len, MADV_HUGEPAGE); /* fewer faults where the host has them */
    return 0;
}

/* ---- from a whole image to the sink
 * ----------------------------------------------------------------- */

struct whole {
    const struct unpack_sink *sink;
    const uint8_t *data;
    size_t len;
};

static int whole_piece(void *context, unsigned worker, uint64_t i, struct qz_error *err)
{
    const struct whole *w = context;
    size_t at = i * PIECE_SIZE;

    return w->sink->piece(w->sink->context, at, w->data + at, QZ_MIN(w->len - at, PIECE_SIZE), err);
}

static int hand_on(const struct unpack_sink *sink, const uint8_t *data, size_t len,
                   struct qz_error *err)
{
    struct whole w = {sink, data, len};
    int r = sink->head(sink->context, data, len, err);

    return r < 0
               ? r
               : qz_parallel((len + PIECE_SIZE - 1) / PIECE_SIZE, whole_piece, &w, NULL, NULL, err);
}

/* ---- streams
 * ----------------------------------------------------------------------------------------- */

static int too_large(const char *name, uint64_t limit, struct qz_error *err)
{
    char size[16];

    return qz_fail(err, -E2BIG,
                   "%s: unpacks to more than %s, which does not fit in this machine's memory", name,
                   qz_format_size(limit, size, sizeof(size)));
}

static int unpack_gzip(const char *name, const uint8_t *in, size_t len, struct area *out,
                       size_t *total, struct qz_error *err)
{
    enum { STEP = 1 << 30 }; /* zlib counts in 32 bits */
    z_stream z = {0};
    size_t in_left = len, out_left = out->len;
    int r;

    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return qz_fail(err, -ENOMEM, "%s: no memory for zlib", name);
    z.next_in = (uint8_t *)in;
    z.next_out = out->data;
    do {
        size_t in_step = QZ_MIN(in_left, (size_t)STEP), out_step = QZ_MIN(out_left, (size_t)STEP);

        z.avail_in = in_step;
        z.avail_out = out_step;
        r = inflate(&z, Z_NO_FLUSH);
        in_left -= in_step - z.avail_in;
        out_left -= out_step - z.avail_out;
    } while (r == Z_OK);
    *total = out->len - out_left;
    inflateEnd(&z);
    if (r == Z_STREAM_END)
        return 0;
    if (r == Z_BUF_ERROR && out_left == 0)
        return too_large(name, out->len, err);
    return qz_fail(err, -ENOEXEC, "%s: the gzip data is %s", name,
                   r == Z_BUF_ERROR ? "cut off"
                   : z.msg          ? z.msg
                                    : "corrupt");
}

static int unpack_xz(const char *name, const uint8_t *in, size_t len, struct area *out,
                     size_t *total, struct qz_error *err)
{
    uint64_t memory = XZ_MEMORY_MAX;
    size_t in_at = 0;
    lzma_ret r;

    *total = 0;
    r = lzma_stream_buffer_decode(&memory, 0, NULL, in, &in_at, len, out->data, total, out->len);
    switch (r) {
    case LZMA_OK:
        return 0;
    case LZMA_BUF_ERROR: /* leaves *total as it was, when out of room and when out of input */
        return qz_fail(err, -ENOEXEC,
                       "%s: the xz data is cut off, or unpacks to more than this machine's memory",
                       name);
    case LZMA_MEM_ERROR:
    case LZMA_MEMLIMIT_ERROR:
        return qz_fail(err, -ENOEXEC, "%s: the xz data needs more than %d MiB to unpack", name,
                       XZ_MEMORY_MAX >> 20);
    default:
        return qz_fail(err, -ENOEXEC, "%s: the xz data is corrupt (liblzma: %d)", name, r);
    }
}

static int unpack_zstd(const char *name, const uint8_t *in, size_t len, struct area *out,
                       size_t *total, struct qz_error *err)
{
    /* The length of the frame is in it; what follows is the recorded size. */
    size_t frame = ZSTD_findFrameCompressedSize(in, len), n;

    if (ZSTD_isError(frame))
        return qz_fail(err, -ENOEXEC, "%s: the zstd data is corrupt: %s", name,
                       ZSTD_getErrorName(frame));
    n = ZSTD_decompress(out->data, out->len, in, frame);
    if (ZSTD_isError(n)) {
        if (ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall)
            return too_large(name, out->len, err);
        return qz_fail(err, -ENOEXEC, "%s: the zstd data is corrupt: %s", name,
                       ZSTD_getErrorName(n));
    }
    *total = n;
    return 0;
}

/* ---- LZ4
 * ------------------------------------------------------------------------------------------------
 */

enum { LZ4_BLOCKS_MAX = 128 };

struct lz4 {
    const char *name;
    const struct unpack_sink *sink;
    unsigned blocks;
    struct {
        const uint8_t *data;
        uint32_t len;
    } block[LZ4_BLOCKS_MAX];
    struct area scratch[QZ_WORKERS_MAX];
    uint64_t limit;
    uint64_t last_len; /* written by the job of the last block only */
};

static int lz4_blocks(struct lz4 *z, const uint8_t *in, size_t len, struct qz_error *err)
{
    size_t at = 4;

    while (len - at > 4) {
        uint32_t n = qz_load_le32(in + at);

        at += 4;
        if (n == 0 || n > (uint32_t)LZ4_COMPRESSBOUND(PIECE_SIZE) || n > len - at)
            return qz_fail(err, -ENOEXEC, "%s: LZ4 block %u has %u bytes, %zu are left in the file",
                           z->name, z->blocks, n, len - at);
        if (z->blocks == LZ4_BLOCKS_MAX || z->blocks * PIECE_SIZE >= z->limit)
            return too_large(z->name, z->limit, err);
        z->block[z->blocks].data = in + at;
        z->block[z->blocks++].len = n;
        at += n;
    }
    return z->blocks ? 0 : qz_fail(err, -ENOEXEC, "%s: the LZ4 data is cut off", z->name);
}

/* Where block i is unpacked to: its final place or this worker's scratch area. */
static uint8_t *lz4_target(struct lz4 *z, struct area *scratch, unsigned i, struct qz_error *err)
{
    uint8_t *place = NULL;

    /* The last block's length is not known, and what shrank this much is zeros that the sink leaves
     * out. */
    if (z->sink->direct && i < z->blocks - 1 && z->block[i].len > PIECE_SIZE / 16)
        place = z->sink->direct(z->sink->context, i * PIECE_SIZE, PIECE_SIZE);
    if (!place && !scratch->data && area_map(scratch, PIECE_SIZE, err) < 0)
        return NULL;
    return place ? place : scratch->data;
}

static int lz4_job(void *context, unsigned worker, uint64_t i, struct qz_error *err)
{
    struct lz4 *z = context;
    bool last = i == z->blocks - 1;
    uint8_t *out = lz4_target(z, &z->scratch[worker], i, err);
    int n;

    if (!out)
        return -ENOMEM;
    n = LZ4_decompress_safe((const char *)z->block[i].data, (char *)out, (int)z->block[i].len,
                            PIECE_SIZE);
    if (n < 0)
        return qz_fail(err, -ENOEXEC, "%s: LZ4 block %u is corrupt", z->name, (unsigned)i);
    if (!last && (size_t)n != PIECE_SIZE)
        return qz_fail(err, -ENOEXEC, "%s: LZ4 block %u unpacks to %d bytes instead of 8 MiB",
                       z->name, (unsigned)i, n);
    if (last)
        z->last_len = n;
    if (i * PIECE_SIZE + n > z->limit)
        return too_large(z->name, z->limit, err);
    return z->sink->piece(z->sink->context, i * PIECE_SIZE, out, n, err);
}

static int lz4_head(struct lz4 *z, struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *head = malloc(UNPACK_HEAD);
    int n;

    if (!head)
        return qz_fail(err, -ENOMEM, "no memory");
    n = LZ4_decompress_safe_partial((const char *)z->block[0].data, (char *)head,
                                    (int)z->block[0].len, UNPACK_HEAD, UNPACK_HEAD);
    if (n < 0)
        return qz_fail(err, -ENOEXEC, "%s: LZ4 block 0 is corrupt", z->name);
    return z->sink->head(z->sink->context, head, n, err);
}

static int unpack_lz4(const char *name, const uint8_t *in, size_t len, uint64_t limit,
                      const struct unpack_sink *sink, uint64_t *total, struct qz_error *err)
{
    struct lz4 z = {.name = name, .sink = sink, .limit = limit};
    int r = lz4_blocks(&z, in, len, err);

    if (r == 0)
        r = lz4_head(&z, err);
    if (r == 0)
        r = qz_parallel(z.blocks, lz4_job, &z, NULL, NULL, err);
    for (unsigned i = 0; i < QZ_WORKERS_MAX; i++)
        area_unmap(&z.scratch[i]);
    *total = r == 0 ? (z.blocks - 1) * PIECE_SIZE + z.last_len : 0;
    return r;
}

/* ---- all
 * -----------------------------------------------------------------------------------------------
 */

int unpack(const char *name, enum compression c, const uint8_t *in, size_t len, uint64_t limit,
           const struct unpack_sink *sink, uint64_t *total, struct qz_error *err)
{
    __attribute__((cleanup(area_unmap))) struct area out = {NULL, 0};
    size_t n = 0;
    int r;

    if (compression_detect(in, len) != c || !compression_supported(c))
        return qz_fail(err, -ENOEXEC, "%s: the payload is not %s data", name, compression_name(c));
    if (c == COMPRESSION_LZ4)
        return unpack_lz4(name, in, len, limit, sink, total, err);
    if (c == COMPRESSION_NONE) {
        *total = len;
        return hand_on(sink, in, len, err);
    }
    r = area_map(&out, limit, err);
    if (r < 0)
        return r;
    if (c == COMPRESSION_GZIP)
        r = unpack_gzip(name, in, len, &out, &n, err);
    else if (c == COMPRESSION_XZ)
        r = unpack_xz(name, in, len, &out, &n, err);
    else
        r = unpack_zstd(name, in, len, &out, &n, err);
    *total = n;
    return r < 0 ? r : hand_on(sink, out.data, n, err);
}

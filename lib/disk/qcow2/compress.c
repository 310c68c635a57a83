/*
 * compress.c - one cluster, compressed or not ("Compressed Clusters Descriptor").
 *
 * zlib: raw deflate, a window of 4 KiB at most (2^12), no header. zstd: one frame. The state of a
 * decompressor is large, so each thread keeps its own.
 */
#include "compress.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW_BITS = 12, ZLIB_LEVEL = Z_DEFAULT_COMPRESSION, ZSTD_LEVEL = 3 };

struct machinery {
    z_stream inflate, deflate;
    int inflate_ready, deflate_ready;
    ZSTD_DCtx *unpack;
    ZSTD_CCtx *pack;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int key_error;

static void machinery_free(void *p)
{
    struct machinery *m = p;

    if (m->inflate_ready)
        inflateEnd(&m->inflate);
    if (m->deflate_ready)
        deflateEnd(&m->deflate);
    ZSTD_freeDCtx(m->unpack);
    ZSTD_freeCCtx(m->pack);
    free(m);
}

static void make_key(void)
{
    key_error = pthread_key_create(&key, machinery_free);
}

static struct machinery *mine(void)
{
    struct machinery *m;

    pthread_once(&once, make_key);
    if (key_error)
        return NULL;
    m = pthread_getspecific(key);
    if (m)
        return m;
    m = calloc(1, sizeof(*m));
    if (m && pthread_setspecific(key, m)) {
        free(m);
        return NULL;
    }
    return m;
}

static int64_t deflate_zlib(struct machinery *m, const void *in, size_t length, void *out)
{
    z_stream *z = &m->deflate;

    if (!m->deflate_ready) {
        if (deflateInit2(z, ZLIB_LEVEL, Z_DEFLATED, -WINDOW_BITS, 9, Z_DEFAULT_STRATEGY) != Z_OK)
            return -ENOMEM;
        m->deflate_ready = 1;
    }
    deflateReset(z);
    z->next_in = (Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)length;
    z->next_out = out;
    z->avail_out = (uInt)length - 1;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? (int64_t)(length - 1 - z->avail_out) : 0;
}

static int64_t deflate_zstd(struct machinery *m, const void *in, size_t length, void *out)
{
    size_t n;

    if (!m->pack)
        m->pack = ZSTD_createCCtx();
    if (!m->pack)
        return -ENOMEM;
    n = ZSTD_compressCCtx(m->pack, out, length - 1, in, length, ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

int64_t qcow2_deflate(enum qcow2_compression how, const void *in, size_t length, void *out)
{
    struct machinery *m = mine();

    if (!m)
        return -ENOMEM;
    return how == QCOW2_ZSTD ? deflate_zstd(m, in, length, out) : deflate_zlib(m, in, length, out);
}

static int inflate_zlib(struct machinery *m, const void *in, size_t in_length, void *out,
                        size_t out_length)
{
    z_stream *z = &m->inflate;
    int rc;

    if (!m->inflate_ready) {
        if (inflateInit2(z, -WINDOW_BITS) != Z_OK)
            return -ENOMEM;
        m->inflate_ready = 1;
    }
    inflateReset(z);
    z->next_in = (Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)in_length;
    z->next_out = out;
    z->avail_out = (uInt)out_length;
    rc = inflate(z, Z_FINISH);
    /* Z_BUF_ERROR: the stream would go on, but the cluster is full; writers end there. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z->avail_out ? 0 : -EIO;
}

static int inflate_zstd(struct machinery *m, const void *in, size_t in_length, void *out,
                        size_t out_length)
{
    ZSTD_inBuffer from = {in, in_length, 0};
    ZSTD_outBuffer to = {out, out_length, 0};

    if (!m->unpack)
        m->unpack = ZSTD_createDCtx();
    if (!m->unpack)
        return -ENOMEM;
    ZSTD_DCtx_reset(m->unpack, ZSTD_reset_session_only);
    while (to.pos < to.size) {
        size_t before = to.pos + from.pos, rc = ZSTD_decompressStream(m->unpack, &to, &from);

        if (ZSTD_isError(rc))
            return -EIO;
        if (to.pos + from.pos == before || (rc == 0 && to.pos < to.size))
            return -EIO; /* ends too early */
    }
    return 0;
}

int qcow2_inflate(enum qcow2_compression how, const void *in, size_t in_length, void *out,
                  size_t out_length)
{
    struct machinery *m = mine();

    if (!m)
        return -ENOMEM;
    return how == QCOW2_ZSTD ? inflate_zstd(m, in, in_length, out, out_length)
                             : inflate_zlib(m, in, in_length, out, out_length);
}

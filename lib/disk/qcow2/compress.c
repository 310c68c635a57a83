/*
 * compress.c - one cluster, compressed or not ("Compressed Clusters Descriptor").
 *
 * zlib: raw deflate, a window of 4 KiB at most (2^12), no header. zstd: one frame. The state of a
 * decompressor is large, so each thread keeps its own.
 *
 * Deflate is done by ISA-L where it is there: it unpacks twice as fast as zlib, and packs eight
 * times as fast into a tenth more bytes; zlib packs when a level is asked for.
 */
#include "compress.h"
#include <errno.h>
#ifdef DISK_HAS_ISAL
#include <isa-l.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW_BITS = 12, ZSTD_LEVEL = 3 };

struct machinery {
    z_stream inflate, deflate;
    int inflate_ready, deflate_ready, level;
#ifdef DISK_HAS_ISAL
    struct inflate_state *quick_inflate;
    struct isal_zstream *quick_deflate;
    uint8_t *quick_memory;
#endif
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
#ifdef DISK_HAS_ISAL
    free(m->quick_inflate);
    free(m->quick_deflate);
    free(m->quick_memory);
#endif
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

static int64_t deflate_zlib(struct machinery *m, int level, const void *in, size_t length,
                            void *out)
{
    z_stream *z = &m->deflate;

    if (m->deflate_ready && m->level != level) {
        deflateEnd(z);
        m->deflate_ready = 0;
    }
    if (!m->deflate_ready) {
        if (deflateInit2(z, level, Z_DEFLATED, -WINDOW_BITS, 9, Z_DEFAULT_STRATEGY) != Z_OK)
            return -ENOMEM;
        m->deflate_ready = 1;
        m->level = level;
    }
    deflateReset(z);
    z->next_in = (Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)length;
    z->next_out = out;
    z->avail_out = (uInt)length - 1;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? (int64_t)(length - 1 - z->avail_out) : 0;
}

#ifdef DISK_HAS_ISAL
static int64_t deflate_quick(struct machinery *m, const void *in, size_t length, void *out)
{
    struct isal_zstream *z;

    if (!m->quick_deflate)
        m->quick_deflate = calloc(1, sizeof(*m->quick_deflate));
    if (!m->quick_memory)
        m->quick_memory = malloc(ISAL_DEF_LVL3_DEFAULT);
    z = m->quick_deflate;
    if (!z || !m->quick_memory)
        return -ENOMEM;
    isal_deflate_init(z);
    z->level = 3;
    z->level_buf = m->quick_memory;
    z->level_buf_size = ISAL_DEF_LVL3_DEFAULT;
    z->hist_bits = WINDOW_BITS;
    z->end_of_stream = 1;
    z->flush = NO_FLUSH;
    z->next_in = (uint8_t *)(uintptr_t)in;
    z->avail_in = (uint32_t)length;
    z->next_out = out;
    z->avail_out = (uint32_t)length - 1;
    if (isal_deflate(z) != COMP_OK || z->internal_state.state != ZSTATE_END)
        return 0;
    return z->total_out;
}
#endif

/* Level 0: what is quickest here. */
static int64_t deflate_any(struct machinery *m, int level, const void *in, size_t length, void *out)
{
#ifdef DISK_HAS_ISAL
    if (!level)
        return deflate_quick(m, in, length, out);
#endif
    return deflate_zlib(m, level ? level : Z_BEST_SPEED, in, length, out);
}

static int64_t deflate_zstd(struct machinery *m, int level, const void *in, size_t length,
                            void *out)
{
    size_t n;

    if (!m->pack)
        m->pack = ZSTD_createCCtx();
    if (!m->pack)
        return -ENOMEM;
    n = ZSTD_compressCCtx(m->pack, out, length - 1, in, length, level ? level : ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

int64_t qcow2_deflate(enum qcow2_compression how, int level, const void *in, size_t length,
                      void *out)
{
    struct machinery *m = mine();

    if (!m)
        return -ENOMEM;
    return how == QCOW2_ZSTD ? deflate_zstd(m, level, in, length, out)
                             : deflate_any(m, level, in, length, out);
}

#ifdef DISK_HAS_ISAL
static int inflate_deflated(struct machinery *m, const void *in, size_t in_length, void *out,
                            size_t out_length)
{
    struct inflate_state *z;
    int rc;

    if (!m->quick_inflate)
        m->quick_inflate = malloc(sizeof(*m->quick_inflate));
    z = m->quick_inflate;
    if (!z)
        return -ENOMEM;
    isal_inflate_init(z);
    z->crc_flag = ISAL_DEFLATE;
    z->next_in = (uint8_t *)(uintptr_t)in;
    z->avail_in = (uint32_t)in_length;
    z->next_out = out;
    z->avail_out = (uint32_t)out_length;
    rc = isal_inflate_stateless(z);
    /* Overflow: the stream would go on; at a cluster's end writers stop there. */
    return (rc == ISAL_DECOMP_OK || rc == ISAL_OUT_OVERFLOW) && !z->avail_out ? 0 : -EIO;
}
#else
static int inflate_deflated(struct machinery *m, const void *in, size_t in_length, void *out,
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
#endif

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
                             : inflate_deflated(m, in, in_length, out, out_length);
}

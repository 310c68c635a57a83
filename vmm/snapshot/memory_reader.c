/* memory_reader.c - a snapshot's chunks, found in their layer, unpacked and checked. */
#include <zstd.h>

#include <queztl/parallel.h>

#include "snapshot/crc32c.h"
#include "snapshot/snapshot_internal.h"

int chunk_reader_init(struct chunk_reader *r, uint32_t chunk_size, struct qz_error *err)
{
    r->stored = malloc(chunk_size);
    r->decompressor = ZSTD_createDCtx();
    if (r->stored && r->decompressor)
        return 0;
    chunk_reader_free(r);
    return qz_fail(err, -ENOMEM, "no memory to read chunks of %u bytes", chunk_size);
}

void chunk_reader_free(struct chunk_reader *r)
{
    free(r->stored);
    ZSTD_freeDCtx(r->decompressor);
    *r = (struct chunk_reader){0};
}

static int fail(const struct snapshot_dir *s, uint64_t n, int code, const char *why,
                struct qz_error *err)
{
    return qz_fail(err, code,
                   "%s/%s: chunk %llu (guest memory at 0x%llx): %s; restore from another snapshot, "
                   "or from a copy of this one",
                   s->layer[s->chunk_layer[n]].path, SNAPSHOT_MEMORY, (unsigned long long)n,
                   (unsigned long long)(n * s->index.chunk_size), why);
}

int chunk_read(const struct snapshot_dir *s, struct chunk_reader *r, uint64_t n, void *to,
               struct qz_error *err)
{
    const struct chunk *c = &s->index.chunk[n];
    const uint32_t len = chunk_length(&s->index, n);
    const bool packed = c->kind == CHUNK_ZSTD;
    const int e =
        read_all(s->layer[s->chunk_layer[n]].memory, packed ? r->stored : to, c->stored, c->offset);

    if (e == -ENODATA)
        return fail(s, n, -EIO, "the file ends before it: it was cut short", err);
    if (e < 0)
        return fail(s, n, e, strerror(-e), err);
    /* The answer is a length, or an error number, which no length equals. */
    if (packed && ZSTD_decompressDCtx(r->decompressor, to, len, r->stored, c->stored) != len)
        return fail(s, n, -EBADMSG, "does not unpack: the file is damaged", err);
    if (crc32c(0, to, len) != c->crc)
        return fail(s, n, -EBADMSG, "its checksum is wrong: the file is damaged", err);
    return 0;
}

bool snapshot_dir_chunk_is_zero(const struct snapshot_dir *s, uint64_t n)
{
    return n >= s->index.chunks || s->index.chunk[n].kind == CHUNK_ZERO;
}

int snapshot_dir_read_chunk(const struct snapshot_dir *s, uint64_t n, void *to,
                            struct qz_error *err)
{
    struct chunk_reader reader = {0};
    int r;

    if (n >= s->index.chunks)
        return qz_fail(err, -ERANGE, "%s: chunk %llu of %llu", s->layer[0].path,
                       (unsigned long long)n, (unsigned long long)s->index.chunks);
    if (snapshot_dir_chunk_is_zero(s, n)) {
        memset(to, 0, chunk_length(&s->index, n));
        return 0;
    }
    r = s->index.chunk[n].kind == CHUNK_ZSTD ? chunk_reader_init(&reader, s->index.chunk_size, err)
                                             : 0;
    if (r == 0)
        r = chunk_read(s, &reader, n, to, err);
    chunk_reader_free(&reader);
    return r;
}

/* ---- all of them */

struct whole {
    const struct snapshot_dir *s;
    uint8_t *to; /* NULL: nobody wants it */
    struct chunk_reader reader[QZ_WORKERS_MAX];
    uint8_t *chunk[QZ_WORKERS_MAX]; /* for nobody */
};

static int read_one(void *context, unsigned worker, uint64_t n, struct qz_error *err)
{
    struct whole *w = context;
    uint8_t *to = w->to ? w->to + n * w->s->index.chunk_size : w->chunk[worker];

    return snapshot_dir_chunk_is_zero(w->s, n) ? 0
                                               : chunk_read(w->s, &w->reader[worker], n, to, err);
}

static int init_worker(struct whole *w, unsigned i, struct qz_error *err)
{
    const uint32_t size = w->s->index.chunk_size;

    if (!w->to && !(w->chunk[i] = malloc(size)))
        return qz_fail(err, -ENOMEM, "no memory to read chunks of %u bytes", size);
    return chunk_reader_init(&w->reader[i], size, err);
}

static int read_whole(struct whole *w, const struct snapshot_options *o, struct qz_error *err)
{
    const unsigned workers = qz_parallel_workers();
    int r = 0;

    for (unsigned i = 0; i < workers && r == 0; i++)
        r = init_worker(w, i, err);
    if (r == 0)
        r = qz_parallel(w->s->index.chunks, read_one, w, o->progress, o->context, err);
    for (unsigned i = 0; i < workers; i++) {
        chunk_reader_free(&w->reader[i]);
        free(w->chunk[i]);
    }
    return r;
}

int snapshot_dir_read_memory(struct snapshot_dir *s, void *to, struct qz_error *err)
{
    struct whole w = {.s = s, .to = to};

    return read_whole(&w, &(struct snapshot_options){0}, err);
}

int memory_check(const struct snapshot_dir *s, const struct snapshot_options *o,
                 struct qz_error *err)
{
    struct whole w = {.s = s};

    return read_whole(&w, o, err);
}

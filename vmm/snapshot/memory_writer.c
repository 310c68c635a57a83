/*
 * memory_writer.c - a guest's memory into the file `memory`, chunk by chunk on several threads.
 *
 * Each thread copies a chunk into a buffer of its own and only looks at that, so that checksum,
 * comparison and what is stored are of the same bytes. Chunks of zeros are not stored, nor are
 * those that the parent has: a chunk with the same checksum is compared byte by byte.
 */
#include <zstd.h>

#include <queztl/parallel.h>

#include "snapshot/crc32c.h"
#include "snapshot/snapshot_internal.h"

/* Level 1: the machine may be waiting. A sixteenth saved is worth unpacking it again. */
enum { LEVEL = 1, PAGE = 4096, WORTH = 16 };

struct worker_buffers {
    uint8_t *chunk, *other; /* chunk_size bytes each */
    ZSTD_CCtx *compressor;
    struct chunk_reader reader;
};

struct writer {
    int memory;
    const struct memory_source *from;
    struct memory_index *index;
    const struct snapshot_dir *parent;
    uint64_t end; /* of what is stored, when chunks are not in place; atomic */
    struct worker_buffers worker[QZ_WORKERS_MAX];
};

static bool all_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* ---- where it comes from */

static int load_from_file(const struct writer *w, uint64_t n, uint8_t *to, bool *zero,
                          struct qz_error *err)
{
    const uint64_t at = n * w->index->chunk_size;
    const uint32_t len = chunk_length(w->index, n);
    const off_t data = lseek(w->from->fd, (off_t)at, SEEK_DATA);
    int r = 0;

    *zero = data < 0 ? errno == ENXIO : (uint64_t)data >= at + len;
    if (data < 0 && !*zero)
        r = -errno;
    else if (!*zero)
        r = read_all(w->from->fd, to, len, at);
    return r < 0 ? qz_fail(err, r, "guest memory at 0x%llx cannot be read: %s",
                           (unsigned long long)at, strerror(-r))
                 : 0;
}

static int load(struct writer *w, struct worker_buffers *b, uint64_t n, bool *zero,
                struct qz_error *err)
{
    int r;

    if (w->from->snapshot) {
        *zero = snapshot_dir_chunk_is_zero(w->from->snapshot, n);
        r = *zero ? 0 : chunk_read(w->from->snapshot, &b->reader, n, b->chunk, err);
    } else {
        r = load_from_file(w, n, b->chunk, zero, err);
    }
    if (r == 0 && !*zero)
        *zero = all_zero(b->chunk, chunk_length(w->index, n));
    return r;
}

/* ---- where it goes */

static int is_in_parent(struct writer *w, struct worker_buffers *b, uint64_t n, bool *same,
                        struct qz_error *err)
{
    int r;

    *same = false;
    if (!w->parent || w->parent->index.chunk[n].kind == CHUNK_ZERO ||
        w->parent->index.chunk[n].crc != w->index->chunk[n].crc)
        return 0;
    r = chunk_read(w->parent, &b->reader, n, b->other, err);
    *same = r == 0 && memcmp(b->chunk, b->other, chunk_length(w->index, n)) == 0;
    return r;
}

/* In its place, and pages of zeros stay holes. */
static int store_in_place(const struct writer *w, const uint8_t *chunk, uint64_t n, uint32_t len)
{
    const uint64_t at = n * w->index->chunk_size;
    int r = 0;

    for (uint32_t from = 0, to; from < len && r == 0; from = to) {
        const bool zero = all_zero(chunk + from, QZ_MIN((uint32_t)PAGE, len - from));

        to = from;
        do
            to = QZ_MIN(to + PAGE, len);
        while (to < len && all_zero(chunk + to, QZ_MIN((uint32_t)PAGE, len - to)) == zero);
        if (!zero)
            r = write_all(w->memory, chunk + from, to - from, at + from);
    }
    return r;
}

static int store(struct writer *w, struct worker_buffers *b, struct chunk *c, uint64_t n)
{
    const uint32_t len = chunk_length(w->index, n);
    const uint8_t *bytes = b->chunk;
    size_t packed;

    c->kind = CHUNK_RAW;
    c->stored = len;
    if (w->index->in_place) {
        c->offset = n * w->index->chunk_size;
        return store_in_place(w, bytes, n, len);
    }
    packed = ZSTD_compressCCtx(b->compressor, b->other, len - len / WORTH, bytes, len, LEVEL);
    if (!ZSTD_isError(packed)) { /* otherwise it does not fit: not worth it */
        c->kind = CHUNK_ZSTD;
        c->stored = (uint32_t)packed;
        bytes = b->other;
    }
    c->offset = __atomic_fetch_add(&w->end, c->stored, __ATOMIC_RELAXED);
    return write_all(w->memory, bytes, c->stored, c->offset);
}

static int write_chunk(void *context, unsigned worker, uint64_t n, struct qz_error *err)
{
    struct writer *w = context;
    struct worker_buffers *b = &w->worker[worker];
    struct chunk *c = &w->index->chunk[n];
    bool zero, same;
    int r = load(w, b, n, &zero, err);

    if (r < 0 || zero)
        return r;
    c->crc = crc32c(0, b->chunk, chunk_length(w->index, n));
    r = is_in_parent(w, b, n, &same, err);
    if (r == 0 && same) {
        c->kind = CHUNK_PARENT;
        return 0;
    }
    if (r == 0 && (r = store(w, b, c, n)) < 0)
        qz_fail(err, r, "%s: cannot be written: %s", SNAPSHOT_MEMORY, strerror(-r));
    return r;
}

/* ---- all of it */

static int make_buffers(struct worker_buffers *b, uint32_t chunk_size, struct qz_error *err)
{
    b->chunk = malloc(chunk_size);
    b->other = malloc(chunk_size);
    b->compressor = ZSTD_createCCtx();
    if (!b->chunk || !b->other || !b->compressor)
        return qz_fail(err, -ENOMEM, "no memory to write chunks of %u bytes", chunk_size);
    return chunk_reader_init(&b->reader, chunk_size, err);
}

static void free_buffers(struct worker_buffers *b)
{
    free(b->chunk);
    free(b->other);
    ZSTD_freeCCtx(b->compressor);
    chunk_reader_free(&b->reader);
}

int memory_write(int memory, const struct memory_source *from, struct memory_index *index,
                 const struct snapshot_dir *parent, const struct snapshot_options *o,
                 struct qz_error *err)
{
    struct writer w = {.memory = memory, .from = from, .index = index, .parent = parent};
    const unsigned workers = qz_parallel_workers();
    int r = 0;

    for (unsigned i = 0; i < workers && r == 0; i++)
        r = make_buffers(&w.worker[i], index->chunk_size, err);
    if (r == 0)
        r = qz_parallel(index->chunks, write_chunk, &w, o->progress, o->context, err);
    for (unsigned i = 0; i < workers; i++)
        free_buffers(&w.worker[i]);
    if (r == 0 && index->in_place && ftruncate(memory, (off_t)index->size) < 0)
        r = qz_fail(err, -errno, "%s: cannot be written: %s", SNAPSHOT_MEMORY, strerror(errno));
    return r;
}

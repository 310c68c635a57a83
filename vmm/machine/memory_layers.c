/* memory_layers.c - files of frozen memory, and sets of them (memory_layers.h). */
#include "machine/memory_layers.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

QZ_SYSCALLS(main, "memfd_create ftruncate fcntl fstat pwrite64 close");

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

enum {
    PAGE = 4096,
    SEALS_OF_SIZE = F_SEAL_SHRINK | F_SEAL_GROW,
    /* F_SEAL_WRITE would look at every page; this one asks only that no new writer comes, and with
     * the shared mappings the old ones are gone. */
    SEALS = SEALS_OF_SIZE | F_SEAL_FUTURE_WRITE,
};

/* ---- files */

int ram_file_new(uint64_t size)
{
    QZ_AUTO_FD int fd = memfd_create("queztl-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, SEALS_OF_SIZE) < 0)
        return -errno;
    return QZ_TAKE_FD(fd);
}

int ram_file_seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, SEALS) < 0 ? -errno : 0;
}

bool ram_file_is_sealed(int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & (int)SEALS) == (int)SEALS;
}

uint64_t ram_file_bytes(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static int write_all(int fd, const uint8_t *from, size_t len, uint64_t offset)
{
    while (len) {
        const ssize_t n = pwrite(fd, from, len, (off_t)offset);

        if (n < 0)
            return -errno;
        from += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int64_t ram_file_write(int fd, const uint8_t *from, size_t len, uint64_t offset)
{
    int64_t written = 0;

    for (size_t at = 0; at < len;) {
        size_t end = at;
        int r;

        while (end < len && !is_zero(from + end))
            end += PAGE;
        r = write_all(fd, from + at, end - at, offset + at);
        if (r < 0)
            return r;
        written += (int64_t)(end - at);
        at = QZ_MAX(end, at + PAGE);
    }
    return written;
}

/* ---- sets */

static uint64_t chunks_in(uint64_t size, uint64_t chunk)
{
    return (size + chunk - 1) / chunk;
}

uint64_t layers_chunk(uint64_t size)
{
    uint64_t chunk = LAYER_CHUNK_MIN;

    while (chunks_in(size, chunk) > LAYER_CHUNKS_MAX)
        chunk *= 2;
    return chunk;
}

struct memory_layers *layers_new(uint64_t size)
{
    const uint64_t chunk = layers_chunk(size);
    const size_t chunks = chunks_in(size, chunk);
    struct memory_layers *l = malloc(sizeof(*l) + chunks);

    if (!l)
        return NULL;
    *l = (struct memory_layers){.references = 1, .size = size, .chunk = chunk, .chunks = chunks};
    memset(l->table, LAYER_ZERO, chunks);
    return l;
}

struct memory_layers *layers_of_file(int fd, uint64_t size)
{
    struct memory_layers *l = layers_new(size);

    if (!l) {
        close(fd);
        return NULL;
    }
    memset(l->table, layers_add(l, fd), l->chunks);
    return l;
}

uint8_t layers_add(struct memory_layers *l, int fd)
{
    assert(l->count < LAYERS_MAX);
    l->fd[l->count] = fd;
    return (uint8_t)l->count++;
}

int layers_add_again(struct memory_layers *l, int fd)
{
    const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (own < 0)
        return -errno;
    layers_add(l, own);
    return 0;
}

struct memory_layers *layers_copy(const struct memory_layers *l)
{
    struct memory_layers *copy = layers_new(l->size);

    for (unsigned i = 0; copy && i < l->count; i++)
        if (layers_add_again(copy, l->fd[i]) < 0) {
            layers_drop(copy);
            return NULL;
        }
    if (copy)
        memcpy(copy->table, l->table, l->chunks);
    return copy;
}

struct memory_layers *layers_hold(struct memory_layers *l)
{
    l->references++;
    return l;
}

void layers_drop(struct memory_layers *l)
{
    if (!l || --l->references)
        return;
    while (l->count)
        close(l->fd[--l->count]);
    free(l);
}

size_t layers_runs(const struct memory_layers *l)
{
    size_t runs = 1;

    for (size_t i = 1; i < l->chunks; i++)
        runs += l->table[i] != l->table[i - 1];
    return runs;
}

/*
 * memory_base.c - memory that is frozen: a base that nobody writes any more, under pages of our own
 * (memory.h).
 *
 * Theory of operation. Freezing copies nothing: the file that RAM lies in is mapped once more at
 * the same addresses, privately, and sealed. The kernel copies a page when it is written; the base
 * stays as it was for whoever else maps it: a snapshot that is written to disk while the guest
 * runs, or clones. Memory that is frozen again goes into a new file: what the base has and what was
 * written since, found by /proc/self/pagemap and not by looking at every byte.
 */
#include "machine/memory_internal.h"

QZ_SYSCALLS(main, "memfd_create ftruncate fcntl lseek pwrite64 pread64");

enum { PAGE = 4096, CHUNK = 2 << 20, CHUNK_PAGES = CHUNK / PAGE };
/* Linux Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT QZ_BIT(63)
#define PAGEMAP_SWAPPED QZ_BIT(62)
#define PAGEMAP_OF_FILE QZ_BIT(61)

/* The mapping that has the byte at `offset` of RAM. */
static uint8_t *host_of(const struct guest_memory *m, uint64_t offset)
{
    return offset < m->low_size ? m->low + offset : m->high + (offset - m->low_size);
}

int memory_forget(const struct guest_memory *m, uint64_t offset, uint64_t len)
{
    void *at = host_of(m, offset);

    if (mmap(at, len, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
        return 0;
    /* The process has as many mappings as it may have: the guest reads zeroes all the same. */
    if (errno != ENOMEM)
        return -errno;
    memset(at, 0, len);
    return 0;
}

int guest_memory_revert(struct guest_memory *m, int base)
{
    QZ_AUTO_FD int fd = fcntl(base, F_DUPFD_CLOEXEC, 3);
    int r = fd < 0 ? -errno : memory_map_file(m, fd, MAP_PRIVATE);

    if (r < 0)
        return r;
    close(m->fd);
    m->fd = QZ_TAKE_FD(fd);
    m->frozen = true;
    return 0;
}

int guest_memory_clear(struct guest_memory *m)
{
    int fd, r;

    if (!m->frozen)
        return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->size) < 0
                   ? -errno
                   : 0;
    fd = memory_file_new(m->size);
    r = fd < 0 ? fd : memory_map_file(m, fd, MAP_SHARED);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return r;
    }
    close(m->fd);
    m->fd = fd;
    m->frozen = false;
    return 0;
}

/* ---- freezing */

static int freeze_shared(struct guest_memory *m)
{
    int r = memory_map_file(m, m->fd, MAP_PRIVATE);

    if (r == 0 && fcntl(m->fd, F_ADD_SEALS, SEAL_BASE) < 0)
        r = -errno;
    if (r < 0) /* nothing was written through the private mapping */
        memory_map_file(m, m->fd, MAP_SHARED);
    m->frozen = r == 0;
    return r;
}

/* Whether a page of the chunk was written since memory was frozen, or is not the base's at all. */
static bool is_written(const struct guest_memory *m, uint64_t offset)
{
    uint64_t entry[CHUNK_PAGES];
    const uintptr_t page = (uintptr_t)host_of(m, offset) / PAGE;
    const ssize_t n =
        m->pagemap < 0 ? -1
                       : pread(m->pagemap, entry, sizeof(entry), (off_t)(page * sizeof(entry[0])));

    if (n < 0)
        return true;
    for (size_t i = 0; i < (size_t)n / sizeof(entry[0]); i++)
        if (entry[i] & PAGEMAP_SWAPPED ||
            (entry[i] & PAGEMAP_PRESENT && !(entry[i] & PAGEMAP_OF_FILE)))
            return true;
    return false;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

/* Runs of pages that are not zero. */
static int copy_chunk(int to, const uint8_t *from, uint64_t offset, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t end = at;

        while (end < len && !is_zero(from + end))
            end += PAGE;
        for (size_t done = at; done < end;) {
            const ssize_t n = pwrite(to, from + done, end - done, (off_t)(offset + done));

            if (n < 0)
                return -errno;
            done += (size_t)n;
        }
        at = QZ_MAX(end, at + PAGE);
    }
    return 0;
}

/* Where the base's next data begins, or the end of memory. */
static uint64_t next_data(const struct guest_memory *m, uint64_t offset)
{
    const off_t at = lseek(m->fd, (off_t)offset, SEEK_DATA);

    return at < 0 ? m->size : (uint64_t)at;
}

/* Sizes are whole pages, and both parts of RAM but the last begin and end at whole chunks. */
static int copy_memory(const struct guest_memory *m, int to)
{
    uint64_t data = next_data(m, 0);
    int r = 0;

    for (uint64_t offset = 0; r == 0 && offset < m->size; offset += CHUNK) {
        const uint64_t len = QZ_MIN((uint64_t)CHUNK, m->size - offset);

        if (data < offset)
            data = next_data(m, offset);
        if (data < offset + len || is_written(m, offset))
            r = copy_chunk(to, host_of(m, offset), offset, len);
    }
    return r;
}

static int freeze_again(struct guest_memory *m)
{
    QZ_AUTO_FD int fd = memory_file_new(m->size);
    int r = fd < 0 ? fd : copy_memory(m, fd);

    if (r == 0 && fcntl(fd, F_ADD_SEALS, SEAL_BASE) < 0)
        r = -errno;
    if (r == 0)
        r = memory_map_file(m, fd, MAP_PRIVATE);
    if (r < 0)
        return r;
    close(m->fd);
    m->fd = QZ_TAKE_FD(fd);
    return 0;
}

int guest_memory_freeze(struct guest_memory *m, struct qz_error *err)
{
    const int r = m->frozen ? freeze_again(m) : freeze_shared(m);

    return r < 0 ? qz_fail(err, r, "memory: cannot be frozen: %s", strerror(-r)) : 0;
}

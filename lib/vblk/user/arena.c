/*
 * arena.c - memory shared with a vhost-user server: a sealed memfd, mapped once, populated at once
 * so that the I/O path never faults.
 */
#include "arena.h"

#include <fcntl.h>
#include <linux/memfd.h>

enum { UNIT = 64, HUGE_PAGE = 2 << 20, HOLES_FIRST = 64 };

int arena_open(struct arena *a, uint64_t size, bool huge, struct qz_error *err)
{
    QZ_AUTO_FD int fd = -1;
    QZ_AUTO_FREE struct arena_hole *holes = calloc(HOLES_FIRST, sizeof(*holes));
    void *p;

    *a = (struct arena){.fd = -1};
    size = QZ_ALIGN_UP(size, (uint64_t)HUGE_PAGE);
    if (!holes)
        return qz_fail(err, -ENOMEM, "shared memory: out of memory");
    fd = memfd_create("queztl-vblk", MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB : 0));
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return qz_fail(err, -errno, "shared memory of %llu bytes: %s%s", (unsigned long long)size,
                       strerror(errno), huge ? "; reserve huge pages or turn them off" : "");
    /* A server must not be able to shrink it under us. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return qz_fail(err, -errno, "shared memory: cannot seal: %s", strerror(errno));
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return qz_fail(err, -errno, "shared memory of %llu bytes: cannot map: %s",
                       (unsigned long long)size, strerror(errno));
    *a = (struct arena){.base = p, .size = size, .room = HOLES_FIRST, .count = 1};
    a->fd = QZ_TAKE_FD(fd);
    a->holes = QZ_TAKE_PTR(holes);
    a->holes[0] = (struct arena_hole){0, size};
    return 0;
}

void arena_close(struct arena *a)
{
    if (a->base)
        munmap(a->base, a->size);
    if (a->fd >= 0)
        close(a->fd);
    free(a->holes);
    *a = (struct arena){.fd = -1};
}

static void hole_remove(struct arena *a, unsigned i)
{
    memmove(&a->holes[i], &a->holes[i + 1], (a->count - i - 1) * sizeof(a->holes[0]));
    a->count--;
}

static int hole_insert(struct arena *a, unsigned i, uint64_t at, uint64_t len)
{
    if (a->count == a->room) {
        struct arena_hole *more = realloc(a->holes, 2 * a->room * sizeof(*more));

        if (!more)
            return -ENOMEM;
        a->holes = more;
        a->room *= 2;
    }
    memmove(&a->holes[i + 1], &a->holes[i], (a->count - i) * sizeof(a->holes[0]));
    a->holes[i] = (struct arena_hole){at, len};
    a->count++;
    return 0;
}

void *arena_alloc(struct arena *a, size_t size, size_t align)
{
    uint64_t need = QZ_ALIGN_UP((uint64_t)size, (uint64_t)UNIT);

    align = QZ_MAX(align, (size_t)UNIT);
    for (unsigned i = 0; i < a->count; i++) {
        struct arena_hole h = a->holes[i];
        uint64_t at = QZ_ALIGN_UP(h.at, (uint64_t)align), before = at - h.at;

        if (before > h.len || need > h.len - before)
            continue;
        /* What is before the piece stays in this entry, what is behind gets another. */
        if (before && h.len - before > need &&
            hole_insert(a, i + 1, at + need, h.len - before - need) < 0)
            return NULL;
        if (before)
            a->holes[i].len = before;
        else if (h.len > need)
            a->holes[i] = (struct arena_hole){at + need, h.len - need};
        else
            hole_remove(a, i);
        a->used += need;
        return memset(a->base + at, 0, need);
    }
    return NULL;
}

void arena_free(struct arena *a, void *memory, size_t size)
{
    uint64_t at = (uint64_t)((uint8_t *)memory - a->base);
    uint64_t len = QZ_ALIGN_UP((uint64_t)size, (uint64_t)UNIT);
    unsigned i = 0;

    a->used -= len;
    while (i < a->count && a->holes[i].at < at)
        i++;
    if (i < a->count && a->holes[i].at == at + len) {
        a->holes[i].at = at;
        a->holes[i].len += len;
    } else if (i && a->holes[i - 1].at + a->holes[i - 1].len == at) {
        a->holes[i - 1].len += len;
        return;
    } else if (hole_insert(a, i, at, len) < 0) {
        return; /* that piece is lost until the arena closes */
    }
    if (i && a->holes[i - 1].at + a->holes[i - 1].len == a->holes[i].at) {
        a->holes[i - 1].len += a->holes[i].len;
        hole_remove(a, i);
    }
}

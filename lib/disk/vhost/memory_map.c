/* memory_map.c - mapping guest memory (memory_map.h). */
#include <sys/stat.h>

#include "memory_map.h"

static bool overlaps(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static int check(const struct memory_map *m, uint64_t gpa, uint64_t user, uint64_t size,
                 uint64_t offset, int fd, struct qz_error *err)
{
    struct stat st;

    if (m->count == MAP_REGIONS_MAX)
        return qz_fail(err, -ENOSPC, "vhost-user: more than %d memory regions", MAP_REGIONS_MAX);
    if (size == 0 || gpa + size < gpa || user + size < user || offset + size < offset)
        return qz_fail(err, -EINVAL, "vhost-user: memory region 0x%llx of 0x%llx bytes is none",
                       (unsigned long long)gpa, (unsigned long long)size);
    for (unsigned i = 0; i < m->count; i++) {
        const struct map_region *r = &m->region[i];

        if (overlaps(r->gpa, gpa, r->size, size) || overlaps(r->user, user, r->size, size))
            return qz_fail(err, -EEXIST, "vhost-user: memory region 0x%llx overlaps another",
                           (unsigned long long)gpa);
    }
    /* Behind the end of the file every access would be fatal. */
    if (fstat(fd, &st) < 0 || (S_ISREG(st.st_mode) && (uint64_t)st.st_size < offset + size))
        return qz_fail(err, -EINVAL, "vhost-user: memory region 0x%llx is longer than its file",
                       (unsigned long long)gpa);
    return 0;
}

int memory_map_add(struct memory_map *m, uint64_t gpa, uint64_t user, uint64_t size,
                   uint64_t offset, int fd, struct qz_error *err)
{
    struct map_region *r = &m->region[m->count];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), skip = offset % page;
    void *p;
    int e = check(m, gpa, user, size, offset, fd, err);

    if (e < 0)
        return e;
    /* Huge pages want an offset and length of their own size; whole files always fit. */
    p = mmap(NULL, size + skip, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
             (off_t)(offset - skip));
    if (p == MAP_FAILED) {
        skip = offset;
        p = mmap(NULL, size + skip, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    }
    if (p == MAP_FAILED)
        return qz_fail(err, -errno, "vhost-user: cannot map guest memory at 0x%llx: %s",
                       (unsigned long long)gpa, strerror(errno));
    madvise(p, size + skip, MADV_DONTDUMP);
    *r = (struct map_region){gpa, user, size, (uint8_t *)p + skip, p, size + skip};
    m->count++;
    return 0;
}

int memory_map_remove(struct memory_map *m, uint64_t gpa, uint64_t user, uint64_t size)
{
    for (unsigned i = 0; i < m->count; i++) {
        struct map_region *r = &m->region[i];

        if (r->gpa == gpa && r->user == user && r->size == size) {
            munmap(r->mapping, r->mapped);
            *r = m->region[--m->count];
            return 0;
        }
    }
    return -ENOENT;
}

void memory_map_clear(struct memory_map *m)
{
    while (m->count) {
        struct map_region *r = &m->region[--m->count];

        munmap(r->mapping, r->mapped);
    }
}

void *memory_map_user(const struct memory_map *m, uint64_t user, uint64_t length)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct map_region *r = &m->region[i];

        if (user - r->user < r->size && length <= r->size - (user - r->user))
            return r->host + (user - r->user);
    }
    return NULL;
}

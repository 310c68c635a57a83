/* memory_map.h - a guest's memory as a vhost-user frontend shows it: shared files, mapped here. */
#ifndef DISK_VHOST_MEMORY_MAP_H
#define DISK_VHOST_MEMORY_MAP_H

#include <queztl/base.h>

enum { MAP_REGIONS_MAX = 64 };

struct map_region {
    uint64_t gpa, user, size; /* guest-physical; in the frontend's address space; bytes */
    uint8_t *host;
    void *mapping;
    size_t mapped;
};

struct memory_map {
    struct map_region region[MAP_REGIONS_MAX];
    unsigned count;
};

/* Maps size bytes at offset of fd, which stays the caller's. */
int memory_map_add(struct memory_map *m, uint64_t gpa, uint64_t user, uint64_t size,
                   uint64_t offset, int fd, struct qz_error *err);
int memory_map_remove(struct memory_map *m, uint64_t gpa, uint64_t user, uint64_t size);
void memory_map_clear(struct memory_map *m);

/* The host address of length bytes in the frontend's address space, in one region; or NULL. */
void *memory_map_user(const struct memory_map *m, uint64_t user, uint64_t length);

/* *n: how many of length bytes from gpa on lie together; NULL: none. */
static inline void *memory_map_span(const struct memory_map *m, uint64_t gpa, uint64_t length,
                                    uint64_t *n)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct map_region *r = &m->region[i];

        if (gpa - r->gpa < r->size) {
            uint64_t left = r->size - (gpa - r->gpa);

            *n = length < left ? length : left;
            return r->host + (gpa - r->gpa);
        }
    }
    return NULL;
}

#endif

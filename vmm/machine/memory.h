/*
 * memory.h - guest-physical memory.
 *
 * RAM is one memfd: [0, low) below the hole under 4 GiB, the rest from 4 GiB up. The file is
 * sparse, so a 512 GiB guest costs what it touches. It is mapped shared, until it is frozen for a
 * snapshot or clones (memory_base.c): from then on it is a base that nobody can write, mapped
 * privately, and a page costs again when it is written. A guest-physical address is its own type,
 * and what comes out is always a span with a length. Bytes behind a span may change at any time:
 * read each field once, into a local, before checking it.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <queztl/base.h>

typedef struct {
    uint64_t v;
} gpa_t;

static inline gpa_t gpa(uint64_t v)
{
    return (gpa_t){v};
}
static inline gpa_t gpa_add(gpa_t a, uint64_t n)
{
    return (gpa_t){a.v + n};
}

enum {
    LOW_RAM_MAX_GIB = 2, /* q35: RAM below 4 GiB ends at 2 GiB at the latest, PCI begins there */
};
#define LOW_RAM_MAX   (2ull << 30)
#define HIGH_RAM      (4ull << 30)
#define GUEST_RAM_MAX (512ull << 30)
#define GUEST_RAM_MIN (2ull << 20)

struct mem_span {
    uint8_t *data;
    size_t len;
};

struct guest_memory {
    int fd;      /* memfd: memory itself, or its base when frozen */
    bool frozen; /* fd is a base, sealed against writing; what was written since is in the mappings
                  */
    int pagemap; /* /proc/self/pagemap, which tells what was written; -1: this host has none */
    uint64_t size, low_size, high_size;
    uint8_t *low, *high; /* mappings; high is NULL when high_size is 0 */
};

/* size: page aligned, GUEST_RAM_MIN to GUEST_RAM_MAX. */
int guest_memory_new(struct guest_memory *m, uint64_t size, struct qz_error *err);
/* Memory whose bytes are those of `base`, a frozen memory's file, here or in another process; takes
 * it over, also on failure. */
int guest_memory_over(struct guest_memory *m, int base, uint64_t size, struct qz_error *err);
void guest_memory_free(struct guest_memory *m);

/* ---- memory_base.c; nobody else touches guest memory meanwhile. Spans stay where they are. */

/*
 * What memory holds becomes its base, and m->fd a file that may be given to others. Costs nothing
 * when it was not frozen yet; a frozen one is copied into a new base. On failure all is as before.
 */
int guest_memory_freeze(struct guest_memory *m, struct qz_error *err);
/* Memory is that of `base` from now on, which it was once; the descriptor stays the caller's. */
int guest_memory_revert(struct guest_memory *m, int base);
/* All zeroes, and shared again. */
int guest_memory_clear(struct guest_memory *m);

/*
 * The host bytes behind [a, a+len). 0, or -EFAULT when any byte lies outside RAM (a wrapping or
 * empty range included). A range never spans the hole. Any thread; valid until guest_memory_free().
 */
static inline int mem_span(const struct guest_memory *m, gpa_t a, uint64_t len,
                           struct mem_span *span)
{
    /* Nothing here can wrap: len is compared with what is left behind the address; 0 becomes the
     * largest length. */
    if (a.v < m->low_size && len - 1 < m->low_size - a.v)
        span->data = m->low + a.v;
    else if (a.v >= HIGH_RAM && a.v - HIGH_RAM < m->high_size &&
             len - 1 < m->high_size - (a.v - HIGH_RAM))
        span->data = m->high + (a.v - HIGH_RAM);
    else
        return -EFAULT;
    span->len = len;
    return 0;
}

/* Where a byte that came out of mem_span() is. */
static inline gpa_t mem_gpa(const struct guest_memory *m, const void *data)
{
    const uint8_t *p = data;

    return p >= m->low && p < m->low + m->low_size ? gpa((uint64_t)(p - m->low))
                                                   : gpa(HIGH_RAM + (uint64_t)(p - m->high));
}

int mem_read(const struct guest_memory *m, gpa_t a, void *buf, uint64_t len);
int mem_write(const struct guest_memory *m, gpa_t a, const void *buf, uint64_t len);

/*
 * Gives pages back to the host; the guest reads zeros there afterwards. Rounded inward to whole
 * pages. Any thread. -EFAULT outside RAM.
 */
int mem_discard(const struct guest_memory *m, gpa_t a, uint64_t len);

#endif

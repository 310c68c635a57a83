/*
 * memory.h - guest-physical memory.
 *
 * RAM is one memfd: [0, low) below the hole under 4 GiB, the rest from 4 GiB up. The file is
 * sparse, so a 512 GiB guest costs what it touches. It is mapped shared, until it is frozen for a
 * snapshot or clones (memory_base.c): from then on it consists of layers that nobody can write,
 * mapped privately, and a page costs again when it is written. A guest-physical address is its own
 * type,
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

struct memory_layers;
struct memory_fold;

struct guest_memory {
    int fd; /* memfd: memory itself; -1 once it is frozen */
    uint64_t size, low_size, high_size;
    uint8_t *low, *high; /* mappings; high is NULL when high_size is 0 */

    struct memory_layers *layers; /* frozen as this (memory_layers.h), and what was written since is
                                     in the mappings; NULL: not frozen */
    uint8_t *changed; /* for each chunk of the layers what is known of it since (enum chunk_change,
                         memory_internal.h); atomic */
    int pagemap;      /* /proc/self/pagemap, which tells what was written; -1: there is none */

    /* What guest_memory_tidy() has to do. */
    struct memory_fold *fold;      /* NULL: none */
    struct memory_layers *retired; /* the layers before; NULL: none */
    uint8_t *aside[2];             /* old mappings of low and high; NULL: none */
    uint64_t aside_done;
};

/* size: page aligned, GUEST_RAM_MIN to GUEST_RAM_MAX. */
int guest_memory_new(struct guest_memory *m, uint64_t size, struct qz_error *err);
/* Memory whose bytes are those of `base`, a file as frozen memory consists of, made here or in
 * another process; takes it over, also on failure. */
int guest_memory_over(struct guest_memory *m, int base, uint64_t size, struct qz_error *err);
void guest_memory_free(struct guest_memory *m);
/* What such a file holds, for guest_memory_revert(); one reference. The file stays the caller's. */
int guest_memory_layers_of(const struct guest_memory *m, int base, struct memory_layers **layers,
                           struct qz_error *err);

/* ---- memory_base.c. Main thread, and but for tidying nobody else touches guest memory meanwhile.
 * Spans stay where they are. */

/*
 * m->layers becomes what memory holds. The first time copies nothing, later ones what was written
 * since. On failure all is as before.
 */
int guest_memory_freeze(struct guest_memory *m, struct qz_error *err);
/* Memory is that of `layers` from now on, of the same size; a negative errno leaves it torn. */
int guest_memory_revert(struct guest_memory *m, struct memory_layers *layers);
/* All zeroes, and shared again. */
int guest_memory_clear(struct guest_memory *m);
/* Does a little (a millisecond) of what freezing left for later, when the machine runs again. True:
 * there is more. */
bool guest_memory_tidy(struct guest_memory *m);

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

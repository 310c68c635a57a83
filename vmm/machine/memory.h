/*
 * memory.h - guest-physical memory.
 *
 * RAM is one memfd: [0, low) below the hole under 4 GiB, the rest from 4 GiB up. The file is
 * sparse, so a 512 GiB guest costs what it touches. It is mapped shared, until it is frozen for a
 * snapshot or clones (memory_base.c): from then on it consists of layers that nobody can write,
 * mapped privately, and a page costs again when it is written. Memory whose pages may be merged is
 * private from the beginning, over nothing; reserved huge pages are a file of hugetlbfs and never
 * frozen (memory_pages.c). A guest-physical address is its own type, and what comes out is always a
 * span with a length. Bytes behind a span may change at any time: read each field once, into a
 * local, before checking it.
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

enum memory_pages {
    MEMORY_PAGES_USUAL,
    MEMORY_PAGES_TRANSPARENT, /* 2 MiB where the kernel has them at hand */
    MEMORY_PAGES_2MIB,        /* reserved for this machine, all of them, from its beginning */
    MEMORY_PAGES_1GIB,
};

/* memory_pages.c */
struct memory_options {
    bool merge; /* equal pages may be shared with other machines (KSM) */
    enum memory_pages pages;
};

struct memory_layers;
struct memory_fold;

struct guest_memory {
    struct memory_options options;
    int fd; /* memfd: memory itself; -1 once it is frozen, and where pages may be merged */
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
/* The same with other pages. Says what the host lacks for them, and the cure. */
int guest_memory_new_as(struct guest_memory *m, uint64_t size, const struct memory_options *options,
                        struct qz_error *err);
/* Reserved pages are not possible here. */
int guest_memory_over_as(struct guest_memory *m, int base, uint64_t size,
                         const struct memory_options *options, struct qz_error *err);
void guest_memory_free(struct guest_memory *m);
/* What such a file holds, for guest_memory_revert(); one reference. The file stays the caller's. */
int guest_memory_layers_of(const struct guest_memory *m, int base, struct memory_layers **layers,
                           struct qz_error *err);

/* Whether its pages are the machine's whatever it does: nothing comes back, nothing is frozen. */
static inline bool guest_memory_is_reserved(const struct guest_memory *m)
{
    return m->options.pages >= MEMORY_PAGES_2MIB;
}
/* "off", "transparent", "2MiB", "1GiB"; the bytes of a page of that kind. */
const char *memory_pages_name(enum memory_pages pages);
uint64_t memory_page_size(enum memory_pages pages);

/* ---- memory_base.c. Main thread, and but for tidying nobody else touches guest memory meanwhile.
 * Spans stay where they are. */

/* Threads that are lent for a moment. */
struct memory_threads {
    /* Calls job() for each part below `parts`, on any of them; all have returned when it does. */
    void (*share)(void *lender, void (*job)(void *context, unsigned part), void *context,
                  unsigned parts);
    void *lender;
};

/*
 * m->layers becomes what memory holds. The first time copies nothing, later ones what was written
 * since. On failure all is as before. threads: NULL: this one does it alone.
 */
int guest_memory_freeze(struct guest_memory *m, const struct memory_threads *threads,
                        struct qz_error *err);
/* Before the machine is stopped for that: looks at what freezing will look at, so that it is in the
 * processor's caches then. Changes nothing. */
void guest_memory_foresee(const struct guest_memory *m);
/* Memory is that of `layers` from now on, of the same size; a negative errno leaves it torn. */
int guest_memory_revert(struct guest_memory *m, struct memory_layers *layers);
/* All zeroes, as at the beginning. */
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
 * pages. Reserved pages become zeros and stay: without one, the guest's next touch would find none
 * where others took it meanwhile, and end the machine. Any thread. -EFAULT outside RAM.
 */
int mem_discard(const struct guest_memory *m, gpa_t a, uint64_t len);

#endif

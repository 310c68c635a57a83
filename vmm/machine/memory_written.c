/*
 * memory_written.c - which chunks of frozen memory were written (memory_internal.h).
 *
 * A private mapping of a file shows the file's pages until they are written; then they are the
 * process's own. The kernel tells both apart, page by page, without looking at what is in them:
 * PAGEMAP_SCAN (Linux 6.7) names the ranges, before that /proc/self/pagemap has an entry for each
 * page. Both walk the page tables and look at each page's record in the kernel, so this costs what
 * is mapped at present: 50 ns for each page, and six times that when the records are in no cache.
 * Threads can share it.
 */
#include <sys/ioctl.h>

#include "machine/memory_internal.h"

QZ_SYSCALLS(main, "pread64 ioctl");
QZ_SYSCALLS(io, "pread64 ioctl");

enum { PAGE = 4096, BATCH = 512, SLICE = 32 << 20 /* for one thread at a time; many chunks */ };

/* Linux Documentation/admin-guide/mm/pagemap.rst; <linux/fs.h> has it only since 6.7. */
#define PAGEMAP_PRESENT QZ_BIT(63)
#define PAGEMAP_SWAPPED QZ_BIT(62)
#define PAGEMAP_OF_FILE QZ_BIT(61)

enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_ZERO_PAGE = 1 << 5 };

struct scanned {
    uint64_t start, end, categories;
};

struct scan {
    uint64_t size, flags, start, end, walk_end, regions, count, max_pages;
    uint64_t inverted, all_of, any_of, wanted;
};

#define SCAN_REQUEST _IOWR('f', 16, struct scan)

static void set_chunks(const struct guest_memory *m, uint64_t first, uint64_t end, uint8_t *changed)
{
    const uint64_t chunk = m->layers->chunk;

    for (uint64_t i = first / chunk; i * chunk < end; i++)
        changed[i] = CHUNK_CHANGED;
}

/* [at, at + len) in this process is what begins at `offset` of RAM. */
static int scan_part(const struct guest_memory *m, const uint8_t *at, uint64_t len, uint64_t offset,
                     uint8_t *changed)
{
    /* KSM may put the zero page in place of one that the guest filled with zeroes. */
    const uint64_t clean = m->options.merge ? IS_FILE : IS_FILE | IS_ZERO_PAGE;
    const uint64_t base = (uintptr_t)at;
    struct scanned found[BATCH];
    struct scan s = {
        .size = sizeof(s),
        .start = base,
        .end = base + len,
        .regions = (uintptr_t)found,
        .count = BATCH,
        .inverted = clean,
        .all_of = clean,
        .any_of = IS_PRESENT | IS_SWAPPED,
        .wanted = IS_PRESENT,
    };

    while (s.start < s.end) {
        const int n = ioctl(m->pagemap, SCAN_REQUEST, &s);

        if (n < 0)
            return -errno;
        for (int i = 0; i < n; i++)
            set_chunks(m, found[i].start - base + offset, found[i].end - base + offset, changed);
        s.start = s.walk_end;
    }
    return 0;
}

/* A page of the zero page counts as written here: its entry looks like that of any other. */
static void read_part(const struct guest_memory *m, const uint8_t *at, uint64_t len,
                      uint64_t offset, uint8_t *changed)
{
    uint64_t entry[BATCH];

    for (uint64_t done = 0; done < len;) {
        const uint64_t pages = QZ_MIN((len - done) / PAGE, (uint64_t)BATCH);
        const off_t place = (off_t)(((uintptr_t)at + done) / PAGE * sizeof(entry[0]));
        const ssize_t n =
            m->pagemap < 0 ? -1 : pread(m->pagemap, entry, pages * sizeof(entry[0]), place);

        if (n < (ssize_t)sizeof(entry[0])) /* nobody knows: all of it, then */
            return set_chunks(m, offset + done, offset + len, changed);
        for (uint64_t i = 0; i < (uint64_t)n / sizeof(entry[0]); i++, done += PAGE)
            if (entry[i] & PAGEMAP_SWAPPED ||
                (entry[i] & PAGEMAP_PRESENT && !(entry[i] & PAGEMAP_OF_FILE)))
                set_chunks(m, offset + done, offset + done + PAGE, changed);
    }
}

static void find_part(const struct guest_memory *m, const uint8_t *at, uint64_t len,
                      uint64_t offset, uint8_t *changed)
{
    if (m->pagemap < 0 || scan_part(m, at, len, offset, changed) != 0)
        read_part(m, at, len, offset, changed);
}

struct search {
    const struct guest_memory *m;
    uint8_t *changed;
    uint64_t low_slices;
};

static uint64_t slices_of(uint64_t size)
{
    return (size + SLICE - 1) / SLICE;
}

static void find_slice(const struct search *s, const uint8_t *at, uint64_t size, uint64_t offset,
                       uint64_t slice)
{
    const uint64_t from = slice * SLICE;

    find_part(s->m, at + from, QZ_MIN((uint64_t)SLICE, size - from), offset + from, s->changed);
}

static void find_nth(void *context, unsigned n)
{
    const struct search *s = context;
    const struct guest_memory *m = s->m;

    if (n < s->low_slices)
        find_slice(s, m->low, m->low_size, 0, n);
    else
        find_slice(s, m->high, m->high_size, m->low_size, n - s->low_slices);
}

void memory_find_written(const struct guest_memory *m, uint8_t *changed,
                         const struct memory_threads *threads)
{
    struct search s = {m, changed, slices_of(m->low_size)};
    const unsigned slices = (unsigned)(s.low_slices + slices_of(m->high_size));

    if (threads)
        threads->share(threads->lender, find_nth, &s, slices);
    else
        for (unsigned n = 0; n < slices; n++)
            find_nth(&s, n);
}

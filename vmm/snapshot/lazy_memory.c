/* lazy_memory.c - see lazy_memory.h. */
#include "snapshot/lazy_memory.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "snapshot/snapshot_internal.h"
#include "snapshot/userfault.h"

enum { PAGE = 4096 };

struct lazy_memory {
    const struct snapshot_dir *snapshot;
    uint8_t *to;
    int userfault; /* of `to` */
    struct chunk_reader reader;
    uint8_t *room;   /* for a chunk */
    uint8_t *loaded; /* for each chunk */
    uint64_t done, of;
    const struct working_set *first;
    size_t next_first;
    uint64_t next;
    struct working_set needed;
    struct lazy_range range[LAZY_RANGES_MAX];
    size_t ranges;
};

/* ---- where there is something to load */

static uint64_t chunks_of(const struct lazy_memory *m)
{
    return m->snapshot->index.chunks;
}

/* Runs of chunks with at most `gap` chunks of zeros between any two; how many, however many fit. */
static size_t find_runs(struct lazy_memory *m, uint64_t gap)
{
    const uint64_t size = m->snapshot->index.size, chunk = m->snapshot->index.chunk_size;
    size_t runs = 0;
    uint64_t end = 0; /* of the last run */

    for (uint64_t i = 0; i < chunks_of(m); i++) {
        if (snapshot_dir_chunk_is_zero(m->snapshot, i))
            continue;
        if (runs == 0 || i - end > gap) {
            runs++;
            if (runs <= LAZY_RANGES_MAX)
                m->range[runs - 1].offset = i * chunk;
        }
        end = i + 1;
        if (runs <= LAZY_RANGES_MAX)
            m->range[runs - 1].len = QZ_MIN(end * chunk, size) - m->range[runs - 1].offset;
    }
    return runs;
}

static void find_ranges(struct lazy_memory *m)
{
    uint64_t gap = 0;

    while ((m->ranges = find_runs(m, gap)) > LAZY_RANGES_MAX)
        gap = gap * 2 + 1;
    m->of = snapshot_dir_memory_used(m->snapshot);
}

/* ---- begin and end */

static int watch(struct lazy_memory *m, struct qz_error *err)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {
        .range = {.start = (uintptr_t)m->to, .len = m->snapshot->index.size},
        .mode = UFFDIO_REGISTER_MODE_MISSING};

    m->userfault = userfault_new(err);
    if (m->userfault < 0)
        return m->userfault;
    if (ioctl(m->userfault, UFFDIO_API, &api) < 0 ||
        ioctl(m->userfault, UFFDIO_REGISTER, &area) < 0)
        return qz_fail(err, -errno, "memory cannot be loaded page by page: %s", strerror(errno));
    return 0;
}

static int prepare(struct lazy_memory *m, struct qz_error *err)
{
    const struct memory_index *index = &m->snapshot->index;
    int r;

    if (index->size % PAGE)
        return qz_fail(err, -EINVAL, "memory of %llu bytes are no whole pages",
                       (unsigned long long)index->size);
    if (posix_memalign((void **)&m->room, PAGE, index->chunk_size) ||
        !(m->loaded = calloc(index->chunks, 1)) ||
        !(m->needed.chunk = calloc(index->chunks, sizeof(*m->needed.chunk))))
        return qz_fail(err, -ENOMEM, "no memory to load memory lazily");
    r = chunk_reader_init(&m->reader, index->chunk_size, err);
    if (r < 0)
        return r;
    find_ranges(m);
    return watch(m, err);
}

int lazy_memory_new(struct lazy_memory **out, const struct snapshot_dir *s, void *to,
                    const struct working_set *first, struct qz_error *err)
{
    struct lazy_memory *m = calloc(1, sizeof(*m));
    int r;

    *out = NULL;
    if (!m)
        return qz_fail(err, -ENOMEM, "no memory to load memory lazily");
    m->snapshot = s;
    m->to = to;
    m->first = first;
    m->userfault = -1;
    r = prepare(m, err);
    if (r < 0)
        lazy_memory_free(m);
    else
        *out = m;
    return r;
}

void lazy_memory_free(struct lazy_memory *m)
{
    if (!m)
        return;
    if (m->userfault >= 0)
        close(m->userfault);
    chunk_reader_free(&m->reader);
    working_set_free(&m->needed);
    free(m->loaded);
    free(m->room);
    free(m);
}

/* ---- loading */

static int fail_copy(const struct lazy_memory *m, uint64_t n, int code, struct qz_error *err)
{
    if (code == -EEXIST)
        return qz_fail(err, code,
                       "snapshot %s: somebody else put a page into the memory that is being loaded "
                       "(chunk %llu)",
                       m->snapshot->layer[0].path, (unsigned long long)n);
    return qz_fail(err, code, "snapshot %s: no memory for chunk %llu: %s",
                   m->snapshot->layer[0].path, (unsigned long long)n, strerror(-code));
}

/* The chunk in m->room into the file. A page of zeros may be there: readers that nobody stops make
 * those. */
static int copy_in(struct lazy_memory *m, uint64_t n, struct qz_error *err)
{
    const uint64_t at = n * m->snapshot->index.chunk_size;
    const uint32_t len = chunk_length(&m->snapshot->index, n);

    for (uint32_t done = 0; done < len;) {
        struct uffdio_copy c = {.dst = (uintptr_t)m->to + at + done,
                                .src = (uintptr_t)m->room + done,
                                .len = len - done};

        if (ioctl(m->userfault, UFFDIO_COPY, &c) == 0)
            return 0;
        if (c.copy == 0) /* refused before it began */
            c.copy = -errno;
        if (c.copy > 0)
            done += (uint32_t)c.copy;
        else if (c.copy == -EEXIST && snapshot_dir_chunk_is_zero(m->snapshot, n))
            done += PAGE;
        else if (c.copy != -EAGAIN)
            return fail_copy(m, n, (int)c.copy, err);
    }
    return 0;
}

static int load(struct lazy_memory *m, uint64_t n, struct qz_error *err)
{
    const uint32_t len = chunk_length(&m->snapshot->index, n);
    const bool zero = snapshot_dir_chunk_is_zero(m->snapshot, n);
    int r = 0;

    if (zero)
        memset(m->room, 0, len);
    else
        r = chunk_read(m->snapshot, &m->reader, n, m->room, err);
    if (r == 0)
        r = copy_in(m, n, err);
    if (r < 0)
        return r;
    m->loaded[n] = 1;
    m->done += zero ? 0 : len;
    return 0;
}

int lazy_memory_need(struct lazy_memory *m, uint64_t offset, uint64_t *begin, uint64_t *len,
                     struct qz_error *err)
{
    const uint64_t n = offset / m->snapshot->index.chunk_size;

    if (offset >= m->snapshot->index.size)
        return qz_fail(err, -EFAULT, "no memory at 0x%llx", (unsigned long long)offset);
    *begin = n * m->snapshot->index.chunk_size;
    *len = chunk_length(&m->snapshot->index, n);
    if (m->loaded[n])
        return 0;
    if (!snapshot_dir_chunk_is_zero(m->snapshot, n))
        m->needed.chunk[m->needed.count++] = (uint32_t)n;
    return load(m, n, err);
}

int lazy_memory_load_first(struct lazy_memory *m, struct qz_error *err)
{
    for (; m->next_first < m->first->count; m->next_first++)
        if (!m->loaded[m->first->chunk[m->next_first]])
            return load(m, m->first->chunk[m->next_first++], err);
    return 1;
}

int lazy_memory_load_next(struct lazy_memory *m, struct qz_error *err)
{
    for (; m->next < chunks_of(m); m->next++)
        if (!m->loaded[m->next] && !snapshot_dir_chunk_is_zero(m->snapshot, m->next))
            return load(m, m->next++, err);
    return 1;
}

bool lazy_memory_is_whole(const struct lazy_memory *m)
{
    return m->done == m->of;
}

void lazy_memory_progress(const struct lazy_memory *m, uint64_t *done, uint64_t *of)
{
    *done = m->done;
    *of = m->of;
}

const struct lazy_range *lazy_memory_ranges(const struct lazy_memory *m, size_t *count)
{
    *count = m->ranges;
    return m->range;
}

const struct working_set *lazy_memory_needed(const struct lazy_memory *m)
{
    return &m->needed;
}

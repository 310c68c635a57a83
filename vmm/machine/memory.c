/*
 * memory.c - guest-physical memory as one memfd (memory.h).
 *
 * The file is sealed at its size, so a mapping can never run past its end and take SIGBUS. Looking
 * an address up is inline in the header, because every descriptor of every ring goes through it.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "machine/memory_internal.h"

QZ_SYSCALLS(all, "fallocate");

#define HUGE_PAGE (2ull << 20)

/*
 * Addresses in this process are as aligned as those of the guest and the offsets in the file, so
 * that the host can use huge pages for all three. mmap() itself does not see to that: more is
 * reserved, and cut to the aligned part.
 */
uint8_t *memory_reserve_aligned(uint64_t size, uint64_t align)
{
    uint8_t *reserved =
        mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *at, *end;

    if (reserved == MAP_FAILED)
        return NULL;
    at = reserved + (-(uintptr_t)reserved & (align - 1));
    end = at + size;
    if (at > reserved)
        munmap(reserved, at - reserved);
    munmap(end, reserved + size + align - end);
    return at;
}

uint8_t *memory_reserve(uint64_t size)
{
    return memory_reserve_aligned(size, HUGE_PAGE);
}

int memory_map_file(const struct guest_memory *m, int fd, int sharing)
{
    /* Without a reservation of its own, a page of hugetlbfs may be missing when it is touched. */
    const int flags = sharing | MAP_FIXED | (guest_memory_is_reserved(m) ? 0 : MAP_NORESERVE);

    if (mmap(m->low, m->low_size, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED ||
        (m->high && mmap(m->high, m->high_size, PROT_READ | PROT_WRITE, flags, fd,
                         (off_t)m->low_size) == MAP_FAILED))
        return -errno;
    memory_advise(m, m->low, m->low_size);
    if (m->high)
        memory_advise(m, m->high, m->high_size);
    return 0;
}

static int lay_out(struct guest_memory *m, uint64_t size, const struct memory_options *options,
                   struct qz_error *err)
{
    const uint64_t align = QZ_MAX(memory_page_size(options->pages), HUGE_PAGE);
    char text[32];

    *m = (struct guest_memory){.options = *options, .fd = -1, .pagemap = -1, .size = size};
    if (size < GUEST_RAM_MIN || size > GUEST_RAM_MAX || size % 4096)
        return qz_fail(
            err, -EINVAL,
            "memory: %s is not a size a machine can have (2 MiB to 512 GiB, whole pages)",
            qz_format_size(size, text, sizeof(text)));
    m->low_size = QZ_MIN(size, LOW_RAM_MAX);
    m->high_size = size - m->low_size;
    m->low = memory_reserve_aligned(m->low_size, align);
    m->high = m->high_size ? memory_reserve_aligned(m->high_size, align) : NULL;
    if (!m->low || (m->high_size && !m->high))
        return qz_fail(err, -ENOMEM, "memory: no room for %s in this process (ulimit -v?)",
                       qz_format_size(size, text, sizeof(text)));
    m->changed = calloc(size / layers_chunk(size) + 1, 1);
    if (!m->changed)
        return qz_fail(err, -ENOMEM, "memory: no memory to note what changes");
    m->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return memory_check_options(options, size, err);
}

/* `fd` is taken over. */
static int take(struct guest_memory *m, int fd, int sharing, struct qz_error *err)
{
    char text[32];
    int r = fd < 0 ? fd : memory_map_file(m, fd, sharing);

    m->fd = fd < 0 ? -1 : fd;
    if (r == -ENOMEM && guest_memory_is_reserved(m))
        return memory_too_few_pages(m->size, m->options.pages, err);
    return r < 0 ? qz_fail(err, r, "memory: cannot make and map a file of %s: %s",
                           qz_format_size(m->size, text, sizeof(text)), strerror(-r))
                 : 0;
}

/* The kernel says no here, if it does at all: the same is asked for again later. */
static int check_advice(const struct guest_memory *m, struct qz_error *err)
{
    const int r = memory_advise(m, m->low, m->low_size);

    return r < 0
               ? qz_fail(err, r, "memory: the kernel refuses %s: %s: leave it out",
                         m->options.merge ? "--merge on" : "--hugepages transparent", strerror(-r))
               : 0;
}

int guest_memory_new_as(struct guest_memory *m, uint64_t size, const struct memory_options *options,
                        struct qz_error *err)
{
    int r = lay_out(m, size, options, err);

    if (r == 0 && options->merge) {
        r = memory_begin_private(m);
        if (r < 0)
            qz_fail(err, r, "memory: cannot be mapped: %s", strerror(-r));
    } else if (r == 0) {
        r = take(m, memory_file_new(size, options->pages), MAP_SHARED, err);
    }
    if (r == 0)
        r = check_advice(m, err);
    if (r < 0)
        guest_memory_free(m);
    return r;
}

int guest_memory_new(struct guest_memory *m, uint64_t size, struct qz_error *err)
{
    return guest_memory_new_as(m, size, &(struct memory_options){0}, err);
}

/* A file that shrinks, or is written by somebody, is nothing to run a machine on. */
static int check_base(int base, uint64_t size, struct qz_error *err)
{
    struct stat st;

    if (!ram_file_is_sealed(base))
        return qz_fail(err, -EINVAL, "memory: descriptor %d is no frozen memory of a machine",
                       base);
    if (fstat(base, &st) < 0 || (uint64_t)st.st_size != size)
        return qz_fail(err, -EINVAL, "memory: the frozen memory has another size than the machine");
    return 0;
}

int guest_memory_over_as(struct guest_memory *m, int base, uint64_t size,
                         const struct memory_options *options, struct qz_error *err)
{
    int r = lay_out(m, size, options, err);

    if (r == 0 && guest_memory_is_reserved(m))
        r = qz_fail(err, -ENOTSUP,
                    "memory: a machine that begins from a snapshot has no reserved huge pages: "
                    "--hugepages transparent is possible");
    if (r == 0)
        r = check_base(base, size, err);
    if (r == 0)
        r = take(m, base, MAP_PRIVATE, err);
    else
        close(base);
    if (r == 0) {
        m->layers = layers_of_file(base, size);
        m->fd = -1;
        r = m->layers ? check_advice(m, err)
                      : qz_fail(err, -ENOMEM, "memory: no memory for a table of it");
    }
    if (r < 0)
        guest_memory_free(m);
    return r;
}

int guest_memory_over(struct guest_memory *m, int base, uint64_t size, struct qz_error *err)
{
    return guest_memory_over_as(m, base, size, &(struct memory_options){0}, err);
}

int guest_memory_layers_of(const struct guest_memory *m, int base, struct memory_layers **layers,
                           struct qz_error *err)
{
    int r = check_base(base, m->size, err), fd;

    if (r < 0)
        return r;
    if (guest_memory_is_reserved(m))
        return qz_fail(err, -ENOTSUP, "memory on reserved huge pages cannot be sent back");
    fd = fcntl(base, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return qz_fail(err, -errno, "memory: no descriptor: %s", strerror(errno));
    *layers = layers_of_file(fd, m->size);
    return *layers ? 0 : qz_fail(err, -ENOMEM, "memory: no memory for a table of it");
}

void guest_memory_free(struct guest_memory *m)
{
    memory_leave_untidied(m);
    if (m->low)
        munmap(m->low, m->low_size);
    if (m->high)
        munmap(m->high, m->high_size);
    if (m->fd >= 0)
        close(m->fd);
    if (m->low && m->pagemap >= 0)
        close(m->pagemap);
    layers_drop(m->layers);
    free(m->changed);
    *m = (struct guest_memory){.fd = -1, .pagemap = -1};
}

int mem_read(const struct guest_memory *m, gpa_t a, void *buf, uint64_t len)
{
    struct mem_span s;
    int r = mem_span(m, a, len, &s);

    if (r == 0)
        memcpy(buf, s.data, len);
    return r;
}

int mem_write(const struct guest_memory *m, gpa_t a, const void *buf, uint64_t len)
{
    struct mem_span s;
    int r = mem_span(m, a, len, &s);

    if (r == 0)
        memcpy(s.data, buf, len);
    return r;
}

int mem_discard(const struct guest_memory *m, gpa_t a, uint64_t len)
{
    struct mem_span s;
    uint64_t first, end;
    int r = mem_span(m, a, len, &s);

    if (r < 0)
        return r;
    first = a.v < HIGH_RAM ? a.v : a.v - HIGH_RAM + m->low_size;
    end = QZ_ALIGN_DOWN(first + len, 4096);
    first = QZ_ALIGN_UP(first, 4096);
    if (first >= end)
        return 0;
    if (m->layers)
        return memory_forget(m, first, end - first);
    if (guest_memory_is_reserved(m)) {
        memset(s.data + (QZ_ALIGN_UP(a.v, 4096) - a.v), 0, end - first);
        return 0;
    }
    return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first, end - first) < 0
               ? -errno
               : 0;
}

/*
 * memory.c - guest-physical memory as one memfd (memory.h).
 *
 * The file is sealed at its size, so a mapping can never run past its end and take SIGBUS. Write
 * seals stay possible: freezing memory for a snapshot turns the file into a read-only base. Looking
 * an address up is inline in the header, because every descriptor of every ring goes through it.
 */
#include "machine/memory.h"

#include <fcntl.h>

QZ_SYSCALLS(all, "fallocate");

#define HUGE_PAGE (2ull << 20)

/*
 * Addresses in this process are as aligned as those of the guest and the offsets in the file, so
 * that the host can use huge pages for all three. mmap() itself does not see to that: more is
 * reserved, and cut to the aligned part.
 */
static void *map(int fd, uint64_t offset, uint64_t size)
{
    uint8_t *reserved =
        mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *at, *end;

    if (reserved == MAP_FAILED)
        return MAP_FAILED;
    at = reserved + (-(uintptr_t)reserved & (HUGE_PAGE - 1));
    end = at + size;
    if (at > reserved)
        munmap(reserved, at - reserved);
    munmap(end, reserved + size + HUGE_PAGE - end);
    if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
             offset) != MAP_FAILED)
        return at;
    munmap(at, size);
    return MAP_FAILED;
}

int guest_memory_new(struct guest_memory *m, uint64_t size, struct qz_error *err)
{
    char text[32];

    *m = (struct guest_memory){.fd = -1, .size = size};
    if (size < GUEST_RAM_MIN || size > GUEST_RAM_MAX || size % 4096)
        return qz_fail(
            err, -EINVAL,
            "memory: %s is not a size a machine can have (2 MiB to 512 GiB, whole pages)",
            qz_format_size(size, text, sizeof(text)));
    m->low_size = QZ_MIN(size, LOW_RAM_MAX);
    m->high_size = size - m->low_size;
    m->fd = memfd_create("queztl-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0 || ftruncate(m->fd, size) < 0 ||
        fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        int code = -errno;

        guest_memory_free(m);
        return qz_fail(err, code, "memory: cannot make a file of %s: %s",
                       qz_format_size(size, text, sizeof(text)), strerror(-code));
    }
    m->low = map(m->fd, 0, m->low_size);
    m->high = m->high_size ? map(m->fd, m->low_size, m->high_size) : NULL;
    if (m->low == MAP_FAILED || m->high == MAP_FAILED) {
        int code = -errno;

        m->low = m->low == MAP_FAILED ? NULL : m->low;
        m->high = m->high == MAP_FAILED ? NULL : m->high;
        guest_memory_free(m);
        return qz_fail(err, code, "memory: cannot map %s: %s (ulimit -v?)",
                       qz_format_size(size, text, sizeof(text)), strerror(-code));
    }
    return 0;
}

void guest_memory_free(struct guest_memory *m)
{
    if (m->low)
        munmap(m->low, m->low_size);
    if (m->high)
        munmap(m->high, m->high_size);
    if (m->fd >= 0)
        close(m->fd);
    *m = (struct guest_memory){.fd = -1};
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
    return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first, end - first) < 0
               ? -errno
               : 0;
}

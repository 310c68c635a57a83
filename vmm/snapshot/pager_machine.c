/* pager_machine.c - see pager_machine.h. */
#include "snapshot/pager_machine.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static bool makes_sense(const struct pager_hello *h)
{
    return h->version == PAGER_VERSION && h->low_size && h->low + h->low_size > h->low &&
           h->high + h->high_size >= h->high;
}

struct pager_machine *pager_machine_new(struct pager *p, const struct pager_hello *hello,
                                        int userfault, int channel)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct pager_machine *m = calloc(1, sizeof(*m));

    /* Whatever else came in its place does not know this request. */
    if (!m || !makes_sense(hello) || ioctl(userfault, UFFDIO_API, &api) < 0 ||
        fcntl(userfault, F_SETFL, O_NONBLOCK) < 0) {
        close(userfault);
        close(channel);
        free(m);
        return NULL;
    }
    m->pager = p;
    m->where = *hello;
    m->faults.fd = userfault;
    m->channel.fd = channel;
    return m;
}

void pager_machine_free(struct pager_machine *m)
{
    qz_loop_remove(&m->faults);
    qz_loop_remove(&m->channel);
    close(m->faults.fd);
    close(m->channel.fd);
    free(m);
}

/* The part of [offset, *end) of memory that one mapping has; *end moves to where it ends. */
static uint64_t address_of(const struct pager_machine *m, uint64_t offset, uint64_t *end)
{
    if (offset >= m->where.low_size)
        return m->where.high + (offset - m->where.low_size);
    *end = QZ_MIN(*end, m->where.low_size);
    return m->where.low + offset;
}

/* The request for each part of a piece of memory. */
static int for_parts(struct pager_machine *m, uint64_t offset, uint64_t len,
                     int (*request)(int userfault, struct uffdio_range part))
{
    const uint64_t last = offset + len;

    if (last > m->where.low_size + m->where.high_size)
        return -EFAULT;
    while (offset < last) {
        uint64_t end = last;
        const uint64_t at = address_of(m, offset, &end);

        if (request(m->faults.fd, (struct uffdio_range){at, end - offset}) < 0)
            return -errno;
        offset = end;
    }
    return 0;
}

static int stop_at(int userfault, struct uffdio_range part)
{
    struct uffdio_register area = {.range = part, .mode = UFFDIO_REGISTER_MODE_MISSING};

    return ioctl(userfault, UFFDIO_REGISTER, &area);
}

static int wake(int userfault, struct uffdio_range part)
{
    return ioctl(userfault, UFFDIO_WAKE, &part);
}

int pager_machine_stop_at(struct pager_machine *m, const struct lazy_range *range, size_t count)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = for_parts(m, range[i].offset, range[i].len, stop_at);
    return r;
}

int pager_machine_wake(struct pager_machine *m, uint64_t offset, uint64_t len)
{
    return for_parts(m, offset, len, wake);
}

uint64_t pager_machine_offset(const struct pager_machine *m, uint64_t address)
{
    const struct pager_hello *w = &m->where;

    if (address >= w->low && address - w->low < w->low_size)
        return address - w->low;
    if (address >= w->high && address - w->high < w->high_size)
        return address - w->high + w->low_size;
    return UINT64_MAX;
}

int pager_machine_say(struct pager_machine *m, enum pager_word word, const struct lazy_memory *l,
                      const char *text)
{
    struct pager_report report = {
        .word = word, .pid = getpid(), .faults = m->served, .longest_ns = (uint64_t)m->longest_ns};

    if (l)
        lazy_memory_progress(l, &report.done, &report.of);
    snprintf(report.text, sizeof(report.text), "%s", text);
    return send(m->channel.fd, &report, sizeof(report), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno
                                                                                         : 0;
}

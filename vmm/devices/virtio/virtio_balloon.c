/*
 * virtio_balloon.c - memory that the guest gives back (VirtIO 1.3 §5.5): inflate, deflate,
 * statistics, free page reporting.
 *
 * Pages that come are punched out of the memory file at once: the host has them back, and the guest
 * reads zeros should it use one again, told or untold. What the guest says of its pages is only
 * ever a hint about its own memory, so repeated, foreign and unaligned ranges cost it its data and
 * nobody else anything.
 *
 * Queue numbers: Linux leaves no gap for queues whose feature is off (virtio_pci's find_vqs), and
 * QEMU counts the same way, so the reporting queue follows the statistics queue, which is 2 when it
 * is there.
 */
#include <linux/virtio_balloon.h>

#include "devices/virtio/devices.h"

QZ_SYSCALLS(io, "fallocate madvise");

enum {
    PAGE = 1 << VIRTIO_BALLOON_PFN_SHIFT,
    QUEUE_INFLATE = 0,
    QUEUE_DEFLATE = 1,
    QUEUE_STATS = 2,
    QUEUES = 4,
    QUEUE_SIZE = 128,
    SEGMENTS = 64,
    REQUEST_MAX = 64 << 10, /* bytes of page numbers in one buffer; Linux sends 1 KiB */
    ROUND_MAX = 16,         /* buffers served before the loop serves others */
    STATS_BYTES_MAX = 64 * sizeof(struct virtio_balloon_stat),
    STATS_AGE_NS = 1000000000, /* asked for again when somebody looks at older ones */
};

struct balloon {
    struct virtio_device d;
    uint32_t target_pages, actual_pages;
    uint64_t reported; /* bytes that free page reporting gave back since the machine began */

    struct balloon_stats stats;
    int64_t stats_ns; /* when they came; 0: never */
    bool stats_held;  /* the driver's buffer is here and can be returned to ask for new ones */
    struct virtqueue_chain stats_chain;
    struct iovec stats_iov[SEGMENTS];

    struct qz_work again, ask;
};

static struct balloon *balloon_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct balloon, d);
}

/* ---- pages
 * --------------------------------------------------------------------------------------------------
 */

/* Page numbers of one buffer, neighbours taken together. */
static void take_pages(struct balloon *b, const struct virtqueue_chain *c)
{
    const struct guest_memory *m = &b->d.machine->memory;
    uint64_t from = 0, to = 0;
    uint32_t pfn[256];
    size_t got;

    for (uint64_t at = 0; (got = virtqueue_read(c, at, pfn, sizeof(pfn))) >= sizeof(*pfn);
         at += got)
        for (size_t i = 0; i < got / sizeof(*pfn); i++) {
            const uint64_t page = (uint64_t)le32toh(pfn[i]) << VIRTIO_BALLOON_PFN_SHIFT;

            if (page != to || to == from) {
                if (to > from)
                    mem_discard(m, gpa(from), to - from);
                from = page;
            }
            to = page + PAGE;
        }
    if (to > from)
        mem_discard(m, gpa(from), to - from);
}

/* The guest-physical address behind a span of the walker's. */
static gpa_t address_of(const struct guest_memory *m, const void *p)
{
    const uintptr_t low = (uintptr_t)p - (uintptr_t)m->low;

    return low < m->low_size ? gpa(low) : gpa(HIGH_RAM + ((uintptr_t)p - (uintptr_t)m->high));
}

static void take_reported(struct balloon *b, const struct virtqueue_chain *c)
{
    const struct guest_memory *m = &b->d.machine->memory;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count; i++)
        if (mem_discard(m, address_of(m, c->iov[i].iov_base), c->iov[i].iov_len) == 0)
            b->reported += c->iov[i].iov_len;
}

/* ---- statistics
 * --------------------------------------------------------------------------------------------- */

static void forget_stats(struct balloon *b)
{
    memset(&b->stats, 0xff, sizeof(b->stats)); /* ~0: not told */
    b->stats_ns = 0;
    b->stats_held = false;
}

static void note_stat(struct balloon_stats *s, const struct virtio_balloon_stat *told)
{
    uint64_t *const field[] = {
        [VIRTIO_BALLOON_S_SWAP_IN] = &s->swap_in,
        [VIRTIO_BALLOON_S_SWAP_OUT] = &s->swap_out,
        [VIRTIO_BALLOON_S_MAJFLT] = &s->major_faults,
        [VIRTIO_BALLOON_S_MINFLT] = &s->minor_faults,
        [VIRTIO_BALLOON_S_MEMFREE] = &s->free_memory,
        [VIRTIO_BALLOON_S_MEMTOT] = &s->total_memory,
        [VIRTIO_BALLOON_S_AVAIL] = &s->available_memory,
        [VIRTIO_BALLOON_S_CACHES] = &s->disk_caches,
    };
    const uint16_t tag = le16toh(told->tag);

    if (tag < QZ_ARRAY_LEN(field) && field[tag])
        *field[tag] = le64toh(told->val);
}

/* The buffer stays here until somebody wants newer ones: returning it is the request (§5.5.6.3). */
static void serve_stats(struct balloon *b)
{
    struct virtqueue *vq = &b->d.queue[QUEUE_STATS];
    struct virtqueue_chain c = {.iov = b->stats_iov, .capacity = SEGMENTS};
    struct virtio_balloon_stat told;

    if (b->stats_held || virtqueue_pop(vq, &c) != 1)
        return;
    b->stats_chain = c;
    b->stats_held = true;
    for (uint64_t at = 0;
         at < STATS_BYTES_MAX && virtqueue_read(&c, at, &told, sizeof(told)) == sizeof(told);
         at += sizeof(told))
        note_stat(&b->stats, &told);
    b->stats_ns = qz_now_ns();
}

static void ask_for_stats(struct qz_work *w)
{
    struct balloon *b = QZ_CONTAINER_OF(w, struct balloon, ask);
    QZ_LOCKED(&b->d.lock);

    if (!b->d.active || !b->stats_held)
        return;
    b->stats_held = false;
    virtqueue_push(&b->d.queue[QUEUE_STATS], &b->stats_chain, 0);
    virtqueue_interrupt(&b->d.queue[QUEUE_STATS]);
}

/* ---- queues
 * -------------------------------------------------------------------------------------------------
 */

static bool is_stats_queue(const struct balloon *b, unsigned q)
{
    return q == QUEUE_STATS && virtio_has(&b->d, VIRTIO_BALLOON_F_STATS_VQ);
}

/* True when there is more than one round takes. */
static bool serve_pages(struct balloon *b, unsigned q)
{
    struct virtqueue *vq = &b->d.queue[q];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain c = {.iov = iov, .capacity = SEGMENTS};
    unsigned served = 0;

    while (served < ROUND_MAX && virtqueue_pop(vq, &c) == 1) {
        if (q <= QUEUE_DEFLATE && (c.out_bytes > REQUEST_MAX || c.out_bytes % sizeof(uint32_t))) {
            virtqueue_fail(vq, "%llu bytes of page numbers", (unsigned long long)c.out_bytes);
            return false;
        }
        if (q == QUEUE_INFLATE)
            take_pages(b, &c);
        else if (q != QUEUE_DEFLATE)
            take_reported(b, &c);
        virtqueue_push(vq, &c, 0);
        served++;
    }
    virtqueue_interrupt(vq);
    return served == ROUND_MAX;
}

static void serve_again(struct qz_work *w)
{
    struct balloon *b = QZ_CONTAINER_OF(w, struct balloon, again);
    bool more = false;
    QZ_LOCKED(&b->d.lock);

    if (!b->d.active)
        return;
    for (unsigned q = 0; q < QUEUES; q++)
        if (b->d.queue[q].enabled && !is_stats_queue(b, q))
            more = serve_pages(b, q) || more;
    if (more)
        qz_loop_post(b->d.loop, &b->again, serve_again);
}

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct balloon *b = balloon_of(d);

    if (is_stats_queue(b, q))
        serve_stats(b);
    else if (serve_pages(b, q))
        qz_loop_post(d->loop, &b->again, serve_again);
}

/* ---- configuration and life
 * --------------------------------------------------------------------------------- */

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    const struct balloon *b = balloon_of(d);
    const uint32_t config[] = {htole32(b->target_pages), htole32(b->actual_pages)};

    memcpy(buf, (const uint8_t *)config + offset, len);
}

static void on_config_write(struct virtio_device *d, unsigned offset, const void *buf, unsigned len)
{
    uint32_t actual;

    if (offset != offsetof(struct virtio_balloon_config, actual) || len != sizeof(actual))
        return; /* num_pages is ours */
    memcpy(&actual, buf, sizeof(actual));
    balloon_of(d)->actual_pages = le32toh(actual);
}

static void on_reset(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    b->actual_pages = 0;
    forget_stats(b);
    virtio_reset_done(d);
}

static void on_free(struct virtio_device *d)
{
    free(balloon_of(d));
}

static const struct virtio_device_ops ops = {
    .name = "virtio-balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .config_read = on_config_read,
    .config_write = on_config_write,
    .notify = on_notify,
    .reset = on_reset,
    .free = on_free,
};

int virtio_balloon_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                       struct qz_error *err)
{
    struct balloon *b = calloc(1, sizeof(*b));

    if (!b)
        return qz_fail(err, -ENOMEM, "balloon: no memory");
    b->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .offered = QZ_BIT(VIRTIO_BALLOON_F_STATS_VQ) | QZ_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                   QZ_BIT(VIRTIO_BALLOON_F_REPORTING),
        .config_size = 2 * sizeof(uint32_t),
        .queue_count = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .label = "balloon",
    };
    forget_stats(b);
    *out = &b->d;
    return 0;
}

int virtio_balloon_set_target(struct virtio_device *d, uint64_t bytes)
{
    struct balloon *b = balloon_of(d);
    QZ_LOCKED(&d->lock);

    if (bytes > d->machine->memory.size)
        return -ERANGE;
    b->target_pages = (uint32_t)(bytes / PAGE);
    if (d->active) /* else the driver reads it when it comes */
        virtio_config_changed(d);
    return 0;
}

void virtio_balloon_info(struct virtio_device *d, uint64_t *target, uint64_t *actual,
                         uint64_t *reported_free, struct balloon_stats *stats)
{
    struct balloon *b = balloon_of(d);
    QZ_LOCKED(&d->lock);

    *target = (uint64_t)b->target_pages * PAGE;
    *actual = (uint64_t)b->actual_pages * PAGE;
    *reported_free = b->reported;
    *stats = b->stats;
    stats->age_ns = b->stats_ns ? qz_now_ns() - b->stats_ns : -1;
    if (d->active && b->stats_held && stats->age_ns > STATS_AGE_NS)
        qz_loop_post(d->loop, &b->ask, ask_for_stats);
}

/*
 * virtio_balloon.c - memory that the guest gives back to the host (VirtIO 1.3 §5.5).
 *
 * Theory of operation. Inflating, the driver names pages that it no longer uses; reporting, it
 * shows free memory that it may use again at any time. Both end in mem_discard(), which punches the
 * pages out of the memory's file: the host has them back, and whoever touches them next, guest or
 * not, reads zeros. Nothing depends on the driver telling the truth. A page that the host uses at
 * that moment (a ring, a buffer of a disk request) only loses the guest's bytes: mappings stay
 * valid, and the kernel keeps the old page for as long as I/O is under way on it. A page named
 * twice is already a hole, one outside RAM is refused by mem_discard(). Deflating needs nothing:
 * the first touch of a page brings a new one.
 *
 * Work is done in rounds of ROUND_STEPS discards, each of STEP bytes at most; between rounds the
 * loop serves others. A request that does not end within its round is held and goes on in the next.
 *
 * Statistics: the driver leaves one buffer with the device and fills it anew each time that it gets
 * it back (§5.5.6.3). The device returns it while somebody asks, at most once in a period: as
 * virtio_balloon_ask_every() says, or STATS_PERIOD_NS.
 *
 * Queues: 0 inflate, 1 deflate, 2 statistics, 4 reporting (§5.5.2). Linux leaves out the numbers of
 * queues whose feature is missing (vp_find_vqs() counts named ones only), so its reporting queue is
 * 3 here, or 2 without statistics. Free page hinting, which owns number 3, is not offered, so no
 * number means two things.
 */
#include <linux/virtio_balloon.h>

#include "devices/virtio/devices.h"

QZ_SYSCALLS(io, "fallocate");

enum { QUEUES = 5, QUEUE_SIZE = 128, SEGMENTS = 64, PAGE = 1 << VIRTIO_BALLOON_PFN_SHIFT };
enum { STEP = 2 << 20, STEP_PAGES = STEP / PAGE, ROUND_STEPS = 128 };
enum { STATS_MAX = 64, STAT_BYTES = sizeof(struct virtio_balloon_stat) };
enum role { NOTHING, INFLATE, DEFLATE, STATISTICS, REPORTING };
#define STATS_PERIOD_NS 5000000000ll
#define STATS_ASKED_NS  60000000000ll /* nobody asked for so long: nobody wants to know */

struct balloon;

struct balloon_queue {
    struct balloon *balloon;
    struct qz_work again;
    bool holding; /* pages: a request of which `done` bytes are carried out; statistics: the buffer
                   */
    struct virtqueue_chain held;
    struct iovec iov[SEGMENTS];
    uint64_t done;
};

struct balloon {
    struct virtio_device d;
    struct virtio_balloon_config config;
    struct balloon_queue queue[QUEUES];
    uint32_t target; /* atomic: pages, asked for by virtio_balloon_set_target() */
    struct qz_work target_work;

    /* Guarded by the device's lock. */
    uint64_t reported; /* bytes */
    struct balloon_stats stats;
    int64_t stats_at;        /* qz_now_ns() of the last report; 0: none */
    int64_t stats_wanted_at; /* of the last question; 0: none */
    int64_t stats_period;    /* ns */
    struct qz_work ask_work;
    struct qz_timer ask_timer; /* loop's thread only */
};

static struct balloon *balloon_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct balloon, d);
}

static enum role role_of(const struct balloon *b, unsigned q)
{
    bool stats = virtio_has(&b->d, VIRTIO_BALLOON_F_STATS_VQ);

    if (q == 0)
        return INFLATE;
    if (q == 1)
        return DEFLATE;
    if (q == 2 && stats)
        return STATISTICS;
    return virtio_has(&b->d, VIRTIO_BALLOON_F_REPORTING) ? REPORTING : NOTHING;
}

/* ---- pages
 * --------------------------------------------------------------------------------------- */

/* Its bytes are zeros from now on: a write like any other. */
static int discard(struct balloon *b, gpa_t at, uint64_t len)
{
    struct machine *m = b->d.machine;
    const int r = mem_discard(&m->memory, at, len);
    struct mem_span span;

    if (r == 0 && mem_span(&m->memory, at, len, &span) == 0)
        machine_written(m, span.data, len);
    return r;
}

/* Discards one run of pages named in the request. False: the request is at its end. */
static bool inflate_step(struct balloon *b, struct balloon_queue *bq)
{
    uint32_t pfn[STEP_PAGES];
    size_t n = virtqueue_read(&bq->held, bq->done, pfn, sizeof(pfn)) / sizeof(pfn[0]), run = 1;
    bool down = n > 1 && qz_load_le32(&pfn[1]) == qz_load_le32(&pfn[0]) - 1;
    uint64_t first;

    if (!n)
        return false;
    while (run < n && qz_load_le32(&pfn[run]) == qz_load_le32(&pfn[run - 1]) + (down ? -1u : 1u))
        run++;
    first = qz_load_le32(&pfn[down ? run - 1 : 0]);
    if (discard(b, gpa(first * PAGE), run * PAGE) < 0)
        qz_guest_warn("balloon: the guest gives pages 0x%llx to 0x%llx, which are not its memory",
                      (unsigned long long)first, (unsigned long long)(first + run - 1));
    bq->done += run * sizeof(pfn[0]);
    return true;
}

/* Where a buffer that the walker resolved lies for the guest. */
static gpa_t address_of(const struct guest_memory *m, const void *p)
{
    uintptr_t at = (uintptr_t)p, low = (uintptr_t)m->low;

    return at - low < m->low_size ? gpa(at - low) : gpa(HIGH_RAM + (at - (uintptr_t)m->high));
}

/* Discards a piece, ending at a multiple of STEP, of the memory that the request shows (§5.5.6.7).
 */
static bool report_step(struct balloon *b, struct balloon_queue *bq)
{
    const struct virtqueue_chain *c = &bq->held;
    uint64_t offset = bq->done, len;
    unsigned i = c->out_count;
    gpa_t at;

    /* Pages that the guest expects to find poisoned again would come back as zeros. */
    if (virtio_has(&b->d, VIRTIO_BALLOON_F_PAGE_POISON) && b->config.poison_val)
        return false;
    for (; i < c->out_count + c->in_count && offset >= c->iov[i].iov_len; i++)
        offset -= c->iov[i].iov_len;
    if (i == c->out_count + c->in_count)
        return false;
    at = address_of(&b->d.machine->memory, (uint8_t *)c->iov[i].iov_base + offset);
    len = QZ_MIN(c->iov[i].iov_len - offset, STEP - at.v % STEP);
    if (discard(b, at, len) == 0)
        b->reported += len;
    bq->done += len;
    return true;
}

static void serve(struct virtio_device *d, unsigned q);

static void serve_again(struct qz_work *w)
{
    struct balloon_queue *bq = QZ_CONTAINER_OF(w, struct balloon_queue, again);
    struct balloon *b = bq->balloon;
    unsigned q = (unsigned)(bq - b->queue);
    QZ_LOCKED(&b->d.lock);

    if (b->d.active && b->d.queue[q].enabled)
        serve(&b->d, q);
}

/* One round. Returns whether there may be more to do. */
static bool serve_pages(struct balloon *b, struct balloon_queue *bq, struct virtqueue *vq,
                        enum role role)
{
    for (unsigned steps = 0; steps < ROUND_STEPS; steps++) {
        bool more = false;

        if (!bq->holding) {
            if (!virtqueue_pop(vq, &bq->held))
                return false;
            bq->holding = true;
            bq->done = 0;
        }
        if (role == INFLATE)
            more = inflate_step(b, bq);
        else if (role == REPORTING)
            more = report_step(b, bq);
        if (!more) {
            virtqueue_push(vq, &bq->held, 0);
            bq->holding = false;
        }
    }
    return true;
}

/* ---- statistics
 * ---------------------------------------------------------------------------------- */

static const struct balloon_stats no_stats = {~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull,
                                              ~0ull, ~0ull, -1,    0,     0};

/* The driver's word, but never more than there is. */
static uint64_t actual_of(const struct balloon *b)
{
    return QZ_MIN((uint64_t)qz_load_le32(&b->config.actual) * PAGE, b->d.machine->memory.size);
}

static uint64_t *stat_of(struct balloon_stats *s, uint16_t tag)
{
    switch (tag) {
    case VIRTIO_BALLOON_S_SWAP_IN:
        return &s->swap_in;
    case VIRTIO_BALLOON_S_SWAP_OUT:
        return &s->swap_out;
    case VIRTIO_BALLOON_S_MAJFLT:
        return &s->major_faults;
    case VIRTIO_BALLOON_S_MINFLT:
        return &s->minor_faults;
    case VIRTIO_BALLOON_S_MEMFREE:
        return &s->free_memory;
    case VIRTIO_BALLOON_S_MEMTOT:
        return &s->total_memory;
    case VIRTIO_BALLOON_S_AVAIL:
        return &s->available_memory;
    case VIRTIO_BALLOON_S_CACHES:
        return &s->disk_caches;
    default:
        return NULL; /* a newer driver tells more (§5.5.6.3: the device ignores what it does not
                        know) */
    }
}

static void take_stats(struct balloon *b, const struct virtqueue_chain *c)
{
    uint8_t entry[STATS_MAX][STAT_BYTES];
    size_t n = virtqueue_read(c, 0, entry, sizeof(entry)) / STAT_BYTES;

    b->stats = no_stats;
    for (size_t i = 0; i < n; i++) {
        uint64_t *value = stat_of(&b->stats, qz_load_le16(entry[i]));

        if (value)
            *value = qz_load_le64(entry[i] + 2);
    }
    b->stats_at = b->stats.at_ns = qz_now_ns();
    b->stats.actual = actual_of(b);
}

static bool serve_stats(struct balloon *b, struct balloon_queue *bq, struct virtqueue *vq)
{
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain c = {.iov = iov, .capacity = SEGMENTS};

    for (unsigned i = 0; i < ROUND_STEPS; i++) {
        if (!virtqueue_pop(vq, &c))
            return false;
        take_stats(b, &c);
        if (bq->holding) /* there shall be one only; the newest stays */
            virtqueue_push(vq, &bq->held, 0);
        memcpy(bq->iov, iov, sizeof(iov));
        bq->held = c;
        bq->held.iov = bq->iov;
        bq->holding = true;
    }
    return true;
}

/* The driver's buffer goes back, to be filled anew. */
static void ask_driver(struct balloon *b)
{
    struct balloon_queue *bq = &b->queue[2];

    if (!b->d.active || role_of(b, 2) != STATISTICS || !bq->holding)
        return;
    bq->holding = false;
    virtqueue_push(&b->d.queue[2], &bq->held, 0);
    virtqueue_interrupt(&b->d.queue[2]);
}

static void ask_due(struct qz_timer *t)
{
    struct balloon *b = QZ_CONTAINER_OF(t, struct balloon, ask_timer);
    QZ_LOCKED(&b->d.lock);

    if (qz_now_ns() - b->stats_wanted_at > STATS_ASKED_NS)
        return;
    ask_driver(b);
    qz_timer_arm(b->d.loop, t, qz_now_ns() + b->stats_period, ask_due);
}

/* The period was a longer one when the timer was set. */
static bool ask_is_late(struct balloon *b)
{
    QZ_LOCKED(&b->d.lock);

    return b->ask_timer.deadline_ns > qz_now_ns() + b->stats_period;
}

static void ask_begin(struct qz_work *w)
{
    struct balloon *b = QZ_CONTAINER_OF(w, struct balloon, ask_work);

    if (!b->ask_timer.loop || ask_is_late(b))
        ask_due(&b->ask_timer);
}

/* ---- device
 * -------------------------------------------------------------------------------------- */

static void serve(struct virtio_device *d, unsigned q)
{
    struct balloon *b = balloon_of(d);
    struct balloon_queue *bq = &b->queue[q];
    struct virtqueue *vq = &d->queue[q];
    enum role role = role_of(b, q);
    bool more = false;

    if (role == STATISTICS)
        more = serve_stats(b, bq, vq);
    else if (role != NOTHING)
        more = serve_pages(b, bq, vq, role);
    virtqueue_interrupt(vq);
    if (more)
        qz_loop_post(d->loop, &bq->again, serve_again);
}

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&balloon_of(d)->config + offset, len);
}

static void on_config_write(struct virtio_device *d, unsigned offset, const void *buf, unsigned len)
{
    struct balloon *b = balloon_of(d);

    if (len != sizeof(uint32_t))
        return;
    if (offset == offsetof(struct virtio_balloon_config, actual))
        memcpy(&b->config.actual, buf, len);
    else if (offset == offsetof(struct virtio_balloon_config, poison_val))
        memcpy(&b->config.poison_val, buf, len);
}

static void on_reset(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    /* The target is the host's and stays; everything else was the driver's. */
    b->config.actual = b->config.poison_val = 0;
    b->stats = no_stats;
    b->stats_at = 0;
    for (unsigned q = 0; q < QUEUES; q++)
        b->queue[q].holding = false;
    virtio_reset_done(d);
}

/* Requests are carried out again from their beginning, which changes nothing. */
static void on_let_go(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    for (unsigned q = 0; q < QUEUES; q++)
        if (b->queue[q].holding) {
            virtqueue_unpop(&d->queue[q], &b->queue[q].held);
            b->queue[q].holding = false;
        }
}

/* The target comes along; statistics are asked for anew. */
static void on_state(struct virtio_device *d, struct qz_state *s)
{
    struct balloon *b = balloon_of(d);
    uint32_t target = __atomic_load_n(&b->target, __ATOMIC_RELAXED);
    uint32_t actual = qz_load_le32(&b->config.actual);
    uint32_t poison = qz_load_le32(&b->config.poison_val);

    QZ_STATE(s, "target", target, d->machine->memory.size / PAGE);
    QZ_STATE_ANY(s, "actual", actual);
    QZ_STATE_ANY(s, "poison", poison);
    QZ_STATE_ANY(s, "reported", b->reported);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    __atomic_store_n(&b->target, target, __ATOMIC_RELAXED);
    qz_store_le32(&b->config.num_pages, target);
    qz_store_le32(&b->config.actual, actual);
    qz_store_le32(&b->config.poison_val, poison);
}

static void on_free(struct virtio_device *d)
{
    struct balloon *b = balloon_of(d);

    qz_timer_cancel(&b->ask_timer);
    free(b);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .config_read = on_config_read,
    .config_write = on_config_write,
    .notify = serve,
    .reset = on_reset,
    .let_go = on_let_go,
    .state = on_state,
    .free = on_free,
};

/* ---- host
 * ---------------------------------------------------------------------------------------- */

static void apply_target(struct qz_work *w)
{
    struct balloon *b = QZ_CONTAINER_OF(w, struct balloon, target_work);
    QZ_LOCKED(&b->d.lock);

    qz_store_le32(&b->config.num_pages, __atomic_load_n(&b->target, __ATOMIC_RELAXED));
    virtio_config_changed(&b->d);
}

int virtio_balloon_set_target(struct virtio_device *d, uint64_t bytes)
{
    struct balloon *b = balloon_of(d);

    if (bytes > d->machine->memory.size)
        return -ERANGE;
    __atomic_store_n(&b->target, (uint32_t)(bytes / PAGE), __ATOMIC_RELAXED);
    qz_loop_post(d->loop, &b->target_work, apply_target);
    return 0;
}

void virtio_balloon_info(struct virtio_device *d, uint64_t *target, uint64_t *actual,
                         uint64_t *reported_free, struct balloon_stats *stats)
{
    struct balloon *b = balloon_of(d);
    QZ_LOCKED(&d->lock);

    *target = (uint64_t)__atomic_load_n(&b->target, __ATOMIC_RELAXED) * PAGE;
    *actual = actual_of(b);
    *reported_free = b->reported;
    *stats = b->stats;
    stats->age_ns = b->stats_at ? qz_now_ns() - b->stats_at : -1;
    b->stats_wanted_at = qz_now_ns();
    qz_loop_post(d->loop, &b->ask_work, ask_begin);
}

void virtio_balloon_ask_every(struct virtio_device *d, int64_t period_ns)
{
    struct balloon *b = balloon_of(d);
    QZ_LOCKED(&d->lock);

    b->stats_period = period_ns ? period_ns : STATS_PERIOD_NS;
}

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
                   QZ_BIT(VIRTIO_BALLOON_F_PAGE_POISON),
        .config_size = sizeof(b->config),
        .queue_count = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .label = "balloon",
    };
    if (!guest_memory_is_reserved(&m->memory)) /* which would not come back */
        b->d.offered |= QZ_BIT(VIRTIO_BALLOON_F_REPORTING);
    b->stats = no_stats;
    b->stats_period = STATS_PERIOD_NS;
    for (unsigned q = 0; q < QUEUES; q++) {
        b->queue[q].balloon = b;
        b->queue[q].held.iov = b->queue[q].iov;
        b->queue[q].held.capacity = SEGMENTS;
    }
    *out = &b->d;
    return 0;
}

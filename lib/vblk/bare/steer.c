/*
 * steer.c - see the header. The commands and their answers are those of a driver in a Linux process
 * (user/commands.c), less what only such a one has.
 */
#include "steer.h"

#include "text.h"

#include <queztl/vblk_mailbox.h>

/* Beyond the program and its pool, within the 128 MiB that this payload's machines have. */
static struct vblk_mailbox *const mailbox = (struct vblk_mailbox *)VBLK_MAILBOX_ADDRESS;

static struct {
    struct vblk_device *dev;
    const struct vblk_platform *platform;
    uint64_t since;
    struct vblk_request flush;
    bool flushing, removed;
} me;

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

static bool same(const char *a, const char *b)
{
    while (*a && lower(*a) == lower(*b)) {
        a++;
        b++;
    }
    return lower(*a) == lower(*b);
}

static void error(struct text *t, int code, const char *why)
{
    text_bracket(t, '{');
    text_string(t, "error", why);
    text_number(t, "code", (uint64_t)-code);
    text_bracket(t, '}');
}

static void outcome(struct text *t, int rc, const char *what)
{
    if (rc < 0) {
        error(t, rc,
              rc == -VBLK_ENOTSUP ? "the device or the driver has no such thing"
                                  : "the device did not do it");
        return;
    }
    text_bracket(t, '{');
    text_string(t, "done", what);
    text_bracket(t, '}');
}

static void device_info(struct text *t)
{
    struct vblk_info i;

    qz_vblk_get_info(me.dev, &i);
    text_bracket(t, '{');
    text_string(t, "device", "virtio-blk");
    text_string(t, "transport", "bare");
    text_number(t, "sectors", i.sectors);
    text_number(t, "bytes", i.sectors * VBLK_SECTOR_SIZE);
    text_number(t, "block_size", i.block_size);
    text_bool(t, "read_only", i.read_only);
    text_bool(t, "writeback", i.writeback);
    text_number(t, "queues", i.queues);
    text_number(t, "queues_offered", i.queues_offered);
    text_number(t, "queue_depth", i.depth);
    text_number(t, "segments_max", i.segments_max);
    text_number(t, "segment_bytes_max", i.size_max);
    text_number(t, "discard_sectors_max", i.discard_sectors_max);
    text_number(t, "resets", i.resets);
    text_bool(t, "needs_recovery", qz_vblk_needs_recovery(me.dev));
    text_bracket(t, '}');
}

static void queue_info(struct text *t, unsigned queue)
{
    struct vblk_queue_info i;

    qz_vblk_get_queue_info(qz_vblk_queue(me.dev, queue), &i);
    text_bracket(t, '{');
    text_number(t, "queue", queue);
    text_string(t, "state", i.broken ? "broken" : i.running ? "running" : "stopped");
    text_string(t, "format", i.packed ? "packed" : "split");
    text_number(t, "depth", i.depth);
    text_number(t, "in_flight", i.in_flight);
    text_number(t, "waiting", i.waiting);
    text_bool(t, "indirect", i.indirect);
    text_bool(t, "event_idx", i.event_idx);
    text_bool(t, "in_order", i.in_order);
    text_number(t, "dma_bytes", i.dma_bytes);
    text_bracket(t, '}');
}

static void latencies(struct text *t, const struct vblk_stats *s)
{
    text_number(t, "latency_p50_ns", qz_vblk_latency(s, 500));
    text_number(t, "latency_p99_ns", qz_vblk_latency(s, 990));
    text_number(t, "latency_p999_ns", qz_vblk_latency(s, 999));
    text_number(t, "latency_max_ns", s->latency_max_ns);
}

static void queue_stats(struct text *t, unsigned queue)
{
    struct vblk_stats s;

    qz_vblk_get_stats(qz_vblk_queue(me.dev, queue), &s);
    text_bracket(t, '{');
    text_number(t, "queue", queue);
    text_number(t, "requests", s.requests);
    text_number(t, "bytes_read", s.bytes_read);
    text_number(t, "bytes_written", s.bytes_written);
    text_number(t, "errors", s.errors);
    text_number(t, "timeouts", s.timeouts);
    text_number(t, "resubmitted", s.resubmitted);
    text_number(t, "doorbells", s.doorbells);
    text_number(t, "interrupts", s.interrupts);
    text_number(t, "occupancy_max", s.occupancy_max);
    latencies(t, &s);
    text_number(t, "batches", s.batches);
    text_bracket(t, '}');
}

static void queue_reset(struct text *t, unsigned queue)
{
    outcome(t, qz_vblk_queue_recover(qz_vblk_queue(me.dev, queue)), "queue-reset");
}

static unsigned queue_count(void)
{
    struct vblk_info i;

    qz_vblk_get_info(me.dev, &i);
    return i.queues;
}

static void performance_stats(struct text *t)
{
    uint64_t spent = me.platform->now_ns(me.platform->ctx) - me.since;
    struct vblk_stats sum = {0};

    for (unsigned k = 0; k < queue_count(); k++) {
        struct vblk_stats s;

        qz_vblk_get_stats(qz_vblk_queue(me.dev, k), &s);
        sum.requests += s.requests;
        sum.bytes_read += s.bytes_read;
        sum.bytes_written += s.bytes_written;
        sum.errors += s.errors;
        if (s.latency_max_ns > sum.latency_max_ns)
            sum.latency_max_ns = s.latency_max_ns;
        for (unsigned i = 0; i < VBLK_LATENCY_BUCKETS; i++)
            sum.latency[i] += s.latency[i];
    }
    text_bracket(t, '{');
    text_number(t, "milliseconds", spent / 1000000);
    text_number(t, "requests", sum.requests);
    text_number(t, "bytes_read", sum.bytes_read);
    text_number(t, "bytes_written", sum.bytes_written);
    text_number(t, "errors", sum.errors);
    latencies(t, &sum);
    text_bracket(t, '}');
}

static void feature_list(struct text *t)
{
    struct vblk_info i;

    qz_vblk_get_info(me.dev, &i);
    text_bracket(t, '[');
    for (unsigned bit = 0; bit < 64; bit++) {
        const char *name = qz_vblk_feature_name(bit);

        if (!name)
            continue;
        text_bracket(t, '{');
        text_string(t, "feature", name);
        text_number(t, "bit", bit);
        text_bool(t, "offered", i.offered >> bit & 1);
        text_bool(t, "negotiated", i.features >> bit & 1);
        text_bracket(t, '}');
    }
    text_bracket(t, ']');
}

static void memory(struct text *t)
{
    struct vblk_info i;

    qz_vblk_get_info(me.dev, &i);
    text_bracket(t, '{');
    text_number(t, "ring_bytes", i.dma_bytes);
    text_bool(t, "zero_copy", true);
    text_bracket(t, '}');
}

/* A feature by its whole name, by what follows "_F_", or by its bit. */
static int feature_bit(const char *name)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        const char *full = qz_vblk_feature_name(bit), *tail = full;
        char digits[3] = {(char)('0' + bit / 10), (char)('0' + bit % 10), 0};

        if (!full)
            continue;
        while (!(tail[0] == '_' && tail[1] == 'F' && tail[2] == '_'))
            tail++;
        if (same(name, full) || same(name, tail + 3) || same(name, bit < 10 ? digits + 1 : digits))
            return (int)bit;
    }
    return -1;
}

static void set_feature(struct text *t, const char *name, bool on)
{
    int bit = feature_bit(name);

    if (bit < 0)
        error(t, -2, "unknown feature; feature-list names them"); /* ENOENT */
    else
        outcome(t, qz_vblk_set_feature(me.dev, (unsigned)bit, on),
                on ? "feature-enable" : "feature-disable");
}

/* Commands on a queue. */
static void on_queue(struct text *t, const char *name, const char *argument, bool *later)
{
    void (*run)(struct text * t, unsigned queue) = same(name, "queue-info")    ? queue_info
                                                   : same(name, "queue-stats") ? queue_stats
                                                   : same(name, "queue-reset") ? queue_reset
                                                                               : NULL;
    struct vblk_request *p = &me.flush;
    unsigned queue = 0;

    if (!*argument && (run == queue_info || run == queue_stats)) {
        text_bracket(t, '[');
        for (unsigned k = 0; k < queue_count(); k++)
            run(t, k);
        text_bracket(t, ']');
        return;
    }
    for (const char *d = argument; *d >= '0' && *d <= '9' && queue < VBLK_QUEUES_MAX; d++)
        queue = queue * 10 + (unsigned)(*d - '0');
    if (*argument < '0' || *argument > '9' || queue >= queue_count()) {
        error(t, -2, "there is no such queue");
    } else if (run) {
        run(t, queue);
    } else if (same(name, "queue-flush")) {
        me.flush = (struct vblk_request){.op = VBLK_OP_FLUSH};
        me.flushing = *later = qz_vblk_submit(qz_vblk_queue(me.dev, queue), &p, 1) == 1;
        if (!*later)
            outcome(t, me.flush.status, "queue-flush");
    } else {
        error(t, -VBLK_EINVAL, "unknown command");
    }
}

static void run(struct text *t, const char *name, const char *argument, bool *later)
{
    if (same(name, "device-info")) {
        device_info(t);
    } else if (same(name, "device-reset")) {
        outcome(t, qz_vblk_recover(me.dev), "device-reset");
    } else if (same(name, "device-remove")) {
        me.removed = true;
        outcome(t, qz_vblk_stop(me.dev), "device-remove");
    } else if (same(name, "performance-stats")) {
        performance_stats(t);
    } else if (same(name, "feature-list")) {
        feature_list(t);
    } else if (same(name, "feature-enable") || same(name, "feature-disable")) {
        set_feature(t, argument, name[8] == 'e');
    } else if (same(name, "memory-info") || same(name, "memory-stats")) {
        memory(t);
    } else {
        on_queue(t, name, argument, later);
    }
}

static void answer(const struct text *t)
{
    mailbox->answer_len = (uint32_t)t->len;
    __atomic_store_n(&mailbox->answered, mailbox->answered + 1, __ATOMIC_RELEASE);
}

static struct text fresh(void)
{
    return (struct text){.buf = mailbox->answer, .size = sizeof(mailbox->answer)};
}

void steer_begin(struct vblk_device *dev, const struct vblk_platform *p)
{
    me.dev = dev;
    me.platform = p;
    me.since = p->now_ns(p->ctx);
    mailbox->asked = mailbox->answered = 0;
    __atomic_store_n(&mailbox->magic, VBLK_MAILBOX_MAGIC, __ATOMIC_RELEASE);
}

bool steer_step(void)
{
    char line[VBLK_MAILBOX_LINE];
    struct text t = fresh();
    char *argument = line;
    bool later = false;

    if (me.flushing || __atomic_load_n(&mailbox->asked, __ATOMIC_ACQUIRE) == mailbox->answered)
        return false;
    __builtin_memcpy(line, mailbox->line, sizeof(line));
    line[sizeof(line) - 1] = 0;
    while (*argument && *argument != ' ')
        argument++;
    if (*argument)
        *argument++ = 0;
    run(&t, line, argument, &later);
    if (!later)
        answer(&t);
    return me.removed;
}

bool steer_owns(const struct vblk_request *r)
{
    struct text t = fresh();

    if (r != &me.flush)
        return false;
    me.flushing = false;
    outcome(&t, r->status, "queue-flush");
    answer(&t);
    return true;
}

/*
 * commands.c - see the header. One function a command, one table of them.
 */
#include "commands.h"

json_t *command_error(int code, const char *text)
{
    return json_pack("{s:s, s:i}", "error", text, "code", -code);
}

json_t *command_done(const char *what)
{
    return json_pack("{s:s}", "done", what);
}

static json_t *outcome(int rc, const char *what)
{
    char text[160];

    if (rc == 0)
        return command_done(what);
    snprintf(text, sizeof(text), "%s: %s%s", what, strerror(-rc),
             rc == -ENOTSUP ? "; the device does not offer it" : "");
    return command_error(rc, text);
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *device_info(struct vblk_session *s, unsigned arg)
{
    static const char *const zones[] = {"none", "host-managed", "host-aware"};
    struct vblk_info i;

    qz_vblk_get_info(s->dev, &i);
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:i, s:b, s:b, s:i, s:i, s:i, s:i, s:I, s:I, s:s, s:I, s:I, s:b}",
        "device", s->path, "transport", "vhost-user", "sectors", (json_int_t)i.sectors, "bytes",
        (json_int_t)(i.sectors * 512), "block_size", (int)i.block_size, "read_only", i.read_only,
        "writeback", i.writeback, "queues", (int)i.queues, "queues_offered", (int)i.queues_offered,
        "queue_depth", (int)i.depth, "segments_max", (int)i.segments_max, "segment_bytes_max",
        (json_int_t)i.size_max, "discard_sectors_max", (json_int_t)i.discard_sectors_max, "zones",
        zones[i.zone_model], "resets", (json_int_t)i.resets, "resumes", (json_int_t)i.resumes,
        "needs_recovery", qz_vblk_needs_recovery(s->dev));
}

static json_t *device_reset_(struct vblk_session *s, unsigned arg)
{
    return outcome(qz_vblk_recover(s->dev), "device-reset");
}

static json_t *device_remove(struct vblk_session *s, unsigned arg)
{
    qz_vblk_stop(s->dev);
    return command_done("device-remove");
}

static json_t *queue_info(struct vblk_session *s, unsigned queue)
{
    struct vblk_queue_info i;

    qz_vblk_get_queue_info(qz_vblk_queue(s->dev, queue), &i);
    return json_pack(
        "{s:i, s:s, s:s, s:i, s:i, s:i, s:b, s:b, s:b, s:I}", "queue", (int)queue, "state",
        i.broken    ? "broken"
        : i.running ? "running"
                    : "stopped",
        "format", i.packed ? "packed" : "split", "depth", (int)i.depth, "in_flight",
        (int)i.in_flight, "waiting", (int)i.waiting, "indirect", i.indirect, "event_idx",
        i.event_idx, "in_order", i.in_order, "dma_bytes", (json_int_t)i.dma_bytes);
}

static json_t *queue_reset(struct vblk_session *s, unsigned queue)
{
    return outcome(qz_vblk_queue_recover(qz_vblk_queue(s->dev, queue)), "queue-reset");
}

static json_t *queue_stats(struct vblk_session *s, unsigned queue)
{
    struct vblk_stats t;

    qz_vblk_get_stats(qz_vblk_queue(s->dev, queue), &t);
    return json_pack(
        "{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i, s:I, s:I, s:I, s:I, s:I}", "queue",
        (int)queue, "requests", (json_int_t)t.requests, "bytes_read", (json_int_t)t.bytes_read,
        "bytes_written", (json_int_t)t.bytes_written, "errors", (json_int_t)t.errors, "timeouts",
        (json_int_t)t.timeouts, "resubmitted", (json_int_t)t.resubmitted, "doorbells",
        (json_int_t)t.doorbells, "interrupts", (json_int_t)t.interrupts, "occupancy_mean",
        t.requests ? (double)t.occupancy_sum / (double)t.requests : 0.0, "occupancy_max",
        (int)t.occupancy_max, "latency_p50_ns", (json_int_t)qz_vblk_latency(&t, 500),
        "latency_p99_ns", (json_int_t)qz_vblk_latency(&t, 990), "latency_p999_ns",
        (json_int_t)qz_vblk_latency(&t, 999), "latency_max_ns", (json_int_t)t.latency_max_ns,
        "batches", (json_int_t)t.batches);
}

static unsigned queue_count(struct vblk_session *s)
{
    struct vblk_info i;

    qz_vblk_get_info(s->dev, &i);
    return i.queues;
}

static json_t *performance_stats(struct vblk_session *s, unsigned arg)
{
    double seconds = (double)(qz_now_ns() - s->since_ns) / 1e9;
    struct vblk_stats sum = {0};

    for (unsigned k = 0; k < queue_count(s); k++) {
        struct vblk_stats t;

        qz_vblk_get_stats(qz_vblk_queue(s->dev, k), &t);
        sum.requests += t.requests;
        sum.bytes_read += t.bytes_read;
        sum.bytes_written += t.bytes_written;
        sum.errors += t.errors;
        sum.latency_max_ns = QZ_MAX(sum.latency_max_ns, t.latency_max_ns);
        for (unsigned i = 0; i < VBLK_LATENCY_BUCKETS; i++)
            sum.latency[i] += t.latency[i];
    }
    return json_pack("{s:f, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "seconds", seconds,
                     "requests", (json_int_t)sum.requests, "requests_per_second",
                     (double)sum.requests / seconds, "read_bytes_per_second",
                     (double)sum.bytes_read / seconds, "written_bytes_per_second",
                     (double)sum.bytes_written / seconds, "errors", (json_int_t)sum.errors,
                     "latency_p50_ns", (json_int_t)qz_vblk_latency(&sum, 500), "latency_p99_ns",
                     (json_int_t)qz_vblk_latency(&sum, 990), "latency_p999_ns",
                     (json_int_t)qz_vblk_latency(&sum, 999));
}

static json_t *feature_list(struct vblk_session *s, unsigned arg)
{
    json_t *list = json_array();
    struct vblk_info i;

    qz_vblk_get_info(s->dev, &i);
    for (unsigned bit = 0; bit < 64; bit++)
        if (qz_vblk_feature_name(bit))
            json_array_append_new(list, json_pack("{s:s, s:i, s:b, s:b}", "feature",
                                                  qz_vblk_feature_name(bit), "bit", (int)bit,
                                                  "offered", (int)(i.offered >> bit & 1),
                                                  "negotiated", (int)(i.features >> bit & 1)));
    return list;
}

static json_t *feature_enable(struct vblk_session *s, unsigned bit)
{
    return outcome(qz_vblk_set_feature(s->dev, bit, true), "feature-enable");
}

static json_t *feature_disable(struct vblk_session *s, unsigned bit)
{
    return outcome(qz_vblk_set_feature(s->dev, bit, false), "feature-disable");
}

static json_t *memory_info(struct vblk_session *s, unsigned arg)
{
    struct vblk_info i;

    qz_vblk_get_info(s->dev, &i);
    return json_pack("{s:o, s:o, s:b, s:b}", "shared_bytes", number(s->settings.shared_memory_size),
                     "ring_bytes", number(i.dma_bytes), "zero_copy", s->settings.zero_copy_enabled,
                     "dma", s->settings.dma_enabled);
}

static json_t *memory_stats(struct vblk_session *s, unsigned arg)
{
    struct vblk_cache_stats t = {0};
    struct vblk_info i;

    qz_vblk_get_info(s->dev, &i);
    if (s->caches[0])
        qz_vblk_cache_get_stats(s->caches[0], &t);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "shared_bytes_used",
                     number(qz_vblk_user_memory_used(s->user)), "ring_bytes", number(i.dma_bytes),
                     "cache_bytes", number((uint64_t)t.lines * VBLK_CACHE_BLOCK),
                     "cache_dirty_bytes", number((uint64_t)t.dirty * VBLK_CACHE_BLOCK),
                     "cache_hits", number(t.hits), "cache_misses", number(t.misses),
                     "read_ahead_blocks", number(t.read_ahead_blocks));
}

enum argument { ARG_NONE, ARG_QUEUE, ARG_QUEUE_OR_ALL, ARG_FEATURE };

static const struct {
    const char *name;
    enum argument argument;
    json_t *(*run)(struct vblk_session *s, unsigned arg);
} commands[] = {
    {"device-info", ARG_NONE, device_info},
    {"device-reset", ARG_NONE, device_reset_},
    {"device-remove", ARG_NONE, device_remove},
    {"queue-info", ARG_QUEUE_OR_ALL, queue_info},
    {"queue-flush", ARG_QUEUE, NULL},
    {"queue-reset", ARG_QUEUE, queue_reset},
    {"performance-stats", ARG_NONE, performance_stats},
    {"queue-stats", ARG_QUEUE_OR_ALL, queue_stats},
    {"feature-list", ARG_NONE, feature_list},
    {"feature-enable", ARG_FEATURE, feature_enable},
    {"feature-disable", ARG_FEATURE, feature_disable},
    {"memory-info", ARG_NONE, memory_info},
    {"memory-stats", ARG_NONE, memory_stats},
};

static json_t *all_queues(struct vblk_session *s,
                          json_t *(*run)(struct vblk_session *s, unsigned q))
{
    json_t *list = json_array();

    for (unsigned k = 0; k < queue_count(s); k++)
        json_array_append_new(list, run(s, k));
    return list;
}

/* A feature by its name, with or without VIRTIO_ and so on, or by its bit; -1 when unknown. */
static int feature_bit(const char *name)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        const char *full = qz_vblk_feature_name(bit), *tail = full ? strstr(full, "_F_") + 3 : NULL;
        char number_text[8];

        snprintf(number_text, sizeof(number_text), "%u", bit);
        if (full &&
            (!strcasecmp(name, full) || !strcasecmp(name, tail) || !strcmp(name, number_text)))
            return (int)bit;
    }
    return -1;
}

json_t *command_run(struct vblk_session *s, const char *line, bool *flush, unsigned *queue)
{
    char name[32] = "", argument[64] = "";
    struct qz_error err;
    uint64_t n = 0;

    *flush = false;
    sscanf(line, "%31s %63s", name, argument);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(commands); i++) {
        enum argument kind = commands[i].argument;

        if (strcmp(name, commands[i].name))
            continue;
        if (kind == ARG_NONE && *argument)
            return command_error(-EINVAL, "this command takes no argument");
        if (kind == ARG_QUEUE_OR_ALL && !*argument)
            return all_queues(s, commands[i].run);
        if (kind == ARG_FEATURE) {
            if (feature_bit(argument) < 0)
                return command_error(-ENOENT, "unknown feature; feature-list names them");
            return commands[i].run(s, (unsigned)feature_bit(argument));
        }
        if (kind != ARG_NONE) {
            if (!queue_count(s))
                return command_error(-ENODEV, "the device is stopped");
            if (qz_parse_u64(*argument ? argument : "?", "queue", 0, queue_count(s) - 1, &n, &err) <
                0)
                return command_error(-ENOENT, err.text);
        }
        *queue = (unsigned)n;
        *flush = !commands[i].run;
        return *flush ? NULL : commands[i].run(s, (unsigned)n);
    }
    return command_error(-EINVAL, "unknown command");
}

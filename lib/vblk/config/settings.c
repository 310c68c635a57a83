/*
 * settings.c - one table says which keys there are, what values they take and where they go.
 */
#include "settings.h"

#include "toml.h"

enum { MIB = 1 << 20, TEXT_MAX = 1 << 20 };

enum kind { KIND_COUNT, KIND_U64, KIND_BYTES, KIND_BOOL, KIND_SCHEDULER };

static const struct key {
    const char *name;
    enum kind kind;
    size_t offset;
    uint64_t min, max;
} keys[] = {
#define AT(field) offsetof(struct vblk_settings, field)
    {"device_max_count", KIND_COUNT, AT(device_max_count), 1, VBLK_DEVICES_MAX},
    {"device_max_queues", KIND_COUNT, AT(device_max_queues), 1, VBLK_QUEUES_MAX},
    {"device_max_queue_depth", KIND_COUNT, AT(device_max_queue_depth), 4, VBLK_DEPTH_MAX},
    {"device_max_sectors", KIND_U64, AT(device_max_sectors), 1, INT64_MAX},
    {"queue_count", KIND_COUNT, AT(queue_count), 1, VBLK_QUEUES_MAX},
    {"queue_depth", KIND_COUNT, AT(queue_depth), 4, VBLK_DEPTH_MAX},
    {"queue_interrupt_coalescing", KIND_BOOL, AT(interrupt_coalescing), 0, 1},
    {"queue_interrupt_coalescing_time", KIND_COUNT, AT(coalescing_time_us), 0, 1000000},
    {"queue_interrupt_coalescing_threshold", KIND_COUNT, AT(coalescing_threshold), 1,
     VBLK_DEPTH_MAX},
    {"read_ahead_size", KIND_BYTES, AT(read_ahead_size), 0, 64 * MIB},
    {"write_back_cache", KIND_BOOL, AT(write_back_cache), 0, 1},
    {"write_back_cache_size", KIND_BYTES, AT(write_back_cache_size), 64 << 10, UINT64_C(64) << 30},
    {"io_scheduler", KIND_SCHEDULER, AT(io_scheduler), 0, 0},
    {"direct_io", KIND_BOOL, AT(direct_io), 0, 1},
    {"shared_memory_size", KIND_BYTES, AT(shared_memory_size), MIB, UINT64_C(64) << 30},
    {"dma_enabled", KIND_BOOL, AT(dma_enabled), 0, 1},
    {"zero_copy_enabled", KIND_BOOL, AT(zero_copy_enabled), 0, 1},
    {"batch_processing", KIND_BOOL, AT(batch_processing), 0, 1},
#undef AT
};

void settings_default(struct vblk_settings *s)
{
    *s = (struct vblk_settings){.device_max_count = VBLK_DEVICES_MAX,
                                .device_max_queues = 16,
                                .device_max_queue_depth = VBLK_DEPTH_MAX,
                                .queue_count = 1,
                                .queue_depth = 128,
                                .interrupt_coalescing = true,
                                .coalescing_time_us = 50,
                                .coalescing_threshold = 16,
                                .write_back_cache_size = 16 * MIB,
                                .direct_io = true,
                                .shared_memory_size = 64 * MIB,
                                .dma_enabled = true,
                                .zero_copy_enabled = true,
                                .batch_processing = true};
}

struct parsing {
    const char *name;
    struct vblk_settings *s;
    unsigned line[QZ_ARRAY_LEN(keys)],
        column[QZ_ARRAY_LEN(keys)]; /* of what the file says; 0: nothing */
};

static int take_scheduler(struct vblk_settings *s, const char *name, const char *where,
                          struct qz_error *err)
{
    static const char *const names[] = {"none", "priority", "deadline"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(names); i++)
        if (!strcmp(name, names[i])) {
            s->io_scheduler = i;
            return 0;
        }
    return qz_fail(err, -EINVAL, "%s: io_scheduler: '%s' is none of none, priority, deadline",
                   where, name);
}

static int take_number(const struct key *k, void *to, const struct toml_entry *e, const char *where,
                       struct qz_error *err)
{
    uint64_t v = (uint64_t)e->integer;

    if (e->type == TOML_STRING && k->kind == KIND_BYTES) {
        struct qz_error why;

        if (qz_parse_size(e->string, &v, &why) < 0)
            return qz_fail(err, -EINVAL, "%s: %s: %s", where, k->name, why.text);
    } else if (e->type != TOML_INTEGER) {
        return qz_fail(err, -EINVAL, "%s: %s: expected a number%s", where, k->name,
                       k->kind == KIND_BYTES ? " of bytes, or a size such as \"16MiB\"" : "");
    } else if (e->integer < 0) {
        return qz_fail(err, -EINVAL, "%s: %s: %lld is negative", where, k->name,
                       (long long)e->integer);
    }
    if (v < k->min || v > k->max)
        return qz_fail(err, -ERANGE, "%s: %s: %llu is not within %llu to %llu", where, k->name,
                       (unsigned long long)v, (unsigned long long)k->min,
                       (unsigned long long)k->max);
    if (k->kind == KIND_COUNT)
        *(unsigned *)to = (unsigned)v;
    else
        *(uint64_t *)to = v;
    return 0;
}

static int take(void *arg, const struct toml_entry *e, struct qz_error *err)
{
    struct parsing *p = arg;
    char where[128];

    if (strcmp(e->table, "virtio_block"))
        return 0; /* another program's table in a file that is shared */
    snprintf(where, sizeof(where), "%s:%u:%u", p->name, e->line, e->column);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(keys); i++) {
        const struct key *k = &keys[i];
        void *to = (char *)p->s + k->offset;

        if (strcmp(e->key, k->name))
            continue;
        p->line[i] = e->line;
        p->column[i] = e->column;
        if (k->kind == KIND_BOOL) {
            if (e->type != TOML_BOOLEAN)
                return qz_fail(err, -EINVAL, "%s: %s: expected true or false", where, k->name);
            *(bool *)to = e->integer;
            return 0;
        }
        if (k->kind == KIND_SCHEDULER)
            return e->type == TOML_STRING
                       ? take_scheduler(p->s, e->string, where, err)
                       : qz_fail(err, -EINVAL, "%s: %s: expected a string", where, k->name);
        return take_number(k, to, e, where, err);
    }
    return qz_fail(err, -EINVAL, "%s: unknown key '%s' in [virtio_block]", where, e->key);
}

/* Tells a contradiction at the place of the key that the file gave, or of the other one. */
static int contradiction(const struct parsing *p, const char *key, const char *other,
                         const char *what, struct qz_error *err)
{
    unsigned line = 0, column = 0;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(keys); i++)
        if (p->line[i] && (!strcmp(keys[i].name, key) || (!line && !strcmp(keys[i].name, other)))) {
            line = p->line[i];
            column = p->column[i];
        }
    return qz_fail(err, -EINVAL, "%s:%u:%u: %s", p->name, line, column, what);
}

static int check(const struct parsing *p, struct qz_error *err)
{
    const struct vblk_settings *s = p->s;

    if (s->queue_count > s->device_max_queues)
        return contradiction(p, "queue_count", "device_max_queues",
                             "queue_count is more than device_max_queues", err);
    if (s->queue_depth > s->device_max_queue_depth)
        return contradiction(p, "queue_depth", "device_max_queue_depth",
                             "queue_depth is more than device_max_queue_depth", err);
    if (s->zero_copy_enabled && !s->dma_enabled)
        return contradiction(p, "zero_copy_enabled", "dma_enabled",
                             "zero_copy_enabled needs dma_enabled; turn it off too", err);
    if (s->direct_io && (s->write_back_cache || s->read_ahead_size))
        return contradiction(
            p, s->write_back_cache ? "write_back_cache" : "read_ahead_size", "direct_io",
            "direct_io goes past read-ahead and cache: set direct_io = false", err);
    if (s->write_back_cache && s->write_back_cache_size > s->shared_memory_size / 2)
        return contradiction(p, "write_back_cache_size", "shared_memory_size",
                             "write_back_cache_size is more than half of shared_memory_size", err);
    return 0;
}

int settings_parse(const char *name, const char *text, size_t len, struct vblk_settings *s,
                   struct qz_error *err)
{
    struct parsing p = {.name = name, .s = s};
    int rc;

    settings_default(s);
    rc = toml_read(name, text, len, take, &p, err);
    return rc < 0 ? rc : check(&p, err);
}

int settings_load(const char *path, struct vblk_settings *s, struct qz_error *err)
{
    QZ_AUTO_FREE void *text = NULL;
    size_t len;
    int rc = qz_read_file(path, TEXT_MAX, &text, &len, err);

    return rc < 0 ? rc : settings_parse(path, text, len, s, err);
}

void settings_apply(const struct vblk_settings *s, struct vblk_config *c)
{
    qz_vblk_config_default(c);
    c->queue_count = s->queue_count;
    c->queue_depth = s->queue_depth;
    c->sectors_max = s->device_max_sectors;
    c->interrupts = true;
    c->coalesce_threshold = s->interrupt_coalescing ? s->coalescing_threshold : 0;
    c->coalesce_time_us = s->interrupt_coalescing ? s->coalescing_time_us : 0;
    c->scheduler = s->io_scheduler;
    c->zero_copy = s->zero_copy_enabled;
    c->batch = s->batch_processing;
    c->latency = true;
}

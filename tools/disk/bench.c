/* bench.c - queztl-disk bench: how fast a disk is through this engine. */
#include "disk_tool.h"

enum { QUEUES_MAX = 64, DEPTH_MAX = 1024 };

struct config {
    enum print_format format;
    unsigned pattern;
    uint64_t block, depth, queues, seconds;
};

static const char *const patterns[] = {"randread", "randwrite", "read", "write"};

static bool writes(const struct config *c)
{
    return c->pattern & 1;
}

static int set_format(void *target, const char *value, struct qz_error *err)
{
    return print_format_set(&((struct config *)target)->format, value, err);
}

static int set_pattern(void *target, const char *value, struct qz_error *err)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(patterns); i++) {
        if (!strcmp(patterns[i], value)) {
            ((struct config *)target)->pattern = i;
            return 0;
        }
    }
    return qz_fail(err, -EINVAL, "\"%s\": choose randread, randwrite, read or write", value);
}

static int set_block(void *target, const char *value, struct qz_error *err)
{
    struct config *c = target;
    int r = qz_parse_size(value, &c->block, err);

    if (r == 0 && (c->block == 0 || c->block > 16 << 20))
        return qz_fail(err, -ERANGE, "from 1B to 16M");
    return r;
}

static int set_depth(void *target, const char *value, struct qz_error *err)
{
    return qz_parse_u64(value, "depth", 1, DEPTH_MAX, &((struct config *)target)->depth, err);
}

static int set_queues(void *target, const char *value, struct qz_error *err)
{
    return qz_parse_u64(value, "queues", 1, QUEUES_MAX, &((struct config *)target)->queues, err);
}

static int set_seconds(void *target, const char *value, struct qz_error *err)
{
    return qz_parse_u64(value, "seconds", 1, 3600, &((struct config *)target)->seconds, err);
}

const struct qz_option bench_options[] = {
    {"pattern", "NAME", "randread (default), randwrite, read, write: writing destroys the content",
     set_pattern},
    {"block", "SIZE", "of one request (default 4K)", set_block},
    {"depth", "N", "requests at once in each queue (default 32)", set_depth},
    {"queues", "N", "threads, each with a queue (default 1)", set_queues},
    {"seconds", "N", "how long (default 5)", set_seconds},
    {"format", "table|json|yaml", "how to print (default table)", set_format},
    {0},
};

/* ---- one queue */

struct thread;

struct slot {
    struct qz_disk_request r;
    struct iovec iov;
    struct thread *t;
    bool done;
};

struct thread {
    const struct config *c;
    struct qz_disk *d;
    uint64_t blocks, random, next; /* of the disk; state; sequential position */
    uint64_t count;
    unsigned flying;
    int failed;
    int64_t ns;
};

static uint64_t pick(struct thread *t)
{
    uint64_t z;

    if (t->c->pattern >= 2)
        return t->next++ % t->blocks;
    z = (t->random += 0x9e3779b97f4a7c15ull); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % t->blocks;
}

static void on_done(struct qz_disk_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, r);

    s->done = true;
    s->t->flying--;
    s->t->count++;
    if (result < 0)
        s->t->failed = result;
}

static void loop(struct thread *t, struct qz_disk_queue *q, struct slot *slots)
{
    int64_t start = qz_now_ns(), end = start + (int64_t)t->c->seconds * 1000000000;
    bool more = true;

    while (more || t->flying) {
        more = more && !t->failed && qz_now_ns() < end;
        for (unsigned i = 0; more && i < t->c->depth; i++) {
            struct slot *s = &slots[i];

            if (!s->done)
                continue;
            s->done = false;
            t->flying++;
            s->r.offset = pick(t) * t->c->block;
            qz_disk_submit(q, &s->r);
        }
        qz_disk_kick(q);
        if (t->flying)
            qz_disk_wait(q);
    }
    t->ns = qz_now_ns() - start;
}

static void *thread_main(void *argument)
{
    struct thread *t = argument;
    QZ_AUTO_FREE struct slot *slots = calloc(t->c->depth, sizeof(*slots));
    struct qz_disk_queue *q;
    struct qz_error err;
    uint8_t *bytes = NULL;

    if (!slots || posix_memalign((void **)&bytes, 4096, t->c->block * t->c->depth)) {
        t->failed = -ENOMEM;
        return NULL;
    }
    memset(bytes, 0xa5, t->c->block * t->c->depth);
    for (unsigned i = 0; i < t->c->depth; i++) {
        slots[i].iov = (struct iovec){bytes + i * t->c->block, t->c->block};
        slots[i].t = t;
        slots[i].done = true;
        slots[i].r = (struct qz_disk_request){.op = writes(t->c) ? QZ_DISK_WRITE : QZ_DISK_READ,
                                              .length = t->c->block,
                                              .iov = &slots[i].iov,
                                              .iov_count = 1,
                                              .done = on_done};
    }
    t->failed = qz_disk_queue_new(&q, t->d, (unsigned)t->c->depth, &err);
    if (t->failed == 0) {
        loop(t, q, slots);
        qz_disk_queue_free(q);
    }
    free(bytes);
    return NULL;
}

/* ---- all */

static void print(const struct config *c, double iops, struct qz_disk *d)
{
    struct qz_disk_stats s = {0};
    unsigned op = writes(c) ? QZ_DISK_WRITE : QZ_DISK_READ;
    char speed[32];

    qz_disk_get_stats(d, &s);
    if (c->format != PRINT_TABLE) {
        print_value(c->format,
                    json_pack("{s:s,s:I,s:I,s:I,s:f,s:f,s:I,s:I,s:I,s:I}", "pattern",
                              patterns[c->pattern], "block", (json_int_t)c->block, "depth",
                              (json_int_t)c->depth, "queues", (json_int_t)c->queues, "iops", iops,
                              "bytes_per_second", iops * (double)c->block, "p50_ns",
                              (json_int_t)s.op[op].p50_ns, "p99_ns", (json_int_t)s.op[op].p99_ns,
                              "p999_ns", (json_int_t)s.op[op].p999_ns, "max_ns",
                              (json_int_t)s.op[op].max_ns));
        return;
    }
    printf("%s: %.0f requests/s, %s/s; latency 50 %% %.1f us, 99 %% %.1f us, 99.9 %% %.1f us, most "
           "%.1f us\n",
           patterns[c->pattern], iops,
           qz_format_size((uint64_t)(iops * (double)c->block), speed, sizeof(speed)),
           (double)s.op[op].p50_ns / 1e3, (double)s.op[op].p99_ns / 1e3,
           (double)s.op[op].p999_ns / 1e3, (double)s.op[op].max_ns / 1e3);
}

static int bench(const struct config *c, struct qz_disk *d, struct qz_error *err)
{
    struct thread t[QUEUES_MAX] = {0};
    pthread_t id[QUEUES_MAX];
    struct qz_disk_info info;
    double iops = 0;
    unsigned n;

    qz_disk_get_info(d, &info);
    if (info.size < c->block)
        return qz_fail(err, -EINVAL, "%s: smaller than one request", info.label);
    for (n = 0; n < c->queues; n++) {
        t[n] = (struct thread){.c = c, .d = d, .blocks = info.size / c->block, .random = n};
        t[n].next = t[n].blocks / c->queues * n;
        if (pthread_create(&id[n], NULL, thread_main, &t[n]))
            break;
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(id[i], NULL);
    for (unsigned i = 0; i < n; i++) {
        if (t[i].failed)
            return qz_fail(err, t[i].failed, "%s: %s", info.label, strerror(-t[i].failed));
        iops += (double)t[i].count * 1e9 / (double)t[i].ns;
    }
    print(c, iops, d);
    return n == c->queues ? 0 : qz_fail(err, -EAGAIN, "cannot start %u threads", n + 1);
}

int disk_bench(int argc, char **argv)
{
    struct config config = {.block = 4096, .depth = 32, .queues = 1, .seconds = 5};
    struct qz_error err = {0};
    struct qz_disk *d;
    QZ_AUTO_FREE char *text = NULL;
    int i = disk_parse(bench_options, argc, argv, &config, 1, 1), r, c;

    if (i < 0)
        return QZ_EXIT_USAGE;
    text = writes(&config) ? disk_text(argv[i], "stats") : disk_text_to_read(argv[i], "stats");
    if (!text)
        return QZ_EXIT_FAILED;
    disk_start_helpers();
    if (qz_disk_open(&d, text, &err) < 0)
        return disk_failed(&err);
    r = bench(&config, d, &err);
    c = qz_disk_close(d, r ? NULL : &err);
    return r < 0 || c < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

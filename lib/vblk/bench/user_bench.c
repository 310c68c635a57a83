/*
 * user_bench.c - requests a second and latency over vhost-user.
 *
 *     vblk_bench [--socket PATH | --null | --raw | --own] [--depth N] [--size BYTES] [--queues N]
 *                [--seconds S] [--op read|write] [--off BIT]... [--words]
 *
 * Without a socket it starts a server of its own: a qemu-storage-daemon with a null or a raw
 * export, or ours with a memory disk. One thread drives all queues and polls. --words prints
 * KEY=VALUE words for scripts.
 */
#include "../user/own_server.h"
#include "../user/qsd.h"

#include "../user/control.h"
#include <getopt.h>
#include <linux/perf_event.h>

#include <sys/syscall.h>

struct options {
    const char *socket, *config, *control;
    uint64_t image, off;
    unsigned depth, size, queues;
    double seconds;
    bool write, own, words;
};

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"socket", 1, 0, 's'}, {"null", 0, 0, 'n'},   {"raw", 0, 0, 'r'},     {"depth", 1, 0, 'd'},
        {"size", 1, 0, 'z'},   {"queues", 1, 0, 'q'}, {"seconds", 1, 0, 't'}, {"op", 1, 0, 'o'},
        {"off", 1, 0, 'f'},    {"config", 1, 0, 'c'}, {"control", 1, 0, 'k'}, {"own", 0, 0, 'w'},
        {"words", 0, 0, 'W'},  {0, 0, 0, 0},
    };
    int c;

    *o = (struct options){.depth = 32, .size = 4096, .queues = 1, .seconds = 2};
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's':
            o->socket = optarg;
            break;
        case 'n':
            o->image = 0;
            break;
        case 'r':
            o->image = 1 << 30;
            break;
        case 'd':
            o->depth = (unsigned)atoi(optarg);
            break;
        case 'z':
            o->size = (unsigned)atoi(optarg);
            break;
        case 'q':
            o->queues = (unsigned)atoi(optarg);
            break;
        case 't':
            o->seconds = atof(optarg);
            break;
        case 'o':
            o->write = optarg[0] == 'w';
            break;
        case 'f':
            o->off |= QZ_BIT((unsigned)atoi(optarg) & 63);
            break;
        case 'c':
            o->config = optarg;
            break;
        case 'k':
            o->control = optarg;
            break;
        case 'w':
            o->own = true;
            break;
        case 'W':
            o->words = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc && o->depth >= 1 && o->depth <= VBLK_DEPTH_MAX / 2 && o->queues >= 1 &&
           o->queues <= 16 && o->size >= 512 && o->size % 512 == 0;
}

/* Where others use the processors too, a slice that only one in twenty exceeds shows what was
 * possible without them. */
enum { SLICE_NS = 2000000, SLICES_MAX = 32768 };

struct run {
    struct vblk_request requests[16][VBLK_DEPTH_MAX / 2];
    uint64_t rng, ended, blocks;
    int64_t slice_began;
    uint64_t slice_ended; /* requests that had ended by then */
    unsigned slices;
    double slice_iops[SLICES_MAX];
};

static void slice(struct run *r, int64_t now)
{
    double iops = (double)(r->ended - r->slice_ended) * 1e9 / (double)(now - r->slice_began);

    if (now - r->slice_began < SLICE_NS)
        return;
    if (r->slices < SLICES_MAX)
        r->slice_iops[r->slices++] = iops;
    r->slice_began = now;
    r->slice_ended = r->ended;
}

static uint64_t next_block(struct run *r)
{
    r->rng ^= r->rng << 13;
    r->rng ^= r->rng >> 7;
    r->rng ^= r->rng << 17;
    return r->rng % r->blocks;
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static int instructions_fd(void)
{
    struct perf_event_attr a = {.type = PERF_TYPE_HARDWARE,
                                .size = sizeof(a),
                                .config = PERF_COUNT_HW_INSTRUCTIONS,
                                .exclude_kernel = 1};

    return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static int drive(struct vblk_session *s, struct vblk_control *control, const struct options *o,
                 struct run *r)
{
    struct vblk_request *batch[VBLK_DEPTH_MAX];
    int64_t now = qz_now_ns(), until = now + (int64_t)(o->seconds * 1e9);
    uint64_t rounds = 0;

    r->slice_began = now;

    for (unsigned k = 0; k < o->queues; k++) {
        for (unsigned i = 0; i < o->depth; i++)
            batch[i] = &r->requests[k][i];
        session_submit(s, k, batch, o->depth);
    }
    while (now < until) {
        if (++rounds % 64 == 0)
            slice(r, now = qz_now_ns());
        if (control && rounds % 64 == 0 && control_step(control))
            return 0;
        for (unsigned k = 0; k < o->queues; k++) {
            int n = session_poll(s, k, batch, VBLK_DEPTH_MAX), again = 0;

            if (n <= 0) {
                if (n < 0)
                    return n;
                cpu_relax();
                continue;
            }
            for (int i = 0; i < n; i++) {
                if (control_owns(control, batch[i]))
                    continue;
                if (batch[i]->status)
                    return batch[i]->status;
                batch[i]->sector = next_block(r) * (o->size / 512);
                batch[again++] = batch[i];
            }
            r->ended += (uint64_t)again;
            if (session_submit(s, k, batch, (unsigned)again) != again)
                return -EIO;
        }
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double undisturbed(struct run *r)
{
    qsort(r->slice_iops, r->slices, sizeof(r->slice_iops[0]), by_value);
    return r->slices ? r->slice_iops[r->slices * 19 / 20] : 0;
}

/* What a run came to; latencies in nanoseconds. */
struct result {
    bool packed;
    double iops, undisturbed, us, gbps, batch, doorbells, instructions;
    uint64_t p50, p99, p999;
};

static struct result result_of(struct vblk_session *v, const struct options *o, struct run *r,
                               double seconds, uint64_t instructions)
{
    struct vblk_info info;
    struct vblk_stats s;

    qz_vblk_get_info(v->dev, &info);
    qz_vblk_get_stats(qz_vblk_queue(v->dev, 0), &s);
    return (struct result){.packed = info.features & VBLK_BIT(VBLK_F_RING_PACKED),
                           .iops = (double)r->ended / seconds,
                           .undisturbed = undisturbed(r),
                           .us = seconds * 1e6 / (double)r->ended,
                           .gbps = (double)r->ended * o->size / seconds / 1e9,
                           .batch = (double)s.requests / (double)s.batches,
                           .doorbells = (double)s.doorbells / (double)s.requests,
                           .instructions = (double)instructions / (double)r->ended,
                           .p50 = qz_vblk_latency(&s, 500),
                           .p99 = qz_vblk_latency(&s, 990),
                           .p999 = qz_vblk_latency(&s, 999)};
}

static void report(const struct options *o, const struct result *r)
{
    if (o->words) {
        printf(
            "format=%s iops=%.0f undisturbed_iops=%.0f us=%.3f gbps=%.3f batch=%.1f doorbells=%.4f "
            "p50_ns=%llu "
            "p99_ns=%llu p999_ns=%llu\n",
            r->packed ? "packed" : "split", r->iops, r->undisturbed, r->us, r->gbps, r->batch,
            r->doorbells, (unsigned long long)r->p50, (unsigned long long)r->p99,
            (unsigned long long)r->p999);
        return;
    }
    printf("%s %s depth %u size %u queues %u: %.0f IOPS (undisturbed: %.0f), %.2f us each, %.2f "
           "GB/s, %.1f a batch, "
           "%.3f doorbells a request, latency p50 %.1f p99 %.1f p99.9 %.1f us",
           r->packed ? "packed" : "split", o->write ? "write" : "read", o->depth, o->size,
           o->queues, r->iops, r->undisturbed, r->us, r->gbps, r->batch, r->doorbells,
           (double)r->p50 / 1e3, (double)r->p99 / 1e3, (double)r->p999 / 1e3);
    if (r->instructions > 0)
        printf(", %.0f instructions a request, polling included", r->instructions);
    printf("\n");
}

static void prepare(struct vblk_session *s, const struct options *o, struct run *r)
{
    struct vblk_info info;

    qz_vblk_get_info(s->dev, &info);
    r->rng = 88172645463325252;
    r->blocks = info.sectors / (o->size / 512);
    for (unsigned k = 0; k < o->queues; k++)
        for (unsigned i = 0; i < o->depth; i++)
            r->requests[k][i] = (struct vblk_request){
                .op = o->write ? VBLK_OP_WRITE : VBLK_OP_READ,
                .count = 1,
                .sector = next_block(r) * (o->size / 512),
                .segment = {qz_vblk_user_alloc(s->user, o->size, 4096), o->size}};
}

/* Every block written once: a disk in memory then has all of its memory. */
static int fill(struct vblk_session *s)
{
    enum { PIECE = 1 << 20 };
    void *data = qz_vblk_user_alloc(s->user, PIECE, 4096);
    struct vblk_info info;
    int rc = data ? 0 : -ENOMEM;

    qz_vblk_get_info(s->dev, &info);
    for (uint64_t at = 0; rc == 0 && at + PIECE / 512 <= info.sectors; at += PIECE / 512) {
        struct vblk_request q = {
            .op = VBLK_OP_WRITE, .count = 1, .sector = at, .segment = {data, PIECE}};
        struct vblk_request *p = &q;
        int n = session_submit(s, 0, &p, 1) == 1 ? 0 : q.status;

        while (n == 0)
            n = session_poll(s, 0, &p, 1);
        rc = n < 0 ? n : q.status;
    }
    if (data)
        qz_vblk_user_free(s->user, data, PIECE);
    qz_vblk_clear_stats(qz_vblk_queue(s->dev, 0));
    return rc;
}

/* What the options say about the settings; a file has the last word on everything else. */
static int settings_of(const struct options *o, struct vblk_settings *s, struct qz_error *err)
{
    uint64_t data = (uint64_t)o->queues * o->depth * QZ_ALIGN_UP(o->size, 4096u);
    int rc = 0;

    settings_default(s);
    s->shared_memory_size = data + (64 << 20);
    s->queue_depth = QZ_MIN(QZ_MAX(4 * o->depth, 128u), (unsigned)VBLK_DEPTH_MAX);
    if (o->config)
        rc = settings_load(o->config, s, err);
    s->queue_count = o->queues;
    return rc;
}

static int bench(const struct options *o, struct qz_error *err)
{
    QZ_AUTO_FREE struct run *r = calloc(1, sizeof(*r));
    QZ_AUTO_FD int fd = instructions_fd();
    struct vblk_control *control = NULL;
    struct vblk_settings settings;
    struct vblk_session s;
    uint64_t instructions = 0;
    int64_t begin;
    int rc = settings_of(o, &settings, err);

    if (rc == 0)
        rc = session_open(&s, o->socket, &settings, err);
    if (rc < 0)
        return rc;
    if (o->control)
        rc = control_open(&control, o->control, &s, err);
    for (unsigned bit = 0; rc == 0 && bit < 64; bit++)
        if (o->off >> bit & 1 && qz_vblk_set_feature(s.dev, bit, false) < 0)
            rc = qz_fail(err, -EIO, "%s: feature %u cannot be off", o->socket, bit);
    if (rc == 0 && o->own && fill(&s) < 0)
        rc = qz_fail(err, -EIO, "%s: the disk cannot be written", o->socket);
    if (rc == 0) {
        prepare(&s, o, r);
        begin = qz_now_ns();
        rc = drive(&s, control, o, r);
        if (read(fd, &instructions, sizeof(instructions)) != sizeof(instructions))
            instructions = 0;
        if (rc == 0) {
            struct result figures =
                result_of(&s, o, r, (double)(qz_now_ns() - begin) / 1e9, instructions);

            report(o, &figures);
        } else
            qz_fail(err, rc, "%s: a request failed: %s", o->socket, strerror(-rc));
    }
    control_close(control);
    session_close(&s);
    return rc;
}

static int with_own_server(struct options *o, struct qz_error *err)
{
    struct own_server server;
    int rc = own_server_start(&server, 0, o->queues, "", err);

    o->socket = server.socket;
    if (rc == 0)
        rc = bench(o, err);
    own_server_end(&server);
    return rc;
}

static int with_qsd(struct options *o, struct qz_error *err)
{
    struct qsd qsd;
    int rc = qsd_start(&qsd, o->image, o->queues, err);

    o->socket = qsd.socket;
    if (rc == 0)
        rc = bench(o, err);
    qsd_end(&qsd);
    return rc;
}

int main(int argc, char **argv)
{
    struct qz_error err = {0};
    struct options o;
    int rc;

    if (!parse(argc, argv, &o)) {
        fprintf(stderr,
                "usage: vblk_bench [--socket PATH | --null | --raw | --own] [--depth N] "
                "[--size BYTES] [--queues N]\n                  [--seconds S] [--op read|write] "
                "[--off FEATURE-BIT]... [--words] [--config FILE] [--control PATH]\n");
        return 2;
    }
    rc = o.socket ? bench(&o, &err) : o.own ? with_own_server(&o, &err) : with_qsd(&o, &err);
    if (rc < 0)
        fprintf(stderr, "vblk_bench: %s\n", err.text);
    return rc < 0;
}

/*
 * user_bench.c - requests a second and latency over vhost-user.
 *
 *     vblk_bench [--socket PATH | --null | --raw] [--depth N] [--size BYTES] [--queues N]
 * [--seconds S]
 *                [--op read|write] [--off BIT]...
 *
 * Without a socket it starts a qemu-storage-daemon of its own. One thread drives all queues and
 * polls.
 */
#include "../user/qsd.h"

#include <getopt.h>
#include <linux/perf_event.h>
#include <queztl/vblk_user.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

struct options {
    const char *socket;
    uint64_t image, off;
    unsigned depth, size, queues;
    double seconds;
    bool write, latency;
};

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"socket", 1, 0, 's'}, {"null", 0, 0, 'n'},    {"raw", 0, 0, 'r'},     {"depth", 1, 0, 'd'},
        {"size", 1, 0, 'z'},   {"queues", 1, 0, 'q'},  {"seconds", 1, 0, 't'}, {"op", 1, 0, 'o'},
        {"off", 1, 0, 'f'},    {"latency", 0, 0, 'l'}, {0, 0, 0, 0},
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
        case 'l':
            o->latency = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc && o->depth >= 1 && o->depth <= VBLK_DEPTH_MAX / 2 && o->queues >= 1 &&
           o->queues <= 16 && o->size >= 512 && o->size % 512 == 0;
}

struct run {
    struct vblk_request requests[16][VBLK_DEPTH_MAX / 2];
    uint64_t rng, ended, blocks;
};

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

static int drive(struct vblk_device *dev, const struct options *o, struct run *r)
{
    struct vblk_request *batch[VBLK_DEPTH_MAX];
    int64_t until = qz_now_ns() + (int64_t)(o->seconds * 1e9);
    uint64_t rounds = 0;
    struct vblk_info info;

    qz_vblk_get_info(dev, &info);
    for (unsigned k = 0; k < info.queues; k++) {
        for (unsigned i = 0; i < o->depth; i++)
            batch[i] = &r->requests[k][i];
        qz_vblk_submit(qz_vblk_queue(dev, k), batch, o->depth);
    }
    while (++rounds % 1024 || qz_now_ns() < until) {
        for (unsigned k = 0; k < info.queues; k++) {
            struct vblk_queue *q = qz_vblk_queue(dev, k);
            int n = qz_vblk_poll(q, batch, VBLK_DEPTH_MAX);

            if (n <= 0) {
                if (n < 0)
                    return n;
                cpu_relax();
                continue;
            }
            for (int i = 0; i < n; i++) {
                if (batch[i]->status)
                    return batch[i]->status;
                batch[i]->sector = next_block(r) * (o->size / 512);
            }
            r->ended += (uint64_t)n;
            if (qz_vblk_submit(q, batch, (unsigned)n) != n)
                return -EIO;
        }
    }
    return 0;
}

static void report(struct vblk_device *dev, const struct options *o, const struct run *r,
                   double seconds, uint64_t instructions)
{
    struct vblk_info info;
    struct vblk_stats s;

    qz_vblk_get_info(dev, &info);
    qz_vblk_get_stats(qz_vblk_queue(dev, 0), &s);
    printf("%s %s depth %u size %u queues %u: %.0f IOPS, %.2f us each, %.2f GB/s, %.1f a batch, "
           "%.3f doorbells a request",
           info.features & VBLK_BIT(VBLK_F_RING_PACKED) ? "packed" : "split",
           o->write ? "write" : "read", o->depth, o->size, info.queues, r->ended / seconds,
           seconds * 1e6 / r->ended, (double)r->ended * o->size / seconds / 1e9,
           (double)s.requests / s.batches, (double)s.doorbells / s.requests);
    if (instructions)
        printf(", %.0f instructions a request, polling included", (double)instructions / r->ended);
    if (o->latency)
        printf(", latency p50 %.1f p99 %.1f p99.9 %.1f us", qz_vblk_latency(&s, 500) / 1e3,
               qz_vblk_latency(&s, 990) / 1e3, qz_vblk_latency(&s, 999) / 1e3);
    printf("\n");
}

static int bench(const struct options *o, struct qz_error *err)
{
    uint64_t data = (uint64_t)o->queues * o->depth * QZ_ALIGN_UP(o->size, 4096u);
    struct vblk_user_options uo = {.path = o->socket, .memory = data + (64 << 20)};
    QZ_AUTO_FREE struct run *r = calloc(1, sizeof(*r));
    QZ_AUTO_FREE void *memory = NULL;
    struct vblk_device *dev = NULL;
    struct vblk_user *user = NULL;
    struct vblk_config c;
    struct vblk_info info;
    uint64_t instructions = 0;
    int rc, fd = instructions_fd();
    int64_t begin;

    qz_vblk_config_default(&c);
    c.queue_count = o->queues;
    c.queue_depth = QZ_MAX(4 * o->depth, 128u);
    if (c.queue_depth > VBLK_DEPTH_MAX)
        c.queue_depth = VBLK_DEPTH_MAX;
    c.latency = o->latency;
    c.features_off = o->off;
    rc = qz_vblk_user_open(&uo, &user, err);
    if (rc < 0)
        return rc;
    memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    rc = qz_vblk_create(memory, qz_vblk_memory_size(&c), qz_vblk_user_transport(user), &c, &dev);
    if (rc == 0)
        rc = qz_vblk_start(dev);
    if (rc < 0)
        return qz_fail(err, rc, "%s: the driver does not start", o->socket);
    qz_vblk_get_info(dev, &info);
    r->rng = 88172645463325252;
    r->blocks = info.sectors / (o->size / 512);
    for (unsigned k = 0; k < o->queues; k++)
        for (unsigned i = 0; i < o->depth; i++)
            r->requests[k][i] = (struct vblk_request){
                .op = o->write ? VBLK_OP_WRITE : VBLK_OP_READ,
                .count = 1,
                .sector = next_block(r) * (o->size / 512),
                .segment = {qz_vblk_user_alloc(user, o->size, 4096), o->size}};
    begin = qz_now_ns();
    ioctl(fd, PERF_EVENT_IOC_RESET, 0);
    rc = drive(dev, o, r);
    if (read(fd, &instructions, sizeof(instructions)) != sizeof(instructions))
        instructions = 0;
    if (rc == 0)
        report(dev, o, r, (double)(qz_now_ns() - begin) / 1e9, instructions);
    else
        qz_fail(err, rc, "%s: a request failed: %s", o->socket, strerror(-rc));
    qz_vblk_stop(dev);
    qz_vblk_user_close(user);
    if (fd >= 0)
        close(fd);
    return rc;
}

int main(int argc, char **argv)
{
    struct qz_error err = {0};
    struct options o;
    struct qsd qsd = {0};
    int rc = 0;

    if (!parse(argc, argv, &o)) {
        fprintf(stderr,
                "usage: vblk_bench [--socket PATH | --null | --raw] [--depth N] [--size BYTES] "
                "[--queues N]\n                  [--seconds S] [--op read|write] [--latency] "
                "[--off FEATURE-BIT]...\n");
        return 2;
    }
    if (!o.socket) {
        rc = qsd_start(&qsd, o.image, o.queues, &err);
        o.socket = qsd.socket;
    }
    if (rc == 0)
        rc = bench(&o, &err);
    if (rc < 0)
        fprintf(stderr, "vblk_bench: %s\n", err.text);
    if (qsd.dir[0])
        qsd_end(&qsd);
    return rc < 0;
}

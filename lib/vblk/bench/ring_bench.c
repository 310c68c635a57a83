/*
 * ring_bench.c - what submitting and completing a request costs the driver itself, without a
 * device.
 *
 *     vblk_ring_bench [DEPTH]
 *
 * The "device" only marks each published request used, between the timed parts, so that the figure
 * is the driver's alone: the time of submit and poll, in batches of DEPTH. Instructions are counted
 * by single steps of one more batch in a child, since few virtual machines let a process count
 * them.
 */
#include "internal.h"

#include "step.h"

enum { ROUNDS = 20000 };

struct figures {
    double median, least; /* nanoseconds a request */
    double instructions;  /* 0: cannot be counted here */
};

static void *bench_alloc(void *ctx, size_t size, size_t align, uint64_t *addr)
{
    void *p = aligned_alloc(align, QZ_ALIGN_UP(size, align));

    *addr = (uintptr_t)p;
    return memset(p, 0, size);
}

static void bench_free(void *ctx, void *memory, size_t size, uint64_t addr)
{
    free(memory);
}

static uint64_t bench_now(void *ctx)
{
    return (uint64_t)qz_now_ns();
}

static uint64_t offered;

static uint64_t get_features(struct vblk_transport *t)
{
    return offered | VBLK_BIT(VBLK_F_VERSION_1) | VBLK_BIT(VBLK_F_INDIRECT_DESC);
}
static int set_features(struct vblk_transport *t, uint64_t features)
{
    return 0;
}
static uint8_t status_now;
static uint8_t get_status(struct vblk_transport *t)
{
    return status_now;
}
static int set_status(struct vblk_transport *t, uint8_t status)
{
    status_now = status;
    return 0;
}
static int config_get(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    struct virtio_blk_config c = {.capacity = le64(1 << 30)};

    memcpy(to, (const uint8_t *)&c + offset, len);
    return 0;
}
static uint32_t generation(struct vblk_transport *t)
{
    return 0;
}
static unsigned depth_max(struct vblk_transport *t, unsigned queue)
{
    return VBLK_DEPTH_MAX;
}
static int enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                  const struct vblk_ring_addresses *a, bool interrupts)
{
    return 0;
}
static void notify(struct vblk_transport *t, unsigned queue, uint32_t data) {}

static const struct vblk_transport_ops ops = {.name = "none",
                                              .get_features = get_features,
                                              .set_features = set_features,
                                              .get_status = get_status,
                                              .set_status = set_status,
                                              .config_read = config_get,
                                              .config_generation = generation,
                                              .queue_depth_max = depth_max,
                                              .queue_enable = enable,
                                              .notify = notify};

/* Uses everything that is available, in order, successfully. */
static void device_turn(struct vblk_queue *q, uint16_t *at, bool *wrap)
{
    for (unsigned i = 0; i < q->size; i++)
        q->statuses[i] = BLK_S_OK;
    if (!q->packed) {
        for (; *at != q->split.avail_next; ++*at)
            q->split.used->ring[*at & q->mask] =
                (struct vring_used_elem){le32(le16(q->split.avail->ring[*at & q->mask])), le32(1)};
        __atomic_store_n(&q->split.used->idx, le16(*at), __ATOMIC_RELEASE);
        return;
    }
    for (unsigned n = q->in_flight; n; n--) {
        struct packed_desc *d = &q->ring.desc[*at];

        d->len = le32(1);
        __atomic_store_n(&d->flags, le16(*wrap ? PACKED_AVAIL | PACKED_USED : 0), __ATOMIC_RELEASE);
        if (++*at == q->size) {
            *at = 0;
            *wrap = !*wrap;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* One batch in and out again, for the counting of its instructions. */
struct batch {
    struct vblk_queue *q;
    struct vblk_request **in, **out;
    unsigned n;
};

static void submit_batch(void *arg)
{
    struct batch *b = arg;

    qz_vblk_submit(b->q, b->in, b->n);
}

static void poll_batch(void *arg)
{
    struct batch *b = arg;

    qz_vblk_poll(b->q, b->out, b->n);
}

static struct figures measure(bool packed, unsigned depth)
{
    struct vblk_platform p = {
        .dma_alloc = bench_alloc, .dma_free = bench_free, .now_ns = bench_now};
    struct vblk_transport t = {&ops, &p};
    struct vblk_request requests[VBLK_DEPTH_MAX], *batch[VBLK_DEPTH_MAX], *done[VBLK_DEPTH_MAX];
    struct vblk_device *dev;
    struct vblk_queue *q;
    struct vblk_config c;
    uint16_t at = 0;
    bool wrap = true;
    static int64_t spent[ROUNDS];
    struct batch b = {NULL, batch, done, depth};
    uint64_t steps;
    void *memory;

    offered = packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0;
    qz_vblk_config_default(&c);
    c.queue_depth = depth;
    memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    if (!memory || qz_vblk_create(memory, qz_vblk_memory_size(&c), &t, &c, &dev) < 0 ||
        qz_vblk_start(dev) < 0)
        exit(1);
    q = b.q = qz_vblk_queue(dev, 0);
    for (unsigned i = 0; i < depth; i++) {
        requests[i] = (struct vblk_request){
            .op = i & 1, .count = 1, .sector = i * 8, .segment = {&requests, 4096}};
        batch[i] = &requests[i];
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t begin = qz_now_ns();

        qz_vblk_submit(q, batch, depth);
        spent[round] = qz_now_ns() - begin;
        device_turn(q, &at, &wrap);
        begin = qz_now_ns();
        if (qz_vblk_poll(q, done, depth) != (int)depth)
            abort();
        spent[round] += qz_now_ns() - begin;
    }
    qsort(spent, ROUNDS, sizeof(spent[0]), by_value);
    steps = count_steps(submit_batch, &b);
    qz_vblk_submit(q, batch, depth);
    device_turn(q, &at, &wrap);
    steps += count_steps(poll_batch, &b);
    qz_vblk_stop(dev);
    free(memory);
    return (struct figures){(double)spent[ROUNDS / 2] / depth, (double)spent[0] / depth,
                            (double)steps / depth};
}

int main(int argc, char **argv)
{
    unsigned depth = argc > 1 ? (unsigned)atoi(argv[1]) : 128;

    if (depth < 4 || depth > VBLK_DEPTH_MAX || depth & (depth - 1)) {
        fprintf(stderr, "usage: %s [DEPTH]   DEPTH: a power of two, 4 to %d\n", argv[0],
                VBLK_DEPTH_MAX);
        return 2;
    }
    for (unsigned packed = 0; packed < 2; packed++) {
        struct figures f = measure(packed, depth);

        printf("depth %u %s: median %.1f ns, least %.1f ns, %.0f instructions a request\n", depth,
               packed ? "packed" : "split", f.median, f.least, f.instructions);
    }
    return 0;
}

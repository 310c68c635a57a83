/*
 * driver_fuzz.c - the driver against a device that does whatever the input says.
 *
 * Every register that the driver reads, and every byte of memory that the device can write, comes
 * from the input: features, limits, used entries, indices, flags, status bytes. Memory for the
 * device is allocated piece by piece so that AddressSanitizer sees a step outside. What must hold
 * is checked: a request ends once, only after it was submitted, and at the latest when the driver
 * stops.
 */
#include "request.h"

#include <queztl/base.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REQUESTS = 48, STEPS = 300, BLOCKS = 64, DATA = 2048, QUEUES = 3 };

struct fuzz {
    struct vblk_transport t;
    struct vblk_platform p;
    const uint8_t *in;
    size_t left;
    uint64_t clock, features, rng;
    uint8_t status;
    bool unreset; /* a reset failed: memory may stay with the device */
    struct {
        uint8_t *at;
        size_t size;
    } blocks[BLOCKS];
    struct vblk_request requests[REQUESTS];
    struct vblk_segment segments[REQUESTS][4];
    struct vblk_range ranges[REQUESTS][3];
    bool out[REQUESTS]; /* with the driver */
    uint8_t *data;
};

static uint8_t byte(struct fuzz *f)
{
    if (f->left) {
        f->left--;
        f->rng = (f->rng ^ *f->in) * 0x100000001b3ull;
        return *f->in++;
    }
    /* Behind the input a generator goes on, seeded by all of it: short inputs reach deep states
     * too. */
    f->rng = f->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint8_t)(f->rng >> 56);
}

static uint64_t word(struct fuzz *f)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | byte(f);
    return v;
}

static struct fuzz *of(struct vblk_transport *t)
{
    return QZ_CONTAINER_OF(t, struct fuzz, t);
}

static void *fuzz_alloc(void *ctx, size_t size, size_t align, uint64_t *addr)
{
    struct fuzz *f = ctx;

    for (unsigned i = 0; i < BLOCKS; i++) {
        if (f->blocks[i].at)
            continue;
        /* Not rounded up: the first byte behind belongs to nobody. */
        if (posix_memalign((void **)&f->blocks[i].at, align, size))
            return NULL;
        f->blocks[i].size = size;
        *addr = (uintptr_t)f->blocks[i].at;
        return memset(f->blocks[i].at, 0, size);
    }
    return NULL;
}

static void fuzz_free(void *ctx, void *memory, size_t size, uint64_t addr)
{
    struct fuzz *f = ctx;

    for (unsigned i = 0; i < BLOCKS; i++)
        if (f->blocks[i].at == memory && f->blocks[i].size == size) {
            free(memory);
            f->blocks[i].at = NULL;
            return;
        }
    abort();
}

static uint64_t fuzz_now(void *ctx)
{
    return ((struct fuzz *)ctx)->clock += 50;
}

static void fuzz_barrier(void *ctx, enum vblk_barrier kind) {}

static uint64_t get_features(struct vblk_transport *t)
{
    return of(t)->features = (word(of(t)) & ~VBLK_BIT(VBLK_F_RO)) | VBLK_BIT(VBLK_F_VERSION_1);
}
static int set_features(struct vblk_transport *t, uint64_t features)
{
    return 0;
}
static uint8_t get_status(struct vblk_transport *t)
{
    struct fuzz *f = of(t);

    return f->status | (f->status && byte(f) > 250 ? STATUS_NEEDS_RESET : 0);
}
static int set_status(struct vblk_transport *t, uint8_t status)
{
    struct fuzz *f = of(t);

    if (byte(f) > 250) {
        f->unreset |= status == 0;
        return -VBLK_EIO;
    }
    f->status = status;
    return 0;
}
static int config_get(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    /* Mostly a possible device, so that the run goes on; now and then any bytes at all. */
    struct virtio_blk_config c = {.capacity = le64(200),
                                  .seg_max = le32(byte(of(t))),
                                  .blk_size = le32(512),
                                  .num_queues = le16(byte(of(t)) % 5),
                                  .max_discard_sectors = le32(byte(of(t))),
                                  .max_discard_seg = le32(byte(of(t))),
                                  .max_write_zeroes_seg = le32(byte(of(t))),
                                  .max_secure_erase_seg = le32(1)};
    uint8_t *bytes = (uint8_t *)&c;

    for (uint8_t n = byte(of(t)) % 4; n; n--)
        bytes[byte(of(t)) % sizeof(c)] = byte(of(t)) & byte(of(t));
    memcpy(to, bytes + offset, len);
    return 0;
}
static int config_set(struct vblk_transport *t, unsigned offset, const void *from, unsigned len)
{
    return 0;
}
static uint32_t generation(struct vblk_transport *t)
{
    return byte(of(t)) > 200;
}
static unsigned depth_max(struct vblk_transport *t, unsigned queue)
{
    return byte(of(t)) << 1;
}
static int enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                  const struct vblk_ring_addresses *a, bool interrupts)
{
    return byte(of(t)) > 250 ? -VBLK_EIO : 0;
}
static int reset_queue(struct vblk_transport *t, unsigned queue)
{
    return byte(of(t)) > 200 ? -VBLK_ETIMEDOUT : 0;
}
static void notify(struct vblk_transport *t, unsigned queue, uint32_t data) {}

static const struct vblk_transport_ops ops = {.name = "fuzz",
                                              .get_features = get_features,
                                              .set_features = set_features,
                                              .get_status = get_status,
                                              .set_status = set_status,
                                              .config_read = config_get,
                                              .config_write = config_set,
                                              .config_generation = generation,
                                              .queue_depth_max = depth_max,
                                              .queue_enable = enable,
                                              .queue_reset = reset_queue,
                                              .notify = notify};

/* The device writes anywhere in its memory, often where it counts: the ring's used part. */
static void scribble(struct fuzz *f, struct vblk_queue *q)
{
    uint8_t n = byte(f) % 16;

    for (unsigned i = 0; i < n; i++) {
        unsigned b = byte(f) % BLOCKS;
        uint64_t v = word(f);

        if (f->blocks[b].at && f->blocks[b].size > 8)
            memcpy(f->blocks[b].at + v % (f->blocks[b].size - 8), &v, 1 + v % 8);
    }
    if (q->dma && q->packed) {
        struct packed_desc *d = &q->ring.desc[q->ring.used_next];

        d->id = byte(f);
        d->len = le32(byte(f) % 2 ? byte(f) : (uint32_t)word(f));
        d->flags = le16(byte(f) % 4 ? (q->ring.used_wrap ? 0x8080 : 0) : (uint16_t)word(f));
    } else if (q->dma) {
        struct vring_used_elem *e = &q->split.used->ring[byte(f) % q->size];

        e->id = le32(byte(f));
        e->len = le32(byte(f) % 2 ? 1 : (uint32_t)word(f));
        q->split.used->idx =
            le16(byte(f) % 8 ? q->split.used_next + byte(f) % 4 : (uint16_t)word(f));
    }
    if (q->dma && q->statuses)
        memset(q->statuses, byte(f) % 4, q->size);
}

static void prepare(struct fuzz *f, unsigned i)
{
    static const uint8_t ops_known[] = {0, 1, 4, 8, 10, 11, 13, 14, 15, 16, 18, 20, 22, 24, 26, 3};
    struct vblk_request *r = &f->requests[i];
    uint8_t kind = byte(f);

    *r = (struct vblk_request){.op = ops_known[kind % sizeof(ops_known)],
                               .priority = byte(f) % (VBLK_PRIO_COUNT + 1),
                               .sector = byte(f),
                               .count = byte(f) % 5,
                               .deadline_ns = byte(f) % 3 ? 0 : f->clock + byte(f)};
    for (unsigned k = 0; k < 4; k++)
        f->segments[i][k] = (struct vblk_segment){f->data + 512 * k, kind & 16 ? byte(f) : 512};
    for (unsigned k = 0; k < 3; k++)
        f->ranges[i][k] = (struct vblk_range){byte(f), byte(f) % 8, byte(f) & 1};
    if (data_kind(r->op) == DATA_RANGES) {
        r->count %= 4;
        r->ranges = f->ranges[i];
    } else if (r->count == 1) {
        r->segment = f->segments[i][0];
        r->segment.len = r->op == VBLK_OP_GET_ID         ? VBLK_ID_BYTES
                         : r->op == VBLK_OP_GET_LIFETIME ? 8
                                                         : r->segment.len;
    } else {
        r->segments = f->segments[i];
    }
}

static void submit(struct fuzz *f, struct vblk_queue *q)
{
    struct vblk_request *batch[REQUESTS];
    unsigned n = 0, most = 1 + byte(f) % 8;
    int rc;

    for (unsigned i = 0; i < REQUESTS && n < most; i++) {
        if (f->out[i])
            continue;
        prepare(f, i);
        batch[n++] = &f->requests[i];
    }
    rc = qz_vblk_submit(q, batch, n);
    for (int i = 0; i < rc; i++)
        f->out[batch[i] - f->requests] = true;
}

static int collect(struct fuzz *f, struct vblk_queue *q)
{
    struct vblk_request *done[8];
    int n = qz_vblk_poll(q, done, 8);

    for (int i = 0; i < n; i++) {
        size_t at = (size_t)(done[i] - f->requests);

        if (at >= REQUESTS || !f->out[at] || done[i]->status > 0)
            abort(); /* ended twice, or never submitted, or still pending */
        f->out[at] = false;
    }
    return n;
}

static void step(struct fuzz *f, struct vblk_device *dev)
{
    struct vblk_queue *q = qz_vblk_queue(dev, byte(f) % QUEUES);

    switch (byte(f) % 12) {
    case 0:
        if (qz_vblk_needs_recovery(dev))
            qz_vblk_recover(dev);
        break;
    case 1:
        qz_vblk_queue_recover(q);
        break;
    case 2:
        qz_vblk_reread_config(dev);
        break;
    case 3:
        qz_vblk_expire(q);
        break;
    case 4:
        qz_vblk_arm(q, NULL);
        break;
    case 5:
        qz_vblk_set_writeback(dev, byte(f) & 1);
        break;
    case 6:
    case 7:
    case 8:
        submit(f, q);
        break;
    default:
        scribble(f, q);
        collect(f, q);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz *f = calloc(1, sizeof(*f));
    struct vblk_device *dev;
    struct vblk_config c;
    void *memory;
    uint8_t how;

    f->in = data;
    f->left = size;
    f->data = malloc(DATA);
    f->p = (struct vblk_platform){.ctx = f,
                                  .dma_alloc = fuzz_alloc,
                                  .dma_free = fuzz_free,
                                  .barrier = fuzz_barrier,
                                  .now_ns = fuzz_now};
    f->t = (struct vblk_transport){&ops, &f->p};
    how = byte(f);
    qz_vblk_config_default(&c);
    c.queue_count = QUEUES;
    c.queue_depth = 4 << how % 4;
    c.segments_max = 1 + how % 7;
    c.zero_copy = how & 16;
    c.bounce_bytes = 2048;
    c.latency = how & 32;
    c.batch = how & 64;
    c.interrupts = true;
    c.scheduler = how % 3;
    c.recovery = how >> 7;
    memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    if (qz_vblk_create(memory, qz_vblk_memory_size(&c), &f->t, &c, &dev) < 0)
        abort();
    if (qz_vblk_start(dev) == 0) {
        for (unsigned i = 0; i < STEPS; i++)
            step(f, dev);
        qz_vblk_stop(dev);
    }
    for (unsigned k = 0; k < QUEUES; k++)
        while (collect(f, qz_vblk_queue(dev, k)) > 0)
            continue;
    for (unsigned i = 0; i < REQUESTS; i++)
        if (f->out[i])
            abort(); /* lost */
    for (unsigned i = 0; i < BLOCKS; i++)
        if (f->blocks[i].at) {
            if (!f->unreset)
                abort(); /* memory left behind */
            free(f->blocks[i].at);
        }
    free(memory);
    free(f->data);
    free(f);
    return 0;
}

/*
 * queue_memory.c - what a queue consists of: private memory once, device memory for each shape.
 */
#include "queue.h"

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static size_t pieces_size(const struct vblk_config *c)
{
    return align_up((c->segments_max + CHAIN_EXTRA) * sizeof(struct piece), CACHE_LINE);
}

size_t queue_private_size(const struct vblk_config *c)
{
    return align_up(c->queue_depth * sizeof(struct slot), CACHE_LINE) +
           align_up(c->queue_depth * sizeof(uint64_t), CACHE_LINE) + pieces_size(c);
}

void queue_init(struct vblk_queue *q, struct vblk_device *dev, unsigned index, void *memory)
{
    const struct vblk_config *c = &dev->config;
    uint8_t *at = memory;

    *q = (struct vblk_queue){.index = index, .dev = dev, .platform = dev->platform};
    q->slots = (void *)at;
    at += align_up(c->queue_depth * sizeof(struct slot), CACHE_LINE);
    q->started_ns = (void *)at;
    at += align_up(c->queue_depth * sizeof(uint64_t), CACHE_LINE);
    q->pieces = (void *)at;
    q->batch = c->batch;
    q->latency = c->latency;
}

/* Where things are in a queue's block of device memory; offsets in bytes. */
struct shape {
    size_t frames, statuses, extents, bounces, total;
    uint32_t extent_table, extent_stride;
};

static void shape_of(const struct vblk_queue *q, struct shape *s)
{
    const struct vblk_config *c = &q->dev->config;
    struct ring_layout ring;
    size_t ranges = c->ranges_max * sizeof(struct virtio_blk_range);
    size_t table = (q->dev->info.segments_max + CHAIN_EXTRA) * 16;

    ring_layout(q->packed, q->size, &ring);
    s->frames = align_up(ring.total, CACHE_LINE);
    s->statuses = s->frames + (size_t)q->size * sizeof(struct frame);
    s->extents = align_up(s->statuses + q->size, CACHE_LINE);
    s->extent_table = align_up(sizeof(struct tail) + ranges, 16);
    s->extent_stride = align_up(s->extent_table + (q->indirect ? table : 0), CACHE_LINE);
    s->bounces = align_up(s->extents + (size_t)q->size * s->extent_stride, PAGE);
    s->total = s->bounces + (c->zero_copy ? 0 : (size_t)q->size * c->bounce_bytes);
}

void queue_free_dma(struct vblk_queue *q)
{
    if (!q->dma)
        return;
    q->platform->dma_free(q->platform->ctx, q->dma, q->dma_size, q->dma_addr);
    q->dev->info.dma_bytes -= q->dma_size;
    q->dma = NULL;
}

static int dma_of_size(struct vblk_queue *q, size_t size)
{
    if (q->dma && q->dma_size == size) {
        __builtin_memset(q->dma, 0, size);
        return 0;
    }
    queue_free_dma(q);
    q->dma = q->platform->dma_alloc(q->platform->ctx, size, PAGE, &q->dma_addr);
    if (!q->dma) {
        note(q->platform, VBLK_LOG_ERROR, "vblk: no device memory for a queue (queue, bytes)",
             q->index, size);
        return -VBLK_ENOMEM;
    }
    q->dma_size = size;
    q->dev->info.dma_bytes += size;
    return 0;
}

int queue_build(struct vblk_queue *q, unsigned depth)
{
    uint64_t features = q->dev->info.features;
    const struct vblk_config *c = &q->dev->config;
    struct shape s;
    uint8_t *base;
    int rc;

    q->packed = features & VBLK_BIT(VBLK_F_RING_PACKED);
    q->indirect = features & VBLK_BIT(VBLK_F_INDIRECT_DESC);
    q->event_idx = features & VBLK_BIT(VBLK_F_EVENT_IDX);
    q->in_order = features & VBLK_BIT(VBLK_F_IN_ORDER);
    q->order_platform = features & VBLK_BIT(VBLK_F_ORDER_PLATFORM);
    q->notification_data = features & VBLK_BIT(VBLK_F_NOTIFICATION_DATA);
    q->fast = q->indirect && c->zero_copy;
    q->size = depth;
    shape_of(q, &s);
    rc = dma_of_size(q, s.total);
    if (rc < 0)
        return rc;
    base = q->dma;
    q->frames = (void *)(base + s.frames);
    q->frames_addr = q->dma_addr + s.frames;
    q->statuses = base + s.statuses;
    q->statuses_addr = q->dma_addr + s.statuses;
    q->extents = base + s.extents;
    q->extents_addr = q->dma_addr + s.extents;
    q->extent_table = s.extent_table;
    q->extent_stride = s.extent_stride;
    q->bounces = c->zero_copy ? NULL : base + s.bounces;
    q->bounces_addr = q->dma_addr + s.bounces;
    q->broken = q->armed = false;
    q->batch_left = 0;
    ring_init(q, base, q->dma_addr);
    frames_init(q);
    return 0;
}

struct vblk_request *queue_take_in_flight(struct vblk_queue *q)
{
    struct vblk_request *taken = NULL, **tail = &taken;

    for (unsigned i = 0; i < q->size; i++) {
        struct vblk_request *r = q->slots[i].request;

        if (!r)
            continue;
        q->slots[i].request = NULL;
        r->next = NULL;
        *tail = r;
        tail = &r->next;
    }
    q->in_flight = 0;
    return taken;
}

/*
 * sim.c - the simulated platform and transport; sim_disk.c is what the device does with a request.
 */
#include "sim_disk.h"

#include <queztl/base.h>

enum { S_FEATURES_OK = 8, S_NEEDS_RESET = 64 };

static struct sim *of(struct vblk_transport *t)
{
    return QZ_CONTAINER_OF(t, struct sim, t);
}

uint64_t sim_random(struct sim *s)
{
    uint64_t z = (s->rng += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* ---- platform ---- */

static void *block_new(struct sim *s, size_t size, size_t align)
{
    for (unsigned i = 0; i < SIM_BLOCKS_MAX; i++) {
        if (s->blocks[i].at)
            continue;
        s->blocks[i].at = aligned_alloc(align, QZ_ALIGN_UP(size, align));
        if (!s->blocks[i].at)
            return NULL;
        s->blocks[i].len = size;
        return memset(s->blocks[i].at, 0, size);
    }
    return NULL;
}

static void *sim_dma_alloc(void *ctx, size_t size, size_t align, uint64_t *addr)
{
    struct sim *s = ctx;
    void *p = block_new(s, size, align);

    if (p)
        s->dma_blocks++;
    *addr = (uintptr_t)p + SIM_DMA_OFFSET;
    return p;
}

static void sim_dma_free(void *ctx, void *memory, size_t size, uint64_t addr)
{
    struct sim *s = ctx;

    for (unsigned i = 0; i < SIM_BLOCKS_MAX; i++)
        if (s->blocks[i].at == memory && s->blocks[i].len == size) {
            s->blocks[i].at = NULL;
            s->dma_blocks--;
            free(memory);
            return;
        }
    abort(); /* the driver frees what it never had */
}

static uint8_t *dev_translate(void *ctx, uint64_t addr, uint64_t len)
{
    struct sim *s = ctx;
    uint64_t p = addr - SIM_DMA_OFFSET;

    for (unsigned i = 0; i < SIM_BLOCKS_MAX; i++) {
        uint64_t base = (uintptr_t)s->blocks[i].at;

        if (base && p >= base && p - base <= s->blocks[i].len &&
            len <= s->blocks[i].len - (p - base))
            return s->blocks[i].at + (p - base);
    }
    return NULL;
}

static int sim_translate(void *ctx, const void *buffer, size_t len, uint64_t *addr)
{
    *addr = (uintptr_t)buffer + SIM_DMA_OFFSET;
    return dev_translate(ctx, *addr, len) ? 0 : -1;
}

static uint64_t sim_now(void *ctx)
{
    return ((struct sim *)ctx)->clock_ns += 100;
}

static int sim_irq(void *ctx, unsigned vector, void (*handler)(void *arg), void *arg)
{
    struct sim *s = ctx;

    if (vector > SIM_QUEUES_MAX)
        return -VBLK_EINVAL;
    s->handlers[vector] = handler;
    s->handler_args[vector] = arg;
    return 0;
}

static void sim_barrier(void *ctx, enum vblk_barrier kind)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void sim_log(void *ctx, enum vblk_log_level level, const char *text, uint64_t a, uint64_t b)
{
    ((struct sim *)ctx)->logs++;
    qz_debug("%s: %llu, %llu", text, (unsigned long long)a, (unsigned long long)b);
}

/* ---- transport ---- */

static uint64_t get_features(struct vblk_transport *t)
{
    return of(t)->o.features | VBLK_BIT(VBLK_F_VERSION_1);
}

static int set_features(struct vblk_transport *t, uint64_t features)
{
    of(t)->driver_features = features;
    return 0;
}

static uint8_t get_status(struct vblk_transport *t)
{
    return of(t)->status;
}

static int set_status(struct vblk_transport *t, uint8_t status)
{
    struct sim *s = of(t);

    if (status == 0) {
        if (s->refuse_reset)
            return 0;
        s->status = 0;
        s->fault = s->fault == SIM_FAULT_IO ? s->fault : SIM_FAULT_NONE;
        for (unsigned i = 0; i < SIM_QUEUES_MAX; i++)
            s->q[i].enabled = s->q[i].kicked = false, s->q[i].held = 0;
        return 0;
    }
    if (status & S_FEATURES_OK && !(s->status & S_FEATURES_OK) &&
        (s->refuse_features || s->driver_features & ~get_features(t)))
        status &= ~S_FEATURES_OK;
    s->status = status | (s->status & S_NEEDS_RESET);
    return 0;
}

static int read_config(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    uint8_t space[SIM_CONFIG_BYTES];
    struct sim *s = of(t);

    if (s->config_moves)
        s->generation++;
    sim_config(s, space);
    if (offset > sizeof(space) || len > sizeof(space) - offset)
        return -VBLK_EINVAL;
    memcpy(to, space + offset, len);
    return 0;
}

static int write_config(struct vblk_transport *t, unsigned offset, const void *from, unsigned len)
{
    if (offset != 32 || len != 1) /* writeback: the only field that a driver may write */
        return -VBLK_EINVAL;
    of(t)->writeback = *(const uint8_t *)from;
    return 0;
}

static uint32_t generation(struct vblk_transport *t)
{
    return of(t)->generation;
}

static unsigned depth_max(struct vblk_transport *t, unsigned queue)
{
    return queue < of(t)->o.queues ? of(t)->o.depth : 0;
}

static int enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                  const struct vblk_ring_addresses *a, bool interrupts)
{
    struct sim *s = of(t);
    struct sim_queue *q = &s->q[queue];
    bool packed = s->driver_features & VBLK_BIT(VBLK_F_RING_PACKED);

    if (queue >= s->queues_usable)
        return -VBLK_EIO;
    q->enabled = true;
    q->kicked = false;
    q->held = 0;
    q->interrupts = interrupts;
    q->ring = (struct dev_ring){.packed = packed,
                                .event_idx = s->driver_features & VBLK_BIT(VBLK_F_EVENT_IDX),
                                .in_order = s->driver_features & VBLK_BIT(VBLK_F_IN_ORDER),
                                .indirect_ok = s->driver_features & VBLK_BIT(VBLK_F_INDIRECT_DESC),
                                .size = depth,
                                .desc = dev_translate(s, a->desc, 16 * depth),
                                .driver = dev_translate(s, a->driver, packed ? 4 : 6 + 2 * depth),
                                .device = dev_translate(s, a->device, packed ? 4 : 6 + 8 * depth),
                                .translate = dev_translate,
                                .ctx = s};
    dev_ring_init(&q->ring);
    if (!q->ring.desc || !q->ring.driver || !q->ring.device)
        return -VBLK_EINVAL;
    return 0;
}

static int reset_queue(struct vblk_transport *t, unsigned queue)
{
    struct sim *s = of(t);

    if (s->refuse_reset)
        return -VBLK_ETIMEDOUT;
    s->q[queue].enabled = s->q[queue].kicked = false;
    s->q[queue].held = 0;
    s->fault = SIM_FAULT_NONE;
    return 0;
}

static void notify(struct vblk_transport *t, unsigned queue, uint32_t data)
{
    struct sim *s = of(t);

    s->q[queue].kicked = true;
    s->q[queue].doorbells++;
    s->q[queue].notify_data = data;
}

static const struct vblk_transport_ops ops = {
    .name = "sim",
    .get_features = get_features,
    .set_features = set_features,
    .get_status = get_status,
    .set_status = set_status,
    .config_read = read_config,
    .config_write = write_config,
    .config_generation = generation,
    .queue_depth_max = depth_max,
    .queue_enable = enable,
    .queue_reset = reset_queue,
    .notify = notify,
};

struct sim *sim_new(const struct sim_options *o)
{
    struct sim *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->o = *o;
    s->rng = o->seed;
    s->sectors = o->sectors;
    s->queues_usable = o->queues;
    s->disk = calloc(o->sectors, VBLK_SECTOR_SIZE);
    for (unsigned i = 0; i < o->queues; i++)
        for (unsigned k = 0; k < SIM_CHAINS_MAX; k++)
            s->q[i].chains[k] = malloc(sizeof(struct dev_chain));
    s->p = (struct vblk_platform){.ctx = s,
                                  .dma_alloc = sim_dma_alloc,
                                  .dma_free = sim_dma_free,
                                  .dma_translate = o->translate ? sim_translate : NULL,
                                  .dma_offset = SIM_DMA_OFFSET,
                                  .irq_attach = sim_irq,
                                  .barrier = sim_barrier,
                                  .now_ns = sim_now,
                                  .log = sim_log};
    s->t = (struct vblk_transport){&ops, &s->p};
    return s;
}

void sim_free(struct sim *s)
{
    for (unsigned i = 0; i < SIM_BLOCKS_MAX; i++)
        free(s->blocks[i].at);
    for (unsigned i = 0; i < SIM_QUEUES_MAX; i++)
        for (unsigned k = 0; k < SIM_CHAINS_MAX; k++)
            free(s->q[i].chains[k]);
    free(s->disk);
    free(s);
}

void *sim_buffer(struct sim *s, size_t len)
{
    void *p = block_new(s, len, 64);

    if (!p)
        abort();
    return p;
}

void sim_resize(struct sim *s, uint64_t sectors)
{
    uint64_t keep = QZ_MIN(sectors, s->sectors);
    uint8_t *disk = calloc(sectors, VBLK_SECTOR_SIZE);

    memcpy(disk, s->disk, keep * VBLK_SECTOR_SIZE);
    free(s->disk);
    s->disk = disk;
    s->sectors = sectors;
    s->generation++;
    if (s->handlers[0])
        s->handlers[0](s->handler_args[0]);
}

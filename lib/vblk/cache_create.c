/*
 * cache_create.c - building a cache in the memory that it is given, and its statistics.
 */
#include "cache.h"

enum { BLOCK = VBLK_CACHE_BLOCK, BLOCK_SECTORS = BLOCK / VBLK_SECTOR_SIZE };

static size_t align_up(size_t n)
{
    return (n + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

static unsigned hash_size(uint64_t lines)
{
    unsigned n = CACHE_LINES_MIN;

    while (n < lines && n < 1u << 30)
        n *= 2;
    return n;
}

size_t qz_vblk_cache_memory_size(const struct vblk_cache_config *c)
{
    uint64_t lines = c->bytes / BLOCK;

    if (lines < CACHE_LINES_MIN || lines > 1u << 28 || c->read_ahead > c->bytes / 2 ||
        c->merge > CACHE_MERGE_MAX)
        return 0;
    return align_up(sizeof(struct vblk_cache)) + align_up(lines * sizeof(struct line)) +
           hash_size(lines) * sizeof(struct line *);
}

int qz_vblk_cache_create(void *memory, size_t size, struct vblk_queue *q,
                         const struct vblk_cache_config *config, struct vblk_cache **cache)
{
    size_t need = qz_vblk_cache_memory_size(config);
    const struct vblk_info *info = &q->dev->info;
    struct vblk_cache *c = memory;
    uint8_t *at = memory;

    if (need == 0 || size < need || (uintptr_t)memory % CACHE_LINE || info->block_size > BLOCK)
        return -VBLK_EINVAL;
    __builtin_memset(memory, 0, need);
    c->queue = q;
    c->config = *config;
    c->line_count = (unsigned)(config->bytes / BLOCK);
    c->lines = (void *)(at + align_up(sizeof(*c)));
    c->hash = (void *)(at + align_up(sizeof(*c)) + align_up(c->line_count * sizeof(struct line)));
    c->hash_mask = hash_size(c->line_count) - 1;
    c->merge = config->merge ? config->merge : CACHE_MERGE_MAX;
    if (c->merge > info->segments_max)
        c->merge = info->segments_max;
    if (c->merge > info->bytes_max / BLOCK)
        c->merge = (unsigned)(info->bytes_max / BLOCK);
    if (c->merge == 0)
        return -VBLK_EINVAL;
    c->dirty_max = c->line_count - c->line_count / 4;
    c->blocks = info->sectors / BLOCK_SECTORS;
    c->read_next = UINT64_MAX;
    c->data = q->platform->dma_alloc(q->platform->ctx, (size_t)c->line_count * BLOCK, BLOCK,
                                     &c->data_addr);
    if (!c->data)
        return -VBLK_ENOMEM;
    for (unsigned i = 0; i < c->line_count; i++) {
        c->lines[i].data = c->data + (size_t)i * BLOCK;
        list_prepend(&c->free, &c->lines[i]);
    }
    for (unsigned i = 0; i < CACHE_OPS; i++)
        op_free(c, &c->ops[i]);
    *cache = c;
    return 0;
}

void qz_vblk_cache_destroy(struct vblk_cache *c)
{
    c->queue->platform->dma_free(c->queue->platform->ctx, c->data, (size_t)c->line_count * BLOCK,
                                 c->data_addr);
}

void qz_vblk_cache_get_stats(const struct vblk_cache *c, struct vblk_cache_stats *s)
{
    *s = c->stats;
    s->dirty = c->dirty.count + c->writing;
    s->lines = c->line_count;
}

/*
 * config_space.c - the device's configuration space (VirtIO 1.3 §5.2.4): read whole, checked,
 * turned into limits that every request is held against.
 */
#include "device.h"

enum { READ_TRIES = 16, BLOCK_SIZE_MAX = 1 << 20 };

static bool has(const struct vblk_device *dev, unsigned feature)
{
    return dev->info.features & VBLK_BIT(feature);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Limits of ranges: 0 sectors means that the device names none; 0 ranges is one. */
static uint32_t sectors_or_all(uint32_t sectors)
{
    return sectors ? le32(sectors) : UINT32_MAX;
}
static uint32_t ranges_or_one(const struct vblk_device *dev, uint32_t ranges)
{
    return ranges ? least(le32(ranges), dev->config.ranges_max) : 1;
}

/* How much of the space exists depends on the features (§5.2.4): no more is read. */
static unsigned space_len(const struct vblk_device *dev)
{
    if (has(dev, VBLK_F_ZONED))
        return sizeof(struct virtio_blk_config);
    if (has(dev, VBLK_F_SECURE_ERASE))
        return offsetof(struct virtio_blk_config, zoned);
    if (has(dev, VBLK_F_WRITE_ZEROES))
        return offsetof(struct virtio_blk_config, max_secure_erase_sectors);
    if (has(dev, VBLK_F_DISCARD))
        return offsetof(struct virtio_blk_config, max_write_zeroes_sectors);
    if (has(dev, VBLK_F_MQ))
        return offsetof(struct virtio_blk_config, max_discard_sectors);
    if (has(dev, VBLK_F_CONFIG_WCE))
        return offsetof(struct virtio_blk_config, unused0);
    if (has(dev, VBLK_F_BLK_SIZE))
        return offsetof(struct virtio_blk_config, topology);
    if (has(dev, VBLK_F_SEG_MAX) || has(dev, VBLK_F_SIZE_MAX))
        return offsetof(struct virtio_blk_config, geometry);
    return offsetof(struct virtio_blk_config, size_max);
}

static int read_whole(struct vblk_device *dev, struct virtio_blk_config *c)
{
    struct vblk_transport *t = dev->transport;

    for (unsigned i = 0; i < READ_TRIES; i++) {
        uint32_t generation = t->ops->config_generation(t);
        int rc = t->ops->config_read(t, 0, c, space_len(dev));

        if (rc < 0)
            return rc;
        if (t->ops->config_generation(t) == generation)
            return 0;
    }
    note(dev->platform, VBLK_LOG_ERROR, "vblk: the configuration never stands still (tries)",
         READ_TRIES, 0);
    return -VBLK_EPROTO;
}

static int take_sizes(const struct vblk_device *dev, const struct virtio_blk_config *c,
                      struct vblk_info *info)
{
    const struct vblk_config *cfg = &dev->config;
    uint64_t sectors = le64(c->capacity), bytes;

    if (sectors > UINT64_MAX / VBLK_SECTOR_SIZE ||
        (cfg->sectors_max && sectors > cfg->sectors_max)) {
        note(dev->platform, VBLK_LOG_ERROR,
             "vblk: the device is larger than allowed (sectors, most)", sectors, cfg->sectors_max);
        return -VBLK_EINVAL;
    }
    info->sectors = sectors;
    info->block_size = has(dev, VBLK_F_BLK_SIZE) ? le32(c->blk_size) : VBLK_SECTOR_SIZE;
    /* qemu-storage-daemon offers SIZE_MAX and leaves the field 0: no bound. */
    info->size_max = has(dev, VBLK_F_SIZE_MAX) && c->size_max ? le32(c->size_max) : UINT32_MAX;
    info->segments_max = least(cfg->segments_max, VBLK_SEGMENTS_MAX);
    if (has(dev, VBLK_F_SEG_MAX))
        info->segments_max = least(info->segments_max, le32(c->seg_max));
    if (info->block_size < VBLK_SECTOR_SIZE || info->block_size > BLOCK_SIZE_MAX ||
        (info->block_size & (info->block_size - 1)) || info->size_max < VBLK_SECTOR_SIZE ||
        info->segments_max == 0) {
        note(dev->platform, VBLK_LOG_ERROR,
             "vblk: impossible limits in the configuration (block size, segment size)",
             info->block_size, info->size_max);
        return -VBLK_EPROTO;
    }
    bytes = (uint64_t)info->segments_max * info->size_max;
    if (!cfg->zero_copy && bytes > cfg->bounce_bytes)
        bytes = cfg->bounce_bytes;
    /* A used length has 32 bits and counts the status too. */
    info->bytes_max = bytes < UINT32_MAX - PAGE ? bytes : UINT32_MAX - PAGE;
    return 0;
}

static int take_zones(const struct vblk_device *dev, const struct virtio_blk_config *c,
                      struct vblk_info *info)
{
    info->zone_model = VBLK_ZONES_NONE;
    if (!has(dev, VBLK_F_ZONED) || c->zoned.model == VBLK_ZONES_NONE)
        return 0;
    if (c->zoned.model > VBLK_ZONES_HOST_AWARE || c->zoned.zone_sectors == 0) {
        note(dev->platform, VBLK_LOG_ERROR, "vblk: unknown zone model (model, sectors)",
             c->zoned.model, le32(c->zoned.zone_sectors));
        return -VBLK_EPROTO;
    }
    info->zone_model = c->zoned.model;
    info->zone_sectors = le32(c->zoned.zone_sectors);
    info->zones_open_max = le32(c->zoned.max_open_zones);
    info->zones_active_max = le32(c->zoned.max_active_zones);
    info->append_sectors_max = le32(c->zoned.max_append_sectors);
    info->zone_write_granularity = le32(c->zoned.write_granularity);
    return 0;
}

int config_read(struct vblk_device *dev)
{
    struct virtio_blk_config c = {0};
    struct vblk_info next = dev->info,
                     *info = &next; /* what is wrong leaves the old limits alone */
    int rc = read_whole(dev, &c);

    if (rc == 0)
        rc = take_sizes(dev, &c, info);
    if (rc == 0)
        rc = take_zones(dev, &c, info);
    if (rc < 0)
        return rc;
    info->read_only = has(dev, VBLK_F_RO);
    /* §5.2.5.2: with CONFIG_WCE the field tells; without, FLUSH alone says that there is a cache.
     */
    info->writeback = has(dev, VBLK_F_CONFIG_WCE) ? c.writeback & 1 : has(dev, VBLK_F_FLUSH);
    info->queues_offered = has(dev, VBLK_F_MQ) && c.num_queues ? le16(c.num_queues) : 1;
    info->discard_sectors_max = sectors_or_all(c.max_discard_sectors);
    info->discard_ranges_max = ranges_or_one(dev, c.max_discard_seg);
    info->discard_alignment = le32(c.discard_sector_alignment);
    info->zeroes_sectors_max = sectors_or_all(c.max_write_zeroes_sectors);
    info->zeroes_ranges_max = ranges_or_one(dev, c.max_write_zeroes_seg);
    info->erase_sectors_max = sectors_or_all(c.max_secure_erase_sectors);
    info->erase_ranges_max = ranges_or_one(dev, c.max_secure_erase_seg);
    dev->info = next;
    return 0;
}

int qz_vblk_reread_config(struct vblk_device *dev)
{
    uint64_t before = dev->info.sectors;
    uint32_t segments = dev->info.segments_max;
    int rc;

    if (!dev->started)
        return -VBLK_ENODEV;
    rc = config_read(dev);
    if (dev->info.segments_max > segments) /* tables were made for so many */
        dev->info.segments_max = segments;
    return rc < 0 ? rc : dev->info.sectors != before;
}

int qz_vblk_set_writeback(struct vblk_device *dev, bool on)
{
    struct vblk_transport *t = dev->transport;
    uint8_t value = on;
    int rc;

    if (!dev->started)
        return -VBLK_ENODEV;
    if (!has(dev, VBLK_F_CONFIG_WCE))
        return -VBLK_ENOTSUP;
    rc = t->ops->config_write(t, offsetof(struct virtio_blk_config, writeback), &value, 1);
    if (rc == 0)
        rc = config_read(dev);
    if (rc < 0)
        return rc;
    return dev->info.writeback == on ? 0 : -VBLK_EIO;
}

/* features.c - names of the feature bits that the driver knows, as the specification spells them.
 */
#include <queztl/vblk.h>

static const struct {
    uint8_t bit;
    const char *name;
} names[] = {
    {VBLK_F_SIZE_MAX, "VIRTIO_BLK_F_SIZE_MAX"},
    {VBLK_F_SEG_MAX, "VIRTIO_BLK_F_SEG_MAX"},
    {VBLK_F_GEOMETRY, "VIRTIO_BLK_F_GEOMETRY"},
    {VBLK_F_RO, "VIRTIO_BLK_F_RO"},
    {VBLK_F_BLK_SIZE, "VIRTIO_BLK_F_BLK_SIZE"},
    {VBLK_F_FLUSH, "VIRTIO_BLK_F_FLUSH"},
    {VBLK_F_TOPOLOGY, "VIRTIO_BLK_F_TOPOLOGY"},
    {VBLK_F_CONFIG_WCE, "VIRTIO_BLK_F_CONFIG_WCE"},
    {VBLK_F_MQ, "VIRTIO_BLK_F_MQ"},
    {VBLK_F_DISCARD, "VIRTIO_BLK_F_DISCARD"},
    {VBLK_F_WRITE_ZEROES, "VIRTIO_BLK_F_WRITE_ZEROES"},
    {VBLK_F_LIFETIME, "VIRTIO_BLK_F_LIFETIME"},
    {VBLK_F_SECURE_ERASE, "VIRTIO_BLK_F_SECURE_ERASE"},
    {VBLK_F_ZONED, "VIRTIO_BLK_F_ZONED"},
    {VBLK_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC"},
    {VBLK_F_EVENT_IDX, "VIRTIO_F_EVENT_IDX"},
    {VBLK_F_VERSION_1, "VIRTIO_F_VERSION_1"},
    {VBLK_F_ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM"},
    {VBLK_F_RING_PACKED, "VIRTIO_F_RING_PACKED"},
    {VBLK_F_IN_ORDER, "VIRTIO_F_IN_ORDER"},
    {VBLK_F_ORDER_PLATFORM, "VIRTIO_F_ORDER_PLATFORM"},
    {VBLK_F_NOTIFICATION_DATA, "VIRTIO_F_NOTIFICATION_DATA"},
    {VBLK_F_RING_RESET, "VIRTIO_F_RING_RESET"},
};

const char *qz_vblk_feature_name(unsigned bit)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].bit == bit)
            return names[i].name;
    return NULL;
}

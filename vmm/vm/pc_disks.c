/* pc_disks.c - what the machine does with its disks while it runs (pc.h). */
#include "vm/pc.h"

static bool is_disk(const struct pc_virtio *v)
{
    return v->device->ops->device_id == VIRTIO_ID_BLOCK;
}

const char *pc_disk_kept(struct pc *pc, char *text, size_t size)
{
    for (unsigned i = 0; i < pc->virtio_count; i++)
        if (is_disk(&pc->virtio[i]) && virtio_blk_kept(pc->virtio[i].device, text, size))
            return pc->virtio[i].device->label;
    return NULL;
}

struct virtio_device *pc_disk(struct pc *pc, unsigned position)
{
    for (unsigned i = 0; i < pc->virtio_count; i++)
        if (is_disk(&pc->virtio[i]) && position-- == 0)
            return pc->virtio[i].device;
    return NULL;
}

void pc_disks_retry(struct pc *pc)
{
    for (unsigned i = 0; i < pc->virtio_count; i++)
        if (is_disk(&pc->virtio[i]))
            virtio_blk_retry(pc->virtio[i].device);
}

/* By the name it was given, or by its number: the first disk is 0. */
static struct virtio_device *find(struct pc *pc, const char *name)
{
    char number[16];
    unsigned n = 0;

    for (unsigned i = 0; i < pc->virtio_count; i++) {
        struct virtio_device *d = pc->virtio[i].device;

        if (!is_disk(&pc->virtio[i]))
            continue;
        snprintf(number, sizeof(number), "%u", n++);
        if (!strcmp(name, d->label) || !strcmp(name, number))
            return d;
    }
    return NULL;
}

int pc_disk_resize(struct pc *pc, const char *name, uint64_t size, struct qz_error *err)
{
    struct virtio_device *d = find(pc, name);

    if (!d)
        return qz_fail(err, -ENOENT,
                       "no disk has the name %s: \"info\" lists them, and 0 is the first", name);
    return virtio_blk_resize(d, size, err);
}

/* vm_disks.c - disks that go on in overlays (vm_disks.h). */
#include "vm/vm_disks.h"

#include <queztl/disk.h>

void vm_disks_learn(struct vm *vm)
{
    for (unsigned i = 0; i < vm->config.disks; i++) {
        const char *path = vm->config.disk[i].path;

        vm->disk_file[i] = qz_disk_is_local_file(path) ? realpath(path, NULL) : strdup(path);
    }
}

void vm_disks_free(struct vm *vm)
{
    for (unsigned i = 0; i < vm->config.disks; i++)
        free(vm->disk_file[i]);
}

json_t *vm_disks_images(struct vm *vm)
{
    json_t *list = json_array();
    struct virtio_device *d;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++)
        json_array_append_new(list, json_pack("{s:s?,s:s,s:I,s:b}", "file", vm->disk_file[i],
                                              "format", virtio_blk_format(d), "size",
                                              (json_int_t)virtio_blk_capacity(d), "readonly",
                                              virtio_blk_readonly(d)));
    return list;
}

static const struct vm_overlay *overlay_of(unsigned disk, const struct vm_overlay *overlays,
                                           unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (overlays[i].disk == disk)
            return &overlays[i];
    return NULL;
}

int vm_disks_check(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                   struct qz_error *err)
{
    struct virtio_device *d;
    unsigned wanted = 0;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++) {
        if (virtio_blk_readonly(d))
            continue;
        wanted++;
        if (!vm->disk_file[i])
            return qz_fail(err, -ENOTSUP,
                           "disk %s: its image has no name by which a snapshot could find "
                           "it again",
                           d->label);
        if (!overlay_of(i, overlays, count))
            return qz_fail(err, -EINVAL,
                           "disk %u (%s) can be written and has no overlay to go on in: "
                           "queztl-hv snapshot makes one",
                           i, d->label);
    }
    return count == wanted ? 0
                           : qz_fail(err, -EINVAL, "%u overlays for %u disks that can be written",
                                     count, wanted);
}

int vm_disks_flush(struct vm *vm, struct qz_error *err)
{
    struct virtio_device *d;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++) {
        int r = virtio_blk_readonly(d) ? 0 : virtio_blk_flush(d);

        if (r < 0)
            return qz_fail(err, r, "disk %u (%s) cannot be flushed: %s", i, d->label, strerror(-r));
    }
    return 0;
}

int vm_disks_overlay(struct vm *vm, struct vm_overlay *overlays, unsigned count,
                     struct qz_error *err)
{
    for (unsigned i = 0; i < count; i++) {
        struct vm_overlay *o = &overlays[i];
        char *name = strdup(o->name);
        int r = name ? virtio_blk_overlay(pc_disk(&vm->pc, o->disk), o->fd, name, err)
                     : qz_fail(err, -ENOMEM, "no memory");

        if (r < 0) {
            free(name);
            return r;
        }
        o->fd = -1;
        free(vm->disk_file[o->disk]);
        vm->disk_file[o->disk] = name;
    }
    return 0;
}

/* vm_disks.c - disks that go on in overlays (vm_disks.h). */
#include "vm/vm_disks.h"

#include <queztl/disk.h>

/* ---- names ---- */

static char *absolute_name(const char *path)
{
    return qz_disk_is_local_file(path) ? realpath(path, NULL) : strdup(path);
}

static json_t *describe_image(const char *file, const char *format, uint64_t size)
{
    return json_pack("{s:s,s:s,s:I}", "file", file, "format", format, "size", (json_int_t)size);
}

/* A machine that begins from a snapshot has an overlay that is empty over what it was frozen as. */
static json_t *find_base(struct virtio_device *d)
{
    QZ_AUTO_FREE char *file = NULL;
    struct qz_disk_backing b;

    if (virtio_blk_readonly(d) || virtio_blk_backing(d, &b) < 0 || !b.untouched ||
        !(file = absolute_name(b.label)))
        return NULL;
    return describe_image(file, b.format, b.size);
}

void vm_disks_learn(struct vm *vm)
{
    struct virtio_device *d;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++) {
        struct vm_disk *disk = &vm->disk[i];

        disk->file = absolute_name(vm->config.disk[i].path);
        disk->origin = disk->file ? strdup(disk->file) : NULL;
        if (vm->config.snapshot)
            disk->base = find_base(d);
    }
}

void vm_disks_free(struct vm *vm)
{
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        free(vm->disk[i].file);
        free(vm->disk[i].origin);
        json_decref(vm->disk[i].base);
    }
}

json_t *vm_disks_images(struct vm *vm)
{
    json_t *list = json_array();
    struct virtio_device *d;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++)
        json_array_append_new(list, json_pack("{s:s?,s:s,s:I,s:b}", "file", vm->disk[i].file,
                                              "format", virtio_blk_format(d), "size",
                                              (json_int_t)virtio_blk_capacity(d), "readonly",
                                              virtio_blk_readonly(d)));
    return list;
}

json_t *vm_disks_info(struct vm *vm)
{
    json_t *list = vm_disks_images(vm);

    for (unsigned i = 0; i < json_array_size(list); i++) {
        json_t *disk = json_array_get(list, i);

        if (vm->disk[i].origin)
            json_object_set_new(disk, "origin", json_string(vm->disk[i].origin));
        if (vm->disk[i].base)
            json_object_set(disk, "base", vm->disk[i].base);
    }
    return list;
}

/* ---- what is asked for ---- */

static const struct vm_overlay *overlay_of(unsigned disk, const struct vm_overlay *overlays,
                                           unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (overlays[i].disk == disk)
            return &overlays[i];
    return NULL;
}

/* One for each disk that can be written, no other. */
static int check_overlays(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                          const char *maker, struct qz_error *err)
{
    struct virtio_device *d;
    unsigned wanted = 0;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++) {
        if (virtio_blk_readonly(d))
            continue;
        wanted++;
        if (!overlay_of(i, overlays, count))
            return qz_fail(err, -EINVAL,
                           "disk %u (%s) can be written and has no overlay to go on in: "
                           "queztl-hv %s makes one",
                           i, d->label, maker);
    }
    return count == wanted ? 0
                           : qz_fail(err, -EINVAL, "%u overlays for %u disks that can be written",
                                     count, wanted);
}

int vm_disks_check(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                   struct qz_error *err)
{
    struct virtio_device *d;

    for (unsigned i = 0; (d = pc_disk(&vm->pc, i)); i++)
        if (!virtio_blk_readonly(d) && !vm->disk[i].file)
            return qz_fail(err, -ENOTSUP,
                           "disk %s: its image has no name by which a snapshot could find "
                           "it again",
                           d->label);
    for (unsigned i = 0; i < count; i++)
        if (!overlays[i].name)
            return qz_fail(err, -EINVAL, "disk %u: a snapshot's overlay has a name",
                           overlays[i].disk);
    return check_overlays(vm, overlays, count, "snapshot", err);
}

int vm_disks_check_rewind(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                          struct qz_error *err)
{
    return check_overlays(vm, overlays, count, "restore", err);
}

/* ---- doing it ---- */

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

/* It is written to `o` from now on. */
static void take_overlay(struct vm_disk *disk, struct vm_overlay *o, char *name, json_t *base)
{
    o->fd = -1;
    free(disk->file);
    disk->file = name;
    json_decref(disk->base);
    disk->base = base;
}

static int overlay_one(struct vm *vm, struct vm_overlay *o, struct qz_error *err)
{
    struct virtio_device *d = pc_disk(&vm->pc, o->disk);
    struct vm_disk *disk = &vm->disk[o->disk];
    json_t *base = describe_image(disk->file, virtio_blk_format(d), virtio_blk_capacity(d));
    char *name = strdup(o->name);
    int r =
        name && base ? virtio_blk_overlay(d, o->fd, name, err) : qz_fail(err, -ENOMEM, "no memory");

    if (r < 0) {
        json_decref(base);
        free(name);
        return r;
    }
    take_overlay(disk, o, name, base);
    return 0;
}

int vm_disks_overlay(struct vm *vm, struct vm_overlay *overlays, unsigned count,
                     struct qz_error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < count; i++)
        r = overlay_one(vm, &overlays[i], err);
    return r;
}

static int rewind_one(struct vm *vm, struct vm_overlay *o, struct qz_error *err)
{
    struct virtio_device *d = pc_disk(&vm->pc, o->disk);
    QZ_AUTO_FREE char *name = o->name ? strdup(o->name) : NULL;
    struct qz_disk_backing b;
    int r;

    if (o->name && !name)
        return qz_fail(err, -ENOMEM, "no memory");
    r = virtio_blk_rewind(d, o->base, o->fd, name ? name : "(an image without a name)", err);
    if (r < 0)
        return r;
    virtio_blk_backing(d, &b);
    take_overlay(&vm->disk[o->disk], o, QZ_TAKE_PTR(name),
                 describe_image(o->base_name, b.format, b.size));
    return 0;
}

int vm_disks_rewind(struct vm *vm, struct vm_overlay *overlays, unsigned count, bool *torn,
                    struct qz_error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < count; i++) {
        *torn = i > 0;
        r = rewind_one(vm, &overlays[i], err);
    }
    return r;
}

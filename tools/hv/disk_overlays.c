/* disk_overlays.c - making overlays and naming them to machines (disk_overlays.h). */
#include "disk_overlays.h"

#include <fcntl.h>
#include <limits.h>
#include <queztl/disk.h>

#include "option_text.h"

enum { NAMES_MAX = 1000 }; /* that are tried for one image */

/* ---- text: a comma in a value is written twice ---- */

/* Where the item that begins at `text` ends: at a comma that stands alone, or the end. */
static const char *item_end(const char *text)
{
    for (; *text && (text[0] != ',' || text[1] == ','); text++)
        text += *text == ',';
    return text;
}

static bool is_key(const char *item, const char *key)
{
    const size_t n = strlen(key);

    return !strncmp(item, key, n) && item[n] == '=';
}

static bool is_item(const char *item, const char *end, const char *text)
{
    return (size_t)(end - item) == strlen(text) && !strncmp(item, text, strlen(text));
}

char *overlay_option(const struct overlay *o, const char *was, int fd)
{
    QZ_AUTO_FREE char *path = option_text_escape(o->path), *rest = calloc(1, strlen(was) + 1);
    char *text = NULL;
    size_t used = 0;

    if (!path || !rest)
        return NULL;
    for (const char *end = item_end(was); *end;) {
        const char *item = end + 1;

        end = item_end(item);
        if (is_key(item, "format") || is_key(item, "fd") || is_item(item, end, "backing=header"))
            continue;
        rest[used++] = ',';
        memcpy(rest + used, item, (size_t)(end - item));
        used += (size_t)(end - item);
    }
    return asprintf(&text, "%s,fd=%d,format=qcow2,backing=header%s", path, fd, rest) < 0 ? NULL
                                                                                         : text;
}

/* ---- files ---- */

static int make_image(const char *path, const json_t *disk, struct qz_error *err)
{
    const char *file = json_string_value(json_object_get(disk, "file")),
               *format = json_string_value(json_object_get(disk, "format"));
    const json_int_t size = json_integer_value(json_object_get(disk, "size"));
    QZ_AUTO_FREE char *to = option_text_escape(path),
                      *from = file ? option_text_escape(file) : NULL, *options = NULL;

    if (!file || !format || size <= 0)
        return qz_fail(err, -EINVAL, "a disk has no image by whose name an overlay could find it");
    /* The image may be in use, and locked: what it is was said by who uses it. */
    if (!to || !from ||
        asprintf(&options,
                 "file=%s,format=qcow2,size=%lldB,backing=%s,backing.format=%s,backing.unchecked",
                 to, (long long)size, from, format) < 0) {
        options = NULL;
        return qz_fail(err, -ENOMEM, "no memory");
    }
    return qz_disk_create(options, err);
}

/* Takes `path` over, which is upon what `disk` names. */
static int add(struct overlays *o, unsigned position, char *path, const json_t *disk,
               struct qz_error *err)
{
    struct overlay *new = &o->item[o->count];
    int r = path ? make_image(path, disk, err) : qz_fail(err, -ENOMEM, "no memory");

    if (r < 0) {
        free(path);
        return r;
    }
    *new = (struct overlay){position, path, open(path, O_RDWR | O_CLOEXEC), false};
    o->count++;
    return new->fd < 0 ? qz_fail(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

/* disk.img becomes disk.img.TAG.qcow2, disk.qcow2 disk.TAG.qcow2; n > 1: ...TAG-N.qcow2 */
static char *name_beside(const char *file, const char *tag, unsigned n)
{
    static const char suffix[] = ".qcow2";
    size_t len = strlen(file);
    char *path, number[16] = "";

    if (len > strlen(suffix) && !strcmp(file + len - strlen(suffix), suffix))
        len -= strlen(suffix);
    if (n > 1)
        snprintf(number, sizeof(number), "-%u", n);
    return asprintf(&path, "%.*s.%s%s%s", (int)len, file, tag, number, suffix) < 0 ? NULL : path;
}

/* With the first name that is free. */
static int add_beside(struct overlays *o, unsigned position, const char *file, const char *tag,
                      const json_t *base, struct qz_error *err)
{
    int r = -EEXIST;

    for (unsigned n = 1; r == -EEXIST && n <= NAMES_MAX; n++)
        r = add(o, position, name_beside(file, tag, n), base, err);
    return r;
}

static int add_unnamed(struct overlays *o, unsigned position, const json_t *base,
                       struct qz_error *err)
{
    const char *folder = getenv("TMPDIR");
    char *path;
    int r;

    if (asprintf(&path, "%s/queztl-%d.disk%u.qcow2", folder ? folder : "/tmp", getpid(), position) <
        0)
        path = NULL;
    r = add(o, position, path, base, err);
    if (r == 0) {
        unlink(o->item[o->count - 1].path);
        o->item[o->count - 1].unnamed = true;
    }
    return r;
}

/* ---- for all disks that can be written ---- */

struct overlays_call {
    struct overlays *to;
    const json_t *bases; /* NULL: the disks' own images */
    const char *tag, *folder, *name;
    int (*add)(struct overlays_call *c, unsigned position, const json_t *disk, const json_t *base,
               struct qz_error *err);
};

static bool can_be_written(const json_t *disk)
{
    return !json_is_true(json_object_get(disk, "readonly"));
}

static int for_each(struct overlays_call *c, const json_t *disks, struct qz_error *err)
{
    int r = 0;

    *c->to = (struct overlays){0};
    for (unsigned i = 0; r == 0 && i < json_array_size(disks) && i < OVERLAYS_MAX; i++) {
        const json_t *disk = json_array_get(disks, i);

        if (can_be_written(disk))
            r = c->add(c, i, disk, c->bases ? json_array_get(c->bases, i) : disk, err);
    }
    if (r < 0)
        overlays_end(c->to, true);
    return r;
}

static const char *text_of(const json_t *disk, const char *key)
{
    return json_string_value(json_object_get(disk, key));
}

/* What a machine says of itself has the first image's name, a description has the present one's. */
static int beside(struct overlays_call *c, unsigned i, const json_t *disk, const json_t *base,
                  struct qz_error *err)
{
    const char *origin = text_of(disk, "origin"), *file = origin ? origin : text_of(disk, "file");

    if (!file || *file != '/')
        return qz_fail(err, -ENOTSUP, "disk %u (%s) has no file that an overlay could lie beside",
                       i, file ? file : "its image has no name any more");
    return add_beside(c->to, i, file, c->tag, base, err);
}

int overlays_beside(struct overlays *o, const json_t *disks, const char *tag, struct qz_error *err)
{
    return for_each(&(struct overlays_call){.to = o, .tag = tag, .add = beside}, disks, err);
}

static int in_folder(struct overlays_call *c, unsigned i, const json_t *disk, const json_t *base,
                     struct qz_error *err)
{
    char *path;

    if (asprintf(&path, "%s/%s.disk%u.qcow2", c->folder, c->name, i) < 0)
        path = NULL;
    return add(c->to, i, path, base, err);
}

int overlays_in(struct overlays *o, const json_t *disks, const char *folder, const char *name,
                struct qz_error *err)
{
    char absolute[PATH_MAX];

    *o = (struct overlays){0};
    if (!realpath(folder, absolute))
        return qz_fail(err, -errno, "folder %s: %s", folder, strerror(errno));
    return for_each(
        &(struct overlays_call){.to = o, .folder = absolute, .name = name, .add = in_folder}, disks,
        err);
}

static int unnamed(struct overlays_call *c, unsigned i, const json_t *disk, const json_t *base,
                   struct qz_error *err)
{
    return add_unnamed(c->to, i, base, err);
}

int overlays_unnamed(struct overlays *o, const json_t *disks, struct qz_error *err)
{
    return for_each(&(struct overlays_call){.to = o, .add = unnamed}, disks, err);
}

static int back(struct overlays_call *c, unsigned i, const json_t *disk, const json_t *base,
                struct qz_error *err)
{
    if (!text_of(base, "file"))
        return qz_fail(err, -ENOTSUP,
                       "disk %u has no image to go back to: begin a machine from the snapshot "
                       "instead (queztl-hv run --snapshot)",
                       i);
    return text_of(disk, "file") ? beside(c, i, disk, base, err) : add_unnamed(c->to, i, base, err);
}

int overlays_back(struct overlays *o, const json_t *disks, const json_t *bases,
                  struct qz_error *err)
{
    return for_each(
        &(struct overlays_call){.to = o, .bases = bases, .tag = "restored", .add = back}, disks,
        err);
}

void overlays_end(struct overlays *o, bool remove)
{
    for (unsigned i = 0; i < o->count; i++) {
        if (o->item[i].fd >= 0)
            close(o->item[i].fd);
        if (remove && !o->item[i].unnamed)
            unlink(o->item[i].path);
        free(o->item[i].path);
    }
    o->count = 0;
}

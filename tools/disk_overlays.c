/* disk_overlays.c - making overlays and naming them to machines (disk_overlays.h). */
#include "disk_overlays.h"

#include <fcntl.h>
#include <limits.h>
#include <queztl/disk.h>

#include "option_text.h"

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

/* Takes `path` over. */
static int add(struct overlays *o, unsigned position, char *path, const json_t *disk,
               struct qz_error *err)
{
    struct overlay *new = &o->item[o->count];
    int r = path ? make_image(path, disk, err) : qz_fail(err, -ENOMEM, "no memory");

    if (r < 0) {
        free(path);
        return r;
    }
    *new = (struct overlay){position, path, open(path, O_RDWR | O_CLOEXEC)};
    o->count++;
    return new->fd < 0 ? qz_fail(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static bool can_be_written(const json_t *disk)
{
    return !json_is_true(json_object_get(disk, "readonly"));
}

/* disk.img.before.qcow2 becomes disk.img.before.TAG.qcow2 */
static char *name_beside(const char *file, const char *tag)
{
    static const char suffix[] = ".qcow2";
    size_t n = strlen(file);
    char *path;

    if (n > strlen(suffix) && !strcmp(file + n - strlen(suffix), suffix))
        n -= strlen(suffix);
    return asprintf(&path, "%.*s.%s%s", (int)n, file, tag, suffix) < 0 ? NULL : path;
}

int overlays_beside(struct overlays *o, const json_t *disks, const char *tag, struct qz_error *err)
{
    int r = 0;

    *o = (struct overlays){0};
    for (unsigned i = 0; r == 0 && i < json_array_size(disks) && i < OVERLAYS_MAX; i++) {
        const json_t *disk = json_array_get(disks, i);
        const char *file = json_string_value(json_object_get(disk, "file"));

        if (!can_be_written(disk))
            continue;
        if (!file || *file != '/')
            r = qz_fail(err, -ENOTSUP, "disk %u (%s) has no file that an overlay could lie beside",
                        i, file ? file : "its image has no name any more");
        else
            r = add(o, i, name_beside(file, tag), disk, err);
    }
    if (r < 0)
        overlays_end(o, true);
    return r;
}

int overlays_in(struct overlays *o, const json_t *disks, const char *folder, const char *name,
                struct qz_error *err)
{
    char absolute[PATH_MAX];
    int r = 0;

    *o = (struct overlays){0};
    if (!realpath(folder, absolute))
        return qz_fail(err, -errno, "folder %s: %s", folder, strerror(errno));
    for (unsigned i = 0; r == 0 && i < json_array_size(disks) && i < OVERLAYS_MAX; i++) {
        const json_t *disk = json_array_get(disks, i);
        char *path;

        if (!can_be_written(disk))
            continue;
        if (asprintf(&path, "%s/%s.disk%u.qcow2", absolute, name, i) < 0)
            path = NULL;
        r = add(o, i, path, disk, err);
    }
    if (r < 0)
        overlays_end(o, true);
    return r;
}

void overlays_end(struct overlays *o, bool remove)
{
    for (unsigned i = 0; i < o->count; i++) {
        if (o->item[i].fd >= 0)
            close(o->item[i].fd);
        if (remove)
            unlink(o->item[i].path);
        free(o->item[i].path);
    }
    o->count = 0;
}

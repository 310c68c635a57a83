/*
 * overlay.c - a disk that goes on in a new image over the one it has, or over one that it had
 * (<queztl/disk.h>).
 *
 * First the overlay is opened and looked at, which touches nothing of the disk; then the present
 * image is frozen, which is undone if it fails; then pointers change, which cannot fail:
 *
 *     filters                    filters                        filters
 *     image: file.img     ->     overlay: new.qcow2      ->     overlay: newer.qcow2
 *                                image: file.img, readonly,     image: file.img
 *                                a backing file as any          (new.qcow2 is dropped)
 *
 * The overlay comes by a descriptor, because the process that has the disk may be confined. It is
 * read as hostile input, and the name of its backing file is not opened: it is for those who open
 * it later.
 */
#include "disk_internal.h"
#include "file.h"

struct overlay_call {
    struct qz_disk *disk;
    const char *name;
    struct options options;
    struct chain over;         /* the new image, until it is the disk's */
    const struct chain *under; /* what it is to lie on: the disk's images from here down */
    struct chain *room;        /* for the present image, which becomes a backing file */
    struct qz_error *err;
};

int overlay_inherit(struct options *kept, struct options *o)
{
    static const char *const keys[] = {"cache",        "discard",         "locking",
                                       "metadata_log", "metadata_memory", "compression_level"};
    int r = 0;

    for (unsigned i = 0; r == 0 && i < QZ_ARRAY_LEN(keys); i++) {
        const struct option *p = options_find(o, keys[i]);

        r = p ? options_add(kept, p->key, p->value) : 0;
    }
    return r;
}

/* ---- may this disk have an overlay? */

static unsigned count_backing(const struct chain *c)
{
    unsigned n = 0;

    while ((c = c->backing))
        n++;
    return n;
}

static int check_disk(const struct qz_disk *d, struct qz_error *err)
{
    const struct layer_info *info = &d->chain.top->info;

    if (info->readonly)
        return qz_fail(err, -EROFS, "%s: readonly, which needs no overlay", d->label);
    if (info->encrypted)
        return qz_fail(
            err, -ENOTSUP,
            "%s: is encrypted, and what is written into an overlay would not be: encrypt "
            "inside of the guest, or below the image files (dm-crypt), instead",
            d->label);
    if (info->secure_erase)
        return qz_fail(
            err, -ENOTSUP,
            "%s: promises to write over what it erases, which a backing file keeps: open "
            "it without secure-erase=",
            d->label);
    if (count_backing(&d->chain) >= CHAIN_BACKING_MAX)
        return qz_fail(err, -ELOOP,
                       "%s: has %d backing files already: join some of them (queztl-disk convert)",
                       d->label, CHAIN_BACKING_MAX);
    return 0;
}

/* ---- the overlay's image */

static int make_options(struct overlay_call *c, int fd)
{
    char number[16];
    int r = overlay_inherit(&c->options, &c->disk->inherited);

    snprintf(number, sizeof(number), "%d", fd);
    if (r == 0)
        r = options_add(&c->options, "file", c->name);
    if (r == 0)
        r = options_add(&c->options, "fd", number);
    return r;
}

static bool is_same_file(const struct layer *l, const struct stat *st)
{
    struct stat other;

    if (!file_stat(l, &other))
        return false;
    if (S_ISBLK(st->st_mode) && S_ISBLK(other.st_mode))
        return st->st_rdev == other.st_rdev;
    return other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* Before it is opened: its lock would be the disk's own, if the descriptor is. */
static int check_file(struct overlay_call *c, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return qz_fail(c->err, -errno, "overlay %s: descriptor %d: %s", c->name, fd,
                       strerror(errno));
    for (const struct chain *in = &c->disk->chain; in; in = in->backing)
        if (is_same_file(layer_lowest(in->top), &st) ||
            (in->data_file && is_same_file(layer_lowest(in->data_file), &st)))
            return qz_fail(c->err, -ELOOP, "overlay %s: is a file of the disk already", c->name);
    return 0;
}

static int check_names(struct overlay_call *c, const struct format_names *n)
{
    const char *format = c->under->format ? c->under->format->name : "raw";
    const char *under = c->under->format_layer->label;

    if (n->data_file)
        return qz_fail(c->err, -EINVAL, "overlay %s: has an external data file", c->name);
    if (!n->backing_file)
        return qz_fail(
            c->err, -EINVAL,
            "overlay %s: names no backing file: whoever opens it later would not find %s", c->name,
            under);
    if (!n->backing_format || strcmp(n->backing_format, format))
        return qz_fail(c->err, -EINVAL,
                       "overlay %s: says that its backing file is %s%s, and %s is %s", c->name,
                       n->backing_format ? "of format " : "of no format",
                       n->backing_format ? n->backing_format : "", under, format);
    return 0;
}

static int check_image(struct overlay_call *c)
{
    const struct layer *l = c->over.top;
    const struct layer *under = c->under->format_layer;

    if (l->info.encrypted)
        return qz_fail(c->err, -ENOTSUP, "overlay %s: is encrypted, which %s is not", c->name,
                       under->label);
    if (l->info.size != under->info.size)
        return qz_fail(c->err, -EINVAL, "overlay %s: has %llu bytes, and %s has %llu", c->name,
                       (unsigned long long)l->info.size, under->label,
                       (unsigned long long)under->info.size);
    if (!c->over.format->is_empty(c->over.top))
        return qz_fail(c->err, -EINVAL,
                       "overlay %s: is not empty: make a new one without preallocation", c->name);
    return 0;
}

/* c->over.top is the protocol and becomes the image. */
static int open_image(struct overlay_call *c, struct disk_queue *q)
{
    struct format_open o = {.options = &c->options, .label = c->name};
    struct format_names names = {0};
    struct layer *l;
    int r = c->over.format->names(c->over.top, q, &names, c->err);

    if (r == 0)
        r = check_names(c, &names);
    format_names_clear(&names);
    if (r == 0)
        r = c->over.format->open(&l, c->over.top, q, &o, c->err);
    if (r < 0)
        return r;
    c->over.top = c->over.format_layer = l;
    return options_check(&c->options, c->name, c->err);
}

static int open_overlay(struct overlay_call *c, struct disk_queue *q)
{
    int r = chain_open_protocol(&c->over.top, &c->options, false, q, c->err);

    if (r < 0)
        return r;
    r = open_image(c, q);
    if (r < 0)
        return chain_name_image(c->err, c->name, r);
    return check_image(c);
}

/* ---- the change */

static void put_filters_over(struct layer *l, const struct layer *old, struct layer *image)
{
    if (l->below == old) {
        filter_put_over(l, image);
        return;
    }
    put_filters_over(l->below, old, image);
    filter_put_over(l, l->below);
}

/* The disk's images without its filters. */
static struct chain images_of(const struct chain *c)
{
    return (struct chain){.top = c->format_layer,
                          .format_layer = c->format_layer,
                          .format = c->format,
                          .data_file = c->data_file,
                          .backing = c->backing};
}

/* The overlay takes the place of the present image, whoever has that from now on. */
static void put_over(struct chain *c, const struct chain *over, struct chain *base)
{
    const struct layer *old = c->format_layer;

    over->top->backing = base->top;
    if (c->top == old)
        c->top = over->top;
    else
        put_filters_over(c->top, old, over->top);
    c->format_layer = over->format_layer;
    c->format = over->format;
    c->data_file = NULL;
    c->backing = base;
}

/* What was learnt of the medium is about another one. */
static void check_lifetime(struct qz_disk *d)
{
    struct stat before, now;

    if (!file_stat(layer_lowest(d->chain.backing->top), &before) ||
        !file_stat(layer_lowest(d->chain.top), &now) ||
        lifetime_device(&before) != lifetime_device(&now))
        lifetime_close(&d->lifetime);
}

static void tell_disk(struct qz_disk *d)
{
    const uint64_t memory = __atomic_load_n(&d->memory, __ATOMIC_RELAXED);

    d->label = d->chain.top->label;
    check_lifetime(d);
    if (memory != DISK_MEMORY_UNSAID)
        chain_set_memory(&d->chain, memory);
}

static int overlay_main(struct disk_queue *q, void *argument)
{
    struct overlay_call *c = argument;
    struct qz_disk *d = c->disk;
    int r = open_overlay(c, q);

    if (r == 0)
        r = chain_freeze(&d->chain, q, c->err);
    if (r < 0) {
        chain_abandon(&c->over);
        return r;
    }
    *c->room = images_of(&d->chain);
    put_over(&d->chain, &c->over, QZ_TAKE_PTR(c->room));
    tell_disk(d);
    return 0;
}

/* ---- back to an image that it had */

/* The image among the disk's backing files that is this file. */
static struct chain *find_backing(struct chain *c, const struct stat *st)
{
    struct chain *in = c->backing;

    while (in && !is_same_file(layer_lowest(in->top), st))
        in = in->backing;
    return in;
}

/* What the disk has above `base`, taken off it; nobody will read it. */
static struct chain images_above(const struct chain *c, const struct chain *base)
{
    struct chain above = images_of(c), *last = &above;

    while (last->backing != base)
        last = last->backing;
    last->backing = NULL;
    return above;
}

static int rewind_main(struct disk_queue *q, void *argument)
{
    struct overlay_call *c = argument;
    struct qz_disk *d = c->disk;
    struct chain above;
    int r = open_overlay(c, q);

    if (r < 0) {
        chain_abandon(&c->over);
        return r;
    }
    above = images_above(&d->chain, c->under);
    put_over(&d->chain, &c->over, (struct chain *)c->under);
    chain_forget(&d->chain);
    tell_disk(d);
    chain_abandon(&above);
    return 0;
}

/* ---- both */

static int go_on_in(struct overlay_call *c, int fd, int (*run)(struct disk_queue *q, void *call))
{
    int r;

    c->over.format = format_find("qcow2");
    if (!c->over.format)
        r = qz_fail(c->err, -ENOTSUP, "overlay %s: this build has no qcow2", c->name);
    else if (make_options(c, fd) < 0)
        r = qz_fail(c->err, -ENOMEM, "overlay %s: no memory", c->name);
    else if ((r = check_file(c, fd)) == 0)
        r = disk_run(run, c, c->err);
    options_clear(&c->options);
    if (r == 0)
        close(fd);
    return r;
}

int qz_disk_overlay(struct qz_disk *d, int fd, const char *name, struct qz_error *err)
{
    struct overlay_call c = {.disk = d, .name = name, .under = &d->chain, .err = err};
    int r = check_disk(d, err);

    if (r < 0)
        return r;
    c.room = calloc(1, sizeof(*c.room));
    r = c.room ? go_on_in(&c, fd, overlay_main)
               : qz_fail(err, -ENOMEM, "overlay %s: no memory", name);
    free(c.room);
    return r;
}

int qz_disk_rewind(struct qz_disk *d, int base, int fd, const char *name, struct qz_error *err)
{
    struct overlay_call c = {.disk = d, .name = name, .err = err};
    struct stat st;

    if (d->chain.top->info.readonly)
        return qz_fail(err, -EROFS, "%s: readonly, and as it was", d->label);
    if (fstat(base, &st) < 0)
        return qz_fail(err, -errno, "%s: descriptor %d: %s", d->label, base, strerror(errno));
    c.under = find_backing(&d->chain, &st);
    if (!c.under)
        return qz_fail(err, -ENOENT,
                       "%s: the image to go back to is none of its backing files: begin another "
                       "disk upon it",
                       d->label);
    return go_on_in(&c, fd, rewind_main);
}

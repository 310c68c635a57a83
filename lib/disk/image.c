/* image.c - whole images: create, resize, info, check (<queztl/disk.h>). */
#include "crypto.h"
#include "disk_internal.h"
#include "file.h"

/* ---- create */

struct create_call {
    struct options *options;
    struct qz_error *err;
    /* What the options say. */
    const char *path, *data_path, *backing, *backing_format;
    const struct format_ops *format;
    uint64_t size;
    bool has_size, overwrite, unchecked;
    enum file_preallocation preallocation;
};

/* The size of the backing file becomes that of the new image. */
static int size_of_backing(struct create_call *c, struct disk_queue *q)
{
    struct options o = {0};
    struct chain chain;
    int r;

    if (options_add(&o, "file", c->backing) < 0 ||
        options_add(&o, "format", c->backing_format) < 0 || options_add(&o, "readonly", NULL) < 0 ||
        (strcmp(c->backing_format, "raw") && options_add(&o, "backing", "header") < 0))
        r = qz_fail(c->err, -ENOMEM, "disk: no memory");
    else
        r = chain_open(&chain, &o, false, q, c->err);
    options_clear(&o);
    if (r < 0)
        return r;
    if (!c->has_size)
        c->size = chain.top->info.size;
    c->has_size = true;
    return chain_close(&chain, q, c->err);
}

static int read_keys(struct create_call *c, struct options *backing)
{
    static const char *const kinds[] = {"off", "metadata", "falloc", "full", NULL};
    struct options *o = c->options;
    const char *format = options_text(o, "format");
    unsigned kind = 0;
    int r;

    c->path = options_text(o, "file");
    c->data_path = options_text(o, "data-file");
    c->backing = options_text(o, "backing");
    c->backing_format = options_text(backing, "format");
    c->has_size = options_text(o, "size") != NULL;
    if (!c->path || !*c->path)
        return qz_fail(c->err, -EINVAL, "disk: file= is missing");
    if ((r = options_size(o, "size", &c->size, c->err)) < 0 ||
        (r = options_switch(o, "overwrite", &c->overwrite, c->err)) < 0 ||
        (r = options_switch(backing, "unchecked", &c->unchecked, c->err)) < 0)
        return r;
    /* A format reads it too: metadata is its own. */
    if ((r = options_word(o, "preallocation", kinds, &kind, c->err)) < 0)
        return r;
    c->preallocation = kind < 2 ? FILE_SPARSE : kind == 2 ? FILE_FALLOC : FILE_FULL;
    if (format && strcmp(format, "raw") && !(c->format = format_find(format)))
        return qz_fail(c->err, -EINVAL, "%s: no format has the name %s", c->path, format);
    if (!c->format && (c->backing || c->data_path || kind == 1))
        return qz_fail(c->err, -EINVAL, "%s: a raw disk has no %s", c->path,
                       c->backing     ? "backing file"
                       : c->data_path ? "external data file"
                                      : "metadata to allocate");
    if (c->backing && !c->backing_format)
        return qz_fail(c->err, -EINVAL,
                       "%s: say which format the backing file has: backing.format=", c->path);
    return options_check(backing, "backing", c->err);
}

static int open_made(struct layer **l, const char *path, struct qz_error *err)
{
    struct file_options f = {.path = path};

    return file_open(l, &f, err);
}

static int close_made(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int r = layer_close(l, q, err);

    l->ops->free(l);
    return r;
}

/* The files are there and empty; the format fills them. */
static int fill(struct create_call *c, struct disk_queue *q)
{
    struct format_create f = {.size = c->size,
                              .backing_file = c->backing,
                              .backing_format = c->backing_format,
                              .data_file_name = c->data_path,
                              .options = c->options};
    struct layer *file, *data = NULL;
    bool encrypted = options_has(c->options, "encryption");
    int r = encrypted || !strcmp(c->format->name, "luks") ? crypto_load(c->err) : 0, s;

    if (r < 0 || (r = open_made(&file, c->path, c->err)) < 0)
        return r;
    if (c->data_path && (r = open_made(&data, c->data_path, c->err)) < 0) {
        file->ops->free(file);
        return r;
    }
    f.data_file = data;
    r = c->format->create(file, q, &f, c->err);
    if (r == 0)
        r = options_check(c->options, c->path, c->err);
    s = close_made(file, q, r ? NULL : c->err);
    r = r ? r : s;
    if (data) {
        s = close_made(data, q, r ? NULL : c->err);
        r = r ? r : s;
    }
    return r;
}

static int create_main(struct disk_queue *q, void *argument)
{
    struct create_call *c = argument;
    int r;

    if (c->backing && !c->unchecked && (r = size_of_backing(c, q)) < 0)
        return r;
    if (!c->has_size)
        return qz_fail(c->err, -EINVAL, "%s: size= is missing", c->path);
    if (!c->format) {
        r = options_check(c->options, c->path, c->err);
        return r < 0 ? r : file_create(c->path, c->size, c->preallocation, c->overwrite, c->err);
    }
    if ((r = file_create(c->path, 0, FILE_SPARSE, c->overwrite, c->err)) < 0)
        return r;
    if (c->data_path)
        r = file_create(c->data_path, c->size, c->preallocation, c->overwrite, c->err);
    if (r == 0)
        r = fill(c, q);
    if (r < 0)
        unlink(c->path); /* ours, and no image */
    return r;
}

int qz_disk_create(const char *options, struct qz_error *err)
{
    struct options o, backing = {0};
    struct create_call c = {.options = &o, .err = err};
    int r = options_parse(&o, options, "file", err);

    if (r < 0)
        return r;
    r = options_split(&o, "backing", &backing);
    if (r < 0)
        qz_fail(err, r, "disk: no memory");
    else if ((r = read_keys(&c, &backing)) == 0)
        r = disk_run(create_main, &c, err);
    options_clear(&backing);
    options_clear(&o);
    return r;
}

/* ---- resize */

struct resize_call {
    struct qz_disk *disk;
    uint64_t size;
    struct qz_error *err;
};

static int resize_main(struct disk_queue *q, void *argument)
{
    struct resize_call *c = argument;

    return layer_resize(c->disk->chain.top, q, c->size, c->err);
}

int qz_disk_resize(struct qz_disk *d, uint64_t size, struct qz_error *err)
{
    struct resize_call c = {d, size, err};

    return disk_run(resize_main, &c, err);
}

int qz_disk_queue_resize(struct qz_disk_queue *q, uint64_t size, struct qz_error *err)
{
    struct resize_call c = {q->disk, size, err};

    return task_run(q->q, resize_main, &c);
}

/* ---- info */

unsigned qz_disk_facts(struct qz_disk *d, struct qz_disk_fact *facts, unsigned max)
{
    QZ_AUTO_FREE struct format_info *info = calloc(1, sizeof(*info));
    unsigned n;

    if (!info || !d->chain.format || !d->chain.format->info)
        return 0;
    d->chain.format->info(d->chain.format_layer, info);
    n = QZ_MIN(info->count, max);
    for (unsigned i = 0; i < n; i++) {
        facts[i].key = info->facts[i].key;
        facts[i].kind = (unsigned)info->facts[i].kind;
        facts[i].number = info->facts[i].number;
        memcpy(facts[i].text, info->facts[i].text, sizeof(facts[i].text));
    }
    return n;
}

struct names_call {
    struct options options;
    struct format_names names;
    struct qz_error *err;
};

static int names_main(struct disk_queue *q, void *argument)
{
    struct names_call *c = argument;
    const struct format_ops *format;
    struct layer *l, *below;
    int r = chain_open_protocol(&l, &c->options, true, q, c->err);

    if (r < 0)
        return r;
    r = chain_find_format(&format, &c->options, l, q, c->err);
    if (r == 0 && format && format->names)
        r = format->names(l, q, &c->names, c->err);
    for (; l; l = below) {
        below = l->below;
        l->ops->free(l);
    }
    return r;
}

int qz_disk_names(const char *options, char **backing, char **backing_format, char **data_file,
                  struct qz_error *err)
{
    struct names_call c = {.err = err};
    int r = options_parse(&c.options, options, "file", err);

    if (r == 0)
        r = disk_run(names_main, &c, err);
    options_clear(&c.options);
    *backing = c.names.backing_file;
    *backing_format = c.names.backing_format;
    *data_file = c.names.data_file;
    return r;
}

/* ---- check */

struct check_call {
    struct format_check check; /* first: the callbacks get it */
    struct options options;
    struct qz_disk_check *public;
    struct qz_error *err;
};

static void on_say(struct format_check *f, const char *text)
{
    struct check_call *c = QZ_CONTAINER_OF(f, struct check_call, check);

    c->public->say(c->public, text);
}

static void on_progress(struct format_check *f, double share)
{
    struct check_call *c = QZ_CONTAINER_OF(f, struct check_call, check);

    c->public->progress(c->public, share);
}

static int check_main(struct disk_queue *q, void *argument)
{
    struct check_call *c = argument;
    struct chain chain;
    int r = chain_open(&chain, &c->options, true, q, c->err), s;

    if (r < 0)
        return r;
    if (!chain.format || !chain.format->check)
        r = qz_fail(c->err, -ENOTSUP, "%s: a %s disk has nothing to check", chain.top->label,
                    chain.format ? chain.format->name : "raw");
    else
        r = chain.format->check(chain.format_layer, q, &c->check, c->err);
    s = chain_close(&chain, q, r ? NULL : c->err);
    return r ? r : s;
}

int qz_disk_check(const char *options, struct qz_disk_check *p, struct qz_error *err)
{
    struct check_call c = {.check = {.repair = p->repair,
                                     .say = p->say ? on_say : NULL,
                                     .progress = p->progress ? on_progress : NULL},
                           .public = p,
                           .err = err};
    int r = options_parse(&c.options, options, "file", err);

    if (r == 0)
        r = disk_keys_check(&c.options, err);
    if (r == 0 && !p->repair && !options_text(&c.options, "readonly"))
        r = options_add(&c.options, "readonly", NULL);
    if (r == 0)
        r = disk_run(check_main, &c, err);
    options_clear(&c.options);
    p->errors = c.check.errors;
    p->leaks = c.check.leaks;
    p->errors_repaired = c.check.errors_repaired;
    p->leaks_repaired = c.check.leaks_repaired;
    p->clusters = c.check.clusters;
    p->allocated = c.check.allocated;
    p->compressed = c.check.compressed;
    p->fragmented = c.check.fragmented;
    p->image_end = c.check.image_end;
    return r;
}

/* chain.c - options become a chain of layers (chain.h). */
#include "chain.h"
#include "crypto.h"
#include "task.h"

enum { GUESS_BYTES = 4096 };

static void free_layers(struct layer *l)
{
    while (l) {
        struct layer *below = l->below;

        l->ops->free(l);
        l = below;
    }
}

/* ---- the format */

int chain_find_format(const struct format_ops **f, struct options *o, struct layer *file,
                      struct disk_queue *q, struct qz_error *err)
{
    const char *name = options_text(o, "format");
    uint8_t head[GUESS_BYTES];
    size_t n;
    int r;

    *f = NULL;
    if (!name || !strcmp(name, "raw"))
        return 0;
    if (strcmp(name, "auto")) {
        *f = format_find(name);
        return *f ? 0 : qz_fail(err, -EINVAL, "%s: no format has the name %s", file->label, name);
    }
    n = QZ_MIN(file->info.size, (uint64_t)sizeof(head));
    r = layer_read(file, q, 0, head, n);
    if (r < 0)
        return qz_fail(err, r, "%s: cannot read its beginning: %s", file->label, strerror(-r));
    *f = format_guess(head, n);
    return 0;
}

/* A name in an image is relative to the image. */
static char *beside(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    char *path;

    if (*name == '/' || !slash)
        return strdup(name);
    if (asprintf(&path, "%.*s/%s", (int)(slash - image), image, name) < 0)
        return NULL;
    return path;
}

static int open_chain(struct chain *c, struct options *o, bool readonly, bool check, unsigned depth,
                      struct disk_queue *q, struct qz_error *err);

/* What the user said about the backing file, as options of its own; b is empty: none. */
static int backing_options(struct options *b, const char *said, const struct format_names *names,
                           const char *image, struct qz_error *err)
{
    QZ_AUTO_FREE char *path = NULL;

    if (!said && !names->backing_file)
        return 0;
    if (!said)
        return qz_fail(err, -EPERM,
                       "%s: its header names the backing file %s, which is not opened unasked: say "
                       "backing=FILE, backing=header or backing=none",
                       image, names->backing_file);
    if (!strcmp(said, "none"))
        return 0;
    if (strcmp(said, "header"))
        return options_add(b, "file", said);
    if (!names->backing_file)
        return 0;
    if (!names->backing_format && !options_text(b, "format"))
        return qz_fail(err, -EINVAL,
                       "%s: its header does not say which format the backing file %s has: add "
                       "backing.format=",
                       image, names->backing_file);
    path = beside(image, names->backing_file);
    if (!path || options_add(b, "file", path) < 0)
        return -ENOMEM;
    if (!options_text(b, "format"))
        return options_add(b, "format", names->backing_format);
    return options_add(b, "backing", "header") == 0 ? 0 : -ENOMEM;
}

static int open_backing(struct chain *c, struct options *o, const struct format_names *names,
                        const char *image, unsigned depth, struct disk_queue *q,
                        struct qz_error *err)
{
    const char *said = options_text(o, "backing");
    struct options b;
    int r = options_split(o, "backing", &b);

    if (r == 0)
        r = backing_options(&b, said, names, image, err);
    if (r == 0 && said && !strcmp(said, "header") && !options_text(&b, "backing"))
        r = options_add(&b, "backing", "header");
    if (r == 0 && options_text(&b, "file")) {
        c->backing = calloc(1, sizeof(*c->backing));
        r = c->backing ? open_chain(c->backing, &b, true, false, depth + 1, q, err) : -ENOMEM;
        if (r < 0) {
            free(c->backing);
            c->backing = NULL;
        }
    }
    options_clear(&b);
    if (r == -ENOMEM)
        qz_fail(err, r, "%s: no memory", image);
    return r;
}

static int open_data_file(struct chain *c, struct options *o, const struct format_names *names,
                          const char *image, bool readonly, struct disk_queue *q,
                          struct qz_error *err)
{
    const char *said = options_text(o, "data-file");
    QZ_AUTO_FREE char *path = NULL;
    struct options d = {0};
    int r;

    if (!names->data_file)
        return said ? qz_fail(err, -EINVAL, "%s: it has no external data file", image) : 0;
    if (!said)
        return qz_fail(err, -EPERM,
                       "%s: its header names the data file %s, which is not opened unasked: say "
                       "data-file=FILE or data-file=header",
                       image, names->data_file);
    path = strcmp(said, "header") ? strdup(said) : beside(image, names->data_file);
    if (!path || options_add(&d, "file", path) < 0)
        return qz_fail(err, -ENOMEM, "%s: no memory", image);
    r = chain_open_protocol(&c->data_file, &d, readonly, q, err);
    options_clear(&d);
    return r;
}

/* Whether reading or writing the image will take libcrypto, which cannot be loaded later:
 * encryption, or the checksums of the metadata log. */
static bool needs_crypto(const struct format_ops *format, const struct options *o)
{
    return !strcmp(format->name, "luks") || options_has(o, "key_file") ||
           options_has(o, "key_secret") || options_has(o, "metadata_log");
}

/* c->top is the protocol and becomes the format. */
static int open_format(struct chain *c, struct options *o, bool readonly, bool check,
                       unsigned depth, struct disk_queue *q, struct qz_error *err)
{
    struct format_names names = {0};
    struct format_open f = {
        .readonly = readonly, .check = check, .options = o, .label = c->top->label};
    struct layer *l;
    int r = needs_crypto(c->format, o) ? crypto_load(err) : 0;

    if (r < 0)
        return r;
    r = c->format->names ? c->format->names(c->top, q, &names, err) : 0;

    if (r == 0)
        r = open_data_file(c, o, &names, c->top->label, readonly, q, err);
    if (r == 0 && !check)
        r = open_backing(c, o, &names, c->top->label, depth, q, err);
    format_names_clear(&names);
    if (r < 0)
        return r;
    f.data_file = c->data_file;
    r = c->format->open(&l, c->top, q, &f, err);
    if (r < 0)
        return r;
    l->backing = c->backing ? c->backing->top : NULL;
    c->top = l;
    return 0;
}

/* ---- the whole */

void chain_abandon(struct chain *c)
{
    free_layers(c->top);
    free_layers(c->data_file);
    if (c->backing) {
        chain_abandon(c->backing);
        free(c->backing);
    }
    *c = (struct chain){0};
}

/* A raw disk has none, which is what these two ask for. */
static void no_backing(struct options *o)
{
    for (unsigned i = 0; i < o->count; i++) {
        struct option *p = &o->list[i];

        if (!strcmp(p->key, "backing") && p->value &&
            (!strcmp(p->value, "none") || !strcmp(p->value, "header")))
            p->taken = true;
    }
}

int chain_name_image(struct qz_error *err, const char *label, int r)
{
    if (err && !strstr(err->text, label))
        qz_error_prefix(err, "%s", label);
    return r;
}

static int build(struct chain *c, struct options *o, bool readonly, bool check, unsigned depth,
                 struct disk_queue *q, struct qz_error *err)
{
    int r = chain_open_protocol(&c->top, o, readonly, q, err);

    if (r < 0)
        return r;
    if ((r = chain_add_inject(c, o, "inject-below", err)) < 0 ||
        (r = chain_find_format(&c->format, o, c->top, q, err)) < 0)
        return r;
    if (!c->format)
        no_backing(o);
    else if ((r = open_format(c, o, readonly, check, depth, q, err)) < 0)
        return chain_name_image(err, c->top->label, r);
    c->format_layer = c->top;
    if ((r = chain_add_filters(c, o, err)) < 0)
        return r;
    return options_check(o, c->top->label, err);
}

static int open_chain(struct chain *c, struct options *o, bool readonly, bool check, unsigned depth,
                      struct disk_queue *q, struct qz_error *err)
{
    int r;

    if (depth > CHAIN_BACKING_MAX)
        return qz_fail(err, -ELOOP, "disk: more than %d backing files, or a circle of them",
                       CHAIN_BACKING_MAX);
    if ((r = options_switch(o, "readonly", &readonly, err)) < 0)
        return r;
    r = build(c, o, readonly, check, depth, q, err);
    if (r < 0)
        chain_abandon(c);
    return r;
}

int chain_open(struct chain *c, struct options *o, bool check, struct disk_queue *q,
               struct qz_error *err)
{
    *c = (struct chain){0};
    return open_chain(c, o, false, check, 0, q, err);
}

static int close_layers(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int first = 0;

    for (; l; l = l->below) {
        int r = layer_close(l, q, first ? NULL : err);

        first = first ? first : r;
    }
    return first;
}

int chain_close(struct chain *c, struct disk_queue *q, struct qz_error *err)
{
    int r = close_layers(c->top, q, err), s;

    s = close_layers(c->data_file, q, r ? NULL : err);
    r = r ? r : s;
    if (c->backing) {
        s = chain_close(c->backing, q, r ? NULL : err);
        r = r ? r : s;
        free(c->backing);
        c->backing = NULL;
    }
    chain_abandon(c);
    return r;
}

/* Back from the top down to, not including, `end`. */
static void thaw_layers(struct layer *l, const struct layer *end)
{
    for (; l != end; l = l->below)
        layer_thaw(l);
}

static int freeze_layers(struct layer *top, struct disk_queue *q, struct qz_error *err)
{
    for (struct layer *l = top; l; l = l->below) {
        int r = layer_freeze(l, q, err);

        if (r < 0) {
            thaw_layers(top, l);
            return r;
        }
    }
    return 0;
}

int chain_freeze(struct chain *c, struct disk_queue *q, struct qz_error *err)
{
    int r = layer_flush(c->format_layer, q);

    if (r < 0)
        return qz_fail(err, r, "%s: cannot flush it: %s", c->format_layer->label, strerror(-r));
    if ((r = freeze_layers(c->format_layer, q, err)) < 0)
        return r;
    r = c->data_file ? freeze_layers(c->data_file, q, err) : 0;
    if (r < 0)
        thaw_layers(c->format_layer, NULL);
    return r;
}

void chain_forget(struct chain *c)
{
    for (struct layer *l = c->top; l != c->format_layer; l = l->below)
        layer_forget(l);
}

static unsigned count_caches(struct chain *c)
{
    unsigned n = 0;

    for (; c; c = c->backing)
        for (struct layer *l = c->top; l; l = l->below)
            n += l->ops->set_memory != NULL;
    return n;
}

void chain_set_memory(struct chain *c, uint64_t bytes)
{
    unsigned n = count_caches(c);

    for (; c; c = c->backing)
        for (struct layer *l = c->top; l; l = l->below)
            layer_set_memory(l, bytes / QZ_MAX(n, 1u));
}

int chain_map(struct chain *c, struct disk_queue *q, uint64_t offset, uint64_t length, bool deep,
              struct extent *e, bool *zero)
{
    struct layer *top = c->top;
    unsigned depth = 0;
    int r = layer_map(top, q, offset, length, e);

    while (r == 0 && deep && e->state == EXTENT_UNALLOCATED && c->backing) {
        length = e->length;
        c = c->backing;
        if (offset >= c->top->info.size) {
            c = NULL;
            break;
        }
        r = layer_map(c->top, q, offset, length, e);
        depth++;
    }
    e->depth = depth;
    *zero = r == 0 &&
            (e->state == EXTENT_ZERO || (e->state == EXTENT_UNALLOCATED && (!c || !c->backing)));
    return r;
}

/* cow_image.c - making and opening cow images (cow_format.h). */
#include "cow_internal.h"

static bool probe(const void *head, size_t length)
{
    return length >= 8 && !memcmp(head, COW_MAGIC, 8);
}

/* Reads the header and checks every field. */
static int read_header(struct layer *file, struct disk_queue *q, struct cow_header *h,
                       struct qz_error *err)
{
    int r = file->info.size < sizeof(*h) ? -EINVAL : layer_read(file, q, 0, h, sizeof(*h));
    const char *bad = NULL;

    if (r < 0 && r != -EINVAL)
        return qz_fail(err, r, "%s: cannot read its header: %s", file->label, strerror(-r));
    if (r < 0 || memcmp(h->magic, COW_MAGIC, 8))
        return qz_fail(err, -EINVAL, "%s: no cow image", file->label);
    h->version = qz_load_le32(&h->version);
    h->granule = qz_load_le32(&h->granule);
    h->size = qz_load_le64(&h->size);
    h->bitmap_offset = qz_load_le64(&h->bitmap_offset);
    h->data_offset = qz_load_le64(&h->data_offset);
    if (h->version != COW_VERSION)
        return qz_fail(err, -ENOTSUP, "%s: cow version %u is not known here", file->label,
                       h->version);
    if (h->granule != COW_GRANULE)
        bad = "granule (offset 12)";
    else if (!h->size || h->size > COW_SIZE_MAX)
        bad = "size (offset 16)";
    else if (h->bitmap_offset != COW_BITMAP)
        bad = "offset of the bitmap (offset 24)";
    else if (h->data_offset != cow_data_offset(h->size))
        bad = "offset of the data (offset 32)";
    else if (file->info.size < h->data_offset + h->size)
        bad = "size is more than the file has: size (offset 16)";
    else if (!memchr(h->backing_file, 0, COW_NAME_MAX) ||
             !memchr(h->backing_format, 0, COW_FORMAT_MAX))
        bad = "name of the backing file (offset 40) has no end";
    return bad ? qz_fail(err, -EINVAL, "%s: damaged cow header: %s", file->label, bad) : 0;
}

static int names(struct layer *file, struct disk_queue *q, struct format_names *n,
                 struct qz_error *err)
{
    QZ_AUTO_FREE struct cow_header *h = malloc(sizeof(*h));
    int r = h ? read_header(file, q, h, err) : qz_fail(err, -ENOMEM, "%s: no memory", file->label);

    if (r < 0 || !h->backing_file[0])
        return r;
    n->backing_file = strdup(h->backing_file);
    n->backing_format = h->backing_format[0] ? strdup(h->backing_format) : NULL;
    return n->backing_file ? 0 : qz_fail(err, -ENOMEM, "%s: no memory", file->label);
}

/* A piece at a time, so that a large bitmap is no one large request. */
static int read_bitmap(struct cow *c, struct disk_queue *q, struct qz_error *err)
{
    uint64_t bytes = cow_bitmap_bytes(c->l.info.size), n;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    c->bitmap = p == MAP_FAILED ? NULL : p;
    c->dirty = calloc(bytes / COW_PAGE, 1);
    if (!c->bitmap || !c->dirty)
        return qz_fail(err, -ENOMEM, "%s: no memory for its bitmap of %llu bytes", c->l.label,
                       (unsigned long long)bytes);
    for (uint64_t at = 0; at < bytes; at += n) {
        int r;

        n = QZ_MIN(bytes - at, (uint64_t)1 << 20);
        r = layer_read(c->l.below, q, COW_BITMAP + at, c->bitmap + at, n);
        if (r < 0)
            return qz_fail(err, r, "%s: cannot read its bitmap: %s", c->l.label, strerror(-r));
    }
    return 0;
}

static int open_image(struct layer **l, struct layer *file, struct disk_queue *q,
                      const struct format_open *o, struct qz_error *err)
{
    QZ_AUTO_FREE struct cow_header *h = malloc(sizeof(*h));
    struct cow *c = calloc(1, sizeof(*c));
    int r =
        h && c ? read_header(file, q, h, err) : qz_fail(err, -ENOMEM, "%s: no memory", file->label);

    if (r < 0) {
        free(c);
        return r;
    }
    filter_init(&c->l, &cow_ops, file);
    c->l.info.size = h->size;
    c->l.info.preferred = COW_GRANULE;
    c->data_offset = h->data_offset;
    r = read_bitmap(c, q, err);
    if (r < 0) {
        cow_free(&c->l);
        return r;
    }
    *l = &c->l;
    return 0;
}

static int create(struct layer *file, struct disk_queue *q, const struct format_create *f,
                  struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *page = calloc(1, COW_PAGE);
    struct cow_header *h = (struct cow_header *)page;
    int r;

    if (!h)
        return qz_fail(err, -ENOMEM, "%s: no memory", file->label);
    if (!f->size || f->size > COW_SIZE_MAX)
        return qz_fail(err, -EINVAL, "%s: a cow image has 1 byte to 16 TiB", file->label);
    if ((f->backing_file && strlen(f->backing_file) >= COW_NAME_MAX) ||
        (f->backing_format && strlen(f->backing_format) >= COW_FORMAT_MAX))
        return qz_fail(err, -ENAMETOOLONG, "%s: the backing file's name is longer than %d",
                       file->label, COW_NAME_MAX - 1);
    memcpy(h->magic, COW_MAGIC, sizeof(h->magic));
    qz_store_le32(&h->version, COW_VERSION);
    qz_store_le32(&h->granule, COW_GRANULE);
    qz_store_le64(&h->size, f->size);
    qz_store_le64(&h->bitmap_offset, COW_BITMAP);
    qz_store_le64(&h->data_offset, cow_data_offset(f->size));
    if (f->backing_file)
        strcpy(h->backing_file, f->backing_file);
    if (f->backing_format)
        strcpy(h->backing_format, f->backing_format);
    r = layer_resize(file, q, cow_data_offset(f->size) + f->size, err);
    if (r < 0)
        return r;
    r = layer_write(file, q, 0, page, COW_PAGE);
    if (r == 0)
        r = layer_flush(file, q);
    return r < 0 ? qz_fail(err, r, "%s: cannot write its header: %s", file->label, strerror(-r))
                 : 0;
}

static void info(struct layer *l, struct format_info *i)
{
    const struct cow *c = cow_of(l);
    uint64_t here = 0, bytes = cow_bitmap_bytes(l->info.size);

    for (uint64_t b = 0; b < bytes; b++)
        here += (unsigned)__builtin_popcount(c->bitmap[b]);
    format_fact_bytes(i, "granule_size", COW_GRANULE);
    format_fact_bytes(i, "changed", here * COW_GRANULE);
}

const struct format_ops cow_format = {
    .name = "cow",
    .probe = probe,
    .names = names,
    .open = open_image,
    .create = create,
    .info = info,
};

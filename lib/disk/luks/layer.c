/*
 * layer.c - a LUKS volume as a layer, and as one of the formats (../format.h).
 *
 * No task and no copy where it can be: reads are decrypted where they arrived, writes go out from
 * an encrypted copy, because the guest's memory is not ours to change.
 */
#include "../format.h"
#include "../queue.h"
#include "../task.h"
#include "volume.h"

struct luks {
    struct layer layer;
    struct luks_volume volume;
};

struct luks_io {
    struct request r;
    struct request *parent;
    struct luks *luks;
    struct iovec iov;
    uint8_t bytes[];
};

static struct luks *luks_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct luks, layer);
}

static int run(struct luks *l, bool encrypt, uint64_t offset, void *bytes, uint64_t length)
{
    return luks_cipher_run(l->volume.cipher, encrypt, l->volume.iv_sector + (offset >> 9),
                           l->volume.sector_bytes, bytes, length);
}

/* Decrypts what came in the guest's vectors: in place where each is whole sectors. */
static int decrypt(struct luks *l, const struct request *r)
{
    uint64_t at = r->offset;
    bool whole = true;
    uint8_t *flat;
    int rc = 0;

    for (unsigned n = 0; n < r->iov_count; n++)
        whole &= r->iov[n].iov_len % l->volume.sector_bytes == 0;
    for (unsigned n = 0; whole && !rc && n < r->iov_count; n++) {
        rc = run(l, false, at, r->iov[n].iov_base, r->iov[n].iov_len);
        at += r->iov[n].iov_len;
    }
    if (whole)
        return rc;
    flat = malloc(r->length);
    if (!flat)
        return -ENOMEM;
    iov_to_flat(flat, r->iov, r->iov_count, 0, r->length);
    rc = run(l, false, r->offset, flat, r->length);
    iov_from_flat(r->iov, r->iov_count, 0, flat, r->length);
    free(flat);
    return rc;
}

static void on_done(struct request *r, int result)
{
    struct luks_io *io = QZ_CONTAINER_OF(r, struct luks_io, r);
    struct request *parent = io->parent;

    if (!result && parent->op == DISK_READ)
        result = decrypt(io->luks, parent);
    free(io);
    parent->done(parent, result);
}

static void submit(struct layer *layer, struct disk_queue *q, struct request *r)
{
    struct luks *l = luks_of(layer);
    bool copy = r->op == DISK_WRITE;
    size_t size = QZ_ALIGN_UP(sizeof(struct luks_io), 4096ul) + (copy ? r->length : 0);
    struct luks_io *io;
    int rc = 0;

    if (r->op == DISK_WRITE_ZEROES) {
        /* Zeroes on the medium are not zeroes for the guest; whoever asked writes bytes. */
        r->done(r, -ENOTSUP);
        return;
    }
    io = copy ? aligned_alloc(4096, QZ_ALIGN_UP(size, 4096ul)) : malloc(sizeof(*io));
    if (!io) {
        r->done(r, -ENOMEM);
        return;
    }
    io->r = *r;
    io->r.done = on_done;
    io->parent = r;
    io->luks = l;
    if (r->op != DISK_FLUSH)
        io->r.offset += l->volume.payload;
    if (copy) {
        uint8_t *bytes = (uint8_t *)io + QZ_ALIGN_UP(sizeof(*io), 4096ul);

        iov_to_flat(bytes, r->iov, r->iov_count, 0, r->length);
        rc = run(l, true, r->offset, bytes, r->length);
        io->iov = (struct iovec){bytes, r->length};
        io->r.iov = &io->iov;
        io->r.iov_count = 1;
    }
    if (rc)
        on_done(&io->r, rc);
    else
        layer_submit(layer->below, q, &io->r);
}

static int map(struct layer *layer, struct disk_queue *q, uint64_t offset, uint64_t length,
               struct extent *e)
{
    /* All of it is data: a hole below decrypts to noise, not to zeroes. */
    *e = (struct extent){.length = length, .state = EXTENT_DATA};
    return 0;
}

static int resize(struct layer *layer, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    struct luks *l = luks_of(layer);
    int rc;

    if (l->volume.payload_bytes)
        return qz_fail(err, -ENOTSUP, "%s: its header fixes the size", layer->label);
    if (size % l->volume.sector_bytes)
        return qz_fail(err, -EINVAL, "%s: the size must be a multiple of %u bytes", layer->label,
                       l->volume.sector_bytes);
    rc = layer_resize(layer->below, q, l->volume.payload + size, err);
    if (!rc)
        __atomic_store_n(&layer->info.size, size, __ATOMIC_RELAXED);
    return rc;
}

static void free_layer(struct layer *layer)
{
    struct luks *l = luks_of(layer);

    luks_volume_clear(&l->volume);
    free(layer->label);
    free(l);
}

static const struct layer_ops ops = {
    .name = "luks", .submit = submit, .map = map, .resize = resize, .free = free_layer};

static int fill_info(struct luks *l, struct layer *file, bool readonly, struct qz_error *err)
{
    uint64_t size = file->info.size, start = l->volume.payload;

    if (start >= size || (l->volume.payload_bytes && l->volume.payload_bytes > size - start))
        return qz_fail(err, -EINVAL, "the data at 0x%llx runs past the end of the file (0x%llx)",
                       (unsigned long long)start, (unsigned long long)size);
    if (start % file->info.alignment)
        return qz_fail(err, -ENOTSUP,
                       "the data at 0x%llx does not suit a file that wants "
                       "multiples of %u: open it with cache=writeback",
                       (unsigned long long)start, file->info.alignment);
    l->layer.info = file->info;
    l->layer.info.size = l->volume.payload_bytes
                             ? l->volume.payload_bytes
                             : QZ_ALIGN_DOWN(size - start, (uint64_t)l->volume.sector_bytes);
    l->layer.info.alignment = QZ_MAX(file->info.alignment, l->volume.sector_bytes);
    l->layer.info.write_zeroes = false;
    l->layer.info.encrypted = true;
    l->layer.info.readonly = readonly || file->info.readonly;
    return 0;
}

static int luks_open(struct layer **out, struct layer *file, struct disk_queue *q,
                     const struct format_open *o, struct qz_error *err)
{
    struct luks *l = calloc(1, sizeof(*l));
    struct luks_secret s;
    void *owned;
    int rc;

    if (!l)
        return qz_fail(err, -ENOMEM, "no memory");
    l->layer.ops = &ops;
    l->layer.below = file;
    l->layer.label = strdup(o->label ? o->label : file->label ? file->label : "luks");
    rc = luks_secret_take(o->options, &s, &owned, err);
    if (!rc)
        rc = luks_volume_open(&l->volume, file, q, 0, file->info.size, &s, err);
    luks_secret_clear(&s, &owned);
    if (!rc)
        rc = fill_info(l, file, o->readonly, err);
    if (rc) {
        qz_error_prefix(err, "%s", l->layer.label ? l->layer.label : "luks");
        free_layer(&l->layer);
        return rc;
    }
    *out = &l->layer;
    return 0;
}

/* ---- create */

int luks_take_new(struct luks_new *n, struct options *o, struct qz_error *err)
{
    static const char *const versions[] = {"1", "2", NULL};
    static const char *const kdfs[] = {"pbkdf2", "argon2id", NULL};
    uint64_t sector = 512;
    unsigned version = n->version - 1, argon = 0;
    int rc = options_word(o, "luks_version", versions, &version, err);

    argon = version == 1;
    if (!rc)
        rc = options_word(o, "luks_kdf", kdfs, &argon, err);
    if (!rc)
        rc = options_number(o, "luks_iterations", 1000, LUKS_ITERATIONS_MAX, &n->iterations, err);
    if (!rc)
        rc = options_number(o, "luks_memory_kib", 64, LUKS_ARGON_KIB_MAX, &n->argon_kib, err);
    if (!rc)
        rc = options_size(o, "luks_sector", &sector, err);
    if (rc)
        return rc;
    n->version = version + 1;
    n->argon = argon;
    n->sector_bytes = (uint32_t)sector;
    if (n->version == 1 && (argon || sector != 512))
        return qz_fail(err, -EINVAL, "LUKS1 knows only pbkdf2 and sectors of 512 bytes");
    if (sector < 512 || sector > 4096 || sector & (sector - 1))
        return qz_fail(err, -EINVAL, "luks_sector must be 512 B, 1 KiB, 2 KiB or 4 KiB");
    return 0;
}

static int luks_create(struct layer *file, struct disk_queue *q, const struct format_create *c,
                       struct qz_error *err)
{
    struct luks_new n = {.version = 2};
    struct luks_secret s;
    void *owned;
    int rc = luks_take_new(&n, c->options, err);

    if (rc)
        return rc;
    if (c->backing_file || c->data_file_name)
        return qz_fail(err, -EINVAL, "LUKS has no backing or data files");
    if (c->size % n.sector_bytes)
        return qz_fail(err, -EINVAL, "the size must be a multiple of %u bytes", n.sector_bytes);
    rc = luks_secret_take(c->options, &s, &owned, err);
    if (!rc)
        rc = layer_resize(file, q, luks_header_bytes(n.version) + c->size, err);
    if (!rc)
        rc = luks_volume_create(file, q, 0, &n, &s, err);
    luks_secret_clear(&s, &owned);
    if (!rc) {
        rc = layer_flush(file, q);
        if (rc)
            qz_fail(err, rc, "cannot flush: %s", strerror(-rc));
    }
    return rc;
}

static bool probe(const void *head, size_t length)
{
    return length >= 8 && !memcmp(head, "LUKS\xba\xbe", 6);
}

static int names(struct layer *file, struct disk_queue *q, struct format_names *n,
                 struct qz_error *err)
{
    *n = (struct format_names){0};
    return 0;
}

static void info(struct layer *layer, struct format_info *f)
{
    const struct luks *l = luks_of(layer);

    format_fact_number(f, "luks_version", l->volume.version);
    format_fact_text(f, "encryption", "%s", l->volume.encryption);
    format_fact_text(f, "uuid", "%s", l->volume.uuid);
    format_fact_bytes(f, "payload_offset", l->volume.payload);
    format_fact_bytes(f, "luks_sector", l->volume.sector_bytes);
}

const struct format_ops luks_format = {.name = "luks",
                                       .probe = probe,
                                       .names = names,
                                       .open = luks_open,
                                       .create = luks_create,
                                       .info = info};

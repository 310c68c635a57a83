/* seed.c - writes small images of all kinds into a folder, for the fuzz targets to change. */
#include "../format.h"
#include "../memory.h"
#include "../options.h"
#include "image.h"

enum { FILE_MAX = 16 << 10 };

static const char *const kinds[] = {
    "cluster_size=512B",
    "cluster_size=512B,refcount_bits=1",
    "cluster_size=512B,refcount_bits=64",
    "cluster_size=1KiB,compat=0.10",
    "cluster_size=512B,lazy_refcounts",
    "cluster_size=1KiB,compression_type=zstd",
};

struct seed {
    const char *folder;
    unsigned kind;
    struct qz_error err;
};

static int fill(struct layer *l, struct disk_queue *q, const struct seed *s)
{
    uint8_t b[1024];
    struct qz_error err;
    int rc;

    memset(b, 7, sizeof(b));
    rc = layer_write(l, q, 700, b, 900);
    if (!rc && s->kind != 1)
        rc = qcow2_snapshot_create(l, q, "one", &err);
    if (!rc)
        rc = layer_write(l, q, 0, b, 1000);
    if (!rc)
        rc = layer_write_zeroes(l, q, 4096, 1024, 0);
    if (!rc)
        rc = qcow2_write_packed(l, q, 8192, b, qcow2_of(l)->cluster_size);
    return rc;
}

static int in_task(struct disk_queue *q, void *argument)
{
    struct seed *s = argument;
    struct options o;
    struct format_create c = {.size = 16 << 10, .options = &o};
    struct layer *file, *l;
    char path[1000];
    FILE *f;
    int rc = options_parse(&o, kinds[s->kind], NULL, &s->err);

    if (rc || memory_open(&file, &(struct memory_options){.size_max = FILE_MAX}, &s->err))
        return -1;
    rc = qcow2_create(file, q, &c, &s->err);
    if (!rc)
        rc = qcow2_open(&l, file, q, &(struct format_open){0}, &s->err);
    if (!rc) {
        rc = fill(l, q, s);
        if (!rc)
            rc = layer_close(l, q, &s->err);
        l->ops->free(l);
    }
    snprintf(path, sizeof(path), "%s%u", s->folder, s->kind);
    f = rc ? NULL : fopen(path, "wb");
    if (f) {
        fwrite(memory_bytes(file), 1, file->info.size, f);
        rc = fclose(f);
    }
    options_clear(&o);
    file->ops->free(file);
    return rc || !f ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct disk_queue *q;
    struct qz_error err;

    if (argc != 2 || queue_new(&q, 16, &err))
        return 2;
    for (unsigned n = 0; n < QZ_ARRAY_LEN(kinds); n++) {
        struct seed s = {argv[1], n, {0}};

        if (task_run(q, in_task, &s)) {
            fprintf(stderr, "%s: %s\n", kinds[n], s.err.text);
            return 1;
        }
    }
    queue_free(q);
    return 0;
}

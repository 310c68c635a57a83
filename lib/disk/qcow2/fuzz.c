/*
 * fuzz.c - any bytes as an image: opened, read, written, snapshotted, checked, repaired.
 *
 * Nothing may crash, hang or reach past the file's limit; every call may fail. The image is opened
 * for reading, for writing, and for a repair, after which a second check must find less, not more.
 */
#include "../format.h"
#include "../memory.h"
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_MAX = 4 << 20, PIECE = 70000 };

struct fuzz {
    const uint8_t *data;
    size_t size;
};

static uint8_t bytes[PIECE];

static struct layer *file_of(const struct fuzz *f)
{
    struct layer *file;
    struct qz_error err;

    if (memory_open(&file, &(struct memory_options){.size = f->size, .size_max = FILE_MAX}, &err))
        abort();
    if (f->size)
        memcpy(memory_bytes(file), f->data, f->size);
    return file;
}

static void use(struct layer *l, struct disk_queue *q)
{
    uint64_t size = l->info.size, last = size > PIECE ? size - PIECE : 0;
    size_t n = (size_t)QZ_MIN(size, (uint64_t)PIECE);
    struct extent e;

    if (!n)
        return;
    layer_map(l, q, 0, size, &e);
    layer_read(l, q, 0, bytes, n);
    layer_read(l, q, last, bytes, n);
    memset(bytes, 0x5a, sizeof(bytes));
    layer_write(l, q, 0, bytes, 512);
    layer_write(l, q, 300, bytes, QZ_MIN(n, (size_t)3000) / 2);
    layer_write(l, q, last, bytes, n);
    layer_write_zeroes(l, q, 0, n, REQUEST_MAY_UNMAP);
    layer_discard(l, q, last, n);
    layer_write(l, q, last, bytes, n);
    layer_flush(l, q);
}

static void whole(struct layer *l, struct disk_queue *q)
{
    struct format_snapshot *list;
    struct qz_error err;
    unsigned count;

    if (!qcow2_snapshot_list(l, q, &list, &count, &err)) {
        qcow2_snapshot_create(l, q, "fuzz", &err);
        if (count)
            qcow2_snapshot_apply(l, q, list[0].name, &err);
        if (count)
            qcow2_snapshot_delete(l, q, list[0].id, &err);
        format_snapshots_free(list, count);
    }
    if (l->info.size < (1 << 20))
        layer_resize(l, q, (1 << 20) + 512, &err);
    layer_resize(l, q, 4096, &err);
}

static int once(struct disk_queue *q, struct layer *file, bool readonly, bool repair)
{
    struct format_open o = {.readonly = readonly, .check = repair};
    struct qz_error err;
    struct layer *l;

    if (qcow2_open(&l, file, q, &o, &err))
        return 0;
    if (repair) {
        struct format_check c = {.repair = true}, again = {0};

        if (!qcow2_check(l, q, &c, &err) && !qcow2_check(l, q, &again, &err) &&
            again.errors > c.errors - c.errors_repaired)
            abort();
    }
    use(l, q);
    if (!readonly)
        whole(l, q);
    if (!layer_freeze(l, q, &err))
        layer_read(l, q, 0, bytes, QZ_MIN(l->info.size, (uint64_t)PIECE));
    else
        use(l, q);
    layer_close(l, q, &err);
    l->ops->free(l);
    return 1;
}

static int in_task(struct disk_queue *q, void *argument)
{
    static const struct {
        bool readonly, repair;
    } ways[] = {{true, false}, {false, false}, {false, true}};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(ways); n++) {
        struct layer *file = file_of(argument);

        once(q, file, ways[n].readonly, ways[n].repair);
        file->ops->free(file);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct disk_queue *q;
    struct fuzz f = {data, size};
    struct qz_error err;

    if (!q && queue_new(&q, 16, &err))
        abort();
    task_run(q, in_task, &f);
    return 0;
}

/* seed.c - the first 16 KiB of LUKS volumes of both versions, for the fuzz target to change.
 */
#include "../memory.h"
#include "../queue.h"
#include "../task.h"
#include "volume.h"

enum { HEAD = 16384 };

static const struct luks_new kinds[] = {
    {.version = 1, .iterations = 1000, .sector_bytes = 512},
    {.version = 2, .iterations = 1000, .sector_bytes = 512},
    {.version = 2, .iterations = 1000, .argon = true, .argon_kib = 64, .sector_bytes = 4096},
};

struct seed {
    struct layer *file;
    unsigned kind;
    struct qz_error err;
};

static int in_task(struct disk_queue *q, void *argument)
{
    struct luks_secret s = {.bytes = "pass", .length = 4};
    struct seed *d = argument;

    return luks_volume_create(d->file, q, 0, &kinds[d->kind], &s, &d->err);
}

int main(int argc, char **argv)
{
    struct disk_queue *q;
    struct qz_error err;

    if (argc != 2 || queue_new(&q, 16, &err))
        return 2;
    for (unsigned n = 0; n < QZ_ARRAY_LEN(kinds); n++) {
        struct seed s = {.kind = n};
        char path[1000];
        FILE *f;

        if (memory_open(&s.file, &(struct memory_options){.size = 17 << 20}, &err) ||
            task_run(q, in_task, &s)) {
            fprintf(stderr, "%s\n", s.err.text);
            return 1;
        }
        snprintf(path, sizeof(path), "%s%u", argv[1], n);
        f = fopen(path, "wb");
        if (!f || fwrite(memory_bytes(s.file), 1, HEAD, f) != HEAD || fclose(f))
            return 1;
        s.file->ops->free(s.file);
    }
    queue_free(q);
    return 0;
}

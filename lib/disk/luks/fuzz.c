/*
 * fuzz.c - any bytes as a LUKS header, version 1 or 2.
 *
 * The checksum of a version 2 header is put right before it is used, so that changed metadata gets
 * past it. How much work a header may ask for is held down; a real one may ask for a minute's.
 */
#include "../memory.h"
#include "../queue.h"
#include "../task.h"
#include "volume.h"
#include <openssl/evp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES = 1 << 20, HEADER2 = 16384, SUM_AT = 448 };

static void put_right(uint8_t *b)
{
    unsigned n;

    if (qz_load_be16(b + 6) != 2)
        return;
    memset(b + SUM_AT, 0, 64);
    memcpy(b + 72, "sha256", 7);
    qz_store_be64(b + 8, HEADER2);
    EVP_Digest(b, HEADER2, b + SUM_AT, &n, EVP_sha256(), NULL);
}

static int in_task(struct disk_queue *q, void *argument)
{
    struct luks_secret s = {
        .bytes = "pass", .length = 4, .most_iterations = 2000, .most_kib = 1024};
    struct layer *file = argument;
    struct luks_volume v;
    struct qz_error err = {0};

    luks_volume_open(&v, file, q, 0, file->info.size, &s, &err);
    luks_volume_clear(&v);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct disk_queue *q;
    struct layer *file;
    struct qz_error err;

    if (!q && queue_new(&q, 16, &err))
        abort();
    if (memory_open(&file, &(struct memory_options){.size = FILE_BYTES}, &err))
        abort();
    if (size)
        memcpy(memory_bytes(file), data, QZ_MIN(size, (size_t)FILE_BYTES));
    put_right(memory_bytes(file));
    task_run(q, in_task, file);
    file->ops->free(file);
    return 0;
}

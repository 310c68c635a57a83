/* blocking.c - requests that the caller waits for, and what a disk has where (<queztl/disk.h>). */
#include <assert.h>

#include "disk_internal.h"

struct blocking {
    struct qz_disk_request r;
    bool done;
    int result;
};

static void on_blocking_done(struct qz_disk_request *r, int result)
{
    struct blocking *b = QZ_CONTAINER_OF(r, struct blocking, r);

    b->result = result;
    b->done = true;
}

static int run_request(struct qz_disk_queue *q, enum qz_disk_op op, unsigned flags, uint64_t offset,
                       uint64_t length, const struct iovec *iov)
{
    struct blocking b = {.r = {.op = op,
                               .flags = flags,
                               .offset = offset,
                               .length = length,
                               .iov = iov,
                               .iov_count = iov != NULL,
                               .done = on_blocking_done}};

    qz_disk_submit(q, &b.r);
    while (!b.done) {
        int r = qz_disk_wait(q);

        assert(r >= 0); /* the ring itself broke, with our memory in it */
    }
    return b.result;
}

int qz_disk_read(struct qz_disk_queue *q, uint64_t offset, void *bytes, size_t length)
{
    struct iovec v = {bytes, length};

    return run_request(q, QZ_DISK_READ, 0, offset, length, &v);
}

int qz_disk_write(struct qz_disk_queue *q, uint64_t offset, const void *bytes, size_t length)
{
    struct iovec v = {(void *)(uintptr_t)bytes, length};

    return run_request(q, QZ_DISK_WRITE, 0, offset, length, &v);
}

int qz_disk_flush(struct qz_disk_queue *q)
{
    return run_request(q, QZ_DISK_FLUSH, 0, 0, 0, NULL);
}

int qz_disk_zero(struct qz_disk_queue *q, uint64_t offset, uint64_t length, unsigned flags)
{
    return run_request(q, QZ_DISK_WRITE_ZEROES, flags, offset, length, NULL);
}

int qz_disk_discard(struct qz_disk_queue *q, uint64_t offset, uint64_t length)
{
    return run_request(q, QZ_DISK_DISCARD, 0, offset, length, NULL);
}

struct map_call {
    struct qz_disk *disk;
    uint64_t offset, length;
    bool deep;
    struct extent e;
    bool zero;
};

static int map_main(struct disk_queue *q, void *argument)
{
    struct map_call *c = argument;

    return chain_map(&c->disk->chain, q, c->offset, c->length, c->deep, &c->e, &c->zero);
}

int qz_disk_map(struct qz_disk_queue *q, uint64_t offset, uint64_t length, bool deep,
                struct qz_disk_extent *e)
{
    struct map_call c = {.disk = q->disk, .offset = offset, .length = length, .deep = deep};
    int r = task_run(q->q, map_main, &c);

    if (r < 0)
        return r;
    *e = (struct qz_disk_extent){
        .length = c.e.length,
        .state = (enum qz_disk_state)c.e.state,
        .zero = c.zero,
        .has_offset = c.e.has_offset,
        .offset = c.e.offset,
        .depth = c.e.depth,
    };
    return 0;
}

struct pack_call {
    struct qz_disk *disk;
    uint64_t offset;
    const void *bytes;
    size_t length;
};

static int pack_main(struct disk_queue *q, void *argument)
{
    struct pack_call *c = argument;
    struct chain *chain = &c->disk->chain;

    return chain->format->write_compressed(chain->format_layer, q, c->offset, c->bytes, c->length);
}

int qz_disk_write_compressed(struct qz_disk_queue *q, uint64_t offset, const void *bytes,
                             size_t length)
{
    struct pack_call c = {q->disk, offset, bytes, length};
    const struct layer *top = q->disk->chain.top;

    if (!q->disk->chain.format || !q->disk->chain.format->write_compressed)
        return -ENOTSUP;
    if (top->info.readonly)
        return -EROFS;
    if (!is_inside(top, offset, length) || offset % top->info.preferred || length == 0)
        return -EINVAL;
    return task_run(q->q, pack_main, &c);
}

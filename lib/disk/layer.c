/* layer.c - what every layer stands on: requests that a task waits for, and vectors (layer.h). */
#include <assert.h>

#include "layer.h"
#include "queue.h"
#include "task.h"

/* A request that a task waits for; on its stack. */
struct waiting {
    struct request r;
    struct task *task;
    int result;
    bool done, suspended;
};

static void on_done(struct request *r, int result)
{
    struct waiting *w = QZ_CONTAINER_OF(r, struct waiting, r);
    struct task *t = w->task;
    bool suspended = w->suspended;

    w->result = result;
    w->done = true;
    /* Only who waits is resumed: a resume kept for later would end another wait too early. w may be
     * gone behind this. */
    if (suspended)
        task_resume(t);
}

static int submit_and_wait(struct layer *l, struct disk_queue *q, enum disk_op op, unsigned flags,
                           uint64_t offset, uint64_t length, const struct iovec *iov,
                           unsigned count)
{
    struct waiting w = {
        .r = {.op = op,
              .flags = flags,
              .offset = offset,
              .length = length,
              .iov = iov,
              .iov_count = count,
              .done = on_done},
        .task = task_current(),
    };

    assert(w.task);
    layer_submit(l, q, &w.r);
    w.suspended = true; /* completions come on this thread: nothing is between here and there */
    while (!w.done)
        task_suspend();
    return w.result;
}

int layer_readv(struct layer *l, struct disk_queue *q, uint64_t offset, const struct iovec *iov,
                unsigned count)
{
    return submit_and_wait(l, q, DISK_READ, 0, offset, iov_length(iov, count), iov, count);
}

int layer_writev(struct layer *l, struct disk_queue *q, uint64_t offset, const struct iovec *iov,
                 unsigned count)
{
    return submit_and_wait(l, q, DISK_WRITE, 0, offset, iov_length(iov, count), iov, count);
}

int layer_read(struct layer *l, struct disk_queue *q, uint64_t offset, void *bytes, size_t length)
{
    struct iovec v = {bytes, length};

    return layer_readv(l, q, offset, &v, 1);
}

int layer_write(struct layer *l, struct disk_queue *q, uint64_t offset, const void *bytes,
                size_t length)
{
    struct iovec v = {(void *)(uintptr_t)bytes, length};

    return layer_writev(l, q, offset, &v, 1);
}

int layer_flush(struct layer *l, struct disk_queue *q)
{
    return submit_and_wait(l, q, DISK_FLUSH, 0, 0, 0, NULL, 0);
}

int layer_discard(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length)
{
    return submit_and_wait(l, q, DISK_DISCARD, 0, offset, length, NULL, 0);
}

int layer_write_zeroes(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                       unsigned flags)
{
    return submit_and_wait(l, q, DISK_WRITE_ZEROES, flags, offset, length, NULL, 0);
}

int layer_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
              struct extent *e)
{
    if (offset >= l->info.size || length == 0)
        return -EINVAL;
    length = QZ_MIN(length, l->info.size - offset);
    if (l->ops->map)
        return l->ops->map(l, q, offset, length, e);
    *e = (struct extent){
        .length = length, .state = EXTENT_DATA, .has_offset = true, .offset = offset};
    return 0;
}

int layer_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err)
{
    if (l->info.readonly)
        return qz_fail(err, -EROFS, "%s: readonly, cannot change its size", l->label);
    if (!l->ops->resize)
        return qz_fail(err, -ENOTSUP, "%s: a %s cannot change its size", l->label, l->ops->name);
    return l->ops->resize(l, q, size, err);
}

int layer_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int r = l->ops->freeze ? l->ops->freeze(l, q, err) : 0;

    if (r == 0)
        l->info.readonly = true;
    return r;
}

void layer_thaw(struct layer *l)
{
    l->info.readonly = false;
    if (l->ops->thaw)
        l->ops->thaw(l);
}

int layer_close(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    return l->ops->close ? l->ops->close(l, q, err) : 0;
}

void layer_set_memory(struct layer *l, uint64_t bytes)
{
    if (l->ops->set_memory)
        l->ops->set_memory(l, bytes);
}

void layer_forget(struct layer *l)
{
    if (l->ops->forget)
        l->ops->forget(l);
}

/* ---- vectors */

size_t iov_length(const struct iovec *iov, unsigned count)
{
    size_t n = 0;

    for (unsigned i = 0; i < count; i++)
        n += iov[i].iov_len;
    return n;
}

unsigned iov_slice(struct iovec *out, const struct iovec *in, unsigned count, size_t skip,
                   size_t length)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count && length; i++) {
        size_t part;

        if (skip >= in[i].iov_len) {
            skip -= in[i].iov_len;
            continue;
        }
        part = QZ_MIN(length, in[i].iov_len - skip);
        out[n++] = (struct iovec){(uint8_t *)in[i].iov_base + skip, part};
        length -= part;
        skip = 0;
    }
    return n;
}

/* Calls for each piece of the vectors between skip and skip + length. */
static void for_pieces(const struct iovec *iov, unsigned count, size_t skip, size_t length,
                       void (*piece)(void *bytes, size_t n, void *context), void *context)
{
    for (unsigned i = 0; i < count && length; i++) {
        size_t part;

        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        part = QZ_MIN(length, iov[i].iov_len - skip);
        piece((uint8_t *)iov[i].iov_base + skip, part, context);
        length -= part;
        skip = 0;
    }
}

static void copy_out(void *bytes, size_t n, void *context)
{
    uint8_t **flat = context;

    memcpy(*flat, bytes, n);
    *flat += n;
}

static void copy_in(void *bytes, size_t n, void *context)
{
    const uint8_t **flat = context;

    memcpy(bytes, *flat, n);
    *flat += n;
}

static void fill(void *bytes, size_t n, void *context)
{
    memset(bytes, *(const int *)context, n);
}

void iov_to_flat(void *flat, const struct iovec *iov, unsigned count, size_t skip, size_t length)
{
    for_pieces(iov, count, skip, length, copy_out, &flat);
}

void iov_from_flat(const struct iovec *iov, unsigned count, size_t skip, const void *flat,
                   size_t length)
{
    for_pieces(iov, count, skip, length, copy_in, &flat);
}

void iov_fill(const struct iovec *iov, unsigned count, size_t skip, int byte, size_t length)
{
    for_pieces(iov, count, skip, length, fill, &byte);
}

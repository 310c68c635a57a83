/* job.c - what an NBD client asks, done by the disk (job.h). */
#include "job.h"

enum { STATE_HOLE = 1, STATE_ZERO = 2 };

int job_make_data(struct job *j, size_t n)
{
    void *p;

    if (j->capacity >= n)
        return 0;
    free(j->data);
    j->data = NULL;
    j->capacity = 0;
    if (posix_memalign(&p, 4096, QZ_ALIGN_UP(n, (size_t)4096)))
        return -ENOMEM;
    j->data = p;
    j->capacity = QZ_ALIGN_UP(n, (size_t)4096);
    return 0;
}

struct job *job_new(struct transfer *t)
{
    struct job *j = t->free;

    if (j)
        t->free = j->next;
    else if (!(j = calloc(1, sizeof(*j))))
        return NULL;
    j->t = t;
    j->result = 0;
    j->flush_after = false;
    j->data_bytes = 0;
    t->jobs++;
    return j;
}

/* What it counts of NBD_MAX_BYTES. */
uint64_t job_weight(const struct job *j)
{
    return j->command == CMD_READ || j->command == CMD_WRITE ? j->length : 0;
}

void job_free(struct job *j)
{
    struct transfer *t = j->t;

    t->jobs--;
    t->bytes -= job_weight(j);
    if (j->capacity > KEEP_BYTES) {
        free(j->data);
        j->data = NULL;
        j->capacity = 0;
    }
    j->next = t->free;
    t->free = j;
}

static void on_done(struct request *r, int result)
{
    struct job *j = QZ_CONTAINER_OF(r, struct job, r);

    if (result == 0 && j->flush_after) {
        j->flush_after = false;
        r->op = DISK_FLUSH;
        layer_submit(j->t->top, j->t->q, r);
        return;
    }
    j->data_bytes = j->command == CMD_READ ? j->length : 0;
    job_reply(j, result);
}

static void submit(struct job *j, enum disk_op op, unsigned flags)
{
    struct request *r = &j->r;

    *r = (struct request){.op = op, .flags = flags, .done = on_done};
    if (op != DISK_FLUSH) {
        r->offset = j->offset;
        r->length = j->length;
    }
    if (op == DISK_READ || op == DISK_WRITE) {
        j->iov = (struct iovec){j->data, j->length};
        r->iov = &j->iov;
        r->iov_count = 1;
    }
    layer_submit(j->t->top, j->t->q, r);
}

/* ---- block status */

static uint32_t extent_flags(const struct extent *e, bool zero)
{
    return (e->state == EXTENT_UNALLOCATED ? STATE_HOLE : 0) | (zero ? STATE_ZERO : 0);
}

static int fill_extents(struct job *j, struct disk_queue *q)
{
    struct chain *chain = &j->t->c->server->disk->chain;
    uint64_t at = j->offset, end = j->offset + j->length;
    unsigned n = 0, most = j->flags & CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
    uint32_t last = UINT32_MAX;

    while (at < end) {
        struct extent e;
        bool zero;
        int r = chain_map(chain, q, at, end - at, true, &e, &zero);
        uint32_t flags = r < 0 ? 0 : extent_flags(&e, zero);

        if (r < 0)
            return r;
        if (n && flags == last) {
            uint8_t *length = j->data + (n - 1) * 8;

            qz_store_be32(length, qz_load_be32(length) + (uint32_t)e.length);
        } else if (n == most) {
            break;
        } else {
            qz_store_be32(j->data + n * 8, (uint32_t)e.length);
            qz_store_be32(j->data + n * 8 + 4, flags);
            n++;
        }
        last = flags;
        at += e.length;
    }
    j->data_bytes = n * 8;
    return 0;
}

static void block_status_main(struct disk_queue *q, void *argument)
{
    struct job *j = argument;
    int r = job_make_data(j, NBD_MAX_EXTENTS * 8);

    if (r == 0)
        r = fill_extents(j, q);
    job_reply(j, r);
}

/* ---- requests */

int job_check(const struct job *j)
{
    const struct layer *top = j->t->top;
    uint64_t size = __atomic_load_n(&top->info.size, __ATOMIC_RELAXED);
    bool writes =
        j->command == CMD_WRITE || j->command == CMD_TRIM || j->command == CMD_WRITE_ZEROES;

    if (j->command == CMD_FLUSH)
        return 0;
    if (j->command > CMD_BLOCK_STATUS ||
        (j->command == CMD_BLOCK_STATUS && (!j->t->c->allocation || !j->length)))
        return -EINVAL;
    if (writes && top->info.readonly)
        return -EPERM;
    if (j->offset > size || j->length > size - j->offset)
        return writes ? -ENOSPC : -EINVAL;
    return j->command == CMD_READ && j->length > NBD_MAX_REQUEST ? -EOVERFLOW : 0;
}

void job_run(struct job *j)
{
    unsigned fua = j->flags & CMD_FLAG_FUA;

    if (j->result < 0 || (!j->length && j->command != CMD_FLUSH)) {
        job_reply(j, j->result);
        return;
    }
    switch (j->command) {
    case CMD_READ:
        if (job_make_data(j, j->length) < 0)
            job_reply(j, -ENOMEM);
        else
            submit(j, DISK_READ, 0);
        return;
    case CMD_WRITE:
        submit(j, DISK_WRITE, fua ? REQUEST_FUA : 0);
        return;
    case CMD_FLUSH:
        submit(j, DISK_FLUSH, 0);
        return;
    case CMD_TRIM:
        j->flush_after = fua;
        submit(j, DISK_DISCARD, 0);
        return;
    case CMD_WRITE_ZEROES:
        j->flush_after = fua;
        submit(j, DISK_WRITE_ZEROES,
               (j->flags & CMD_FLAG_NO_HOLE ? 0 : REQUEST_MAY_UNMAP) |
                   (j->flags & CMD_FLAG_FAST_ZERO ? REQUEST_NO_FALLBACK : 0));
        return;
    case CMD_BLOCK_STATUS:
        if (task_start(j->t->q, block_status_main, j) < 0)
            job_reply(j, -ENOMEM);
        return;
    }
    job_reply(j, 0); /* CMD_CACHE: advice */
}

/* fan.c - several requests of one task at the same time. */
#include "internal.h"

struct piece {
    struct request r;
    struct qcow2_fan *fan;
    struct iovec iov[];
};

static void piece_done(struct request *r, int result)
{
    struct piece *p = QZ_CONTAINER_OF(r, struct piece, r);
    struct qcow2_fan *f = p->fan;
    struct task *t = f->task;

    if (result && !f->error)
        f->error = result;
    free(p);
    /* Only the last one wakes, and only who waits: a resume kept for later would end another wait.
     */
    if (!--f->running && f->waiting)
        task_resume(t);
}

int qcow2_fan_submit(struct qcow2_fan *f, struct layer *l, struct disk_queue *q, enum disk_op op,
                     uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct piece *p = malloc(sizeof(*p) + count * sizeof(*iov));

    f->task = task_current();
    if (!p) {
        f->error = f->error ? f->error : -ENOMEM;
        return -ENOMEM;
    }
    memcpy(p->iov, iov, count * sizeof(*iov));
    p->fan = f;
    p->r = (struct request){.op = op,
                            .offset = offset,
                            .length = iov_length(iov, count),
                            .iov = p->iov,
                            .iov_count = count,
                            .done = piece_done};
    f->running++;
    layer_submit(l, q, &p->r);
    return 0;
}

int qcow2_fan_wait(struct qcow2_fan *f)
{
    f->waiting = true; /* completions come on this thread: nothing is between here and there */
    while (f->running)
        task_suspend();
    f->waiting = false;
    return f->error;
}

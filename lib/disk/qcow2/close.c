/*
 * close.c - an image at rest: all tables in their places, nothing marked that a program which opens
 * it would have to repair. So it is closed, and so it is frozen (../layer.h) to be a backing file.
 */
#include "image.h"

/* Tables, and the refcounts of what can be given back now that nobody is inside. */
static int write_tables(struct qcow2 *i, struct disk_queue *q)
{
    int rc = 0;

    for (int turn = 0; !rc && turn < 2; turn++) {
        rc = qcow2_commit(i, q, true);
        task_mutex_lock(&i->lock);
        if (!rc && !atomic_load(&i->corrupt))
            rc = qcow2_release_settle(i, q);
        task_mutex_unlock(&i->lock);
    }
    return rc ? rc : qcow2_commit(i, q, true);
}

static int write_marks(struct qcow2 *i, struct disk_queue *q)
{
    if (!i->dirty_bit && !atomic_load(&i->corrupt))
        return 0;
    i->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
    if (atomic_load(&i->corrupt) && i->header.version >= 3)
        i->header.incompatible |= QCOW2_INCOMPAT_CORRUPT;
    /* Whether or not the medium gets it: the next change must set the bit again. */
    i->dirty_bit = false;
    return qcow2_write_header(i, q);
}

static int settle(struct qcow2 *i, struct disk_queue *q)
{
    struct layer *file = i->layer.below;
    uint64_t end = QZ_MAX(i->file_size, atomic_load(&i->fresh) << i->cluster_bits);
    int rc;

    atomic_store(&i->closing, true);
    rc = qcow2_packer_end(i, q);
    if (!rc)
        rc = qcow2_log_end(i, q);
    if (!rc)
        rc = write_tables(i, q);
    if (!rc)
        rc = write_marks(i, q);
    if (!rc && file->info.size > end)
        rc = layer_resize(file, q, end, NULL);
    return rc;
}

static bool at_rest(const struct qcow2 *i)
{
    return i->layer.info.readonly || (i->untouched && !i->log);
}

int qcow2_close(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);
    int rc = at_rest(i) ? 0 : settle(i, q);

    return rc ? qz_fail(err, rc, "%s: cannot be closed cleanly: %s", l->label, strerror(-rc)) : 0;
}

/* The log may have ended before something else failed. */
static void go_on(struct qcow2 *i, struct disk_queue *q)
{
    int rc = 0;

    task_mutex_lock(&i->lock);
    if (i->wants_log && !i->log && !atomic_load(&i->corrupt))
        rc = qcow2_log_begin(i, q);
    task_mutex_unlock(&i->lock);
    if (rc)
        qz_warn("%s: goes on without its metadata log: %s", i->layer.label, strerror(-rc));
}

int qcow2_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    struct qcow2 *i = qcow2_of(l);
    int rc;

    if (atomic_load(&i->corrupt))
        return qz_fail(err, -EUCLEAN,
                       "%s: is damaged and cannot be a backing file: repair it first "
                       "(queztl-disk check --repair)",
                       l->label);
    if (at_rest(i))
        return 0;
    rc = settle(i, q);
    atomic_store(&i->closing, false);
    if (rc) {
        go_on(i, q);
        return qz_fail(err, rc, "%s: cannot be written out: %s", l->label, strerror(-rc));
    }
    i->file_size = l->below->info.size;
    i->untouched = true; /* as if opened now, should it be written again */
    return 0;
}

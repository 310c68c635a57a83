/*
 * commit.c - changed tables, written in the one order that keeps the image sound.
 *
 *   1. refcount blocks          (more is marked used than is used: harmless)
 *   2. flush, refcount table    (a block is found only when it is there)
 *   3. flush, L2 slices         (entries point only at clusters that are marked used and filled)
 *   4. flush, L1 entries        (a table is found only when it is there)
 *   5. flush, if it shall last
 *
 * What is written are copies, taken in the opposite order: an L2 entry that is in the copies had
 * its refcount set before, so that refcount is in them too. Nobody has to wait for the commit, but
 * the next one. Steps that have nothing to write take no flush. With lazy refcounts steps 1 and 2
 * are left out until the image is closed; the dirty bit in the header says that.
 *
 * With a metadata log (log.c) all of it is one record and one flush.
 */
#include "internal.h"

enum { IN_FLIGHT = 64, MERGE = 32 };

static int write_copies(struct qcow2 *i, struct disk_queue *q, struct qcow2_copy *copies,
                        unsigned count)
{
    uint32_t unit = qcow2_cache_unit(i->cache);
    struct qcow2_fan f = {0};

    for (unsigned n = 0; n < count && !f.error;) {
        uint64_t offset = copies[n].offset;
        struct iovec iov[MERGE];
        unsigned k = 0;

        do {
            iov[k++] = (struct iovec){copies[n++].bytes, unit};
        } while (k < MERGE && n < count && copies[n].offset == copies[n - 1].offset + unit);
        if (f.running >= IN_FLIGHT)
            qcow2_fan_wait(&f);
        qcow2_fan_submit(&f, i->layer.below, q, DISK_WRITE, offset, iov, k);
    }
    return qcow2_fan_wait(&f);
}

static int write_top(struct qcow2 *i, struct disk_queue *q, struct qcow2_top_copy *copies,
                     unsigned count)
{
    int rc = 0;

    for (unsigned n = 0; !rc && n < count; n++)
        rc = layer_write(i->layer.below, q, copies[n].offset, copies[n].bytes, copies[n].length);
    return rc;
}

static int flush(struct qcow2 *i, struct disk_queue *q)
{
    int rc;

    /* Cleared first: what is copied from now on needs the next flush. */
    bool copied = atomic_exchange(&i->copied, false);

    rc = layer_flush(i->layer.below, q);
    if (!rc && i->data != i->layer.below)
        rc = layer_flush(i->data, q);
    if (rc && copied)
        atomic_store(&i->copied, true);
    return rc;
}

/* What one commit writes. */
struct batch {
    struct qcow2_copy *refs, *l2;
    struct qcow2_top_copy *reftable, *l1;
    int ref_count, l2_count, reftable_count, l1_count;
    int failed; /* the first error of taking */
};

static int note(struct batch *b, int n)
{
    if (n < 0 && !b->failed)
        b->failed = n;
    return QZ_MAX(n, 0);
}

static void take(struct qcow2 *i, struct batch *b, bool refcounts)
{
    b->l1_count = note(b, qcow2_top_take_dirty(&i->l1, &b->l1));
    b->l2_count = note(b, qcow2_cache_take_dirty(i->cache, QCOW2_SLICE_L2, &b->l2));
    if (!refcounts)
        return;
    b->reftable_count = note(b, qcow2_top_take_dirty(&i->reftable, &b->reftable));
    b->ref_count = note(b, qcow2_cache_take_dirty(i->cache, QCOW2_SLICE_REF, &b->refs));
}

static int write_batch(struct qcow2 *i, struct disk_queue *q, struct batch *b)
{
    int rc = b->failed;

    if (!rc)
        rc = write_copies(i, q, b->refs, (unsigned)b->ref_count);
    if (!rc && b->reftable_count)
        rc = flush(i, q);
    if (!rc)
        rc = write_top(i, q, b->reftable, (unsigned)b->reftable_count);
    if (!rc && (b->l2_count || b->l1_count) &&
        (b->ref_count || b->reftable_count || atomic_load(&i->copied)))
        rc = flush(i, q);
    if (!rc)
        rc = write_copies(i, q, b->l2, (unsigned)b->l2_count);
    if (!rc && b->l1_count)
        rc = flush(i, q);
    if (!rc)
        rc = write_top(i, q, b->l1, (unsigned)b->l1_count);
    return rc;
}

static unsigned pieces_of(const struct qcow2_copy *c, int count, uint32_t unit,
                          struct qcow2_log_piece *out)
{
    for (int n = 0; n < count; n++)
        out[n] = (struct qcow2_log_piece){c[n].offset, c[n].bytes, unit};
    return (unsigned)count;
}

static unsigned top_pieces(const struct qcow2_top_copy *c, int count, struct qcow2_log_piece *out)
{
    for (int n = 0; n < count; n++)
        out[n] = (struct qcow2_log_piece){c[n].offset, c[n].bytes, c[n].length};
    return (unsigned)count;
}

static int write_in_place(struct qcow2 *i, struct disk_queue *q, struct batch *b)
{
    int rc = write_copies(i, q, b->refs, (unsigned)b->ref_count);

    if (!rc)
        rc = write_copies(i, q, b->l2, (unsigned)b->l2_count);
    if (!rc)
        rc = write_top(i, q, b->reftable, (unsigned)b->reftable_count);
    return rc ? rc : write_top(i, q, b->l1, (unsigned)b->l1_count);
}

/* Through the log. -E2BIG: the old way, and nothing in the log can undo it later. */
static int write_logged(struct qcow2 *i, struct disk_queue *q, struct batch *b)
{
    unsigned n = (unsigned)(b->ref_count + b->l2_count + b->reftable_count + b->l1_count), k = 0;
    QZ_AUTO_FREE struct qcow2_log_piece *pieces = malloc(QZ_MAX(n, 1u) * sizeof(*pieces));
    uint32_t unit = qcow2_cache_unit(i->cache);
    bool alone = atomic_load(&i->copied);
    int rc = b->failed ? b->failed : pieces ? 0 : -ENOMEM;

    if (rc || !n)
        return rc;
    k += pieces_of(b->refs, b->ref_count, unit, pieces + k);
    k += pieces_of(b->l2, b->l2_count, unit, pieces + k);
    k += top_pieces(b->reftable, b->reftable_count, pieces + k);
    top_pieces(b->l1, b->l1_count, pieces + k);
    if (alone)
        rc = flush(i, q);
    if (!rc)
        rc = qcow2_log_write(i, q, pieces, n, alone);
    if (rc == -E2BIG) {
        rc = flush(i, q);
        if (!rc)
            rc = qcow2_log_write(i, q, NULL, 0, true);
        if (!rc)
            rc = flush(i, q);
        return rc ? rc : -E2BIG;
    }
    if (!rc)
        rc = flush(i, q);
    return rc ? rc : write_in_place(i, q, b);
}

static void give(struct qcow2 *i, struct batch *b, bool failed)
{
    qcow2_cache_give_dirty(i->cache, b->refs, (unsigned)b->ref_count, failed);
    qcow2_cache_give_dirty(i->cache, b->l2, (unsigned)b->l2_count, failed);
    qcow2_top_give_dirty(&i->reftable, b->reftable, (unsigned)b->reftable_count, failed);
    qcow2_top_give_dirty(&i->l1, b->l1, (unsigned)b->l1_count, failed);
}

bool qcow2_commit_needed(struct qcow2 *i)
{
    return qcow2_cache_dirty(i->cache) || i->l1.any_dirty || i->reftable.any_dirty;
}

static bool lazy(const struct qcow2 *i)
{
    return i->dirty_bit && (i->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) && !i->closing &&
           !qcow2_cache_crowded(i->cache);
}

int qcow2_commit(struct qcow2 *i, struct disk_queue *q, bool durable)
{
    struct batch b = {0};
    bool logged;
    int rc, wrote;

    task_mutex_lock(&i->commit_lock);
    qcow2_release_begin(i);
    take(i, &b, !lazy(i));
    logged = i->log;
    rc = logged ? write_logged(i, q, &b) : -E2BIG;
    if (rc == -E2BIG) {
        logged = false;
        rc = write_batch(i, q, &b);
    }
    /* A record that was flushed is as good as the tables; with nothing to write, bytes still are.
     */
    wrote = b.ref_count + b.l2_count + b.reftable_count + b.l1_count;
    give(i, &b, rc != 0);
    if (!rc && durable && !(logged && wrote))
        rc = flush(i, q);
    qcow2_release_end(i, !rc && durable);
    task_mutex_unlock(&i->commit_lock);
    return rc;
}

int qcow2_write_header(struct qcow2 *i, struct disk_queue *q)
{
    QZ_AUTO_FREE uint8_t *cluster = qcow2_buffer(i->cluster_size);
    struct qz_error err = {0};
    int rc;

    if (!cluster)
        return -ENOMEM;
    rc = qcow2_header_build(&i->header, cluster, &err);
    if (rc) {
        qz_error_log("%s: %s", i->layer.label, err.text);
        return rc;
    }
    rc = layer_write(i->layer.below, q, 0, cluster, i->cluster_size);
    return rc ? rc : layer_flush(i->layer.below, q);
}

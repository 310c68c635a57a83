/*
 * cow.c - an open cow image (cow_format.h): reads here or in the backing file, writes here.
 *
 * Theory of operation. What is here already is read and written in place. A write of granules that
 * are not here runs in a task, and the bits are set when the bytes have been written; of a granule
 * that it covers in part, the rest is brought over first, alone.
 *
 * The bitmap on the medium is only written by a flush, between two flushes of the file: first the
 * granules become durable, then the bits that name them. So a bit on the medium never names bytes
 * that a power cut took, and what no flush covered is the backing file's again.
 */
#include "cow_internal.h"

/* ---- bits */

static bool bit(const struct cow *c, uint64_t granule)
{
    return __atomic_load_n(&c->bitmap[granule / 8], __ATOMIC_ACQUIRE) >> granule % 8 & 1;
}

static void set_bits(struct cow *c, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / COW_GRANULE, end = (offset + length + COW_GRANULE - 1) / COW_GRANULE;

    for (uint64_t g = first; g < end; g++) {
        uint8_t mask = (uint8_t)(1u << g % 8);

        if (bit(c, g))
            continue;
        /* The bit before the mark: a flush that takes the mark takes the bit too. */
        __atomic_fetch_or(&c->bitmap[g / 8], mask, __ATOMIC_RELEASE);
        __atomic_store_n(&c->dirty[g / 8 / COW_PAGE], 1, __ATOMIC_RELEASE);
    }
}

uint64_t cow_run(const struct cow *c, uint64_t offset, uint64_t length, bool *here)
{
    uint64_t g = offset / COW_GRANULE, end = offset + length;

    *here = bit(c, g);
    for (g++; g * COW_GRANULE < end && bit(c, g) == *here; g++)
        ;
    return QZ_MIN(g * COW_GRANULE, end) - offset;
}

/* ---- one run of a request */

static uint64_t backing_size(const struct cow *c)
{
    return c->l.backing ? __atomic_load_n(&c->l.backing->info.size, __ATOMIC_RELAXED) : 0;
}

/* [task] Bytes as the disk shows them; one run. */
static int read_run(struct cow *c, struct disk_queue *q, uint64_t offset, const struct iovec *iov,
                    unsigned count, uint64_t length, bool here)
{
    uint64_t size = backing_size(c), n = offset < size ? QZ_MIN(length, size - offset) : 0;
    QZ_AUTO_FREE struct iovec *part = NULL;

    if (here)
        return layer_readv(c->l.below, q, c->data_offset + offset, iov, count);
    iov_fill(iov, count, n, 0, length - n);
    if (n == 0)
        return 0;
    part = calloc(count, sizeof(*part));
    return part ? layer_readv(c->l.backing, q, offset, part, iov_slice(part, iov, count, 0, n))
                : -ENOMEM;
}

static int read_mixed(struct cow *c, struct disk_queue *q, const struct request *r)
{
    QZ_AUTO_FREE struct iovec *part = calloc(r->iov_count, sizeof(*part));
    uint64_t n;
    int e = part ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < r->length && e == 0; at += n) {
        bool here;
        unsigned count;

        n = cow_run(c, r->offset + at, r->length - at, &here);
        count = iov_slice(part, r->iov, r->iov_count, at, n);
        e = read_run(c, q, r->offset + at, part, count, n, here);
    }
    return e;
}

/* [task, filling exclusive] A granule that is not here comes over from the backing file. */
static int bring(struct cow *c, struct disk_queue *q, uint64_t granule)
{
    uint8_t bytes[COW_GRANULE];
    uint64_t offset = granule * COW_GRANULE,
             n = QZ_MIN(c->l.info.size - offset, (uint64_t)COW_GRANULE);
    struct iovec v = {bytes, n};
    int e;

    if (bit(c, granule))
        return 0;
    e = read_run(c, q, offset, &v, 1, n, false);
    if (e == 0)
        e = layer_write(c->l.below, q, c->data_offset + offset, bytes, n);
    if (e == 0)
        set_bits(c, offset, n);
    return e;
}

static bool ends_at_granule(const struct cow *c, const struct request *r)
{
    uint64_t end = r->offset + r->length;

    return end % COW_GRANULE == 0 || end == c->l.info.size;
}

/* Whether the granules at both ends are covered or here. */
static bool is_whole(const struct cow *c, const struct request *r)
{
    return (r->offset % COW_GRANULE == 0 || bit(c, r->offset / COW_GRANULE)) &&
           (ends_at_granule(c, r) || bit(c, (r->offset + r->length) / COW_GRANULE));
}

/* [task] A write that makes granules be here. Many at once, but not while one is brought over: it
 * would undo what a whole write puts there. */
static int write_new(struct cow *c, struct disk_queue *q, const struct request *r)
{
    int e = 0;

    if (!is_whole(c, r)) {
        task_rwlock_exclusive(&c->filling);
        if (r->offset % COW_GRANULE)
            e = bring(c, q, r->offset / COW_GRANULE);
        if (e == 0 && !ends_at_granule(c, r))
            e = bring(c, q, (r->offset + r->length) / COW_GRANULE);
        task_rwlock_release(&c->filling);
    }
    if (e < 0)
        return e;
    task_rwlock_shared(&c->filling);
    e = r->op == DISK_WRITE
            ? layer_writev(c->l.below, q, c->data_offset + r->offset, r->iov, r->iov_count)
            : layer_write_zeroes(c->l.below, q, c->data_offset + r->offset, r->length, r->flags);
    if (e == 0)
        set_bits(c, r->offset, r->length);
    task_rwlock_release(&c->filling);
    return e;
}

/* ---- flush */

static int write_page(struct cow *c, struct disk_queue *q, uint64_t page, const uint8_t *bytes)
{
    return layer_write(c->l.below, q, COW_BITMAP + page * COW_PAGE, bytes, COW_PAGE);
}

/* Pages of the bitmap that changed, as they are now; how many, or -ENOMEM. */
static int64_t take_dirty(struct cow *c, uint64_t **pages, uint8_t **bytes)
{
    uint64_t all = cow_bitmap_bytes(c->l.info.size) / COW_PAGE, n = 0;

    for (uint64_t p = 0; p < all; p++)
        n += __atomic_load_n(&c->dirty[p], __ATOMIC_RELAXED);
    *pages = calloc(QZ_MAX(n, (uint64_t)1), sizeof(**pages));
    *bytes = malloc(QZ_MAX(n, (uint64_t)1) * COW_PAGE);
    if (!*pages || !*bytes)
        return -ENOMEM;
    /* More may change meanwhile: they are the next flush's. */
    for (uint64_t p = 0, i = 0; p < all && i < n; p++) {
        if (!__atomic_exchange_n(&c->dirty[p], 0, __ATOMIC_ACQ_REL))
            continue;
        for (unsigned b = 0; b < COW_PAGE; b++)
            (*bytes)[i * COW_PAGE + b] =
                __atomic_load_n(&c->bitmap[p * COW_PAGE + b], __ATOMIC_RELAXED);
        (*pages)[i++] = p;
    }
    return (int64_t)n;
}

int cow_flush(struct cow *c, struct disk_queue *q)
{
    QZ_AUTO_FREE uint64_t *pages = NULL;
    QZ_AUTO_FREE uint8_t *bytes = NULL;
    int64_t n;
    int e;

    task_mutex_lock(&c->flushing); /* who finds nothing to do waits for those who do it */
    n = take_dirty(c, &pages, &bytes);
    e = n < 0 ? (int)n : layer_flush(c->l.below, q);
    for (int64_t i = 0; i < n && e == 0; i++)
        e = write_page(c, q, pages[i], bytes + i * COW_PAGE);
    if (e == 0 && n > 0)
        e = layer_flush(c->l.below, q);
    for (int64_t i = 0; i < n && e < 0; i++)
        __atomic_store_n(&c->dirty[pages[i]], 1, __ATOMIC_RELEASE);
    task_mutex_unlock(&c->flushing);
    return e;
}

/* ---- requests */

static void slow_main(struct disk_queue *q, void *argument)
{
    struct child *child = argument;
    struct cow *c = cow_of(child->l);
    const struct request *r = &child->r;
    int e;

    if (r->op == DISK_FLUSH)
        e = cow_flush(c, q);
    else if (r->op == DISK_READ)
        e = read_mixed(c, q, r);
    else
        e = write_new(c, q, r);
    if (e == 0 && r->op == DISK_WRITE && r->flags & REQUEST_FUA)
        e = cow_flush(c, q);
    child_end(child, e);
}

static void slow(struct cow *c, struct disk_queue *q, struct request *r)
{
    struct child *child = child_new(&c->l, q, r, NULL);

    if (child && task_start(q, slow_main, child) < 0)
        child_end(child, -ENOMEM);
}

static void on_done(struct request *r, int result)
{
    child_end(QZ_CONTAINER_OF(r, struct child, r), result);
}

/* Goes straight to a place in the file. */
static void pass(struct cow *c, struct disk_queue *q, struct request *r)
{
    struct child *child = child_new(&c->l, q, r, on_done);

    if (!child)
        return;
    child->r.offset += c->data_offset;
    layer_submit(c->l.below, q, &child->r);
}

static void read_request(struct cow *c, struct disk_queue *q, struct request *r)
{
    bool here;

    if (cow_run(c, r->offset, r->length, &here) < r->length) {
        slow(c, q, r);
    } else if (here) {
        pass(c, q, r);
    } else if (r->offset + r->length <= backing_size(c)) {
        layer_submit(c->l.backing, q, r);
    } else if (r->offset >= backing_size(c)) {
        iov_fill(r->iov, r->iov_count, 0, 0, r->length);
        r->done(r, 0);
    } else {
        slow(c, q, r);
    }
}

static void cow_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct cow *c = cow_of(l);
    bool here;

    switch (r->op) {
    case DISK_READ:
        read_request(c, q, r);
        return;
    case DISK_DISCARD: /* what is not here stays not here */
        pass(c, q, r);
        return;
    case DISK_FLUSH:
        slow(c, q, r);
        return;
    default:
        if (cow_run(c, r->offset, r->length, &here) == r->length && here &&
            !(r->flags & REQUEST_FUA))
            pass(c, q, r);
        else
            slow(c, q, r);
    }
}

static int cow_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                   struct extent *e)
{
    struct cow *c = cow_of(l);
    bool here;

    *e = (struct extent){.length = cow_run(c, offset, length, &here)};
    e->state = here ? EXTENT_DATA : EXTENT_UNALLOCATED;
    e->has_offset = here;
    e->offset = here ? c->data_offset + offset : 0;
    return 0;
}

static int cow_close(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int r = l->info.readonly ? 0 : cow_flush(cow_of(l), q);

    return r < 0 ? qz_fail(err, r, "%s: cannot write its bitmap: %s", l->label, strerror(-r)) : 0;
}

void cow_free(struct layer *l)
{
    struct cow *c = cow_of(l);

    if (c->bitmap)
        munmap(c->bitmap, cow_bitmap_bytes(l->info.size));
    free(c->dirty);
    free(c);
}

const struct layer_ops cow_ops = {
    .name = "cow",
    .submit = cow_submit,
    .map = cow_map,
    .freeze = cow_close,
    .close = cow_close,
    .free = cow_free,
};

/*
 * cache.c - read-ahead, write-back and merging above a queue; see <queztl/vblk_cache.h>.
 *
 * A request either ends at once or is parked and tried again after each completion. Reads take all
 * lines and operations that they need or none, and pin their lines until they have copied, so that
 * admitted reads always end.
 */
#include "cache.h"

enum { BLOCK = VBLK_CACHE_BLOCK, BLOCK_SECTORS = BLOCK / VBLK_SECTOR_SIZE, REQUEST_BLOCKS = 16 };
enum { WINDOW_FIRST = 4 };

/* ---- reads and writes through the cache ---- */

static bool through_cache(const struct vblk_cache *c, const struct vblk_request *r)
{
    uint64_t bytes;

    if (r->op != VBLK_OP_READ && !(r->op == VBLK_OP_WRITE && c->config.write_back))
        return false;
    bytes = request_bytes(r);
    return r->sector % BLOCK_SECTORS == 0 && bytes % BLOCK == 0 &&
           bytes <= REQUEST_BLOCKS * BLOCK &&
           r->sector / BLOCK_SECTORS + bytes / BLOCK <= c->blocks;
}

static void copy(const struct vblk_cache *c, const struct vblk_request *r)
{
    const struct vblk_segment *s = request_segments(r);
    uint64_t block = r->sector / BLOCK_SECTORS;
    uint32_t at = 0; /* within the block */
    struct line *l = line_find(c, block);

    for (unsigned i = 0; i < r->count; i++) {
        uint8_t *p = s[i].base;

        for (uint32_t left = s[i].len; left;) {
            uint32_t n = left < BLOCK - at ? left : BLOCK - at;

            if (r->op == VBLK_OP_READ)
                __builtin_memcpy(p, l->data + at, n);
            else
                __builtin_memcpy(l->data + at, p, n);
            p += n;
            left -= n;
            at += n;
            if (at == BLOCK) {
                at = 0;
                l = line_find(c, ++block);
            }
        }
    }
}

/* Fetches what is missing of n blocks. All of it, or nothing and false. Pins every line for a
 * reader. */
static bool fetch(struct vblk_cache *c, uint64_t block, unsigned n, bool pin)
{
    struct line *run[CACHE_MERGE_MAX];
    unsigned missing = 0, runs = 0, idle = 0, length = 0,
             room = pin ? c->free.count : c->free.count / 2;

    for (unsigned i = 0; i < n; i++) {
        struct line *l = line_find(c, block + i);

        if (l && l->stale)
            return false; /* older than a write that passed by; it goes when its readers are done */
        idle += l && l->listed && !l->dirty; /* a free line that we need ourselves */
        length = l ? 0 : length == c->merge ? 1 : length + 1;
        runs += length == 1;
        missing += !l;
    }
    if (missing + idle > room || runs > c->free_ops)
        return false;
    for (unsigned i = 0; i < n && pin; i++) {
        struct line *l = line_find(c, block + i);

        if (l)
            line_pin(c, l);
    }
    length = 0;
    for (unsigned i = 0; i <= n; i++) {
        bool want = i < n && !line_find(c, block + i);

        if (length && (!want || length == c->merge)) {
            op_send_lines(c, OP_FILL, run, length);
            length = 0;
        }
        if (want) {
            run[length] = line_take(c, block + i);
            run[length]->state = LINE_FILLING;
            run[length++]->pins += pin;
        }
    }
    c->stats.misses += pin ? missing : 0;
    c->stats.hits += pin ? n - missing : 0;
    c->stats.read_ahead_blocks += pin ? 0 : missing;
    return true;
}

/*
 * A reader that goes on where it stopped gets a window that doubles up to the bound. It is filled
 * again when half of it is used, so that what is fetched comes in large requests.
 */
static void read_ahead(struct vblk_cache *c, uint64_t block, unsigned n)
{
    uint64_t most = c->config.read_ahead / BLOCK, from = block + n, to;

    if (most > c->merge * CACHE_OPS / 2)
        most = c->merge * CACHE_OPS / 2;
    if (block != c->read_next) {
        c->window = c->ahead = 0;
        c->read_next = from;
        return;
    }
    c->read_next = from;
    if (c->ahead > from + c->window / 2)
        return;
    c->window = c->window ? c->window * 2 : WINDOW_FIRST;
    if (c->window > most)
        c->window = most;
    to = from + c->window < c->blocks ? from + c->window : c->blocks;
    if (c->ahead > from)
        from = c->ahead;
    if (from < to && fetch(c, from, (unsigned)(to - from), false))
        c->ahead = to;
}

static bool try_read(struct vblk_cache *c, struct vblk_request *r)
{
    uint64_t block = r->sector / BLOCK_SECTORS;
    unsigned n = (unsigned)(request_bytes(r) / BLOCK);
    bool failed = false;

    if (r->attempts == 0) {
        if (!fetch(c, block, n, true)) {
            c->drain |= c->free.count < n;
            return false;
        }
        r->attempts = 1;
        read_ahead(c, block, n);
    }
    for (unsigned i = 0; i < n; i++) {
        const struct line *l = line_find(c, block + i);

        if (l->state == LINE_FILLING)
            return false;
        failed |= l->state == LINE_FAILED;
    }
    if (!failed)
        copy(c, r);
    for (unsigned i = 0; i < n; i++)
        line_unpin(c, line_find(c, block + i));
    request_end(c, r, failed ? -VBLK_EIO : 0);
    return true;
}

static bool try_write(struct vblk_cache *c, struct vblk_request *r)
{
    uint64_t block = r->sector / BLOCK_SECTORS;
    unsigned n = (unsigned)(request_bytes(r) / BLOCK), missing = 0, idle = 0, clean = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct line *l = line_find(c, block + i);

        if (l && l->state != LINE_VALID)
            return false;
        missing += !l;
        clean += !l || !l->dirty;
        idle += l && l->listed && !l->dirty;
    }
    if (missing + idle > c->free.count || c->dirty.count + c->writing + clean > c->dirty_max) {
        if (c->write_error) { /* no room, and none to be had */
            request_end(c, r, c->write_error);
            return true;
        }
        c->drain = true;
        return false;
    }
    /* What is there comes off the free list before anything is taken from it. */
    for (unsigned i = 0; i < n; i++) {
        struct line *l = line_find(c, block + i);

        if (l)
            line_dirty(c, l);
    }
    for (unsigned i = 0; i < n; i++)
        if (!line_find(c, block + i))
            line_dirty(c, line_take(c, block + i));
    copy(c, r);
    request_end(c, r, 0);
    return true;
}

/* ---- what passes by ---- */

/* The blocks that a request touches; none for those without a place. */
static unsigned touched(const struct vblk_request *r, unsigned part, uint64_t *from, uint64_t *to)
{
    uint64_t sector = r->sector, sectors;

    if (data_kind(r->op) == DATA_RANGES) {
        if (part >= r->count)
            return 0;
        sector = r->ranges[part].sector;
        sectors = r->ranges[part].sectors;
    } else if (part == 0 && (r->op == VBLK_OP_READ || r->op == VBLK_OP_WRITE)) {
        sectors = request_bytes(r) / VBLK_SECTOR_SIZE;
    } else {
        return 0;
    }
    *from = sector / BLOCK_SECTORS;
    *to = (sector + sectors + BLOCK_SECTORS - 1) / BLOCK_SECTORS;
    return 1;
}

/* Calls for each line within what a request touches: block by block or, for a wide range, line by
 * line. */
static bool any_line(struct vblk_cache *c, const struct vblk_request *r,
                     bool (*is)(struct vblk_cache *c, struct line *l))
{
    uint64_t from, to;
    bool any = false;

    for (unsigned part = 0; touched(r, part, &from, &to); part++) {
        bool wide = to - from > c->line_count;
        uint64_t n = wide ? c->line_count : to - from;

        for (uint64_t i = 0; i < n; i++) {
            struct line *l = wide ? &c->lines[i] : line_find(c, from + i);

            if (l && l->state != LINE_EMPTY && l->block >= from && l->block < to)
                any |= is(c, l);
        }
    }
    return any;
}

static bool is_dirty(struct vblk_cache *c, struct line *l)
{
    return l->dirty;
}

static bool is_in_use(struct vblk_cache *c, struct line *l)
{
    return l->dirty || l->pins || l->state == LINE_FILLING;
}

static bool invalidate(struct vblk_cache *c, struct line *l)
{
    if (l->dirty)
        return false; /* written since: newer than what passed by */
    l->stale = true;
    line_settle(c, l);
    return true;
}

static bool try_pass(struct vblk_cache *c, struct vblk_request *r)
{
    bool reads = data_kind(r->op) == DATA_IN || r->op == VBLK_OP_FLUSH;
    struct vblk_request *p = r;

    if (any_line(c, r, reads ? is_dirty : is_in_use)) {
        c->drain = true;
        if (c->write_error) {
            request_end(c, r, c->write_error);
            return true;
        }
        return false;
    }
    if (!reads)
        any_line(c, r, invalidate);
    if (qz_vblk_submit(c->queue, &p, 1) != 1)
        request_end(c, r, r->status < 0 ? r->status : -VBLK_EIO);
    return true;
}

static bool try_request(struct vblk_cache *c, struct vblk_request *r)
{
    if (r->op == VBLK_OP_FLUSH && c->config.write_back) {
        if (!c->free_ops)
            return false;
        flush_start(c, r);
        return true;
    }
    if (!through_cache(c, r))
        return try_pass(c, r);
    return r->op == VBLK_OP_READ ? try_read(c, r) : try_write(c, r);
}

/* Tries everything that waits, once, and starts what has become due. */
static void pump(struct vblk_cache *c)
{
    struct vblk_request *r = c->parked.head, *next;

    c->parked = (struct request_list){0};
    for (; r; r = next) {
        next = r->next;
        if (!try_request(c, r))
            request_append(&c->parked, r);
    }
    while (flush_step(c))
        continue;
    if (!c->flushes && !c->write_error && (c->drain || c->dirty.count > c->dirty_max / 2))
        while (!c->write_error && write_back_one(c, UINT64_MAX))
            continue;
    if (!c->dirty.count)
        c->drain = false;
}

int qz_vblk_cache_submit(struct vblk_cache *c, struct vblk_request *const *requests, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct vblk_request *r = requests[i];
        int rc = request_check(c->queue, r);

        if (rc < 0) {
            r->status = rc;
            return (int)i;
        }
        r->status = VBLK_PENDING;
        r->attempts = 0;
        if (!try_request(c, r))
            request_append(&c->parked, r);
    }
    pump(c);
    return (int)n;
}

static bool is_own(const struct vblk_cache *c, const struct vblk_request *r)
{
    uintptr_t at = (uintptr_t)r;

    return at >= (uintptr_t)c->ops && at < (uintptr_t)(c->ops + CACHE_OPS);
}

int qz_vblk_cache_poll(struct vblk_cache *c, struct vblk_request **done, unsigned max)
{
    struct vblk_request *ended[16];
    unsigned out = 0;
    int n = qz_vblk_poll(c->queue, ended, 16);

    for (int i = 0; i < n; i++) {
        struct vblk_request *r = ended[i];

        if (is_own(c, r)) {
            op_done(c, (struct cache_op *)(void *)r); /* the request comes first in it */
            continue;
        }
        if (data_kind(r->op) != DATA_IN)
            any_line(c, r, invalidate); /* read meanwhile: older than what was written */
        request_append(&c->ready, r);
    }
    if (n > 0 || c->parked.head || c->flushes)
        pump(c);
    for (; out < max && c->ready.head; out++) {
        done[out] = c->ready.head;
        c->ready.head = done[out]->next;
    }
    return n < 0 && out == 0 ? n : (int)out;
}

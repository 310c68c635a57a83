/*
 * crash_test.c - the power fails, anywhere, and takes any of the sectors not flushed.
 *
 * A worker changes a disk; between any two of its requests to the file, even in the middle of a
 * commit, the power is cut on a copy. The copy must open, have no error but leaks (a repair mends
 * those), and hold in each sector what was flushed last or something that was written since.
 * A copy of a frozen image has no leaks either, and holds all.
 */
#include "rig.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SECTOR = 512, VERSIONS = 24 };

/* What a sector may hold: what was flushed, and what came after, as hashes. */
struct sector {
    unsigned count;
    uint64_t may[VERSIONS];
    unsigned floor; /* versions before this one are gone once the flush that runs is done */
};

struct crash {
    struct rig r;
    struct sector *sectors;
    unsigned left, cuts, leaky, frozen;
    bool working, repair;
    struct task *cutter;
};

static uint64_t hash(const uint8_t *b)
{
    uint64_t h = 14695981039346656037ull;

    for (unsigned k = 0; k < SECTOR; k += 8) {
        uint64_t v;

        memcpy(&v, b + k, 8);
        h = (h ^ v) * 1099511628211ull;
        h ^= h >> 29;
    }
    return h;
}

static void allow(struct crash *c, uint64_t sector, const uint8_t *bytes)
{
    struct sector *s = &c->sectors[sector];

    assert_true(s->count < VERSIONS);
    s->may[s->count++] = hash(bytes);
}

/* The flush that began when floors were set is done. */
static void settle(struct crash *c)
{
    for (uint64_t n = 0; n < c->r.size / SECTOR; n++) {
        struct sector *s = &c->sectors[n];

        memmove(s->may, s->may + s->floor, (s->count - s->floor) * sizeof(s->may[0]));
        s->count -= s->floor;
        s->floor = 0;
    }
}

static bool room(struct crash *c, uint64_t from, uint64_t to)
{
    for (uint64_t n = from / SECTOR; n < to / SECTOR; n++)
        if (c->sectors[n].count + 2 > VERSIONS)
            return false;
    return true;
}

static void set_floors(struct crash *c)
{
    for (uint64_t n = 0; n < c->r.size / SECTOR; n++)
        c->sectors[n].floor = c->sectors[n].count - 1;
}

static int flush(struct crash *c, struct disk_queue *q)
{
    int rc;

    set_floors(c);
    rc = layer_flush(c->r.image, q);
    settle(c);
    return rc;
}

/* Nothing to repair, nothing lost, nothing missing. */
static int is_whole(struct crash *c, struct disk_queue *q, struct layer *file)
{
    struct format_open o = {.label = "frozen.qcow2", .readonly = true};
    struct format_check check = {.repair = false};
    struct qz_error err = {0};
    struct layer *l;
    uint8_t *b = malloc(c->r.size);
    int rc = b ? qcow2_open(&l, file, q, &o, &err) : -ENOMEM;

    if (rc) {
        print_message("frozen: %s\n", err.text);
        free(b);
        return rc;
    }
    l->backing = c->r.backing;
    rc = qcow2_check(l, q, &check, &err);
    if (!rc && (check.errors || check.leaks ||
                qcow2_of(l)->header.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_LOG)))
        rc = -EUCLEAN;
    if (!rc)
        rc = layer_read(l, q, 0, b, c->r.size);
    if (!rc && memcmp(b, c->r.model, c->r.size))
        rc = -EBADMSG;
    free(b);
    l->ops->free(l);
    return rc;
}

/* The image is frozen, the power cut (on a copy), and then it is written again. */
static int freeze(struct crash *c, struct disk_queue *q)
{
    struct qz_error err = {0};
    struct layer *after;
    int rc;

    set_floors(c);
    rc = layer_freeze(c->r.image, q, &err);
    settle(c);
    if (rc)
        return rc;
    assert_int_equal(memory_power_cut(c->r.file, rig_random(&c->r), &after, &err), 0);
    rc = is_whole(c, q, after);
    after->ops->free(after);
    layer_thaw(c->r.image);
    c->frozen++;
    return rc;
}

static int change(struct crash *c, struct disk_queue *q, uint64_t from, uint64_t n)
{
    static const uint8_t zero[SECTOR];
    struct rig *r = &c->r;
    uint64_t what = rig_random(r) % 10;
    uint8_t *m = r->model + from;
    int rc;

    if (what < 6) {
        for (uint64_t k = 0; k < n; k += 8) {
            uint64_t v = rig_random(r);

            memcpy(m + k, &v, 8);
        }
        for (uint64_t k = 0; k < n; k += SECTOR)
            allow(c, (from + k) / SECTOR, m + k);
        return layer_write(r->image, q, from, m, n);
    }
    for (uint64_t k = 0; k < n; k += SECTOR)
        allow(c, (from + k) / SECTOR, zero);
    if (what < 8) {
        memset(m, 0, n);
        return layer_write_zeroes(r->image, q, from, n, what & 1 ? REQUEST_MAY_UNMAP : 0);
    }
    rc = layer_discard(r->image, q, from, n);
    if (!rc)
        rc = layer_read(r->image, q, from, m, n);
    /* What it says now it must go on to say, as the newest version. */
    for (uint64_t k = 0; !rc && k < n; k += SECTOR)
        allow(c, (from + k) / SECTOR, m + k);
    return rc;
}

static void worker(struct disk_queue *q, void *argument)
{
    struct crash *c = argument;
    int rc = 0;

    while (c->left-- && !rc) {
        uint64_t n = SECTOR * (1 + rig_random(&c->r) % 40);
        uint64_t from = QZ_ALIGN_DOWN(rig_random(&c->r) % (c->r.size - n), SECTOR);

        if (rig_random(&c->r) % 64 == 0)
            rc = freeze(c, q);
        else if (rig_random(&c->r) % 8 == 0 || !room(c, from, from + n))
            rc = flush(c, q);
        else
            rc = change(c, q, from, n);
    }
    if (rc)
        print_message("worker: %d\n", rc);
    assert_int_equal(rc, 0);
    c->working = false;
}

/* ---- the cut */

static int look(struct crash *c, struct disk_queue *q, struct layer *after, struct sector *may)
{
    struct format_open o = {.label = "after.qcow2", .check = true};
    struct format_check check = {.repair = c->repair};
    struct qz_error err = {0};
    struct layer *l;
    uint8_t *b = malloc(c->r.size);
    int rc = b ? qcow2_open(&l, after, q, &o, &err) : -ENOMEM;

    if (rc) {
        print_message("open: %s\n", err.text);
        free(b);
        return rc;
    }
    l->backing = c->r.backing;
    rc = qcow2_check(l, q, &check, &err);
    if (!rc && check.errors > check.errors_repaired) {
        print_message("%llu errors\n", (unsigned long long)check.errors);
        rc = -EUCLEAN;
    }
    if (!rc && c->repair && check.leaks > check.leaks_repaired)
        rc = -ENOSPC;
    c->leaky += check.leaks != 0;
    if (!rc)
        rc = layer_read(l, q, 0, b, c->r.size);
    for (uint64_t n = 0; !rc && n < c->r.size / SECTOR; n++) {
        uint64_t h = hash(b + n * SECTOR);
        bool found = false;

        for (unsigned k = 0; k < may[n].count; k++)
            found |= may[n].may[k] == h;
        if (!found) {
            print_message("sector %llu holds what it never did since the last flush\n",
                          (unsigned long long)n);
            rc = -EBADMSG;
        }
    }
    free(b);
    layer_close(l, q, &err);
    l->ops->free(l);
    return rc;
}

static int cutter(struct disk_queue *q, void *argument)
{
    struct crash *c = argument;
    struct sector *may = malloc(c->r.size / SECTOR * sizeof(*may));
    int rc = 0;

    assert_int_equal(task_start(q, worker, c), 0);
    while (c->working && !rc) {
        struct qz_error err;
        struct layer *after;
        uint8_t b[SECTOR];

        /* The worker's requests are done one for one of ours. */
        for (uint64_t n = rig_random(&c->r) % 10; n && c->working; n--)
            assert_int_equal(layer_read(c->r.file, q, 0, b, sizeof(b)), 0);
        memcpy(may, c->sectors, c->r.size / SECTOR * sizeof(*may));
        assert_int_equal(memory_power_cut(c->r.file, rig_random(&c->r), &after, &err), 0);
        rc = look(c, q, after, may);
        after->ops->free(after);
        c->cuts++;
    }
    while (c->working) {
        uint8_t b[SECTOR];

        layer_read(c->r.file, q, 0, b, sizeof(b));
    }
    free(may);
    return rc;
}

static void crash_with(const char *options, uint64_t backing, bool repair, unsigned changes,
                       bool log)
{
    struct crash c = {.r = {.random = 42,
                            .defers = true,
                            .records = true,
                            .file_max = log ? 8 << 20 : 2 << 20,
                            .log = log},
                      .left = changes,
                      .working = true,
                      .repair = repair};
    int rc;

    rig_open(&c.r, 192 << 10, options, backing);
    c.sectors = calloc(c.r.size / SECTOR, sizeof(*c.sectors));
    for (uint64_t n = 0; n < c.r.size / SECTOR; n++)
        allow(&c, n, c.r.model + n * SECTOR);
    rc = rig_run(&c.r, cutter, &c);
    if (rc)
        fail_msg("%s: cut %u: %d", options, c.cuts, rc);
    print_message("%s: %u cuts, %u with leaks, %u times frozen\n", options, c.cuts, c.leaky,
                  c.frozen);
    assert_true(c.cuts > 100 && c.frozen > 10);
    rig_compare(&c.r, options);
    free(c.sectors);
    rig_close(&c.r);
}

static void crash(const char *options, uint64_t backing, bool repair, unsigned changes)
{
    crash_with(options, backing, repair, changes, false);
}

static void logged(void **state)
{
    crash_with("cluster_size=4KiB", 0, false, 2000, true);
    crash_with("cluster_size=4KiB", 192 << 10, false, 2000, true);
    crash_with("cluster_size=16KiB,extended_l2", 192 << 10, false, 4000, true);
}

static void plain(void **state)
{
    crash("cluster_size=4KiB", 0, false, 3000);
    crash("cluster_size=64KiB", 0, false, 1500);
}

static void tiny(void **state)
{
    crash("cluster_size=512B", 0, false, 3000);
    crash("cluster_size=512B,refcount_bits=64", 100 << 10, true, 1500);
}

static void with_backing(void **state)
{
    crash("cluster_size=4KiB", 192 << 10, false, 3000);
    crash("cluster_size=4KiB,refcount_bits=1", 192 << 10, true, 2000);
}

static void subclusters(void **state)
{
    crash("cluster_size=16KiB,extended_l2", 192 << 10, false, 3000);
}

static void lazy(void **state)
{
    crash("cluster_size=4KiB,lazy_refcounts", 0, true, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),       cmocka_unit_test(tiny), cmocka_unit_test(with_backing),
        cmocka_unit_test(subclusters), cmocka_unit_test(lazy), cmocka_unit_test(logged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

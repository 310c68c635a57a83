/*
 * threads_test.c - several queues, each on its own thread, in one image at the same time.
 *
 * Threads own stripes of sectors, so that each knows what it must read, while their clusters, L2
 * entries and allocations are shared. One more thread shrinks and grows the metadata memory.
 */
#include "rig.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { THREADS = 4, SECTOR = 512, SIZE = 4 << 20, ROUNDS = 2000 };

struct lane {
    struct rig *r;
    unsigned index;
    uint64_t random;
    pthread_t thread;
    int error;
};

static uint64_t next(struct lane *l)
{
    uint64_t z = (l->random += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    return z ^ (z >> 31);
}

/* A sector of this lane's. */
static uint64_t sector(struct lane *l)
{
    return (next(l) % (SIZE / SECTOR / THREADS) * THREADS + l->index) * SECTOR;
}

static int one(struct lane *l, struct disk_queue *q)
{
    uint8_t b[SECTOR], *m = l->r->model;
    uint64_t at = sector(l), what = next(l) % 100;
    int rc;

    if (what < 45) {
        memset(b, (int)next(l) | 1, sizeof(b));
        rc = layer_write(l->r->image, q, at, b, sizeof(b));
        memcpy(m + at, b, sizeof(b));
        return rc;
    }
    if (what < 80) {
        rc = layer_read(l->r->image, q, at, b, sizeof(b));
        return rc ? rc : memcmp(b, m + at, sizeof(b)) ? -EBADMSG : 0;
    }
    if (what < 95) {
        rc = layer_write_zeroes(l->r->image, q, at, SECTOR, REQUEST_MAY_UNMAP);
        memset(m + at, 0, SECTOR);
        return rc;
    }
    return layer_flush(l->r->image, q);
}

/* Whole clusters at the end of the disk belong to nobody else: these may be discarded. */
static int clear_own(struct lane *l, struct disk_queue *q)
{
    uint64_t part = SIZE / THREADS, at = SIZE + l->index * part;
    uint8_t b[8192];
    int rc;

    memset(b, (int)l->index + 1, sizeof(b));
    rc = layer_write(l->r->image, q, at + next(l) % (part - sizeof(b)), b, sizeof(b));
    return rc ? rc : layer_discard(l->r->image, q, at, part);
}

static int in_task(struct disk_queue *q, void *argument)
{
    struct lane *l = argument;

    for (unsigned n = 0; !l->error && n < ROUNDS; n++) {
        l->error = one(l, q);
        if (!l->error && n % 16 == 0)
            l->error = clear_own(l, q);
    }
    return l->error;
}

static void *thread(void *argument)
{
    struct lane *l = argument;
    struct disk_queue *q;
    struct qz_error err;

    if (queue_new(&q, 16, &err)) {
        l->error = err.code;
        return NULL;
    }
    l->error = task_run(q, in_task, l);
    queue_free(q);
    return NULL;
}

static void *squeeze(void *argument)
{
    struct rig *r = argument;

    for (unsigned n = 0; n < 2000; n++)
        layer_set_memory(r->image, n & 1 ? 64 << 10 : 4 << 20);
    return NULL;
}

static void together(const char *options, bool defers)
{
    struct rig r = {.random = 5, .defers = defers};
    struct lane lanes[THREADS];
    pthread_t memory;

    rig_open(&r, 2 * SIZE, options, 0);
    for (unsigned n = 0; n < THREADS; n++) {
        lanes[n] = (struct lane){.r = &r, .index = n, .random = n};
        assert_int_equal(pthread_create(&lanes[n].thread, NULL, thread, &lanes[n]), 0);
    }
    assert_int_equal(pthread_create(&memory, NULL, squeeze, &r), 0);
    for (unsigned n = 0; n < THREADS; n++) {
        pthread_join(lanes[n].thread, NULL);
        if (lanes[n].error)
            fail_msg("%s: thread %u: %d", options, n, lanes[n].error);
    }
    pthread_join(memory, NULL);
    rig_compare(&r, options);
    rig_close(&r);
}

static void threads(void **state)
{
    static const char *const options[] = {"", "cluster_size=4KiB", "cluster_size=512B",
                                          "extended_l2,cluster_size=16KiB",
                                          "lazy_refcounts,cluster_size=4KiB"};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        together(options[n], false);
        together(options[n], true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

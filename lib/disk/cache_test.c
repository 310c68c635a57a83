/* cache_test.c - cached blocks are never older than the disk; the budget holds and gives back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter.h"
#include "memory.h"
#include "task.h"

enum { MIB = 1 << 20, DISK = 8 * MIB, BLOCK = 4096 };

struct fixture {
    struct layer *memory, *below, *l;
    struct disk_queue *q;
};

static void set_up(struct fixture *f, uint64_t bytes, bool defers, const char *rules)
{
    struct memory_options o = {.size = DISK, .defers = defers};
    struct qz_error err;

    assert_int_equal(queue_new(&f->q, 16, &err), 0);
    queue_poll(f->q);
    assert_int_equal(memory_open(&f->memory, &o, &err), 0);
    assert_int_equal(inject_open(&f->below, f->memory, rules, &err), 0);
    assert_int_equal(cache_open(&f->l, f->below, bytes, 4 * bytes, &err), 0);
}

static void end(struct fixture *f)
{
    f->l->ops->free(f->l);
    f->below->ops->free(f->below);
    f->memory->ops->free(f->memory);
    queue_free(f->q);
}

static int hits(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t b[3 * BLOCK];

    memset(memory_bytes(f->memory), 5, DISK);
    assert_int_equal(layer_read(f->l, q, 0, b, sizeof(b)), 0);
    memset(memory_bytes(f->memory), 6, DISK); /* behind its back: the cache must not see it */
    assert_int_equal(layer_read(f->l, q, 100, b, 2 * BLOCK), 0);
    assert_true(b[0] == 5 && b[2 * BLOCK - 1] == 5);
    assert_int_equal(layer_read(f->l, q, BLOCK, b, 3 * BLOCK), 0); /* in part: all from below */
    assert_true(b[3 * BLOCK - 1] == 6);
    b[0] = 9;
    assert_int_equal(layer_write(f->l, q, 100, b, 1), 0);
    assert_int_equal(layer_read(f->l, q, 0, b, BLOCK), 0);
    assert_true(b[0] == 6 && b[100] == 9);
    assert_int_equal(layer_write_zeroes(f->l, q, 0, DISK, 0), 0);
    assert_int_equal(layer_read(f->l, q, BLOCK, b, BLOCK), 0);
    assert_true(b[0] == 0);
    return 0;
}

static void test_hits_and_changes(void **state)
{
    struct fixture f;

    set_up(&f, MIB, false, "");
    assert_int_equal(task_run(f.q, hits, &f), 0);
    end(&f);
}

/* A read that is under way while a write to the same place begins and ends. */
struct race {
    struct fixture *f;
    int done;
};

static void slow_read(struct disk_queue *q, void *argument)
{
    struct race *r = argument;
    uint8_t b[BLOCK];

    assert_int_equal(layer_read(r->f->l, q, 0, b, BLOCK), 0);
    r->done++;
}

static int write_and_look(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t b[BLOCK];

    memset(b, 7, BLOCK);
    assert_int_equal(layer_write(f->l, q, 0, b, BLOCK), 0);
    return 0;
}

static int look(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t b[BLOCK];

    assert_int_equal(layer_read(f->l, q, 0, b, BLOCK), 0);
    assert_int_equal(b[0], 7);
    return 0;
}

static void test_no_stale_read(void **state)
{
    struct fixture f;
    struct race r = {&f, 0};

    /* The first read's bytes are taken now and delivered late: after the write. */
    set_up(&f, MIB, true, "");
    assert_int_equal(task_start(f.q, slow_read, &r), 0);
    assert_int_equal(task_run(f.q, write_and_look, &f), 0);
    while (!r.done)
        queue_wait(f.q);
    assert_int_equal(task_run(f.q, look, &f), 0);
    end(&f);
}

static size_t resident(void)
{
    unsigned long size, pages = 0;
    QZ_AUTO_FILE FILE *f = fopen("/proc/self/statm", "re");

    assert_int_equal(fscanf(f, "%lu %lu", &size, &pages), 2);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int read_all(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t b[BLOCK];

    for (uint64_t at = 0; at < DISK; at += BLOCK)
        assert_int_equal(layer_read(f->l, q, at, b, BLOCK), 0);
    return 0;
}

static int all_right(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint64_t b[BLOCK / 8];

    for (uint64_t at = 0; at < DISK; at += BLOCK) {
        assert_int_equal(layer_read(f->l, q, at, b, BLOCK), 0);
        assert_int_equal(b[0], at);
    }
    return 0;
}

static void test_budget(void **state)
{
    struct fixture f;
    size_t full, small;

    set_up(&f, 8 * MIB, false, "");
    for (uint64_t at = 0; at < DISK; at += BLOCK)
        memcpy(memory_bytes(f.memory) + at, &at, sizeof(at));
    task_run(f.q, read_all, &f);
    full = resident();
    layer_set_memory(f.l, MIB);
    small = resident();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(full - small > 6 * MIB);
#endif
    assert_true(small <= full);
    for (unsigned mib = 0; mib <= 32; mib = mib ? mib * 2 : 1) {
        layer_set_memory(f.l, (uint64_t)mib * MIB);
        assert_int_equal(task_run(f.q, all_right, &f), 0);
        assert_int_equal(task_run(f.q, all_right, &f), 0);
    }
    layer_set_memory(f.l, 0);
    assert_int_equal(task_run(f.q, all_right, &f), 0);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_and_changes),
        cmocka_unit_test(test_no_stale_read),
        cmocka_unit_test(test_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

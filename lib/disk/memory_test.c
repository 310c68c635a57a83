/* memory_test.c - the power cut keeps what was flushed and loses some of the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memory.h"
#include "queue.h"
#include "task.h"

enum { SIZE = 64 << 10 };

static int fill(struct disk_queue *q, void *argument)
{
    struct layer *l = argument;
    uint8_t b[SIZE / 2];

    memset(b, 1, sizeof(b));
    assert_int_equal(layer_write(l, q, 0, b, sizeof(b)), 0);
    assert_int_equal(layer_flush(l, q), 0);
    assert_int_equal(memory_unflushed(l), 0);
    memset(b, 2, sizeof(b));
    assert_int_equal(layer_write(l, q, SIZE / 4, b, sizeof(b)), 0);
    assert_int_equal(layer_write_zeroes(l, q, 0, 4096, 0), 0);
    assert_int_equal(memory_unflushed(l), 2);
    return 0;
}

/* How many sectors hold the byte, between two of them; a sector is never torn. */
static unsigned count(const uint8_t *bytes, unsigned first, unsigned end, uint8_t byte)
{
    unsigned n = 0;

    for (unsigned s = first; s < end; s++) {
        for (unsigned i = 1; i < 512; i++)
            assert_int_equal(bytes[s * 512], bytes[s * 512 + i]);
        n += bytes[s * 512] == byte;
    }
    return n;
}

static void test_power_cut(void **state)
{
    struct layer *l, *after;
    struct qz_error err;
    struct disk_queue *q;
    bool seen_all = false, seen_none = false, seen_some = false;

    assert_int_equal(memory_open(&l, &(struct memory_options){.size = SIZE, .records = true}, &err),
                     0);
    assert_int_equal(queue_new(&q, 8, &err), 0);
    assert_int_equal(task_run(q, fill, l), 0);
    for (uint64_t seed = 0; seed < 500; seed++) {
        const uint8_t *b;
        unsigned n;

        assert_int_equal(memory_power_cut(l, seed, &after, &err), 0);
        b = memory_bytes(after);
        n = count(b, 32, 96, 2);
        seen_all |= n == 64;
        seen_none |= n == 0;
        seen_some |= n && n < 64;
        assert_int_equal(count(b, 8, 32, 1), 24); /* flushed and not touched since */
        assert_int_equal(count(b, 32, 64, 1) + count(b, 32, 64, 2), 32);
        assert_int_equal(count(b, 64, 96, 0) + count(b, 64, 96, 2), 32);
        assert_int_equal(count(b, 0, 8, 1) + count(b, 0, 8, 0), 8);
        after->ops->free(after);
    }
    assert_true(seen_all && seen_none && seen_some);
    queue_free(q);
    l->ops->free(l);
}

static int grow(struct disk_queue *q, void *argument)
{
    struct layer *l = argument;
    struct qz_error err;
    uint8_t b[512] = {9};

    assert_int_equal(layer_resize(l, q, 2 * SIZE, &err), 0);
    assert_int_equal(layer_write(l, q, 2 * SIZE - 512, b, 512), 0);
    assert_int_equal(layer_resize(l, q, 4 * SIZE, &err), -ENOSPC);
    assert_int_equal(layer_read(l, q, 2 * SIZE - 511, b, 512), -EINVAL);
    return 0;
}

static void test_resize(void **state)
{
    struct layer *l, *after;
    struct qz_error err;
    struct disk_queue *q;
    bool seen_old = false, seen_new = false;

    assert_int_equal(
        memory_open(&l,
                    &(struct memory_options){
                        .size = SIZE, .size_max = 2 * SIZE, .records = true, .defers = true},
                    &err),
        0);
    assert_int_equal(queue_new(&q, 8, &err), 0);
    assert_int_equal(task_run(q, grow, l), 0);
    for (uint64_t seed = 0; seed < 100; seed++) {
        assert_int_equal(memory_power_cut(l, seed, &after, &err), 0);
        seen_old |= after->info.size == SIZE;
        seen_new |= after->info.size == 2 * SIZE;
        after->ops->free(after);
    }
    assert_true(seen_old && seen_new);
    queue_free(q);
    l->ops->free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cut),
        cmocka_unit_test(test_resize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

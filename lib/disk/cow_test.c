/* cow_test.c - a cow image shows its backing file with the changes, also after a power cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter.h"
#include "format.h"
#include "memory.h"
#include "queue.h"
#include "task.h"

enum { SIZE = 256 << 10, BACKING = 200 << 10, ROUNDS = 400, CUTS = 40 };

struct fixture {
    struct disk_queue *q;
    struct layer *memory, *file, *backing, *l;
    uint8_t shadow[SIZE], touched[SIZE];
    struct qz_error err;
};

static uint32_t seed = 3;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static int open_on(struct fixture *f, struct layer *file, struct disk_queue *q)
{
    struct format_open o = {.label = "cow"};
    int r = cow_format.open(&f->l, file, q, &o, &f->err);

    if (r == 0)
        f->l->backing = f->backing;
    return r;
}

static int make(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    struct format_create c = {.size = SIZE, .backing_file = "base", .backing_format = "raw"};
    struct format_names names = {0};

    assert_int_equal(cow_format.create(f->file, q, &c, &f->err), 0);
    assert_int_equal(cow_format.names(f->file, q, &names, &f->err), 0);
    assert_string_equal(names.backing_file, "base");
    assert_string_equal(names.backing_format, "raw");
    format_names_clear(&names);
    return open_on(f, f->file, q);
}

static void set_up(struct fixture *f, const char *rules)
{
    struct memory_options file = {.size_max = 4 << 20, .records = true, .defers = true},
                          base = {.size = BACKING};

    assert_int_equal(queue_new(&f->q, 16, &f->err), 0);
    assert_int_equal(memory_open(&f->memory, &file, &f->err), 0);
    assert_int_equal(inject_open(&f->file, f->memory, rules, &f->err), 0);
    assert_int_equal(memory_open(&f->backing, &base, &f->err), 0);
    for (unsigned i = 0; i < BACKING; i++)
        f->shadow[i] = memory_bytes(f->backing)[i] = (uint8_t)(i / 512 + 1);
    assert_int_equal(task_run(f->q, make, f), 0);
}

static void end(struct fixture *f)
{
    f->l->ops->free(f->l);
    f->file->ops->free(f->file);
    f->memory->ops->free(f->memory);
    f->backing->ops->free(f->backing);
    queue_free(f->q);
    free(f);
}

static int look(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t *b = malloc(SIZE);

    assert_int_equal(layer_read(f->l, q, 0, b, SIZE), 0);
    assert_memory_equal(b, f->shadow, SIZE);
    free(b);
    return 0;
}

static void change(struct fixture *f, struct disk_queue *q, uint8_t byte)
{
    uint64_t offset = random_below(SIZE - 1), length = 1 + random_below(20000);
    uint8_t *b = malloc(SIZE);

    if (random_below(3) == 0) {
        offset &= ~4095ull;
        length = QZ_ALIGN_UP(length, 4096ull);
    }
    length = QZ_MIN(length, SIZE - offset);
    byte = random_below(5) ? byte : 0;
    memset(f->shadow + offset, byte, length);
    memset(f->touched + offset, 1, length);
    memset(b, byte, length);
    if (byte)
        assert_int_equal(layer_write(f->l, q, offset, b, length), 0);
    else
        assert_int_equal(layer_write_zeroes(f->l, q, offset, length, 0), 0);
    offset = random_below(SIZE - 1);
    length = QZ_MIN(1 + (uint64_t)random_below(60000), SIZE - offset);
    assert_int_equal(layer_read(f->l, q, offset, b, length), 0);
    assert_memory_equal(b, f->shadow + offset, length);
    free(b);
}

static int changes(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    struct extent e;

    look(q, f);
    assert_int_equal(layer_map(f->l, q, 0, SIZE, &e), 0);
    assert_true(e.state == EXTENT_UNALLOCATED && e.length == SIZE);
    for (unsigned i = 0; i < ROUNDS; i++)
        change(f, q, (uint8_t)i);
    look(q, f);
    return layer_close(f->l, q, &f->err);
}

static int again(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    f->l->ops->free(f->l);
    assert_int_equal(open_on(f, f->file, q), 0);
    return look(q, f);
}

static void test_changes(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    set_up(f, "");
    assert_int_equal(task_run(f->q, changes, f), 0);
    assert_int_equal(task_run(f->q, again, f), 0);
    end(f);
}

static int flush_and_go_on(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;

    for (unsigned i = 0; i < 10; i++)
        change(f, q, (uint8_t)(i + 100));
    assert_int_equal(layer_flush(f->l, q), 0);
    memset(f->touched, 0, SIZE);
    /* These may be lost, but nothing beside them. */
    for (unsigned i = 0; i < 10; i++)
        change(f, q, (uint8_t)(i + 50));
    /* The power fails when the bits have been written and not flushed: rule of the test. */
    assert_int_equal(layer_flush(f->l, q), -EIO);
    return 0;
}

static int check_cut(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    struct layer *whole = f->l, *after;
    uint8_t *b = malloc(SIZE);

    for (unsigned cut = 0; cut < CUTS; cut++) {
        assert_int_equal(memory_power_cut(f->memory, seed + cut, &after, &f->err), 0);
        assert_int_equal(open_on(f, after, q), 0);
        assert_int_equal(layer_read(f->l, q, 0, b, SIZE), 0);
        for (unsigned i = 0; i < SIZE; i++)
            if (!f->touched[i])
                assert_int_equal(b[i], f->shadow[i]);
        f->l->ops->free(f->l);
        after->ops->free(after);
    }
    f->l = whole;
    free(b);
    return 0;
}

static void test_power_cuts(void **state)
{
    for (unsigned i = 0; i < 8; i++) {
        struct fixture *f = calloc(1, sizeof(*f));

        /* One flush when it is made, two for each of its own but the last half. */
        set_up(f, "flush:error=EIO:after=4");
        assert_int_equal(task_run(f->q, flush_and_go_on, f), 0);
        assert_int_equal(task_run(f->q, check_cut, f), 0);
        end(f);
    }
}

static int hostile(struct disk_queue *q, void *argument)
{
    static const struct {
        unsigned offset, bytes;
        uint64_t value;
        const char *why;
    } lies[] = {
        {0, 1, 0, "no cow image"}, {8, 4, 9, "version"},        {12, 4, 512, "granule"},
        {16, 8, 0, "size"},        {16, 8, UINT64_MAX, "size"}, {16, 8, 1ull << 43, "data"},
        {24, 8, 0, "bitmap"},      {32, 8, 4096, "data"},       {16, 8, SIZE + 4096, "file has"}};
    struct fixture *f = argument;
    uint8_t saved[4096], *bytes = memory_bytes(f->memory);
    struct layer *good = f->l;

    memcpy(saved, bytes, sizeof(saved));
    for (unsigned i = 0; i < QZ_ARRAY_LEN(lies); i++) {
        memcpy(bytes + lies[i].offset, &lies[i].value, lies[i].bytes);
        assert_true(open_on(f, f->file, q) < 0);
        if (!strstr(f->err.text, lies[i].why))
            fail_msg("%s", f->err.text);
        memcpy(bytes, saved, sizeof(saved));
    }
    memset(bytes + 40, 'x', 1024);
    assert_true(open_on(f, f->file, q) < 0);
    memcpy(bytes, saved, sizeof(saved));
    f->l = good;
    return 0;
}

static void test_hostile_headers(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    set_up(f, "");
    assert_int_equal(task_run(f->q, hostile, f), 0);
    end(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_hostile_headers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

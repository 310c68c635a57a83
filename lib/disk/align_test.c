/* align_test.c - any request over a disk of 4096-byte blocks gives what a plain array gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "filter.h"
#include "memory.h"
#include "task.h"

enum { SIZE = 1 << 20, BLOCK = 4096, ROUNDS = 3000 };

/* Refuses what is not aligned, so that the test sees whether anything gets past. */
struct strict {
    struct layer l;
};

static void strict_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    assert_int_equal((r->offset | r->length) % BLOCK, 0);
    for (unsigned i = 0; i < r->iov_count; i++)
        assert_int_equal(((uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len) % 512, 0);
    layer_submit(l->below, q, r);
}

static void nothing(struct layer *l) {}

static const struct layer_ops strict_ops = {
    .name = "strict", .submit = strict_submit, .map = filter_map, .free = nothing};

static uint32_t seed = 1;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static int any_requests(struct disk_queue *q, void *argument)
{
    struct layer *l = argument;
    uint8_t *shadow = calloc(1, SIZE), *bytes = malloc(SIZE);

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t offset = random_below(SIZE - 1),
                 length = 1 + random_below((uint32_t)QZ_MIN((uint64_t)600000, SIZE - offset));
        struct iovec iov[2] = {{bytes, length / 3}, {bytes + length / 3, length - length / 3}};

        if (random_below(4))
            length = QZ_MIN(length, 1 + (uint64_t)random_below(9000));
        iov[1].iov_len = length - QZ_MIN(length, (uint64_t)iov[0].iov_len);
        iov[0].iov_len = QZ_MIN((size_t)length, iov[0].iov_len);
        iov[1].iov_base = bytes + iov[0].iov_len;
        switch (random_below(4)) {
        case 0:
            memset(bytes, i, length);
            memset(shadow + offset, i, length);
            assert_int_equal(layer_writev(l, q, offset, iov, 2), 0);
            break;
        case 1:
            memset(shadow + offset, 0, length);
            assert_int_equal(layer_write_zeroes(l, q, offset, length, 0), 0);
            break;
        default:
            assert_int_equal(layer_readv(l, q, offset, iov, 2), 0);
            assert_memory_equal(bytes, shadow + offset, length);
        }
    }
    assert_int_equal(layer_discard(l, q, 100, 3000), 0); /* no whole block: nothing happens */
    assert_int_equal(layer_read(l, q, 0, bytes, BLOCK), 0);
    assert_memory_equal(bytes, shadow, BLOCK);
    free(shadow);
    free(bytes);
    return 0;
}

enum { WRITERS = 64 };

struct neighbours {
    struct layer *l;
    unsigned done, next;
};

static void neighbour(struct disk_queue *q, void *argument)
{
    struct neighbours *n = argument;
    unsigned i = n->next++;
    uint8_t bytes[64];

    memset(bytes, (int)i + 1, sizeof(bytes));
    assert_int_equal(layer_write(n->l, q, i * 64, bytes, 64), 0);
    n->done++;
}

/* Many at once in one block: none is lost. */
static void test_neighbours(void **state)
{
    struct strict s;
    struct neighbours n = {0};
    struct layer *memory;
    struct disk_queue *q;
    struct qz_error err;
    struct memory_options o = {.size = SIZE, .alignment = BLOCK, .defers = true};

    assert_int_equal(queue_new(&q, 8, &err), 0);
    queue_poll(q);
    assert_int_equal(memory_open(&memory, &o, &err), 0);
    filter_init(&s.l, &strict_ops, memory);
    s.l.info.memory_alignment = 512;
    assert_int_equal(align_open(&n.l, &s.l, &err), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(task_start(q, neighbour, &n), 0);
    while (n.done < WRITERS)
        queue_wait(q);
    for (unsigned i = 0; i < WRITERS * 64; i++)
        assert_int_equal(memory_bytes(memory)[i], i / 64 + 1);
    n.l->ops->free(n.l);
    memory->ops->free(memory);
    queue_free(q);
}

static void test_any_requests(void **state)
{
    struct strict s;
    struct layer *memory, *l;
    struct disk_queue *q;
    struct qz_error err;
    struct memory_options o = {.size = SIZE, .alignment = BLOCK};

    assert_int_equal(queue_new(&q, 8, &err), 0);
    assert_int_equal(memory_open(&memory, &o, &err), 0);
    filter_init(&s.l, &strict_ops, memory);
    s.l.info.memory_alignment = 512;
    assert_int_equal(align_open(&l, &s.l, &err), 0);
    assert_int_equal(task_run(q, any_requests, l), 0);
    l->ops->free(l);
    memory->ops->free(memory);
    queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_requests),
        cmocka_unit_test(test_neighbours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* file_test.c - the file layer: bytes, holes, ends, locks; cached and O_DIRECT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "file.h"
#include "queue.h"
#include "task.h"

enum { MIB = 1 << 20 };

struct fixture {
    struct disk_queue *q;
    struct layer *l;
    char path[256];
    enum file_cache cache;
};

static void temporary(char *path, size_t size, const char *dir)
{
    int fd;

    snprintf(path, size, "%s/qz-disk-test-XXXXXX", dir);
    fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static void make(struct fixture *f, const char *dir, uint64_t size)
{
    struct qz_error err = {0};

    temporary(f->path, sizeof(f->path), dir);
    if (file_create(f->path, size, FILE_SPARSE, true, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(queue_new(&f->q, 64, &err), 0);
}

static struct layer *open_or_fail(struct fixture *f, bool readonly)
{
    struct file_options o = {.path = f->path, .readonly = readonly, .cache = f->cache};
    struct qz_error err = {0};
    struct layer *l;

    if (file_open(&l, &o, &err) < 0)
        fail_msg("%s", err.text);
    return l;
}

static void end(struct fixture *f)
{
    queue_free(f->q);
    unlink(f->path);
}

static void run(struct fixture *f, int (*fn)(struct disk_queue *q, void *argument))
{
    assert_int_equal(task_run(f->q, fn, f), 0);
}

static uint8_t *buffer(size_t n, int byte)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 4096, n), 0);
    memset(p, byte, n);
    return p;
}

static int bytes(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t *a = buffer(MIB, 0x5a), *b = buffer(MIB, 0);
    struct iovec split[3] = {{b, 4096}, {b + 8192, 8192}, {b + 65536, 4096}};

    assert_int_equal(layer_write(f->l, q, 4096, a, MIB), 0);
    assert_int_equal(layer_read(f->l, q, 8192, b, MIB), 0);
    assert_memory_equal(a, b, MIB - 4096);
    assert_true(b[MIB - 4096] == 0 && b[MIB - 1] == 0);
    memset(b, 1, MIB);
    assert_int_equal(layer_readv(f->l, q, 0, split, 3), 0);
    assert_true(b[0] == 0 && b[4096] == 1 && b[8192] == 0x5a && b[65536 + 4095] == 0x5a);
    assert_int_equal(layer_flush(f->l, q), 0);

    assert_int_equal(layer_write_zeroes(f->l, q, 8192, 4096, 0), 0);
    assert_int_equal(layer_write_zeroes(f->l, q, 16384, 65536, REQUEST_MAY_UNMAP), 0);
    assert_int_equal(layer_discard(f->l, q, 256 << 10, 65536), 0);
    assert_int_equal(layer_read(f->l, q, 0, b, MIB), 0);
    assert_true(b[8191] == 0x5a && b[8192] == 0 && b[12287] == 0 && b[12288] == 0x5a);
    assert_true(b[16383] == 0x5a && b[16384] == 0 && b[16384 + 65535] == 0 && b[81920] == 0x5a);
    free(a);
    free(b);
    return 0;
}

static int extents(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t *a = buffer(65536, 1);
    struct extent e;

    assert_int_equal(layer_write(f->l, q, MIB, a, 65536), 0);
    assert_int_equal(layer_map(f->l, q, 0, 4 * MIB, &e), 0);
    assert_int_equal(e.state, EXTENT_UNALLOCATED);
    assert_int_equal(e.length, MIB);
    assert_int_equal(layer_map(f->l, q, MIB, 3 * MIB, &e), 0);
    assert_int_equal(e.state, EXTENT_DATA);
    assert_int_equal(e.length, 65536);
    assert_true(e.has_offset && e.offset == MIB);
    assert_int_equal(layer_map(f->l, q, MIB + 65536, 100 * MIB, &e), 0);
    assert_int_equal(e.state, EXTENT_UNALLOCATED);
    assert_int_equal(e.length, 3 * MIB - 65536); /* cut to the end */
    assert_int_equal(layer_map(f->l, q, 4 * MIB, 1, &e), -EINVAL);
    free(a);
    return 0;
}

static int ends(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    uint8_t *b = buffer(8192, 7);
    struct qz_error err = {0};

    assert_int_equal(layer_resize(f->l, q, 2 * MIB + 4096, &err), 0);
    assert_int_equal(f->l->info.size, 2 * MIB + 4096);
    assert_int_equal(layer_read(f->l, q, 2 * MIB, b, 8192), 0); /* behind the end: zeroes */
    assert_true(b[0] == 0 && b[8191] == 0);
    assert_int_equal(truncate(f->path, MIB), 0); /* behind our back */
    assert_int_equal(layer_read(f->l, q, MIB, b, 8192), -EIO);
    assert_int_equal(layer_resize(f->l, q, UINT64_MAX, &err), -EFBIG);
    free(b);
    return 0;
}

static int many_vectors(struct disk_queue *q, void *argument)
{
    enum { N = 3000, EACH = 512 };
    struct fixture *f = argument;
    uint8_t *a = buffer(N * EACH, 0), *b = buffer(N * EACH, 0);
    struct iovec iov[N];

    for (int i = 0; i < N; i++) {
        memset(a + i * EACH, i, EACH);
        iov[i] = (struct iovec){a + i * EACH, EACH};
    }
    assert_int_equal(layer_writev(f->l, q, 0, iov, N), 0);
    for (int i = 0; i < N; i++)
        iov[i].iov_base = b + i * EACH;
    assert_int_equal(layer_readv(f->l, q, 0, iov, N), 0);
    assert_memory_equal(a, b, N * EACH);
    free(a);
    free(b);
    return 0;
}

static void all(const char *dir, enum file_cache cache)
{
    int (*const cases[])(struct disk_queue *, void *) = {bytes, extents, many_vectors, ends};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct fixture f = {.cache = cache};

        make(&f, dir, 4 * MIB);
        f.l = open_or_fail(&f, false);
        run(&f, cases[i]);
        f.l->ops->free(f.l);
        end(&f);
    }
}

static void test_page_cache(void **state)
{
    all(".", FILE_WRITEBACK);
}

static void test_writethrough(void **state)
{
    all(".", FILE_WRITETHROUGH);
}

static void test_memory_file_system(void **state)
{
    if (access("/dev/shm", W_OK) < 0)
        skip();
    all("/dev/shm", FILE_WRITEBACK);
}

static void test_direct(void **state)
{
    int fd = open(".", O_TMPFILE | O_RDWR | O_DIRECT, 0600);

    if (fd < 0)
        skip(); /* this file system has no O_DIRECT */
    close(fd);
    all(".", FILE_DIRECT);
}

static void test_locks(void **state)
{
    struct fixture f = {0};
    struct layer *a, *b, *c;
    struct file_options o = {.path = f.path, .readonly = true};
    struct qz_error err = {0};

    make(&f, ".", MIB);
    a = open_or_fail(&f, true);
    b = open_or_fail(&f, true);
    o.readonly = false;
    assert_int_equal(file_open(&c, &o, &err), -EBUSY);
    assert_non_null(strstr(err.text, "in use"));
    a->ops->free(a);
    b->ops->free(b);
    a = open_or_fail(&f, false);
    assert_int_equal(file_open(&b, &o, &err), -EBUSY);
    o.readonly = true;
    assert_int_equal(file_open(&b, &o, &err), -EBUSY);
    assert_int_equal(file_create(f.path, 5, FILE_SPARSE, true, &err), -EBUSY);
    o.no_lock = true;
    assert_int_equal(file_open(&b, &o, &err), 0);
    b->ops->free(b);
    a->ops->free(a);
    end(&f);
}

static int refused_write(struct disk_queue *q, void *argument)
{
    struct fixture *f = argument;
    char byte = 1;

    assert_int_equal(layer_write(f->l, q, 0, &byte, 1), -EROFS);
    assert_int_equal(layer_discard(f->l, q, 0, 4096), -EROFS);
    assert_int_equal(layer_write_zeroes(f->l, q, 0, 4096, 0), -EROFS);
    assert_int_equal(layer_flush(f->l, q), 0);
    return 0;
}

static void test_readonly(void **state)
{
    struct fixture f = {0};

    make(&f, ".", MIB);
    f.l = open_or_fail(&f, true);
    run(&f, refused_write);
    f.l->ops->free(f.l);
    end(&f);
}

static void test_refusals(void **state)
{
    struct layer *l;
    struct qz_error err = {0};
    struct file_options o = {.path = "no/such/file"};
    char path[256];
    struct stat st;

    assert_int_equal(file_open(&l, &o, &err), -ENOENT);
    o.path = "/dev/null";
    assert_int_equal(file_open(&l, &o, &err), -EINVAL);
    temporary(path, sizeof(path), ".");
    assert_int_equal(file_create(path, MIB, FILE_SPARSE, false, &err), -EEXIST);
    assert_int_equal(file_create(path, MIB, FILE_FALLOC, true, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size == MIB && st.st_blocks * 512 >= MIB);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_cache),
        cmocka_unit_test(test_writethrough),
        cmocka_unit_test(test_memory_file_system),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_locks),
        cmocka_unit_test(test_readonly),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

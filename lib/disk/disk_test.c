/* disk_test.c - the public interface: options, queues, requests, images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <queztl/disk.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lifetime.h"

static char path[] = "qz-disk-api-XXXXXX";

static char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *fmt, ...)
{
    static char buf[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    return buf;
}

static struct qz_disk *open_or_fail(const char *options)
{
    struct qz_error err = {0};
    struct qz_disk *d;

    if (qz_disk_open(&d, options, &err) < 0)
        fail_msg("%s", err.text);
    return d;
}

static void refused(const char *options, const char *why)
{
    struct qz_error err = {0};
    struct qz_disk *d = NULL;

    if (qz_disk_open(&d, options, &err) >= 0)
        fail_msg("%s was opened", options);
    if (!strstr(err.text, why))
        fail_msg("%s: %s", options, err.text);
}

static void test_refusals(void **state)
{
    refused("", "file= is missing");
    refused("no/such/file", "cannot open");
    refused(text("%s,colour=red", path), "colour");
    refused(text("%s,cache=fast", path), "writeback, writethrough, none, unsafe");
    refused(text("%s,format=vmdk", path), "vmdk");
    refused(text("%s,iops=0", path), "iops");
    refused(text("%s,bps=100", path), "bps");
    refused(text("%s,readonly,readonly", path), "twice");
    refused(text("%s,backing=x", path), "backing");
    refused(text("%s,inject=write", path), "error=");
    refused("null:5", "null:5");
}

/* A file in a folder that has the place of sysfs. */
static void put_fact(const char *name, const char *value)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(value, f);
    fclose(f);
}

static void test_lifetime(void **state)
{
    struct qz_disk_lifetime worn;
    struct lifetime l;
    struct stat st;
    char dir[200], made[] = "qz-sysfs-XXXXXX", file[260];

    assert_int_equal(stat(path, &st), 0);
    assert_non_null(mkdtemp(made));
    lifetime_open(&l, made, &st);
    assert_int_equal(lifetime_read(&l, &worn), -ENOTSUP);
    lifetime_close(&l);
    snprintf(dir, sizeof(dir), "mkdir -p %s/dev/block/%u:%u/device", made, major(st.st_dev),
             minor(st.st_dev));
    assert_int_equal(system(dir), 0);
    snprintf(file, sizeof(file), "%s/life_time", dir + strlen("mkdir -p "));
    put_fact(file, "0x03 0x0b\n");
    lifetime_open(&l, made, &st);
    assert_int_equal(lifetime_read(&l, &worn), 0);
    assert_int_equal(worn.pre_eol_info, 0);
    lifetime_close(&l);
    snprintf(file, sizeof(file), "%s/pre_eol_info", dir + strlen("mkdir -p "));
    put_fact(file, "0x02\n");
    lifetime_open(&l, made, &st);
    assert_int_equal(lifetime_read(&l, &worn), 0);
    assert_int_equal(worn.pre_eol_info, 2);
    assert_int_equal(worn.typ_a, 3);
    assert_int_equal(worn.typ_b, 11);
    lifetime_close(&l);
    snprintf(dir, sizeof(dir), "rm -r %s", made);
    assert_int_equal(system(dir), 0);
}

static void test_blocking(void **state)
{
    struct qz_disk *d = open_or_fail(text("%s,format=auto,stats,iops=1000000,bps=10GiB", path));
    struct qz_disk_queue *q;
    struct qz_disk_extent e;
    struct qz_disk_info info;
    struct qz_disk_stats stats;
    struct qz_error err;
    char a[5000], b[5000];

    memset(a, 3, sizeof(a));
    assert_int_equal(qz_disk_queue_new(&q, d, 32, &err), 0);
    qz_disk_get_info(d, &info);
    assert_int_equal(info.size, 4 << 20);
    assert_string_equal(info.format, "raw");
    assert_int_equal(qz_disk_write(q, 777, a, sizeof(a)), 0);
    assert_int_equal(qz_disk_flush(q), 0);
    assert_int_equal(qz_disk_read(q, 777, b, sizeof(b)), 0);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(qz_disk_read(q, info.size - 10, b, 11), -EINVAL);
    assert_int_equal(qz_disk_write(q, UINT64_MAX, b, 1), -EINVAL);
    assert_int_equal(qz_disk_zero(q, 0, 100000, QZ_DISK_MAY_UNMAP), 0);
    assert_int_equal(qz_disk_discard(q, 0, 4096), 0);
    assert_int_equal(qz_disk_read(q, 777, b, 1), 0);
    assert_int_equal(b[0], 0);
    assert_int_equal(qz_disk_map(q, 1 << 20, 1 << 20, true, &e), 0);
    assert_true(e.state == QZ_DISK_HOLE && e.zero && e.length == 1 << 20);
    assert_int_equal(qz_disk_write_compressed(q, 0, a, 4096), -ENOTSUP);
    assert_int_equal(qz_disk_get_stats(d, &stats), 0);
    assert_int_equal(stats.op[QZ_DISK_WRITE].count, 1);
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_resize(d, 8 << 20, &err), 0);
    qz_disk_get_info(d, &info);
    assert_int_equal(info.size, 8 << 20);
    assert_int_equal(qz_disk_resize(d, 4 << 20, &err), 0);
    assert_int_equal(qz_disk_close(d, &err), 0);
}

enum { DEPTH = 32, ROUNDS = 2000 };

struct worker {
    struct qz_disk_queue *q;
    uint64_t base;
    unsigned left, flying;
    bool failed;
    struct slot {
        struct worker *w;
        struct qz_disk_request r;
        struct iovec iov;
        uint64_t bytes[512];
        bool idle;
    } slot[DEPTH];
};

static void on_done(struct qz_disk_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, r);

    s->w->failed |= result != 0;
    if (r->op == QZ_DISK_READ)
        for (unsigned i = 0; i < 512; i++)
            s->w->failed |= s->bytes[i] != r->offset;
    s->w->flying--;
    s->idle = true;
}

static void *work(void *argument)
{
    struct worker *w = argument;

    w->left = ROUNDS;
    for (unsigned i = 0; i < DEPTH; i++)
        w->slot[i] = (struct slot){.w = w, .idle = true};
    while (w->left || w->flying) {
        for (unsigned i = 0; i < DEPTH && w->left; i++) {
            struct slot *s = &w->slot[i];
            uint64_t offset = w->base + i * 4096;

            if (!s->idle)
                continue;
            s->idle = false;
            s->iov = (struct iovec){s->bytes, 4096};
            s->r = (struct qz_disk_request){
                .op = w->left > ROUNDS / 2 || w->left <= DEPTH ? QZ_DISK_WRITE : QZ_DISK_READ,
                .offset = offset,
                .length = 4096,
                .iov = &s->iov,
                .iov_count = 1,
                .done = on_done};
            for (unsigned k = 0; s->r.op == QZ_DISK_WRITE && k < 512; k++)
                s->bytes[k] = offset;
            w->left--;
            w->flying++;
            qz_disk_submit(w->q, &s->r);
        }
        qz_disk_kick(w->q);
        if (w->flying)
            qz_disk_wait(w->q);
    }
    return NULL;
}

static void many_queues(const char *options)
{
    enum { THREADS = 3 };
    static struct worker w[THREADS];
    struct qz_disk *d = open_or_fail(options);
    pthread_t thread[THREADS];
    struct qz_error err;

    for (unsigned i = 0; i < THREADS; i++) {
        w[i].base = i << 20;
        w[i].failed = false;
        assert_int_equal(qz_disk_queue_new(&w[i].q, d, 16, &err), 0);
        pthread_create(&thread[i], NULL, work, &w[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_false(w[i].failed);
        qz_disk_queue_free(w[i].q);
    }
    assert_int_equal(qz_disk_close(d, &err), 0);
}

static void test_many_queues(void **state)
{
    many_queues(path);
    many_queues(text("%s,cache=none", path));
    many_queues(text("%s,cache=none,stats,inject=read:delay=50us:every=50", path));
}

static void test_errors_arrive(void **state)
{
    struct qz_disk *d = open_or_fail("memory:1MiB,inject=write:error=ENOSPC:after=1");
    struct qz_disk_queue *q;
    struct qz_error err;

    assert_int_equal(qz_disk_queue_new(&q, d, 8, &err), 0);
    assert_int_equal(qz_disk_write(q, 0, "a", 1), 0);
    assert_int_equal(qz_disk_write(q, 0, "a", 1), -ENOSPC);
    qz_disk_queue_free(q);
    qz_disk_close(d, &err);
    d = open_or_fail(text("%s,readonly", path));
    assert_int_equal(qz_disk_queue_new(&q, d, 8, &err), 0);
    assert_int_equal(qz_disk_write(q, 0, "a", 1), -EROFS);
    qz_disk_queue_free(q);
    qz_disk_close(d, &err);
}

static void test_by_descriptor(void **state)
{
    int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC), rd = open(path, O_RDONLY | O_CLOEXEC);
    struct qz_disk_queue *q;
    struct qz_disk_info info;
    struct qz_error err;
    struct qz_disk *d;
    char a[600], b[600];

    assert_true(fd >= 0 && rd >= 0);
    memset(a, 9, sizeof(a));
    d = open_or_fail(text("vm.img,fd=%d", fd));
    qz_disk_get_info(d, &info);
    assert_string_equal(info.label, "vm.img");
    assert_int_equal(info.size, 4 << 20);
    refused(text("%s,readonly", path), "in use");
    assert_int_equal(qz_disk_queue_new(&q, d, 8, &err), 0);
    assert_int_equal(qz_disk_write(q, 1000, a, sizeof(a)), 0);
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_close(d, &err), 0);
    d = open_or_fail(text("vm.img,fd=%d,readonly,cache=none", rd));
    assert_int_equal(qz_disk_queue_new(&q, d, 8, &err), 0);
    assert_int_equal(qz_disk_read(q, 1000, b, sizeof(b)), 0);
    assert_memory_equal(a, b, sizeof(a));
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_close(d, &err), 0);
    refused(text("vm.img,fd=%d", rd), "not open for reading and writing");
    close(rd);
    refused("vm.img,fd=99999", "Bad file descriptor");
    refused("vm.img,fd=-1", "fd");
    refused("vm.img,fd", "fd");
    refused("memory:1MiB,fd=0", "fd= is for files");
    /* Ours to the end: what was opened with it has closed a descriptor of its own. */
    assert_int_equal(pread(fd, b, sizeof(b), 1000), sizeof(b));
    close(fd);
}

static void test_create(void **state)
{
    struct qz_error err;
    char other[] = "qz-disk-made-XXXXXX";
    struct qz_disk_info info;
    struct qz_disk *d;

    close(mkstemp(other));
    assert_int_equal(qz_disk_create(text("%s,size=1MiB", other), &err), -EEXIST);
    assert_int_equal(qz_disk_create(text("%s,overwrite", other), &err), -EINVAL);
    assert_non_null(strstr(err.text, "size="));
    assert_int_equal(qz_disk_create(text("%s,overwrite,size=1MiB,backing=x", other), &err),
                     -EINVAL);
    assert_int_equal(qz_disk_create(text("%s,overwrite,size=1MiB,cluster_size=4K", other), &err),
                     -EINVAL);
    assert_int_equal(qz_disk_create(text("%s,overwrite,size=1MiB,preallocation=full", other), &err),
                     0);
    d = open_or_fail(other);
    qz_disk_get_info(d, &info);
    assert_int_equal(info.size, 1 << 20);
    qz_disk_close(d, &err);
    unlink(other);
}

static int make_file(void **state)
{
    struct qz_error err;

    close(mkstemp(path));
    return qz_disk_create(text("%s,size=4MiB,overwrite", path), &err);
}

static int remove_file(void **state)
{
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_lifetime),
        cmocka_unit_test(test_blocking),      cmocka_unit_test(test_many_queues),
        cmocka_unit_test(test_errors_arrive), cmocka_unit_test(test_create),
        cmocka_unit_test(test_by_descriptor),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}

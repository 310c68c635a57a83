/*
 * overlay_test.c - a disk that goes on in an overlay: what it shows, what lies in the images, and
 * that a failure leaves all as it was.
 *
 * A model in memory says what the disk and each frozen image must hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <queztl/disk.h>
#include <sys/stat.h>

enum { SIZE = 4 << 20, IMAGES = 6 };

static char folder[200];
static bool has_qemu;

struct machine {
    struct qz_disk *d;
    struct qz_disk_queue *q;
    uint8_t *model;
    uint64_t random;
};

static char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *fmt, ...)
{
    static char buf[8][600];
    static unsigned next;
    char *p = buf[next++ % 8];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p, sizeof(buf[0]), fmt, ap);
    va_end(ap);
    return p;
}

static const char *path(const char *name)
{
    return text("%s/%s", folder, name);
}

static void must(int r, const struct qz_error *err)
{
    if (r < 0)
        fail_msg("%s", err->text);
}

static void create(const char *options)
{
    struct qz_error err = {0};

    must(qz_disk_create(options, &err), &err);
}

/* name over the image below it, as another process would make it for us. */
static void create_overlay(const char *name, const char *below, const char *format)
{
    create(text("%s,format=qcow2,overwrite,size=%dB,backing=%s,backing.format=%s,backing.unchecked",
                path(name), SIZE, path(below), format));
}

static int open_fd(const char *name, int flags)
{
    int fd = open(path(name), flags | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static struct machine start(const char *options)
{
    struct machine m = {.model = calloc(1, SIZE), .random = 5};
    struct qz_error err = {0};

    assert_non_null(m.model);
    must(qz_disk_open(&m.d, options, &err), &err);
    must(qz_disk_queue_new(&m.q, m.d, 32, &err), &err);
    return m;
}

static void end(struct machine *m)
{
    struct qz_error err = {0};

    qz_disk_queue_free(m->q);
    must(qz_disk_close(m->d, &err), &err);
    free(m->model);
}

static uint32_t dice(struct machine *m)
{
    m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(m->random >> 33);
}

/* Writes, zeroes and discards here and there. */
static void scribble(struct machine *m, unsigned count, uint8_t seed)
{
    static uint8_t bytes[200 << 10];

    for (unsigned i = 0; i < count; i++) {
        uint64_t n = 512 * (1 + dice(m) % 300), at = 512 * (dice(m) % ((SIZE - n) / 512));
        unsigned what = dice(m) % 8;

        if (what > 1) {
            for (uint64_t k = 0; k < n; k++)
                bytes[k] = (uint8_t)(seed + (at + k) / 512 + i);
            assert_int_equal(qz_disk_write(m->q, at, bytes, n), 0);
            memcpy(m->model + at, bytes, n);
        } else {
            assert_int_equal(qz_disk_zero(m->q, at, n, what ? QZ_DISK_MAY_UNMAP : 0), 0);
            memset(m->model + at, 0, n);
        }
    }
}

static void holds(struct qz_disk_queue *q, const uint8_t *model, const char *what)
{
    uint8_t *b = malloc(SIZE);

    assert_int_equal(qz_disk_read(q, 0, b, SIZE), 0);
    for (uint64_t k = 0; k < SIZE; k++)
        if (b[k] != model[k])
            fail_msg("%s: at 0x%llx: 0x%02x, should be 0x%02x", what, (unsigned long long)k, b[k],
                     model[k]);
    free(b);
}

/* What somebody else finds who opens an image now. */
static void found(const char *options, const uint8_t *model)
{
    struct qz_disk_queue *q;
    struct qz_error err = {0};
    struct qz_disk *d;

    must(qz_disk_open(&d, options, &err), &err);
    must(qz_disk_queue_new(&q, d, 8, &err), &err);
    holds(q, model, options);
    qz_disk_queue_free(q);
    must(qz_disk_close(d, &err), &err);
}

static void is_clean(const char *options)
{
    struct qz_disk_check c = {.repair = false};
    struct qz_error err = {0};

    must(qz_disk_check(options, &c, &err), &err);
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 0);
}

static void go_on(struct machine *m, const char *name)
{
    int fd = open_fd(name, O_RDWR);
    struct qz_disk_info info;
    struct qz_error err = {0};

    must(qz_disk_overlay(m->d, fd, path(name), &err), &err);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over */
    qz_disk_get_info(m->d, &info);
    assert_string_equal(info.format, "qcow2");
    assert_string_equal(info.label, path(name));
    assert_int_equal(info.size, SIZE);
    assert_false(info.readonly);
}

/* The image keeps the machine from being opened for writing, and keeps its bytes. */
static void is_frozen(const char *options, const uint8_t *model)
{
    struct qz_error err = {0};
    struct qz_disk *d;

    assert_int_equal(qz_disk_open(&d, options, &err), -EBUSY);
    found(text("%s,readonly", options), model);
}

static void run(const char *base_options, const char *create_options, const char *format)
{
    struct machine m;
    uint8_t *frozen = malloc(SIZE);
    char base[300];

    snprintf(base, sizeof(base), "%s", path("base"));
    create(text("%s,overwrite,size=%dB,format=%s%s", base, SIZE, format, create_options));
    create_overlay("over", "base", format);
    m = start(text("%s,format=%s%s", base, format, base_options));
    scribble(&m, 60, 1);
    memcpy(frozen, m.model, SIZE);
    go_on(&m, "over");
    holds(m.q, m.model, "at once");
    is_frozen(text("%s,format=%s", base, format), frozen);
    if (!strcmp(format, "qcow2"))
        is_clean(text("%s,format=qcow2", base));
    scribble(&m, 60, 100);
    holds(m.q, m.model, "changed");
    assert_int_equal(qz_disk_flush(m.q), 0);
    found(text("%s,format=%s,readonly", base, format), frozen);
    {
        uint8_t *model = memcpy(malloc(SIZE), m.model, SIZE);

        end(&m);
        is_clean(text("%s,format=qcow2", path("over")));
        found(text("%s,format=qcow2,backing=header,readonly", path("over")), model);
        free(model);
    }
    found(text("%s,format=%s", base, format), frozen); /* nobody has it any more */
    if (has_qemu && strcmp(format, "cow"))
        assert_int_equal(system(text("qemu-img check -q %s", path("over"))), 0);
    free(frozen);
}

static void test_raw(void **state)
{
    run("", "", "raw");
    run(",cache=none", "", "raw");
    run(",locking=on,cache=writethrough", ",preallocation=full", "raw");
}

static void test_qcow2(void **state)
{
    run("", "", "qcow2");
    run("", ",cluster_size=4KiB,lazy_refcounts", "qcow2");
    run(",cache=none", ",extended_l2", "qcow2");
    run(",metadata_log", "", "qcow2");
    run(",memory=1MiB,block-cache=1MiB,discard=ignore", ",compat=0.10", "qcow2");
}

static void test_cow(void **state)
{
    run("", "", "cow");
}

/* ---- one over the other */

static void test_chain(void **state)
{
    uint8_t *frozen[IMAGES];
    struct machine m;

    create(text("%s,overwrite,size=%dB", path("0"), SIZE));
    for (unsigned i = 1; i < IMAGES; i++)
        create_overlay(text("%u", i), text("%u", i - 1), i == 1 ? "raw" : "qcow2");
    m = start(text("%s,memory=8MiB", path("0")));
    for (unsigned i = 0; i < IMAGES; i++) {
        scribble(&m, 20, (uint8_t)(40 * i));
        holds(m.q, m.model, "before");
        frozen[i] = memcpy(malloc(SIZE), m.model, SIZE);
        if (i < IMAGES - 1)
            go_on(&m, text("%u", i + 1));
    }
    for (unsigned i = 1; i < IMAGES - 1; i++)
        is_frozen(text("%s,format=qcow2,backing=header", path(text("%u", i))), frozen[i]);
    end(&m);
    found(text("%s,readonly", path("0")), frozen[0]);
    for (unsigned i = 1; i < IMAGES; i++) {
        const char *image = path(text("%u", i));

        is_clean(text("%s,format=qcow2", image));
        found(text("%s,format=qcow2,backing=header,readonly", image), frozen[i]);
        if (has_qemu) {
            int fd = open_fd("model", O_CREAT | O_TRUNC | O_WRONLY);

            assert_int_equal(write(fd, frozen[i], SIZE), SIZE);
            close(fd);
            assert_int_equal(system(text("qemu-img check -q %s && qemu-img compare -q -F raw %s %s",
                                         image, image, path("model"))),
                             0);
        }
    }
    for (unsigned i = 0; i < IMAGES; i++)
        free(frozen[i]);
}

static void test_too_many(void **state)
{
    enum { MOST = 64 };
    struct machine m;
    struct qz_error err = {0};
    int fd;

    create(text("%s,overwrite,size=%dB", path("0"), SIZE));
    m = start(path("0"));
    for (unsigned i = 1; i <= MOST + 1; i++)
        create_overlay(text("%u", i), text("%u", i - 1), i == 1 ? "raw" : "qcow2");
    for (unsigned i = 1; i <= MOST; i++) {
        scribble(&m, 1, (uint8_t)i);
        go_on(&m, text("%u", i));
    }
    fd = open_fd(text("%u", MOST + 1), O_RDWR);
    assert_int_equal(qz_disk_overlay(m.d, fd, "one more", &err), -ELOOP);
    close(fd);
    holds(m.q, m.model, "all of them");
    end(&m);
}

/* ---- what is above the image goes on */

static void test_filters(void **state)
{
    const char *options = "stats,iops=1000000,block-cache=1MiB,inject=read:error=EIO:after=40";
    struct qz_disk_limits limits = {.iops = {50000000}};
    struct qz_disk_stats before, after;
    struct qz_disk_extent e;
    struct qz_error err = {0};
    struct machine m;
    uint8_t byte;

    create(text("%s,overwrite,size=%dB", path("0"), SIZE));
    create_overlay("1", "0", "raw");
    m = start(text("%s,%s", path("0"), options));
    scribble(&m, 10, 1);
    assert_int_equal(qz_disk_get_stats(m.d, &before), 0);
    go_on(&m, "1");
    assert_int_equal(qz_disk_get_stats(m.d, &after), 0);
    assert_memory_equal(&before, &after, sizeof(before));
    holds(m.q, m.model, "after");
    scribble(&m, 10, 1);
    assert_int_equal(qz_disk_get_stats(m.d, &after), 0);
    assert_int_equal(after.op[QZ_DISK_READ].count, before.op[QZ_DISK_READ].count + 1);
    assert_int_equal(after.op[QZ_DISK_WRITE].count + after.op[QZ_DISK_WRITE_ZEROES].count,
                     before.op[QZ_DISK_WRITE].count + before.op[QZ_DISK_WRITE_ZEROES].count + 10);
    assert_int_equal(qz_disk_set_limits(m.d, &limits), 0);
    for (unsigned i = 0; i < 38; i++)
        assert_int_equal(qz_disk_read(m.q, 4096 * i, &byte, 1), 0);
    while (qz_disk_read(m.q, 0, &byte, 1) == 0) /* from the cache: does not get so far */
        assert_int_equal(qz_disk_write(m.q, 0, m.model, 1), 0);
    /* The whole disk is the new image's, too. */
    assert_int_equal(qz_disk_map(m.q, 0, 512, true, &e), 0);
    assert_int_equal(e.depth, 0);
    must(qz_disk_snapshot_create(m.d, "inside", &err), &err);
    must(qz_disk_resize(m.d, 2 * SIZE, &err), &err);
    assert_int_equal(qz_disk_write(m.q, 2 * SIZE - 1, &byte, 1), 0);
    end(&m);
}

static bool qemu_is_here(void)
{
    return system("command -v qemu-img >/dev/null") == 0;
}

static int make_folder(void **state)
{
    char here[150];

    has_qemu = qemu_is_here();
    if (!getcwd(here, sizeof(here)))
        return -1;
    snprintf(folder, sizeof(folder), "%s/qz-overlay-XXXXXX", here);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    return system(text("rm -rf %s", folder));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),      cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_cow),      cmocka_unit_test(test_chain),
        cmocka_unit_test(test_too_many), cmocka_unit_test(test_filters),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

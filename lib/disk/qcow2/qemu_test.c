/*
 * qemu_test.c - our images in QEMU's tools and theirs in ours.
 *
 * Both directions, byte for byte, and QEMU's own check over what we wrote. Skipped, and said so,
 * where qemu-img is not installed.
 */
#include "rig.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <queztl/disk.h>

static char folder[] = "/tmp/qcow2-qemu-XXXXXX";

static int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int shell(const char *fmt, ...)
{
    char line[2000], all[2200];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    snprintf(all, sizeof(all), "cd %s && { %s; } >log 2>&1", folder, line);
    return system(all);
}

static void must(int rc, const char *what)
{
    if (!rc)
        return;
    if (system("true") == 0) {
        char cat[200];

        snprintf(cat, sizeof(cat), "head -n 20 %s/log >&2", folder);
        if (system(cat))
            print_message("no log\n");
    }
    fail_msg("%s: %d", what, rc);
}

static void put(const char *name, const void *bytes, size_t n)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void *get(const char *name, size_t *n)
{
    struct qz_error err;
    char path[200];
    void *bytes;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (qz_read_file(path, 256 << 20, &bytes, n, &err))
        fail_msg("%s", err.text);
    return bytes;
}

/* The image of the rig, closed, against the model, in QEMU's eyes. */
static void qemu_agrees(struct rig *r, const char *what)
{
    char path[200];

    rig_reopen(r);
    snprintf(path, sizeof(path), "%s/ours.qcow2", folder);
    rig_save(r, path);
    put("model.raw", r->model, r->size);
    if (r->backing)
        put("base.raw", memory_bytes(r->backing), r->backing->info.size);
    must(shell("qemu-img check ours.qcow2"), what);
    must(shell("qemu-img compare -f qcow2 -F raw ours.qcow2 model.raw"), what);
}

static const struct {
    const char *options;
    uint64_t size, backing, max;
} kinds[] = {
    {"", 8 << 20, 5 << 20, 200 << 10},
    {"cluster_size=512B", 1 << 20, 1 << 19, 16 << 10},
    {"cluster_size=512B,refcount_bits=64", 2 << 20, 0, 16 << 10},
    {"cluster_size=4KiB,refcount_bits=1", 4 << 20, 2 << 20, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=2", 4 << 20, 0, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=4", 4 << 20, 0, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=8", 4 << 20, 0, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=32", 4 << 20, 0, 64 << 10},
    {"cluster_size=2MiB", 16 << 20, 8 << 20, 5 << 20},
    {"compat=0.10", 8 << 20, 4 << 20, 200 << 10},
    {"lazy_refcounts", 8 << 20, 0, 200 << 10},
    {"extended_l2,cluster_size=16KiB", 4 << 20, 0, 64 << 10},
    {"extended_l2,cluster_size=64KiB", 8 << 20, 6 << 20, 200 << 10},
    {"extended_l2,cluster_size=128KiB,preallocation=metadata", 8 << 20, 6 << 20, 300 << 10},
    {"preallocation=falloc", 8 << 20, 0, 200 << 10},
};

static void ours_in_qemu(void **state)
{
    for (unsigned n = 0; n < QZ_ARRAY_LEN(kinds); n++) {
        struct rig r = {.random = 100 + n, .defers = n & 1};

        rig_open(&r, kinds[n].size, kinds[n].options, kinds[n].backing);
        rig_storm(&r, 400, 8, kinds[n].max);
        qemu_agrees(&r, kinds[n].options);
        rig_close(&r);
    }
}

/* A rig over a file that somebody else made. */
static void adopt(struct rig *r, const char *image, const char *raw)
{
    struct qz_error err = {0};
    size_t n, size;
    void *bytes = get(image, &n);

    *r = (struct rig){.random = 7};
    r->model = get(raw, &size);
    r->size = size;
    assert_int_equal(queue_new(&r->q, 64, &err), 0);
    assert_int_equal(
        memory_open(&r->file, &(struct memory_options){.size = n, .size_max = 256 << 20}, &err), 0);
    memcpy(memory_bytes(r->file), bytes, n);
    free(bytes);
    if (rig_open_layer(r, &r->image, false, &err))
        fail_msg("%s", err.text);
}

static void theirs_in_ours(void **state)
{
    static const char *const options[] = {
        "cluster_size=64k",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=2M,refcount_bits=64",
        "compat=0.10",
        "extended_l2=on,cluster_size=64k",
        "lazy_refcounts=on,cluster_size=4k",
        "preallocation=metadata,cluster_size=4k",
        "compression_type=zstd",
    };

    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        struct rig r;

        must(shell("rm -f t.qcow2; qemu-img create -f qcow2 -o %s t.qcow2 8M", options[n]),
             "create");
        must(shell("qemu-io -f qcow2 -c 'write -P 17 0 300k' -c 'write -P 3 1M 1000k' "
                   "-c 'write -P 99 7000k 512' -c 'write -z 1200k 64k' -c 'discard 1300k 128k' "
                   "-c 'write -P 5 5k 3k' t.qcow2"),
             "qemu-io");
        must(shell("qemu-img convert -f qcow2 -O raw t.qcow2 t.raw"), "convert");
        adopt(&r, "t.qcow2", "t.raw");
        rig_compare(&r, options[n]);
        rig_check(&r, options[n]);
        rig_storm(&r, 200, 4, 100 << 10);
        qemu_agrees(&r, options[n]);
        rig_close(&r);
    }
}

static void packed_by_qemu(void **state)
{
    static const char *const options[] = {"cluster_size=64k", "compression_type=zstd",
                                          "cluster_size=4k", "cluster_size=2M", "extended_l2=on"};
    struct rig fill = {.random = 3};
    uint8_t *text = malloc(8 << 20);

    for (unsigned k = 0; k < 8 << 20; k++)
        text[k] = (uint8_t)(k % 4096 < 3000 ? k / 4096 : rig_random(&fill) & 15);
    put("text.raw", text, 8 << 20);
    free(text);
    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        struct rig r;

        must(shell("rm -f t.qcow2; qemu-img convert -c -O qcow2 -o %s -f raw text.raw t.qcow2",
                   options[n]),
             "convert");
        adopt(&r, "t.qcow2", "text.raw");
        rig_compare(&r, options[n]);
        rig_check(&r, options[n]);
        rig_storm(&r, 200, 4, 100 << 10);
        qemu_agrees(&r, options[n]);
        rig_close(&r);
    }
}

static int in_pack(struct disk_queue *q, void *argument)
{
    struct rig *r = argument;
    struct qcow2 *i = qcow2_of(r->image);
    int rc = 0;

    for (uint64_t at = 0; !rc && at < r->size; at += i->cluster_size) {
        uint64_t n = QZ_MIN(i->cluster_size, r->size - at);

        for (uint64_t k = 0; k < n; k++)
            r->model[at + k] =
                (uint8_t)((at >> 16) * 3 + (k % 512 < 300 ? k / 512 : rig_random(r) & 3));
        rc = qcow2_write_packed(r->image, q, at, r->model + at, n);
    }
    return rc;
}

static void packed_by_us(void **state)
{
    static const char *const options[] = {"",
                                          "compression_type=zstd",
                                          "cluster_size=4KiB",
                                          "cluster_size=2MiB",
                                          "extended_l2",
                                          "compat=0.10",
                                          "cluster_size=512B,refcount_bits=1",
                                          "cluster_size=64KiB,refcount_bits=2"};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        struct rig r = {.random = n};

        rig_open(&r, (5 << 20) + 512, options[n], 0);
        assert_int_equal(rig_run(&r, in_pack, &r), 0);
        rig_compare(&r, options[n]);
        qemu_agrees(&r, options[n]);
        rig_storm(&r, 200, 4, 100 << 10);
        qemu_agrees(&r, options[n]);
        rig_close(&r);
    }
}

/* ---- snapshots */

struct call {
    struct rig *r;
    int (*fn)(struct layer *l, struct disk_queue *q, const char *name, struct qz_error *err);
    const char *name;
    struct qz_error err;
};

static int in_call(struct disk_queue *q, void *argument)
{
    struct call *c = argument;

    return c->fn(c->r->image, q, c->name, &c->err);
}

static void snapshot(struct rig *r,
                     int (*fn)(struct layer *l, struct disk_queue *q, const char *name,
                               struct qz_error *err),
                     const char *name)
{
    struct call c = {.r = r, .fn = fn, .name = name};

    if (rig_run(r, in_call, &c))
        fail_msg("snapshot %s: %s", name, c.err.text);
}

static void snapshots(void **state)
{
    static const char *const options[] = {"", "cluster_size=4KiB,refcount_bits=8",
                                          "extended_l2,cluster_size=16KiB", "compat=0.10",
                                          "lazy_refcounts,cluster_size=512B"};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        struct rig r = {.random = n};
        uint8_t *first;

        rig_open(&r, 2 << 20, options[n], n & 1 ? 1 << 20 : 0);
        rig_storm(&r, 200, 4, 60 << 10);
        first = malloc(r.size);
        snapshot(&r, qcow2_snapshot_create, "one");
        memcpy(first, r.model, r.size);
        rig_check(&r, "one");
        rig_storm(&r, 200, 4, 60 << 10);
        rig_compare(&r, "after one");
        snapshot(&r, qcow2_snapshot_create, "two");
        rig_storm(&r, 100, 4, 60 << 10);
        qemu_agrees(&r, "two snapshots");
        put("first.raw", first, r.size);
        must(shell("qemu-img convert -l snapshot.name=one -f qcow2 -O raw ours.qcow2 one.raw && "
                   "cmp one.raw first.raw"),
             "qemu reads the snapshot");
        snapshot(&r, qcow2_snapshot_delete, "two");
        qemu_agrees(&r, "one snapshot");
        snapshot(&r, qcow2_snapshot_apply, "one");
        memcpy(r.model, first, r.size);
        rig_compare(&r, "gone back");
        rig_storm(&r, 100, 4, 60 << 10);
        qemu_agrees(&r, "gone back");
        snapshot(&r, qcow2_snapshot_delete, "one");
        rig_storm(&r, 100, 4, 60 << 10);
        qemu_agrees(&r, "no snapshot");
        free(first);
        rig_close(&r);
    }
}

static void their_snapshots(void **state)
{
    struct rig r;

    must(shell("rm -f t.qcow2; qemu-img create -f qcow2 t.qcow2 4M && "
               "qemu-io -c 'write -P 1 0 2M' t.qcow2 && qemu-img snapshot -c a t.qcow2 && "
               "qemu-io -c 'write -P 2 1M 2M' t.qcow2 && qemu-img snapshot -c b t.qcow2 && "
               "qemu-io -c 'write -P 3 3M 1k' t.qcow2 && "
               "qemu-img convert -l a -O raw t.qcow2 a.raw && "
               "qemu-img convert -O raw t.qcow2 t.raw"),
         "qemu makes snapshots");
    adopt(&r, "t.qcow2", "t.raw");
    rig_compare(&r, "theirs");
    rig_check(&r, "theirs");
    rig_storm(&r, 100, 4, 60 << 10);
    snapshot(&r, qcow2_snapshot_delete, "b");
    qemu_agrees(&r, "b deleted");
    snapshot(&r, qcow2_snapshot_apply, "a");
    free(r.model);
    {
        size_t n;

        r.model = get("a.raw", &n);
    }
    rig_compare(&r, "a");
    qemu_agrees(&r, "a");
    rig_close(&r);
}

/* ---- size */

struct sizing {
    struct rig *r;
    uint64_t size;
    struct qz_error err;
};

static int in_resize(struct disk_queue *q, void *argument)
{
    struct sizing *s = argument;

    return layer_resize(s->r->image, q, s->size, &s->err);
}

static void resize(struct rig *r, uint64_t size)
{
    struct sizing s = {.r = r, .size = size};

    if (rig_run(r, in_resize, &s))
        fail_msg("resize: %s", s.err.text);
    r->model = realloc(r->model, size);
    if (size > r->size)
        memset(r->model + r->size, 0, size - r->size);
    r->size = size;
}

static void sizes(void **state)
{
    static const char *const options[] = {"", "cluster_size=512B", "cluster_size=512B,compat=0.10",
                                          "extended_l2,cluster_size=16KiB"};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(options); n++) {
        struct rig r = {.random = n};

        rig_open(&r, (1 << 20) + 512, options[n], n & 1 ? 3 << 20 : 0);
        rig_storm(&r, 100, 4, 60 << 10);
        resize(&r, 5 << 20);
        rig_compare(&r, "larger");
        rig_storm(&r, 100, 4, 60 << 10);
        qemu_agrees(&r, "larger");
        resize(&r, (1 << 20) - 1024);
        rig_compare(&r, "smaller");
        rig_storm(&r, 100, 4, 60 << 10);
        resize(&r, 2 << 20);
        rig_compare(&r, "larger again");
        qemu_agrees(&r, "larger again");
        rig_close(&r);
    }
}

static void bitmaps_stay(void **state)
{
    struct rig r;

    must(shell("rm -f t.qcow2; qemu-img create -f qcow2 t.qcow2 4M && "
               "qemu-img bitmap --add --enable t.qcow2 live && "
               "qemu-io -c 'write -P 1 0 1M' t.qcow2 && qemu-img bitmap --add --disable t.qcow2 "
               "old && "
               "qemu-img convert -O raw t.qcow2 t.raw"),
         "qemu makes bitmaps");
    adopt(&r, "t.qcow2", "t.raw");
    rig_check(&r, "bitmaps");
    rig_storm(&r, 50, 4, 60 << 10);
    qemu_agrees(&r, "bitmaps");
    must(shell("qemu-img info ours.qcow2 | tee info && grep -q 'name: old' info && "
               "grep -q 'name: live' info && test $(grep -c in-use info) = 1"),
         "one of two bitmaps is in use");
    rig_close(&r);
}

/* Unpacked on other threads, while this one reads and writes elsewhere. For the rest of the run. */
static void packed_with_helpers(void **state)
{
    assert_int_equal(qz_disk_helpers(3, NULL), 0);
    packed_by_qemu(state);
    packed_by_us(state);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char line[200];

    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_in_qemu),
        cmocka_unit_test(theirs_in_ours),
        cmocka_unit_test(packed_by_qemu),
        cmocka_unit_test(packed_by_us),
        cmocka_unit_test(snapshots),
        cmocka_unit_test(their_snapshots),
        cmocka_unit_test(sizes),
        cmocka_unit_test(bitmaps_stay),
        cmocka_unit_test(packed_with_helpers),
    };

    if (system("command -v qemu-img qemu-io >/dev/null")) {
        printf("skipped: qemu-img and qemu-io are not installed\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

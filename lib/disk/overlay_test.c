/* overlay_test.c - a disk that goes on in an overlay: what it shows and what lies in the images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "overlay_lab.h"

enum { IMAGES = 6 };

static void run(const char *base_options, const char *create_options, const char *format)
{
    struct lab m;
    uint8_t *frozen = malloc(SIZE), *changed = malloc(SIZE);
    char base[300];

    snprintf(base, sizeof(base), "%s", lab_path("base"));
    lab_create(lab_text("%s,overwrite,size=%dB,format=%s%s", base, SIZE, format, create_options));
    lab_create_overlay("over", "base", format);
    m = lab_start(lab_text("%s,format=%s%s", base, format, base_options));
    lab_scribble(&m, 60, 1);
    memcpy(frozen, m.model, SIZE);
    lab_go_on(&m, "over");
    lab_holds(m.q, m.model, "at once");
    lab_is_frozen(lab_text("%s,format=%s", base, format), frozen);
    if (!strcmp(format, "qcow2"))
        lab_is_clean(lab_text("%s,format=qcow2", base));
    if (lab_has_qemu && strcmp(format, "cow")) /* which keeps the same locks */
        assert_int_equal(
            system(lab_text("qemu-img compare -q -f %s -F %s %s %s", format, format, base, base)),
            0);
    lab_scribble(&m, 60, 100);
    lab_holds(m.q, m.model, "changed");
    assert_int_equal(qz_disk_flush(m.q), 0);
    lab_found(lab_text("%s,format=%s,readonly", base, format), frozen);
    memcpy(changed, m.model, SIZE);
    lab_end(&m);
    lab_is_clean(lab_text("%s,format=qcow2", lab_path("over")));
    lab_found(lab_text("%s,format=qcow2,backing=header,readonly", lab_path("over")), changed);
    lab_found(lab_text("%s,format=%s", base, format), frozen); /* nobody has it any more */
    if (lab_has_qemu && strcmp(format, "cow"))
        assert_int_equal(system(lab_text("qemu-img check -q %s", lab_path("over"))), 0);
    free(frozen);
    free(changed);
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

/* An image whose bytes are in a file of their own: that one is frozen with it. */
static void test_data_file(void **state)
{
    uint8_t *frozen = malloc(SIZE);
    struct qz_error err = {0};
    struct qz_disk *other;
    struct lab m;
    char base[300];

    snprintf(base, sizeof(base), "%s,format=qcow2,data-file=header", lab_path("base"));
    lab_create(lab_text("%s,overwrite,size=%dB,format=qcow2,data-file=%s", lab_path("base"), SIZE,
                        lab_path("data")));
    lab_create_overlay("over", "base", "qcow2");
    m = lab_start(base);
    lab_scribble(&m, 30, 1);
    memcpy(frozen, m.model, SIZE);
    lab_go_on(&m, "over");
    lab_is_frozen(base, frozen);
    assert_int_equal(qz_disk_open(&other, lab_path("data"), &err), -EBUSY);
    lab_scribble(&m, 30, 2);
    lab_holds(m.q, m.model, "over a data file");
    lab_found(lab_text("%s,readonly", base), frozen);
    memcpy(frozen, m.model, SIZE);
    lab_end(&m);
    lab_found(
        lab_text("%s,format=qcow2,backing=header,backing.format=qcow2,backing.data-file=header",
                 lab_path("over")),
        frozen);
    free(frozen);
}

/* ---- a disk on a server */

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void test_server(void **state)
{
    struct qz_disk_nbd_options o = {.export_name = ""};
    struct qz_disk_server *s;
    struct qz_error err = {0};
    struct lab served, m;
    uint8_t *frozen;
    int fd = listen_at("qz-overlay-socket");

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("0"), SIZE));
    lab_create_overlay("1", "0", "raw");
    served = lab_start(lab_path("0"));
    assert_int_equal(qz_disk_serve_nbd(&s, served.d, fd, &o, &err), 0);
    m = lab_start("nbd+unix:///?socket=qz-overlay-socket");
    lab_scribble(&m, 20, 1);
    frozen = memcpy(malloc(SIZE), m.model, SIZE);
    lab_go_on(&m, "1");
    lab_scribble(&m, 20, 2);
    lab_holds(m.q, m.model, "over a server's");
    lab_end(&m);
    qz_disk_server_stop(s);
    lab_holds(served.q, frozen, "on the server");
    free(frozen);
    lab_end(&served);
    close(fd);
    unlink("qz-overlay-socket");
}

/* ---- one over the other */

static void test_chain(void **state)
{
    uint8_t *frozen[IMAGES];
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("0"), SIZE));
    for (unsigned i = 1; i < IMAGES; i++)
        lab_create_overlay(lab_text("%u", i), lab_text("%u", i - 1), i == 1 ? "raw" : "qcow2");
    m = lab_start(lab_text("%s,memory=8MiB", lab_path("0")));
    for (unsigned i = 0; i < IMAGES; i++) {
        lab_scribble(&m, 20, (uint8_t)(40 * i));
        lab_holds(m.q, m.model, "before");
        frozen[i] = memcpy(malloc(SIZE), m.model, SIZE);
        if (i < IMAGES - 1)
            lab_go_on(&m, lab_text("%u", i + 1));
    }
    for (unsigned i = 1; i < IMAGES - 1; i++)
        lab_is_frozen(lab_text("%s,format=qcow2,backing=header", lab_path(lab_text("%u", i))),
                      frozen[i]);
    lab_end(&m);
    lab_found(lab_text("%s,readonly", lab_path("0")), frozen[0]);
    for (unsigned i = 1; i < IMAGES; i++) {
        const char *image = lab_path(lab_text("%u", i));

        lab_is_clean(lab_text("%s,format=qcow2", image));
        lab_found(lab_text("%s,format=qcow2,backing=header,readonly", image), frozen[i]);
        if (lab_has_qemu) {
            int fd = lab_open_fd("model", O_CREAT | O_TRUNC | O_WRONLY);

            assert_int_equal(write(fd, frozen[i], SIZE), SIZE);
            close(fd);
            assert_int_equal(
                system(lab_text("qemu-img check -q %s && qemu-img compare -q -F raw %s %s", image,
                                image, lab_path("model"))),
                0);
        }
    }
    for (unsigned i = 0; i < IMAGES; i++)
        free(frozen[i]);
}

static void test_too_many(void **state)
{
    enum { MOST = 64 };
    struct lab m;
    struct qz_error err = {0};
    int fd;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("0"), SIZE));
    m = lab_start(lab_path("0"));
    for (unsigned i = 1; i <= MOST + 1; i++)
        lab_create_overlay(lab_text("%u", i), lab_text("%u", i - 1), i == 1 ? "raw" : "qcow2");
    for (unsigned i = 1; i <= MOST; i++) {
        lab_scribble(&m, 1, (uint8_t)i);
        lab_go_on(&m, lab_text("%u", i));
    }
    fd = lab_open_fd(lab_text("%u", MOST + 1), O_RDWR);
    assert_int_equal(qz_disk_overlay(m.d, fd, "one more", &err), -ELOOP);
    close(fd);
    lab_holds(m.q, m.model, "all of them");
    lab_end(&m);
}

/* ---- what is above the image goes on */

static void test_filters(void **state)
{
    const char *options = "stats,iops=1000000,block-cache=1MiB,inject=read:error=EIO:after=40";
    struct qz_disk_limits limits = {.iops = {50000000}};
    struct qz_disk_stats before, after;
    struct qz_disk_extent e;
    struct qz_error err = {0};
    struct lab m;
    uint8_t byte;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("0"), SIZE));
    lab_create_overlay("1", "0", "raw");
    m = lab_start(lab_text("%s,%s", lab_path("0"), options));
    lab_scribble(&m, 10, 1);
    assert_int_equal(qz_disk_get_stats(m.d, &before), 0);
    lab_go_on(&m, "1");
    assert_int_equal(qz_disk_get_stats(m.d, &after), 0);
    assert_memory_equal(&before, &after, sizeof(before));
    lab_holds(m.q, m.model, "after");
    lab_scribble(&m, 10, 1);
    assert_int_equal(qz_disk_get_stats(m.d, &after), 0);
    assert_int_equal(after.op[QZ_DISK_READ].count, before.op[QZ_DISK_READ].count + 1);
    assert_int_equal(after.op[QZ_DISK_WRITE].count + after.op[QZ_DISK_WRITE_ZEROES].count,
                     before.op[QZ_DISK_WRITE].count + before.op[QZ_DISK_WRITE_ZEROES].count + 10);
    assert_int_equal(qz_disk_set_limits(m.d, &limits), 0);
    for (unsigned i = 0; i < 39; i++)
        assert_int_equal(qz_disk_read(m.q, 4096 * i, &byte, 1), 0);
    assert_int_equal(qz_disk_read(m.q, 0, &byte, 1), -EIO); /* the 41st: counted from the start */
    /* The whole disk is the new image's, too. */
    assert_int_equal(qz_disk_write(m.q, 0, &byte, 1), 0);
    assert_int_equal(qz_disk_map(m.q, 0, 512, true, &e), 0);
    assert_int_equal(e.depth, 0);
    assert_int_equal(qz_disk_snapshot_create(m.d, "inside", &err), 0);
    assert_int_equal(qz_disk_resize(m.d, 2 * SIZE, &err), 0);
    assert_int_equal(qz_disk_write(m.q, 2 * SIZE - 1, &byte, 1), 0);
    lab_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),      cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_cow),      cmocka_unit_test(test_data_file),
        cmocka_unit_test(test_server),   cmocka_unit_test(test_chain),
        cmocka_unit_test(test_too_many), cmocka_unit_test(test_filters),
    };

    return cmocka_run_group_tests(tests, lab_make_folder, lab_remove_folder);
}

/* rewind_test.c - a disk that goes back to one of its backing files: what it shows, what lies in
 * the images, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "overlay_lab.h"

enum { IMAGES = 5 };

static int try_back(struct lab *m, const char *base, const char *name)
{
    int from = lab_open_fd(base, O_RDONLY), fd = lab_open_fd(name, O_RDWR), r;
    struct qz_error err = {0};

    r = qz_disk_rewind(m->d, from, fd, lab_path(name), &err);
    if (r < 0) {
        assert_string_not_equal(err.text, "");
        close(fd);
    } else {
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over */
    }
    close(from);
    return r;
}

static void go_back(struct lab *m, const char *base, const char *name, const uint8_t *model)
{
    struct qz_disk_backing under;
    struct qz_disk_info info;

    assert_int_equal(try_back(m, base, name), 0);
    assert_int_equal(qz_disk_get_backing(m->d, &under), 0);
    assert_string_equal(under.label, lab_path(base));
    assert_int_equal(under.size, SIZE);
    assert_true(under.untouched);
    qz_disk_get_info(m->d, &info);
    assert_string_equal(info.label, lab_path(name));
    assert_string_equal(info.format, "qcow2");
    assert_int_equal(info.size, SIZE);
    memcpy(m->model, model, SIZE);
    lab_holds(m->q, m->model, "gone back");
}

/* Frozen, written, back, written, back again. */
static void run(const char *format, const char *options)
{
    uint8_t *frozen = malloc(SIZE), *changed = malloc(SIZE);
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB,format=%s", lab_path("base"), SIZE, format));
    for (unsigned i = 1; i <= 3; i++)
        lab_create_overlay(lab_text("%u", i), "base", format);
    m = lab_start(lab_text("%s,format=%s%s", lab_path("base"), format, options));
    lab_scribble(&m, 40, 1);
    memcpy(frozen, m.model, SIZE);
    lab_go_on(&m, "1");
    for (unsigned i = 2; i <= 3; i++) {
        lab_scribble(&m, 40, (uint8_t)(60 * i));
        lab_holds(m.q, m.model, "written"); /* and in the caches */
        go_back(&m, "base", lab_text("%u", i), frozen);
    }
    lab_scribble(&m, 10, 7);
    lab_holds(m.q, m.model, "written at last");
    memcpy(changed, m.model, SIZE);
    lab_end(&m);
    lab_is_clean(lab_text("%s,format=qcow2", lab_path("3")));
    lab_found(lab_text("%s,format=qcow2,backing=header,readonly", lab_path("3")), changed);
    lab_found(lab_text("%s,format=%s,readonly", lab_path("base"), format), frozen);
    free(frozen);
    free(changed);
}

static void test_formats(void **state)
{
    run("raw", "");
    run("raw", ",cache=none,block-cache=2MiB,memory=8MiB,stats");
    run("qcow2", "");
    run("qcow2", ",metadata_log,block-cache=1MiB,iops=1000000");
}

/* Several images down; those above are not the disk's any more. */
static void test_deep(void **state)
{
    uint8_t *frozen[IMAGES];
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("0"), SIZE));
    for (unsigned i = 1; i < IMAGES; i++)
        lab_create_overlay(lab_text("%u", i), lab_text("%u", i - 1), i == 1 ? "raw" : "qcow2");
    lab_create_overlay("back", "1", "qcow2");
    m = lab_start(lab_path("0"));
    for (unsigned i = 0; i < IMAGES; i++) {
        lab_scribble(&m, 20, (uint8_t)(40 * i));
        frozen[i] = memcpy(malloc(SIZE), m.model, SIZE);
        if (i < IMAGES - 1)
            lab_go_on(&m, lab_text("%u", i + 1));
    }
    go_back(&m, "1", "back", frozen[1]);
    lab_scribble(&m, 20, 99);
    lab_holds(m.q, m.model, "after");
    lab_found(lab_text("%s,format=qcow2,backing=header", lab_path("3")), frozen[3]); /* no lock */
    assert_int_equal(try_back(&m, "2", "2"), -ENOENT);
    lab_end(&m);
    for (unsigned i = 0; i < IMAGES; i++)
        free(frozen[i]);
}

/* As a clone has it: opened as an overlay by descriptor or name. */
static void test_opened_over(void **state)
{
    uint8_t *frozen = malloc(SIZE);
    struct qz_disk_backing under;
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    m = lab_start(lab_path("base"));
    assert_int_equal(qz_disk_get_backing(m.d, &under), -ENOENT);
    lab_scribble(&m, 30, 1);
    memcpy(frozen, m.model, SIZE);
    lab_end(&m);
    lab_create_overlay("1", "base", "raw");
    lab_create_overlay("2", "base", "raw");
    m = lab_start(lab_text("%s,format=qcow2,backing=header", lab_path("1")));
    memcpy(m.model, frozen, SIZE);
    lab_scribble(&m, 30, 2);
    assert_int_equal(qz_disk_get_backing(m.d, &under), 0);
    assert_false(under.untouched);
    go_back(&m, "base", "2", frozen);
    lab_end(&m);
    free(frozen);
}

/* Nothing of it changes the disk. */
static void test_refused(void **state)
{
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("other"), SIZE));
    lab_create_overlay("1", "base", "raw");
    lab_create_overlay("2", "base", "raw");
    lab_create_overlay("written", "base", "raw");
    lab_create(lab_text("%s,overwrite,format=qcow2,size=%dB,backing=%s,backing.format=raw",
                        lab_path("small"), SIZE / 2, lab_path("base")));
    lab_create(lab_text("%s,overwrite,format=qcow2,size=%dB", lab_path("alone"), SIZE));
    m = lab_start(lab_text("%s,format=qcow2,backing=header", lab_path("written")));
    lab_scribble(&m, 3, 1);
    lab_end(&m);
    m = lab_start(lab_path("base"));
    assert_int_equal(try_back(&m, "base", "1"), -ENOENT); /* no backing file yet */
    lab_scribble(&m, 20, 1);
    lab_go_on(&m, "1");
    lab_scribble(&m, 20, 2);
    assert_int_equal(try_back(&m, "other", "2"), -ENOENT);
    assert_int_equal(try_back(&m, "1", "2"), -ENOENT); /* the present one is no backing file */
    assert_int_equal(try_back(&m, "base", "1"), -ELOOP);
    assert_int_equal(try_back(&m, "base", "small"), -EINVAL);
    assert_int_equal(try_back(&m, "base", "alone"), -EINVAL);
    assert_int_equal(try_back(&m, "base", "written"), -EINVAL);
    lab_scribble(&m, 5, 3);
    lab_holds(m.q, m.model, "as before");
    lab_end(&m);
    m = lab_start(lab_text("%s,readonly,format=qcow2,backing=header", lab_path("1")));
    assert_int_equal(try_back(&m, "base", "2"), -EROFS);
    lab_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_opened_over),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, lab_make_folder, lab_remove_folder);
}

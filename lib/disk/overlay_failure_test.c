/* overlay_failure_test.c - overlays that are refused or fail: the disk goes on as if never asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "overlay_lab.h"

/* The attempt fails, and the disk is the one it was, with its image still its own. */
static void fails(struct lab *m, int fd, const char *why)
{
    struct qz_disk_info before, after;
    struct qz_error err = {0};
    struct qz_disk *other;
    char image[300];

    qz_disk_get_info(m->d, &before);
    if (qz_disk_overlay(m->d, fd, lab_path("over"), &err) >= 0)
        fail_msg("was taken, not refused: %s", why);
    if (!strstr(err.text, why))
        fail_msg("%s: not the reason: %s", why, err.text);
    qz_disk_get_info(m->d, &after);
    assert_true(after.format == before.format && after.label == before.label &&
                after.size == before.size && after.readonly == before.readonly &&
                after.block_size == before.block_size);
    snprintf(image, sizeof(image), "%s,readonly,format=%s", before.label, before.format);
    if (!before.readonly)
        assert_int_equal(qz_disk_open(&other, image, &err), -EBUSY);
    lab_holds(m->q, m->model, why);
}

static void refused(struct lab *m, const char *overlay_options, const char *why)
{
    int fd;

    if (overlay_options)
        lab_create(lab_text("%s,overwrite,%s", lab_path("over"), overlay_options));
    fd = lab_open_fd("over", O_RDWR);
    fails(m, fd, why);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
    close(fd);
}

static const char raw_below[] = "backing=/base,backing.format=raw,backing.unchecked";

static void test_images(void **state)
{
    static uint8_t junk[512];
    struct qz_error err = {0};
    struct lab m;
    int fd;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    m = lab_start(lab_path("base"));
    lab_scribble(&m, 20, 1);
    refused(&m, lab_text("format=qcow2,size=8MiB,%s", raw_below), "8388608");
    refused(&m, lab_text("format=qcow2,size=%dB", SIZE), "names no backing file");
    refused(&m,
            lab_text("format=qcow2,size=%dB,backing=/base,backing.format=qcow2,backing.unchecked",
                     SIZE),
            "of format qcow2");
    refused(&m, lab_text("size=%dB", SIZE), "not a qcow2 image");
    refused(&m,
            lab_text("format=qcow2,size=%dB,%s,data-file=%s", SIZE, raw_below, lab_path("data")),
            "external data file");
    refused(
        &m,
        lab_text("format=qcow2,size=%dB,%s,extended_l2,preallocation=metadata", SIZE, raw_below),
        "not empty");
    lab_create_overlay("over", "base", "raw");
    fd = lab_open_fd("over", O_RDWR);
    assert_int_equal(pwrite(fd, junk, sizeof(junk), 48), sizeof(junk)); /* its tables are gone */
    close(fd);
    refused(&m, NULL, "over");
    lab_create_overlay("over", "base", "raw");
    fd = lab_open_fd("over", O_RDONLY);
    fails(&m, fd, "not open for reading and writing");
    close(fd);
    fails(&m, 99999, "Bad file descriptor");
    fd = lab_open_fd("base", O_RDWR);
    fails(&m, fd, "is a file of the disk already");
    close(fd);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    fails(&m, fd, "neither a file nor a block device");
    close(fd);
    fd = lab_open_fd("over", O_RDWR);
    assert_int_equal(qz_disk_overlay(m.d, fd, "null:1MiB", &err), -EINVAL);
    close(fd);
    lab_scribble(&m, 20, 2);
    lab_go_on(&m, "over");
    lab_holds(m.q, m.model, "after all");
    fd = lab_open_fd("over", O_RDWR);
    fails(&m, fd, "is a file of the disk already");
    close(fd);
    lab_end(&m);
}

static void test_one_file_twice(void **state)
{
    struct qz_error err = {0};
    struct lab m;
    int fd, again;

    lab_create_overlay("over", "base", "raw");
    fd = lab_open_fd("over", O_RDWR);
    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    m = lab_start(lab_text("%s,locking=off", lab_path("base")));
    again = lab_open_fd("base", O_RDWR);
    assert_int_equal(qz_disk_overlay(m.d, again, "base", &err), -ELOOP);
    close(again);
    lab_go_on(&m, "over");
    assert_int_equal(qz_disk_overlay(m.d, fd, "over", &err), -ELOOP);
    close(fd);
    lab_scribble(&m, 5, 1);
    lab_holds(m.q, m.model, "without locks");
    lab_end(&m);
}

/* Nor a descriptor: what it locks is locked for all that have it. */
static void test_one_descriptor_twice(void **state)
{
    struct lab m;
    int fd, over;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    lab_create_overlay("over", "base", "raw");
    lab_create_overlay("other", "over", "qcow2");
    fd = lab_open_fd("base", O_RDWR);
    m = lab_start(lab_text("%s,fd=%d", lab_path("base"), fd));
    lab_scribble(&m, 5, 1);
    fails(&m, fd, "is a file of the disk already");
    over = lab_open_fd("over", O_RDWR);
    close(fd);
    lab_go_on(&m, "over");
    fails(&m, over, "is a file of the disk already");
    close(over);
    over = lab_open_fd("other", O_RDWR);
    fd = lab_open_fd("other", O_RDWR); /* somebody else has it open for writing */
    assert_int_equal(
        fcntl(fd, F_OFD_SETLK,
              &(struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1}),
        0);
    fails(&m, over, "in use");
    close(fd);
    close(over);
    lab_go_on(&m, "other");
    lab_holds(m.q, m.model, "in the end");
    lab_end(&m);
}

static void test_disks(void **state)
{
    static const char secret[] = "key_secret=rosebud";
    struct lab m;

    lab_create(lab_text("%s,overwrite,size=%dB", lab_path("base"), SIZE));
    m = lab_start(lab_text("%s,secure-erase=overwrite", lab_path("base")));
    refused(&m, lab_text("format=qcow2,size=%dB,%s", SIZE, raw_below), "secure-erase");
    lab_end(&m);
    m = lab_start(lab_text("%s,readonly", lab_path("base")));
    refused(&m, NULL, "readonly");
    lab_end(&m);
    lab_create(lab_text("%s,overwrite,size=%dB,format=luks,luks_version=1,luks_iterations=1000,%s",
                        lab_path("base"), SIZE, secret));
    m = lab_start(lab_text("%s,format=luks,%s", lab_path("base"), secret));
    assert_int_equal(qz_disk_read(m.q, 0, m.model, SIZE), 0);
    refused(&m, NULL, "is encrypted");
    lab_end(&m);
    lab_create(
        lab_text("%s,overwrite,size=%dB,format=qcow2,encryption=luks,luks_iterations=1000,%s",
                 lab_path("base"), SIZE, secret));
    m = lab_start(lab_text("%s,format=qcow2,%s,stats", lab_path("base"), secret));
    lab_scribble(&m, 5, 1);
    refused(&m, NULL, "dm-crypt");
    lab_end(&m);
}

/* ---- the medium of the present image fails at any moment of it */

enum when { EARLY, DURING, LATE };

/* All that was written is there, be it with an overlay at a second attempt or without. */
static void goes_on(struct lab *m, const char *base, const char *format, bool again)
{
    struct qz_error err = {0};
    struct qz_disk *other;
    uint8_t *last;

    assert_int_equal(qz_disk_open(&other, lab_text("%s,readonly", base), &err), -EBUSY);
    lab_holds(m->q, m->model, "failed");
    lab_scribble(m, 6, 7);
    if (again) {
        lab_go_on(m, "over");
        if (!strcmp(format, "qcow2"))
            lab_is_clean(base);
        lab_is_frozen(base, m->model);
        lab_scribble(m, 6, 9);
    }
    lab_holds(m->q, m->model, "went on");
    last = memcpy(malloc(SIZE), m->model, SIZE);
    lab_end(m);
    if (!strcmp(format, "qcow2"))
        lab_is_clean(base);
    lab_found(again ? lab_text("%s,format=qcow2,backing=header", lab_path("over")) : base, last);
    free(last);
}

static enum when fails_at(const char *create, const char *options, const char *format, unsigned n)
{
    struct qz_error err = {0};
    struct lab m;
    char base[400];
    int fd, r;

    snprintf(base, sizeof(base), "%s,format=%s", lab_path("base"), format);
    lab_create(lab_text("%s,overwrite,size=%dB%s", base, SIZE, create));
    lab_create_overlay("over", "base", format);
    r = lab_try_start(
        &m, lab_text("%s,inject-below=any:error=EIO:count=1:after=%u%s", base, n, options));
    if (r < 0)
        return EARLY;
    if (lab_try_scribble(&m, 6, 1) < 0) {
        qz_disk_queue_free(m.q);
        qz_disk_close(m.d, &err);
        free(m.model);
        return EARLY;
    }
    fd = lab_open_fd("over", O_RDWR);
    r = qz_disk_overlay(m.d, fd, lab_path("over"), &err);
    if (r == 0) {
        lab_end(&m);
        return LATE;
    }
    assert_int_equal(r, -EIO);
    assert_true(strstr(err.text, "base"));
    close(fd);
    goes_on(&m, base, format, n % 2);
    return DURING;
}

static void fails_anywhere(const char *create, const char *options, const char *format,
                           unsigned least)
{
    unsigned n = 0, failures = 0;
    enum when w;

    while ((w = fails_at(create, options, format, n++)) != LATE)
        failures += w == DURING;
    print_message("%s%s: %u moments\n", format, options, failures);
    assert_true(failures >= least);
}

static void test_medium(void **state)
{
    fails_anywhere("", "", "raw", 1);
    fails_anywhere("", "", "cow", 1);
    fails_anywhere("", "", "qcow2", 4);
    fails_anywhere(",lazy_refcounts,cluster_size=4KiB", "", "qcow2", 6);
    fails_anywhere("", ",metadata_log", "qcow2", 6);
}

/* From some moment on nothing reaches the medium: no overlay, and the bytes are not called safe. */
static void dies(const char *options, unsigned after)
{
    struct qz_error err = {0};
    struct lab m;
    char base[400];
    int fd;

    snprintf(base, sizeof(base), "%s,format=qcow2", lab_path("base"));
    lab_create(lab_text("%s,overwrite,size=%dB,lazy_refcounts", base, SIZE));
    lab_create_overlay("over", "base", "qcow2");
    if (lab_try_start(
            &m, lab_text("%s,inject-below=write:error=EIO:after=%u;flush:error=EIO:after=%u%s",
                         base, after, after / 4, options)) < 0)
        return;
    fd = lab_open_fd("over", O_RDWR);
    if (lab_try_scribble(&m, 6, 1) == 0 && qz_disk_overlay(m.d, fd, "over", &err) < 0) {
        lab_holds(m.q, m.model, "in memory");
        assert_true(lab_try_scribble(&m, 6, 1) < 0 || qz_disk_flush(m.q) < 0);
        qz_disk_queue_free(m.q);
        assert_true(qz_disk_close(m.d, &err) < 0);
    } else {
        qz_disk_queue_free(m.q);
        qz_disk_close(m.d, &err);
    }
    close(fd);
    free(m.model);
}

static void test_dead_medium(void **state)
{
    for (unsigned after = 0; after < 40; after++) {
        dies("", after);
        dies(",metadata_log", after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_one_file_twice),
        cmocka_unit_test(test_one_descriptor_twice),
        cmocka_unit_test(test_disks),
        cmocka_unit_test(test_medium),
        cmocka_unit_test(test_dead_medium),
    };

    return cmocka_run_group_tests(tests, lab_make_folder, lab_remove_folder);
}

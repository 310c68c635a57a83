/* state_file_test.c - files of sections: there and back, damaged, foreign, and what a failed write
 * leaves. */
#include "snapshot/state_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static char path[] = "/tmp/queztl-state-file-XXXXXX";
static int folder;

static int make_folder(void **state)
{
    if (!mkdtemp(path))
        return -1;
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder < 0 ? -1 : 0;
}

static int remove_folder(void **state)
{
    DIR *d = fdopendir(folder);
    struct dirent *e;

    while (d && (e = readdir(d)))
        unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    return rmdir(path);
}

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static const struct state_section some[] = {
    {"clock", bytes, 9}, {"nothing", bytes, 0}, {"vcpu[0]", bytes + 2, 5}};

static void write_some(const char *name)
{
    struct qz_error err = {0};

    if (state_file_write(folder, name, some, 3, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_there_and_back(void **state)
{
    struct state_file f;
    const struct state_section *s;

    write_some("a");
    assert_int_equal(state_file_read(folder, "a", &f, NULL), 0);
    assert_int_equal(f.count, 3);
    s = state_file_find(&f, "vcpu[0]");
    assert_non_null(s);
    assert_int_equal(s->len, 5);
    assert_memory_equal(s->data, bytes + 2, 5);
    assert_int_equal(state_file_find(&f, "nothing")->len, 0);
    assert_null(state_file_find(&f, "vcpu"));
    state_file_free(&f);
    assert_int_equal(faccessat(folder, "a.new", F_OK, 0), -1);
}

static void test_packed_bytes_are_the_files(void **state)
{
    uint8_t file[4096];
    const int fd = openat(folder, "a", O_RDONLY | O_CLOEXEC);
    void *packed;
    size_t len;

    assert_int_equal(state_file_pack(some, 3, &packed, &len, NULL), 0);
    assert_int_equal(read(fd, file, sizeof(file)), len);
    assert_memory_equal(packed, file, len);
    free(packed);
    close(fd);
}

static void test_the_new_file_takes_the_olds_place(void **state)
{
    const struct state_section one = {"only", bytes, 1};
    struct state_file f;

    write_some("b");
    assert_int_equal(state_file_write(folder, "b", &one, 1, NULL), 0);
    assert_int_equal(state_file_read(folder, "b", &f, NULL), 0);
    assert_int_equal(f.count, 1);
    state_file_free(&f);
}

static void expect_write(const struct state_section *s, unsigned count, int code, const char *text)
{
    struct qz_error err = {0};

    assert_int_equal(state_file_write(folder, "c", s, count, &err), code);
    if (!strstr(err.text, text))
        fail_msg("no \"%s\" in \"%s\"", text, err.text);
}

static void test_what_cannot_be_written(void **state)
{
    const struct state_section same[] = {{"x", bytes, 1}, {"x", bytes, 1}};
    const struct state_section nameless = {"", bytes, 1};
    struct state_section endless = {.data = bytes, .len = 1};
    struct state_file f;

    write_some("c");
    memset(endless.name, 'n', sizeof(endless.name));
    expect_write(same, 2, -EEXIST, "c: two sections are called x");
    expect_write(&nameless, 1, -EINVAL, "section 0: no name");
    expect_write(&endless, 1, -EINVAL, "section 0: no name");
    expect_write(&(struct state_section){"large", bytes, STATE_FILE_MAX}, 1, -EFBIG, "at most");
    assert_int_equal(state_file_read(folder, "c", &f, NULL), 0); /* the old one */
    assert_int_equal(f.count, 3);
    state_file_free(&f);
}

/* Bytes of a good file, and its length. */
static uint8_t *good(size_t *len)
{
    const int fd = openat(folder, "a", O_RDONLY | O_CLOEXEC);
    uint8_t *p = malloc(4096);

    assert_non_null(p);
    *len = (size_t)read(fd, p, 4096);
    close(fd);
    return p;
}

static void test_any_change_is_noticed(void **state)
{
    struct qz_error err;
    struct state_file f;
    uint8_t *p;
    size_t len;

    write_some("a");
    p = good(&len);
    assert_int_equal(state_file_parse(p, len, &f, &err), 0);
    for (size_t n = 0; n < len; n++)
        assert_true(state_file_parse(p, n, &f, &err) < 0);
    for (size_t i = 0; i < len * 8; i++) {
        p[i / 8] ^= 1 << i % 8;
        assert_true(state_file_parse(p, len, &f, &err) < 0);
        p[i / 8] ^= 1 << i % 8;
    }
    p[len] = 0;
    assert_int_equal(state_file_parse(p, len + 1, &f, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1 bytes behind its last section"));
    free(p);
}

static void test_what_cannot_be_read(void **state)
{
    struct qz_error err;
    struct state_file f;
    uint8_t *p;
    size_t len;
    int fd;

    assert_int_equal(state_file_read(folder, "none", &f, &err), -ENOENT);
    assert_int_equal(mkfifoat(folder, "pipe", 0600), 0);
    assert_int_equal(state_file_read(folder, "pipe", &f, &err), -EINVAL); /* and does not wait */
    assert_int_equal(symlinkat("a", folder, "link"), 0);
    assert_int_equal(state_file_read(folder, "link", &f, &err), -ELOOP);
    write_some("a");
    p = good(&len);
    p[8] = 2;
    assert_int_equal(state_file_parse(p, len, &f, &err), -ENOTSUP);
    assert_int_equal(state_file_write(folder, "c", some, STATE_FILE_SECTIONS + 1, NULL), -E2BIG);
    assert_non_null(strstr(err.text, "format version 2, this program reads 1"));
    /* Nobody asks for the cause. */
    assert_int_equal(ftruncate(fd = openat(folder, "a", O_WRONLY | O_CLOEXEC), 20), 0);
    assert_int_equal(state_file_read(folder, "a", &f, NULL), -EINVAL);
    close(fd);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_packed_bytes_are_the_files),
        cmocka_unit_test(test_the_new_file_takes_the_olds_place),
        cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_any_change_is_noticed),
        cmocka_unit_test(test_what_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

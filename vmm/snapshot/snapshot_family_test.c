/* snapshot_family_test.c - removing, flattening and clearing away, and who is in the way. */
#include "snapshot/snapshot_test_kit.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "snapshot/snapshot_family.h"

static const struct snapshot_options no_options = {0};

static void expect_kept(const char *path, int code, const char *text)
{
    struct qz_error err = {0};

    assert_int_equal(snapshot_remove(path, &err), code);
    if (!strstr(err.text, text))
        fail_msg("no \"%s\" in \"%s\"", text, err.text);
    assert_int_equal(kit_names_with(".", "partial"), 0);
}

static void expect_removed(const char *path)
{
    struct qz_error err = {0};

    if (snapshot_remove(path, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(kit_names_with(".", "partial"), 0);
}

static void expect_flattened(const char *path)
{
    struct qz_error err = {0};
    json_t *d;

    if (snapshot_flatten(path, &no_options, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(snapshot_describe(path, &d, NULL), 0);
    assert_null(json_object_get(d, "parent"));
    json_decref(d);
    assert_int_equal(kit_names_with(".", "partial"), 0);
}

static void test_remove(void **state)
{
    const int memory = kit_memory(1);

    kit_write("a", memory, NULL, false);
    kit_write("b", memory, "a", false);
    kit_write("c", memory, "a", true);
    assert_int_equal(kit_names_with("a/children", ""), 4); /* with . and .. */
    expect_kept("a", -EBUSY, "builds upon it; flatten or remove");
    expect_removed("b");
    assert_int_equal(kit_names_with("a/children", ""), 3);
    expect_kept("a", -EBUSY, "c builds upon it");
    expect_removed("c");
    expect_removed("a/");
    close(memory);
}

static void test_what_is_not_removed(void **state)
{
    const int memory = kit_memory(2);

    kit_write("mine", memory, NULL, false);
    kit_put("mine/letters", "dear", 4);
    expect_kept("mine", -ENOTEMPTY, "letters in it is not a snapshot's");
    unlink("mine/letters");
    assert_int_equal(mkdir("folder", 0700), 0);
    expect_kept("folder", -ENOENT, "not a snapshot");
    expect_kept("nothing", -ENOENT, "nothing");
    kit_put("file", "x", 1);
    expect_kept("file", -ENOTDIR, "a snapshot is a folder");
    /* A link is not followed to be left dangling: what it leads to is removed. */
    assert_int_equal(symlink("mine", "link"), 0);
    assert_int_equal(snapshot_remove("link", NULL), 0);
    assert_int_equal(access("mine", F_OK), -1);
    unlink("link");
    close(memory);
}

static void test_in_use(void **state)
{
    const int memory = kit_memory(3);
    struct qz_error err = {0};
    struct snapshot_dir *s;
    int folder;

    kit_write("base", memory, NULL, false);
    kit_write("top", memory, "base", false);
    assert_int_equal(snapshot_dir_open(&s, "top", NULL), 0);
    expect_kept("top", -EBUSY, "it is in use");
    expect_kept("base", -EBUSY, "it is in use");
    assert_int_equal(snapshot_flatten("top", &no_options, &err), -EBUSY);
    kit_expect("top", memory); /* others may read it, too */
    snapshot_dir_close(s);
    folder = open("base", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(folder, LOCK_EX), 0);
    kit_expect_bad("top", -EBUSY, "being removed or replaced just now");
    close(folder);
    kit_expect("top", memory);
    expect_removed("top");
    expect_removed("base");
    close(memory);
}

/* A child somewhere else holds its parent by its note only; one that left holds nothing. */
static void test_notes(void **state)
{
    const int memory = kit_memory(4);

    assert_int_equal(mkdir("far", 0700), 0);
    kit_write("base", memory, NULL, true);
    kit_write("far/child", memory, "base", true);
    expect_kept("base", -EBUSY, "far/child builds upon it");
    assert_int_equal(truncate("far/child/snapshot.json", 5), 0); /* perhaps */
    expect_kept("base", -EBUSY, "far/child builds upon it");
    kit_remove("far/child");
    kit_write("far/child", memory, NULL, true); /* another one */
    kit_put("base/children/nonsense", "far/child", 9);
    expect_removed("base");
    kit_expect("far/child", memory);
    /* Beside it, no note is needed. */
    kit_write("base", memory, NULL, true);
    kit_write("near", memory, "base", true);
    assert_int_equal(rename("base/children", "away"), 0);
    expect_kept("base", -EBUSY, "near builds upon it");
    assert_int_equal(rename("away", "base/children"), 0);
    /* A copy of a child takes no note with it. */
    kit_copy("near", "twin");
    expect_kept("base", -EBUSY, "builds upon it");
    expect_removed("twin");
    assert_int_equal(kit_names_with("base/children", ""), 3);
    /* A copy of a parent is nobody's parent. */
    kit_copy("base", "copy");
    expect_removed("copy");
    kit_remove("far");
    expect_removed("near");
    expect_removed("base");
    close(memory);
}

static void test_flatten(void **state)
{
    const int one = kit_memory(5), two = kit_memory(5), three = kit_memory(5);
    json_t *before, *after;

    kit_change(two, 60 * KIT_CHUNK);
    kit_change(three, 61 * KIT_CHUNK);
    kit_write("one", one, NULL, true);
    kit_write("two", two, "one", false);
    kit_write("three", three, "two", true);
    assert_int_equal(snapshot_describe("two", &before, NULL), 0);
    expect_flattened("two");
    kit_expect("two", two);
    kit_expect("three", three);
    /* Nothing else of it is different, and its own children still hold it. */
    assert_int_equal(snapshot_describe("two", &after, NULL), 0);
    json_object_del(before, "parent");
    json_object_del(before, "memory");
    json_object_del(after, "memory");
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
    expect_removed("one");
    expect_kept("two", -EBUSY, "three builds upon it");
    assert_int_equal(kit_names_with("two/children", ""), 3);
    expect_flattened("three");
    expect_flattened("three");
    expect_removed("two");
    kit_expect("three", three);
    expect_removed("three");
    close(one), close(two), close(three);
}

static void test_collect(void **state)
{
    const int memory = kit_memory(6);
    struct qz_error err = {0};
    unsigned removed;
    int folder;

    kit_write("good", memory, NULL, true);
    kit_copy("good", "left.partial-a1B2c3");
    kit_copy("good", "busy.partial-a1B2c3");
    kit_copy("good", "mine.partial-a1B2c3d");
    kit_put("file.partial-a1B2c3", "x", 1);
    assert_int_equal(symlink("good", "link.partial-a1B2c3"), 0);
    folder = open("busy.partial-a1B2c3", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(folder, LOCK_SH), 0);
    if (snapshot_collect(".", &removed, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(removed, 1);
    assert_int_equal(kit_names_with(".", "left"), 0);
    assert_int_equal(kit_names_with(".", "partial"), 4);
    close(folder);
    assert_int_equal(snapshot_collect(".", &removed, &err), 0);
    assert_int_equal(removed, 1);
    kit_put("left.partial-a1B2c3", "x", 1);
    unlink("left.partial-a1B2c3");
    kit_copy("good", "left.partial-a1B2c3");
    kit_put("left.partial-a1B2c3/letters", "dear", 4);
    assert_int_equal(snapshot_collect(".", &removed, &err), -ENOTEMPTY);
    assert_int_equal(snapshot_collect("nowhere", &removed, &err), -ENOENT);
    kit_remove("left.partial-a1B2c3");
    kit_expect("good", memory);
    close(memory);
}

static void expect_wrong(const char *path, int code)
{
    struct qz_error err = {0};

    if (snapshot_verify(path, &no_options, &err) != code)
        fail_msg("%d: %s", code, err.text);
}

static void test_verify(void **state)
{
    const int memory = kit_memory(7);
    int fd;

    kit_write("base", memory, NULL, false);
    kit_write("upon", memory, "base", true);
    expect_wrong("upon", 0);
    fd = open("base/memory", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "!", 1, 50 * KIT_CHUNK), 1);
    close(fd);
    expect_wrong("upon", -EBADMSG);
    kit_write("other", memory, NULL, false);
    assert_int_equal(truncate("other/state", 20), 0);
    expect_wrong("other", -EINVAL);
    close(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_remove),  cmocka_unit_test(test_what_is_not_removed),
        cmocka_unit_test(test_in_use),  cmocka_unit_test(test_notes),
        cmocka_unit_test(test_flatten), cmocka_unit_test(test_collect),
        cmocka_unit_test(test_verify),
    };

    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}

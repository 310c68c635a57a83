/* snapshot_dir_test.c - folders written and read: raw, compressed, upon each other, and what cannot
 * be written. */
#include "snapshot/snapshot_test_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static uint64_t disk_bytes(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static uint64_t file_size(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void test_there_and_back(void **state)
{
    const int memory = kit_memory(1);
    QZ_AUTO_FREE uint8_t *file = NULL;
    uint8_t expected[4096];
    size_t len;

    kit_write("raw", memory, NULL, false);
    kit_write("packed", memory, NULL, true);
    kit_expect("raw", memory);
    kit_expect("packed", memory);
    /* byte n is byte n */
    assert_int_equal(qz_read_file("raw/memory", KIT_MEMORY, (void **)&file, &len, NULL), 0);
    assert_int_equal(len, KIT_MEMORY);
    assert_int_equal(pread(memory, expected, 4096, 3 * KIT_CHUNK), 4096);
    assert_memory_equal(file + 3 * KIT_CHUNK, expected, 4096);
    /* what is not there takes no room: 14 chunks of noise, 14 of text, 2 pages */
    assert_true(disk_bytes("raw/memory") <= 29 * KIT_CHUNK);
    assert_true(file_size("packed/memory") <= 15 * KIT_CHUNK);
    assert_int_equal(kit_names_with(".", "partial"), 0);
    close(memory);
}

static void test_only_what_is_whole_is_mapped(void **state)
{
    const int memory = kit_memory(2);
    static const char *const names[] = {"map-raw", "map-packed", "map-upon"};
    struct snapshot_dir *s;

    kit_write("map-raw", memory, NULL, false);
    kit_write("map-packed", memory, NULL, true);
    kit_write("map-upon", memory, "map-raw", false);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(names); i++) {
        assert_int_equal(snapshot_dir_open(&s, names[i], NULL), 0);
        assert_int_equal(snapshot_dir_mappable(s) >= 0, i == 0);
        assert_int_equal(snapshot_dir_chunk_is_zero(s, 0), true);
        assert_int_equal(snapshot_dir_chunk_is_zero(s, 1), false);
        assert_int_equal(snapshot_dir_chunk_is_zero(s, 51), true);
        snapshot_dir_close(s);
    }
    close(memory);
}

static void test_description(void **state)
{
    const int memory = kit_memory(3);
    const struct snapshot_options o = {0};
    json_t *given = json_pack("{s:[s],s:s,s:s,s:s}", "options", "--cpus=4", "name", "my own",
                              "parent", "nobody", "created", "yesterday");
    struct snapshot_dir *s;
    const json_t *d;

    assert_int_equal(snapshot_dir_write("told", given, "", 0, memory, KIT_MEMORY, &o, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(given, "parent")), "nobody");
    assert_int_equal(snapshot_dir_open(&s, "told", NULL), 0);
    d = snapshot_dir_description(s);
    assert_string_equal(json_string_value(json_object_get(d, "name")), "my own");
    assert_null(json_object_get(d, "parent"));
    assert_int_equal(strlen(json_string_value(json_object_get(d, "created"))), 20);
    assert_int_equal(json_array_size(json_object_get(d, "options")), 1);
    snapshot_dir_close(s);
    assert_int_equal(snapshot_dir_write("./untold/", NULL, "", 0, memory, 4096, &o, NULL), 0);
    assert_int_equal(snapshot_dir_open(&s, "untold", NULL), 0);
    d = snapshot_dir_description(s);
    assert_string_equal(json_string_value(json_object_get(d, "name")), "untold");
    assert_string_equal(json_string_value(json_object_get(d, "format")), "queztl-snapshot");
    snapshot_dir_close(s);
    json_decref(given);
    close(memory);
}

static void test_upon_each_other(void **state)
{
    const int one = kit_memory(4), two = kit_memory(4), three = kit_memory(4);

    kit_write("one", one, NULL, true);
    kit_change(two, 3 * KIT_CHUNK + 77);
    kit_change(two, 60 * KIT_CHUNK);
    kit_write("two", two, "one", false);
    kit_change(three, 3 * KIT_CHUNK + 77);
    kit_change(three, 60 * KIT_CHUNK);
    kit_change(three, 10 * KIT_CHUNK + 1);
    kit_write("three", three, "./two/", true);
    kit_expect("one", one);
    kit_expect("two", two);
    kit_expect("three", three);
    assert_true(disk_bytes("two/memory") <= 2 * KIT_CHUNK);
    assert_true(file_size("three/memory") <= 1 * KIT_CHUNK);
    /* A family moves together, and is found from anywhere. */
    assert_int_equal(mkdir("else", 0700), 0);
    assert_int_equal(rename("one", "else/one") | rename("two", "else/two"), 0);
    assert_int_equal(rename("three", "else/three"), 0);
    kit_expect("else/three", three);
    assert_int_equal(chdir("else"), 0);
    kit_expect("three", three);
    assert_int_equal(chdir(".."), 0);
    close(one), close(two), close(three);
}

/* Memory that became zeros is zeros, not the parent's. */
static void test_zeros_upon_something(void **state)
{
    const int full = kit_memory(5), empty = memfd_create("empty", MFD_CLOEXEC);

    assert_int_equal(ftruncate(empty, KIT_MEMORY), 0);
    kit_write("full", full, NULL, true);
    kit_write("emptied", empty, "full", true);
    kit_write("filled", full, "emptied", true);
    kit_expect("emptied", empty);
    kit_expect("filled", full);
    assert_int_equal(file_size("emptied/memory"), 0);
    close(full), close(empty);
}

static void expect_refused(const char *path, int memory, uint64_t size, const char *parent,
                           int code, const char *text)
{
    const struct snapshot_options o = {.parent = parent};
    struct qz_error err = {0};

    assert_int_equal(snapshot_dir_write(path, NULL, "", 0, memory, size, &o, &err), code);
    if (!strstr(err.text, text))
        fail_msg("no \"%s\" in \"%s\"", text, err.text);
    assert_int_equal(kit_names_with(".", "partial"), 0);
}

static void test_what_cannot_be_written(void **state)
{
    const int memory = kit_memory(6);

    kit_write("there", memory, NULL, false);
    expect_refused("there", memory, KIT_MEMORY, NULL, -EEXIST, "there is one");
    kit_expect("there", memory);
    expect_refused("", memory, KIT_MEMORY, NULL, -EINVAL, "name the folder");
    expect_refused("there/..", memory, KIT_MEMORY, NULL, -EINVAL, "name the folder");
    expect_refused("x.partial-abcdef", memory, KIT_MEMORY, NULL, -EINVAL, "unfinished");
    expect_refused("nowhere/x", memory, KIT_MEMORY, NULL, -ENOENT, "nowhere");
    expect_refused("x", memory, KIT_MEMORY + 1, NULL, -EINVAL, "of which the file has");
    expect_refused("x", memory, 0, NULL, -EINVAL, "1 TiB is possible");
    expect_refused("x", memory, KIT_MEMORY, "missing", -ENOENT, "missing");
    expect_refused("x", memory, 4096, "there", -EINVAL, "write it without parent");
    expect_refused("x", -1, 4096, NULL, -EBADF, "guest's memory");
    assert_int_equal(access("x", F_OK), -1);
    close(memory);
}

/* A medium that takes no more than a few chunks. */
static void test_no_room(void **state)
{
    const struct snapshot_options packed = {.compress = true}, raw = {0};
    const struct rlimit little = {10 * KIT_CHUNK, RLIM_INFINITY};
    const int memory = kit_memory(9);
    struct qz_error err = {0};
    struct rlimit before;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    assert_int_equal(snapshot_dir_write("big", NULL, "", 0, memory, KIT_MEMORY, &packed, &err),
                     -EFBIG);
    assert_non_null(strstr(err.text, "snapshot big: memory: cannot be written: File too large"));
    assert_int_equal(snapshot_dir_write("big", NULL, "", 0, memory, KIT_MEMORY, &raw, NULL),
                     -EFBIG);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(kit_names_with(".", "big"), 0);
    close(memory);
}

static void test_a_chain_has_an_end(void **state)
{
    const int memory = kit_memory(7);
    char name[16], parent[16] = "";

    for (int i = 0; i < SNAPSHOT_CHAIN_MAX; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        kit_write(name, memory, *parent ? parent : NULL, true);
        strcpy(parent, name);
    }
    kit_expect(parent, memory);
    expect_refused("toomany", memory, KIT_MEMORY, parent, -EMLINK, "flatten");
    close(memory);
}

struct seen {
    double last;
    unsigned calls;
};

static void see(void *context, double share)
{
    struct seen *s = context;

    assert_true(share >= s->last && share <= 1);
    s->last = share;
    s->calls++;
}

static void test_progress(void **state)
{
    const int memory = kit_memory(8);
    struct seen seen = {0};
    const struct snapshot_options o = {.compress = true, .progress = see, .context = &seen};

    assert_int_equal(snapshot_dir_write("seen", NULL, "", 0, memory, KIT_MEMORY, &o, NULL), 0);
    assert_true(seen.last == 1 && seen.calls > 0);
    close(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_only_what_is_whole_is_mapped),
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_upon_each_other),
        cmocka_unit_test(test_zeros_upon_something),
        cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_a_chain_has_an_end),
        cmocka_unit_test(test_progress),
    };

    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}

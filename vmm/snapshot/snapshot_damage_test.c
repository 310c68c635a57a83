/* snapshot_damage_test.c - folders that somebody damaged, cut, mixed up or made up. */
#include "snapshot/snapshot_test_kit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "snapshot/snapshot_internal.h"

/* The bytes of a file of a good snapshot. */
static uint8_t *bytes_of(const char *path, size_t *len)
{
    void *data = NULL;

    assert_int_equal(qz_read_file(path, KIT_MEMORY, &data, len, NULL), 0);
    return data;
}

/* raw, packed, and upon (raw, upon packed) of one memory; damaged is a copy of one of them. */
static int make_family(void **state)
{
    int memory;

    if (kit_setup(state) < 0)
        return -1;
    memory = kit_memory(1);
    kit_write("raw", memory, NULL, false);
    kit_write("packed", memory, NULL, true);
    kit_change(memory, 60 * KIT_CHUNK);
    kit_write("upon", memory, "packed", false);
    return close(memory);
}

static void damage(const char *from)
{
    if (access("damaged", F_OK) == 0)
        kit_remove("damaged");
    kit_copy(from, "damaged");
}

static void test_any_change_of_the_index_is_noticed(void **state)
{
    QZ_AUTO_FREE uint8_t *p = NULL;
    struct snapshot_dir *s;
    size_t len;

    damage("packed");
    p = bytes_of("packed/memory.index", &len);
    for (size_t i = 0; i < len; i += i < 400 ? 1 : 13) {
        p[i] ^= 1 << i % 8;
        kit_put("damaged/memory.index", p, len);
        assert_true(snapshot_dir_open(&s, "damaged", NULL) < 0);
        assert_null(s);
        p[i] ^= 1 << i % 8;
    }
    for (size_t n = 0; n < len; n += 37) {
        kit_put("damaged/memory.index", p, n);
        assert_true(snapshot_dir_open(&s, "damaged", NULL) < 0);
    }
}

static void flip(const char *path, uint64_t at)
{
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void test_damaged_memory(void **state)
{
    damage("raw");
    flip("damaged/memory", 3 * KIT_CHUNK + 5);
    kit_expect_bad("damaged", -EBADMSG,
                   "damaged/memory: chunk 3 (guest memory at 0x30000): its ch");
    damage("packed");
    for (uint64_t at = 0; at < 40; at++)
        flip("damaged/memory", at);
    kit_expect_bad("damaged", -EBADMSG, "is damaged; restore from another snapshot");
    /* What nobody reads harms nobody: chunk 0 is zeros. */
    damage("raw");
    flip("damaged/memory", 100);
    {
        const int memory = kit_memory(1);

        kit_expect("damaged", memory);
        close(memory);
    }
}

static void test_cut_memory(void **state)
{
    uint8_t *to = calloc(1, KIT_MEMORY);
    struct snapshot_dir *s;
    struct qz_error err;

    damage("raw");
    assert_int_equal(truncate("damaged/memory", KIT_MEMORY - 1), 0);
    kit_expect_bad("damaged", -EINVAL, "it is not whole");
    damage("packed");
    assert_int_equal(truncate("damaged/memory", 1000), 0);
    kit_expect_bad("damaged", -EINVAL, "it is cut short");
    /* While it is read. */
    damage("raw");
    assert_int_equal(snapshot_dir_open(&s, "damaged", NULL), 0);
    assert_int_equal(truncate("damaged/memory", 5 * KIT_CHUNK), 0);
    assert_int_equal(snapshot_dir_read_memory(s, to, &err), -EIO);
    assert_non_null(strstr(err.text, "it was cut short"));
    snapshot_dir_close(s);
    free(to);
}

static void test_files_that_are_none(void **state)
{
    static const char *const files[] = {"snapshot.json", "memory", "memory.index"};
    char path[64], target[64];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(files); i++) {
        snprintf(path, sizeof(path), "damaged/%s", files[i]);
        snprintf(target, sizeof(target), "../raw/%s", files[i]);
        damage("raw");
        unlink(path);
        kit_expect_bad("damaged", -ENOENT, files[i]);
        assert_int_equal(symlink(target, path), 0); /* the very same bytes */
        kit_expect_bad("damaged", -ELOOP, files[i]);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0); /* and nobody waits for its other end */
        kit_expect_bad("damaged", -EINVAL, files[i]);
        unlink(path);
        assert_int_equal(mkdir(path, 0700), 0);
        kit_expect_bad("damaged", -EINVAL, files[i]);
    }
    kit_expect_bad("raw/memory", -ENOTDIR, "a snapshot is a folder");
    kit_expect_bad("nothing", -ENOENT, "nothing");
}

static void test_mixed_up(void **state)
{
    QZ_AUTO_FREE uint8_t *p = NULL;
    size_t len;

    damage("raw");
    p = bytes_of("packed/memory.index", &len);
    kit_put("damaged/memory.index", p, len);
    kit_expect_bad("damaged", -EINVAL, "of different snapshots");
    free(p);
    p = bytes_of("upon/snapshot.json", &len);
    kit_put("damaged/snapshot.json", p, len);
    kit_expect_bad("damaged", -EINVAL, "of different snapshots");
}

static void test_state(void **state)
{
    struct snapshot_dir *s;
    struct qz_error err;
    void *bytes;
    size_t len;

    damage("raw");
    assert_int_equal(snapshot_dir_open(&s, "damaged", NULL), 0);
    assert_int_equal(truncate("damaged/state", (64 << 20) + 1), 0);
    assert_int_equal(snapshot_dir_read_state(s, &bytes, &len, &err), -EFBIG);
    unlink("damaged/state");
    assert_int_equal(snapshot_dir_read_state(s, &bytes, &len, &err), -ENOENT);
    assert_non_null(strstr(err.text, "snapshot damaged: state: cannot be opened"));
    snapshot_dir_close(s);
}

static void expect_json(const char *json, int code, const char *text)
{
    kit_put("damaged/snapshot.json", json, strlen(json));
    kit_expect_bad("damaged", code, text);
}

#define HEAD "{\"format\":\"queztl-snapshot\",\"version\":1,"
#define ID   "\"id\":\"00000000000000000000000000000000\""

static void test_json_of_any_kind(void **state)
{
    QZ_AUTO_FREE char *deep = malloc(100001);

    damage("raw");
    expect_json("", -EINVAL, "snapshot.json: line 1");
    expect_json("{", -EINVAL, "snapshot.json: line 1");
    expect_json("[]", -EINVAL, "no \"format\"");
    expect_json("{}", -EINVAL, "no \"format\"");
    expect_json("{\"format\":1}", -EINVAL, "no \"format\"");
    expect_json("{\"format\":\"queztl-snapshot\"}", -ENOTSUP, "a newer one may have");
    expect_json("{\"format\":\"queztl-snapshot\",\"version\":2}", -ENOTSUP, "is not 1");
    expect_json("{\"format\":\"queztl-snapshot\",\"version\":\"1\"}", -ENOTSUP, "is not 1");
    expect_json(HEAD "\"x\":0}", -EINVAL, "no \"memory\"");
    expect_json(HEAD "\"memory\":{\"id\":7,\"size\":1}}", -EINVAL, "no \"memory\"");
    expect_json(HEAD "\"memory\":{" ID ",\"size\":1.5}}", -EINVAL, "no \"memory\"");
    expect_json(HEAD "\"memory\":{" ID ",\"size\":1}}", -EINVAL, "different snapshots");
    expect_json(HEAD "\"memory\":{" ID ",\"size\":1},\"parent\":7}", -EINVAL, "\"parent\"");
    expect_json(HEAD "\"memory\":{" ID ",\"size\":1},\"parent\":\"\"}", -EINVAL, "\"parent\"");
    expect_json(HEAD "\"memory\":{" ID ",\"size\":1},\"parent\":\"\\u001b[2J\"}", -EINVAL,
                "\"parent\"");
    expect_json(HEAD "\"version\":1}", -EINVAL, "duplicate");
    memset(deep, '[', 100000);
    deep[100000] = 0;
    expect_json(deep, -EINVAL, "depth");
    assert_int_equal(truncate("damaged/snapshot.json", SNAPSHOT_JSON_MAX + 1), 0);
    kit_expect_bad("damaged", -EFBIG, "at most 1048576");
}

/* The good one, with this for its parent (NULL: none). */
static void name_parent(const char *path, const char *parent)
{
    json_t *d = json_load_file(path, 0, NULL);

    assert_non_null(d);
    json_object_del(d, "parent");
    if (parent)
        json_object_set_new(d, "parent", json_string(parent));
    assert_int_equal(json_dump_file(d, path, 0), 0);
    json_decref(d);
}

static void test_parents(void **state)
{
    static char endless[5000];

    damage("upon");
    name_parent("damaged/snapshot.json", NULL);
    kit_expect_bad("damaged", -EINVAL, "names no parent, memory.index needs one");
    name_parent("damaged/snapshot.json", "../nowhere");
    kit_expect_bad("damaged", -ENOENT, "snapshot damaged: its parent cannot be used: ");
    name_parent("damaged/snapshot.json", "../raw");
    kit_expect_bad("damaged", -ESTALE, "is another snapshot than it was made upon");
    name_parent("damaged/snapshot.json", "../damaged");
    kit_expect_bad("damaged", -ELOOP, "lead back to damaged");
    name_parent("damaged/snapshot.json", "memory");
    kit_expect_bad("damaged", -ENOTDIR, "a snapshot is a folder");
    name_parent("damaged/snapshot.json", memset(endless, 'x', sizeof(endless) - 1));
    kit_expect_bad("damaged", -ENAMETOOLONG, "its parent cannot be used");
    damage("raw");
    name_parent("damaged/snapshot.json", "../packed");
    kit_expect_bad("damaged", -EINVAL, "names a parent, memory.index has none");
}

/* An index written anew, with a good checksum, after `change`. */
static void rewrite(const char *path, void (*change)(struct memory_index *index))
{
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct memory_index index;
    struct stat st;

    assert_int_equal(fstatat(folder, "memory", &st, 0), 0);
    assert_int_equal(memory_index_read(folder, (uint64_t)st.st_size, &index, NULL), 0);
    change(&index);
    assert_int_equal(memory_index_write(folder, &index, NULL), 0);
    free(index.chunk);
    close(folder);
}

static void to_parent(struct memory_index *index)
{
    index->chunk[1] = (struct chunk){.kind = CHUNK_PARENT, .crc = 7};
}

static void behind_the_end(struct memory_index *index)
{
    index->chunk[1].offset = QZ_BIT(56) - 1;
}

static void out_of_place(struct memory_index *index)
{
    index->chunk[1].offset = 0;
}

static void of_no_kind(struct memory_index *index)
{
    index->chunk[1].kind = 9;
}

static void bomb(struct memory_index *index)
{
    index->chunk[1].kind = CHUNK_RAW;
    index->chunk[1].stored = 0xffffffff;
}

static void zeros_somewhere(struct memory_index *index)
{
    index->chunk[0].stored = 1;
}

static void too_much(struct memory_index *index)
{
    index->size = QZ_BIT(62);
}

static void test_an_index_made_up(void **state)
{
    static const struct {
        const char *from;
        void (*change)(struct memory_index *index);
        int code;
        const char *text;
    } cases[] = {
        {"raw", to_parent, -EINVAL, "in a parent that there is not"},
        {"upon", to_parent, -ESTALE, "chunk 1 is not in its parent"},
        {"packed", behind_the_end, -EINVAL, "it is cut short"},
        {"raw", out_of_place, -EINVAL, "out of its place"},
        {"raw", of_no_kind, -EINVAL, "does not know"},
        {"packed", bomb, -EINVAL, "not of its length"},
        {"raw", zeros_somewhere, -EINVAL, "zeros with a place"},
        {"packed", too_much, -EINVAL, "at most 1048576"},
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        damage(cases[i].from);
        rewrite("damaged", cases[i].change);
        kit_expect_bad("damaged", cases[i].code, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_change_of_the_index_is_noticed),
        cmocka_unit_test(test_damaged_memory),
        cmocka_unit_test(test_cut_memory),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_mixed_up),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_json_of_any_kind),
        cmocka_unit_test(test_parents),
        cmocka_unit_test(test_an_index_made_up),
    };

    return cmocka_run_group_tests(tests, make_family, kit_teardown);
}

/* working_set_test.c - a recording is read as it was written, and any other is refused. */
#include "snapshot/snapshot_test_kit.h"

#include <fcntl.h>

#include "snapshot/snapshot_family.h"
#include "snapshot/snapshot_internal.h"
#include "snapshot/state_file.h"
#include "snapshot/working_set.h"

enum { A = 3, B = 1, C = 94 }; /* chunks that are not zeros (kit_memory) */

static struct snapshot_dir *open_snapshot(const char *path)
{
    struct snapshot_dir *s;
    struct qz_error err = {0};

    if (snapshot_dir_open(&s, path, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static void record(const char *path)
{
    struct snapshot_dir *s = open_snapshot(path);
    uint32_t chunks[] = {C, A, B};

    assert_int_equal(working_set_write(s, &(struct working_set){chunks, 3}, NULL), 0);
    snapshot_dir_close(s);
}

static void make(const char *path, const char *parent, uint64_t seed)
{
    const int memory = kit_memory(seed);

    kit_write(path, memory, parent, true);
    close(memory);
}

static void expect(const char *path, int code, const char *text)
{
    struct snapshot_dir *s = open_snapshot(path);
    struct working_set w;
    struct qz_error err = {0};
    const int r = working_set_read(s, &w, &err);

    if (r != code || (code < 0 && !strstr(err.text, text)))
        fail_msg("%d %s, expected %d %s", r, err.text, code, text);
    assert_int_equal(w.count, code < 0 ? 0 : 3);
    if (code == 0)
        assert_true(w.chunk[0] == C && w.chunk[1] == A && w.chunk[2] == B);
    working_set_free(&w);
    snapshot_dir_close(s);
}

static void kept(void **state)
{
    make("one", NULL, 1);
    expect("one", -ENOENT, "working-set");
    record("one");
    expect("one", 0, "");
    record("one"); /* over another */
    expect("one", 0, "");
    assert_int_equal(snapshot_remove("one", NULL), 0);
}

static void of_another_snapshot(void **state)
{
    QZ_AUTO_FREE void *data = NULL;
    size_t len;

    make("one", NULL, 1);
    make("two", NULL, 1);
    record("one");
    assert_int_equal(qz_read_file("one/working-set", 4096, &data, &len, NULL), 0);
    kit_put("two/working-set", data, len);
    expect("two", -ESTALE, "another snapshot");
    assert_int_equal(snapshot_remove("one", NULL), 0);
    assert_int_equal(snapshot_remove("two", NULL), 0);
}

/* Each byte of it changed once: never the same set, never more than an error. */
static void damaged(void **state)
{
    QZ_AUTO_FREE uint8_t *data = NULL;
    struct working_set w;
    struct snapshot_dir *s;
    size_t len;

    make("one", NULL, 1);
    record("one");
    s = open_snapshot("one");
    assert_int_equal(qz_read_file("one/working-set", 4096, (void **)&data, &len, NULL), 0);
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 0x41;
        kit_put("one/working-set", data, len);
        assert_true(working_set_read(s, &w, NULL) < 0);
        data[i] ^= 0x41;
        kit_put("one/working-set", data, i);
        assert_true(working_set_read(s, &w, NULL) < 0);
    }
    snapshot_dir_close(s);
    assert_int_equal(snapshot_remove("one", NULL), 0);
}

/* Well-formed, with a good checksum, and wrong. */
static void expect_refused(struct snapshot_dir *s, const uint32_t *chunk, size_t count)
{
    uint8_t head[SNAPSHOT_ID + 8] = {0};
    const struct state_section sections[] = {{"memory", head, sizeof(head)},
                                             {"chunks", chunk, count * sizeof(*chunk)}};
    struct working_set w;

    memcpy(head, s->index.id, SNAPSHOT_ID);
    qz_store_le32(head + SNAPSHOT_ID, s->index.chunk_size);
    assert_int_equal(state_file_write(s->layer[0].folder, "working-set", sections, 2, NULL), 0);
    assert_int_equal(working_set_read(s, &w, NULL), -EINVAL);
    assert_null(w.chunk);
}

static void hostile(void **state)
{
    static uint32_t many[200];
    struct snapshot_dir *s;

    make("one", NULL, 1);
    s = open_snapshot("one");
    expect_refused(s, (uint32_t[]){A, B, A}, 3); /* twice */
    expect_refused(s, (uint32_t[]){A, 51}, 2);   /* zeros */
    expect_refused(s, (uint32_t[]){100}, 1);     /* behind the end */
    expect_refused(s, (uint32_t[]){UINT32_MAX}, 1);
    expect_refused(s, many, 200); /* more than there are */
    snapshot_dir_close(s);
    assert_int_equal(snapshot_remove("one", NULL), 0);
}

/* The same snapshot, with the same id: its recording stays. */
static void flattened(void **state)
{
    make("base", NULL, 1);
    make("top", "base", 2);
    record("top");
    assert_int_equal(snapshot_flatten("top", &(struct snapshot_options){0}, NULL), 0);
    expect("top", 0, "");
    assert_int_equal(snapshot_remove("base", NULL), 0);
    assert_int_equal(snapshot_remove("top", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept),    cmocka_unit_test(of_another_snapshot), cmocka_unit_test(damaged),
        cmocka_unit_test(hostile), cmocka_unit_test(flattened),
    };

    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}

/* header_test.c - round trips and one hostile value for each field. */
#include "header.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { FILE_SIZE = 1 << 20, CLUSTER = 65536 };

static struct qcow2_header sample(void)
{
    return (struct qcow2_header){
        .version = 3,
        .cluster_bits = 16,
        .size = 10ull << 30,
        .l1_entries = 20,
        .l1_offset = 3 * CLUSTER,
        .reftable_offset = CLUSTER,
        .reftable_clusters = 1,
        .refcount_order = 4,
        .backing_name = (char *)"base.raw",
        .backing_format = (char *)"raw",
    };
}

static void built(uint8_t *b)
{
    struct qcow2_header h = sample();
    struct qz_error err = {0};

    assert_int_equal(qcow2_header_build(&h, b, &err), 0);
}

static void round_trip(void **state)
{
    uint8_t b[CLUSTER];
    struct qcow2_header h = sample(), got;
    struct qz_error err = {0};
    struct qcow2_extension keep = {0x12345678, 5, (uint8_t *)"hello"};

    h.unknown = &keep;
    h.unknown_count = 1;
    h.autoclear = QCOW2_AUTOCLEAR_BITMAPS;
    h.bitmaps = 2;
    h.bitmap_directory = 5 * CLUSTER;
    h.bitmap_directory_size = 64;
    assert_int_equal(qcow2_header_build(&h, b, &err), 0);
    assert_int_equal(qcow2_header_parse(&got, b, sizeof(b), FILE_SIZE, &err), 0);
    assert_int_equal(got.size, h.size);
    assert_int_equal(got.l1_offset, h.l1_offset);
    assert_string_equal(got.backing_name, "base.raw");
    assert_string_equal(got.backing_format, "raw");
    assert_int_equal(got.bitmaps, 2);
    assert_int_equal(got.bitmap_directory, h.bitmap_directory);
    assert_int_equal(got.unknown_count, 1);
    assert_int_equal(got.unknown[0].type, 0x12345678);
    assert_memory_equal(got.unknown[0].bytes, "hello", 5);
    qcow2_header_clear(&got);
}

/* A value put at a place of a good header, and what the message must name. */
static const struct {
    unsigned at, width;
    uint64_t value;
    const char *says;
} hostile[] = {
    {0, 4, 0, "magic"},
    {4, 4, 4, "offset 4"},
    {8, 8, 50, "offset 8"},
    {8, 8, CLUSTER + 1, "offset 8"},
    {16, 4, 1024, "offset 16"},
    {20, 4, 8, "offset 20"},
    {20, 4, 22, "offset 20"},
    {20, 4, 0xffffffff, "offset 20"},
    {24, 8, 1ull << 63, "offset 24"},
    {24, 8, 1ull << 56, "offset 24"},
    {32, 4, 3, "offset 32"},
    {32, 4, 2, "LUKS"},
    {36, 4, 19, "offset 36"},
    {36, 4, 0x7fffffff, "offset 36"},
    {40, 8, CLUSTER + 512, "offset 40"},
    {40, 8, 0, "offset 40"},
    {40, 8, 1ull << 40, "past the end"},
    {48, 8, 0, "offset 48"},
    {48, 8, ~0xffffull, "past the end"},
    {56, 4, 0, "offset 56"},
    {56, 4, 0xffffffff, "offset 56"},
    {60, 4, 65537, "offset 60"},
    {60, 4, 1, "offset 64"},
    {72, 8, 1ull << 40, "offset 72"},
    {72, 8, 8, "bit 3"},
    {88, 8, 2, "offset 88"},
    {96, 4, 7, "offset 96"},
    {100, 4, 103, "offset 100"},
    {100, 4, 0xfffffff8, "offset 100"},
    {104, 1, 2, "offset 104"},
    {104, 1, 1, "offset 104"},
    {116, 4, 0xffffff00, "header extension"},
};

static void hostile_fields(void **state)
{
    uint8_t b[CLUSTER];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(hostile); i++) {
        struct qcow2_header h;
        struct qz_error err = {0};

        built(b);
        if (hostile[i].width == 8)
            qz_store_be64(b + hostile[i].at, hostile[i].value);
        else if (hostile[i].width == 4)
            qz_store_be32(b + hostile[i].at, (uint32_t)hostile[i].value);
        else
            b[hostile[i].at] = (uint8_t)hostile[i].value;
        assert_true(qcow2_header_parse(&h, b, sizeof(b), FILE_SIZE, &err) < 0);
        if (!strstr(err.text, hostile[i].says))
            fail_msg("case %u: \"%s\" does not say \"%s\"", i, err.text, hostile[i].says);
    }
}

static void truncated(void **state)
{
    uint8_t b[CLUSTER];
    struct qcow2_header h;

    built(b);
    for (size_t n = 0; n < 400; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        memcpy(exact, b, n);
        if (qcow2_header_parse(&h, exact, n, n, NULL) == 0)
            fail_msg("a file of %zu bytes was taken for an image", n);
        free(exact);
    }
}

static void too_long(void **state)
{
    uint8_t b[512];
    struct qcow2_header h = sample();
    struct qz_error err = {0};
    char name[500];

    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    h.cluster_bits = 9;
    h.backing_name = name;
    assert_int_equal(qcow2_header_build(&h, b, &err), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(hostile_fields),
        cmocka_unit_test(truncated),
        cmocka_unit_test(too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

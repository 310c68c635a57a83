/* state_test.c - named values there and back, and bytes that say something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <queztl/state.h>

enum colour { RED, GREEN, BLUE };

struct thing {
    uint8_t small;
    uint16_t middle;
    uint32_t large;
    uint64_t whole;
    int32_t below;
    int64_t far_below;
    bool flag;
    enum colour colour;
    uint8_t raw[5];
    uint8_t text[16];
    size_t text_len;
    struct {
        uint16_t count;
    } channel[3];
};

static void thing_state(struct thing *t, struct qz_state *s)
{
    QZ_STATE(s, "small", t->small, 200);
    QZ_STATE_ANY(s, "middle", t->middle);
    QZ_STATE_ANY(s, "large", t->large);
    QZ_STATE_ANY(s, "whole", t->whole);
    QZ_STATE_SIGNED(s, "below", t->below, -7, 7);
    QZ_STATE_SIGNED(s, "far_below", t->far_below, INT64_MIN, INT64_MAX);
    QZ_STATE(s, "flag", t->flag, 1);
    QZ_STATE(s, "colour", t->colour, BLUE);
    qz_state_data(s, "raw", t->raw, sizeof(t->raw));
    qz_state_data_of(s, "text", t->text, &t->text_len, sizeof(t->text));
    for (unsigned i = 0; i < 3; i++) {
        qz_state_group_at(s, "channel", i);
        QZ_STATE(s, "count", t->channel[i].count, 1000);
        qz_state_end(s);
    }
    if (qz_state_loading(s) && t->small > t->middle)
        qz_state_refuse(s, "small is above middle");
}

static const struct thing sample = {
    .small = 200,
    .middle = 65535,
    .large = 0xdeadbeef,
    .whole = UINT64_MAX - 1,
    .below = -7,
    .far_below = INT64_MIN,
    .flag = true,
    .colour = BLUE,
    .raw = {1, 2, 3, 4, 5},
    .text = "abc",
    .text_len = 3,
    .channel = {{1}, {2}, {1000}},
};

static struct qz_state *saved(const struct thing *t)
{
    struct qz_state *s = qz_state_save();
    struct thing copy = *t;

    assert_non_null(s);
    assert_false(qz_state_loading(s));
    qz_state_group(s, "thing");
    thing_state(&copy, s);
    qz_state_end(s);
    assert_int_equal(qz_state_finish(s, NULL), 0);
    return s;
}

/* Loads `len` bytes into *t; the result of finishing. */
static int load(struct thing *t, const void *bytes, size_t len, struct qz_error *err)
{
    struct qz_state *s = qz_state_load(bytes, len);
    int r;

    assert_non_null(s);
    assert_true(qz_state_loading(s));
    qz_state_group(s, "thing");
    thing_state(t, s);
    qz_state_end(s);
    r = qz_state_finish(s, err);
    assert_int_equal(qz_state_failed(s), r != 0);
    qz_state_free(s);
    return r;
}

static void test_there_and_back(void **unused)
{
    struct qz_state *s = saved(&sample);
    struct thing t = {0};
    size_t len;
    const void *bytes = qz_state_bytes(s, &len);

    assert_int_equal(load(&t, bytes, len, NULL), 0);
    assert_int_equal(t.small, sample.small);
    assert_int_equal(t.middle, sample.middle);
    assert_int_equal(t.large, sample.large);
    assert_true(t.whole == sample.whole);
    assert_int_equal(t.below, -7);
    assert_true(t.far_below == INT64_MIN);
    assert_true(t.flag);
    assert_int_equal(t.colour, BLUE);
    assert_memory_equal(t.raw, sample.raw, 5);
    assert_int_equal(t.text_len, 3);
    assert_memory_equal(t.text, "abc", 3);
    assert_int_equal(t.channel[2].count, 1000);
    qz_state_free(s);
}

/* Every shorter state fails, and leaves what it did not reach alone. */
static void test_cut(void **unused)
{
    struct qz_state *s = saved(&sample);
    size_t len;
    const uint8_t *bytes = qz_state_bytes(s, &len);

    for (size_t n = 0; n < len; n++) {
        struct thing t = {.channel[2].count = 77};
        struct qz_error err = {0};
        uint8_t *exact = malloc(n + 1);

        assert_non_null(exact);
        memcpy(exact, bytes, n);
        assert_int_equal(load(&t, exact, n, &err), -EINVAL);
        assert_non_null(strstr(err.text, "the state ends in it"));
        if (n < len - 12)
            assert_int_equal(t.channel[2].count, 77);
        free(exact);
    }
    qz_state_free(s);
}

static void expect_refused(const struct thing *of, void (*spoil)(uint8_t *bytes, size_t len),
                           const char *text)
{
    struct qz_state *s = saved(of);
    struct qz_error err = {0};
    struct thing t = {0};
    size_t len;
    const void *bytes = qz_state_bytes(s, &len);
    uint8_t *copy = malloc(len);

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    if (spoil)
        spoil(copy, len);
    assert_int_equal(load(&t, copy, len, &err), -EINVAL);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" is not in \"%s\"", text, err.text);
    free(copy);
    qz_state_free(s);
}

static uint8_t *find(uint8_t *bytes, size_t len, const char *name)
{
    uint8_t *p = memmem(bytes, len, name, strlen(name));

    assert_non_null(p);
    return p;
}

static void spoil_name(uint8_t *bytes, size_t len)
{
    *find(bytes, len, "middle") = '\n';
}
static void spoil_kind(uint8_t *bytes, size_t len)
{
    find(bytes, len, "large")[-2] = 'b';
}
static void spoil_signed(uint8_t *bytes, size_t len)
{
    find(bytes, len, "below")[5 + 7] = 0;
}
static void spoil_wide(uint8_t *bytes, size_t len)
{
    find(bytes, len, "middle")[6 + 2] = 1;
}
static void spoil_length(uint8_t *bytes, size_t len)
{
    find(bytes, len, "text")[4] = 17;
}
static void spoil_exact_length(uint8_t *bytes, size_t len)
{
    find(bytes, len, "raw")[3] = 4;
}
static void spoil_end(uint8_t *bytes, size_t len)
{
    bytes[len - 1] = 'n';
}

static void spoil_small(uint8_t *bytes, size_t len)
{
    find(bytes, len, "small")[5] = 201;
}
static void spoil_flag(uint8_t *bytes, size_t len)
{
    find(bytes, len, "flag")[4] = 2;
}
static void spoil_count(uint8_t *bytes, size_t len)
{
    uint8_t *p = find(bytes, len, "count\xe8"); /* the last, 1000 */

    p[5] = 1001 & 0xff;
}
static void spoil_below(uint8_t *bytes, size_t len)
{
    find(bytes, len, "below")[5] = (uint8_t)-8;
}

static void expect_not_saved(const struct thing *t, const char *text)
{
    struct qz_state *s = qz_state_save();
    struct qz_error err = {0};
    struct thing copy = *t;

    assert_non_null(s);
    thing_state(&copy, s);
    assert_int_equal(qz_state_finish(s, &err), -EINVAL);
    assert_string_equal(err.text, text);
    qz_state_free(s);
}

/* What nobody could load is not saved. */
static void test_not_saved(void **unused)
{
    struct thing t = sample;

    t.small = 201;
    expect_not_saved(&t, "small: 201 is too large");
    t = sample;
    t.channel[1].count = 1001;
    expect_not_saved(&t, "channel[1].count: 1001 is too large");
    t = sample;
    t.below = -8;
    expect_not_saved(&t, "below: -8 is out of range");
}

static void test_refused(void **unused)
{
    struct thing t = sample;

    expect_refused(&sample, spoil_name, "thing.middle: missing, there is \"?iddle\" at byte ");
    expect_refused(&sample, spoil_kind, "thing.large: kind 98 instead of 110");
    expect_refused(&sample, spoil_signed, "thing.below: 72057594037927929 is out of range");
    expect_refused(&sample, spoil_wide, "thing.middle: 131071 is too large");
    expect_refused(&sample, spoil_length, "thing.text: 17 bytes, at most 16 are possible");
    expect_refused(&sample, spoil_exact_length, "thing.raw: 4 bytes instead of 5");
    expect_refused(&sample, spoil_end, "thing: more in it than expected");
    expect_refused(&sample, spoil_small, "thing.small: 201 is too large");
    expect_refused(&sample, spoil_flag, "thing.flag: 2 is too large");
    expect_refused(&sample, spoil_count, "thing.channel[2].count: 1001 is too large");
    expect_refused(&sample, spoil_below, "thing.below: -8 is out of range");
    t = sample;
    t.middle = 3;
    expect_refused(&t, NULL, "thing: small is above middle");
}

static void test_more_than_expected(void **unused)
{
    struct qz_state *s = saved(&sample);
    struct qz_error err = {0};
    struct thing t = {0};
    size_t len;
    const void *bytes = qz_state_bytes(s, &len);
    uint8_t *longer = calloc(1, len + 3);

    assert_non_null(longer);
    memcpy(longer, bytes, len);
    assert_int_equal(load(&t, longer, len + 3, &err), -EINVAL);
    assert_non_null(strstr(err.text, "3 bytes more than expected"));
    free(longer);
    qz_state_free(s);
}

static void test_too_deep(void **unused)
{
    struct qz_state *s = qz_state_save();

    assert_non_null(s);
    for (unsigned i = 0; i <= QZ_STATE_DEPTH; i++)
        qz_state_group(s, "down");
    assert_int_equal(qz_state_finish(s, NULL), -EINVAL);
    qz_state_end(s); /* does nothing after a failure */
    qz_state_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_saved),
        cmocka_unit_test(test_more_than_expected),
        cmocka_unit_test(test_too_deep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* stream_test.c - the torture's judge: what is torn, lost or done twice is told from what is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "stream.h"

enum { ROOM = 4096 };

static size_t piece(char *to, uint64_t from, uint64_t until)
{
    for (uint64_t i = from; i < until; i++)
        *to++ = stream_byte(i);
    return until - from;
}

static void test_lines(void **state)
{
    char text[2 * STREAM_LINE + 1] = "";

    piece(text, 0, 2 * STREAM_LINE);
    assert_string_equal(text, "t 0000000000001\nt 0000000000002\n");
    piece(text, 1099 * STREAM_LINE, 1100 * STREAM_LINE);
    assert_memory_equal(text, "t 0000000001100\n", STREAM_LINE);
}

/* A piece is found wherever it begins; one byte more, less or other and it is no piece. */
static void test_find(void **state)
{
    char text[ROOM];
    uint64_t at;

    for (uint64_t from = 1580; from < 1620; from++) {
        const size_t n = piece(text, from, from + 200);

        assert_true(stream_find(text, n, &at));
        assert_int_equal(at, from);
        memmove(text + 100, text + 101, n - 101);
        assert_false(stream_find(text, n - 1, &at));
        piece(text, from, from + 200);
        memmove(text + 101, text + 100, n - 100);
        assert_false(stream_find(text, n + 1, &at));
    }
    assert_false(stream_find(text, STREAM_LINE - 1, &at));
}

/* Sent back from anywhere to anywhere: the jump's goal is among those that are told, and nothing
 * before it is foreign. */
static void test_jump(void **state)
{
    char text[ROOM];

    for (uint64_t left = 1600; left < 1632; left++) {
        for (uint64_t to = 800; to < 832; to++) {
            struct moment where;
            uint64_t next;
            size_t n = piece(text, 1500, left);

            n += piece(text + n, to, to + 100);
            assert_true(stream_jump(text, n, 1500, &where, &next));
            assert_in_range(to, where.low, where.high);
            assert_true(where.high - where.low < STREAM_LINE);
            assert_int_equal(next, to + 100);
        }
    }
}

static void test_jump_with_a_tear(void **state)
{
    struct moment where;
    char text[ROOM];
    uint64_t next;
    size_t n = piece(text, 1500, 1600);

    text[n++] = 'x'; /* of neither */
    n += piece(text + n, 800, 900);
    assert_false(stream_jump(text, n, 1500, &where, &next));
    n = piece(text, 1500, 1600);
    n += piece(text + n, 800, 900);
    n += piece(text + n, 400, 500); /* twice */
    assert_false(stream_jump(text, n, 1500, &where, &next));
    n = piece(text, 1500, 1600); /* no jump yet */
    assert_false(stream_jump(text, n, 1500, &where, &next));
}

static void test_moments(void **state)
{
    struct moment m = {100, 200};

    assert_true(moment_narrow(&m, (struct moment){150, 300}));
    assert_true(moment_narrow(&m, (struct moment){0, 150}));
    assert_int_equal(m.low, 150);
    assert_int_equal(m.high, 150);
    assert_false(moment_narrow(&m, (struct moment){151, 160}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),   cmocka_unit_test(test_find),
        cmocka_unit_test(test_jump),    cmocka_unit_test(test_jump_with_a_tear),
        cmocka_unit_test(test_moments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

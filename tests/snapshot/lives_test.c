/* lives_test.c - what a judge of datagrams must let pass, and what not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "lives.h"

static struct datagram make(uint64_t generation, uint64_t count)
{
    struct datagram d = {.generation = {generation, ~generation}, .count = count, .echoes = count};

    datagram_complete(&d);
    return d;
}

static void passes(struct lives *l, uint16_t port, uint64_t generation, uint64_t count)
{
    const struct datagram d = make(generation, count);

    if (!lives_take(l, port, &d))
        fail_msg("%s", l->wrong);
}

static void fails(struct lives *l, uint16_t port, uint64_t generation, uint64_t count,
                  const char *why)
{
    const struct datagram d = make(generation, count);

    assert_false(lives_take(l, port, &d));
    if (!strstr(l->wrong, why))
        fail_msg("\"%s\" is not in \"%s\"", why, l->wrong);
    lives_free(l);
}

/* A machine, and one from its snapshot at 102, which first sends what was on its way. */
static void begin_two(struct lives *l)
{
    for (uint64_t i = 100; i < 105; i++)
        passes(l, 1, 7, i);
    passes(l, 2, 7, 102);
    passes(l, 2, 7, 103);
    passes(l, 2, 8, 104);
    passes(l, 1, 7, 105);
    assert_int_equal(l->count, 2);
    assert_int_equal(l->in_flight, 2);
}

static void test_good_lives(void **unused)
{
    struct lives l = {0};

    begin_two(&l);
    passes(&l, 1, 7, 109); /* some were lost */
    lives_send_back(&l, 1, true);
    passes(&l, 1, 7, 110); /* before it was sent back */
    passes(&l, 1, 7, 102); /* on their way in the snapshot */
    passes(&l, 1, 7, 103);
    passes(&l, 1, 9, 104);
    passes(&l, 2, 8, 105);
    lives_end(&l, 2);
    passes(&l, 2, 10, 104); /* another process has its port */
    passes(&l, 2, 10, 105);
    assert_int_equal(l.life[0].over, true);
    assert_int_equal(l.life[1].over, true);
    assert_int_equal(l.life[2].first, 104);
    lives_free(&l);
}

static void test_torn(void **unused)
{
    struct lives l = {0};
    struct datagram d = make(7, 100);

    d.fill[33] ^= 1;
    assert_false(lives_take(&l, 1, &d));
    assert_non_null(strstr(l.wrong, "torn"));
    lives_free(&l);
    d = make(7, 100);
    d.sum++;
    assert_false(lives_take(&l, 1, &d));
    lives_free(&l);
}

static void test_bad_lives(void **unused)
{
    struct lives l = {0};

    begin_two(&l);
    fails(&l, 1, 7, 105, "counts back");
    begin_two(&l);
    fails(&l, 2, 7, 105, "of another's life");
    begin_two(&l);
    fails(&l, 1, 9, 106, "was not sent back");
    begin_two(&l);
    lives_send_back(&l, 1, true);
    passes(&l, 1, 9, 104);
    fails(&l, 1, 7, 106, "of a life that is over");
    begin_two(&l);
    lives_end(&l, 1);
    fails(&l, 3, 7, 130, "never came so far");
}

/* A clone that does not notice that it is one. */
static void test_two_of_one_life(void **unused)
{
    struct lives l = {0};
    uint64_t count = 100;

    passes(&l, 1, 7, 200);
    for (unsigned i = 0; i < DATAGRAMS_IN_FLIGHT + DATAGRAMS_PER_LINE; i++)
        passes(&l, 2, 7, count++);
    fails(&l, 2, 7, count, "two live one life");
    passes(&l, 1, 7, 200);
    passes(&l, 2, 7, 100);
    fails(&l, 2, 7, 100, "counts back, of what was in flight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_lives),
        cmocka_unit_test(test_torn),
        cmocka_unit_test(test_bad_lives),
        cmocka_unit_test(test_two_of_one_life),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * cmocka.h - as much of cmocka's interface as the driver's unit tests use, for architectures whose
 * cmocka the build machine does not have. The first failure ends the process with 1.
 */
#ifndef CROSS_CMOCKA_H
#define CROSS_CMOCKA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f                                                                                      \
    }

#define fail_msg(...)                                                                              \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__),                 \
     fputc('\n', stderr), exit(1))
#define cross_check(good, what)                                                                    \
    do {                                                                                           \
        if (!(good))                                                                               \
            fail_msg("%s", what);                                                                  \
    } while (0)
#define cross_equal(a, b)                                                                          \
    do {                                                                                           \
        uintmax_t cross_a = (uintmax_t)(a), cross_b = (uintmax_t)(b);                              \
        if (cross_a != cross_b)                                                                    \
            fail_msg("%s is %#jx, not %#jx", #a, cross_a, cross_b);                                \
    } while (0)

#define assert_true(x)               cross_check(x, #x)
#define assert_false(x)              cross_check(!(x), "not " #x)
#define assert_null(x)               cross_check(!(x), #x " is not NULL")
#define assert_non_null(x)           cross_check(x, #x " is NULL")
#define assert_int_equal(a, b)       cross_equal(a, b)
#define assert_int_not_equal(a, b)   cross_check((uintmax_t)(a) != (uintmax_t)(b), #a " is " #b)
#define assert_ptr_equal(a, b)       cross_check((const void *)(a) == (const void *)(b), #a " != " #b)
#define assert_memory_equal(a, b, n) cross_check(memcmp(a, b, n) == 0, #a " differs from " #b)
#define assert_in_range(x, low, high)                                                              \
    cross_check((uintmax_t)(x) >= (uintmax_t)(low) && (uintmax_t)(x) <= (uintmax_t)(high),         \
                #x " is out of range")

static inline int cross_run(const struct CMUnitTest *tests, size_t n)
{
    void *state = NULL;

    for (size_t i = 0; i < n; i++)
        tests[i].run(&state);
    printf("%zu tests passed\n", n);
    return 0;
}
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    cross_run(tests, sizeof(tests) / sizeof((tests)[0]))

#endif

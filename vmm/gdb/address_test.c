/* address_test.c - where a debugger may be told to connect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "gdb/address.h"

static void test_good(void **state)
{
    struct gdb_address a;

    assert_int_equal(gdb_address_parse("unix:/run/x,y,wait", &a, NULL), 0);
    assert_string_equal(gdb_address_path(&a), "/run/x,y");
    assert_true(a.wait);
    assert_int_equal(gdb_address_parse("tcp:localhost:1234", &a, NULL), 0);
    assert_null(gdb_address_path(&a));
    assert_false(a.wait);
    assert_int_equal(ntohs(((struct sockaddr_in *)&a.any)->sin_port), 1234);
    assert_int_equal(ntohl(((struct sockaddr_in *)&a.any)->sin_addr.s_addr), 0x7f000001);
    assert_int_equal(gdb_address_parse("tcp:[::1]:65535,wait", &a, NULL), 0);
    assert_int_equal(a.any.sa_family, AF_INET6);
    assert_true(a.wait);
}

static void test_bad(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "unix:",
                                      "unix:,wait",
                                      "tcp:",
                                      "tcp:1234",
                                      "tcp:host.example:1",
                                      "tcp:localhost:0",
                                      "tcp:localhost:65536",
                                      "tcp:localhost:",
                                      "tcp:[::1:5",
                                      ",wait",
                                      "tcp::x"};
    struct gdb_address a;
    char longest[200];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        struct qz_error err = {0};

        assert_true(gdb_address_parse(bad[i], &a, &err) < 0);
        assert_true(err.text[0]);
    }
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "unix:", 5);
    longest[199] = '\0';
    assert_int_equal(gdb_address_parse(longest, &a, NULL), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

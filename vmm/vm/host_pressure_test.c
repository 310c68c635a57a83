/* host_pressure_test.c - pressure files and control groups as hosts have them, and this host's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "vm/host_pressure.h"

static void totals_are_read(void **state)
{
    uint64_t v;

    assert_int_equal(host_pressure_parse("some avg10=0.12 avg60=1.50 avg300=12.00 total=123456789\n"
                                         "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
                                         &v),
                     0);
    assert_int_equal(v, 123456789);
    assert_int_equal(host_pressure_parse("", &v), -EINVAL);
    assert_int_equal(host_pressure_parse("full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n", &v),
                     -EINVAL);
    assert_int_equal(host_pressure_parse("some avg10=0.00 avg60=0.00", &v), -EINVAL);
}

static void the_own_group_is_found(void **state)
{
    static const char unified[] =
        "24 1 0:21 / /proc rw - proc proc rw\n"
        "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    static const char hybrid[] = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                                 "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n";
    static const char part[] = "31 24 0:27 /box /sys/fs/cgroup rw - cgroup2 none rw\n";
    char path[128];

    assert_int_equal(host_pressure_path("0::/user.slice/vm\n", unified, path, sizeof(path)), 0);
    assert_string_equal(path, "/sys/fs/cgroup/user.slice/vm/memory.pressure");
    assert_int_equal(host_pressure_path("4:memory:/a\n0::/\n", hybrid, path, sizeof(path)), 0);
    assert_string_equal(path, "/sys/fs/cgroup/unified/memory.pressure");
    assert_int_equal(host_pressure_path("0::/box/vm\n", part, path, sizeof(path)), 0);
    assert_string_equal(path, "/sys/fs/cgroup/vm/memory.pressure");
    assert_int_equal(host_pressure_path("4:memory:/a\n", unified, path, sizeof(path)), -ENOENT);
    assert_int_equal(
        host_pressure_path("0::/a\n", "24 1 0:21 / /proc rw - proc proc rw\n", path, sizeof(path)),
        -ENOENT);
    assert_int_equal(host_pressure_path("0::/user.slice/vm\n", unified, path, 20), -ENAMETOOLONG);
}

static void never(void *context)
{
    (*(unsigned *)context)++;
}

/* Where this host tells, it can be asked again and again. */
static void this_host(void **state)
{
    struct qz_error err = {0};
    struct host_pressure *h;
    struct qz_loop *loop;
    unsigned risen = 0;

    assert_int_equal(qz_loop_new(&loop, &err), 0);
    if (host_pressure_new(&h, loop, 10000, never, &risen, &err) < 0) {
        assert_int_equal(err.code, -ENOTSUP);
        assert_non_null(strstr(err.text, "psi=1"));
        qz_loop_free(loop);
        skip();
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(host_pressure_read(h), 0, 10000);
        assert_true(qz_loop_once(loop, 0) >= 0);
    }
    host_pressure_free(h);
    qz_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_are_read),
        cmocka_unit_test(the_own_group_is_found),
        cmocka_unit_test(this_host),
    };

    return cmocka_run_group_tests_name("host-pressure", tests, NULL, NULL);
}

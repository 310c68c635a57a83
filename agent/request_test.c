/* request_test.c - what the agent takes for a request, and what not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "request.h"

static int parse(struct request *r, const char *line)
{
    struct qz_error err = {0};
    const int e = request_parse(r, line, strlen(line), &err);

    assert_true(e == 0 || (e == -EINVAL && *err.text));
    return e;
}

static void test_whole(void **state)
{
    struct request r;
    char text[MAC_TEXT];

    assert_int_equal(parse(&r, "{\"cmd\":\"ping\"}"), 0);
    assert_int_equal(r.verb, REQUEST_PING);
    assert_int_equal(parse(&r, " { \"cmd\" : \"identity\", \"hostname\" : \"web-1.example\", "
                               "\"interfaces\":[{\"was\":\"52:54:00:12:34:56\","
                               "\"mac\":\"52:54:00:AB:cd:0f\"}], \"later\": 1}"),
                     0);
    assert_int_equal(r.verb, REQUEST_IDENTITY);
    assert_string_equal(r.identity.hostname, "web-1.example");
    assert_int_equal(r.identity.interfaces, 1);
    assert_int_equal(r.identity.interface[0].was[5], 0x56);
    mac_text(r.identity.interface[0].mac, text);
    assert_string_equal(text, "52:54:00:ab:cd:0f");
    assert_int_equal(parse(&r, "{\"cmd\":\"identity\"}"), 0);
    assert_string_equal(r.identity.hostname, "");
    assert_int_equal(r.identity.interfaces, 0);
}

static void test_hostnames(void **state)
{
    static const char *const good[] = {"a", "9", "a-b", "a.b", "A1.b-2.c"};
    static const char *const bad[] = {"",    "-a",  "a-",  ".a",    "a.",        "a..b",   "a.-b",
                                      "a_b", "a b", "a/b", "a\\nb", "a\\u0000b", "\\u00e4"};
    char line[200], longest[70];
    struct request r;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(good); i++) {
        snprintf(line, sizeof(line), "{\"cmd\":\"identity\",\"hostname\":\"%s\"}", good[i]);
        assert_int_equal(parse(&r, line), 0);
        assert_string_equal(r.identity.hostname, good[i]);
    }
    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        snprintf(line, sizeof(line), "{\"cmd\":\"identity\",\"hostname\":\"%s\"}", bad[i]);
        if (parse(&r, line) == 0)
            fail_msg("\"%s\" is taken for a host name", bad[i]);
    }
    for (unsigned len = QZ_AGENT_HOSTNAME_MAX; len <= QZ_AGENT_HOSTNAME_MAX + 1; len++) {
        memset(longest, 'x', len);
        longest[len] = '\0';
        snprintf(line, sizeof(line), "{\"cmd\":\"identity\",\"hostname\":\"%s\"}", longest);
        assert_int_equal(parse(&r, line), len > QZ_AGENT_HOSTNAME_MAX ? -EINVAL : 0);
    }
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"cmd\":7}",
        "{\"cmd\":\"exec\"}",
        "{\"cmd\":\"ping\",\"cmd\":\"ping\"}",
        "{\"cmd\":\"ping\"} x",
        "{\"cmd\":\"identity\",\"hostname\":7}",
        "{\"cmd\":\"identity\",\"interfaces\":{}}",
        "{\"cmd\":\"identity\",\"interfaces\":[7]}",
        "{\"cmd\":\"identity\",\"interfaces\":[{\"was\":\"52:54:00:12:34:56\"}]}",
    };
    static const char *const macs[] = {
        "52:54:00:12:34:5",  "52:54:00:12:34:567", "52-54-00-12-34-56", "53:54:00:12:34:56",
        "00:00:00:00:00:00", " 2:54:00:12:34:56",  "+2:54:00:12:34:56", "52:54:00:12:34:5\\u0000"};
    char line[200];
    struct request r;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++)
        if (parse(&r, bad[i]) == 0)
            fail_msg("%s is taken for a request", bad[i]);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(macs); i++) {
        snprintf(line, sizeof(line),
                 "{\"cmd\":\"identity\",\"interfaces\":[{\"was\":\"52:54:00:12:34:56\","
                 "\"mac\":\"%s\"}]}",
                 macs[i]);
        if (parse(&r, line) == 0)
            fail_msg("\"%s\" is taken for an address", macs[i]);
    }
}

/* As many interfaces as there may be, and one more. */
static void test_many_interfaces(void **state)
{
    struct request r;
    char line[8000];

    for (unsigned n = QZ_AGENT_INTERFACES_MAX; n <= QZ_AGENT_INTERFACES_MAX + 1; n++) {
        size_t used =
            (size_t)snprintf(line, sizeof(line), "{\"cmd\":\"identity\",\"interfaces\":[");

        for (unsigned i = 0; i < n; i++)
            used += (size_t)snprintf(
                line + used, sizeof(line) - used,
                "%s{\"was\":\"52:54:00:00:00:%02x\",\"mac\":\"52:54:00:00:01:%02x\"}", i ? "," : "",
                i, i);
        snprintf(line + used, sizeof(line) - used, "]}");
        assert_int_equal(parse(&r, line), n > QZ_AGENT_INTERFACES_MAX ? -EINVAL : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_hostnames),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_many_interfaces),
    };

    return cmocka_run_group_tests_name("agent-request", tests, NULL, NULL);
}

/* machine_identity_test.c - what clones have of their own: options, names, requests; and whose
 * context ids are whose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/wait.h>

#include "clone_identity.h"
#include "vsock_ids.h"

static void expect_net(const char *value, unsigned number, const char *mac, const char *wanted)
{
    char *text = net_option(value, number, mac);

    assert_string_equal(text, wanted);
    free(text);
}

static void test_net_options(void **state)
{
    expect_net("user", 3, "52:00:00:00:00:01", "user,mac=52:00:00:00:00:01");
    expect_net("user,mac=52:54:00:12:34:56,forward=2222:22", 3, "52:00:00:00:00:01",
               "user,forward=2222:22,mac=52:00:00:00:00:01");
    expect_net("tap:web%d,mac=52:54:00:12:34:56", 12, NULL, "tap:web12,mac=52:54:00:12:34:56");
    expect_net("tap:%d%%d%", 7, NULL, "tap:7%7%");
    expect_net("none", 1, NULL, "none");
}

static void expect_hostname(const char *name, const char *wanted)
{
    char to[64];

    hostname_from(to, sizeof(to), name);
    assert_string_equal(to, wanted);
}

static void test_hostnames(void **state)
{
    expect_hostname("web-1", "web-1");
    expect_hostname("my_vm-2", "my-vm-2");
    expect_hostname("--a--", "a");
    expect_hostname(".a._b.", "a.b");
    expect_hostname("a_.b", "a-b");
    expect_hostname("..-_", "");
}

static void test_macs(void **state)
{
    static char mac[4000][MAC_TEXT];
    struct own_macs macs;
    struct qz_error err;

    assert_int_equal(own_macs_init(&macs, &err), 0);
    macs.next = 65535 - 100; /* over the edge */
    for (unsigned i = 0; i < QZ_ARRAY_LEN(mac); i++) {
        own_mac_next(&macs, mac[i]);
        assert_int_equal(strlen(mac[i]), MAC_TEXT - 1);
        assert_int_equal(strncmp(mac[i], "52:", 3), 0);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(mac[i], mac[k]);
    }
}

static json_t *machine(const char *net, const char *vsock)
{
    json_t *options = json_pack("[ss ss]", "--name", "vm", "--net", net);

    if (vsock) {
        json_array_append_new(options, json_string("--vsock"));
        json_array_append_new(options, json_string(vsock));
    }
    return options;
}

static int complete(const char *typed, unsigned count, const char *net)
{
    struct clone_plan p = {.net = {typed}, .nets = typed != NULL, .count = count};
    json_t *options = machine(net, NULL);
    struct qz_error err;
    const int r = clone_plan_complete(&p, options, &err);

    json_decref(options);
    return r;
}

static void test_plans(void **state)
{
    assert_int_equal(complete(NULL, 1, "tap:one"), 0);
    assert_int_equal(complete(NULL, 2, "tap:one"), -EINVAL);
    assert_int_equal(complete("tap:many%d", 2, "tap:one"), 0);
    assert_int_equal(complete("user", 2, "tap:one"), 0);
    assert_int_equal(complete("user,mac=52:54:00:12:34:56", 1, "user"), 0);
    assert_int_equal(complete("user,mac=52:54:00:12:34:56", 2, "user"), -EINVAL);
    assert_int_equal(complete(NULL, 2, "user,mac=52:54:00:12:34:56"), 0);
}

static void test_identities(void **state)
{
    json_t *options = machine("user,mac=52:54:00:12:34:56", "5,/run/vm.vsock"),
           *nets = json_pack("[s]", "52:54:00:12:34:56");
    struct clone_plan p = {.count = 2};
    struct machine_identity i[2];
    struct qz_error err;
    char *line, net[60], wanted[200];

    assert_int_equal(clone_plan_complete(&p, options, &err), 0);
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(clone_identity(&i[k], &p, options, k + 1, k ? "vm_2" : "vm-1", "in", &err),
                         0);
        snprintf(net, sizeof(net), "user,mac=%s", i[k].mac[0]);
        assert_string_equal(i[k].net[0], net);
    }
    assert_string_not_equal(i[0].mac[0], i[1].mac[0]);
    assert_string_not_equal(i[0].mac[0], "52:54:00:12:34:56");
    assert_true(i[0].cid >= VSOCK_IDS_FIRST && i[0].cid != i[1].cid);
    assert_string_equal(i[1].vsock, "in/vm_2.vsock");
    line = identity_request(&i[1], nets);
    snprintf(
        wanted, sizeof(wanted),
        "{\"cmd\":\"identity\",\"hostname\":\"vm-2\",\"interfaces\":[{\"was\":\"52:54:00:12:34:"
        "56\",\"mac\":\"%s\"}]}\n",
        i[1].mac[0]);
    assert_string_equal(line, wanted);
    free(line);
    *i[1].hostname = '\0';
    assert_null(identity_request(&i[1], NULL)); /* nothing is known of what it was */
    for (unsigned k = 0; k < 2; k++)
        machine_identity_free(&i[k]);
    json_decref(options);
    json_decref(nets);
}

/* An id is taken as long as somebody has its descriptor. */
static void test_ids(void **state)
{
    uint64_t first = 4000, second = 4000;
    struct qz_error err;
    int fd = vsock_id_take(&first, &err), other = vsock_id_take(&second, &err), end[2];
    char byte;
    pid_t pid;

    assert_true(fd >= 0 && other >= 0);
    assert_true(second > first);
    assert_int_equal(vsock_id_take_exactly(first, &err), -EBUSY);
    assert_int_equal(pipe(end), 0);
    pid = fork();
    if (pid == 0) {
        close(end[1]);
        _exit(read(end[0], &byte, 1) != 0);
    }
    close(end[0]);
    close(fd); /* the child has it still */
    assert_int_equal(vsock_id_take_exactly(first, &err), -EBUSY);
    close(end[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    fd = vsock_id_take_exactly(first, &err);
    assert_true(fd >= 0);
    close(fd);
    close(other);
}

static int setup(void **state)
{
    static char folder[] = "/tmp/queztl-identity-XXXXXX";

    assert_non_null(mkdtemp(folder));
    setenv("XDG_RUNTIME_DIR", folder, 1);
    *state = folder;
    return 0;
}

static int teardown(void **state)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -r %s", (char *)*state);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net_options), cmocka_unit_test(test_hostnames),
        cmocka_unit_test(test_macs),        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_identities),  cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests_name("machine-identity", tests, setup, teardown);
}

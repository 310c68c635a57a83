/*
 * agent_test.c - the agent in network and host name namespaces of its own: what its clients see,
 * and what became of the guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "hooks.h"
#include "interfaces.h"
#include "server.h"

static struct agent agent;
static char folder[] = "/tmp/queztl-agent-XXXXXX", hostname_file[64], hooks[64];
static bool apart; /* in namespaces: the host's own name and network stay */
static const uint8_t first[6] = {0x52, 0x54, 0, 1, 1, 1}, second[6] = {0x52, 0x54, 0, 2, 2, 2};

static void write_file(const char *name, const char *text, mode_t mode)
{
    char path[160];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void read_file(const char *name, char *text, size_t size)
{
    char path[160];
    int fd;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDONLY);
    n = fd < 0 ? 0 : read(fd, text, size - 1);
    text[n < 0 ? 0 : n] = '\0';
    if (fd >= 0)
        close(fd);
}

static int setup(void **state)
{
    apart = unshare(CLONE_NEWNET | CLONE_NEWUTS) == 0 ||
            unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWUTS) == 0;
    assert_non_null(mkdtemp(folder));
    snprintf(hostname_file, sizeof(hostname_file), "%s/hostname", folder);
    snprintf(hooks, sizeof(hooks), "%s/identity.d", folder);
    mkdir(hooks, 0700);
    agent = (struct agent){.places = {hostname_file, hooks, INT64_C(20000000000)},
                           .lock_fd = memfd_create("lock", MFD_CLOEXEC),
                           .idle_ns = INT64_C(20000000000)};
    return 0;
}

static int teardown(void **state)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    close(agent.lock_fd);
    return system(command);
}

/* The answer to a line, as JSON. */
static json_t *ask(const char *line)
{
    char *text = client_answer(&agent, line, strlen(line));
    json_t *answer;

    assert_non_null(text);
    assert_int_equal(text[strlen(text) - 1], '\n');
    answer = json_loads(text, 0, NULL);
    assert_non_null(answer);
    free(text);
    return answer;
}

static const char *word(json_t *data, const char *name)
{
    const char *text = json_string_value(json_object_get(data, name));

    return text ? text : "";
}

/* ---- the guest ---------------------------------------------------------------------------------
 */

static void test_ping(void **state)
{
    json_t *answer = ask("{\"cmd\":\"ping\"}"), *data = json_object_get(answer, "data");

    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_string_equal(word(data, "agent"), QUEZTL_VERSION);
    assert_int_equal(strlen(word(data, "boot_id")), 36);
    assert_true(json_integer_value(json_object_get(data, "uptime_s")) > 0);
    json_decref(answer);
}

static void expect_name(const char *name, const char *done, bool with_hooks)
{
    char line[100], now[80], file[80];
    json_t *answer, *data;

    snprintf(line, sizeof(line), "{\"cmd\":\"identity\",\"hostname\":\"%s\"}", name);
    answer = ask(line);
    data = json_object_get(answer, "data");
    assert_string_equal(word(data, "hostname"), done);
    assert_true(json_is_true(json_object_get(data, "complete")));
    assert_int_equal(json_object_get(data, "hooks") != NULL, with_hooks);
    gethostname(now, sizeof(now));
    assert_string_equal(now, name);
    read_file("hostname", file, sizeof(file));
    file[strcspn(file, "\n")] = '\0';
    assert_string_equal(file, name);
    json_decref(answer);
}

static void test_hostname(void **state)
{
    struct stat st;

    if (!apart)
        skip();
    write_file("hostname", "before\n", 0644);
    expect_name("web-1", "changed", true);
    expect_name("web-1", "already", false);
    write_file("hostname", "another\n", 0640); /* after a crash between the two, say */
    expect_name("web-1", "changed", true);
    assert_int_equal(stat(hostname_file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    expect_name("web-2", "changed", true);
}

static int make_tap(const char *name, const uint8_t mac[6])
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), s;

    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0)
        return -1;
    s = socket(AF_INET, SOCK_DGRAM, 0);
    r.ifr_hwaddr.sa_family = 1;
    memcpy(r.ifr_hwaddr.sa_data, mac, 6);
    assert_int_equal(ioctl(s, SIOCSIFHWADDR, &r), 0);
    assert_int_equal(ioctl(s, SIOCGIFFLAGS, &r), 0);
    r.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(s, SIOCSIFFLAGS, &r), 0);
    close(s);
    return fd;
}

static void expect_interface(const char *request, const char *name, const char *done)
{
    json_t *answer = ask(request), *data = json_object_get(answer, "data"),
           *item = json_array_get(json_object_get(data, "interfaces"), 0);

    assert_string_equal(word(item, "name"), name);
    assert_int_equal(strncmp(word(item, "done"), done, strlen(done)), 0);
    assert_int_equal(json_is_true(json_object_get(data, "complete")), strcmp(done, "failed") != 0);
    json_decref(answer);
}

static void test_interfaces(void **state)
{
    static const char *const request = "{\"cmd\":\"identity\",\"interfaces\":[{\"was\":\"52:54:00:"
                                       "01:01:01\",\"mac\":\"52:54:00:02:"
                                       "02:02\"}]}";
    struct identity_interface back = {{0}, {0}};
    char name[IF_NAMESIZE], seen[200];
    struct qz_error err;
    int tap;

    if (!apart || (tap = make_tap("tap0", first)) < 0)
        skip();
    write_file("identity.d/10-see",
               "#!/bin/sh\necho \"$QUEZTL_HOSTNAME $QUEZTL_INTERFACES\" >${0%/*}/../seen\n", 0755);
    expect_interface(request, "tap0", "changed");
    read_file("seen", seen, sizeof(seen));
    assert_non_null(strstr(seen, " tap0=52:54:00:02:02:02\n"));
    expect_interface(request, "tap0", "already");
    memcpy(back.was, second, 6);
    memcpy(back.mac, first, 6);
    assert_int_equal(interface_change(&back, name, &err), CHANGE_DONE);
    memcpy(back.mac, second, 6);
    memcpy(back.was, (const uint8_t[]){2, 0, 0, 0, 0, 9}, 6);
    assert_int_equal(interface_change(&back, name, &err), -ENODEV);
    close(tap);
    expect_interface(request, "", "failed");
}

static void test_hooks(void **state)
{
    char *const environment[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    static const char *const expected[][2] = {{"10-see", "ok"},
                                              {"20-fails", "failed: exit code 3"},
                                              {"30-dies", "failed: ended by signal 15"},
                                              {"40-stays", "failed: it took too long"},
                                              {"50-late", "failed: no time was left"}};
    json_t *list;

    write_file("identity.d/10-see", "#!/bin/sh\n", 0755);
    write_file("identity.d/20-fails", "#!/bin/sh\nexit 3\n", 0755);
    write_file("identity.d/30-dies", "#!/bin/sh\nkill $$\n", 0755);
    write_file("identity.d/40-stays", "#!/bin/sh\nsleep 1000\n", 0755);
    write_file("identity.d/50-late", "#!/bin/sh\n", 0755);
    write_file("identity.d/60-not.dpkg-old", "#!/bin/sh\n", 0755);
    write_file("identity.d/70-data", "#!/bin/sh\n", 0644);
    list = hooks_run(hooks, environment, 1000000000);
    assert_int_equal(json_array_size(list), QZ_ARRAY_LEN(expected));
    for (unsigned i = 0; i < QZ_ARRAY_LEN(expected); i++) {
        assert_string_equal(word(json_array_get(list, i), "name"), expected[i][0]);
        assert_string_equal(word(json_array_get(list, i), "done"), expected[i][1]);
    }
    json_decref(list);
    list = hooks_run("/nowhere", environment, 1000000000);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
}

/* ---- clients -----------------------------------------------------------------------------------
 */

/* A client in a process of its own; the other end. */
static int connect_client(pid_t *pid)
{
    int end[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
    *pid = fork();
    if (*pid == 0) {
        close(end[0]);
        client_serve(&agent, end[1]);
        _exit(0);
    }
    close(end[1]);
    return end[0];
}

/* All that it says until it ends, or until so many lines. */
static size_t read_lines(int fd, char *text, size_t size, unsigned lines)
{
    size_t have = 0;

    while (lines && have < size - 1) {
        const ssize_t n = read(fd, text + have, 1);

        if (n <= 0)
            break;
        lines -= text[have++] == '\n';
    }
    text[have] = '\0';
    return have;
}

static void expect_end(int fd, pid_t pid)
{
    int status;

    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_lines(void **state)
{
    static const char two[] = "garbage\n{\"cmd\":\"ping\"}\n{\"cmd\":";
    char text[1000];
    pid_t pid;
    int fd = connect_client(&pid);

    assert_int_equal(write(fd, two, strlen(two)), strlen(two));
    read_lines(fd, text, sizeof(text), 2);
    assert_int_equal(strncmp(text, "{\"ok\":false,", 12), 0);
    assert_non_null(strstr(text, "\n{\"ok\":true,"));
    assert_int_equal(write(fd, "\"ping\"}\n", 8), 8); /* the rest of the third */
    read_lines(fd, text, sizeof(text), 1);
    assert_int_equal(strncmp(text, "{\"ok\":true,", 11), 0);
    expect_end(fd, pid);
}

static void test_line_too_long(void **state)
{
    static char line[QZ_AGENT_LINE_MAX];
    char text[200];
    pid_t pid;
    int fd = connect_client(&pid);

    memset(line, ' ', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    assert_int_equal(write(fd, line, sizeof(line)), sizeof(line));
    read_lines(fd, text, sizeof(text), 1);
    assert_non_null(strstr(text, "no JSON"));
    line[sizeof(line) - 1] = ' ';
    assert_int_equal(write(fd, line, sizeof(line)), sizeof(line));
    read_lines(fd, text, sizeof(text), 2); /* a refusal, and the end */
    assert_non_null(strstr(text, "too long"));
    expect_end(fd, pid);
}

static void test_silent_client(void **state)
{
    const struct agent hasty = {
        .places = agent.places, .lock_fd = agent.lock_fd, .idle_ns = 1000000};
    int end[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), 0);
    client_serve(&hasty, end[1]); /* returns */
    close(end[0]);
    close(end[1]);
}

static int connect_to(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (const struct sockaddr *)a, sizeof(*a)), 0);
    return fd;
}

/* Clients that came later are processes with this descriptor too. */
static void hang_up(int fd)
{
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* As many clients as there may be are served, one more is told so; places are free again later. */
static void test_many_clients(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct server s = {.agent = &agent,
                       .listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    int fd[QZ_AGENT_CLIENTS_MAX + 1];
    struct qz_error err;
    char text[200];

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/socket", folder);
    assert_int_equal(bind(s.listener, (const struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s.listener, 16), 0);
    for (unsigned i = 0; i <= QZ_AGENT_CLIENTS_MAX; i++) {
        fd[i] = connect_to(&a);
        assert_int_equal(server_accept(&s, &err), 0);
    }
    read_lines(fd[QZ_AGENT_CLIENTS_MAX], text, sizeof(text), 1);
    assert_non_null(strstr(text, "too many clients"));
    for (unsigned i = 0; i < QZ_AGENT_CLIENTS_MAX; i++) {
        assert_int_equal(write(fd[i], "{\"cmd\":\"ping\"}\n", 15), 15);
        read_lines(fd[i], text, sizeof(text), 1);
        assert_non_null(strstr(text, "\"ok\":true"));
    }
    for (unsigned i = 0; i <= QZ_AGENT_CLIENTS_MAX; i++)
        hang_up(fd[i]);
    for (unsigned i = 0; i < QZ_AGENT_CLIENTS_MAX; i++)
        waitid(P_PID, (id_t)s.client[i], &(siginfo_t){0}, WEXITED | WNOWAIT);
    fd[0] = connect_to(&a);
    assert_int_equal(server_accept(&s, &err), 0);
    assert_int_equal(write(fd[0], "{\"cmd\":\"ping\"}\n", 15), 15);
    read_lines(fd[0], text, sizeof(text), 1);
    assert_non_null(strstr(text, "\"ok\":true"));
    hang_up(fd[0]);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    close(s.listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ping),          cmocka_unit_test(test_hostname),
        cmocka_unit_test(test_interfaces),    cmocka_unit_test(test_hooks),
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_line_too_long),
        cmocka_unit_test(test_silent_client), cmocka_unit_test(test_many_clients),
    };

    return cmocka_run_group_tests_name("agent", tests, setup, teardown);
}

/* agent_client_test.c - machines whose agents answer, lack, break off or say nothing, all at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent_client.h"

enum { BROKEN = 16 }; /* connections that break off, after which nobody tries again */

static char folder[] = "/tmp/queztl-calls-XXXXXX", line[] = "{\"cmd\":\"ping\"}\n";

static int listen_at(const char *name, char *path, size_t size)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(path, size, "%s/%s", folder, name);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static bool said(int fd, const char *wanted)
{
    for (; *wanted; wanted++) {
        char byte;

        if (read(fd, &byte, 1) != 1 || byte != *wanted)
            return false;
    }
    return true;
}

/*
 * A machine of so many connections: all but the last break off behind the handshake; the last gives
 * this answer. NULL: there is no agent.
 */
static pid_t machine(const char *name, unsigned connections, const char *answer, char *path,
                     size_t size)
{
    const int listener = listen_at(name, path, size);
    const pid_t pid = fork();

    if (pid == 0) {
        for (unsigned i = 1; i <= connections && i <= BROKEN; i++) {
            const int fd = accept(listener, NULL, NULL);

            if (!said(fd, "CONNECT 902\n"))
                _exit(1);
            if (answer && (!dprintf(fd, "OK 1073741824\n") || !said(fd, line)))
                _exit(2);
            if (answer && i == connections && dprintf(fd, "%s", answer) < 0)
                _exit(3);
            close(fd);
        }
        _exit(0);
    }
    close(listener);
    return pid;
}

static void test_all_at_once(void **state)
{
    static const struct {
        unsigned connections;
        const char *answer;
        enum agent_said said;
    } kinds[] = {
        {1, "{\"ok\":true,\"data\":{\"n\":7}}\n", AGENT_OK},
        {3, "{\"ok\":true,\"data\":{\"n\":7}}\n", AGENT_OK},
        {1, NULL, AGENT_NONE},
        {1, "{\"ok\":false,\"error\":\"not today\"}\n", AGENT_ERROR},
        {1, "garbage\n", AGENT_ERROR},
        {17, "never said\n", AGENT_ERROR}, /* given up before */
    };
    struct agent_call *calls = calloc(QZ_ARRAY_LEN(kinds), sizeof(*calls));
    pid_t pid[QZ_ARRAY_LEN(kinds)];
    char path[QZ_ARRAY_LEN(kinds)][100], name[16];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(kinds); i++) {
        snprintf(name, sizeof(name), "m%u", i);
        pid[i] = machine(name, kinds[i].connections, kinds[i].answer, path[i], sizeof(path[i]));
        calls[i].path = path[i];
        calls[i].line = line;
    }
    agent_call_all(calls, QZ_ARRAY_LEN(kinds), INT64_C(20000000000));
    for (unsigned i = 0; i < QZ_ARRAY_LEN(kinds); i++) {
        int status;

        assert_int_equal(calls[i].said, kinds[i].said);
        assert_int_equal(json_integer_value(json_object_get(calls[i].data, "n")),
                         kinds[i].said == AGENT_OK ? 7 : 0);
        json_decref(calls[i].data);
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_int_equal(status, 0);
    }
    assert_string_equal(calls[3].text, "not today");
    free(calls);
}

/* A machine that lets nobody in yet, for it is just being loaded. */
static void test_starting(void **state)
{
    struct agent_call *call = calloc(1, sizeof(*call));
    char path[100];
    const int listener = listen_at("starting", path, sizeof(path));
    const pid_t pid = fork();

    if (pid == 0) {
        for (unsigned i = 0; i < 3; i++)
            close(accept(listener, NULL, NULL));
        const int fd = accept(listener, NULL, NULL);

        _exit(!said(fd, "CONNECT 902\n") || !dprintf(fd, "OK 1\n") || !said(fd, line) ||
              !dprintf(fd, "{\"ok\":true}\n"));
    }
    close(listener);
    *call = (struct agent_call){.path = path, .line = line, .starting_ns = INT64_C(20000000000)};
    agent_call_all(call, 1, INT64_C(20000000000));
    assert_int_equal(call->said, AGENT_OK);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    free(call);
}

/* Nobody waits longer than is said, and not for a process that is gone. */
static void test_bounds(void **state)
{
    struct agent_call *calls = calloc(2, sizeof(*calls));
    char silent[100];
    const int listener = listen_at("silent", silent, sizeof(silent));
    const pid_t gone = fork();

    if (gone == 0)
        _exit(0);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    calls[0] = (struct agent_call){.path = silent, .line = line};
    calls[1] = (struct agent_call){.path = "/nowhere/at/all", .line = line, .pid = gone};
    agent_call_all(calls, 2, 50000000);
    assert_int_equal(calls[0].said, AGENT_SILENT);
    assert_int_equal(calls[1].said, AGENT_ERROR);
    assert_non_null(strstr(calls[1].text, "ended"));
    close(listener);
    free(calls);
}

static int setup(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_starting),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests_name("agent-client", tests, setup, teardown);
}

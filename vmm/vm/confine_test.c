/*
 * confine_test.c - the confinement holds: a forbidden call ends the process, a declared one is
 * needed, files outside the list cannot be opened. Each case runs in a child process.
 */
#include "vm/confine.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "seccomp_filters.h"

/* Runs body in a child; its wait status. */
static int in_child(void (*body)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        body(arg);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void must(int r)
{
    if (r < 0)
        _exit(99);
}

struct attempt {
    enum confine_thread type;
    void (*call)(void);
};

static void call_execve(void)
{
    char *argv[] = {NULL};

    execve("/bin/true", argv, argv);
}
static void call_socket(void)
{
    syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}
static void call_ptrace(void)
{
    syscall(SYS_ptrace, 0, 0, 0, 0);
}
static void call_openat(void)
{
    syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}
static void call_mmap_exec(void)
{
    syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void call_mprotect_exec(void)
{
    static char page[8192];

    syscall(SYS_mprotect, QZ_ALIGN_UP((uintptr_t)page, 4096), 4096, PROT_READ | PROT_EXEC);
}
static void call_fork(void)
{
    syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}
static void call_getpid(void)
{
    syscall(SYS_getpid);
}

static void try_confined(void *arg)
{
    struct attempt *a = arg;
    int abi;

    must(confine_process(NULL, 0, &abi, NULL));
    must(confine_thread(a->type, CONFINE_KILL, NULL));
    a->call();
}

static bool killed_by_seccomp(enum confine_thread type, void (*call)(void))
{
    struct attempt a = {type, call};
    int status = in_child(try_confined, &a);

    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static void forbidden_calls_die(void **state)
{
    static const enum confine_thread types[] = {CONFINE_MAIN, CONFINE_IO, CONFINE_VCPU,
                                                CONFINE_CLOCK};

    (void)state;
    for (size_t i = 0; i < QZ_ARRAY_LEN(types); i++) {
        assert_true(killed_by_seccomp(types[i], call_execve));
        assert_true(killed_by_seccomp(types[i], call_ptrace));
        assert_true(killed_by_seccomp(types[i], call_mmap_exec));
        assert_true(killed_by_seccomp(types[i], call_mprotect_exec));
        assert_true(killed_by_seccomp(types[i], call_fork));
        assert_false(killed_by_seccomp(types[i], call_getpid));
    }
    assert_true(killed_by_seccomp(CONFINE_VCPU, call_socket));
    assert_true(killed_by_seccomp(CONFINE_VCPU, call_openat));
    assert_true(killed_by_seccomp(CONFINE_CLOCK, call_socket));
}

/* The declared calls of a thread type but one, as a filter of its own. */
struct without {
    const char *const *declared;
    const char *left_out;
    void (*use)(void);
};

static void try_without(void *arg)
{
    struct without *w = arg;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);

    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    for (const char *const *name = w->declared; *name; name++)
        if (!w->left_out || strcmp(*name, w->left_out))
            must(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(*name), 0));
    must(seccomp_load(ctx));
    w->use();
}

static void use_log(void)
{
    qz_log(QZ_LOG_ERROR, "a line from a confined thread (expected)");
}
static void use_ring(void)
{
    syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
}
static void use_entropy(void)
{
    char byte;

    if (syscall(SYS_getrandom, &byte, 1, 0) != 1)
        _exit(1);
}
static void use_epoll(void)
{
    syscall(SYS_epoll_ctl, -1, 0, 0, NULL);
}
static void use_memory(void)
{
    /* What malloc does for a large block: never refused, since it is not executable. */
    void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        _exit(1);
    munmap(p, 1 << 20);
}

static bool is_declared(const char *const *declared, const char *name)
{
    while (*declared && strcmp(*declared, name))
        declared++;
    return *declared != NULL;
}

/* Each of these lets its call through in the filter that was built, and nothing else does. */
static void every_rule_tried_is_needed(void **state)
{
    static const struct {
        enum confine_thread type;
        const char *const *declared;
        const char *name;
        void (*use)(void);
    } rules[] = {
        {CONFINE_VCPU, seccomp_vcpu_calls, "write", use_log},
        {CONFINE_CLOCK, seccomp_clock_calls, "write", use_log},
        {CONFINE_LOADING, seccomp_loading_calls, "write", use_log},
        {CONFINE_IO, seccomp_io_calls, "io_uring_enter", use_ring},
        {CONFINE_IO, seccomp_io_calls, "getrandom", use_entropy},
        {CONFINE_IO, seccomp_io_calls, "epoll_ctl", use_epoll},
        {CONFINE_MAIN, seccomp_main_calls, "mmap", use_memory},
    };

    (void)state;
    for (size_t i = 0; i < QZ_ARRAY_LEN(rules); i++) {
        struct attempt built = {rules[i].type, rules[i].use};
        struct without with = {rules[i].declared, NULL, rules[i].use},
                       without = {rules[i].declared, rules[i].name, rules[i].use};
        int status;

        assert_true(is_declared(rules[i].declared, rules[i].name));
        status = in_child(try_confined, &built);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        status = in_child(try_without, &with);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        status = in_child(try_without, &without);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}

/* clone3 hides its flags in memory that a filter cannot read: libc is told that there is none. */
static void call_clone3(void)
{
    if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS)
        _exit(1);
}

static void clone3_does_not_exist(void **state)
{
    struct attempt a = {CONFINE_MAIN, call_clone3};
    int status = in_child(try_confined, &a);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

struct trapped {
    int report;
};

static void call_trapped(void *arg)
{
    struct trapped *t = arg;
    int abi;

    must(dup2(t->report, STDERR_FILENO));
    must(confine_process(NULL, 0, &abi, NULL));
    must(confine_thread(CONFINE_CLOCK, CONFINE_TRAP, NULL));
    call_ptrace();
}

/* With QUEZTL_SECCOMP=trap the process says what it was, and ends all the same. */
static void trap_names_the_call(void **state)
{
    char text[256] = "", number[32];
    int ends[2], status;
    struct trapped t;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    t.report = ends[1];
    status = in_child(call_trapped, &t);
    close(ends[1]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    snprintf(number, sizeof(number), " %d ", (int)SYS_ptrace);
    assert_non_null(strstr(text, number));
    assert_non_null(strstr(text, "clock"));
}

static void open_files(void *arg)
{
    const char *allowed = arg;
    struct confine_path path = {allowed, false};
    int abi;

    must(confine_process(&path, 1, &abi, NULL));
    if (abi == 0)
        _exit(77);
    if (open(allowed, O_RDONLY) < 0)
        _exit(1);
    if (open(allowed, O_RDWR) >= 0 || open("/etc/passwd", O_RDONLY) >= 0 ||
        open("/tmp", O_RDONLY) >= 0)
        _exit(2);
}

static void only_given_files_open(void **state)
{
    char name[] = "/tmp/queztl-confine-XXXXXX";
    int fd = mkstemp(name), status;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    status = in_child(open_files, name);
    unlink(name);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void read_capabilities(void *arg)
{
    char line[256];
    int abi;
    FILE *f = fopen("/proc/self/status", "re");

    must(f ? 0 : -1);
    must(confine_process(NULL, 0, &abi, NULL));
    while (fgets(line, sizeof(line), f)) {
        unsigned long long bits;

        if (sscanf(line, "CapEff: %llx", &bits) == 1 && bits)
            _exit(1);
        if (sscanf(line, "NoNewPrivs: %llx", &bits) == 1 && bits != 1)
            _exit(2);
    }
}

static void no_capability_is_left(void **state)
{
    int status = in_child(read_capabilities, NULL);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forbidden_calls_die),   cmocka_unit_test(every_rule_tried_is_needed),
        cmocka_unit_test(clone3_does_not_exist), cmocka_unit_test(trap_names_the_call),
        cmocka_unit_test(only_given_files_open), cmocka_unit_test(no_capability_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

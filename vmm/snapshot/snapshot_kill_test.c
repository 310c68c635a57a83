/*
 * snapshot_kill_test.c - whoever writes, flattens or removes a snapshot is killed before and after
 * each of its system calls: there is the old one or the new one, whole, and what else is left is
 * cleared away.
 *
 * The child is traced, and has one processor, so that it makes no threads. Of the calls that move
 * the memory's chunks, which differ in nothing but the number, only every 20th counts.
 */
#include "snapshot/snapshot_test_kit.h"

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "snapshot/snapshot_family.h"

enum { EVERY = 20, CANNOT_BE_TRACED = 77 };

static const struct snapshot_options upon_base = {.parent = "base"};
static int base_memory, top_memory;
static void *machine;
static size_t machine_len;

static int write_top(void)
{
    return snapshot_dir_write("top", NULL, machine, machine_len, top_memory, KIT_MEMORY, &upon_base,
                              NULL);
}

static int flatten_top(void)
{
    return snapshot_flatten("top", &(struct snapshot_options){.compress = true}, NULL);
}

static int remove_top(void)
{
    return snapshot_remove("top", NULL);
}

_Noreturn static void be_traced(int (*act)(void))
{
    cpu_set_t all, one;

    CPU_ZERO(&one);
    sched_getaffinity(0, sizeof(all), &all);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    sched_setaffinity(0, sizeof(one), &one);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(CANNOT_BE_TRACED);
    raise(SIGSTOP);
    _exit(act() < 0);
}

/* The child stands before or after a system call that counts. */
static bool counts(pid_t child)
{
    static unsigned moves;
    const long call =
        ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, orig_rax), NULL);

    return (call != SYS_pread64 && call != SYS_pwrite64 && call != SYS_lseek) ||
           ++moves % EVERY == 0;
}

/* Kills it at the n-th stop; false: it came to its end before, and well. */
static bool kill_at(int (*act)(void), unsigned n)
{
    const pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        be_traced(act);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_BE_TRACED) {
        print_message("skipped: this host allows no ptrace\n");
        skip();
    }
    for (;;) {
        if (WIFSTOPPED(status) && counts(child) && n-- == 0)
            kill(child, SIGKILL);
        else
            ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status))
            return true;
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
    }
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void expect_clean(void)
{
    struct qz_error err = {0};
    unsigned removed;

    assert_true(kit_names_with(".", "partial") <= 1);
    if (snapshot_collect(".", &removed, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(kit_names_with(".", "partial"), 0);
    kit_expect("base", base_memory);
    if (there("top"))
        kit_expect("top", top_memory);
}

static int make_base(void **state)
{
    if (kit_setup(state) < 0)
        return -1;
    base_memory = kit_memory(1);
    top_memory = kit_memory(1);
    kit_change(top_memory, 60 * KIT_CHUNK);
    kit_change(top_memory, 10 * KIT_CHUNK);
    kit_write("base", base_memory, NULL, true);
    kit_state(&machine, &machine_len);
    return 0;
}

static int end_base(void **state)
{
    free(machine);
    return kit_teardown(state);
}

static void test_writing(void **state)
{
    unsigned n = 0, whole = 0;

    for (bool killed = true; killed; n++) {
        killed = kill_at(write_top, n);
        expect_clean();
        if (!there("top"))
            continue;
        whole++;
        assert_int_equal(remove_top(), 0);
    }
    /* Some were killed before it was there, and some after. */
    assert_true(n > 50 && whole > 1 && whole < n / 2);
}

static void test_flattening(void **state)
{
    unsigned n = 0, flat = 0;

    for (bool killed = true; killed; n++) {
        json_t *d;

        if (!there("top"))
            assert_int_equal(write_top(), 0);
        killed = kill_at(flatten_top, n);
        expect_clean();
        assert_int_equal(snapshot_describe("top", &d, NULL), 0);
        if (!json_object_get(d, "parent")) {
            flat++;
            assert_int_equal(remove_top(), 0);
        }
        json_decref(d);
    }
    assert_true(n > 50 && flat > 1 && flat < n / 2);
}

static void test_removing(void **state)
{
    unsigned n = 0, gone = 0;

    for (bool killed = true; killed; n++) {
        if (!there("top"))
            assert_int_equal(write_top(), 0);
        killed = kill_at(remove_top, n);
        expect_clean();
        gone += !there("top");
    }
    assert_true(n > 20 && gone > 1 && gone < n);
}

/* None of the notes that were left holds it. */
static void test_nothing_holds_the_base(void **state)
{
    struct qz_error err = {0};

    assert_false(there("top"));
    if (snapshot_remove("base", &err) < 0)
        fail_msg("%s", err.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writing),
        cmocka_unit_test(test_flattening),
        cmocka_unit_test(test_removing),
        cmocka_unit_test(test_nothing_holds_the_base),
    };

    return cmocka_run_group_tests(tests, make_base, end_base);
}

/*
 * step.c - see the header. The child stops itself before and behind the function; between the two
 * it is stepped. What the stopping takes by itself is counted too, with nothing between, and taken
 * off.
 */
#include "step.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static void nothing(void *arg) {}

static void child(void (*volatile f)(void *arg), void *arg)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGUSR1);
    f(arg);
    raise(SIGUSR1);
    _exit(0);
}

static uint64_t steps_of(void (*f)(void *arg), void *arg)
{
    uint64_t n = 0;
    int status;
    pid_t pid = fork();

    if (pid == 0)
        child(f, arg);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return 0;
    do {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
            break;
        n++;
    } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return n;
}

uint64_t count_steps(void (*f)(void *arg), void *arg)
{
    uint64_t with = steps_of(f, arg), without = steps_of(nothing, NULL);

    return with > without ? with - without : 0;
}

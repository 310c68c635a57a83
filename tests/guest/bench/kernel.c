/*
 * kernel.c - workloads of the kernel: system calls, page faults, processes, switches, signals.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

static void getppid_run(uint64_t n)
{
    uint64_t sum = 0;

    while (n--)
        sum += syscall(SYS_getppid);
    sink = sum;
}

/* An operation is 256 fresh pages, each touched once (and no huge pages, which would hide the
 * faults). */
static void page_touch(uint64_t n)
{
    const size_t size = 256 * 4096;

    while (n--) {
        char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            die("mmap");
        madvise(p, size, MADV_NOHUGEPAGE); /* may fail: a kernel without huge pages */
        for (size_t i = 0; i < size; i += 4096)
            p[i] = 1;
        munmap(p, size);
    }
}

static void wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            die("waitpid");
    }
    if (status)
        die("a child failed");
}

static void fork_wait(uint64_t n)
{
    while (n--) {
        pid_t pid = fork();

        if (pid < 0)
            die("fork");
        if (pid == 0)
            _exit(0);
        wait_for(pid);
    }
}

static void vfork_exec(uint64_t n)
{
    const char *const argv[] = {self_path, "--nothing", NULL};

    while (n--)
        spawn_and_wait(argv, false);
}

/*
 * An operation is a byte to another process and one back: two switches. The other process is made
 * once; it ends when this one does, because its pipe is closed then.
 */
struct echo {
    int there[2], back[2];
};

static void echo_bytes(struct echo *e)
{
    char byte;

    close(e->there[1]);
    close(e->back[0]);
    while (read(e->there[0], &byte, 1) == 1 && write(e->back[1], &byte, 1) == 1)
        ;
    _exit(0);
}

static void start_echo(struct echo *e)
{
    pid_t pid;

    if (pipe2(e->there, O_CLOEXEC) < 0 || pipe2(e->back, O_CLOEXEC) < 0 || (pid = fork()) < 0)
        die("pipes and a process");
    if (pid == 0)
        echo_bytes(e);
    close(e->there[0]);
    close(e->back[1]);
}

static void pipe_pingpong(uint64_t n)
{
    static struct echo echo;
    static bool started;
    char byte = 0;

    if (!started)
        start_echo(&echo);
    started = true;
    while (n--) {
        if (write(echo.there[1], &byte, 1) != 1 || read(echo.back[0], &byte, 1) != 1)
            die("a pipe");
    }
}

static volatile sig_atomic_t signals_seen;

static void count_signal(int signal)
{
    (void)signal;
    signals_seen++;
}

/* An operation is a signal sent to oneself, its handler and the return. */
static void signal_run(uint64_t n)
{
    struct sigaction a = {.sa_handler = count_signal};
    pid_t pid = getpid();

    if (sigaction(SIGUSR1, &a, NULL) < 0)
        die("sigaction");
    while (n--)
        kill(pid, SIGUSR1);
    sink = signals_seen;
}

/*
 * Two threads of one process take turns. An operation is two turns: two switches without a change
 * of address space. The other thread is made once and sleeps between runs.
 */
static _Atomic uint32_t turn;

static void take_turn(uint32_t mine)
{
    while (atomic_load(&turn) != mine)
        syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
}

static void give_turn(uint32_t to)
{
    atomic_store(&turn, to);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *other_thread(void *unused)
{
    (void)unused;
    for (;;) {
        take_turn(1);
        give_turn(0);
    }
    return NULL;
}

static void thread_switch(uint64_t n)
{
    static pthread_t other;
    static bool started;

    if (!started && (errno = pthread_create(&other, NULL, other_thread, NULL)))
        die("a thread");
    started = true;
    while (n--) {
        give_turn(1);
        take_turn(0);
    }
}

const struct workload kernel_workloads[] = {
    {"getppid", "call", getppid_run, NULL, false},
    {"page-touch", "256page", page_touch, NULL, false},
    {"fork-wait", "process", fork_wait, NULL, false},
    {"vfork-exec", "process", vfork_exec, NULL, false},
    {"pipe-pingpong", "trip", pipe_pingpong, NULL, false},
    {"signal", "signal", signal_run, NULL, false},
    {"thread-switch", "trip", thread_switch, NULL, false},
    {NULL},
};

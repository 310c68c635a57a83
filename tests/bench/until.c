/*
 * until.c - runs a program until it has said something, and tells what that took.
 *
 * until [--runs N] [--limit SECONDS] [--lines] [--idle SECONDS] TEXT -- COMMAND...
 *
 * For each run a line of KEY=VALUE words is printed when TEXT was on the program's standard output
 * or error; then the program is killed. The keys:
 *
 * - wall_ms, cpu_ms: from exec to TEXT by the clock, and what all threads of the program used of
 *   processors.
 * - own_kib: memory of the process (Pss) less guest memory and translated code, that is, less
 *   what is a memfd, and less what is anonymous and executable.
 * - code_kib: translated code in memory: the memfd named queztl-code, and what is anonymous and
 *   executable.
 * - idle_permille, with --idle: processor time during so many seconds, beginning 2 s after TEXT,
 *   in 1/1000 of one processor.
 *
 * With --lines each line of the program is printed before that, behind its wall_ms, its cpu_ms and
 * a bar. Exit code 1 when the program ends, or the limit (300 s) is over, without TEXT.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SETTLE_S = 2 }; /* a system that has just started is not idle yet */

struct options {
    int runs, limit_s, idle_s;
    bool lines;
    const char *text;
    char **command;
};

struct run {
    pid_t pid;
    clockid_t cpu;
    int64_t began;
    int fd;
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t = {0};

    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static int start(char **command, struct run *r)
{
    int pipes[2];

    r->began = now_ns();
    if (pipe2(pipes, O_CLOEXEC) < 0 || (r->pid = fork()) < 0)
        return -1;
    if (r->pid == 0) {
        int null = open("/dev/null", O_RDONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, STDIN_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        execvp(command[0], command);
        _exit(127);
    }
    close(pipes[1]);
    r->fd = pipes[0];
    return clock_getcpuclockid(r->pid, &r->cpu) ? -1 : 0;
}

static void print_line(const struct run *r, const char *line, int len)
{
    if (len > 0 && line[len - 1] == '\r')
        len--;
    printf("%.2f %.2f|%.*s\n", (now_ns() - r->began) / 1e6, clock_ns(r->cpu) / 1e6, len, line);
    fflush(stdout);
}

/* True when TEXT was there. What was said before a failure goes to standard error. */
static bool wait_for(const struct run *r, const struct options *o)
{
    static char said[1 << 20];
    size_t len = 0, line = 0;
    int64_t deadline = r->began + o->limit_s * 1000000000ll;

    while (len < sizeof(said) - 1) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        int64_t left = (deadline - now_ns()) / 1000000;
        const char *end;
        ssize_t n;

        if (left <= 0 || poll(&p, 1, left) <= 0)
            break;
        n = read(r->fd, said + len, sizeof(said) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += n;
        said[len] = 0;
        while (o->lines && (end = memchr(said + line, '\n', len - line))) {
            print_line(r, said + line, end - (said + line));
            line = end + 1 - said;
        }
        /* With --lines the text's line is printed whole before the end. */
        if (memmem(said, o->lines ? line : len, o->text, strlen(o->text)))
            return true;
    }
    fprintf(stderr, "until: no \"%s\" in:\n%.*s\n", o->text, (int)len, said);
    return false;
}

enum kind { OWN, GUEST, CODE };

/* A mapping's first line in smaps: `start-end perms offset device inode name`. */
static enum kind kind_of(const char *mapping)
{
    char permissions[5] = "";
    unsigned long inode = 0;

    if (strstr(mapping, "memfd:queztl-code"))
        return CODE;
    if (strstr(mapping, "memfd:"))
        return GUEST;
    sscanf(mapping, "%*s %4s %*s %*s %lu", permissions, &inode);
    return permissions[2] == 'x' && inode == 0 && !strchr(mapping, '[') ? CODE : OWN;
}

static void memory(pid_t pid, long kib[3])
{
    enum kind kind = OWN;
    char path[40], line[400];
    long pss;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Pss: %ld", &pss) == 1)
            kib[kind] += pss;
        else if (strspn(line, "0123456789abcdef") >= 8)
            kind = kind_of(line);
    }
    if (f)
        fclose(f);
}

/* The output is read on, so that the program does not stop for a full pipe. */
static double idle_permille(const struct run *r, int seconds)
{
    int64_t began = now_ns(), cpu = clock_ns(r->cpu), end = began + seconds * 1000000000ll, left;
    char skipped[4096];

    while ((left = (end - now_ns()) / 1000000) > 0) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};

        if (poll(&p, 1, left) > 0 && read(r->fd, skipped, sizeof(skipped)) <= 0)
            break;
    }
    return (clock_ns(r->cpu) - cpu) * 1000.0 / (now_ns() - began);
}

static bool run_once(const struct options *o)
{
    struct run r = {.fd = -1};
    long kib[3] = {0};
    bool seen;

    if (start(o->command, &r) < 0) {
        perror("until: start");
        return false;
    }
    seen = wait_for(&r, o);
    if (seen) {
        printf("wall_ms=%.2f cpu_ms=%.2f", (now_ns() - r.began) / 1e6, clock_ns(r.cpu) / 1e6);
        memory(r.pid, kib);
        printf(" own_kib=%ld code_kib=%ld", kib[OWN], kib[CODE]);
        if (o->idle_s) {
            idle_permille(&r, SETTLE_S);
            printf(" idle_permille=%.2f", idle_permille(&r, o->idle_s));
        }
        putchar('\n');
        fflush(stdout);
    }
    kill(r.pid, SIGKILL);
    waitpid(r.pid, NULL, 0);
    close(r.fd);
    return seen;
}

static bool parse(int argc, char **argv, struct options *o)
{
    int at = 1;

    for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
        if (!strcmp(argv[at], "--lines")) {
            o->lines = true;
            continue;
        }
        if (at + 1 == argc)
            return false;
        if (!strcmp(argv[at], "--runs"))
            o->runs = atoi(argv[++at]);
        else if (!strcmp(argv[at], "--limit"))
            o->limit_s = atoi(argv[++at]);
        else if (!strcmp(argv[at], "--idle"))
            o->idle_s = atoi(argv[++at]);
        else
            return false;
    }
    if (argc < at + 3 || strcmp(argv[at + 1], "--"))
        return false;
    o->text = argv[at];
    o->command = argv + at + 2;
    return true;
}

/*
 * What is told is when a line came, not when a busy host got round to running us: before everybody
 * else, where that is allowed (it needs privileges; without them the times are late by as much as
 * we wait). The program that is watched is not.
 */
static void come_first(void)
{
    const struct sched_param lowest = {.sched_priority = 1};

    sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest);
}

int main(int argc, char **argv)
{
    struct options o = {.runs = 1, .limit_s = 300};

    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: until [--runs N] [--limit SECONDS] [--lines] [--idle SECONDS] TEXT "
                        "-- COMMAND...\n");
        return 2;
    }
    come_first();
    for (int i = 0; i < o.runs; i++) {
        if (!run_once(&o))
            return 1;
    }
    return 0;
}

/*
 * clones.c - runs a program that begins clones, and tells when each said something and what it
 * costs when it idles.
 *
 * clones COUNT FOLDER IDLE -- COMMAND...
 *
 * COMMAND is `queztl-hv clone --folder FOLDER`. A line of KEY=VALUE words is printed, then the
 * clones are killed:
 *
 * - first_ms, p50_ms, all_ms: from exec to a byte on the first clone's console, half of them, all
 * of them.
 * - private_kib, private_max_kib: memory that is one clone's alone (Private_Clean and Private_Dirty
 * of smaps_rollup), after IDLE seconds; mean, and the largest.
 * - pss_kib: the same with a share of what they have together, mean.
 * - faulted_kib: pages that one touched for the first time since it was started, mean.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLONES_MAX = 1000, LIMIT_S = 60, PAGE_KIB = 4 };

struct clones {
    unsigned count, replied;
    char console[CLONES_MAX][64]; /* those that said something, in this order */
    double ms[CLONES_MAX];
    pid_t pid[CLONES_MAX];
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static pid_t start(char **command, int *output)
{
    int pipes[2];
    pid_t pid;

    if (pipe(pipes) < 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        execvp(command[0], command);
        _exit(127);
    }
    close(pipes[1]);
    *output = pipes[0];
    return pid;
}

static void said(struct clones *c, const char *console, int64_t began)
{
    const char *suffix = strrchr(console, '.');

    if (!suffix || strcmp(suffix, ".console"))
        return;
    for (unsigned i = 0; i < c->replied; i++)
        if (!strcmp(c->console[i], console))
            return;
    snprintf(c->console[c->replied], sizeof(c->console[0]), "%s", console);
    c->ms[c->replied++] = (now_ns() - began) / 1e6;
}

/* False when the time is over first. */
static bool wait_for_all(struct clones *c, int watch, int64_t began)
{
    static char buffer[1 << 16] __attribute__((aligned(8)));
    const int64_t limit = began + LIMIT_S * 1000000000ll;

    while (c->replied < c->count) {
        struct pollfd p = {.fd = watch, .events = POLLIN};
        const int64_t left = (limit - now_ns()) / 1000000;
        ssize_t n;

        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            return false;
        n = read(watch, buffer, sizeof(buffer));
        for (ssize_t at = 0; at < n && c->replied < c->count;) {
            const struct inotify_event *e = (const void *)(buffer + at);

            said(c, e->name, began);
            at += (ssize_t)(sizeof(*e) + e->len);
        }
    }
    return true;
}

/* NAME, process and socket of each. */
static unsigned read_list(struct clones *c, int output)
{
    FILE *f = fdopen(output, "r");
    char line[512];
    unsigned n = 0;

    while (n < c->count && fgets(line, sizeof(line), f))
        n += sscanf(line, "%*s %d", &c->pid[n]) == 1;
    fclose(f);
    return n;
}

/* The sum of the KiB that lines beginning with these words tell. */
static long sum_of(pid_t pid, const char *word, const char *other)
{
    char path[64], line[200];
    long sum = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, word, strlen(word)) || (other && !strncmp(line, other, strlen(other))))
            sum += atol(strchr(line, ':') + 1);
    if (f)
        fclose(f);
    return sum;
}

static long faults(pid_t pid)
{
    char path[64], line[1024] = "";
    long minor = 0, major = 0;
    const char *rest;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (f && fgets(line, sizeof(line), f) && (rest = strrchr(line, ')')))
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %ld %*u %ld", &minor, &major);
    if (f)
        fclose(f);
    return minor + major;
}

static void tell(const struct clones *c, unsigned listed)
{
    long private = 0, largest = 0, pss = 0, faulted = 0;

    for (unsigned i = 0; i < listed; i++) {
        const long own = sum_of(c->pid[i], "Private_Clean:", "Private_Dirty:");

        private += own;
        largest = own > largest ? own : largest;
        pss += sum_of(c->pid[i], "Pss:", NULL);
        faulted += faults(c->pid[i]) * PAGE_KIB;
    }
    printf("first_ms=%.2f p50_ms=%.2f all_ms=%.2f private_kib=%ld private_max_kib=%ld pss_kib=%ld "
           "faulted_kib=%ld\n",
           c->ms[0], c->ms[(c->count - 1) / 2], c->ms[c->count - 1], private / listed, largest,
           pss / listed, faulted / listed);
}

static int run(struct clones *c, const char *folder, unsigned idle_s, char **command)
{
    const int watch = inotify_init1(IN_CLOEXEC);
    const int64_t began = now_ns();
    unsigned listed;
    int output, status;
    bool all;
    pid_t pid;

    if (watch < 0 || inotify_add_watch(watch, folder, IN_MODIFY) < 0 ||
        (pid = start(command, &output)) < 0) {
        perror(folder);
        return 1;
    }
    all = wait_for_all(c, watch, began);
    listed = read_list(c, output);
    waitpid(pid, &status, 0);
    if (all && listed == c->count) {
        sleep(idle_s);
        tell(c, listed);
    } else {
        fprintf(stderr, "clones: %u of %u said something, %u are listed\n", c->replied, c->count,
                listed);
    }
    for (unsigned i = 0; i < listed; i++)
        kill(c->pid[i], SIGKILL);
    return all && listed == c->count ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct clones c;

    if (argc < 6 || strcmp(argv[4], "--") || (c.count = (unsigned)atoi(argv[1])) == 0 ||
        c.count > CLONES_MAX) {
        fprintf(stderr, "usage: clones COUNT FOLDER IDLE -- COMMAND...\n");
        return 2;
    }
    return run(&c, argv[2], (unsigned)atoi(argv[3]), argv + 5);
}

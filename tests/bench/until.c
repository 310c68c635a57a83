/*
 * until.c - times a program from its start until it has said something.
 *
 * until [--runs N] TEXT -- COMMAND...   prints one line for each run: milliseconds (exec to TEXT on
 * standard output or error) and the KiB that are resident then and not guest memory (a memfd). The
 * program is killed after that. Exit code 1 when it ends, or 300 s are over, without having said
 * TEXT.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

enum { LIMIT_MS = 300000 };

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static pid_t start(char **command, int *out)
{
    int pipes[2];
    pid_t pid;

    if (pipe2(pipes, O_CLOEXEC) < 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, STDIN_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        execvp(command[0], command);
        _exit(127);
    }
    close(pipes[1]);
    *out = pipes[0];
    return pid;
}

/* Nanoseconds when TEXT was there, or -1. What was said before a failure goes to standard error. */
static int64_t wait_for(int fd, const char *text)
{
    static char said[1 << 20];
    size_t len = 0;
    int64_t deadline = now_ns() + LIMIT_MS * 1000000ll;

    while (len < sizeof(said) - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = (deadline - now_ns()) / 1000000;
        ssize_t n;

        if (left <= 0 || poll(&p, 1, left) <= 0)
            break;
        n = read(fd, said + len, sizeof(said) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += n;
        said[len] = 0;
        if (memmem(said, len, text, strlen(text)))
            return now_ns();
    }
    fprintf(stderr, "until: no \"%s\" in:\n%.*s\n", text, (int)len, said);
    return -1;
}

/* Resident KiB of mappings that are no memfd. */
static long own_kib(pid_t pid)
{
    char path[40], line[400];
    bool guest = false;
    long sum = 0, kib;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    f = fopen(path, "re");
    if (!f)
        return -1;
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Rss: %ld", &kib) == 1)
            sum += guest ? 0 : kib;
        else if (strspn(line, "0123456789abcdef") >= 8)
            guest = strstr(line, "memfd:") != NULL;
    }
    fclose(f);
    return sum;
}

int main(int argc, char **argv)
{
    int runs = 1, at = 1;

    if (argc > 2 && !strcmp(argv[1], "--runs")) {
        runs = atoi(argv[2]);
        at = 3;
    }
    if (argc < at + 3 || strcmp(argv[at + 1], "--")) {
        fprintf(stderr, "usage: until [--runs N] TEXT -- COMMAND...\n");
        return 2;
    }
    for (int i = 0; i < runs; i++) {
        int64_t began = now_ns(), seen;
        long kib;
        int fd = -1;
        pid_t pid = start(argv + at + 2, &fd);

        if (pid < 0)
            return 1;
        seen = wait_for(fd, argv[at]);
        kib = own_kib(pid);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(fd);
        if (seen < 0)
            return 1;
        printf("%.2f %ld\n", (seen - began) / 1e6, kib);
        fflush(stdout);
    }
    return 0;
}

/*
 * program.c - workloads that are programs of busybox on small files in memory.
 *
 * The files are in a fresh folder under /dev/shm, or /tmp where that is missing; they are made
 * before the first workload that needs them and removed at the end. Each run of a program takes 5
 * to 30 ms on hardware, so that starting it does not count much.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

extern char **environ;

static char folder[64];
static const char *const files[] = {"data", "data.gz", "lines", "out"};

void spawn_and_wait(const char *const argv[], bool quiet)
{
    posix_spawn_file_actions_t actions;
    int status;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    if (quiet)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    errno = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    if (errno)
        die(argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            die("waitpid");
    }
    if (status) {
        errno = ECHILD;
        die(argv[1] ? argv[1] : argv[0]);
    }
}

static void remove_files(void)
{
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        unlink(files[i]);
    if (chdir("/") == 0)
        rmdir(folder);
}

/* `data`: 1 MiB of words of a small dictionary, so that it packs as text does; `lines`: 20,000
 * lines of a number and a word. */
static void write_files(void)
{
    static const char *const words[] = {"memory", "page",      "table",  "entry", "frame", "queue",
                                        "ring",   "interrupt", "vector", "a",     "of",    "the"};
    uint64_t seed = 4711, r;
    FILE *data = fopen("data", "we"), *lines = fopen("lines", "we");

    if (!data || !lines)
        die("files to work on");
    while (ftell(data) < 1 << 20) {
        r = next_random(&seed);
        fprintf(data, "%s%s%u", words[r % 12], (r >> 8) % 5 ? " " : "\n",
                (unsigned)((r >> 16) % 7 ? 0 : (r >> 24) & 0xffff));
    }
    for (int i = 0; i < 20000; i++) {
        r = next_random(&seed);
        fprintf(lines, "%u %s\n", (unsigned)(r >> 40), words[r % 12]);
    }
    if (fclose(data) || fclose(lines))
        die("files to work on");
}

static bool have_files(void)
{
    static bool made;

    if (made)
        return true;
    made = true;
    strcpy(folder, "/dev/shm/queztl-bench.XXXXXX");
    if (!mkdtemp(folder)) {
        strcpy(folder, "/tmp/queztl-bench.XXXXXX");
        if (!mkdtemp(folder))
            die(folder);
    }
    if (chdir(folder) < 0)
        die(folder);
    atexit(remove_files);
    write_files();
    spawn_and_wait((const char *const[]){busybox_path, "gzip", "-k", "data", NULL}, true);
    return true;
}

static void repeat(uint64_t n, const char *const argv[])
{
    while (n--)
        spawn_and_wait(argv, true);
}

static void shell_loop(uint64_t n)
{
    repeat(n, (const char *const[]){
                  busybox_path, "sh", "-c",
                  "i=0; s=x; while [ $i -lt 4000 ]; do i=$((i + 1)); s=${s%x}x; done", NULL});
}

static void sha256sum_run(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "sha256sum", "data", NULL});
}

static void md5sum_run(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "md5sum", "data", NULL});
}

static void gzip_run(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "gzip", "-c", "data", NULL});
}

static void gunzip_run(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "gunzip", "-c", "data.gz", NULL});
}

static void sort_run(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "sort", "-n", "lines", NULL});
}

static void awk_run(uint64_t n)
{
    repeat(n, (const char *const[]){
                  busybox_path, "awk",
                  "{ n[$2] += $1; s = s ? substr(s, 2) : $2 } END { for (w in n) print w, n[w] }",
                  "lines", NULL});
}

/* Zeroes of the kernel (REP STOS) to a page of this process and back into a file in memory. */
static void dd_zero(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "dd", "if=/dev/zero", "of=/dev/null", "bs=1M",
                                    "count=64", "status=none", NULL});
}

static void dd_file(uint64_t n)
{
    repeat(n, (const char *const[]){busybox_path, "dd", "if=/dev/zero", "of=out", "bs=4k",
                                    "count=2048", "status=none", NULL});
}

const struct workload program_workloads[] = {
    {"shell-loop", "run", shell_loop, have_files, true},
    {"sha256sum", "MiB", sha256sum_run, have_files, true},
    {"md5sum", "MiB", md5sum_run, have_files, true},
    {"gzip", "MiB", gzip_run, have_files, true},
    {"gunzip", "MiB", gunzip_run, have_files, true},
    {"sort", "20kline", sort_run, have_files, true},
    {"awk", "20kline", awk_run, have_files, true},
    {"dd-zero", "64MiB", dd_zero, have_files, true},
    {"dd-file", "8MiB", dd_file, have_files, true},
    {NULL},
};

/*
 * main.c - the guest benchmark: the same static program runs on the host and in each machine.
 *
 * queztl-bench [--quick] [--seconds S] [--busybox FILE] [--list] [NAME...]
 *
 * Prints a line `NAME VALUE UNIT DONE` for each workload: VALUE nanoseconds for each unit, and
 * DONE, the operations that were made for it. A workload runs in slices of about 5 ms (which is at
 * least one operation), until there are at least three and 0.3 s are over, or S seconds. The
 * fastest slice is what is told: whatever disturbs a slice only makes it longer, and on a busy
 * host short slices are the ones that go undisturbed.
 *
 * A line `queztl-bench at NAME` stands before each measurement, so that who watches from outside
 * can tell what it cost the host. The whole is framed by `queztl-bench begin` and `queztl-bench
 * end SECONDS MHZ`: the seconds between both lines by this machine's clock, and the rate of its
 * time-stamp counter against that clock. Both can be held against a clock outside.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "workload.h"

volatile uint64_t sink;
const char *self_path;
const char *busybox_path;

struct pace {
    uint64_t slice_ns, total_ns;
    int slices;
};

static const struct pace thorough = {5000000, 300000000, 3};
static const struct pace quick = {5000000, 80000000, 2};

_Noreturn void die(const char *what)
{
    fprintf(stderr, "queztl-bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t timed(const struct workload *w, uint64_t n)
{
    uint64_t began = now_ns();

    w->run(n);
    return now_ns() - began;
}

/* done: operations, with those that found the pace. */
static double measure(const struct workload *w, const struct pace *pace, uint64_t *done)
{
    uint64_t n = 1, took = timed(w, n), total = 0;
    double best = 0;

    *done = 1;
    /* At least doubled, at most multiplied by ten: the first runs are slower than those behind
     * them. */
    while (took < pace->slice_ns / 2) {
        uint64_t factor = took ? pace->slice_ns / took : 10;

        n *= factor < 2 ? 2 : factor > 10 ? 10 : factor;
        took = timed(w, n);
        *done += n;
    }
    for (int i = 0; i < pace->slices || total < pace->total_ns; i++) {
        took = timed(w, n);
        *done += n;
        total += took;
        if (i == 0 || (double)took / n < best)
            best = (double)took / n;
    }
    return best;
}

static bool wanted(const struct workload *w, char *const *names)
{
    if (!*names)
        return true;
    for (; *names; names++) {
        if (!strcmp(*names, w->name))
            return true;
    }
    return false;
}

static void run_list(const struct workload *w, const struct pace *pace, char *const *names)
{
    for (; w->name; w++) {
        uint64_t done;
        double ns;

        if (!wanted(w, names))
            continue;
        if (w->program && !busybox_path)
            printf("%s skipped: no busybox\n", w->name);
        else if (w->usable && !w->usable())
            printf("%s skipped: this CPU lacks it\n", w->name);
        else {
            printf("queztl-bench at %s\n", w->name);
            ns = measure(w, pace, &done);
            printf("%s %.4g ns/%s %llu\n", w->name, ns, w->unit, (unsigned long long)done);
        }
    }
}

static const struct workload *const lists[] = {integer_workloads, vector_workloads,
                                               kernel_workloads, program_workloads};

int main(int argc, char **argv)
{
    struct pace pace = thorough;
    uint64_t began, began_tsc, took;
    bool list = false;
    int at = 1;

    if (argc == 2 && !strcmp(argv[1], "--nothing")) /* what vfork-exec starts */
        return 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    self_path = "/proc/self/exe";
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (!strcmp(argv[at], "--quick")) {
            pace = quick;
        } else if (!strcmp(argv[at], "--list")) {
            list = true;
        } else if (!strcmp(argv[at], "--seconds") && at + 1 < argc) {
            pace.total_ns = (uint64_t)(atof(argv[++at]) * 1e9);
        } else if (!strcmp(argv[at], "--busybox") && at + 1 < argc) {
            busybox_path = argv[++at];
        } else {
            fprintf(stderr, "usage: queztl-bench [--quick] [--seconds S] [--busybox FILE] [--list] "
                            "[NAME...]\n");
            return 2;
        }
    }
    if (list) {
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
            for (const struct workload *w = lists[i]; w->name; w++)
                puts(w->name);
        }
        return 0;
    }
    puts("queztl-bench begin");
    began = now_ns();
    began_tsc = __rdtsc();
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        run_list(lists[i], &pace, argv + at);
    took = now_ns() - began;
    printf("queztl-bench end %.4f s %.2f MHz\n", took / 1e9, (__rdtsc() - began_tsc) * 1e3 / took);
    return 0;
}

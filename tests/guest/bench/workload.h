/*
 * workload.h - what the guest benchmark measures.
 *
 * A workload does `n` operations and knows nothing of time: main.c chooses n and holds the clock.
 * Results are left in `sink`, so that the compiler cannot leave work out. A workload that cannot go
 * on ends the program by die().
 */
#ifndef GUEST_BENCH_WORKLOAD_H
#define GUEST_BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct workload {
    const char *name;
    const char *unit;        /* of what is printed: nanoseconds for each `unit` */
    void (*run)(uint64_t n); /* does n operations */
    bool (*usable)(void);    /* NULL: everywhere */
    bool program;            /* runs programs of busybox; left out without it */
};

/* Each list ends with an empty name. */
extern const struct workload integer_workloads[];
extern const struct workload vector_workloads[];
extern const struct workload kernel_workloads[];
extern const struct workload program_workloads[];

extern volatile uint64_t sink;

/* Says what failed with errno's text, and ends the program with 1. */
_Noreturn void die(const char *what);

/* The path of this program and of busybox (NULL: there is none). */
extern const char *self_path;
extern const char *busybox_path;

/* Starts a program by vfork and exec, its output to /dev/null when `quiet`, and waits for it; it
 * must end with 0. */
void spawn_and_wait(const char *const argv[], bool quiet);

/* A small generator of numbers that are the same in every run (xorshift, Marsaglia 2003). */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

#endif

/*
 * load.c - 4 KiB requests at random, 32 at once, from one thread, over vhost-user-blk or NBD.
 *
 *     disk_load vhost|nbd SOCKET read|write SECONDS|once=BYTES
 *
 * once=65536: one request in each 64 KiB of the disk, in an order that jumps. Prints
 * `iops=N fast=N p50_us=N p99_us=N requests=N`; `fast` is of the quickest of many short slices.
 */
#include "load.h"
#include <inttypes.h>

static uint64_t random_number(struct load *l)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random;
}

void load_start(struct load *l, uint64_t disk_bytes)
{
    l->random = 88172645463325252;
    l->pieces = disk_bytes / (l->once ? l->once : LOAD_BLOCK);
    l->start = qz_now_ns();
    l->until = l->start + (int64_t)(l->seconds * 1e9);
}

/* Visits each of n pieces once: the step is a prime. */
static uint64_t jump(uint64_t i, uint64_t n)
{
    return (uint64_t)((unsigned __int128)i * 2654435761u % n);
}

bool load_next(struct load *l, unsigned tag, uint64_t *offset)
{
    if (l->once ? l->begun == l->pieces : l->begun % 64 == 0 && qz_now_ns() >= l->until)
        return false;
    l->began[tag] = qz_now_ns();
    if (l->once)
        *offset = jump(l->begun, l->pieces) * l->once +
                  random_number(l) % (l->once / LOAD_BLOCK) * LOAD_BLOCK;
    else
        *offset = random_number(l) % l->pieces * LOAD_BLOCK;
    l->begun++;
    return true;
}

void load_ended(struct load *l, unsigned tag)
{
    int64_t now = qz_now_ns(), ns = now - l->began[tag];
    int64_t slice = (now - l->start) / LOAD_SLICE_NS;

    if (slice < LOAD_SLICES)
        l->slice[slice]++;
    l->latency[l->ended++ % LOAD_LATENCIES] = (uint32_t)QZ_MIN(ns, (int64_t)UINT32_MAX);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

void load_stop(struct load *l)
{
    l->spent_ns = qz_now_ns() - l->start;
}

double load_fast(struct load *l)
{
    int64_t n = QZ_MIN(l->spent_ns / LOAD_SLICE_NS, (int64_t)LOAD_SLICES); /* whole ones */

    if (n < 10)
        return (double)l->ended * 1e9 / (double)l->spent_ns;
    qsort(l->slice, (size_t)n, sizeof(l->slice[0]), by_size);
    return l->slice[n - 1] * 1e9 / LOAD_SLICE_NS;
}

static bool parse(int argc, char **argv, struct load *l)
{
    if (argc != 5)
        return false;
    l->socket = argv[2];
    l->write = !strcmp(argv[3], "write");
    if (!strncmp(argv[4], "once=", 5))
        l->once = strtoull(argv[4] + 5, NULL, 10);
    else
        l->seconds = atof(argv[4]);
    return (l->write || !strcmp(argv[3], "read")) &&
           (l->seconds > 0 || (l->once >= LOAD_BLOCK && l->once % LOAD_BLOCK == 0));
}

int main(int argc, char **argv)
{
    static struct load l;
    struct qz_error err = {0};
    uint64_t n;

    if (!parse(argc, argv, &l) || (strcmp(argv[1], "vhost") && strcmp(argv[1], "nbd"))) {
        fputs("usage: disk_load vhost|nbd SOCKET read|write SECONDS|once=BYTES\n", stderr);
        return 2;
    }
    if ((!strcmp(argv[1], "nbd") ? load_nbd : load_vhost)(&l, &err) < 0) {
        fprintf(stderr, "disk_load: %s\n", err.text);
        return 1;
    }
    n = QZ_MIN(l.ended, (uint64_t)LOAD_LATENCIES);
    qsort(l.latency, n, sizeof(l.latency[0]), by_size);
    printf("iops=%.0f fast=%.0f p50_us=%.1f p99_us=%.1f requests=%" PRIu64 "\n",
           (double)l.ended * 1e9 / (double)l.spent_ns, load_fast(&l), l.latency[n / 2] / 1e3,
           l.latency[n * 99 / 100] / 1e3, l.ended);
    return 0;
}

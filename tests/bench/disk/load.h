/* load.h - which blocks are asked for, and what it took: shared by the two transports. */
#ifndef BENCH_DISK_LOAD_H
#define BENCH_DISK_LOAD_H

#include <queztl/base.h>

enum {
    LOAD_BLOCK = 4096,
    LOAD_DEPTH = 32,
    LOAD_LATENCIES = 1 << 16,
    LOAD_SLICES = 4096,
    LOAD_SLICE_NS = 10000000,
};

struct load {
    const char *socket;
    bool write;
    double seconds;  /* at random everywhere for so long */
    uint64_t once;   /* or once in each piece of so many bytes, at a random place in it */
    uint64_t pieces; /* of the disk */
    uint64_t random, begun, ended;
    int64_t start, until, spent_ns;
    int64_t began[LOAD_DEPTH];
    uint32_t slice[LOAD_SLICES];      /* requests that ended in each 10 ms */
    uint32_t latency[LOAD_LATENCIES]; /* ns, of the last ones */
};

void load_start(struct load *l, uint64_t disk_bytes);
/* The offset for request number `tag`; false: no more. */
bool load_next(struct load *l, unsigned tag, uint64_t *offset);
void load_ended(struct load *l, unsigned tag);
/* When the last one has ended. */
void load_stop(struct load *l);
/* Requests a second in the slice that a busy host disturbed least. */
double load_fast(struct load *l);

int load_vhost(struct load *l, struct qz_error *err);
int load_nbd(struct load *l, struct qz_error *err);

#endif

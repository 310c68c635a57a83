/*
 * stats.c - reading the counters of a queue.
 */
#include "stats.h"

void qz_vblk_get_stats(const struct vblk_queue *q, struct vblk_stats *s)
{
    *s = q->stats;
}

void qz_vblk_clear_stats(struct vblk_queue *q)
{
    q->stats = (struct vblk_stats){0};
}

/* The longest latency that a bucket holds. */
static uint64_t bucket_top(unsigned bucket)
{
    unsigned octave = bucket / 8 + 2;

    if (bucket < 8)
        return bucket;
    return ((UINT64_C(9) + bucket % 8) << (octave - 3)) - 1;
}

uint64_t qz_vblk_latency(const struct vblk_stats *s, unsigned per_mille)
{
    uint64_t total = 0, seen = 0, want;

    for (unsigned i = 0; i < VBLK_LATENCY_BUCKETS; i++)
        total += s->latency[i];
    want = (total * per_mille + 999) / 1000;
    for (unsigned i = 0; i < VBLK_LATENCY_BUCKETS; i++) {
        seen += s->latency[i];
        if (seen >= want && seen)
            return i == VBLK_LATENCY_BUCKETS - 1 || bucket_top(i) > s->latency_max_ns
                       ? s->latency_max_ns
                       : bucket_top(i);
    }
    return 0;
}

/*
 * stats.h - counting on the I/O path.
 */
#ifndef VBLK_STATS_H
#define VBLK_STATS_H

#include "request.h"

/*
 * Latency buckets are logarithmic with 8 steps an octave: the top three bits below the leading one
 * choose the step. 256 buckets reach beyond 2^33 ns; what is longer is in the last.
 */
static inline unsigned latency_bucket(uint64_t ns)
{
    unsigned octave, bucket;

    if (ns < 8)
        return (unsigned)ns;
    octave = 63 - __builtin_clzll(ns);
    bucket = (octave - 2) * 8 + ((ns >> (octave - 3)) & 7);
    return bucket < VBLK_LATENCY_BUCKETS ? bucket : VBLK_LATENCY_BUCKETS - 1;
}

static inline void stats_latency(struct vblk_stats *s, uint64_t ns)
{
    s->latency[latency_bucket(ns)]++;
    s->latency_sum_ns += ns;
    if (ns > s->latency_max_ns)
        s->latency_max_ns = ns;
}

static inline void stats_submitted(struct vblk_queue *q, unsigned n)
{
    q->stats.batches += n != 0;
    q->stats.occupancy_sum += (uint64_t)n * q->in_flight;
    if (q->in_flight > q->stats.occupancy_max)
        q->stats.occupancy_max = q->in_flight;
}

static inline void stats_polled(struct vblk_queue *q, unsigned n)
{
    q->stats.polls++;
    q->stats.empty_polls += n == 0;
    q->stats.requests += n;
}

static inline void stats_completed(struct vblk_queue *q, const struct vblk_request *r)
{
    enum data_kind kind = data_kind(r->op);

    if (__builtin_expect(r->status != 0, 0)) {
        q->stats.errors++;
        return;
    }
    if (kind == DATA_IN)
        q->stats.bytes_read += r->count == 1 ? r->segment.len : request_bytes(r);
    else if (kind == DATA_OUT)
        q->stats.bytes_written += r->count == 1 ? r->segment.len : request_bytes(r);
}

#endif

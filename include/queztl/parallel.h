/*
 * parallel.h - a handful of jobs on a handful of threads, made for the call and gone after it.
 */
#ifndef QUEZTL_PARALLEL_H
#define QUEZTL_PARALLEL_H

#include <queztl/base.h>

enum { QZ_WORKERS_MAX = 4 };

/* How many threads of this process can run at once, QZ_WORKERS_MAX at most. */
unsigned qz_parallel_workers(void);
/*
 * Calls job(context, worker, i, err) for i below `jobs`, begun in rising order, at most
 * QZ_WORKERS_MAX at a time; worker (below qz_parallel_workers()) is never used by two jobs at once.
 * The calling thread is worker 0, so that it also works where no thread can be made. After a
 * failure no further job begins; the first one is returned. progress, on the calling thread, may be
 * NULL.
 */
int qz_parallel(uint64_t jobs,
                int (*job)(void *context, unsigned worker, uint64_t i, struct qz_error *err),
                void *context, void (*progress)(void *context, double share),
                void *progress_context, struct qz_error *err);

#endif

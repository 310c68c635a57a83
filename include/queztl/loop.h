/*
 * loop.h - an event loop over epoll: descriptors, timers, and work posted from other threads.
 *
 * One loop belongs to one thread: the one that calls qz_loop_run(). All callbacks run on it, one at
 * a time. Only qz_loop_post() and qz_loop_stop() may be called from other threads (after the loop
 * was created, before it is freed); everything else from the loop's own thread, or before it runs.
 */
#ifndef QUEZTL_LOOP_H
#define QUEZTL_LOOP_H

#include <queztl/base.h>
#include <sys/epoll.h>

struct qz_loop;

/* A watched descriptor. Owned by the caller (embedded in its structure); the fd is not closed here.
 */
struct qz_watch {
    int fd;
    void (*ready)(struct qz_watch *w, uint32_t events); /* events: EPOLLIN, EPOLLOUT, EPOLLHUP... */
    struct qz_loop *loop;                               /* NULL while not added */
    uint32_t events;
};

/* A one-shot timer, owned by the caller; re-arm it from its own callback for a period. */
struct qz_timer {
    void (*fire)(struct qz_timer *t);
    struct qz_loop *loop; /* NULL while not armed */
    int64_t deadline_ns;  /* CLOCK_MONOTONIC */
    struct qz_timer *next, **pprev;
};

/* A piece of work posted to a loop, owned by the caller; may be posted again once `run` was
 * entered. */
struct qz_work {
    void (*run)(struct qz_work *w);
    struct qz_work *next;
    int queued; /* atomic */
};

int qz_loop_new(struct qz_loop **loop, struct qz_error *err);
void qz_loop_free(struct qz_loop *loop);

/* Runs until qz_loop_stop(); returns the code given there, or a negative errno of epoll itself. */
int qz_loop_run(struct qz_loop *loop);
/* Handles what is ready now, waiting at most timeout_ms (-1: without bound). For tests and
 * nesting-free use. */
int qz_loop_once(struct qz_loop *loop, int timeout_ms);
void qz_loop_stop(struct qz_loop *loop, int code);

int qz_loop_add(struct qz_loop *loop, struct qz_watch *w, int fd, uint32_t events,
                void (*ready)(struct qz_watch *w, uint32_t events));
int qz_loop_modify(struct qz_watch *w, uint32_t events);
/* Safe from any callback, also for a watch whose event was already collected in this round. */
void qz_loop_remove(struct qz_watch *w);

void qz_timer_arm(struct qz_loop *loop, struct qz_timer *t, int64_t deadline_ns,
                  void (*fire)(struct qz_timer *t));
void qz_timer_cancel(struct qz_timer *t);

/* Queues w to run on the loop's thread; a work that is queued already is not queued twice. Any
 * thread. */
void qz_loop_post(struct qz_loop *loop, struct qz_work *w, void (*run)(struct qz_work *w));
/* Something waits to be handled, or does so within timeout_ms. From a posted work. */
bool qz_loop_pending(struct qz_loop *loop, int timeout_ms);
/* True on the loop's own thread while it runs. */
bool qz_loop_is_current(const struct qz_loop *loop);

#endif

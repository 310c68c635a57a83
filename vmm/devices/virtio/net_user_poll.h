/*
 * net_user_poll.h - libslirp's descriptors and timers on the event loop; a part of net_user.c.
 *
 * The one opaque pointer that libslirp hands to every callback is the struct user_poll. All on the
 * loop's thread.
 */
#ifndef VMM_NET_USER_POLL_H
#define VMM_NET_USER_POLL_H

#include <queztl/loop.h>
#include <slirp/libslirp.h>

struct user_fd;

struct user_poll {
    Slirp *slirp;
    struct qz_loop *loop;
    /* After libslirp was told what happened to its descriptors. */
    void (*round_done)(struct user_poll *p);
    bool running;
    int64_t told_ns; /* when libslirp was last told, which is what time it takes it to be */
    bool deaf;       /* sockets are left alone: their frames would have no place */

    struct qz_work work;
    struct qz_timer timer;
    struct user_fd **fd; /* by descriptor */
    int fds;
    unsigned known; /* descriptors that libslirp has open */
    unsigned limit; /* of these; no connection is accepted beyond it */
};

/* Fills in the callbacks for time, timers and descriptors. */
void user_poll_callbacks(SlirpCb *cb);
/* Every descriptor that libslirp has at this moment is a forwarded port's socket: at the limit
 * those are left alone. */
void user_poll_listeners(struct user_poll *p);
void user_poll_start(struct user_poll *p);
void user_poll_stop(struct user_poll *p); /* nothing is watched until the next start */
/* Before libslirp is given a frame of the guest's: it goes by the time of what was told last, and
 * would take a flow that begins after a silence of minutes for an old one, and end it. */
void user_poll_now(struct user_poll *p);
/* libslirp has something to do: it, and round_done(), get their turn in this round of the loop. */
void user_poll_soon(struct user_poll *p);
void user_poll_set_deaf(struct user_poll *p, bool deaf);
void user_poll_free(struct user_poll *p); /* after slirp_cleanup() */

#endif

/*
 * test_server.h - a vhost-user-blk server for tests: split and packed rings over the simulated
 * device's rings, a disk in a file that outlives it. It runs in a child process, so that it can be
 * killed.
 */
#ifndef VBLK_TEST_SERVER_H
#define VBLK_TEST_SERVER_H

#include <queztl/base.h>

struct test_server {
    const char *socket; /* where it listens */
    int disk;           /* a file or memfd of `sectors` sectors */
    uint64_t sectors, features;
    unsigned queues;
    bool inflight; /* keeps an in-flight buffer, so that its successor goes on */
    bool reorder;  /* takes several requests and serves them in another order */
};

/* Listens, then forks; returns the child's process id, or a negative errno. */
pid_t test_server_start(const struct test_server *s);

#endif

/*
 * qsd.h - for tests and measurements: a qemu-storage-daemon of one's own, started, killed, ended.
 */
#ifndef VBLK_QSD_H
#define VBLK_QSD_H

#include <queztl/base.h>

struct qsd {
    pid_t pid;
    char dir[64]; /* a new directory with what belongs to it; removed at the end */
    char socket[96];
    char image[96]; /* the raw file; empty: a null device */
    unsigned queues;
};

/* Fails when this machine has no qemu-storage-daemon. image_bytes 0: a null device of 1 GiB. */
int qsd_start(struct qsd *q, uint64_t image_bytes, unsigned queues, struct qz_error *err);
/* Kills it without warning, and starts another on the same file and socket. */
void qsd_kill(struct qsd *q);
int qsd_restart(struct qsd *q, struct qz_error *err);
/* Ends it and removes its directory. */
void qsd_end(struct qsd *q);

#endif

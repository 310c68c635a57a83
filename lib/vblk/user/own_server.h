/*
 * own_server.h - for tests and measurements: our own vhost-user-blk server (lib/disk) in a process
 * of its own, which can be killed.
 */
#ifndef VBLK_OWN_SERVER_H
#define VBLK_OWN_SERVER_H

#include <queztl/base.h>

struct own_server {
    pid_t pid;
    char dir[64]; /* a new directory with what belongs to it; removed at the end */
    char socket[96];
    char image[96]; /* the raw file; empty: memory */
    char disk[160]; /* what qz_disk_open() is given */
    unsigned queues;
};

/* image_bytes 0: a memory disk of 256 MiB, gone with the process. options: of the raw file's disk,
 * such as ",readonly". */
int own_server_start(struct own_server *o, uint64_t image_bytes, unsigned queues,
                     const char *options, struct qz_error *err);
/* Kills it without warning. */
void own_server_kill(struct own_server *o);
/* Another on the same file and socket. */
int own_server_restart(struct own_server *o, struct qz_error *err);
/* Ends it and removes its directory. */
void own_server_end(struct own_server *o);

#endif

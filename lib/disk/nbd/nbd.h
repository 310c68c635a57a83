/*
 * nbd.h - the NBD server, inside (the protocol: NBD's doc/proto.md).
 *
 * Theory of operation. Each connection has a thread with a queue of its own. It negotiates
 * (negotiate.c), then reads requests as they come, hands them to the disk, and sends what is done
 * in batches (transmit.c). How much one connection may have in flight is bounded in requests and in
 * bytes: beyond that nothing more is read from it.
 */
#ifndef DISK_NBD_NBD_H
#define DISK_NBD_NBD_H

#include "../disk_internal.h"

enum {
    NBD_MAX_REQUEST = 32 << 20, /* bytes; what clients may count on */
    NBD_MAX_BYTES = 64 << 20,   /* in flight, of one connection */
    NBD_MAX_REQUESTS = 256,
    NBD_MAX_OPTION = 64 << 10,
    NBD_MAX_EXTENTS = 1024, /* in one block status reply */
    NBD_CONTEXT_ALLOCATION = 1,
};

struct nbd_server;

struct nbd_connection {
    struct nbd_server *server;
    struct nbd_connection *next;
    pthread_t thread;
    bool ended; /* atomic: the thread may be joined */
    int fd;
    struct disk_queue *q;
    bool structured, allocation, no_zeroes;
};

struct nbd_server {
    struct qz_disk *disk;
    struct layer *top;
    char *name; /* of the export */
    int listen_fd, stop_fd;
    pthread_t thread;
    struct nbd_connection *connections; /* of the accepting thread */
    unsigned count;
};

/* Transmission flags of the export. */
uint16_t nbd_flags(const struct nbd_server *s);

/* 0: go on to transmission; a negative errno: the connection ends. */
int nbd_negotiate(struct nbd_connection *c);
/* Serves requests until the client or the server ends the connection. */
void nbd_transmit(struct nbd_connection *c);

/* Whole lengths, with an eye on the server's end; 0 or a negative errno. */
int nbd_read(struct nbd_connection *c, void *bytes, size_t n);
int nbd_write(struct nbd_connection *c, const void *bytes, size_t n);

#endif

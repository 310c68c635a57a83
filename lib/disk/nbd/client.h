/*
 * client.h - a disk on an NBD server (client.c), and its connections (link.c).
 *
 * Theory of operation. A disk has one connection, or where the server says that several are one
 * (multi-conn) as many as the disk was opened with; a queue uses the one of its index. A connection
 * belongs to no thread: whoever submits a request or sees the socket ready takes its lock, moves it
 * on (link_pump()) and then, without the lock, ends what is done, each request on its own queue. A
 * connection that breaks takes its requests back, in order, and is made again for as long as
 * `reconnect` says; then they fail. All requests of NBD may be repeated.
 */
#ifndef DISK_NBD_CLIENT_H
#define DISK_NBD_CLIENT_H

#include <pthread.h>
#include <sys/socket.h>

#include "layer.h"
#include "libnbd.h"
#include "queue.h"

enum { NBD_LINKS_MAX = 16, PIECE_MAX = 16 << 20, BOUNCE_MAX = 1 << 20 };

struct link;

/* A request on its way; from its queue's blocks. */
struct call {
    struct call *next;
    struct request *r;
    struct disk_queue *q;
    struct link *link;
    struct queue_work work;
    uint8_t *bounce;          /* for requests of several vectors, and zeroes written by hand */
    uint64_t progress, piece; /* bytes done, and being done */
    int result;
    bool answered; /* libnbd is done with the piece */
    bool flushing; /* the flush behind a write that had to be durable */
};
_Static_assert(sizeof(struct call) <= QUEUE_BLOCK, "must fit");

struct calls {
    struct call *first, *last;
};

/* What a queue's ring watches for a link. */
struct watch {
    struct queue_io io;
    struct lane *lane;
    bool armed;
    unsigned generation; /* of the connection that it was armed for */
};
struct lane {
    uint64_t queue; /* queue_id(); others' remains are forgotten */
    struct disk_queue *q;
    struct link *link;
    struct watch in, out;
    struct alarm {
        struct queue_timer timer;
        struct lane *lane;
        bool armed;
    } retry, patience; /* until the next try, and until there are no more */
};

struct link {
    pthread_mutex_t lock;
    struct nbd_disk *disk;
    struct nbd_handle *h; /* NULL: no connection */
    bool up;              /* greeted; else it is being made */
    bool lost;            /* given up once, and not up since */
    unsigned generation;
    int64_t next_try_ns, give_up_ns; /* give_up_ns: while there is no connection; 0: nobody waits */
    struct calls waiting, issued, ended;
    struct lane lane[DISK_QUEUES_MAX];
};

struct nbd_disk {
    struct layer l;
    char *export_name;
    struct sockaddr_storage address; /* of the server: names are not looked up again */
    socklen_t address_length;
    int64_t reconnect_ns;
    bool can_flush, can_fua, can_trim, can_zero, unsafe, no_discard;
    uint64_t piece_max;
    struct link *link[NBD_LINKS_MAX];
    unsigned links;
};

/* ---- link.c */
struct link *link_new(struct nbd_disk *d);
void link_free(struct link *k); /* nothing in flight */
/* Connected: how long a silent server may be waited for. */
void link_set_patience(struct link *k);
/* Takes a call; on its queue's thread. */
void link_submit(struct link *k, struct call *c);

/* ---- client.c: link's lock held */
/* Gives the call's next piece to libnbd: 0, 1 when there was nothing to ask the server, or a
 * negative errno. */
int call_issue(struct call *c, struct nbd_handle *h);
/* The piece is done; true: all of it is. */
bool call_advance(struct call *c);
/* On the call's own queue, without locks. */
void call_end(struct call *c);

#endif

/* job.h - one request of an NBD client on its way through (transmit.c, reply.c). */
#ifndef DISK_NBD_JOB_H
#define DISK_NBD_JOB_H

#include "nbd.h"

enum nbd_command {
    CMD_READ,
    CMD_WRITE,
    CMD_DISC,
    CMD_FLUSH,
    CMD_TRIM,
    CMD_CACHE,
    CMD_WRITE_ZEROES,
    CMD_BLOCK_STATUS,
};
enum { CMD_FLAG_FUA = 1, CMD_FLAG_NO_HOLE = 2, CMD_FLAG_REQ_ONE = 8, CMD_FLAG_FAST_ZERO = 16 };

enum { RX_BYTES = 128 << 10, KEEP_BYTES = 256 << 10 };

struct transfer;

struct job {
    struct request r;
    struct transfer *t;
    struct job *next;
    uint64_t cookie, offset;
    uint32_t length;
    uint16_t command, flags;
    int result;
    bool flush_after;
    uint8_t *data; /* read, write: length bytes; block status: the extents */
    size_t capacity, data_bytes;
    struct iovec iov;
    uint8_t head[64];
    size_t head_bytes;
};

/* A descriptor that is watched through the ring. */
struct watch {
    struct queue_io io;
    bool armed, fired;
};

struct transfer {
    struct nbd_connection *c;
    struct disk_queue *q;
    struct layer *top;
    uint8_t *rx; /* RX_BYTES; [start, end) is not parsed yet */
    size_t start, end;
    struct job *filling; /* a write whose bytes are still coming */
    size_t filled;
    struct job *free;
    struct job *out, **out_last; /* to be sent, in this order */
    size_t sent;                 /* of out */
    unsigned jobs;               /* begun and not sent yet */
    uint64_t bytes;              /* in them */
    bool done;                   /* nothing more is read */
    bool failed;                 /* nothing more is sent either */
    struct watch in, output, stop;
};

/* ---- job.c */
struct job *job_new(struct transfer *t); /* NULL: no memory */
void job_free(struct job *j);
/* Room for n bytes of data. */
int job_make_data(struct job *j, size_t n);
/* What it counts for in transfer.bytes. */
uint64_t job_weight(const struct job *j);
/* Whether the request makes sense; the error that the client is told. */
int job_check(const struct job *j);
/* Begins it; job_reply() ends it. */
void job_run(struct job *j);

/* ---- reply.c */
/* The job ended: makes its reply and puts it in line. */
void job_reply(struct job *j, int result);

#endif

/*
 * block_backend.h - the seam under virtio-blk: what stores the sectors.
 *
 * Requests are asynchronous. A device serves its queues on one loop or more; each loop is a lane,
 * numbered from 0. Calls of a lane come on its loop's thread, and completions are called there too,
 * possibly from inside queue() or submit().
 */
#ifndef VMM_BLOCK_BACKEND_H
#define VMM_BLOCK_BACKEND_H

#include <queztl/disk.h>
#include <queztl/loop.h>
#include <sys/uio.h>

struct block_backend;

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,
    BLOCK_DISCARD,
    BLOCK_WRITE_ZEROES,
    BLOCK_SECURE_ERASE,
    BLOCK_OPS
};
enum { BLOCK_LANES_MAX = 8 };

struct block_request {
    enum block_op op;
    bool may_unmap;          /* write zeroes: giving the space back is welcome */
    uint64_t offset, length; /* bytes; inside the capacity, multiples of 512 */
    const struct iovec *iov; /* read and write: adds up to length; untouched and alive until done */
    unsigned iov_count;
    /* result: 0, or a negative errno; what a failed read or write moved is undefined. */
    void (*done)(struct block_request *r, int result);
    unsigned lane; /* whose thread this is */
    /* The backend's own, while it has the request. */
    struct block_request *next;
    struct qz_disk_request disk;
};

struct block_info {
    uint64_t capacity;   /* bytes, a multiple of 512 */
    uint32_t block_size; /* what the medium likes best, at least 512 */
    bool readonly, discard, write_zeroes, secure_erase;
    bool lifetime;      /* the backend knows how worn the medium is */
    const char *format; /* "raw", "qcow2", ... of the image that is written */
};

struct block_backend_ops {
    /* Any thread; capacity is as of the last resize. */
    const struct block_info *(*info)(struct block_backend *b);
    /* Called once for each lane, from 0 up, before the first request. */
    int (*attach)(struct block_backend *b, unsigned lane, struct qz_loop *loop);
    /* Takes one request. Never fails itself: done() tells. */
    void (*queue)(struct block_backend *b, struct block_request *r);
    /* Lets what was queued begin; call once after a batch. */
    void (*submit)(struct block_backend *b, unsigned lane);
    /* How worn the medium is; any thread; -ENOTSUP. NULL where info.lifetime is false. */
    int (*lifetime)(struct block_backend *b, struct qz_disk_lifetime *l);
    /* A new capacity, on lane 0's thread; waits, and completes requests of that lane meanwhile. */
    int (*resize)(struct block_backend *b, uint64_t capacity, struct qz_error *err);
    /* What is complete goes to the medium, on lane 0's thread; waits, as resize does. NULL:
     * it holds nothing. */
    int (*flush)(struct block_backend *b);
    /*
     * What is written from now on goes to the empty overlay behind fd, which is taken over (as
     * qz_disk_overlay() does it). Nothing in flight, no lane runs; any thread. NULL: it cannot.
     */
    int (*overlay)(struct block_backend *b, int fd, const char *name, struct qz_error *err);
    /* The same over a backing file that it goes back to (as qz_disk_rewind() does it). */
    int (*rewind)(struct block_backend *b, int base, int fd, const char *name,
                  struct qz_error *err);
    /* As qz_disk_get_backing(). NULL: it has none. */
    int (*backing)(struct block_backend *b, struct qz_disk_backing *to);
    void (*free)(struct block_backend *b); /* nothing in flight */
};

struct block_backend {
    const struct block_backend_ops *ops;
};

/* A disk of the disk engine; options as for qz_disk_open(). */
int block_disk_open(struct block_backend **b, const char *options, struct qz_error *err);
/* The same for a raw file or block device. direct: O_DIRECT, past the page cache. */
int block_raw_open(struct block_backend **b, const char *path, bool readonly, bool direct,
                   struct qz_error *err);

#endif

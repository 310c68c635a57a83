/*
 * layer.h - the one interface that everything in the disk engine is made of.
 *
 * Theory of operation. A disk is a chain of layers. The lowest is a protocol (a file, a block
 * device, an NBD server); above it a format (raw, qcow2, LUKS) and filters (cache, throttle, ...).
 * A layer takes requests and serves them with requests to the layer below. All of a layer's calls
 * come on queues; a queue belongs to one thread, has its own io_uring and its own free lists, and a
 * request completes on the queue that it came by. Layers share nothing between queues but what
 * they lock themselves.
 *
 * The fast path of a layer is plain code: submit() hands an adjusted request down, and its done()
 * goes straight to whoever asked. A layer that has to wait in the middle (metadata to be read, a
 * cluster to be allocated) goes on in a task (task.h), which is a stack of its own: there,
 * layer_read() and its like suspend the task, never the thread.
 */
#ifndef DISK_LAYER_H
#define DISK_LAYER_H

#include <queztl/base.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct layer;
struct disk_queue; /* queue.h */
struct request;

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_OPS };

enum request_flags {
    REQUEST_FUA = 1 << 0,         /* write: on the medium before done */
    REQUEST_MAY_UNMAP = 1 << 1,   /* write zeroes: giving the space back is welcome */
    REQUEST_NO_FALLBACK = 1 << 2, /* write zeroes: -ENOTSUP when bytes would have to be written */
    REQUEST_SECURE = 1 << 3,      /* write zeroes: what was there cannot be read back; only where
                                     info.secure_erase */
};

/*
 * Owned by whoever submits it and untouched by them until done(). Reads and writes move exactly
 * length bytes through iov, which adds up to it. offset and length are multiples of the layer's
 * info.alignment and lie inside info.size.
 */
struct request {
    enum disk_op op;
    unsigned flags;
    uint64_t offset, length;
    const struct iovec *iov;
    unsigned iov_count;
    /* result: 0, or a negative errno; what a failed read or write moved is undefined. */
    void (*done)(struct request *r, int result);
    /* Free for the layer that has the request at the moment, between submit() and done(). */
    struct request *next;
    uint64_t scratch[4];
};

enum extent_state {
    EXTENT_DATA,        /* bytes are stored */
    EXTENT_ZERO,        /* reads as zeroes and takes up space or a table entry */
    EXTENT_UNALLOCATED, /* nothing here: the backing file's bytes, or zeroes */
    EXTENT_COMPRESSED,
};

struct extent {
    uint64_t length; /* bytes from where map() was asked */
    enum extent_state state;
    bool has_offset;
    uint64_t offset; /* in the layer below, where the bytes are stored as they are */
    unsigned depth;  /* 0: this layer; n: the nth backing file */
};

struct layer_info {
    uint64_t size;             /* bytes */
    uint32_t alignment;        /* of offset and length; 1 to 64 KiB, a power of two */
    uint32_t memory_alignment; /* of the buffers; 1 unless O_DIRECT */
    uint32_t preferred;        /* bytes; what the layer likes requests to be multiples of */
    uint64_t max_transfer;     /* bytes in one request; 0: any */
    bool readonly, discard, write_zeroes, is_rotational, secure_erase;
    bool encrypted; /* what is stored cannot be read without a key */
};

/*
 * What a kind of layer does. Calls marked [task] run inside a task and may suspend it; all others
 * must not wait. submit, kick and the [task] calls come on any queue's thread.
 */
struct layer_ops {
    const char *name;
    /* Takes a request. Never fails itself: done() tells, possibly before submit() returns. */
    void (*submit)(struct layer *l, struct disk_queue *q, struct request *r);
    /* A batch ended: what this layer gathered goes down (optional). */
    void (*kick)(struct layer *l, struct disk_queue *q);
    /* [task] What is stored at offset; length is cut to what is alike (optional: all data). */
    int (*map)(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
               struct extent *e);
    /* [task] The new size, in bytes (optional: -ENOTSUP). */
    int (*resize)(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err);
    /* Bytes that this layer's caches may hold from now on; gives memory back before it returns as
     * far as nothing in flight needs it (optional). Any thread. */
    void (*set_memory)(struct layer *l, uint64_t bytes);
    /* The layer below shows other bytes than before: what this one keeps of them goes. Nothing is
     * in flight (optional: it keeps none). */
    void (*forget)(struct layer *l);
    /*
     * [task] The image is about to stay as it is: what is held is written out, the image marked
     * clean, and others may read its file. Nothing else is in flight. On failure the layer is as
     * before (optional: there is nothing to do).
     */
    int (*freeze)(struct layer *l, struct disk_queue *q, struct qz_error *err);
    /* It will be written again: undoes freeze (optional). */
    void (*thaw)(struct layer *l);
    /* [task] Writes out what is held and marks the image clean. Nothing else is in flight. */
    int (*close)(struct layer *l, struct disk_queue *q, struct qz_error *err);
    /* After close, or instead of it when opening failed. */
    void (*free)(struct layer *l);
};

/* A layer embeds this as its first member. */
struct layer {
    const struct layer_ops *ops;
    struct layer *below;   /* NULL for a protocol */
    struct layer *backing; /* what unallocated parts show; NULL: zeroes */
    struct layer_info info;
    char *label; /* for messages: "disk.qcow2" or "base.raw (backing of disk.qcow2)" */
};

/* ---- from inside a task: suspended until done; 0 or a negative errno */
int layer_read(struct layer *l, struct disk_queue *q, uint64_t offset, void *bytes, size_t length);
int layer_write(struct layer *l, struct disk_queue *q, uint64_t offset, const void *bytes,
                size_t length);
int layer_readv(struct layer *l, struct disk_queue *q, uint64_t offset, const struct iovec *iov,
                unsigned count);
int layer_writev(struct layer *l, struct disk_queue *q, uint64_t offset, const struct iovec *iov,
                 unsigned count);
int layer_flush(struct layer *l, struct disk_queue *q);
int layer_discard(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length);
int layer_write_zeroes(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                       unsigned flags);
int layer_map(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
              struct extent *e);
int layer_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err);
/* This layer only: readonly from now on, and back. */
int layer_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err);
void layer_thaw(struct layer *l);
/* Closes this layer only: whoever holds a layer below or a backing file closes it after. */
int layer_close(struct layer *l, struct disk_queue *q, struct qz_error *err);
void layer_set_memory(struct layer *l, uint64_t bytes);
/* This layer only. */
void layer_forget(struct layer *l);

/* The protocol. */
static inline struct layer *layer_lowest(struct layer *l)
{
    while (l->below)
        l = l->below;
    return l;
}

static inline void layer_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    l->ops->submit(l, q, r);
}

/* Passes the end of a batch down; queue_kick() is what sends it. */
static inline void layer_kick(struct layer *l, struct disk_queue *q)
{
    for (; l; l = l->below)
        if (l->ops->kick)
            l->ops->kick(l, q);
}

/* ---- vectors: skip counts bytes from the front of all of them together */
size_t iov_length(const struct iovec *iov, unsigned count);
/* The vectors of length bytes after skip; out has room for count of them. How many were used. */
unsigned iov_slice(struct iovec *out, const struct iovec *in, unsigned count, size_t skip,
                   size_t length);
void iov_to_flat(void *flat, const struct iovec *iov, unsigned count, size_t skip, size_t length);
void iov_from_flat(const struct iovec *iov, unsigned count, size_t skip, const void *flat,
                   size_t length);
void iov_fill(const struct iovec *iov, unsigned count, size_t skip, int byte, size_t length);

#endif

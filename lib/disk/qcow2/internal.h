/*
 * internal.h - an open qcow2 image, as its own files see it.
 *
 * Theory of operation. The guest's bytes are found by two tables: L1 (whole in memory) and L2
 * (slices in cache.h). A request whose slice is in memory and whose bytes lie together is
 * handed on at once; everything else runs in a task.
 *
 * Changing what is where:
 *   - `lock` is held while clusters are chosen and refcounts changed; data moves without it.
 *   - A write into clusters that it has to allocate announces them in `allocating`; a second one
 *     for the same clusters waits there.
 *   - Tables change in memory only. The commit (commit.c) writes them in one fixed order,
 *     refcounts, L2, L1, with a flush between, so that at any moment the image on the medium at
 *     worst has clusters marked used that nobody uses.
 *   - Clusters that lose their last mention are given back in three steps (release.c): the
 *     mention is gone from the medium, requests that may have seen it have ended, then the
 *     refcount goes down. So no cluster is used twice, whatever is lost in a crash.
 */
#ifndef DISK_QCOW2_INTERNAL_H
#define DISK_QCOW2_INTERNAL_H

#include "../layer.h"
#include "../queue.h"
#include "../task.h"
#include "cache.h"
#include "header.h"
#include "top.h"

/* ---- clusters on their way back */

struct qcow2_range {
    uint64_t first, count; /* clusters */
};

struct qcow2_ranges {
    struct qcow2_range *list;
    unsigned count, room;
};

/* What one queue has in flight. Written by the queue's thread. */
struct qcow2_lane {
    _Alignas(64) _Atomic uint32_t inside[2]; /* requests that entered in an even, odd phase */
    struct qcow2_io *pool;
    struct kept *buffers; /* buffers.c */
    unsigned buffers_kept;
    struct qcow2_unpacked *unpacked; /* unpacked.c */
};

struct qcow2_wait {
    struct task *task;
    struct qcow2_wait *next;
    bool woken;
};

/* Clusters that a write is filling; in the list of the image until its L2 entries are set. */
struct qcow2_allocation {
    uint64_t first, last; /* guest clusters, inclusive */
    struct qcow2_wait *waiting;
    struct qcow2_allocation *next;
};

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    char *id, *name;
    uint32_t seconds, nanoseconds;
    uint64_t clock_ns, icount;
    uint64_t vm_state_bytes, disk_bytes;
    uint8_t *unknown; /* extra data past what we know */
    uint32_t unknown_length;
};

struct qcow2_crypto; /* crypto.h */
struct qcow2_packer; /* compress.c */

struct qcow2 {
    struct layer layer;
    struct qcow2_header header;
    struct layer *data; /* where guest clusters are: layer.below or the external data file */
    struct qcow2_cache *cache;
    struct qcow2_crypto *crypto; /* NULL: not encrypted */
    struct qcow2_packer *packer;

    /* Fixed by the header. */
    uint32_t cluster_bits, sub_bits, subs; /* a cluster has `subs` subclusters: 32 or 1 */
    uint32_t entry_bits;                   /* log2 of an L2 entry's bytes */
    uint32_t l2_bits;                      /* log2 of entries in an L2 table */
    uint32_t ref_bits;                     /* log2 of refcounts in a refcount block */
    uint64_t cluster_size;
    _Atomic bool closing; /* refcounts are no longer put off */

    uint64_t file_size;     /* when it was opened */
    uint64_t level;         /* of compression: qcow2_deflate() */
    bool wants_log, log;    /* asked for; in use. Changed with lock and commit_lock held */
    uint64_t log_number;    /* of the last record; under commit_lock */
    _Atomic bool untouched; /* nothing was changed yet */

    struct qcow2_top l1, reftable;
    struct task_mutex lock;        /* see above */
    struct task_mutex commit_lock; /* inside lock */
    uint64_t hint;                 /* no free cluster below; under lock */
    _Atomic uint64_t fresh;        /* from this cluster on the file is zeroes, never used */
    bool dirty_bit;                /* set on the medium; under lock */
    _Atomic bool corrupt;          /* found to be: no more changes */
    _Atomic bool copied;           /* bytes that L2 entries will rely on are not flushed yet */

    pthread_mutex_t allocating_mutex;
    struct qcow2_allocation *allocating;

    pthread_mutex_t release_mutex;
    struct qcow2_ranges unlinked;  /* mention gone in memory */
    struct qcow2_ranges unflushed; /* being committed */
    struct qcow2_ranges current;   /* gone on the medium; requests of this phase may use them */
    struct qcow2_ranges waiting;   /* requests of the phase before may use them */
    _Atomic uint32_t phase;
    _Atomic uint64_t releases; /* how often anything was released */
    struct qcow2_lane lanes[DISK_QUEUES_MAX];

    /* Whoever changes the whole image (snapshot, resize) closes the gate and waits for `inside`. */
    _Atomic bool closed;
    pthread_mutex_t gate_mutex;
    struct qcow2_wait *at_gate, *drainer;
    struct disk_queue *drain_queue;
    struct queue_work drain_work;
    bool drain_posted;

    _Atomic uint64_t guard[1024]; /* guard.c */

    struct qcow2_snapshot *snapshots;
    unsigned snapshot_count;
    uint64_t snapshots_bytes; /* of the table in the file */
};

static inline struct qcow2 *qcow2_of(struct layer *l)
{
    return QZ_CONTAINER_OF(l, struct qcow2, layer);
}

/* ---- where guest bytes are (map.c) */

enum qcow2_kind {
    QCOW2_HOLE,   /* backing or zeroes */
    QCOW2_ZEROES, /* zeroes; host may be set: a cluster is reserved */
    QCOW2_DATA,   /* at host */
    QCOW2_PACKED, /* compressed: the L2 entry is in host */
    QCOW2_KINDS,
};

struct qcow2_run {
    enum qcow2_kind kind;
    bool copied;     /* the cluster is only ours: writing in place is allowed */
    uint64_t host;   /* bytes in the data file of the run's first byte; 0: none, or see PACKED */
    uint64_t length; /* bytes */
};

/* Without waiting: -EAGAIN when a table is not in memory. */
int qcow2_map_peek(struct qcow2 *i, uint64_t guest, uint64_t length, struct qcow2_run *run);
/* [task] */
int qcow2_map(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
              struct qcow2_run *run);
/* What `count` L2 entries (as in the file) say from a guest offset inside the first. */
int qcow2_map_entries(struct qcow2 *i, const uint8_t *entries, unsigned count, uint64_t guest,
                      uint64_t length, struct qcow2_run *run);
/* The L2 table's offset for a guest offset: 0 none; a bad L1 entry is -EIO. */
int qcow2_map_table(struct qcow2 *i, uint64_t guest, uint64_t *table, bool *copied);
int qcow2_map_layer(struct layer *l, struct disk_queue *q, uint64_t offset, uint64_t length,
                    struct extent *e);

static inline uint64_t qcow2_table_index(const struct qcow2 *i, uint64_t guest)
{
    return (guest >> i->cluster_bits) & ((1ull << i->l2_bits) - 1);
}

/* The image contradicts itself: says so once, refuses changes from now on; -EIO. */
int qcow2_corrupt(struct qcow2 *i, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- requests in flight (flight.c) */

/* A request that stands for (a part of) another one in the layer below. */
struct qcow2_io {
    struct request r;
    struct request *parent;
    struct qcow2 *image;
    struct disk_queue *queue;
    struct qcow2_io *next;
    uint32_t phase;
};

static inline uint32_t qcow2_enter(struct qcow2 *i, struct disk_queue *q)
{
    struct qcow2_lane *lane = &i->lanes[queue_index(q)];

    for (;;) {
        uint32_t phase = atomic_load(&i->phase);

        /* Sequentially consistent with the flip in release.c: either it sees this count or
         * the phase read again here is the new one. */
        atomic_fetch_add(&lane->inside[phase & 1], 1);
        if (atomic_load(&i->phase) == phase)
            return phase;
        atomic_fetch_sub(&lane->inside[phase & 1], 1);
    }
}

/* [task] The same, but at the gate as long as it is closed. */
uint32_t qcow2_begin(struct qcow2 *i, struct disk_queue *q);
/* Somebody left while the gate is closed. */
void qcow2_left_closed(struct qcow2 *i);

static inline void qcow2_leave(struct qcow2 *i, struct disk_queue *q, uint32_t phase)
{
    atomic_fetch_sub(&i->lanes[queue_index(q)].inside[phase & 1], 1);
    if (atomic_load(&i->closed))
        qcow2_left_closed(i);
}

/* NULL: no memory. */
static inline struct qcow2_io *qcow2_io_get(struct qcow2 *i, struct disk_queue *q)
{
    struct qcow2_lane *lane = &i->lanes[queue_index(q)];
    struct qcow2_io *io = lane->pool;

    if (io)
        lane->pool = io->next;
    else
        io = malloc(sizeof(*io));
    if (io) {
        io->image = i;
        io->queue = q; /* each time: another queue may have this index since */
    }
    return io;
}

static inline void qcow2_io_put(struct qcow2_io *io)
{
    struct qcow2_lane *lane = &io->image->lanes[queue_index(io->queue)];

    io->next = lane->pool;
    lane->pool = io;
}

/* [task] Lets nothing in and waits until nothing is inside; then lets all in again. */
void qcow2_gate_close(struct qcow2 *i, struct disk_queue *q);
void qcow2_gate_open(struct qcow2 *i);
/* [task] At the gate, until it opens. */
void qcow2_gate_wait(struct qcow2 *i);
void qcow2_lanes_free(struct qcow2 *i);

/* [task] Wait until woken; called with *m held, which is released meanwhile and after. Wakers hold
 * *m too and are inside of tasks. */
void qcow2_sleep(struct qcow2_wait **list, pthread_mutex_t *m);
void qcow2_wake_all(struct qcow2_wait **list);

/* ---- giving back (release.c) */

/* Clusters [first, first + count) of the image file lost one mention each. */
int qcow2_release(struct qcow2 *i, uint64_t first, uint64_t count);
void qcow2_release_begin(struct qcow2 *i);             /* a commit begins */
void qcow2_release_end(struct qcow2 *i, bool durable); /* and has ended */
/* [task, lock] Puts down refcounts of what nobody can see any more. */
int qcow2_release_settle(struct qcow2 *i, struct disk_queue *q);
bool qcow2_release_pending(struct qcow2 *i);
/* Are more ranges than `most` on their way? */
bool qcow2_release_crowded(struct qcow2 *i, unsigned most);
void qcow2_release_clear(struct qcow2 *i);

/* ---- refcounts (refcount.c); all [task, lock] */

uint64_t qcow2_refcount_decode(const uint8_t *block, uint64_t index, unsigned order);
void qcow2_refcount_encode(uint8_t *block, uint64_t index, unsigned order, uint64_t value);
int qcow2_refcount_get(struct qcow2 *i, struct disk_queue *q, uint64_t cluster, uint64_t *value);
/* Adds or takes 1 for each cluster. -ERANGE: it would pass what the width holds, or zero. */
int qcow2_refcount_change(struct qcow2 *i, struct disk_queue *q, uint64_t first, uint64_t count,
                          int delta);
/* Free clusters in a row, at most want and at least `least`, with refcount 1 from now on, inside
 * the file. *zeroed: they are known to read as zeroes. */
int qcow2_allocate(struct qcow2 *i, struct disk_queue *q, uint64_t want, uint64_t least,
                   uint64_t *first, uint64_t *count, bool *zeroed);
/* Makes the file reach up to `end` bytes. */
int qcow2_grow_file(struct qcow2 *i, struct disk_queue *q, uint64_t end);

/* ---- writing tables out (commit.c); [task] */
int qcow2_commit(struct qcow2 *i, struct disk_queue *q, bool durable);
bool qcow2_commit_needed(struct qcow2 *i);
/* Rewrites the header's cluster. */
int qcow2_write_header(struct qcow2 *i, struct disk_queue *q);

/* ---- the metadata log (log.c); [task] */

struct qcow2_log_piece {
    uint64_t offset;
    const uint8_t *bytes;
    uint32_t length;
};
/* One record, not flushed. -E2BIG: it does not fit. commit_lock is held. */
int qcow2_log_write(struct qcow2 *i, struct disk_queue *q, const struct qcow2_log_piece *pieces,
                    unsigned count, bool alone);
int qcow2_log_begin(struct qcow2 *i, struct disk_queue *q); /* lock is held */
int qcow2_log_end(struct qcow2 *i, struct disk_queue *q);

/* ---- several requests at once (fan.c) */

struct qcow2_fan {
    struct task *task;
    unsigned running;
    bool waiting;
    int error; /* the first one */
};

/* Submits a request with copies of the vectors; the bytes stay the caller's until the wait. */
int qcow2_fan_submit(struct qcow2_fan *f, struct layer *l, struct disk_queue *q, enum disk_op op,
                     uint64_t offset, const struct iovec *iov, unsigned count);
/* [task] Until all are done; the first error. */
int qcow2_fan_wait(struct qcow2_fan *f);

/* ---- tables are not for guest bytes (guard.c) */

void qcow2_guard_load(struct qcow2 *i);
/* A table stands here from now on. */
void qcow2_guard_add(struct qcow2 *i, uint64_t offset, uint64_t length);
/* false: certainly no table. Any thread, does not wait. */
bool qcow2_guard_maybe(struct qcow2 *i, uint64_t host, uint64_t length);
/* [lock] The table that stands there, for a message; NULL: none. */
const char *qcow2_guard_table(struct qcow2 *i, uint64_t host, uint64_t length);

/* ---- data */

/* [task] Bytes as the guest sees them, into iov. */
int qcow2_read(struct qcow2 *i, struct disk_queue *q, uint64_t guest, const struct iovec *iov,
               unsigned count, uint64_t length);
/* [task] Bytes up to `end` of the compressed cluster that an L2 entry tells of: *out is good until
 * the task waits. */
int qcow2_unpack(struct qcow2 *i, struct disk_queue *q, uint64_t entry, size_t end,
                 const uint8_t **out);
/* [task] */
int qcow2_write(struct qcow2 *i, struct disk_queue *q, uint64_t guest, const struct iovec *iov,
                unsigned count, uint64_t length);
void qcow2_submit(struct layer *l, struct disk_queue *q, struct request *r);
/* [task] */
int qcow2_zero(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
               unsigned flags);
int qcow2_discard(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length);
/* ---- L2 entries to be changed (table.c); [task, lock] */

/* The L2 table for a guest offset, ours alone from now on: made or copied as needed. */
int qcow2_table_for_write(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t *table);

/* The entries of a piece of guest disk, in one pinned slice of a table that may be written. */
struct qcow2_hold {
    struct qcow2_slice *slice;
    uint64_t table, where; /* file offsets of the table and of the first entry */
    unsigned count;        /* entries, cut at the slice's end */
    const uint8_t
        *entries; /* the first one; read them only with the clusters claimed or lock held */
};
int qcow2_hold(struct qcow2 *i, struct disk_queue *q, uint64_t guest, uint64_t length,
               struct qcow2_hold *h);
void qcow2_hold_end(struct qcow2 *i, struct qcow2_hold *h);
void qcow2_set_entry(struct qcow2 *i, struct qcow2_hold *h, unsigned n, uint64_t entry,
                     uint64_t bitmap);
/* Gives back what an entry that is no longer there mentioned. */
int qcow2_release_entry(struct qcow2 *i, uint64_t entry);

/* Guest clusters from first on that nobody is filling, up to last; 0: the first one was, it has
 * been waited for and lock is no longer held: begin again. */
uint64_t qcow2_claim_wait(struct qcow2 *i, uint64_t first, uint64_t last);
void qcow2_claim(struct qcow2 *i, struct qcow2_allocation *a);
void qcow2_unclaim(struct qcow2 *i, struct qcow2_allocation *a); /* [task] */

/* ---- memory for bytes on their way (buffers.c), aligned for the layers below */

/* From the queue's own if it is no more than a cluster; given back with the same length. */
void *qcow2_lease(struct qcow2 *i, struct disk_queue *q, size_t length);
void qcow2_lease_end(struct qcow2 *i, struct disk_queue *q, void *bytes, size_t length);
void qcow2_leases_free(struct qcow2_lane *lane);
/* length bytes, to be freed. */
void *qcow2_buffer(size_t length);

/* ---- compressed clusters that a queue read last (unpacked.c) */

/* The bytes up to `end`, if they are here; good until the task waits. */
const uint8_t *qcow2_unpacked_find(struct qcow2 *i, struct disk_queue *q, uint64_t entry,
                                   size_t end);
/* The same from the compressed bytes; `releases` is the image's count from before they were read.
 */
int qcow2_unpacked_make(struct qcow2 *i, struct disk_queue *q, uint64_t entry, uint64_t releases,
                        const void *packed, size_t length, size_t end, const uint8_t **out);
void qcow2_unpacked_free(struct qcow2_unpacked *u);

#endif

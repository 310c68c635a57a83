/*
 * disk.h - virtual disks: raw and qcow2 images, block devices, network disks, with caches, limits
 * and encryption, behind one asynchronous interface.
 *
 *     struct qz_disk *d;
 *     struct qz_disk_queue *q;
 *
 *     qz_disk_open(&d, "file=vm.qcow2,format=qcow2,cache=none,iops=5000", &err);
 *     qz_disk_queue_new(&q, d, 64, &err);
 *     r.op = QZ_DISK_READ; ...
 *     qz_disk_submit(q, &r);
 *     qz_disk_kick(q);
 *     while (...)
 *         qz_disk_wait(q);
 *
 * A disk may have many queues; each belongs to one thread, the first that uses it. The functions
 * on a disk may be called by any thread, but not on a queue's thread from inside a completion: they
 * wait.
 *
 * Options, by commas (a comma inside a value is written twice); the first may lack "file=":
 *     file=PATH            a file or block device; nbd://HOST[:PORT]/EXPORT and
 *                          nbd+unix:///EXPORT?socket=PATH; null:SIZE; memory:SIZE
 *     fd=N                 the file or block device is open already, for reading and, unless
 *                          readonly, writing: file= is only its name then. The descriptor stays the
 *                          caller's; how it is open (O_DIRECT, O_APPEND) is changed
 *     reconnect=SECONDS    of an NBD server: how long one that vanished is looked for before
 *                          requests fail; 10 unless said
 *     connections=N        to one, where it can do several: 4 unless said
 *     format=raw|qcow2|luks|cow|auto   raw unless said. auto looks at the content: never for a disk
 *                          whose raw content somebody else wrote (it could pose as another format)
 *     readonly
 *     cache=writeback|none|writethrough|unsafe    none: O_DIRECT. unsafe: flushes do nothing
 *     discard=unmap|ignore
 *     secure-erase=off|overwrite  overwrite: raw and luks disks can be told to write over what was
 *                          stored, in its place
 *     locking=on|off
 *     backing=FILE|header|none  for a format whose image names a backing file: this one; the one
 *                          that the header names, with the format it says; reads zeroes instead
 *     backing.OPTION=...   options of the backing file: backing.format=qcow2
 *     data-file=FILE|header  the same for an external data file
 *     block-cache=SIZE     memory for cached blocks
 *     memory=SIZE          for all caches of the disk together
 *     iops= iops-read= iops-write=    requests a second, and iops-burst= and so on: how many at
 * once bps= bps-read= bps-write=       bytes a second, and bps-burst= and so on throttle-group=NAME
 * disks of one process share the limits stats                count latencies inject=RULES
 * inject-below=RULES   provoke errors (README.md), above and below the format and those of the
 * format. What nobody knows is an error.
 */
#ifndef QUEZTL_DISK_H
#define QUEZTL_DISK_H

#include <queztl/base.h>
#include <sys/uio.h>

struct qz_disk;
struct qz_disk_queue;

/* ---- opening */

int qz_disk_open(struct qz_disk **d, const char *options, struct qz_error *err);
/* Whether the options can be understood: opens nothing. -EINVAL, and err names key, value and
 * choices. qz_disk_open() fails alike. */
int qz_disk_check_options(const char *options, struct qz_error *err);
/* False for what file= names without a path: null:, memory: and servers. */
bool qz_disk_is_local_file(const char *file);
/* All queues are freed. Writes out what is held. The disk is gone even when that fails. */
int qz_disk_close(struct qz_disk *d, struct qz_error *err);

struct qz_disk_info {
    uint64_t size;       /* bytes */
    uint32_t block_size; /* what the medium likes best; requests may be of any size and offset */
    bool readonly, discard, write_zeroes, is_rotational, secure_erase;
    const char *format; /* "raw", "qcow2", ...; while the disk is open */
    const char *label;
};
/* Any thread. */
void qz_disk_get_info(struct qz_disk *d, struct qz_disk_info *info);

/* The image that shows through where the disk's own holds nothing; while the disk is open and goes
 * on in no other. */
struct qz_disk_backing {
    const char *label, *format;
    uint64_t size;  /* bytes */
    bool untouched; /* the disk's own image holds nothing: all is as in the backing one */
};
/* Nobody changes the disk meanwhile. -ENOENT: there is none. */
int qz_disk_get_backing(struct qz_disk *d, struct qz_disk_backing *b);

/* How worn the medium is, as JEDEC's eMMC registers and VirtIO 1.3 §5.2.6 count; 0: not defined. */
struct qz_disk_lifetime {
    uint16_t pre_eol_info; /* 1 normal, 2 warning (80 % of reserved blocks used), 3 urgent (90 %) */
    uint16_t typ_a,
        typ_b; /* of cells of type A and B: 1: up to 10 % used, ... 11: beyond its end */
};
/* Any thread. -ENOTSUP: nobody knows. */
int qz_disk_get_lifetime(struct qz_disk *d, struct qz_disk_lifetime *l);

/* ---- requests */

enum qz_disk_op {
    QZ_DISK_READ,
    QZ_DISK_WRITE,
    QZ_DISK_FLUSH,
    QZ_DISK_DISCARD,
    QZ_DISK_WRITE_ZEROES,
    QZ_DISK_OPS
};

enum qz_disk_flags {
    QZ_DISK_FUA = 1 << 0,         /* write: on the medium before done */
    QZ_DISK_MAY_UNMAP = 1 << 1,   /* write zeroes: giving the space back is welcome */
    QZ_DISK_NO_FALLBACK = 1 << 2, /* write zeroes: -ENOTSUP instead of writing bytes */
    QZ_DISK_SECURE = 1 << 3,      /* write zeroes: secure erase; -ENOTSUP where info.secure_erase is
                                     not */
};

/*
 * Owned by the caller, untouched and alive until done(). iov adds up to length for reads and
 * writes. What lies outside of the disk is -EINVAL.
 */
struct qz_disk_request {
    enum qz_disk_op op;
    unsigned flags;
    uint64_t offset, length; /* bytes */
    const struct iovec *iov;
    unsigned iov_count;
    /* result: 0 or a negative errno; what a failed read or write moved is undefined. On the queue's
     * thread, possibly before qz_disk_submit() returns. */
    void (*done)(struct qz_disk_request *r, int result);
    uint64_t internal[12];
};

int qz_disk_queue_new(struct qz_disk_queue **q, struct qz_disk *d, unsigned depth,
                      struct qz_error *err);
void qz_disk_queue_free(struct qz_disk_queue *q); /* nothing in flight */
void qz_disk_submit(struct qz_disk_queue *q, struct qz_disk_request *r);
void qz_disk_kick(struct qz_disk_queue *q); /* after a batch: what was gathered goes out */
/* For an event loop: a descriptor that is readable when qz_disk_poll() has something to do. */
int qz_disk_fd(struct qz_disk_queue *q, struct qz_error *err);
int qz_disk_poll(struct qz_disk_queue *q); /* completes what is there; how many */
int qz_disk_wait(struct qz_disk_queue *q); /* the same, but at least one */

/* The same, waiting for it: for programs, not for I/O threads. Not inside a completion. */
int qz_disk_read(struct qz_disk_queue *q, uint64_t offset, void *bytes, size_t length);
int qz_disk_write(struct qz_disk_queue *q, uint64_t offset, const void *bytes, size_t length);
int qz_disk_flush(struct qz_disk_queue *q);
int qz_disk_zero(struct qz_disk_queue *q, uint64_t offset, uint64_t length, unsigned flags);
int qz_disk_discard(struct qz_disk_queue *q, uint64_t offset, uint64_t length);
/* Packs into a format that can (qcow2); -ENOTSUP elsewhere. Whole blocks of info.block_size. */
int qz_disk_write_compressed(struct qz_disk_queue *q, uint64_t offset, const void *bytes,
                             size_t length);

enum qz_disk_state {
    QZ_DISK_DATA,
    QZ_DISK_ZERO,
    QZ_DISK_HOLE, /* not stored here: the backing file's bytes, or zeroes */
    QZ_DISK_COMPRESSED,
};
struct qz_disk_extent {
    uint64_t length; /* from where it was asked */
    enum qz_disk_state state;
    bool zero; /* reads as zeroes, through all backing files */
    bool has_offset;
    uint64_t offset; /* in the image file */
    unsigned depth;  /* 0: this image; n: the nth backing file */
};
/* deep: through the backing files. */
int qz_disk_map(struct qz_disk_queue *q, uint64_t offset, uint64_t length, bool deep,
                struct qz_disk_extent *e);

/*
 * At least so many threads, 0 to 16, that unpack compressed clusters beside those that serve
 * queues: the process's, for all disks, until it ends. Without any, queues do it themselves. Before
 * the process is confined.
 */
int qz_disk_helpers(unsigned threads, struct qz_error *err);

/* ---- the whole disk */

int qz_disk_resize(struct qz_disk *d, uint64_t size, struct qz_error *err);
/* The same by a queue that is there, on its own thread; its requests complete meanwhile. */
int qz_disk_queue_resize(struct qz_disk_queue *q, uint64_t size, struct qz_error *err);
/*
 * The disk goes on in the image behind fd, an empty qcow2 overlay of the disk's size that names the
 * present image as its backing file; the present one, flushed and marked clean, is its backing from
 * now on and is not written any more: others may open it readonly. Limits, statistics and caches go
 * on; cache=, discard=, locking= and the options of qcow2 hold for the overlay, too. name is what
 * fd was opened by.
 *
 * Nothing is in flight on any queue, the disk is not served, and nobody calls anything for it
 * meanwhile; the queues stay valid. Fit for a confined process: no name is opened. It takes as long
 * as a flush does: one just before makes it short. fd is taken over on success. On failure all is
 * as before. -ENOTSUP: an encrypted disk, or one with secure-erase=.
 */
int qz_disk_overlay(struct qz_disk *d, int fd, const char *name, struct qz_error *err);
/*
 * The disk goes back to what one of its backing files holds, which descriptor `base` (any access)
 * is open at, and on in the image behind fd: an empty overlay over that file, as for
 * qz_disk_overlay(), with the same rules. What was written above it is dropped, not flushed; those
 * files are not used any more. The size may be another. On failure all is as before. -ENOENT: it is
 * none of the backing files. base stays the caller's, fd is taken over on success.
 */
int qz_disk_rewind(struct qz_disk *d, int base, int fd, const char *name, struct qz_error *err);
/* Bytes that all caches of the disk may hold together from now on; what is too much is given back
 * before it returns, as far as nothing in flight needs it. */
void qz_disk_set_memory(struct qz_disk *d, uint64_t bytes);

struct qz_disk_limits {
    uint64_t iops[3], bps[3]; /* all, reads, writes; 0: none */
    uint64_t iops_burst[3], bps_burst[3];
};
/* -ENOTSUP: it was opened without limits. */
int qz_disk_set_limits(struct qz_disk *d, const struct qz_disk_limits *limits);

struct qz_disk_stats {
    struct {
        uint64_t count, bytes, errors, total_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns;
    } op[QZ_DISK_OPS];
};
/* -ENOTSUP: it was opened without stats. */
int qz_disk_get_stats(struct qz_disk *d, struct qz_disk_stats *s);

/* ---- images */

/*
 * A new image: "file=PATH,format=qcow2,size=20GiB", and
 *     overwrite            an image of that name may be replaced
 *     preallocation=off|metadata|falloc|full
 *     backing=FILE,backing.format=FORMAT     written into the header; FILE is opened for its size
 *                          when there is no size=, and must exist unless backing.unchecked
 *     data-file=FILE       made too
 * and those of the format: README.md.
 */
int qz_disk_create(const char *options, struct qz_error *err);

struct qz_disk_fact {
    const char *key;
    enum { QZ_DISK_TEXT, QZ_DISK_NUMBER, QZ_DISK_BYTES, QZ_DISK_FLAG } kind;
    char text[160];
    uint64_t number;
};
/* What the format tells of itself; how many of at most max there were. */
unsigned qz_disk_facts(struct qz_disk *d, struct qz_disk_fact *facts, unsigned max);

/* What the header of an image names, without opening any of it; free() the strings. */
int qz_disk_names(const char *options, char **backing, char **backing_format, char **data_file,
                  struct qz_error *err);

struct qz_disk_check {
    bool repair;
    void (*say)(struct qz_disk_check *c, const char *text);  /* a finding; may be NULL */
    void (*progress)(struct qz_disk_check *c, double share); /* 0..1; may be NULL */
    uint64_t errors, leaks, errors_repaired, leaks_repaired;
    uint64_t clusters, allocated, compressed, fragmented, image_end;
};
/* options: of the image, as for qz_disk_open(); -ENOTSUP: the format has nothing to check. */
int qz_disk_check(const char *options, struct qz_disk_check *c, struct qz_error *err);

struct qz_disk_snapshot {
    char *id, *name;
    int64_t created; /* seconds since 1970 */
    uint64_t vm_state_bytes, disk_bytes;
};
int qz_disk_snapshots(struct qz_disk *d, struct qz_disk_snapshot **list, unsigned *count,
                      struct qz_error *err);
void qz_disk_snapshots_free(struct qz_disk_snapshot *list, unsigned count);
int qz_disk_snapshot_create(struct qz_disk *d, const char *name, struct qz_error *err);
int qz_disk_snapshot_apply(struct qz_disk *d, const char *name_or_id, struct qz_error *err);
int qz_disk_snapshot_delete(struct qz_disk *d, const char *name_or_id, struct qz_error *err);

/* ---- serving */

struct qz_disk_server;

/*
 * NBD (fixed newstyle; structured replies, block status, several connections of one client) on a
 * socket that listens, whose descriptor stays the caller's. A thread for each connection, until
 * qz_disk_server_stop().
 */
struct qz_disk_nbd_options {
    const char *export_name; /* "" unless said */
};
int qz_disk_serve_nbd(struct qz_disk_server **s, struct qz_disk *d, int listening_fd,
                      const struct qz_disk_nbd_options *o, struct qz_error *err);

/* vhost-user-blk: the same for QEMU, cloud-hypervisor and our own driver. */
struct qz_disk_vhost_options {
    unsigned queues; /* 0: 1 */
    char serial[20]; /* what the guest sees */
};
int qz_disk_serve_vhost_user(struct qz_disk_server **s, struct qz_disk *d, int listening_fd,
                             const struct qz_disk_vhost_options *o, struct qz_error *err);
/* Any thread but the server's own: ends connections and threads, finishes what is in flight. */
void qz_disk_server_stop(struct qz_disk_server *s);

#endif

/*
 * vhost.h - the vhost-user-blk server, inside.
 *
 * Theory of operation. A control thread speaks the protocol with one frontend at a time
 * (user.c). Each queue has a lane (lane.c): a thread with an io_uring that serves one ring. The
 * control thread changes what a lane uses only while that lane's ring is stopped and drained, or by
 * work posted to the lane, so lanes need no locks. Requests go from the ring to the disk with
 * vectors that point into guest memory (blk.c); what the page cache answers is pushed back before
 * the next request is looked at.
 *
 * When a frontend is gone, the rings stop and the next one is waited for. What was in flight is
 * written in memory that the frontend keeps (inflight.c), so a restarted server does it again.
 */
#ifndef DISK_VHOST_VHOST_H
#define DISK_VHOST_VHOST_H

#include "../disk_internal.h"
#include "ring.h"

enum { LANES_MAX = 64 };

struct lane;
struct vhost;

struct slot {
    struct request r;
    struct lane *lane;
    struct slot *next;
    uint8_t *status;  /* in guest memory */
    uint32_t written; /* without the status byte */
    uint8_t ranges, next_range;
    uint16_t entry; /* of a packed ring's inflight memory */
    struct {
        uint64_t offset, length;
        unsigned flags;
    } * range; /* of a discard or write zeroes; malloc'ed */
    struct ring_chain chain;
};

struct lane {
    struct vhost *v;
    unsigned index;
    pthread_t thread;
    bool has_thread;
    struct disk_queue *q;
    int kick_fd, call_fd, err_fd;
    uint16_t size;
    uint64_t desc_user, driver_user, device_user; /* in the frontend's address space */
    uint32_t base;
    struct device_ring ring;
    struct slot *slots, *free;
    uint8_t *busy; /* by chain id */
    unsigned in_flight;
    unsigned since_call; /* pushed and not yet told */
    bool running, enabled, quit, serving;
    struct queue_io kick_io;
    uint64_t kick_count;
    bool kick_armed;
    void *inflight; /* this ring's part of the shared memory; NULL: not kept */
    uint64_t inflight_counter;
    struct lane_call *draining;
    int64_t poll_ns;
};

struct blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t wce, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct blk_config) == 60, "VirtIO 1.3 §5.2.4, up to write zeroes");

struct vhost {
    struct qz_disk *disk;
    struct layer *top;
    char serial[20];
    unsigned lane_count;
    struct lane lane[LANES_MAX];
    struct memory_map memory;
    uint64_t features, protocol_features;
    bool wce; /* atomic: written by control, read by lanes */
    int listen_fd, connection, stop_fd, backend_fd;
    pthread_t thread;
    void *inflight; /* shared with the frontend; NULL: not kept */
    size_t inflight_mapped;
    unsigned inflight_queues, inflight_size;
    uint64_t told_size; /* capacity that the frontend knows */
};

/* ---- blk.c: requests; on the lane's thread */

uint64_t blk_features(const struct vhost *v);
void blk_config(const struct vhost *v, struct blk_config *c);
/* Takes the request in s->chain. */
void blk_take(struct slot *s);
/* The request in s is answered (lane.c). */
void lane_finish(struct slot *s, uint8_t status, uint32_t written);
/* No answer is possible: the ring serves nothing more. */
void lane_break(struct slot *s, const char *why);

/* ---- lane.c */

int lane_init(struct lane *l, struct vhost *v, unsigned index, struct qz_error *err);
void lane_end(struct lane *l);
/* From the control thread: start what the lane's fields say; -EINVAL with a reason logged. */
int lane_start(struct lane *l);
/* Stops and drains; the ring's base afterwards. */
uint32_t lane_stop(struct lane *l);
void lane_enable(struct lane *l, bool on);
/* Changes a descriptor while the ring may run; takes fd. */
void lane_set_call(struct lane *l, int fd);

/* ---- inflight.c, inflight_packed.c: VHOST_USER_GET_INFLIGHT_FD */

size_t inflight_bytes(unsigned queues, unsigned size, bool packed);
void *inflight_of_lane(void *all, unsigned index, unsigned size, bool packed);
/* A chain is the server's; it will be, and is, seen by the driver as used. */
void inflight_taken(struct lane *l, struct slot *s);
void inflight_pushing(struct lane *l, struct slot *s);
void inflight_pushed(struct lane *l, struct slot *s);
/* Chains that were taken and not used, in the order of their taking, by a number that
 * inflight_chain() knows; how many (at most the ring's size). Sets the ring to where it goes on. */
unsigned inflight_left(struct lane *l, uint16_t *heads);
/* The chain again, in s: 1, or -EPROTO. */
int inflight_chain(struct lane *l, uint16_t head, struct slot *s);

size_t inflight_packed_region(unsigned size);
void inflight_packed_taken(struct lane *l, struct slot *s);
void inflight_packed_pushing(struct lane *l, struct slot *s);
void inflight_packed_pushed(struct lane *l, struct slot *s);
unsigned inflight_packed_left(struct lane *l, uint16_t *heads);
int inflight_packed_chain(struct lane *l, uint16_t head, struct slot *s);

/* ---- user.c: one connection, until it ends or stop_fd says so */
void user_serve(struct vhost *v);

#endif

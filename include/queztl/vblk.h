/*
 * vblk.h - a virtio block driver for any kernel and any transport (VirtIO 1.1 to 1.3).
 *
 * Freestanding: the driver needs no libc beyond the four functions that a compiler expects
 * everywhere (memcpy, memmove, memset, memcmp). Memory that only the driver sees comes from the
 * caller, once; memory that the device sees comes from struct vblk_platform. Nothing is allocated
 * after qz_vblk_start().
 *
 *     qz_vblk_pci_init / qz_vblk_mmio_init / another transport
 *     qz_vblk_create -> qz_vblk_start -> qz_vblk_queue(n)
 *     loop: qz_vblk_submit (a batch, one doorbell), qz_vblk_poll (a batch)
 *     qz_vblk_stop
 *
 * Threads: each queue belongs to one thread at a time and takes no lock. Functions on the device
 * (start, stop, recover, config) need all queues quiet.
 *
 * The device is not trusted: everything that it can write is read once and checked, and what makes
 * no sense breaks the queue (-VBLK_EPROTO), never the driver. See qz_vblk_recover().
 */
#ifndef QUEZTL_VBLK_H
#define QUEZTL_VBLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Functions return 0 or one of these, negative. The values are those of errno on Linux. */
enum vblk_error {
    VBLK_EIO = 5,
    VBLK_EAGAIN = 11,
    VBLK_ENOMEM = 12,
    VBLK_EBUSY = 16,
    VBLK_ENODEV = 19,
    VBLK_EINVAL = 22,
    VBLK_ENOSPC = 28,
    VBLK_EROFS = 30,
    VBLK_EPROTO = 71,
    VBLK_ENOTSUP = 95,
    VBLK_ETIMEDOUT = 110,
    VBLK_ECANCELED = 125,
};

enum {
    VBLK_SECTOR_SIZE = 512,
    VBLK_DEVICES_MAX = 32,
    VBLK_QUEUES_MAX = 64, /* a configuration may not ask for more */
    VBLK_DEPTH_MAX = 1024,
    VBLK_SEGMENTS_MAX = 256, /* of one request */
    VBLK_RANGES_MAX = 64,    /* of one discard */
    VBLK_ID_BYTES = 20,
};

/* ---- what the driver asks of its surroundings --------------------------------------------------
 */

enum vblk_log_level { VBLK_LOG_ERROR, VBLK_LOG_WARN, VBLK_LOG_INFO };
enum vblk_barrier { VBLK_BARRIER_READ, VBLK_BARRIER_WRITE, VBLK_BARRIER_FULL };

/* All callbacks take ctx. Those marked (path) are called on the I/O path and may not block. */
struct vblk_platform {
    void *ctx;

    /*
     * Zeroed memory that the device can reach as one piece at *device_address. align is a power of
     * two. NULL when there is none. dma_free takes back exactly what dma_alloc gave.
     */
    void *(*dma_alloc)(void *ctx, size_t size, size_t align, uint64_t *device_address);
    void (*dma_free)(void *ctx, void *memory, size_t size, uint64_t device_address);

    /*
     * (path) The device's address of a buffer that the caller of the driver owns, or nonzero when
     * the device cannot reach all of it as one piece. NULL: a device address is the pointer's value
     * plus dma_offset, which spares the call.
     */
    int (*dma_translate)(void *ctx, const void *buffer, size_t len, uint64_t *device_address);
    uint64_t dma_offset;

    /* (path) Registers: address is what pci_map returned or the base of an MMIO device; width is 1,
     * 2, 4 or 8 bytes. Values are in the CPU's order, the registers are little-endian. */
    uint64_t (*reg_read)(void *ctx, uint64_t address, unsigned width);
    void (*reg_write)(void *ctx, uint64_t address, unsigned width, uint64_t value);

    /* PCI only: configuration space of a function (the platform's own name for it), and a BAR made
     * accessible; *size is its length, 0 is no address. */
    uint32_t (*pci_read)(void *ctx, uint32_t function, unsigned offset, unsigned width);
    void (*pci_write)(void *ctx, uint32_t function, unsigned offset, unsigned width,
                      uint32_t value);
    uint64_t (*pci_map)(void *ctx, uint32_t function, unsigned bar, uint64_t *size);

    /*
     * Interrupts, optional: makes vector `vector` of the device call handler(arg), in whatever
     * context the platform likes. handler NULL takes it off. Vector 0 is the configuration's, 1 + n
     * queue n's. NULL, or nonzero from it: the driver's user polls.
     */
    int (*irq_attach)(void *ctx, unsigned vector, void (*handler)(void *arg), void *arg);

    /*
     * (path) Only called when VIRTIO_F_ORDER_PLATFORM was negotiated: the device orders memory as
     * the platform does for hardware (VirtIO 1.3 §6). Otherwise the CPU's own fences are used.
     */
    void (*barrier)(void *ctx, enum vblk_barrier kind);

    uint64_t (*now_ns)(void *ctx); /* (path) monotonic */
    void (*relax)(void *ctx); /* a moment's pause while a register is waited for; may be NULL */
    /* What happened, in fixed words and two numbers that belong to them. May be NULL. */
    void (*log)(void *ctx, enum vblk_log_level level, const char *text, uint64_t a, uint64_t b);
};

/* ---- transports --------------------------------------------------------------------------------
 */

/* Where the parts of a ring are, as the device sees them (VirtIO 1.3 §2.7, §2.8). */
struct vblk_ring_addresses {
    uint64_t desc, driver, device;
    bool packed;
    const void *desc_cpu, *driver_cpu, *device_cpu; /* the same, as the CPU sees them */
};

struct vblk_transport;
struct vblk_transport_ops {
    const char *name;
    uint64_t (*get_features)(struct vblk_transport *t);
    int (*set_features)(struct vblk_transport *t, uint64_t features);
    /* VirtIO 1.3 §2.1. A status of 0 resets, and returns only when the reset is done. */
    uint8_t (*get_status)(struct vblk_transport *t);
    int (*set_status)(struct vblk_transport *t, uint8_t status);
    int (*config_read)(struct vblk_transport *t, unsigned offset, void *to, unsigned len);
    int (*config_write)(struct vblk_transport *t, unsigned offset, const void *from, unsigned len);
    uint32_t (*config_generation)(struct vblk_transport *t);
    /* The deepest ring of a queue; 0 when there is no such queue. */
    unsigned (*queue_depth_max)(struct vblk_transport *t, unsigned queue);
    int (*queue_enable)(struct vblk_transport *t, unsigned queue, unsigned depth,
                        const struct vblk_ring_addresses *a, bool interrupts);
    /* Stops one queue; only with VIRTIO_F_RING_RESET. Returns when it has stopped. */
    int (*queue_reset)(struct vblk_transport *t, unsigned queue);
    /* The doorbell. data is what VIRTIO_F_NOTIFICATION_DATA wants, the queue number without it. */
    void (*notify)(struct vblk_transport *t, unsigned queue, uint32_t data);
    /* The device's reasons for an interrupt, cleared by reading: bit 0 queues, bit 1 configuration.
     * NULL where vectors tell. */
    uint32_t (*interrupt_status)(struct vblk_transport *t);
    /*
     * Optional: finds again a device that was lost and keeps what it had in flight, with the
     * features as negotiated; then queue_resume for each queue. position is the driver's next used
     * entry: the used index, or, packed, the place with the wrap counter in bit 15. -VBLK_ENOTSUP:
     * this device only comes back by a reset. -VBLK_ENODEV: it has not come back.
     */
    int (*resume)(struct vblk_transport *t);
    int (*queue_resume)(struct vblk_transport *t, unsigned queue, uint16_t position);
};

struct vblk_transport {
    const struct vblk_transport_ops *ops;
    const struct vblk_platform *platform;
};

struct vblk_mmio {
    struct vblk_transport t;
    uint64_t base;
    uint64_t notify; /* address of QueueNotify */
};

struct vblk_pci_window {
    uint64_t address, len;
};

struct vblk_pci {
    struct vblk_transport t;
    uint32_t function;
    struct vblk_pci_window common, notify, isr, device;
    uint32_t notify_multiplier;
    unsigned msix_capability;
    bool notification_data, msix;
    uint64_t doorbell[VBLK_QUEUES_MAX];
};

/* A virtio-mmio device, version 2 (VirtIO 1.3 §4.2). base is for reg_read. -VBLK_ENODEV when no
 * block device is there. */
int qz_vblk_mmio_init(struct vblk_mmio *m, const struct vblk_platform *p, uint64_t base);
/* A virtio-pci device with its modern interface (VirtIO 1.3 §4.1). */
int qz_vblk_pci_init(struct vblk_pci *pci, const struct vblk_platform *p, uint32_t function);

/* ---- features ----------------------------------------------------------------------------------
 */

/* Bits of the device's features (VirtIO 1.3 §5.2.3, §6). */
enum vblk_feature {
    VBLK_F_SIZE_MAX = 1,
    VBLK_F_SEG_MAX = 2,
    VBLK_F_GEOMETRY = 4,
    VBLK_F_RO = 5,
    VBLK_F_BLK_SIZE = 6,
    VBLK_F_FLUSH = 9,
    VBLK_F_TOPOLOGY = 10,
    VBLK_F_CONFIG_WCE = 11,
    VBLK_F_MQ = 12,
    VBLK_F_DISCARD = 13,
    VBLK_F_WRITE_ZEROES = 14,
    VBLK_F_LIFETIME = 15,
    VBLK_F_SECURE_ERASE = 16,
    VBLK_F_ZONED = 17,
    VBLK_F_INDIRECT_DESC = 28,
    VBLK_F_EVENT_IDX = 29,
    VBLK_F_VERSION_1 = 32,
    VBLK_F_ACCESS_PLATFORM = 33,
    VBLK_F_RING_PACKED = 34,
    VBLK_F_IN_ORDER = 35,
    VBLK_F_ORDER_PLATFORM = 36,
    VBLK_F_NOTIFICATION_DATA = 38,
    VBLK_F_RING_RESET = 40,
};
#define VBLK_BIT(feature) (UINT64_C(1) << (feature))

/* "VIRTIO_BLK_F_DISCARD" for a bit that the driver knows, NULL for another. */
const char *qz_vblk_feature_name(unsigned bit);

/* ---- configuration -----------------------------------------------------------------------------
 */

enum vblk_scheduler {
    VBLK_SCHED_NONE,     /* first come, first served */
    VBLK_SCHED_PRIORITY, /* classes, with ageing */
    VBLK_SCHED_DEADLINE, /* earliest deadline first */
};

/* What happens to requests that a device had when it was reset. */
enum vblk_recovery {
    VBLK_RECOVER_RESUBMIT, /* again; appends to a zone, which are not idempotent, fail */
    VBLK_RECOVER_FAIL,     /* -VBLK_EIO */
};

struct vblk_config {
    unsigned queue_count;  /* 1 to VBLK_QUEUES_MAX; fewer where the device has fewer */
    unsigned queue_depth;  /* 4 to VBLK_DEPTH_MAX, made a power of two (downwards) */
    unsigned segments_max; /* of one request, 1 to VBLK_SEGMENTS_MAX */
    unsigned ranges_max;   /* of one discard, 1 to VBLK_RANGES_MAX */
    uint64_t features_off; /* never negotiated */
    uint64_t sectors_max;  /* a larger device is refused; 0: no bound */
    bool interrupts;       /* qz_vblk_arm() will be used; otherwise the device is told never to */
    bool batch;            /* one doorbell for a batch; off: one for each request */
    bool latency;          /* keeps latency histograms: two clock readings a batch */
    bool zero_copy;        /* off: data goes through buffers of the driver */
    uint32_t bounce_bytes; /* for each request without zero_copy; at least a sector */
    uint32_t coalesce_time_us;   /* 0: no coalescing by time */
    uint32_t coalesce_threshold; /* completions for one interrupt at most; 0 and 1: none */
    enum vblk_scheduler scheduler;
    enum vblk_recovery recovery;
    /* Called from the platform's interrupt: queue n has something to poll; VBLK_CONFIG_CHANGED:
     * call qz_vblk_reread_config() when the queues are quiet. May be NULL. */
    void (*event)(void *arg, unsigned queue);
    void *event_arg;
};

enum { VBLK_CONFIG_CHANGED = 0xffff };

/* Sound values: one queue of 128, packed where the device can, zero copy, batches. */
void qz_vblk_config_default(struct vblk_config *c);

/* ---- requests ----------------------------------------------------------------------------------
 */

/* The values are the specification's (VirtIO 1.3 §5.2.6). */
enum vblk_op {
    VBLK_OP_READ = 0,
    VBLK_OP_WRITE = 1,
    VBLK_OP_FLUSH = 4,
    VBLK_OP_GET_ID = 8,
    VBLK_OP_GET_LIFETIME = 10,
    VBLK_OP_DISCARD = 11,
    VBLK_OP_WRITE_ZEROES = 13,
    VBLK_OP_SECURE_ERASE = 14,
    VBLK_OP_ZONE_APPEND = 15,
    VBLK_OP_ZONE_REPORT = 16,
    VBLK_OP_ZONE_OPEN = 18,
    VBLK_OP_ZONE_CLOSE = 20,
    VBLK_OP_ZONE_FINISH = 22,
    VBLK_OP_ZONE_RESET = 24,
    VBLK_OP_ZONE_RESET_ALL = 26,
};

enum vblk_priority { VBLK_PRIO_HIGH, VBLK_PRIO_NORMAL, VBLK_PRIO_LOW, VBLK_PRIO_COUNT };

struct vblk_segment {
    void *base;
    uint32_t len;
};

struct vblk_range {
    uint64_t sector;
    uint32_t sectors;
    bool unmap; /* write zeroes: the device may deallocate */
};

enum { VBLK_PENDING = 1 }; /* status of a request that the driver has */

/* The caller owns it; from submit until poll returns it, it and its data belong to the driver. */
struct vblk_request {
    struct vblk_request *next; /* the driver's, as is child */
    uint32_t op;               /* enum vblk_op */
    uint16_t count;            /* of segments or of ranges */
    uint8_t priority;          /* enum vblk_priority */
    uint8_t attempts;          /* how often the device was given it */
    uint64_t sector;           /* after ZONE_APPEND: where the data went */
    union {
        struct vblk_segment segment;         /* the data when count is 1 */
        const struct vblk_segment *segments; /* when it is more */
        const struct vblk_range *ranges;     /* DISCARD, WRITE_ZEROES, SECURE_ERASE */
    };
    uint64_t deadline_ns;  /* of the platform's clock; 0: none */
    int32_t status;        /* 0, negative enum vblk_error, or VBLK_PENDING */
    uint8_t device_status; /* the byte that the device wrote, for ZONED's own codes */
    struct vblk_request *child;
    void *user;
};

/* ---- device ------------------------------------------------------------------------------------
 */

struct vblk_device;
struct vblk_queue;

enum vblk_zone_model { VBLK_ZONES_NONE, VBLK_ZONES_HOST_MANAGED, VBLK_ZONES_HOST_AWARE };

struct vblk_info {
    uint64_t features;   /* negotiated */
    uint64_t offered;    /* by the device */
    uint64_t sectors;    /* of 512 bytes */
    uint64_t bytes_max;  /* of the data of one request */
    uint32_t block_size; /* logical, bytes */
    uint32_t size_max;   /* bytes of one segment */
    uint32_t segments_max;
    uint32_t discard_sectors_max, discard_ranges_max, discard_alignment;
    uint32_t zeroes_sectors_max, zeroes_ranges_max;
    uint32_t erase_sectors_max, erase_ranges_max;
    uint16_t queues_offered;
    uint16_t queues; /* that run; fewer than configured is the degraded mode */
    uint16_t depth;
    bool read_only, writeback;
    enum vblk_zone_model zone_model;
    uint32_t zone_sectors, zones_open_max, zones_active_max, append_sectors_max,
        zone_write_granularity;
    uint64_t dma_bytes, resets;
    uint64_t resumes; /* of a lost device, its rings as they were */
};

/* Bytes of private memory that a device with this configuration needs, aligned to 64; 0 when the
 * configuration is invalid. */
size_t qz_vblk_memory_size(const struct vblk_config *c);
/* Builds a device in memory, which stays the caller's. Nothing is done to the hardware. */
int qz_vblk_create(void *memory, size_t size, struct vblk_transport *t, const struct vblk_config *c,
                   struct vblk_device **dev);
/* Resets the device, negotiates, builds the queues, sets DRIVER_OK (VirtIO 1.3 §3.1). */
int qz_vblk_start(struct vblk_device *dev);
/*
 * Resets the device and gives its memory back. Requests still there come out of qz_vblk_poll() with
 * -VBLK_ECANCELED. A device that does not reset (-VBLK_ETIMEDOUT) may still write: its rings are
 * then not given back, and the buffers of those requests must not be used for anything else.
 */
int qz_vblk_stop(struct vblk_device *dev);

void qz_vblk_get_info(const struct vblk_device *dev, struct vblk_info *info);
struct vblk_queue *qz_vblk_queue(struct vblk_device *dev, unsigned index);

struct vblk_queue_info {
    bool running, broken, packed, indirect, event_idx, in_order;
    uint16_t depth, in_flight;
    unsigned waiting; /* for room in the ring */
    uint64_t dma_bytes;
};
void qz_vblk_get_queue_info(const struct vblk_queue *q, struct vblk_queue_info *info);
/* Allows or forbids a feature (a bit of enum vblk_feature) and negotiates again, as
 * qz_vblk_recover() does; requests go on. VERSION_1 is not to be had off. */
int qz_vblk_set_feature(struct vblk_device *dev, unsigned bit, bool on);
/* Reads capacity and limits again, after a change of configuration (VirtIO 1.3 §5.2.5). 1 when the
 * capacity changed. */
int qz_vblk_reread_config(struct vblk_device *dev);
/* Turns the device's write cache on or off (VirtIO 1.3 §5.2.5.2). -VBLK_ENOTSUP without
 * CONFIG_WCE. */
int qz_vblk_set_writeback(struct vblk_device *dev, bool on);

/* ---- the I/O path ------------------------------------------------------------------------------
 */

/*
 * Takes a batch. Returns how many were taken, from the front: fewer than n when the next one is
 * invalid, whose cause is then the status of requests[return value]. A negative return means the
 * queue is broken or stopped. What the ring has no room for waits in the driver, in the order of
 * the scheduler. One doorbell at most.
 */
int qz_vblk_submit(struct vblk_queue *q, struct vblk_request *const *requests, unsigned n);
/*
 * Collects up to max finished requests. Negative when the device broke the queue and nothing is
 * left to collect: qz_vblk_recover() is next.
 */
int qz_vblk_poll(struct vblk_queue *q, struct vblk_request **done, unsigned max);
/*
 * Wants an interrupt for what comes next. Returns true when something has finished meanwhile (poll
 * again, no interrupt is promised). *wait_ns, which may be NULL, is how long to wait at most before
 * polling anyway: coalescing by time; 0: forever. The number of completions for one interrupt
 * adapts to what is in flight.
 */
bool qz_vblk_arm(struct vblk_queue *q, uint64_t *wait_ns);
/* How many requests the driver has, waiting and in the ring. */
unsigned qz_vblk_pending(const struct vblk_queue *q);
/*
 * Ends waiting requests whose deadline is past with -VBLK_ETIMEDOUT (poll returns them) and returns
 * how many requests in the ring are late: those are the device's until a reset.
 */
unsigned qz_vblk_expire(struct vblk_queue *q);

/* ---- recovery ----------------------------------------------------------------------------------
 */

/* Is the device or one of its queues broken, or has it asked for a reset (VirtIO 1.3 §2.1.1)? */
bool qz_vblk_needs_recovery(struct vblk_device *dev);
/*
 * A device that was lost and tracks what it has in flight (vhost-user's shared buffer) gets its
 * rings back and goes on; the requests stay its own, whatever policy and deadlines say. Otherwise:
 * resets the device and builds everything again. Requests that were in the rings follow the
 * configuration's policy, those past their deadline end with -VBLK_ETIMEDOUT, nothing is lost. When
 * the device offers fewer queues than before, requests move to those there are.
 */
int qz_vblk_recover(struct vblk_device *dev);
/* The same for one queue, without disturbing the others. -VBLK_ENOTSUP without RING_RESET: the
 * queue is as it was. */
int qz_vblk_queue_recover(struct vblk_queue *q);

/* ---- statistics --------------------------------------------------------------------------------
 */

enum { VBLK_LATENCY_BUCKETS = 256 };

struct vblk_stats {
    uint64_t requests, bytes_read, bytes_written, errors, timeouts;
    uint64_t doorbells, batches, polls, empty_polls, interrupts;
    uint64_t occupancy_sum; /* in flight, summed over submitted requests */
    uint32_t occupancy_max;
    uint64_t resubmitted;
    uint64_t latency_sum_ns, latency_max_ns;
    uint32_t latency[VBLK_LATENCY_BUCKETS]; /* see qz_vblk_latency() */
};

void qz_vblk_get_stats(const struct vblk_queue *q, struct vblk_stats *s);
void qz_vblk_clear_stats(struct vblk_queue *q);
/* A latency in nanoseconds that per_mille of the requests did not exceed, to within 1/8. */
uint64_t qz_vblk_latency(const struct vblk_stats *s, unsigned per_mille);

#endif

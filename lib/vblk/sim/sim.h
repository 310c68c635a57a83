/*
 * sim.h - the simulated platform: a block device in this process, with reordering and faults.
 *
 * The device works only in sim_run(), so a test decides when; it looks at a queue only after a
 * doorbell that the driver owed it. Device addresses differ from pointers by SIM_DMA_OFFSET, and an
 * address that was never given out is a violation.
 */
#ifndef SIM_H
#define SIM_H

#include "dev_ring.h"

enum { SIM_QUEUES_MAX = 16, SIM_BLOCKS_MAX = 256, SIM_CHAINS_MAX = 128 };
#define SIM_DMA_OFFSET UINT64_C(0x300000000000)

enum sim_fault {
    SIM_FAULT_NONE,
    SIM_FAULT_STALL,       /* takes requests, never uses them */
    SIM_FAULT_ID_HIGH,     /* an id past the ring */
    SIM_FAULT_ID_UNKNOWN,  /* an id that the device does not have */
    SIM_FAULT_LENGTH,      /* more bytes than there were */
    SIM_FAULT_RUNAWAY,     /* a used index far ahead (split) */
    SIM_FAULT_TWICE,       /* the same id again */
    SIM_FAULT_NO_STATUS,   /* the status byte is not written */
    SIM_FAULT_IO,          /* IOERR */
    SIM_FAULT_NEEDS_RESET, /* sets the bit and stops */
};

struct sim_options {
    uint64_t features; /* besides VERSION_1 */
    unsigned queues, depth;
    uint64_t sectors;
    uint32_t seg_max, size_max, block_size;
    bool reorder, translate, batch_used; /* batch_used: in order, one used entry for several */
    uint64_t seed;
};

struct sim_queue {
    bool enabled, kicked, interrupts;
    struct dev_ring ring;
    struct dev_chain *chains[SIM_CHAINS_MAX]; /* the first `held` are requests in the device */
    unsigned held;
    uint64_t doorbells, interrupts_raised, served;
    uint32_t notify_data;
};

struct sim {
    struct vblk_transport t;
    struct vblk_platform p;
    struct sim_options o;
    uint64_t driver_features;
    uint8_t status;
    uint32_t generation;
    uint64_t sectors;
    uint8_t writeback;
    struct sim_queue q[SIM_QUEUES_MAX];
    uint8_t *disk;
    uint64_t rng, clock_ns, appended;
    enum sim_fault fault;
    unsigned fault_after; /* requests served before it strikes */
    unsigned queues_usable;
    bool refuse_features, refuse_reset, config_moves;
    unsigned violations, logs;
    const char *violation;
    struct {
        uint8_t *at;
        size_t len;
    } blocks[SIM_BLOCKS_MAX];
    unsigned dma_blocks;
    void (*handlers[1 + SIM_QUEUES_MAX])(void *arg);
    void *handler_args[1 + SIM_QUEUES_MAX];
};

struct sim *sim_new(const struct sim_options *o);
void sim_free(struct sim *s);
/* Memory that the device may reach, for a test's own data. */
void *sim_buffer(struct sim *s, size_t len);
/* Serves up to max requests; returns how many were used. */
unsigned sim_run(struct sim *s, unsigned max);
void sim_resize(struct sim *s, uint64_t sectors);
uint64_t sim_random(struct sim *s);

#endif

/*
 * test_driver.h - an in-process guest: memory, buses, a PCI bus, and a virtio driver that works on
 * them.
 *
 * Unit tests of virtio devices talk to their device exactly as a kernel does: through configuration
 * space, BARs and rings in guest memory. Nothing here is part of the monitor.
 *
 *     struct vtest_machine *tm = vtest_machine_new(0);
 *     virtio_rng_new(&d, &tm->m, tm->m.main_loop, &err);       (the device's loop: tm->m.main_loop)
 *     virtio_pci_new(&vp, d, &err);
 *     struct vtest *t = vtest_open(tm, VIRTIO_ID_RNG);
 *     vtest_negotiate(t, 0, true);                             (features wanted, packed rings)
 *     vtest_request(t, 0, NULL, 0, (struct iovec[]){{buf, sizeof(buf)}}, 1, &written);
 *     vtest_close(t); virtio_pci_free(vp); vtest_machine_free(tm);
 *
 * Everything runs on the caller's thread: vtest_wait() and vtest_run() drive the loop. Waits are
 * bounded (VTEST_WAIT_MS of wall-clock time) and say so by -ETIMEDOUT, so a test fails and never
 * hangs. What can only go wrong by a mistake in the test itself (no memory, no such queue) ends the
 * process with a line.
 */
#ifndef VMM_VIRTIO_TEST_DRIVER_H
#define VMM_VIRTIO_TEST_DRIVER_H

#include <sys/uio.h>

#include "devices/pci.h"
#include "devices/virtio/virtio.h"
#include "devices/virtio/virtio_pci.h"

enum {
    VTEST_WAIT_MS = 20000,
    VTEST_QUEUES_MAX = VIRTIO_QUEUES_MAX,
    VTEST_MSIS_MAX = 256,
};
#define VTEST_RAM (64ull << 20) /* default guest memory, sparse */

/* ---- the machine ------------------------------------------------------------------------------
 */

struct vtest_msi {
    uint64_t address;
    uint32_t data;
};

struct vtest_machine {
    struct machine
        m; /* memory, pio, mmio, irq, clock, pci, main_loop: all real; accel: the one below */
    struct accel_vm accel; /* catches MSIs instead of delivering them; no doorbells, unless ... */
    bool doorbells; /* ... this is set before a device becomes active: then vtest_kick() finds them
                     */
    struct vtest_msi msi[VTEST_MSIS_MAX]; /* the first msi_count of them */
    unsigned msi_count;                   /* may pass VTEST_MSIS_MAX */
    unsigned requests[3];            /* by enum machine_request: how often the machine was asked */
    struct vtest_doorbell *doorbell; /* those added now */
    unsigned doorbell_count;
    uint64_t memory_top; /* vtest_alloc() takes from here downwards */
};

struct vtest_machine *vtest_machine_new(uint64_t ram); /* 0: VTEST_RAM */
void vtest_machine_free(struct vtest_machine *tm);     /* after every virtio_pci_free() */

/* Guest memory that stays the caller's, zeroed. align: a power of two. */
gpa_t vtest_alloc(struct vtest_machine *tm, uint64_t size, uint64_t align);
void *vtest_mem(struct vtest_machine *tm, gpa_t a,
                uint64_t len); /* the host's view; NULL outside RAM */

/* Handles what is ready on the loop, waiting up to timeout_ms for the first of it. */
void vtest_run(struct vtest_machine *tm, int timeout_ms);
/* Runs the loop until done(context) is true: 0, or -ETIMEDOUT. */
int vtest_run_until(struct vtest_machine *tm, bool (*done)(void *context), void *context);
/* MSIs sent with this data value (a queue's or the configuration's vector number, see below). */
unsigned vtest_msi_count(const struct vtest_machine *tm, uint32_t data);

/* Configuration space by mechanism #1, and by ECAM; 1, 2 or 4 bytes. */
uint32_t vtest_config_read(struct vtest_machine *tm, unsigned devfn, unsigned reg, unsigned size);
void vtest_config_write(struct vtest_machine *tm, unsigned devfn, unsigned reg, unsigned size,
                        uint32_t value);
uint64_t vtest_ecam(const struct vtest_machine *tm, unsigned devfn, unsigned reg); /* its address */
uint64_t vtest_mmio_read(struct vtest_machine *tm, uint64_t address, unsigned size);
void vtest_mmio_write(struct vtest_machine *tm, uint64_t address, unsigned size, uint64_t value);

/* A device and the bus it is on, for test_state.h: their state, and the reset of both. */
struct vtest_device {
    struct vtest_machine *tm;
    struct virtio_pci *vp;
};
void vtest_device_state(struct vtest_device *device, struct qz_state *s);
void vtest_device_reset(struct vtest_device *device);
#define VTEST_STATE_KEPT(machine, transport)                                                       \
    TEST_STATE_KEPT((&(struct vtest_device){machine, transport}), vtest_device_state,              \
                    vtest_device_reset)

/* ---- the driver -------------------------------------------------------------------------------
 */

struct vtest_slot { /* one request in flight */
    bool used, done;
    uint32_t written; /* what the device said */
    uint16_t head;    /* split: head index; packed: buffer id, which is the slot's number */
    uint16_t slots;   /* ring descriptors it takes */
    struct iovec *in; /* where the answer goes */
    unsigned in_count;
    gpa_t in_buffer; /* guest memory of the writable part, contiguous */
    gpa_t memory;    /* the block behind the request */
    uint64_t in_bytes;
};

struct vtest_queue {
    uint16_t size;   /* as negotiated; set it before vtest_setup_queue() for another one */
    uint16_t vector; /* MSI-X vector: q + 1, and its MSI's data value */
    bool enabled;
    gpa_t desc, driver, device_area;
    uint64_t notify;                /* guest-physical address of its doorbell */
    uint16_t next_avail, last_used; /* split: free-running; packed: position */
    bool avail_wrap, used_wrap;
    uint16_t num_free;
    uint16_t kicked_at;  /* next_avail at the last kick decision */
    uint16_t added;      /* packed: ring slots made available since the last kick decision */
    bool always_kick;    /* ignore notification suppression */
    uint16_t *free_list; /* split: free descriptors */
    struct vtest_slot slot[VIRTQUEUE_SIZE_MAX]; /* by head (split) or buffer id (packed) */
    unsigned in_flight;
};

struct vtest {
    struct vtest_machine *tm;
    unsigned devfn;
    bool msix; /* found and enabled (default); set false before negotiating for INTx */
    uint64_t common, isr, device_config, notify_base; /* guest-physical addresses of the regions */
    uint32_t notify_multiplier;
    uint64_t offered, features;
    bool packed, event_index;
    bool indirect; /* use indirect tables when negotiated (default true) */
    unsigned queue_count;
    unsigned in_flight;
    struct vtest_queue *q; /* queue_count of them */
    uint64_t arena, arena_at,
        arena_end; /* memory behind requests; starts over when none is in flight */
};

/*
 * Finds the device with this virtio id on bus 0, assigns BARs when nobody did
 * (pci_assign_resources), resets it and sets ACKNOWLEDGE and DRIVER. NULL when there is none. nth:
 * of several with the same id.
 */
struct vtest *vtest_open(struct vtest_machine *tm, uint16_t virtio_id);
struct vtest *vtest_open_nth(struct vtest_machine *tm, uint16_t virtio_id, unsigned nth);
void vtest_close(struct vtest *t); /* resets the device */

/*
 * The whole way to DRIVER_OK: takes what is offered of `features`, VERSION_1, INDIRECT_DESC,
 * EVENT_IDX and, with packed, RING_PACKED (-ENOTSUP when not offered); sets up every queue;
 * vectors: configuration 0, queue q q + 1. vtest_negotiate_exact() takes exactly `features`.
 */
int vtest_negotiate(struct vtest *t, uint64_t features, bool packed);
int vtest_negotiate_exact(struct vtest *t, uint64_t features);
/* The steps, for tests that leave one out. */
int vtest_set_features(struct vtest *t,
                       uint64_t features);           /* to FEATURES_OK; -EINVAL when refused */
void vtest_setup_queue(struct vtest *t, unsigned q); /* rings, vector, enable */
/* After a reset of one queue (VIRTIO_F_RING_RESET) ended: forgets its requests, then sets it up. */
void vtest_restart_queue(struct vtest *t, unsigned q);
void vtest_setup_msix(struct vtest *t);
void vtest_driver_ok(struct vtest *t);
int vtest_reset(
    struct vtest *t); /* writes 0, runs the loop until it reads 0; requests are forgotten */

uint8_t vtest_status(struct vtest *t);
void vtest_set_status(struct vtest *t, uint8_t status);
uint64_t vtest_common_read(struct vtest *t, unsigned offset, unsigned size);
void vtest_common_write(struct vtest *t, unsigned offset, unsigned size, uint64_t value);
void vtest_device_read(struct vtest *t, unsigned offset, void *buf, unsigned len);
void vtest_device_write(struct vtest *t, unsigned offset, const void *buf, unsigned len);
uint8_t vtest_isr(struct vtest *t); /* reads and so clears it */

/*
 * Makes one request available, without a kick: `out` is copied to guest memory now, `in` (which
 * must live until the request is done) is filled when it completes. Returns a token (>= 0), or
 * -ENOSPC when the ring is full. One descriptor for each iovec; an indirect table when t->indirect
 * and more than one.
 */
int vtest_submit(struct vtest *t, unsigned q, const struct iovec *out, unsigned out_count,
                 struct iovec *in, unsigned in_count);
/* Rings the doorbell if the device wants to know. Returns whether it did. */
bool vtest_kick(struct vtest *t, unsigned q);
/* Takes what the device returned: completions seen (their tokens are then done). -EPROTO: it
 * returned nonsense. */
int vtest_poll(struct vtest *t, unsigned q);
/* Runs the loop until the token is done, then frees it. written may be NULL. 0, -ETIMEDOUT or
 * -EPROTO. */
int vtest_wait(struct vtest *t, unsigned q, int token, uint32_t *written);
/* Any token: returns the first that is done (freed), or -ETIMEDOUT. */
int vtest_wait_any(struct vtest *t, unsigned q, uint32_t *written);
/* submit, kick, wait. */
int vtest_request(struct vtest *t, unsigned q, const struct iovec *out, unsigned out_count,
                  struct iovec *in, unsigned in_count, uint32_t *written);

/*
 * Asks the device for an interrupt at the next completion (or not at all), by flag or event index
 * as negotiated. On at first.
 */
void vtest_interrupts(struct vtest *t, unsigned q, bool on);

#endif

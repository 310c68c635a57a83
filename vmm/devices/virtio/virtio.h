/*
 * virtio.h - what every virtio device is made of, and what its transport does for it.
 *
 * A device embeds struct virtio_device first, fills the fields marked (device) and calls
 * virtio_pci_new() (virtio_pci.h). The transport owns status, feature negotiation, queue registers
 * and interrupts, and freezes queue registers at DRIVER_OK.
 *
 * Threads: notify, activate, reset and everything on the loop run on `loop`'s thread or a vCPU's
 * thread, always with `lock` held. A doorbell is an eventfd watched by `loop`, so notify comes on
 * the loop.
 *
 * A device may spread its queues over several loops, its lanes: then each lane has a lock of its
 * own, notify comes on the loop of the queue's lane with that lock only, and whatever touches the
 * device as a whole (activate, reset, configuration writes) comes with all of them: virtio_lock().
 */
#ifndef VMM_VIRTIO_H
#define VMM_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "devices/virtio/virtqueue.h"
#include "machine/machine.h"

#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

enum { VIRTIO_QUEUES_MAX = 64 };

struct virtio_device;

struct virtio_device_ops {
    const char *name;   /* "virtio-blk" */
    uint16_t device_id; /* VIRTIO_ID_BLOCK ... */

    /* Device configuration space; offset + len lie inside config_size. Reads are zero-filled
     * before. */
    void (*config_read)(struct virtio_device *d, unsigned offset, void *buf, unsigned len);
    void (*config_write)(struct virtio_device *d, unsigned offset, const void *buf,
                         unsigned len); /* may be NULL */

    /* DRIVER_OK: features are final, queues started. May look at the queues at once. May be NULL.
     */
    void (*activate)(struct virtio_device *d);
    /* The driver rang queue q's doorbell, or activate happened (so nothing is missed). On the
     * loop's thread. */
    void (*notify)(struct virtio_device *d, unsigned q);
    /*
     * The driver reset an active device (or the machine was reset). Stop taking buffers, let what
     * is in flight end, then call virtio_reset_done() - from here when nothing is in flight, else
     * later from the loop.
     */
    void (*reset)(struct virtio_device *d);
    /* VIRTIO_F_RING_RESET of one queue: as reset, ended by virtio_queue_reset_done(). NULL: not
     * offered. */
    void (*queue_reset)(struct virtio_device *d, unsigned q);
    /* Puts back every chain it holds without working on it, as if it was not popped; its queues are
     * notified again before the machine goes on. Lock held. NULL: it holds none. */
    void (*let_go)(struct virtio_device *d);
    bool (*quiet)(struct virtio_device *d); /* nothing in flight; all locks held. NULL: always so */
    /*
     * What the device keeps beside its queues, saved or loaded; nothing in flight, lock held.
     * Loaded after status and queues: an active device goes on, and its driver is told nothing.
     * NULL: it keeps nothing.
     */
    void (*state)(struct virtio_device *d, struct qz_state *s);
    void (*free)(struct virtio_device *d); /* loop stopped, nothing in flight */
};

/* What the transport does; filled by virtio_pci.c (or by a test's in-process transport). */
struct virtio_transport_ops {
    void (*queue_interrupt)(struct virtio_device *d, uint16_t msix_vector);
    void (*config_changed)(struct virtio_device *d);
    void (*status_changed)(struct virtio_device *d); /* NEEDS_RESET was set */
    void (*reset_done)(struct virtio_device *d);
    void (*queue_reset_done)(struct virtio_device *d, unsigned q);
    void (*queue_again)(struct virtio_device *d, unsigned q);
};

struct virtio_device {
    const struct virtio_device_ops *ops; /* (device) */
    struct machine *machine;             /* (device) */
    struct qz_loop *loop;                /* (device) where its queues are served */
    struct qz_loop **lane_loop; /* (device) or queue q on lane_loop[q % lanes]; NULL: on loop */
    unsigned lanes;             /* (device) */
    uint64_t offered; /* (device) feature bits beyond what the transport offers itself, which are
                         VERSION_1, RING_PACKED (unless no_packed), INDIRECT_DESC, EVENT_IDX,
                         IN_ORDER no, ACCESS_PLATFORM no */
    bool no_packed;   /* (device) offer split rings only */
    unsigned config_size;    /* (device) */
    unsigned queue_count;    /* (device) up to VIRTIO_QUEUES_MAX */
    uint16_t queue_size_max; /* (device) power of two, up to VIRTQUEUE_SIZE_MAX */
    const char *label;       /* (device) for messages: "disk a.img"; owned by the device */

    pthread_mutex_t lock;       /* initialised by the transport */
    pthread_mutex_t *lane_lock; /* one for each lane, inside lock; the transport's */
    struct virtqueue *queue;    /* queue_count of them, allocated by the transport */
    uint64_t negotiated;        /* valid from FEATURES_OK on */
    uint8_t status;             /* VIRTIO_CONFIG_S_* */
    bool active;                /* between DRIVER_OK and reset */

    const struct virtio_transport_ops *transport;
    void *transport_data;
};

static inline bool virtio_has(const struct virtio_device *d, unsigned bit)
{
    return d->negotiated >> bit & 1;
}
/* All locks of the device, and the one that guards queue q. */
void virtio_lock(struct virtio_device *d);
void virtio_unlock(struct virtio_device *d);
static inline pthread_mutex_t *virtio_queue_lock(struct virtio_device *d, unsigned q)
{
    return d->lane_lock ? &d->lane_lock[q % d->lanes] : &d->lock;
}
/* Sets NEEDS_RESET (VirtIO 1.3 §2.1.2) and tells the driver. A queue's lock held, or all. */
void virtio_fail(struct virtio_device *d);
/* These three with all locks held. */
void virtio_config_changed(struct virtio_device *d);
void virtio_reset_done(struct virtio_device *d);
void virtio_queue_reset_done(struct virtio_device *d, unsigned q);
/*
 * Calls notify for queue q once more, after the loop has served others. For a device that stops
 * before its queue is empty, so that a driver that never stops giving cannot keep the thread. Any
 * thread; a reset forgets it.
 */
void virtio_queue_again(struct virtio_device *d, unsigned q);

#endif

/*
 * virtio_pci_internal.h - what the files of the PCI transport share. Arrows: virtio_pci.c (the PCI
 * function, doorbells, interrupts) calls virtio_pci_common.c (the registers of the common
 * configuration and what they start) and is called back for doorbells and the ISR;
 * virtio_pci_state.c writes and reads it all.
 */
#ifndef VMM_VIRTIO_PCI_INTERNAL_H
#define VMM_VIRTIO_PCI_INTERNAL_H

#include <linux/virtio_pci.h>

#include "devices/pci.h"
#include "devices/virtio/virtio_pci.h"

enum {
    ISR_QUEUE = 1,
    ISR_CONFIG = 2,
    NO_VECTOR = VIRTIO_MSI_NO_VECTOR,
};

struct vp_queue {
    struct virtio_pci *vp;
    unsigned index;
    int fd; /* doorbell */
    struct qz_watch watch;
    bool resetting;    /* VIRTIO_F_RING_RESET in progress */
    uint64_t doorbell; /* where the accelerator listens; 0: nowhere */
};

struct virtio_pci {
    struct pci_device pci;
    struct virtio_device *d;
    uint64_t offered, driver_features;
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select, config_vector;
    uint8_t generation, isr;  /* isr: isr_lock, for a wire that several queues pull */
    pthread_mutex_t isr_lock; /* inside all others but the function's own */
    bool resetting, held;
    uint64_t bar_base; /* of REGION_BAR; 0: not mapped */
    unsigned window;   /* offset of the PCI_CFG capability */
    struct vp_queue *q;
};

static inline struct virtio_pci *vp_of(const struct virtio_device *d)
{
    return d->transport_data;
}

/*
 * The device's lock is held in all of these, but for vp_ring(), which needs none.
 */

/* Makes the device's loop look at the queue. */
void vp_ring(struct vp_queue *q);
/* Makes the accelerator's doorbells what they should be. */
void vp_doorbells_update(struct virtio_pci *vp);
/* The ISR, which reading acknowledges (§4.1.4.5). */
uint8_t vp_isr_take(struct virtio_pci *vp);

/* `vector`, or NO_VECTOR where the function has no such one. */
uint16_t vp_checked_vector(const struct virtio_pci *vp, uint16_t vector);
void vp_queue_defaults(struct virtio_device *d, unsigned i);
/* Ends in vp_reset_done(), at once or when the device has let go of what is in flight. */
void vp_reset_begin(struct virtio_pci *vp);
void vp_reset_done(struct virtio_device *d);
void vp_queue_reset_done(struct virtio_device *d, unsigned i);

/* The common configuration (§4.1.4.3): `size` is 1, 2, 4 or 8. */
uint64_t vp_common_read(struct virtio_pci *vp, unsigned offset, unsigned size);
void vp_common_write(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value);

#endif

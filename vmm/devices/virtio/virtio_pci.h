/*
 * virtio_pci.h - the modern virtio PCI transport (VirtIO 1.3 §4.1).
 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include "devices/virtio/virtio.h"

struct virtio_pci;

/*
 * Puts a filled-in virtio device on the machine's PCI bus, at the first free slot. The transport
 * owns the device from then on, also on failure: virtio_pci_free() and a failing virtio_pci_new()
 * call its ops->free.
 */
int virtio_pci_new(struct virtio_pci **vp, struct virtio_device *d, struct qz_error *err);
void virtio_pci_free(struct virtio_pci *vp);
/*
 * A device that is held takes nothing new from its rings; what is in flight goes on. Afterwards all
 * queues are looked at again.
 */
void virtio_pci_hold(struct virtio_pci *vp, bool hold);
/* Nothing is in flight; a reset counts as something. */
bool virtio_pci_quiet(struct virtio_pci *vp);
/*
 * Transport, queues and device, saved or loaded, after pci_bus_state(); vCPUs stopped, the device
 * drained or fresh. Features, rings and vectors are checked as if a driver had set them.
 */
void virtio_pci_state(struct virtio_pci *vp, struct qz_state *s);

#endif
